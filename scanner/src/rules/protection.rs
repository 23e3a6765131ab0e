//! DEF, second half: traces hidden, and the system's own programs put in one's pocket.

use super::known::{ORDINARY_MODULES, SYSTEM_PROGRAMS};
use super::{Scene, Sink, rule, under};
use crate::action::{Action, Kind, Origin, Run, ServiceChange, Word, WriteFile, is_direction, shown};
use crate::finding::{RuleInfo, Severity};

const TIMESTOMP: RuleInfo = rule(
    "DEF-009",
    Severity::Deny,
    "times or attributes of files forged",
    "leave times and attributes of the system's files alone",
    "",
    "T1070.006",
);
const HIDDEN: RuleInfo = rule(
    "DEF-010",
    Severity::Warn,
    "name or text that hides what it is",
    "use plain names and plain characters",
    "CWE-1007",
    "T1564.001",
);
const PRELOAD: RuleInfo = rule(
    "DEF-011",
    Severity::Deny,
    "library loaded into other programs",
    "start the one program that needs it from a unit that sets it, and say why in the README",
    "CWE-426",
    "T1574.006",
);
const MODULE: RuleInfo = rule(
    "DEF-012",
    Severity::Deny,
    "kernel module loaded",
    "ask the site for a base image with the module",
    "",
    "T1547.006",
);
const AGENT: RuleInfo = rule(
    "DEF-013",
    Severity::Deny,
    "security agent stopped or removed",
    "leave the site's agents alone",
    "CWE-693",
    "T1562.001",
);
const SHADOWED: RuleInfo = rule(
    "DEF-014",
    Severity::Deny,
    "program of the system shadowed or replaced",
    "install under a name of your own in /usr/local/bin",
    "CWE-426",
    "T1574.007",
);
const PROC: RuleInfo =
    rule("DEF-015", Severity::Deny, "process hidden by a mount", "remove the mount", "", "T1564.013");
const AUTHORITY: RuleInfo = rule(
    "DEF-016",
    Severity::Deny,
    "certificate authority added",
    "give the one program its CA file; the system's trust belongs to the site",
    "CWE-295",
    "T1553.004",
);

pub(super) const RULES: &[RuleInfo] = &[TIMESTOMP, HIDDEN, PRELOAD, MODULE, AGENT, SHADOWED, PROC, AUTHORITY];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for action in scene.actions {
        match &action.kind {
            Kind::Run(run) => ran(run, action, sink),
            Kind::WriteFile(write) => written(write, action, sink),
            Kind::Environment { name, value } => environment(name, value, action, sink),
            Kind::Service { name, change } if *change != ServiceChange::Other => {
                let unit = name.text.trim_end_matches(".service");
                if is_agent(unit) {
                    sink.report(&AGENT, &action.span, format!("`{unit}` is stopped or disabled"));
                }
            }
            Kind::Package { options, program } => {
                let removes = options.iter().any(|word| {
                    matches!(
                        word.text.as_str(),
                        "remove"
                            | "purge"
                            | "erase"
                            | "del"
                            | "autoremove"
                            | "-e"
                            | "-r"
                            | "-P"
                            | "uninstall"
                    )
                });
                if let Some(agent) = options.iter().find(|word| removes && is_agent(&word.text)) {
                    sink.report(&AGENT, &action.span, format!("`{program}` removes `{}`", agent.shown()));
                }
            }
            Kind::Text { text } => {
                if let Some((at, c)) = text.char_indices().find(|(_, c)| is_direction(*c)) {
                    let span = action.span.start + at..action.span.start + at + c.len_utf8();
                    sink.report(
                        &HIDDEN,
                        &span,
                        format!("U+{:04X} changes the order in which this text is shown", u32::from(c)),
                    );
                }
            }
            _ => {}
        }
    }
}

fn is_agent(name: &str) -> bool {
    [
        "falcon-sensor",
        "clamav",
        "clamd",
        "ossec",
        "wazuh",
        "fail2ban",
        "aide",
        "rkhunter",
        "chkrootkit",
        "samhain",
        "tripwire",
        "osquery",
        "sysmon",
        "cbdaemon",
        "cbagentd",
        "mdatp",
        "ds_agent",
        "aliyun",
        "cloudmonitor",
        "qualys",
        "crowdsec",
        "sentinelone",
        "suricata",
        "snort",
        "auditbeat",
        "falco",
        "xagt",
        "taniumclient",
        "nessusagent",
        "esets",
    ]
    .iter()
    .any(|agent| name.to_ascii_lowercase().starts_with(agent))
}

