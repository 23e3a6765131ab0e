//! IMP: data and machines destroyed or used up.

use super::{Scene, Sink, rule};
use crate::action::{Action, HOLE, Kind, Removal, Run, Word, shown};
use crate::finding::{RuleInfo, Severity};

const WIPE: RuleInfo = rule(
    "IMP-001",
    Severity::Deny,
    "data or disks wiped",
    "remove only what the recipe itself made, by its full name",
    "",
    "T1485",
);
const EXHAUST: RuleInfo =
    rule("IMP-002", Severity::Deny, "fork bomb or miner", "remove it", "CWE-400", "T1496");
const ENCRYPT: RuleInfo = rule(
    "IMP-003",
    Severity::Deny,
    "files encrypted in bulk",
    "remove it; a site backs up and encrypts by its own means",
    "",
    "T1486",
);
const HALT: RuleInfo = rule(
    "IMP-004",
    Severity::Warn,
    "machine or services stopped",
    "let the site start and stop the machine; restart a service with a `service` step",
    "",
    "T1529",
);

pub(super) const RULES: &[RuleInfo] = &[WIPE, EXHAUST, ENCRYPT, HALT];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for action in scene.actions {
        match &action.kind {
            Kind::Remove { path, how } => removed(path, *how, action, sink),
            Kind::Run(run) => ran(run, action, sink),
            Kind::WriteFile(write) if is_disk(&write.path.text) => {
                sink.report(&WIPE, &action.span, format!("the disk `{}` is overwritten", write.path.shown()));
            }
            Kind::Text { text } => fork_bomb(text, action, sink),
            _ => {}
        }
    }
}

fn is_disk(path: &str) -> bool {
    ["/dev/sd", "/dev/vd", "/dev/nvme", "/dev/xvd", "/dev/hd", "/dev/mmcblk"]
        .iter()
        .any(|disk| path.starts_with(disk))
}

/// Folders without which there is no system, or no data.
fn vital(path: &str) -> bool {
    let trimmed = path.trim_end_matches("/*").trim_end_matches("/.*").trim_end_matches('/');
    matches!(
        trimmed,
        "" | "/bin"
            | "/boot"
            | "/dev"
            | "/etc"
            | "/home"
            | "/lib"
            | "/lib64"
            | "/opt"
            | "/root"
            | "/sbin"
            | "/srv"
            | "/usr"
            | "/usr/bin"
            | "/usr/lib"
            | "/usr/sbin"
            | "/var"
            | "/var/lib"
            | "/var/www"
            | "/sys"
            | "/proc"
    ) && path.starts_with('/')
        || matches!(path, "~" | "~/" | "~/*" | "/*")
}

fn removed(path: &Word, how: Removal, action: &Action, sink: &mut Sink<'_>) {
    if how == Removal::Recursive && vital(&path.text) {
        sink.report(&WIPE, &action.span, format!("`{}` is removed with all that is in it", path.shown()));
    } else if how == Removal::Shred && (is_disk(&path.text) || vital(&path.text)) {
        sink.report(&WIPE, &action.span, format!("`{}` is overwritten", path.shown()));
    }
}

