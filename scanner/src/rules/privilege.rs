//! PRV: more rights than a recipe's programs need.

use super::{Scene, Sink, rule};
use crate::action::{Action, HOLE, Kind, ModeChange, Origin, Run, Word, WriteFile, shown};
use crate::content::{self, FileKind};
use crate::finding::{RuleInfo, Severity};

const SETUID: RuleInfo = rule(
    "PRV-001",
    Severity::Deny,
    "setuid or setgid program",
    "run the program as a unit of its own user; if it must be setuid, name it under `[capabilities] setuid`",
    "CWE-732",
    "T1548.001",
);
const CAPABILITIES: RuleInfo = rule(
    "PRV-002",
    Severity::Deny,
    "program with capabilities of root",
    "give the unit `AmbientCapabilities=` with the one that is needed",
    "CWE-250",
    "T1548.001",
);
const SUDO: RuleInfo = rule(
    "PRV-003",
    Severity::Deny,
    "sudo rule",
    "run what needs root as a unit; users of a recipe get no sudo",
    "CWE-250",
    "T1548.003",
);
const POLKIT: RuleInfo = rule(
    "PRV-004",
    Severity::Deny,
    "polkit says yes to everyone",
    "name the one action and the one user, with `auth_admin`",
    "CWE-250",
    "T1548.004",
);
const CONTAINER: RuleInfo = rule(
    "PRV-005",
    Severity::Deny,
    "container with the rights of its host",
    "drop `--privileged` and mounts of the host; give the one device or capability that is needed",
    "CWE-250",
    "T1611",
);
const ACCOUNTS: RuleInfo = rule(
    "PRV-006",
    Severity::Deny,
    "files of accounts opened or replaced",
    "leave passwd, shadow and sudoers to the tools that keep them; declare users with `user` steps",
    "CWE-732",
    "T1222.002",
);
const ADMIN_GROUP: RuleInfo = rule(
    "PRV-007",
    Severity::Warn,
    "user in a group of administrators",
    "give the user the one right it needs through a unit or a file's group",
    "CWE-250",
    "T1098",
);
const SUDO_ESCAPE: RuleInfo = rule(
    "PRV-008",
    Severity::Deny,
    "sudo rule on a program that starts others",
    "allow a wrapper of your own that takes no arguments",
    "CWE-250",
    "T1548.003",
);

pub(super) const RULES: &[RuleInfo] =
    &[SETUID, CAPABILITIES, SUDO, POLKIT, CONTAINER, ACCOUNTS, ADMIN_GROUP, SUDO_ESCAPE];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for action in scene.actions {
        match &action.kind {
            Kind::SetMode { path, mode, .. } => set_mode(path, *mode, action, scene, sink),
            Kind::SetOwner { path, owner }
                if account_file(&path.text)
                    && !owner.text.starts_with("root")
                    && !owner.text.starts_with('0')
                    && !owner.text.starts_with(HOLE) =>
            {
                sink.report(
                    &ACCOUNTS,
                    &action.span,
                    format!("`{}` gets the owner `{}`", path.shown(), owner.shown()),
                );
            }
            Kind::WriteFile(write) => {
                if let Some(mode) = write.mode {
                    set_mode(&write.path, ModeChange::from_bits(mode), action, scene, sink);
                }
                written(write, action, sink);
            }
            Kind::User(user) => {
                for group in &user.groups {
                    let admin = matches!(
                        group.as_str(),
                        "sudo"
                            | "wheel"
                            | "admin"
                            | "root"
                            | "docker"
                            | "lxd"
                            | "adm"
                            | "disk"
                            | "shadow"
                            | "0"
                    );
                    if admin && !user.name.is("root") {
                        sink.report(
                            &ADMIN_GROUP,
                            &action.span,
                            format!("user `{}` joins the group `{}`", user.name.shown(), shown(group)),
                        );
                    }
                }
            }
            Kind::Run(run) => ran(run, action, sink),
            _ => {}
        }
    }
}

