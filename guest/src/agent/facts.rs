//! The facts of [`guest::facts`], gathered with our own system calls.

mod places;
mod processes;
mod small_files;
mod sockets;
mod sshd;
mod units;
mod walk;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use guest::control::AgentError;
use guest::facts::{Facts, Group, MAX_BYTES, MAX_ENTRIES, User};

use super::accounts::Accounts;
use super::escape::escaped;
use super::exec::{Deadline, Launch};
use super::failure;
use super::output::Captured;
use super::root::Root;
use small_files::Reader;

/// Longest text of `/proc` that is read, in bytes.
const MAX_PROC_TEXT: u64 = 16 * 1024 * 1024;
/// Longest rule set that is kept, in bytes.
const MAX_FIREWALL: usize = 256 * 1024;
/// How long `nft` may take.
const FIREWALL_LIMIT: Duration = Duration::from_secs(20);

/// What could not be told in full, by name.
#[derive(Debug, Default)]
struct Notes(BTreeSet<String>);

impl Notes {
    fn add(&mut self, what: impl Into<String>) {
        // Beyond this the facts are useless anyway, and one entry is enough to say so.
        if self.0.len() < MAX_ENTRIES {
            self.0.insert(what.into());
        }
    }

    /// Adds `entry` to the list called `name`, unless that is full.
    fn push<T>(&mut self, name: &str, list: &mut Vec<T>, entry: T) {
        if list.len() < MAX_ENTRIES {
            list.push(entry);
        } else {
            self.add(name);
        }
    }
}

/// All facts, as JSON.
///
/// # Errors
/// `TooLarge` above [`MAX_BYTES`]; `System` if the accounts cannot be read.
pub(crate) fn gather(root: &Root) -> Result<Vec<u8>, AgentError> {
    let facts = look(root)?;
    let json = serde_json::to_vec(&facts).map_err(|error| failure::system("write the facts down", error))?;
    if json.len() > MAX_BYTES {
        return Err(failure::too_large("the list of facts", MAX_BYTES as u64));
    }
    Ok(json)
}

fn look(root: &Root) -> Result<Facts, AgentError> {
    let mut notes = Notes::default();
    let accounts = Accounts::read(root).map_err(|error| failure::system("read the accounts", error))?;
    for file in &accounts.malformed {
        notes.add(format!("users: {file} has lines that are not understood"));
    }
    let homes: Vec<&str> = accounts.users.iter().map(|user| user.home.as_str()).collect();
    let walked = walk::whole_device(root, &mut notes);
    let mut reader = Reader::new(root, &mut notes);
    let sshd = sshd::configuration(&mut reader);
    let authorized_keys = sshd::authorized_keys(&mut reader, &sshd, &accounts);
    let sudoers = reader.all("sudoers", places::SUDOERS, small_files::Text::Kept);
    let cron = reader.all("cron", places::CRON, small_files::Text::Kept);
    let mut hooks = reader.all("hooks", places::HOOKS, small_files::Text::Left);
    hooks.extend(reader.dot_files("hooks", places::ROOT_HOME));
    hooks.sort();
    let units = units::all(&mut reader, &homes);
    let mut facts = Facts {
        listening: sockets::listening(Path::new("/proc"), &mut notes),
        setuid: walked.setuid,
        capabilities: walked.capabilities,
        world_writable: walked.world_writable,
        users: users(&accounts, &mut notes),
        groups: groups(&accounts, &mut notes),
        authorized_keys,
        sudoers,
        sshd,
        units,
        cron,
        modules: modules(&mut notes),
        hooks,
        firewall: firewall(&mut notes),
        processes: processes::all(Path::new("/proc"), &mut notes),
        kernel_tainted: tainted(&mut notes),
        truncated: Vec::new(),
    };
    facts.truncated = notes.0.into_iter().collect();
    Ok(facts)
}

fn users(accounts: &Accounts, notes: &mut Notes) -> Vec<User> {
    let mut users = Vec::new();
    for user in &accounts.users {
        let user = User {
            name: user.name.clone(),
            uid: user.uid,
            gid: user.gid,
            home: user.home.clone(),
            shell: user.shell.clone(),
            password: user.password,
        };
        notes.push("users", &mut users, user);
    }
    users.sort();
    users
}

fn groups(accounts: &Accounts, notes: &mut Notes) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in &accounts.groups {
        let mut members = line.members.clone();
        members.sort();
        notes.push("groups", &mut groups, Group { name: line.name.clone(), gid: line.gid, members });
    }
    groups.sort();
    groups
}

fn modules(notes: &mut Notes) -> Vec<String> {
    let text = proc_text(Path::new("/proc/modules"), notes);
    let mut modules = Vec::new();
    for name in text.lines().filter_map(|line| line.split(' ').next()) {
        notes.push("modules", &mut modules, name.to_owned());
    }
    modules.sort();
    modules
}

fn tainted(notes: &mut Notes) -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    text.trim().parse().unwrap_or_else(|_| {
        notes.add("kernelTainted");
        // Every bit set: not known is not clean.
        u64::MAX
    })
}

/// Text of a file in `/proc`; a missing one (a protocol that the kernel does not have) is empty.
fn proc_text(path: &Path, notes: &mut Notes) -> String {
    let Ok(file) = File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    if file.take(MAX_PROC_TEXT).read_to_end(&mut bytes).is_err() || bytes.len() as u64 == MAX_PROC_TEXT {
        notes.add(path.display().to_string());
    }
    escaped(&bytes)
}

