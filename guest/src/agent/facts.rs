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
    let mut rules = Captured::new(MAX_FIREWALL);
    let asked = Launch::new(["nft", "--stateless", "list", "ruleset"]);
    let ended = asked.run(Deadline::after(FIREWALL_LIMIT), &mut rules);
    // No `nft` is no rule set that anyone could have loaded with it; a failing one is said.
    if rules.truncated || ended.is_ok_and(|ended| ended.status != Some(0)) {
        notes.add("firewall");
    }
    rules.text()
}