fn account_file(path: &str) -> bool {
    matches!(
        path,
        "/etc/passwd"
            | "/etc/shadow"
            | "/etc/gshadow"
            | "/etc/group"
            | "/etc/sudoers"
            | "/etc/security/opasswd"
    ) || path.starts_with("/etc/sudoers.d")
}

fn set_mode(path: &Word, mode: ModeChange, action: &Action, scene: &Scene<'_>, sink: &mut Sink<'_>) {
    let shown_path = path.shown();
    if mode.setuid || (mode.setgid && mode.execute && file_like(path, action)) {
        let what = if mode.setuid { "setuid" } else { "setgid" };
        let asked = action.origin == Origin::Declared && scene.setuid.iter().any(|asked| path.is(asked));
        let severity = if asked || !mode.setuid && !path.text.starts_with("/tmp") && !bare_setgid(path) {
            Severity::Warn
        } else {
            Severity::Deny
        };
        let message = if asked {
            format!("`{shown_path}` becomes {what}, as the manifest asks openly")
        } else {
            format!("`{shown_path}` becomes {what}")
        };
        sink.report_as(&SETUID, severity, &action.span, message);
    } else if mode.setgid {
        sink.report_as(&SETUID, Severity::Warn, &action.span, format!("`{shown_path}` becomes setgid"));
    }
    let shadow = matches!(path.text.as_str(), "/etc/shadow" | "/etc/gshadow" | "/etc/sudoers")
        || path.text.starts_with("/etc/sudoers.d/");
    if account_file(&path.text) && (mode.other_write || mode.group_write || shadow && mode.other_read) {
        sink.report(&ACCOUNTS, &action.span, format!("`{shown_path}` is opened to others"));
    }
}

/// A folder with setgid passes its group on and runs nothing.
fn file_like(path: &Word, action: &Action) -> bool {
    action.origin == Origin::Declared || !path.text.ends_with('/')
}

/// A program by its place.
fn bare_setgid(path: &Word) -> bool {
    ["/bin/", "/sbin/", "/dev/shm/"].iter().any(|place| path.text.contains(place))
}

fn written(write: &WriteFile, action: &Action, sink: &mut Sink<'_>) {
    let path = write.path.text.as_str();
    let content = write.content.as_deref().unwrap_or_default();
    if content::kind(path, "") == FileKind::Sudoers {
        sudoers(write, content, action, sink);
        return;
    }
    let polkit = path.contains("/polkit-1/");
    if polkit
        && (content.contains("Result.YES")
            || content.contains("ResultAny=yes")
            || content.contains("<allow_any>yes")
            || content.contains("<allow_active>yes"))
    {
        sink.report(&POLKIT, &action.span, format!("`{}` grants actions without asking", write.path.shown()));
    }
    let replaced =
        !write.append && matches!(path, "/etc/passwd" | "/etc/shadow" | "/etc/gshadow" | "/etc/sudoers");
    if replaced {
        sink.report(&ACCOUNTS, &action.span, format!("`{path}` is replaced as a whole"));
    }
    if write.append && matches!(path, "/etc/shadow" | "/etc/gshadow") {
        sink.report(&ACCOUNTS, &action.span, format!("`{path}` is edited by hand"));
    }
}

/// Programs that a sudo rule for them turns into root.
const ESCAPES: &[&str] = &[
    "vi",
    "vim",
    "nano",
    "less",
    "more",
    "man",
    "awk",
    "gawk",
    "find",
    "nmap",
    "python",
    "python3",
    "perl",
    "ruby",
    "lua",
    "node",
    "php",
    "bash",
    "sh",
    "dash",
    "zsh",
    "env",
    "tar",
    "zip",
    "rsync",
    "git",
    "ftp",
    "gdb",
    "tee",
    "cp",
    "mv",
    "dd",
    "ed",
    "ssh",
    "scp",
    "docker",
    "apt",
    "apt-get",
    "mount",
    "tcpdump",
    "socat",
    "nc",
    "watch",
    "strace",
    "xargs",
    "sed",
    "systemctl",
    "journalctl",
    "crontab",
    "chmod",
    "chown",
    "openssl",
    "curl",
    "wget",
];

