//! DEF, first half: defences of the machine taken down.

use super::{Scene, Sink, rule};
use crate::action::{Action, Kind, Removal, Run, ServiceChange, Word, WriteFile, shown};
use crate::content::{self, FileKind};
use crate::finding::{RuleInfo, Severity};

const FIREWALL: RuleInfo = rule(
    "DEF-001",
    Severity::Deny,
    "firewall opened or stopped",
    "declare the ports under `[network] listen`; the site's recipe opens them",
    "CWE-1188",
    "T1562.004",
);
const CONFINEMENT: RuleInfo = rule(
    "DEF-002",
    Severity::Deny,
    "SELinux or AppArmor off",
    "ship a profile for the one program that is held back",
    "CWE-693",
    "T1562.001",
);
const AUDIT: RuleInfo = rule(
    "DEF-003",
    Severity::Deny,
    "audit or system log off",
    "leave auditd and the log to the site's recipe",
    "CWE-778",
    "T1562.012",
);
const LOGS: RuleInfo = rule(
    "DEF-004",
    Severity::Deny,
    "history or logs wiped",
    "leave logs alone; the site seals a clean disk by itself",
    "CWE-778",
    "T1070.002",
);
const SSHD: RuleInfo = rule(
    "DEF-005",
    Severity::Deny,
    "sshd lets root, passwords or empty passwords in",
    "keep `PermitRootLogin no`, `PasswordAuthentication no` and `PermitEmptyPasswords no`; log in with keys",
    "CWE-287",
    "T1556",
);
const SIGNATURES: RuleInfo = rule(
    "DEF-006",
    Severity::Deny,
    "signatures of packages not checked",
    "remove the option, and give the repository's key with `signed-by`",
    "CWE-347",
    "T1553",
);
const TLS: RuleInfo = rule(
    "DEF-007",
    Severity::Deny,
    "certificates of servers not checked",
    "remove the option, or name the CA with `--cacert`",
    "CWE-295",
    "T1557",
);
const KERNEL_SETTINGS: RuleInfo = rule(
    "DEF-008",
    Severity::Warn,
    "hardening of the kernel off",
    "leave these settings to the base",
    "CWE-693",
    "T1562",
);

pub(super) const RULES: &[RuleInfo] =
    &[FIREWALL, CONFINEMENT, AUDIT, LOGS, SSHD, SIGNATURES, TLS, KERNEL_SETTINGS];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    // A script that flushes in order to build its own rules leaves a firewall behind.
    let builds = scene.runs().any(|(_, run)| {
        matches!(run.program(), "iptables" | "ip6tables")
            && (run.has("-A") || run.has("-I") || run.has("-P"))
            && (run.has("DROP") || run.has("REJECT"))
            || run.program() == "nft" && (run.has("-f") || run.has("add"))
            || run.program() == "ufw" && run.has("enable")
            || matches!(run.program(), "iptables-restore" | "ip6tables-restore")
    });
    for action in scene.actions {
        match &action.kind {
            Kind::Run(run) => {
                firewall(run, builds, action, sink);
                confinement(run, action, sink);
                audit(run, action, sink);
                history(run, action, sink);
                tls(run, action, sink);
                kernel_setting(run, action, sink);
                if run.program() == "gpg" && run.has("--no-sig-check")
                    || run.program() == "debootstrap" && run.has("--no-check-gpg")
                {
                    sink.report(
                        &SIGNATURES,
                        &action.span,
                        format!("`{}` runs without checking signatures", run.program()),
                    );
                }
            }
            Kind::Service { name, change } if *change != ServiceChange::Other => {
                service(name, *change, builds, action, sink);
            }
            Kind::Package { options, program } => packages(options, program, action, sink),
            Kind::Environment { name, value } => environment(name, value, action, sink),
            Kind::Remove { path, how } => removed(path, *how, action, sink),
            Kind::WriteFile(write) => written(write, action, sink),
            Kind::Fetch(fetch) if fetch.unchecked && !is_local(&fetch.url.text) => {
                sink.report(
                    &TLS,
                    &action.span,
                    format!("`{}` is fetched without checking the server", fetch.url.shown()),
                );
            }
            _ => {}
        }
    }
}

fn is_local(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or(url);
    ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local))
}