fn firewall(notes: &mut Notes) -> String {
    // Asking would load the modules, and looking must not change what is seen; without them there are no rules.
    if !Path::new("/sys/module/nf_tables").exists() {
        return String::new();
    }
    let mut rules = Captured::new(MAX_FIREWALL);
    let asked = Launch::new(["nft", "--stateless", "list", "ruleset"]);
    let ended = asked.run(Deadline::after(FIREWALL_LIMIT), &mut rules);
    // No `nft` is no rule set that anyone could have loaded with it; a failing one is said.
    if rules.truncated || ended.is_ok_and(|ended| ended.status != Some(0)) {
        notes.add("firewall");
    }
    rules.text()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use guest::facts::{MAX_SMALL_FILE, Password, SmallFile};

    use super::*;

    fn guest() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\nu:x:7:7::/home/u:/bin/sh\nodd\n");
        file("etc/shadow", "root:*:1:0:99999:7:::\nu::1:0:99999:7:::\n");
        file("etc/group", "g:x:9:z,a\n");
        file("etc/ssh/sshd_config", "Include sshd_config.d/*.conf\nAuthorizedKeysFile /etc/keys/%u\n");
        file("etc/ssh/sshd_config.d/b.conf", "Include /etc/ssh/last\n");
        file("etc/ssh/sshd_config.d/a.conf", "PermitRootLogin no\n");
        file("etc/ssh/sshd_config.d/not", "");
        // Includes itself: bounded.
        file("etc/ssh/last", "Include /etc/ssh/last\n");
        file("etc/keys/u", "key of u\n");
        file("home/u/.ssh/authorized_keys2", "other key\n");
        file("etc/sudoers.d/u", "u ALL=(ALL) ALL\n");
        file("etc/cron.d/big", &"x".repeat(MAX_SMALL_FILE + 1));
        file("var/spool/cron/crontabs/u", "* * * * * x\n");
        file("root/.profile", "");
        file("root/plain", "");
        file("etc/profile.d/x.sh", "secret of a hook");
        file("usr/lib/systemd/systemd", "program");
        file("usr/lib/systemd/system/a.service", "[Unit]");
        file("home/u/.config/systemd/user/own.service", "");
        fs::create_dir_all(folder.path().join("etc/systemd/system")).unwrap();
        symlink("usr/lib", folder.path().join("lib")).unwrap();
        symlink("/lib/systemd/system/a.service", folder.path().join("etc/systemd/system/a.service")).unwrap();
        symlink("/etc/keys/u", folder.path().join("etc/sudoers")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("etc/cron.d/pipe"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        folder
    }

    fn paths(files: &[SmallFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn a_tree_is_told_as_it_is() {
        let folder = guest();
        let facts = look(&Root::open(folder.path()).unwrap()).unwrap();

        let users: Vec<_> = facts.users.iter().map(|user| (user.name.as_str(), user.password)).collect();
        assert_eq!(users, [("root", Password::Locked), ("u", Password::Empty)]);
        assert_eq!(facts.groups[0].members, ["a", "z"]);
        let sshd = paths(&facts.sshd);
        assert_eq!(
            sshd[..4],
            [
                "/etc/ssh/sshd_config",
                "/etc/ssh/sshd_config.d/a.conf",
                "/etc/ssh/sshd_config.d/b.conf",
                "/etc/ssh/last"
            ]
        );
        assert!(sshd.len() < 20 && !sshd.contains(&"/etc/ssh/sshd_config.d/not"));
        assert_eq!(paths(&facts.authorized_keys), ["/etc/keys/u", "/home/u/.ssh/authorized_keys2"]);
        assert_eq!(facts.authorized_keys[0].text.as_deref(), Some("key of u\n"));
        assert_eq!(paths(&facts.sudoers), ["/etc/sudoers", "/etc/sudoers.d/u"]);
        assert_eq!(facts.sudoers[0].link.as_deref(), Some("/etc/keys/u"));
        assert_eq!(facts.sudoers[0].text.as_deref(), Some("key of u\n"), "the text behind the link");
        assert_eq!(paths(&facts.cron), ["/etc/cron.d/big", "/var/spool/cron/crontabs/u"]);
        assert_eq!(facts.cron[0].text, None);
        assert_eq!(paths(&facts.hooks), ["/etc/profile.d/x.sh", "/root/.profile"]);
        assert_eq!(facts.hooks[0].text, None);
        let units: Vec<_> = facts.units.iter().map(|unit| unit.path.as_str()).collect();
        assert_eq!(
            units,
            [
                "/etc/systemd/system/a.service",
                "/home/u/.config/systemd/user/own.service",
                "/usr/lib/systemd/system/a.service"
            ]
        );
        assert_eq!(facts.units[0].link.as_deref(), Some("/lib/systemd/system/a.service"));
        for expected in
            ["users: /etc/passwd", "the text of /etc/cron.d/big", "cron: /etc/cron.d/pipe", "sshd: "]
        {
            assert!(
                facts.truncated.iter().any(|said| said.starts_with(expected)),
                "{expected}: {:?}",
                facts.truncated
            );
        }
    }

    #[test]
    fn a_full_list_is_cut_and_said() {
        let (mut notes, mut list) = (Notes::default(), vec![(); MAX_ENTRIES - 1]);
        notes.push("modules", &mut list, ());
        assert!(notes.0.is_empty());
        notes.push("modules", &mut list, ());
        assert_eq!(list.len(), MAX_ENTRIES);
        assert!(notes.0.contains("modules"));
    }
}
