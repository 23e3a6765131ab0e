//! The facts of [`guest::facts`], gathered with our own system calls.

mod found;
mod helpers;
mod mounts;
mod places;
mod processes;
mod small_files;
mod sockets;
mod sshd;
mod units;
mod walk;

use std::collections::BTreeSet;
use std::io;
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
use super::sight::{Proc, Sight};
use found::Found;

/// Longest text of `/proc` that is read, in bytes.
const MAX_PROC_TEXT: usize = 16 * 1024 * 1024;
/// Longest rule set that is kept, in bytes.
const MAX_FIREWALL: usize = 256 * 1024;
/// How long `nft` may take.
const FIREWALL_LIMIT: Duration = Duration::from_secs(20);

/// The process whose network and mounts are told.
const INIT: u32 = 1;

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

/// All facts, as JSON. `root` is the root as the guest sees it.
///
/// # Errors
/// `TooLarge` above [`MAX_BYTES`]; `System` if the accounts cannot be read.
pub(crate) fn gather(root: &Root, sight: &Sight) -> Result<Vec<u8>, AgentError> {
    written(look(root, sight)?)
}

/// The facts of a disk of which nothing runs, as JSON.
///
/// # Errors
/// As [`gather`].
pub(crate) fn gather_disk(disk: &Root) -> Result<Vec<u8>, AgentError> {
    let mut notes = Notes::default();
    let (facts, _) = on_disk(disk, &mut notes)?;
    written(Facts { truncated: notes.0.into_iter().collect(), ..facts })
}

fn written(facts: Facts) -> Result<Vec<u8>, AgentError> {
    let json = serde_json::to_vec(&facts).map_err(|error| failure::system("write the facts down", error))?;
    if json.len() > MAX_BYTES {
        return Err(failure::too_large("the list of facts", MAX_BYTES as u64));
    }
    Ok(json)
}

/// What the files of a disk tell; everything else is empty.
fn on_disk(disk: &Root, notes: &mut Notes) -> Result<(Facts, Accounts), AgentError> {
    let accounts = Accounts::read(disk).map_err(|error| failure::system("read the accounts", error))?;
    for file in &accounts.malformed {
        notes.add(format!("users: {file} has lines that are not understood"));
    }
    let walked = walk::whole_device(disk, notes);
    let found = Found::below(disk, &accounts, notes);
    let facts = Facts {
        setuid: walked.setuid,
        capabilities: walked.capabilities,
        attributes: walked.attributes,
        world_writable: walked.world_writable,
        users: users(&accounts, notes),
        groups: groups(&accounts, notes),
        authorized_keys: found.authorized_keys,
        sudoers: found.sudoers,
        sshd: found.sshd,
        units: found.units,
        cron: found.cron,
        hooks: found.hooks,
        ..Facts::default()
    };
    Ok((facts, accounts))
}

fn look(root: &Root, sight: &Sight) -> Result<Facts, AgentError> {
    let mut notes = Notes::default();
    let (mut facts, accounts) = on_disk(sight.disk.as_ref().unwrap_or(root), &mut notes)?;
    if sight.disk.is_some() {
        if !Accounts::read(root).is_ok_and(|seen| seen == accounts) {
            for list in ["users", "groups"] {
                notes.add(format!("{list}: the accounts are others than on the disk"));
            }
        }
        Found::below(root, &accounts, &mut notes).add_to(&mut facts, &mut notes);
    }
    let proc = &sight.proc;
    let modules = modules(proc, &mut notes);
    facts.listening = sockets::listening(proc, INIT, &mut notes);
    facts.firewall = firewall(&modules, &mut notes);
    facts.modules = modules;
    facts.processes = processes::all(proc, &mut notes);
    facts.mounts = mounts::all(proc, INIT, &mut notes);
    facts.kernel_tainted = tainted(proc, &mut notes);
    facts.helpers = helpers::all(proc, &mut notes);
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
    // Members count as entries of the list, because a reader bounds both together.
    let mut left = MAX_ENTRIES;
    for line in &accounts.groups {
        let Some(rest) = left.checked_sub(1 + line.members.len() + line.administrators.len()) else {
            notes.add("groups");
            break;
        };
        left = rest;
        groups.push(Group {
            name: line.name.clone(),
            gid: line.gid,
            members: line.members.clone(),
            password: line.password,
            administrators: line.administrators.clone(),
        });
    }
    groups.sort();
    groups
}