fn firewall(run: &Run, builds: bool, action: &Action, sink: &mut Sink<'_>) {
    let what = match run.program() {
        "iptables" | "ip6tables" | "iptables-legacy" | "iptables-nft" => {
            let accepts = run.arguments().windows(3).any(|words| {
                matches!(words[0].text.as_str(), "-P" | "--policy")
                    && matches!(words[1].text.as_str(), "INPUT" | "FORWARD" | "OUTPUT")
                    && words[2].is("ACCEPT")
                    && !words[1].is("OUTPUT")
            });
            let other_table = run.option("-t", "--table").is_some_and(|table| !table.is("filter"));
            // One chain of one's own is no firewall.
            let chain = run.arguments().iter().any(|word| {
                word.text.chars().next().is_some_and(char::is_alphabetic)
                    && !matches!(word.text.as_str(), "INPUT" | "FORWARD" | "OUTPUT" | "filter")
            });
            let flushes = (run.has("-F") || run.has("--flush")) && !other_table && !chain;
            if accepts {
                "the firewall lets everything in"
            } else if flushes {
                "all rules of the firewall are removed"
            } else {
                return;
            }
        }
        "ufw" if run.has("disable") || run.has("reset") => "the firewall is switched off",
        "nft" if run.has("flush") && run.has("ruleset") => "all rules of the firewall are removed",
        "nft" if run.line().contains("flush ruleset") => "all rules of the firewall are removed",
        _ => return,
    };
    let severity = if builds { Severity::Warn } else { Severity::Deny };
    sink.report_as(&FIREWALL, severity, &action.span, what);
}

fn confinement(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let off = match run.program() {
        "setenforce" => {
            run.has("0") || run.operands().any(|word| word.text.eq_ignore_ascii_case("permissive"))
        }
        "aa-teardown" | "aa-disable" | "aa-complain" => true,
        "apparmor_parser" => run.has("-R"),
        "semanage" => run.has("permissive") && run.has("-a"),
        _ => false,
    };
    if off {
        sink.report(&CONFINEMENT, &action.span, format!("`{}` switches confinement off", shown(&run.line())));
    }
}

fn audit(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    if run.program() == "auditctl"
        && (run.has("-D") || run.has("-e0") || run.option("-e", "").is_some_and(|word| word.is("0")))
    {
        sink.report(
            &AUDIT,
            &action.span,
            format!("`{}` takes the rules of the audit away", shown(&run.line())),
        );
    }
}

fn service(name: &Word, change: ServiceChange, builds: bool, action: &Action, sink: &mut Sink<'_>) {
    let unit = name.text.trim_end_matches(".service").trim_end_matches(".socket");
    let verb = match change {
        ServiceChange::Stop => "stopped",
        ServiceChange::Disable => "disabled",
        _ => "masked",
    };
    match unit {
        "firewalld"
        | "ufw"
        | "nftables"
        | "iptables"
        | "ip6tables"
        | "SuSEfirewall2"
        | "netfilter-persistent" => {
            let severity = if builds { Severity::Warn } else { Severity::Deny };
            sink.report_as(&FIREWALL, severity, &action.span, format!("the firewall `{unit}` is {verb}"));
        }
        "apparmor" => sink.report(&CONFINEMENT, &action.span, format!("`apparmor` is {verb}")),
        "auditd" | "rsyslog" | "rsyslogd" | "syslog" | "syslogd" | "syslog-ng" | "systemd-journald"
        | "journald" | "kauditd" => {
            sink.report(&AUDIT, &action.span, format!("`{unit}` is {verb}"));
        }
        _ => {}
    }
}

fn history(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let history_name = |word: &Word| matches!(word.text.as_str(), "HISTFILE" | "HISTSIZE" | "HISTFILESIZE");
    let what = match run.program() {
        "history" if run.flag('c', "") || run.flag('d', "") => "the history of the shell is wiped",
        "unset" if run.operands().any(history_name) => "the shell keeps no history",
        "set" if run.line().contains("+o history") => "the shell keeps no history",
        "shopt" if run.line().contains("-u") && run.line().contains("history") => {
            "the shell keeps no history"
        }
        "journalctl"
            if run.arguments().iter().any(|word| {
                word.text
                    .strip_prefix("--vacuum-time=")
                    .or(word.text.strip_prefix("--vacuum-size="))
                    .is_some_and(|value| {
                        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
                        digits.parse::<u32>().is_ok_and(|value| value <= 1)
                    })
            }) =>
        {
            "the journal is emptied"
        }
        _ => return,
    };
    sink.report(&LOGS, &action.span, what);
}