fn sudoers(write: &WriteFile, content: &str, action: &Action, sink: &mut Sink<'_>) {
    let mut found = false;
    for line in content.lines() {
        let line = line.trim();
        if line.is_empty()
            || line.starts_with('#')
            || line.starts_with("Defaults") && !line.contains("!authenticate") && !line.contains("!tty")
        {
            continue;
        }
        let who = line.split_whitespace().next().unwrap_or_default();
        let no_password = line.contains("NOPASSWD") || line.contains("!authenticate");
        let all = line.contains("ALL") && line.trim_end().ends_with("ALL") && line.contains('=');
        let unusual = !matches!(who, "root" | "%sudo" | "%admin" | "%wheel") || no_password;
        let risky = no_password || all && unusual;
        if !risky {
            continue;
        }
        found = true;
        let what = if no_password { "without a password" } else { "for everything" };
        sink.report(&SUDO, &action.span, format!("`{}` may use sudo {what}", shown(who)));
        let command = line.rsplit([':', ')', '=']).next().unwrap_or_default();
        let escape = command
            .split(',')
            .filter_map(|command| command.split_whitespace().next())
            .find(|command| ESCAPES.contains(&command.rsplit('/').next().unwrap_or_default()));
        if let Some(program) = escape {
            sink.report(
                &SUDO_ESCAPE,
                &action.span,
                format!("sudo on `{}` is sudo on everything", shown(program)),
            );
        }
    }
    let harmless = content.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with("Defaults")
    });
    if !found && (write.content.is_none() || !harmless) {
        sink.report_as(
            &SUDO,
            Severity::Warn,
            &action.span,
            format!("`{}` changes who may use sudo", write.path.shown()),
        );
    }
}

fn ran(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    match run.program() {
        "setcap" if !run.has("-r") => {
            let sets = run.operands().next().map(|word| word.text.clone()).unwrap_or_default();
            let harmless = sets.split(',').all(|set| {
                let name = set.split(['=', '+']).next().unwrap_or_default().to_ascii_lowercase();
                matches!(
                    name.as_str(),
                    "cap_net_bind_service"
                        | "cap_net_raw"
                        | "cap_net_admin"
                        | "cap_sys_nice"
                        | "cap_ipc_lock"
                        | "cap_sys_time"
                        | "cap_wake_alarm"
                        | "-q"
                        | "cap_net_broadcast"
                )
            });
            let severity = if harmless { Severity::Warn } else { Severity::Deny };
            let target = run.operands().nth(1).map(Word::shown).unwrap_or_default();
            sink.report_as(
                &CAPABILITIES,
                severity,
                &action.span,
                format!("`{target}` gets `{}`", shown(&sets)),
            );
        }
        "docker" | "podman" | "nerdctl" | "ctr" => {
            if let Some(what) = container(run) {
                sink.report(&CONTAINER, &action.span, format!("a container runs with {what}"));
            }
        }
        "nsenter" if run.line().contains("-t 1") || run.has("--target=1") => {
            sink.report(&CONTAINER, &action.span, "the namespaces of the host are entered");
        }
        "pkexec" => sink.report_as(&POLKIT, Severity::Warn, &action.span, "a command asks polkit for root"),
        _ => {}
    }
}

fn container(run: &Run) -> Option<String> {
    if !(run.has("run") || run.has("create")) {
        return None;
    }
    if run.has("--privileged") || run.has("--privileged=true") {
        return Some("`--privileged`".to_owned());
    }
    for word in run.arguments() {
        let text = word.text.as_str();
        if matches!(text, "--pid=host" | "--cap-add=ALL" | "--cap-add=SYS_ADMIN" | "--userns=host") {
            return Some(format!("`{text}`"));
        }
        let mount = text.strip_prefix("--volume=").or(text.strip_prefix("-v")).unwrap_or(text);
        if mount.starts_with("/:/")
            || mount.starts_with("/var/run/docker.sock:")
            || mount.starts_with("/run/docker.sock:")
        {
            return Some(format!("the mount `{}`", shown(mount)));
        }
    }
    None
}
