//! The SSH server: closed to root and to passwords, by its effective settings.
//!
//! sshd takes the first value of a keyword; `Include` inserts files where it stands, and a `Match` block overrides for
//! whom it fits (sshd_config(5)). A file that is included and was not seen fails.

use std::collections::{BTreeMap, BTreeSet};

use guest::facts::{Facts, SmallFile};
use serde::{Deserialize, Serialize};

use super::super::declarations::{By, Standing};
use super::super::pattern::Pattern;
use super::{Check, Sees};

/// What must be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshdConfig {
    /// Keyword in lower case, and the value it must have, also in every `Match` block that sets it.
    pub require: BTreeMap<String, String>,
    /// Keywords, in lower case, that may be set nowhere but in the base's and the site's files: they bring other keys or programs.
    pub forbid: Vec<String>,
}

/// The server's main file.
const MAIN: &str = "/etc/ssh/sshd_config";
/// Deepest chain of includes that sshd takes.
const MAX_DEPTH: usize = 16;

pub(super) const CHECK: Check = Check {
    name: "sshd",
    sees: Sees::Files,
    lists: &["sshd", "processes"],
    run: |evidence, config, complaints| {
        let usual: Vec<&str> = servers(evidence.base).collect();
        for command in servers(evidence.now).filter(|command| !usual.contains(command)) {
            complaints.add(
                command,
                "is how sshd was started, and not how the base starts it",
                "leave its command line alone: options there come before every file",
            );
        }
        let mut settings = Settings::default();
        settings.read(&evidence.now.sshd, MAIN, 0);
        // The agent found it to be included, so one of the two reads a line otherwise than sshd does.
        let unread = evidence.now.sshd.iter().filter(|file| !settings.read.contains(&file.path));
        settings.unseen.extend(unread.map(|file| file.path.clone()));
        for problem in &settings.unseen {
            complaints.add(
                problem,
                "is read by sshd and could not be judged",
                "include only files below /etc/ssh",
            );
        }
        for (keyword, wanted) in &config.sshd.require {
            match settings.global.get(keyword) {
                Some(setting) if setting.value.eq_ignore_ascii_case(wanted) => {}
                Some(setting) => complaints.add(
                    &setting.file,
                    format_args!(
                        "sets {keyword} to `{}`, not `{wanted}`",
                        super::super::complaints::shown(&setting.value)
                    ),
                    "leave sshd's settings to the site",
                ),
                None => complaints.add(
                    MAIN,
                    format_args!("does not set {keyword} to `{wanted}`"),
                    "keep the site's recipe in place",
                ),
            }
            for setting in settings.matched.iter().filter(|setting| setting.keyword == *keyword) {
                if !setting.value.eq_ignore_ascii_case(wanted) {
                    complaints.add(
                        &setting.file,
                        format_args!("a Match block sets {keyword} otherwise than `{wanted}`"),
                        "leave sshd's settings to the site",
                    );
                }
            }
        }
        for setting in settings.all.iter().filter(|setting| config.sshd.forbid.contains(&setting.keyword)) {
            let file = evidence.now.sshd.iter().find(|file| file.path == setting.file);
            let trusted = file.is_some_and(|file| {
                let standing = evidence.standing(&file.path, Some(&file.sha256), file.link.as_deref());
                evidence.base.sshd.contains(file) || standing == Standing::Declared(By::Site)
            });
            if !trusted {
                complaints.add(
                    &setting.file,
                    format_args!(
                        "sets {}, which opens another way in",
                        super::super::complaints::shown(&setting.keyword)
                    ),
                    "remove the line",
                );
            }
        }
    },
};

/// The command lines of the servers that the service manager started. A server shows its own with its state behind it.
fn servers(facts: &Facts) -> impl Iterator<Item = &str> {
    facts
        .processes
        .iter()
        .filter(|process| {
            process.parent == 1 && process.exe.as_deref().is_some_and(|exe| exe.ends_with("/sshd"))
        })
        .map(|process| {
            let command = process.command.strip_prefix("sshd: ").unwrap_or(&process.command);
            command.split_once(" [listener]").map_or(command, |(command, _)| command)
        })
}

#[derive(Clone)]
struct Setting {
    file: String,
    keyword: String,
    value: String,
}

#[derive(Default)]
struct Settings {
    /// First value of each keyword outside any `Match`.
    global: BTreeMap<String, Setting>,
    /// Every setting inside a `Match`.
    matched: Vec<Setting>,
    /// Every setting.
    all: Vec<Setting>,
    /// Files that were judged.
    read: BTreeSet<String>,
    /// Files that could not be judged.
    unseen: Vec<String>,
    in_match: bool,
}

