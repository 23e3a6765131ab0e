//! PER: what stays and runs again, or lets someone in again.

use super::{Scene, Sink, rule};
use crate::action::{Action, HOLE, Kind, Origin, Run, WriteFile, shown};
use crate::content::{self, FileKind};
use crate::finding::{RuleInfo, Severity};

const CRON: RuleInfo = rule(
    "PER-001",
    Severity::Warn,
    "job for cron or at",
    "declare a timer unit with a `file` and a `service` step",
    "",
    "T1053.003",
);
const UNIT: RuleInfo = rule(
    "PER-002",
    Severity::Warn,
    "unit written by a script",
    "ship the unit with a `file` step and enable it with a `service` step",
    "",
    "T1543.002",
);
const STARTUP: RuleInfo = rule(
    "PER-003",
    Severity::Warn,
    "script that runs at start or login",
    "declare a unit with a `file` and a `service` step",
    "",
    "T1037",
);
const KEYS: RuleInfo = rule(
    "PER-004",
    Severity::Deny,
    "key that may log in",
    "declare the key under `authorized_keys` of a `user` step, where the site's policy sees it",
    "CWE-912",
    "T1098.004",
);
const ROOT_USER: RuleInfo = rule(
    "PER-005",
    Severity::Deny,
    "second root or hidden account",
    "declare users with `user` steps and give them uids above 999",
    "CWE-250",
    "T1136.001",
);
const PAM: RuleInfo = rule(
    "PER-006",
    Severity::Deny,
    "change to PAM",
    "leave authentication to the base and to the site's recipe",
    "CWE-287",
    "T1556.003",
);
const HOOK: RuleInfo = rule(
    "PER-007",
    Severity::Deny,
    "hook of an event of the system",
    "declare a unit with a `file` and a `service` step",
    "",
    "T1546",
);
const PACKAGE_HOOK: RuleInfo = rule(
    "PER-008",
    Severity::Deny,
    "hook of the package manager",
    "run what is needed from a `run` step, once",
    "",
    "T1546.016",
);
const WEB_SHELL: RuleInfo = rule(
    "PER-009",
    Severity::Deny,
    "web page that runs commands",
    "remove the page; never pass parts of a request to a shell",
    "CWE-78",
    "T1505.003",
);
const BOOT: RuleInfo = rule(
    "PER-010",
    Severity::Deny,
    "change to what boots the machine",
    "leave kernel, initramfs and boot loader to the base image",
    "",
    "T1542",
);

pub(super) const RULES: &[RuleInfo] =
    &[CRON, UNIT, STARTUP, KEYS, ROOT_USER, PAM, HOOK, PACKAGE_HOOK, WEB_SHELL, BOOT];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for action in scene.actions {
        match &action.kind {
            Kind::WriteFile(write) => written(write, action, sink),
            Kind::Run(run) => ran(run, action, sink),
            Kind::Text { text } => {
                if let Some(at) = web_shell(text) {
                    sink.report(
                        &WEB_SHELL,
                        &(action.span.start + at..action.span.start + at + 1),
                        "the page runs commands taken from a request",
                    );
                }
            }
            Kind::SetMode { path, mode, .. } if mode.execute && path.base() == "rc.local" => {
                sink.report(&STARTUP, &action.span, format!("`{}` is made to run at start", path.shown()));
            }
            _ => {}
        }
    }
    users(scene, sink);
}

fn users(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for (action, user) in scene.users() {
        if user.uid.as_ref().and_then(|uid| uid.text.parse::<u32>().ok()) == Some(0) && !user.name.is("root")
        {
            sink.report(&ROOT_USER, &action.span, format!("user `{}` gets uid 0", user.name.shown()));
        }
        if user.authorized_keys > 0 {
            let keys = user.authorized_keys;
            sink.report_as(
                &KEYS,
                Severity::Warn,
                &action.span,
                format!("{keys} declared key(s) may log in as `{}`", user.name.shown()),
            );
        }
    }
}