fn ran(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let span = &action.span;
    let program = run.program();
    let disk = run
        .arguments()
        .iter()
        .find(|word| is_disk(&word.text) || word.text.strip_prefix("of=").is_some_and(is_disk));
    match program {
        "dd" => {
            if let Some(word) =
                run.arguments().iter().find(|word| word.text.strip_prefix("of=").is_some_and(is_disk))
            {
                sink.report(&WIPE, span, format!("a disk is overwritten (`{}`)", word.shown()));
            }
        }
        "wipefs" | "sgdisk" | "blkdiscard" | "hdparm" => {
            let wipes = run.flag('a', "--all")
                || run.flag('Z', "--zap-all")
                || run.flag('z', "")
                || program == "blkdiscard"
                || run.has("--security-erase");
            if let Some(disk) = disk.filter(|_| wipes) {
                sink.report(&WIPE, span, format!("the disk `{}` is wiped", disk.shown()));
            }
        }
        _ if program.starts_with("mkfs") => {
            if let Some(disk) = disk {
                let system = ["/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/xvda", "/dev/hda"]
                    .iter()
                    .any(|system| disk.text.starts_with(system));
                let severity = if system { Severity::Deny } else { Severity::Warn };
                sink.report_as(&WIPE, severity, span, format!("a file system is made on `{}`", disk.shown()));
            }
        }
        "find"
            if run.has("-delete")
                && run.operands().next().is_some_and(|place| vital(&place.text))
                && !run.has("-name")
                && !run.has("-iname")
                && !run.has("-path")
                && !run.has("-regex")
                && !run.has("-empty")
                && !run.has("-xtype") =>
        {
            sink.report(&WIPE, span, "everything in a folder of the system is removed");
        }
        "xmrig" | "minerd" | "cpuminer" | "ccminer" | "ethminer" | "cgminer" | "bfgminer" | "xmr-stak"
        | "nbminer" | "t-rex" | "phoenixminer" | "lolminer" | "kinsing" | "kdevtmpfsi" => {
            sink.report(&EXHAUST, span, format!("the miner `{program}` is run"));
        }
        "reboot" | "poweroff" | "halt" | "shutdown" => {
            sink.report(&HALT, span, format!("`{program}` is called"))
        }
        "init" | "telinit" if run.has("0") || run.has("6") => {
            sink.report(&HALT, span, "the machine is stopped")
        }
        "systemctl"
            if ["reboot", "poweroff", "halt", "emergency", "rescue"]
                .iter()
                .any(|verb| run.operands().next().is_some_and(|word| word.is(verb))) =>
        {
            sink.report(&HALT, span, "the machine is stopped");
        }
        "kill" if run.has("-1") && run.arguments().len() == 2 && run.has("-9") => {
            sink.report(&HALT, span, "every process is killed");
        }
        _ => {}
    }
    if let Some(pool) = run.arguments().iter().find(|word| {
        word.text.contains("stratum+tcp://")
            || word.text.contains("stratum+ssl://")
            || word.text.contains("--donate-level")
    }) {
        sink.report(&EXHAUST, span, format!("`{}` belongs to a miner", pool.shown()));
    }
    let encrypts = match program {
        "openssl" => {
            run.has("enc") && !run.flag('d', "")
                || run.has("rsautl") && run.has("-encrypt")
                || run.has("smime") && run.has("-encrypt")
        }
        "gpg" | "gpg2" => {
            (run.flag('c', "--symmetric") || run.flag('e', "--encrypt")) && !run.flag('d', "--decrypt")
        }
        "ccrypt" | "ccencrypt" => true,
        "7z" | "7za" | "zip" => {
            run.arguments().iter().any(|word| {
                word.text.starts_with("-p") && word.text.len() > 2 || word.is("-P") || word.is("-e")
            }) && run
                .arguments()
                .iter()
                .any(|word| word.text.starts_with("-sdel") || word.is("-m") || word.is("-rm"))
        }
        _ => false,
    };
    let unknown_file = run.arguments().iter().any(|word| word.text.ends_with(HOLE) && word.text.len() > 1);
    if encrypts && run.repeated && unknown_file {
        sink.report(&ENCRYPT, span, format!("`{}` encrypts all files found", shown(&run.line())));
    }
}

/// `:(){ :|:& };:` under any name.
fn fork_bomb(text: &str, action: &Action, sink: &mut Sink<'_>) {
    for (at, _) in text.match_indices("()") {
        let line_start = text[..at].rfind(['\n', ';', ' ', '\'', '"']).map_or(0, |start| start + 1);
        let name = text[line_start..at].trim();
        if name.is_empty() || name.len() > 32 {
            continue;
        }
        let mut body_end = (at + 80).min(text.len());
        while !text.is_char_boundary(body_end) {
            body_end -= 1;
        }
        let body: String = text[at + 2..body_end].chars().filter(|c| !c.is_whitespace()).collect();
        if body.starts_with(&format!("{{{name}|{name}&")) {
            sink.report(
                &EXHAUST,
                &(action.span.start + line_start..action.span.start + at + 2),
                format!("`{}` starts itself twice, without end", shown(name)),
            );
        }
    }
}