fn ran(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    match run.program() {
        "insmod" => {
            let module = run.operands().next().map(Word::shown).unwrap_or_default();
            sink.report(&MODULE, &action.span, format!("the kernel module `{module}` is loaded"));
        }
        "modprobe" if !run.flag('r', "--remove") => {
            for module in run.operands().take(1) {
                let plain = module.text.replace('-', "_");
                if module.is_known()
                    && !ORDINARY_MODULES.iter().any(|known| known.replace('-', "_") == plain)
                    && !module.text.contains('=')
                {
                    sink.report(
                        &MODULE,
                        &action.span,
                        format!("the kernel module `{}` is loaded", module.shown()),
                    );
                }
            }
        }
        "touch" => touched(run, action, sink),
        "chattr" => {
            let hides = run
                .arguments()
                .iter()
                .any(|word| word.text.starts_with('+') && word.text.contains(['i', 'a']));
            if hides {
                let path = run.operands().last().map(Word::shown).unwrap_or_default();
                let severity = if path.ends_with("resolv.conf") { Severity::Warn } else { Severity::Deny };
                sink.report_as(&TIMESTOMP, severity, &action.span, format!("`{path}` is made unchangeable"));
            }
        }
        "alias" => {
            for word in run.arguments() {
                let Some((name, body)) = word.text.split_once('=') else { continue };
                let sensitive = matches!(
                    name,
                    "sudo"
                        | "su"
                        | "ssh"
                        | "passwd"
                        | "ps"
                        | "netstat"
                        | "ss"
                        | "top"
                        | "login"
                        | "ls"
                        | "cd"
                        | "cat"
                        | "id"
                        | "w"
                        | "who"
                        | "last"
                        | "find"
                );
                let first = body.split_whitespace().next().unwrap_or_default();
                let own = first == name
                    || first.rsplit('/').next() == Some(name)
                    || first.is_empty()
                    || ["sudo", "exa", "eza", "bat", "lsd", "htop", "zoxide", "z", "command"]
                        .contains(&first);
                let more = body.contains([';', '|', '&']) && !body.contains("--");
                if sensitive && (!own || more) {
                    sink.report(
                        &SHADOWED,
                        &action.span,
                        format!("`{name}` becomes an alias of `{}`", shown(body)),
                    );
                }
            }
        }
        "mount" => {
            let bind = run.has("--bind")
                || run.has("-B")
                || run.has("--rbind")
                || run.line().contains("-o bind")
                || run.has("hidepid=2");
            let target = run.operands().last();
            if let Some(target) =
                target.filter(|target| bind && target.text.starts_with("/proc/") && target.text.len() > 6)
            {
                sink.report(&PROC, &action.span, format!("a mount covers `{}`", target.shown()));
            }
        }
        "update-ca-certificates" | "update-ca-trust" => {
            sink.report_as(
                &AUTHORITY,
                Severity::Warn,
                &action.span,
                "the system's certificate authorities are built anew",
            );
        }
        "trust" if run.has("anchor") => {
            sink.report(&AUTHORITY, &action.span, "a certificate authority is added")
        }
        "certutil" if run.has("-A") && run.line().contains("-t") => {
            sink.report_as(
                &AUTHORITY,
                Severity::Warn,
                &action.span,
                "a certificate authority is added to a browser's store",
            );
        }
        _ => {}
    }
    if let Some(first) = run.argv.first()
        && first.text.split('/').any(|part| part == "..." || part.ends_with(' ') && part.len() > 1)
        && first.text.contains('/')
    {
        sink.report(
            &HIDDEN,
            &action.span,
            format!("`{}` is run from a folder made to be overlooked", first.shown()),
        );
    }
}

fn touched(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let forged = run.flag('t', "--time") || run.flag('r', "--reference") || run.flag('d', "--date");
    if !forged {
        return;
    }
    let target = run.operands().last().map(|word| word.text.clone()).unwrap_or_default();
    let reference = run.option("-r", "--reference").or_else(|| {
        let at =
            run.arguments().iter().position(|word| word.text.starts_with('-') && word.text.ends_with('r'))?;
        run.arguments().get(at + 1).cloned()
    });
    let system = |path: &str| {
        under(path, &["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/etc", "/lib", "/usr/lib", "/root"])
    };
    let both = run.arguments().iter().any(|word| word.text.starts_with("-a") && word.text.contains('m'));
    if system(&target) || reference.is_some_and(|word| system(&word.text)) || both {
        sink.report(&TIMESTOMP, &action.span, format!("the times of `{}` are forged", shown(&target)));
    } else {
        sink.report_as(
            &TIMESTOMP,
            Severity::Warn,
            &action.span,
            format!("the times of `{}` are set", shown(&target)),
        );
    }
}

/// Libraries that are preloaded for speed, and nothing else.
fn harmless_library(value: &str) -> bool {
    [
        "jemalloc",
        "tcmalloc",
        "faketime",
        "eatmydata",
        "mimalloc",
        "libasan",
        "libgomp",
        "stdbuf",
        "libvulkan",
        "nss_wrapper",
        "libfakeroot",
        "libSegFault",
    ]
    .iter()
    .any(|name| value.contains(name))
}