fn written(write: &WriteFile, action: &Action, sink: &mut Sink<'_>) {
    let path = write.path.text.as_str();
    let content = write.content.as_deref().unwrap_or_default();
    let declared = action.origin == Origin::Declared;
    let shown_path = write.path.shown();
    let span = &action.span;
    if path.contains("/etc/cron")
        || path.contains("/var/spool/cron")
        || path.ends_with("/etc/anacrontab")
        || path.contains("/var/spool/at")
    {
        if !path.ends_with("cron.allow") && !path.ends_with("cron.deny") {
            sink.report(&CRON, span, format!("`{shown_path}` makes cron run a job"));
        }
        return;
    }
    match content::kind(path, "") {
        FileKind::Unit if !declared && (path.contains("systemd") || path.contains(".config/")) => {
            sink.report(&UNIT, span, format!("a script writes the unit `{shown_path}`"));
        }
        FileKind::Shell if !hook_folder(path) => {
            sink.report(&STARTUP, span, format!("`{shown_path}` runs at start or login"));
        }
        FileKind::AuthorizedKeys => {
            sink.report(&KEYS, span, format!("a key is put into `{shown_path}`"));
        }
        FileKind::Pam => pam(write, content, declared, action, sink),
        _ => {}
    }
    if path.contains("/systemd/system-generators/") || path.contains("/systemd/user-generators/") {
        sink.report(&UNIT, span, format!("a generator of units is written as `{shown_path}`"));
    }
    if path.contains("/security/pam_") && path.ends_with(".so") {
        sink.report(&PAM, span, format!("the PAM module `{shown_path}` is replaced"));
    }
    if matches!(path, "/etc/passwd" | "/etc/shadow" | "/etc/group") && !declared {
        accounts(write, content, action, sink);
    }
    hooks(write, content, declared, action, sink);
    boots(path, content, action, sink);
    if web_shell(content).is_some() {
        sink.report(&WEB_SHELL, span, format!("the page `{shown_path}` runs commands taken from a request"));
    }
    if matches!(write.path.base(), "sshrc" | "rc") && (path.contains("/.ssh/") || path.contains("/etc/ssh/"))
    {
        sink.report(&STARTUP, span, format!("`{shown_path}` runs at each login"));
    }
}

fn pam(write: &WriteFile, content: &str, declared: bool, action: &Action, sink: &mut Sink<'_>) {
    let shown_path = write.path.shown();
    let opens = content.lines().any(|line| {
        let line = line.trim();
        !line.starts_with('#')
            && (line.contains("pam_exec")
                || line.contains("pam_script")
                || line.contains("nullok")
                || line.contains("pam_permit") && line.starts_with("auth") && line.contains("sufficient"))
    });
    if !declared {
        sink.report(&PAM, &action.span, format!("a script changes `{shown_path}`"));
    } else if opens || write.content.is_none() {
        sink.report(&PAM, &action.span, format!("`{shown_path}` lets someone in or runs a program at login"));
    } else {
        sink.report_as(&PAM, Severity::Warn, &action.span, format!("`{shown_path}` changes who may log in"));
    }
}

/// Lines put into the tables of accounts by hand.
fn accounts(write: &WriteFile, content: &str, action: &Action, sink: &mut Sink<'_>) {
    let path = write.path.text.as_str();
    for line in content.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if path == "/etc/passwd" && fields.len() >= 4 {
            let root = fields[2] == "0" && fields[0] != "root";
            let what = if root { "with uid 0" } else { "past the tools for it" };
            let name = shown(fields[0]);
            sink.report(
                &ROOT_USER,
                &action.span,
                format!("account `{name}` is written into /etc/passwd {what}"),
            );
        } else if path == "/etc/shadow" && fields.len() >= 2 {
            sink.report(
                &ROOT_USER,
                &action.span,
                format!("a password of `{}` is written into /etc/shadow", shown(fields[0])),
            );
        }
    }
    if write.content.is_none() && write.append {
        sink.report(&ROOT_USER, &action.span, format!("something unknown is added to `{path}`"));
    }
}

const HOOK_FOLDERS: &[(&str, &str)] = &[
    ("/etc/update-motd.d/", "at each login"),
    ("/dispatcher.d/", "when the network changes"),
    ("/etc/xdg/autostart/", "in each session"),
    ("/.config/autostart/", "in each session"),
    ("/dbus-1/system-services/", "when a bus name is asked for"),
    ("/dbus-1/services/", "when a bus name is asked for"),
    ("/.git/hooks/", "with git"),
    ("/etc/network/if-up.d/", "when the network changes"),
    ("/networkd-dispatcher/", "when the network changes"),
    ("/etc/acpi/events/", "on power events"),
];

fn hook_folder(path: &str) -> bool {
    HOOK_FOLDERS.iter().any(|(folder, _)| path.contains(folder))
}