/// Logs whose loss hides who was there.
fn is_log(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    if matches!(path, "/var/log" | "/var/log/*" | "/var/log/*.log" | "/var/log/*log" | "/var/audit") {
        return true;
    }
    let base = path.rsplit('/').next().unwrap_or_default();
    if path.starts_with("/var/log/journal")
        || path.starts_with("/var/log/audit")
        || path.starts_with("/run/log/journal")
        || path.starts_with("/var/audit/")
    {
        return true;
    }
    (path.starts_with("/var/log/") && !path["/var/log/".len()..].contains('/')
        || path.starts_with("/var/run/")
        || path.starts_with("/run/"))
        && [
            "messages",
            "secure",
            "security",
            "auth.log",
            "syslog",
            "wtmp",
            "btmp",
            "utmp",
            "lastlog",
            "faillog",
            "kern.log",
            "cron",
            "maillog",
            "system.log",
            "daemon.log",
            "tallylog",
            "user.log",
        ]
        .iter()
        .any(|log| base.trim_end_matches('*') == *log)
        || path.starts_with("/var/spool/mail/")
        || path.starts_with("/var/mail/")
}

fn is_history(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or_default();
    matches!(
        base,
        ".bash_history"
            | ".zsh_history"
            | ".sh_history"
            | ".ash_history"
            | ".mysql_history"
            | ".python_history"
            | ".history"
            | ".*_history"
    )
}

fn removed(path: &Word, how: Removal, action: &Action, sink: &mut Sink<'_>) {
    if is_log(&path.text) || is_history(&path.text) {
        let verb = match how {
            Removal::Empty => "emptied",
            Removal::Shred => "overwritten",
            _ => "removed",
        };
        sink.report(&LOGS, &action.span, format!("`{}` is {verb}", path.shown()));
    }
}

/// The settings that matter of an sshd_config, each once.
fn sshd(content: &str, action: &Action, sink: &mut Sink<'_>) {
    for line in content.lines() {
        let lower = line.trim().to_ascii_lowercase();
        let mut words = lower.split([' ', '\t', '=']).filter(|word| !word.is_empty());
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        let value = value.trim_matches('"');
        let open = match key {
            "permitrootlogin"
            | "passwordauthentication"
            | "permitemptypasswords"
            | "hostbasedauthentication" => value == "yes",
            "strictmodes" => value == "no",
            "authorizedkeyscommand" => value != "none",
            "authorizedkeysfile" => value.starts_with('/') && !value.contains('%') || value.contains("/tmp"),
            _ => false,
        };
        if open {
            sink.report(&SSHD, &action.span, format!("sshd gets `{}`", shown(line)));
        }
    }
}

fn written(write: &WriteFile, action: &Action, sink: &mut Sink<'_>) {
    let path = write.path.text.as_str();
    let content = write.content.as_deref().unwrap_or_default();
    if content::kind(path, "") == FileKind::Sshd {
        sshd(content, action, sink);
    }
    if is_log(path) && write.append && !content.trim().is_empty() && path.contains("wtmp") {
        sink.report(&LOGS, &action.span, format!("`{}` is edited", write.path.shown()));
    }
    if !write.append && is_log(path) && path.starts_with("/var/log/") && write.content.is_none() {
        sink.report(&LOGS, &action.span, format!("`{}` is overwritten", write.path.shown()));
    }
    let selinux = path.contains("selinux") && path.contains("config");
    let mut open_lines = Vec::new();
    for line in content.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let compact: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        if selinux && (compact == "SELINUX=disabled" || compact == "SELINUX=permissive") {
            sink.report(
                &CONFINEMENT,
                &action.span,
                format!("SELinux is set to `{}`", &compact["SELINUX=".len()..]),
            );
        }
        let repository = path.contains("/etc/apt/")
            || path.contains("/etc/yum")
            || path.contains("/dnf")
            || path.contains("pacman.conf")
            || path.contains("/etc/zypp");
        let unsigned = repository
            && (line.contains("trusted=yes")
                || compact == "gpgcheck=0"
                || compact.contains("AllowUnauthenticated\"true\"")
                || compact.contains("AllowUnauthenticatedtrue")
                || compact.contains("AllowInsecureRepositories\"true\"")
                || compact.eq_ignore_ascii_case("SigLevel=Never")
                || compact.contains("allow-insecure=yes"));
        if unsigned {
            sink.report(&SIGNATURES, &action.span, format!("`{}` in `{}`", shown(line), write.path.shown()));
        }
        if path.contains("/sysctl") {
            open_lines.push(compact.clone());
        }
        if repository
            && (compact.contains("Verify-Peer\"false\"")
                || compact == "sslverify=0"
                || compact == "sslverify=false")
        {
            sink.report(&TLS, &action.span, format!("`{}` in `{}`", shown(line), write.path.shown()));
        }
    }
    for line in open_lines {
        if let Some((name, value)) = line.split_once('=') {
            weak_setting(name, value, action, sink);
        }
    }
    if path == "/proc/sys/kernel/randomize_va_space" && content.trim() == "0" {
        weak_setting("kernel.randomize_va_space", "0", action, sink);
    }
    if path.contains("/sys/fs/selinux/enforce") && content.trim() == "0" {
        sink.report(&CONFINEMENT, &action.span, "SELinux is set to permissive");
    }
}