fn environment(name: &str, value: &Word, action: &Action, sink: &mut Sink<'_>) {
    match name {
        "LD_PRELOAD" | "LD_AUDIT" | "DYLD_INSERT_LIBRARIES" if !value.text.is_empty() => {
            let severity = if harmless_library(&value.text) || !value.is_known() && !value.text.contains('/')
            {
                Severity::Warn
            } else {
                Severity::Deny
            };
            sink.report_as(
                &PRELOAD,
                severity,
                &action.span,
                format!("`{name}` loads `{}` into other programs", value.shown()),
            );
        }
        "PATH" => {
            let first = value.text.split(':').next().unwrap_or_default();
            if under(first, &["/tmp", "/var/tmp", "/dev/shm"]) || first == "." || value.text.starts_with(':')
            {
                sink.report(
                    &SHADOWED,
                    &action.span,
                    format!("`PATH` starts with `{}`, where anyone may write", shown(first)),
                );
            }
        }
        "PROMPT_COMMAND"
            if action.origin == Origin::Script
                && value.text.contains(['/', '|', ';'])
                && (value.text.contains("curl")
                    || value.text.contains("/dev/tcp")
                    || value.text.contains("nc ")) =>
        {
            sink.report(&SHADOWED, &action.span, "`PROMPT_COMMAND` runs a program before each prompt");
        }
        _ => {}
    }
}

fn written(write: &WriteFile, action: &Action, sink: &mut Sink<'_>) {
    let path = write.path.text.as_str();
    let content = write.content.as_deref().unwrap_or_default();
    let declared = action.origin == Origin::Declared;
    if path == "/etc/ld.so.preload" || path.ends_with("/etc/ld.so.preload") {
        sink.report(
            &PRELOAD,
            &action.span,
            format!("`{}` loads a library into every program", write.path.shown()),
        );
    }
    if path == "/etc/environment"
        || path.starts_with("/etc/environment.d/")
        || path.ends_with(".service")
        || path.contains("/systemd/")
    {
        for line in content.lines().filter(|line| {
            line.contains("LD_PRELOAD=") && !line.trim_start().starts_with('#') && !harmless_library(line)
        }) {
            sink.report(&PRELOAD, &action.span, format!("`{}` in `{}`", shown(line), write.path.shown()));
        }
    }
    if path == "/etc/modules" || path.contains("/modules-load.d/") {
        for module in content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let plain = module.split_whitespace().next().unwrap_or_default().replace('-', "_");
            if !ORDINARY_MODULES.iter().any(|known| known.replace('-', "_") == plain) {
                sink.report(
                    &MODULE,
                    &action.span,
                    format!("the kernel module `{}` is loaded at each start", shown(module)),
                );
            }
        }
    }
    if path.contains("/lib/modules/") && path.ends_with(".ko") {
        sink.report(
            &MODULE,
            &action.span,
            format!("the kernel module `{}` is put in place", write.path.shown()),
        );
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    if matches!(folder, "/bin" | "/sbin" | "/usr/bin" | "/usr/sbin")
        && SYSTEM_PROGRAMS.contains(&write.path.base())
    {
        sink.report(&SHADOWED, &action.span, format!("`{}` is replaced", write.path.shown()));
    }
    if matches!(folder, "/usr/local/bin" | "/usr/local/sbin")
        && ["ls", "ps", "sudo", "su", "passwd", "ssh", "netstat", "ss", "cat", "id", "login"]
            .contains(&write.path.base())
    {
        sink.report(
            &SHADOWED,
            &action.span,
            format!("`{}` comes before the system's own", write.path.shown()),
        );
    }
    if path.starts_with("/usr/local/share/ca-certificates/")
        || path.starts_with("/etc/pki/ca-trust/source/anchors/")
        || path.starts_with("/etc/ca-certificates/trust-source/")
    {
        let severity = if declared { Severity::Warn } else { Severity::Deny };
        sink.report_as(
            &AUTHORITY,
            severity,
            &action.span,
            format!("`{}` is trusted for every server", write.path.shown()),
        );
    }
    let base = write.path.base();
    let hidden = base.starts_with('.')
        && base.len() > 1
        && under(path, &["/tmp", "/var/tmp", "/dev/shm", "/usr", "/bin", "/sbin", "/lib", "/dev"])
        && !base.starts_with(".X");
    let overlooked =
        path.split('/').any(|part| part == "..." || part.len() > 1 && part.ends_with(' ') || part == " ");
    if hidden || overlooked {
        sink.report(
            &HIDDEN,
            &action.span,
            format!("`{}` is a name made to be overlooked", write.path.shown()),
        );
    }
    if path.starts_with("/proc/") && path.ends_with("/comm") {
        sink.report(&HIDDEN, &action.span, "a process gives itself another name");
    }
}