fn hooks(write: &WriteFile, content: &str, declared: bool, action: &Action, sink: &mut Sink<'_>) {
    let path = write.path.text.as_str();
    let shown_path = write.path.shown();
    if let Some((_, when)) = HOOK_FOLDERS.iter().find(|(folder, _)| path.contains(folder)) {
        let severity = if declared && path.contains("motd") { Severity::Warn } else { Severity::Deny };
        sink.report_as(&HOOK, severity, &action.span, format!("`{shown_path}` runs {when}"));
    }
    let runs = content.contains("RUN") || content.contains("PROGRAM") || content.contains("IMPORT{program}");
    if path.contains("/udev/rules.d/") && (runs || write.content.is_none()) {
        sink.report(&HOOK, &action.span, format!("`{shown_path}` runs a program when a device appears"));
    }
    if path.contains(".gitconfig")
        && (content.contains("pager") || content.contains("sshCommand") || content.contains("hooksPath"))
    {
        sink.report(&HOOK, &action.span, format!("`{shown_path}` makes git run a program"));
    }
    let apt = path.contains("/etc/apt/apt.conf")
        && (content.contains("Invoke") || content.contains("Pre-Install-Pkgs"));
    let plugin = [
        "/yum-plugins/",
        "/dnf-plugins/",
        "/yum/pluginconf.d/",
        "/etc/dnf/plugins/",
        "/var/lib/dpkg/info/",
        "/yum-plugins",
        "/dpkg.cfg.d/",
    ]
    .iter()
    .any(|folder| path.contains(folder))
        && (path.contains("/dpkg/info/")
            || path.ends_with(".py")
            || path.ends_with(".conf")
            || content.contains("invoke"));
    if apt || plugin {
        sink.report(
            &PACKAGE_HOOK,
            &action.span,
            format!("`{shown_path}` runs a program with the package manager"),
        );
    }
}

fn boots(path: &str, content: &str, action: &Action, sink: &mut Sink<'_>) {
    let initramfs = [
        "/etc/initramfs-tools/hooks/",
        "/etc/initramfs-tools/scripts/",
        "/usr/share/initramfs-tools/",
        "/dracut/modules.d/",
        "/etc/grub.d/",
    ]
    .iter()
    .any(|folder| path.contains(folder));
    let image = (path.starts_with("/boot/")
        && (path.contains("initr") || path.contains("vmlinuz") || path.ends_with("grub.cfg")))
        || path.starts_with("/efi/");
    let command_line = path.ends_with("/etc/default/grub")
        && (content.contains("init=") || content.contains("rd.break") || content.contains("systemd.debug"));
    if initramfs || image || command_line {
        sink.report(&BOOT, &action.span, format!("`{}` decides how the machine boots", shown(path)));
    }
}

/// Where a page passes a part of a request to a shell.
fn web_shell(text: &str) -> Option<usize> {
    if !text.contains("<?") && !text.contains("<%") && !text.contains("cgi") {
        return None;
    }
    let runs = [
        "system(",
        "exec(",
        "passthru(",
        "shell_exec(",
        "popen(",
        "eval(",
        "assert(",
        "proc_open(",
        "getRuntime()",
    ];
    let asks =
        ["$_GET", "$_POST", "$_REQUEST", "$_COOKIE", "$_SERVER", "request.getParameter", "QUERY_STRING"];
    let at = runs.iter().find_map(|run| text.find(run))?;
    // The part of the request stands near the call.
    let mut end = (at + 200).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut start = at.saturating_sub(200);
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    asks.iter().any(|ask| text[start..end].contains(ask)).then_some(at)
}

fn ran(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    match run.program() {
        "at" | "batch" => sink.report(&CRON, &action.span, "a job is left for `at`"),
        "trap" => {
            let handler = run.arguments().first().map(|word| word.text.as_str()).unwrap_or_default();
            let first = handler.split_whitespace().next().unwrap_or_default();
            let signal = run.arguments().iter().any(|word| word.is("DEBUG"));
            if signal
                || matches!(
                    first,
                    "nohup" | "sh" | "bash" | "curl" | "wget" | "nc" | "python" | "python3" | "setsid"
                )
            {
                sink.report(
                    &STARTUP,
                    &action.span,
                    format!("`{}` runs when the shell gets a signal", shown(handler)),
                );
            }
        }
        "systemd-run" if run.arguments().iter().any(|word| word.text.starts_with("--on-")) => {
            sink.report(&UNIT, &action.span, "a transient timer is started");
        }
        "git" if run.has("config") => {
            let runs = ["core.pager", "core.sshCommand", "core.hooksPath", "core.fsmonitor", "core.editor"];
            if run.arguments().iter().any(|word| runs.contains(&word.text.as_str()))
                && run.has("--global") | run.has("--system")
            {
                sink.report(&HOOK, &action.span, "git is made to run a program");
            }
        }
        "update-initramfs" | "dracut" | "mkinitramfs" => {
            if run.line().contains(HOLE) {
                return;
            }
            sink.report_as(&BOOT, Severity::Warn, &action.span, "the initramfs is built anew");
        }
        _ => {}
    }
}