impl Settings {
    fn read(&mut self, files: &[SmallFile], path: &str, depth: usize) {
        let file = files.iter().find(|file| file.path == path);
        let Some(text) = file.filter(|file| file.link.is_none()).and_then(|file| file.text.as_ref()) else {
            self.unseen.push(path.to_owned());
            return;
        };
        self.read.insert(path.to_owned());
        // A `Match` in an included file ends with that file.
        let outer = self.in_match;
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
            let keyword = line[..end].to_ascii_lowercase();
            // sshd ends a quoted keyword at its quote, whatever follows.
            if keyword.is_empty() || !keyword.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                self.unseen.push(path.to_owned());
                continue;
            }
            let value = line[end..].trim_start_matches(|c: char| c.is_whitespace() || c == '=').to_owned();
            match keyword.as_str() {
                "match" => self.in_match = true,
                "include" => self.include(files, &value, depth),
                _ => {
                    // `no # comment` and `"no"` are `no`.
                    let first =
                        value.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned();
                    let setting = Setting { file: path.to_owned(), keyword: keyword.clone(), value: first };
                    self.all.push(setting.clone());
                    if self.in_match {
                        self.matched.push(setting);
                    } else {
                        self.global.entry(keyword).or_insert(setting);
                    }
                }
            }
        }
        self.in_match = outer;
    }

    fn include(&mut self, files: &[SmallFile], value: &str, depth: usize) {
        if depth == MAX_DEPTH {
            self.unseen.push(value.to_owned());
            return;
        }
        // sshd joins what quotes or a backslash hold together, and we would not.
        if value.contains(['"', '\'', '\\']) {
            self.unseen.push(value.to_owned());
            return;
        }
        for word in value.split_whitespace() {
            let word = if word.starts_with('/') { word.to_owned() } else { format!("/etc/ssh/{word}") };
            // The facts hold what lies below /etc/ssh; of anything else it is not known whether it exists.
            let known =
                word.starts_with("/etc/ssh/") && !word.contains(['?', '[', '{', '~']) && !word.contains("..");
            let Some(pattern) = Pattern::try_from(word.clone()).ok().filter(|_| known) else {
                self.unseen.push(word);
                continue;
            };
            let mut paths: Vec<&str> =
                files.iter().map(|file| file.path.as_str()).filter(|path| pattern.matches(path)).collect();
            paths.sort_unstable();
            for path in paths {
                self.read(files, path, depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use guest::facts::Process;

    use crate::suite::fixture::{Machine, small_file};

    const DROP_IN: &str = "/etc/ssh/sshd_config.d/00-countersign.conf";
    const CLOSED: &str = "PermitRootLogin no\npasswordauthentication=no\nKbdInteractiveAuthentication \"no\"\nPermitEmptyPasswords no\n";

    fn machine(main: &str, drop_in: &str) -> Machine {
        let mut machine = Machine::base();
        machine.now.sshd = vec![small_file("/etc/ssh/sshd_config", main), small_file(DROP_IN, drop_in)];
        machine
    }

    const INCLUDE: &str = "Include /etc/ssh/sshd_config.d/*.conf\n";

    #[test]
    fn the_first_value_counts() {
        machine(INCLUDE, CLOSED).passes("sshd", "", "");
        machine(&format!("{INCLUDE}PermitRootLogin yes\n"), CLOSED).passes("sshd", "", "");
        machine(&format!("PermitRootLogin yes\n{INCLUDE}"), CLOSED).fails("sshd", "", "", "permitrootlogin");
        machine("", CLOSED).fails("sshd", "", "", "does not set permitrootlogin");
        let mut alone = machine(CLOSED, "");
        alone.now.sshd.truncate(1);
        alone.passes("sshd", "", "");
    }

    #[test]
    fn an_earlier_drop_in_and_a_match_block_are_seen() {
        let mut early = machine(INCLUDE, CLOSED);
        early.now.sshd.push(small_file("/etc/ssh/sshd_config.d/00-aaa.conf", "PasswordAuthentication yes\n"));
        early.fails("sshd", "", "", "00-aaa.conf: sets passwordauthentication to `yes`");
        let block = format!("{INCLUDE}Match User atlas\n  PasswordAuthentication yes\n");
        machine(&block, CLOSED).fails("sshd", "", "", "Match block");
        let hidden = format!("Match User x\n{CLOSED}");
        machine(INCLUDE, &hidden).fails("sshd", "", "", "does not set");
    }

    #[test]
    fn a_match_ends_with_its_file() {
        let mut early = machine(INCLUDE, CLOSED);
        early
            .now
            .sshd
            .push(small_file("/etc/ssh/sshd_config.d/00-aaa.conf", "Match User x\nX11Forwarding no\n"));
        early.passes("sshd", "", "");
    }

    #[test]
    fn what_cannot_be_seen_fails() {
        machine(&format!("{INCLUDE}Include /opt/x.conf\n"), CLOSED).fails("sshd", "", "", "/opt/x.conf");
        machine(&format!("{INCLUDE}Include /etc/ssh/[x].conf\n"), CLOSED).fails(
            "sshd",
            "",
            "",
            "could not be judged",
        );
        let mut cut = machine(INCLUDE, CLOSED);
        cut.now.sshd[1].text = None;
        cut.fails("sshd", "", "", DROP_IN);
        let mut looped = machine("Include /etc/ssh/sshd_config\n", CLOSED);
        looped.now.sshd.truncate(1);
        looped.fails("sshd", "", "", "could not be judged");
    }

    /// What sshd reads as one name and a split at blanks as another.
    #[test]
    fn an_include_in_quotes_cannot_be_judged() {
        for line in [
            "Include '/etc/ssh/sshd_config.d/more'",
            "Include \"/etc/ssh/sshd_config.d/more\"",
            "Include /etc/ssh/sshd_config.d/m'o're",
            "Include /etc/ssh/sshd_config.d/m\\ore",
            "Include=\"/etc/ssh/sshd_config.d/a b\"",
        ] {
            machine(&format!("{INCLUDE}{line}\n"), CLOSED).fails("sshd", "", "", "could not be judged");
        }
        // Whatever the reason: a file that the agent found to be read is judged, or nothing passes.
        let mut other = machine(INCLUDE, CLOSED);
        other.now.sshd.push(small_file("/etc/ssh/more", "Match all\nPermitRootLogin yes\n"));
        other.fails("sshd", "", "", "/etc/ssh/more");
    }

    #[test]
    fn a_running_server_has_the_bases_command_line() {
        let server = |title: &str| Process {
            pid: 7,
            parent: 1,
            uid: 0,
            exe: Some("/usr/sbin/sshd".to_owned()),
            command: title.to_owned(),
        };
        let mut machine = machine(INCLUDE, CLOSED);
        machine.base.processes = vec![server("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups")];
        machine.now.processes = vec![server("sshd: /usr/sbin/sshd -D [listener] 1 of 3-9 startups")];
        machine.passes("sshd", "", "");
        for title in [
            "sshd: /usr/sbin/sshd -D -o PermitRootLogin=yes [listener] 0 of 10-100 startups",
            "/usr/sbin/sshd -D -f /opt/x",
        ] {
            machine.now.processes = vec![server(title)];
            machine.fails("sshd", "", "", "-D -");
        }
        machine.now.processes[0].parent = 6;
        machine.passes("sshd", "", "");
    }

    #[test]
    fn other_ways_in_are_forbidden() {
        for line in ["Match all\nChallengeResponseAuthentication yes\n", "HostKey /opt/x\n"] {
            machine(&format!("{CLOSED}{line}"), "").fails("sshd", "", "", "another way in");
        }
        let other = format!("{CLOSED}AuthorizedKeysFile /tmp/keys\n");
        machine(INCLUDE, &other).fails("sshd", "", "", "authorizedkeysfile");
        machine(INCLUDE, &format!("{CLOSED}Banner /etc/shadow\n")).fails("sshd", "", "", "sets banner");
        // The site's own file says what the site wants.
        let content = "PermitRootLogin no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitEmptyPasswords no\nAcceptEnv LANG\n";
        let step = format!("[[step]]\nfile = {{ path = \"/etc/ssh/sshd_config\", content = {content:?} }}\n");
        let mut own = machine(content, "");
        own.now.sshd.truncate(1);
        own.passes("sshd", "", &step);
        own.fails("sshd", &step, "", "sets acceptenv");
    }

    #[test]
    fn a_keyword_in_quotes_cannot_be_judged() {
        for line in [
            "\"PermitRootLogin\"yes",
            "\"PermitRootLogin\" yes",
            "Permit\"RootLogin\" yes",
            "'AuthorizedKeysFile'/opt/keys",
            "=PermitRootLogin yes",
        ] {
            let mut machine = Machine::base();
            let file = &mut machine.now.sshd[0];
            *file = small_file(&file.path, &format!("{}{line}\n", file.text.as_deref().unwrap_or_default()));
            machine.fails("sshd", "", "", "could not be judged");
        }
    }
}