fn modules(proc: &Proc, notes: &mut Notes) -> Vec<String> {
    let text = proc_text(proc, "modules", Path::new("modules"), Absence::Told, notes).unwrap_or_default();
    let mut modules = Vec::new();
    for name in text.lines().filter_map(|line| line.split(' ').next()) {
        notes.push("modules", &mut modules, name.to_owned());
    }
    modules.sort();
    modules
}

fn tainted(proc: &Proc, notes: &mut Notes) -> u64 {
    let path = Path::new("sys/kernel/tainted");
    let text = proc_text(proc, "kernelTainted", path, Absence::Told, notes).unwrap_or_default();
    text.trim().parse().unwrap_or_else(|_| {
        notes.add("kernelTainted");
        // Every bit set: not known is not clean.
        u64::MAX
    })
}

/// Whether a file of `/proc` may be missing. Who says `Normal` says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    /// Its list is then not seen whole.
    Told,
    /// The kernel lacks what the file is about.
    Normal,
}

/// Text of a file in `/proc`, for the list called `name`; `None` if it cannot be had.
fn proc_text(proc: &Proc, name: &str, path: &Path, absence: Absence, notes: &mut Notes) -> Option<String> {
    match proc.read(path, MAX_PROC_TEXT) {
        Ok(bytes) => Some(escaped(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && absence == Absence::Normal => None,
        Err(error) => {
            notes.add(format!("{name}: {}: {error}", path.display()));
            None
        }
    }
}

fn firewall(modules: &[String], notes: &mut Notes) -> String {
    // Asking would load the modules, and looking must not change what is seen; without them there are no rules.
    let loaded = modules.iter().any(|module| module == "nf_tables");
    if !loaded && !Path::new("/sys/module/nf_tables").exists() {
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
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    use rustix::thread::UnshareFlags;

    use guest::facts::{MAX_SMALL_FILE, Password, SmallFile};

    use super::*;
    use crate::agent::accounts::GroupLine;

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
        let facts = look(&Root::open(folder.path()).unwrap(), &Sight::plain().unwrap()).unwrap();

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

    /// Runs `test` on a thread with mounts of its own, as an initramfs has them: private.
    fn with_own_mounts(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            // SAFETY: only file descriptor tables that are not shared could break what other threads hold, and CLONE_NEWNS
            // leaves those alone; it ends the sharing of root and working folder for this thread, which ends with the test.
            #[allow(unsafe_code, reason = "the safe function is deprecated")]
            let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
            unshared.expect("this test mounts things over others: run it as root");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn nothing_is_hidden_by_mounting_over_proc() {
        with_own_mounts(|| {
            let own = std::process::id();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let listens = |proc: &Proc| {
                let mut notes = Notes::default();
                let found = sockets::listening(proc, own, &mut notes);
                let told = notes.0.iter().any(|note| note.starts_with(&format!("listening: {own}/net/tcp:")));
                (found.iter().any(|socket| socket.port == port), told)
            };
            let (before, plain) = (Proc::detached().unwrap(), Proc::at("/proc").unwrap());
            assert_eq!(listens(&before), (true, false));
            assert_eq!(listens(&plain), (true, false));
            // Tables with their headings and nothing else. (A mount on one table alone is undone by the kernel as soon as someone
            // looks, because it looks those names up afresh each time.)
            let folder = tempfile::tempdir().unwrap();
            for table in [
                "tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "packet",
            ] {
                fs::write(folder.path().join(table), "headings\n").unwrap();
            }
            mount_bind(folder.path(), format!("/proc/{own}/net")).unwrap();
            assert_eq!(listens(&before), (true, false));
            assert_eq!(listens(&plain), (false, true), "by path it is not seen, and that is said");
            let seen = mounts::all(
                &before,
                rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned(),
                &mut Notes::default(),
            );
            assert!(seen.iter().any(|mount| mount.point == format!("/proc/{own}/net")), "{seen:?}");
            mount_bind(folder.path(), "/proc").unwrap();
            assert_eq!(listens(&before), (true, false));
            assert_eq!(listens(&Proc::at("/proc").unwrap()), (false, true));
        });
    }

    #[test]
    fn nothing_is_hidden_by_mounting_over_the_disk() {
        with_own_mounts(|| {
            let (folder, over) = (guest(), tempfile::tempdir().unwrap());
            let at = |path: &str| folder.path().join(path);
            fs::create_dir_all(at("usr/bin")).unwrap();
            fs::create_dir_all(at("run/systemd/system")).unwrap();
            fs::write(at("usr/bin/su"), "x").unwrap();
            fs::set_permissions(at("usr/bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
            let root = Root::open(folder.path()).unwrap();
            let sight = Sight::detached(&root).unwrap();

            fs::create_dir(over.path().join("empty")).unwrap();
            fs::create_dir(over.path().join("run")).unwrap();
            fs::write(over.path().join("run/late.service"), "").unwrap();
            for file in ["passwd", "sudoers"] {
                fs::write(over.path().join(file), "root:x:0:0::/root:/bin/sh\n").unwrap();
            }
            for (what, place) in [
                ("passwd", "etc/passwd"),
                ("sudoers", "etc/sudoers.d/u"),
                ("empty", "usr/bin"),
                ("empty", "etc/profile.d"),
                ("run", "run/systemd/system"),
            ] {
                mount_bind(over.path().join(what), at(place)).unwrap();
            }
            let facts = look(&root, &sight).unwrap();
            assert!(facts.users.iter().any(|user| user.name == "u"), "{:?}", facts.users);
            assert!(facts.setuid.iter().any(|file| file.path == "/usr/bin/su"), "{:?}", facts.setuid);
            assert_eq!(facts.sudoers[1].text.as_deref(), Some("u ALL=(ALL) ALL\n"));
            assert_eq!(paths(&facts.hooks), ["/etc/profile.d/x.sh", "/root/.profile"]);
            assert!(facts.units.iter().any(|unit| unit.path == "/run/systemd/system/late.service"));
            for expected in
                ["users: the accounts", "groups: the accounts", "sudoers: /etc/sudoers.d/u is another"]
            {
                assert!(
                    facts.truncated.iter().any(|said| said.starts_with(expected)),
                    "{:?}",
                    facts.truncated
                );
            }
        });
    }

    #[test]
    fn who_mounts_over_our_own_mounts_is_told_of() {
        with_own_mounts(|| {
            let (folder, place) = (guest(), tempfile::tempdir().unwrap());
            let sight = Sight::detached(&Root::open(folder.path()).unwrap()).unwrap();
            let disk = sight.disk.as_ref().unwrap();
            // As root in the guest could through `/proc/AGENT/fd`.
            let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(disk, "", rustix::fs::CWD, place.path(), flags).unwrap();
            let empty = tempfile::NamedTempFile::new().unwrap();
            mount_bind(empty.path(), place.path().join("etc/crontab")).unwrap_err();
            mount_bind(empty.path(), place.path().join("etc/shadow")).unwrap();
            assert!(Accounts::read(disk).is_err());
            let mut notes = Notes::default();
            walk::whole_device(disk, &mut notes);
            assert!(notes.0.contains("walk: /etc/shadow: something is mounted over it"), "{notes:?}");
        });
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

    #[test]
    fn members_count_as_entries_of_the_groups() {
        let line = |members: usize| GroupLine {
            name: "g".into(),
            gid: 1,
            members: vec!["m".into(); members],
            password: Password::Locked,
            administrators: Vec::new(),
        };
        let accounts = |members| Accounts {
            users: Vec::new(),
            groups: vec![line(MAX_ENTRIES / 2), line(members)],
            malformed: Vec::new(),
        };
        let mut notes = Notes::default();
        assert_eq!(groups(&accounts(MAX_ENTRIES / 2 - 2), &mut notes).len(), 2);
        assert!(notes.0.is_empty());
        assert_eq!(groups(&accounts(MAX_ENTRIES / 2 - 1), &mut notes).len(), 1);
        assert!(notes.0.contains("groups"));
    }
}
