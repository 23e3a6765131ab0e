//! What a file is by its path and first line, and which pieces of it are shell.

use std::ops::Range;

/// What the machine does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Shell,
    /// A table of `cron`; with a column for the user, or without.
    Crontab {
        user_column: bool,
    },
    Unit,
    Udev,
    AptConfiguration,
    AuthorizedKeys,
    Desktop,
    Sudoers,
    Sshd,
    Pam,
    Other,
}

/// What a file is.
pub(crate) fn kind(path: &str, content: &str) -> FileKind {
    let base = path.rsplit('/').next().unwrap_or_default();
    let below = |folder: &str| path.contains(folder);
    let first = content.lines().next().unwrap_or_default();
    if is_shebang_of_shell(first) {
        return FileKind::Shell;
    }
    if first.starts_with("#!") {
        return FileKind::Other;
    }
    if below("/etc/cron.d/") || path.ends_with("/etc/crontab") || path.ends_with("/etc/anacrontab") {
        return FileKind::Crontab { user_column: true };
    }
    if below("/var/spool/cron") {
        return FileKind::Crontab { user_column: false };
    }
    if [
        "/etc/cron.hourly/",
        "/etc/cron.daily/",
        "/etc/cron.weekly/",
        "/etc/cron.monthly/",
        "/etc/profile.d/",
        "/etc/init.d/",
        "/etc/update-motd.d/",
        "/dispatcher.d/",
        "/etc/rc.d/",
        "/if-up.d/",
    ]
    .iter()
    .any(|folder| below(folder))
        || matches!(
            base,
            ".bashrc"
                | ".bash_profile"
                | ".profile"
                | ".bash_login"
                | ".bash_logout"
                | ".zshrc"
                | "rc.local"
                | "bash.bashrc"
                | ".zprofile"
                | "bashrc"
        )
        || path == "/etc/profile"
    {
        return FileKind::Shell;
    }
    if is_unit(path) {
        return FileKind::Unit;
    }
    if below("/udev/rules.d/") {
        return FileKind::Udev;
    }
    if below("/etc/apt/apt.conf") {
        return FileKind::AptConfiguration;
    }
    if matches!(base, "authorized_keys" | "authorized_keys2") {
        return FileKind::AuthorizedKeys;
    }
    if base.ends_with(".desktop") || below("/dbus-1/system-services/") || below("/dbus-1/services/") {
        return FileKind::Desktop;
    }
    if path.ends_with("/etc/sudoers") || below("/etc/sudoers.d/") || path == "sudoers" {
        return FileKind::Sudoers;
    }
    if base == "sshd_config" || below("/sshd_config.d/") {
        return FileKind::Sshd;
    }
    if below("/etc/pam.d/") || base == "pam.conf" {
        return FileKind::Pam;
    }
    FileKind::Other
}

fn is_unit(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or_default();
    let unit = [".service", ".timer", ".socket", ".path", ".mount"].iter().any(|end| base.ends_with(end));
    unit || path.contains("/systemd/system/") && base.ends_with(".conf")
        || path.contains("/systemd/system-generators/")
}

/// `#!/bin/sh`, `#!/usr/bin/env bash`.
pub(crate) fn is_shebang_of_shell(line: &str) -> bool {
    interpreter(line).is_some_and(|program| crate::shell::is_shell(&program))
}

/// The program of a `#!` line.
pub(crate) fn interpreter(line: &str) -> Option<String> {
    let mut words = line.strip_prefix("#!")?.split_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    let program = if program == "env" {
        words.find(|word| !word.starts_with('-'))?.rsplit('/').next()?
    } else {
        program
    };
    Some(program.to_owned())
}

/// Whether a file's shell is followed where it is written, so that running it says nothing new.
pub(crate) fn is_followed(path: &str, content: &str) -> bool {
    kind(path, content) == FileKind::Shell
}