fn environment(name: &str, value: &Word, action: &Action, sink: &mut Sink<'_>) {
    let off = |value: &Word| matches!(value.text.as_str(), "0" | "false" | "no");
    match name {
        "HISTFILE" if value.text.is_empty() || value.is("/dev/null") => {
            sink.report(&LOGS, &action.span, "the shell keeps no history");
        }
        // Cleaning an image sets this too, and only an interactive shell heeds it.
        "HISTSIZE" | "HISTFILESIZE" if value.is("0") => {
            sink.report_as(&LOGS, Severity::Warn, &action.span, "the shell keeps no history");
        }
        "HISTCONTROL" | "HISTIGNORE" if value.is("*") || value.is("ignorespace:*") => {
            sink.report(&LOGS, &action.span, "the shell keeps no history");
        }
        "GIT_SSL_NO_VERIFY" if !off(value) => {
            sink.report(&TLS, &action.span, "git does not check certificates")
        }
        "NODE_TLS_REJECT_UNAUTHORIZED" | "PYTHONHTTPSVERIFY" | "AWS_VERIFY_SSL" if off(value) => {
            sink.report(&TLS, &action.span, format!("`{name}=0` switches the check of certificates off"));
        }
        _ => {}
    }
}

/// Options that make a package manager take what nobody signed.
pub(super) fn unsigned_option(option: &str) -> bool {
    let lower = option.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "--allow-unauthenticated"
            | "--force-yes"
            | "--nogpgcheck"
            | "--no-gpg-checks"
            | "--no-gpg-check"
            | "--allow-untrusted"
            | "--nosignature"
            | "--no-signature"
            | "--nodigest"
            | "--allow-insecure-repositories"
            | "--allow-unsigned-rpm"
            | "--gpgcheck=0"
            | "--setopt=gpgcheck=0"
    ) || lower.contains("allowunauthenticated=true")
        || lower.contains("allowunauthenticated=1")
        || lower.contains("allowunauthenticated=yes")
        || lower.contains("allowinsecurerepositories=true")
        || lower.contains("allowdowngradetoinsecurerepositories=true")
        || lower.contains("gpg::check=false")
}

fn packages(options: &[Word], program: &str, action: &Action, sink: &mut Sink<'_>) {
    for option in options {
        if unsigned_option(&option.text) {
            sink.report(&SIGNATURES, &action.span, format!("`{program}` gets `{}`", option.shown()));
        }
        let lower = option.text.to_ascii_lowercase();
        if lower.contains("verify-peer=false")
            || lower.contains("verify-host=false")
            || lower.contains("sslverify=false")
            || lower.contains("sslverify=0")
        {
            sink.report(&TLS, &action.span, format!("`{program}` gets `{}`", option.shown()));
        }
    }
}

fn tls(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let line = run.line().to_ascii_lowercase();
    let what = match run.program() {
        "git" if line.contains("http.sslverify=false") || line.contains("http.sslverify false") => {
            "git does not check certificates"
        }
        "npm" | "yarn" if line.contains("strict-ssl false") || line.contains("strict-ssl=false") => {
            "npm does not check certificates"
        }
        _ => return,
    };
    sink.report(&TLS, &action.span, what);
}

fn kernel_setting(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    if run.program() != "sysctl" {
        return;
    }
    for word in run.arguments() {
        if let Some((name, value)) = word.text.split_once('=') {
            weak_setting(name.trim(), value.trim(), action, sink);
        }
    }
}

fn weak_setting(name: &str, value: &str, action: &Action, sink: &mut Sink<'_>) {
    let weak = match name {
        "kernel.randomize_va_space"
        | "kernel.yama.ptrace_scope"
        | "kernel.kptr_restrict"
        | "kernel.dmesg_restrict"
        | "fs.protected_symlinks"
        | "fs.protected_hardlinks"
        | "fs.protected_regular"
        | "kernel.unprivileged_bpf_disabled"
        | "vm.mmap_min_addr" => value == "0",
        "kernel.perf_event_paranoid" => value == "-1",
        "fs.suid_dumpable" => value == "1" || value == "2",
        "net.ipv4.tcp_syncookies" => value == "0",
        "net.ipv4.conf.all.accept_redirects" | "net.ipv4.conf.all.accept_source_route" => value == "1",
        _ => false,
    };
    if weak {
        sink.report(&KERNEL_SETTINGS, &action.span, format!("`{name}` is set to `{}`", shown(value)));
    }
}
