//! PRM: files that others may write, secrets that others may read.

use super::{Scene, Sink, rule, under};
use crate::action::{Action, Kind, ModeChange, Origin, Word};
use crate::finding::{RuleInfo, Severity};

const WORLD_WRITABLE: RuleInfo = rule(
    "PRM-001",
    Severity::Deny,
    "anyone may write",
    "give the file to the one user or group that writes it (`0755`, `0644`)",
    "CWE-732",
    "T1222.002",
);
const READABLE_SECRET: RuleInfo = rule(
    "PRM-002",
    Severity::Deny,
    "anyone may read a secret",
    "use mode 0600 and the owner that needs it",
    "CWE-732",
    "T1552.004",
);
const UMASK: RuleInfo = rule(
    "PRM-003",
    Severity::Warn,
    "umask that lets anyone write",
    "use `umask 022` or `umask 077`",
    "CWE-732",
    "",
);

pub(super) const RULES: &[RuleInfo] = &[WORLD_WRITABLE, READABLE_SECRET, UMASK];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for action in scene.actions {
        match &action.kind {
            Kind::SetMode { path, mode, recursive } => judge(path, *mode, *recursive, action, sink),
            Kind::WriteFile(write) => {
                if let Some(mode) = write.mode {
                    judge(&write.path, ModeChange::from_bits(mode), false, action, sink);
                }
            }
            Kind::Run(run) if run.program() == "umask" => {
                let open = run.operands().any(|word| {
                    matches!(word.text.as_str(), "0" | "00" | "000" | "0000" | "u=rwx,g=rwx,o=rwx")
                });
                if open {
                    sink.report(&UMASK, &action.span, "files made from here on may be written by anyone");
                }
            }
            _ => {}
        }
    }
}

fn judge(path: &Word, mode: ModeChange, recursive: bool, action: &Action, sink: &mut Sink<'_>) {
    let text = path.text.as_str();
    if mode.other_write && !mode.sticky && !text.starts_with("/dev/") {
        let system = under(
            text,
            &[
                "/etc",
                "/usr",
                "/bin",
                "/sbin",
                "/lib",
                "/lib64",
                "/boot",
                "/root",
                "/var/spool",
                "/var/lib/dpkg",
            ],
        ) || text == "/";
        let temporary = under(text, &["/tmp", "/var/tmp", "/dev/shm"]);
        let severity = if system || action.origin == Origin::Declared && !temporary {
            Severity::Deny
        } else {
            Severity::Warn
        };
        let below = if recursive { " and all below it" } else { "" };
        sink.report_as(
            &WORLD_WRITABLE,
            severity,
            &action.span,
            format!("anyone may write `{}`{below}", path.shown()),
        );
    }
    let base = path.base();
    let secret = matches!(base, "id_rsa" | "id_ed25519" | "id_ecdsa" | "id_dsa")
        || base.starts_with("ssh_host_") && base.ends_with("_key")
        || base == ".netrc"
        || base == ".pgpass"
        || text.contains("/private/") && base.ends_with(".key");
    if secret && mode.other_read {
        sink.report(&READABLE_SECRET, &action.span, format!("anyone may read `{}`", path.shown()));
    }
}