/// The pieces of a file of this kind that a shell, or something like one, will run.
pub(crate) fn commands(kind: FileKind, content: &str) -> Vec<Range<usize>> {
    let whole_line = |line: &Range<usize>, after: usize| line.start + after..line.end;
    if kind == FileKind::Shell {
        return std::iter::once(0..content.len()).collect();
    }
    let mut found = Vec::new();
    for line in lines(content) {
        let text = &content[line.clone()];
        let start = text.trim_start();
        if start.starts_with(['#', ';']) || start.is_empty() {
            continue;
        }
        match kind {
            FileKind::Crontab { user_column } => {
                let fields = if start.starts_with('@') { 1 } else { 5 } + usize::from(user_column);
                // An assignment is no entry.
                if let Some(after) = after_fields(text, fields).filter(|_| {
                    start.starts_with(['@', '*']) || start.starts_with(|c: char| c.is_ascii_digit())
                }) {
                    found.push(whole_line(&line, after));
                }
            }
            FileKind::Unit | FileKind::Desktop => {
                if start.starts_with("Exec")
                    && let Some(equals) = text.find('=')
                {
                    let value = &text[equals + 1..];
                    let plain = value.trim_start_matches(['-', '@', ':', '+', '!', ' ']);
                    found.push(whole_line(&line, equals + 1 + value.len() - plain.len()));
                }
            }
            FileKind::Udev => {
                for mark in ["RUN", "PROGRAM", "IMPORT{program}"] {
                    if let Some(at) = text.find(mark) {
                        found.extend(
                            quoted(&content[line.start + at..line.end])
                                .map(|inner| line.start + at + inner.start..line.start + at + inner.end),
                        );
                    }
                }
            }
            FileKind::AptConfiguration if (text.contains("Invoke") || text.contains("Pre-Install-Pkgs")) => {
                found.extend(quoted(text).map(|inner| line.start + inner.start..line.start + inner.end));
            }
            FileKind::AuthorizedKeys => {
                if let Some(at) = text.find("command=") {
                    found.extend(
                        quoted(&text[at..])
                            .map(|inner| line.start + at + inner.start..line.start + at + inner.end),
                    );
                }
            }
            _ => {}
        }
    }
    found
}

fn lines(content: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    content.split('\n').map(move |line| {
        let start = at;
        at += line.len() + 1;
        start..start + line.len()
    })
}

/// The offset after so many blank-separated fields.
fn after_fields(text: &str, fields: usize) -> Option<usize> {
    let mut at = text.len() - text.trim_start().len();
    for _ in 0..fields {
        let rest = text.get(at..)?;
        let word = rest.find([' ', '\t'])?;
        let blanks = rest[word..].len() - rest[word..].trim_start().len();
        at += word + blanks;
    }
    (at < text.len()).then_some(at)
}

/// What stands between the first pair of double quotes that no backslash takes away.
fn quoted(text: &str) -> Option<Range<usize>> {
    let open = text.find('"')? + 1;
    let mut escaped = false;
    let close = text[open..].bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    Some(open..open + close?)
}

/// Files whose content is a secret of the system or of a user.
pub(crate) fn is_secret(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or_default();
    matches!(
        path,
        "/etc/shadow"
            | "/etc/gshadow"
            | "/etc/shadow-"
            | "/etc/gshadow-"
            | "/etc/security/opasswd"
            | "/etc/krb5.keytab"
    ) || path.contains("/.aws/credentials")
        || path.contains("/.docker/config.json")
        || path.contains("/.kube/config")
        || path.contains("/.gnupg/")
        || path.ends_with("/.ssh")
        || path.ends_with("/.ssh/")
        || path.ends_with("/.ssh/*")
        || matches!(base, ".bash_history" | ".history" | ".zsh_history" | ".mysql_history" | ".python_history" | ".sh_history" | ".netrc" | ".pgpass" | ".git-credentials" | "shadow" if path.contains('/'))
        || (matches!(base, "id_rsa" | "id_ed25519" | "id_ecdsa" | "id_dsa")
            || base.starts_with("ssh_host_") && base.ends_with("_key"))
        || path.starts_with("/proc/") && base == "environ"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(path: &str, content: &str) -> Vec<String> {
        commands(kind(path, content), content).into_iter().map(|range| content[range].to_owned()).collect()
    }

    #[test]
    fn the_shell_inside_other_files_is_found() {
        assert_eq!(
            pieces("/etc/cron.d/x", "# no\nPATH=/bin\n*/5 * * * * root run it\n@reboot root go\n"),
            ["run it", "go"]
        );
        assert_eq!(pieces("/var/spool/cron/crontabs/root", "0 1 * * * run it"), ["run it"]);
        assert_eq!(
            pieces("/etc/systemd/system/x.service", "[Service]\nExecStart=-/bin/run it\nUser=x\n"),
            ["/bin/run it"]
        );
        assert_eq!(
            pieces("/etc/udev/rules.d/1.rules", "ACTION==\"add\", RUN+=\"/bin/run it\"\n"),
            ["/bin/run it"]
        );
        assert_eq!(pieces("/etc/apt/apt.conf.d/1", "APT::Update::Pre-Invoke {\"run it\";};\n"), ["run it"]);
        assert_eq!(pieces("/opt/x", "#!/usr/bin/env bash\nrun"), ["#!/usr/bin/env bash\nrun"]);
        assert!(pieces("/opt/x.py", "#!/usr/bin/python3\nrun").is_empty());
    }

    #[test]
    fn secrets_are_known_by_their_paths() {
        assert!(is_secret("/etc/shadow") && is_secret("~/.ssh/id_rsa") && is_secret("/root/.bash_history"));
        assert!(!is_secret("~/.ssh/id_rsa.pub") && !is_secret("/etc/passwd") && !is_secret("shadow"));
    }
}
