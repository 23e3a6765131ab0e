//! Accounts: the base's, unchanged, and those that a `user` step or `[capabilities] users` declares.

use guest::facts::{Password, User};
use recipe_spec::Sha256Digest;

use super::super::complaints::{Complaints, shown};
use super::super::declarations::By;
use super::{Check, Evidence, Sees};

/// What accounts have that have no home.
const NO_HOME: &str = "/nonexistent";

pub(super) const CHECK: Check = Check {
    name: "users",
    sees: Sees::Files,
    lists: &["users"],
    run: |evidence, _, complaints| {
        subordinate(evidence, complaints);
        let users = &evidence.now.users;
        for (index, user) in users.iter().enumerate() {
            judge(evidence, user, complaints);
            if users[..index].iter().any(|other| other.uid == user.uid && other.uid != 0) {
                complaints.add(
                    &user.name,
                    format_args!("shares user id {} with another account", user.uid),
                    "give it a user id of its own",
                );
            }
            if users[..index].iter().any(|other| other.name == user.name) {
                complaints.add(&user.name, "is there twice", "remove one of the lines from /etc/passwd");
            }
        }
    },
};

/// Who may hand out which user and group ids in a namespace of its own (subuid(5), subgid(5)).
pub(crate) const SUBORDINATE: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
/// Below are ids of accounts (`SUB_UID_MIN` of login.defs(5)).
const FIRST_SUBORDINATE: u32 = 100_000;

fn subordinate(evidence: &Evidence<'_>, complaints: &mut Complaints) {
    const REMEDY: &str = "leave the ranges that useradd(8) gives";
    for path in SUBORDINATE {
        let change = evidence.changes.changes.iter().find(|change| change.path == path);
        let Some(after) = change.and_then(|change| change.after.as_ref()) else { continue };
        let read = evidence.contents.get(path);
        let read = read.filter(|bytes| after.sha256 == Some(Sha256Digest::of(bytes)));
        let Some(text) = read.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
            complaints.add(path, "could not be read", REMEDY);
            continue;
        };
        for line in text.lines().filter(|line| !is_range(line)) {
            complaints.add(path, format_args!("gives away ids of accounts: {}", shown(line)), REMEDY);
        }
    }
}

/// Whether a line gives a range that holds no account's id.
fn is_range(line: &str) -> bool {
    let fields: Vec<&str> = line.split(':').collect();
    let [_, first, count] = fields[..] else { return false };
    let number = |text: &str| text.parse::<u32>().ok();
    number(first)
        .zip(number(count))
        .is_some_and(|(first, count)| first >= FIRST_SUBORDINATE && first.checked_add(count).is_some())
}

fn judge(evidence: &Evidence<'_>, user: &User, complaints: &mut Complaints) {
    let declared = evidence.declared.users.get(&user.name);
    let base = evidence.base.users.iter().find(|base| base.name == user.name);
    let others_home =
        |other: &User| other.name != user.name && other.home == user.home && user.home != NO_HOME;
    if declared.is_some_and(|declared| declared.by == By::Vo) && evidence.base.users.iter().any(others_home) {
        complaints.add(
            &user.name,
            format_args!("has the home of an account of the base: {}", shown(&user.home)),
            "give it a home of its own",
        );
    }
    if user.uid == 0 && user.name != "root" {
        complaints.add(&user.name, "is root under another name", "remove it or give it another user id");
    }
    match user.password {
        Password::Empty => {
            complaints.add(
                &user.name,
                "logs in without a password",
                "lock it with `usermod --lock`, or remove it",
            );
        }
        Password::Missing if base.is_none_or(|base| base.password != Password::Missing) => {
            complaints.add(&user.name, "has no entry in /etc/shadow", "make it with a `user` step");
        }
        Password::Set if base.is_some_and(|base| base.password != Password::Set) => {
            complaints.add(
                &user.name,
                "got a password, and the base has none",
                "lock it with `usermod --lock`",
            );
        }
        Password::Missing | Password::Set | Password::Locked => {}
    }
    match base {
        None if declared.is_none() && !evidence.declared.expected_users.contains(&user.name) => {
            complaints.add(
                &user.name,
                format_args!("is an account (user id {}) that nobody declared", user.uid),
                "declare it with a `user` step or in [capabilities] users, or remove it",
            );
        }
        Some(base) if !same_account(base, user) => {
            // A service's account that becomes one to log in to is a new way in, so only an open `user` step may do
            // it; what is root may be changed by nobody but the site.
            let may_change = declared
                .is_some_and(|declared| user.uid != 0 && base.uid == user.uid || declared.by == By::Site);
            if !may_change {
                complaints.add(
                    &user.name,
                    "is an account of the base, with another id, group, home or shell",
                    "leave it as it was, or declare the change with a `user` step",
                );
            }
        }
        _ => {}
    }
}

fn same_account(one: &User, other: &User) -> bool {
    (one.uid, one.gid, &one.home, &one.shell) == (other.uid, other.gid, &other.home, &other.shell)
}

#[cfg(test)]
mod tests {
    use guest::facts::{Password, User};

    use crate::suite::fixture::{Machine, change, node, user};

    const STEP: &str = "[[step]]\nuser = { name = \"atlas\" }\n";

    #[test]
    fn a_new_account_must_be_declared() {
        let mut machine = Machine::base();
        machine.now.users.push(user("atlas", 1000));
        machine.passes("users", &with_capability(STEP), "");
        machine.passes("users", &with_capability(""), "");
        machine.fails("users", "", "", "atlas");
    }

    fn with_capability(rest: &str) -> String {
        format!("[capabilities]\nusers = [\"atlas\"]\n{rest}")
    }

    #[test]
    fn a_declared_account_has_a_home_of_its_own() {
        let step = "[[step]]\nuser = { name = \"x\", home = \"/root\" }\n";
        let mut machine = Machine::base();
        machine.now.users.push(User { home: "/root".to_owned(), ..user("x", 1000) });
        machine.fails("users", step, "", "/root");
        machine.now.users.last_mut().unwrap().home = "/home/x".to_owned();
        machine.passes("users", step, "");
    }

    #[test]
    fn nobody_may_hand_out_the_ids_of_accounts() {
        let with = |text: &str| {
            let mut machine = Machine::base();
            machine.disk.changes.push(change("/etc/subuid", Some(node("")), Some(node(text))));
            machine.contents.insert("/etc/subuid".to_owned(), text.as_bytes().to_vec());
            machine
        };
        with("x:100000:65536\ny:165536:65536\n").passes("users", "", "");
        for bad in ["www-data:0:65536", "x:99999:1", "x:4294967295:2", "x:100000", "x:1e6:1"] {
            with(&format!("x:100000:65536\n{bad}\n")).fails("users", "", "", bad);
        }
        let mut unread = with("x:100000:65536\n");
        unread.contents.clear();
        unread.fails("users", "", "", "could not be read");
    }

    #[test]
    fn a_second_root_fails_even_if_declared() {
        let mut machine = Machine::base();
        machine.now.users.push(user("atlas", 0));
        machine.fails("users", &with_capability(STEP), "", "root under another name");
    }

    #[test]
    fn no_account_without_password() {
        for (password, text) in [(Password::Empty, "without a password"), (Password::Missing, "/etc/shadow")]
        {
            let mut machine = Machine::base();
            machine.now.users.push(user("atlas", 1000));
            machine.now.users.last_mut().unwrap().password = password;
            machine.fails("users", &with_capability(STEP), "", text);
        }
        let mut machine = Machine::base();
        machine.now.users[0].password = Password::Set;
        machine.fails("users", "", "", "root: got a password");
    }

    #[test]
    fn an_account_of_the_base_stays_as_it_is() {
        let mut machine = Machine::base();
        machine.base.users.push(user("www-data", 33));
        machine.now.users.push(user("www-data", 33));
        machine.passes("users", "", "");
        machine.now.users.last_mut().unwrap().shell = "/bin/bash".to_owned();
        machine.fails("users", "", "", "www-data: is an account of the base");
        machine.now.users.push(user("twin", 33));
        machine.fails("users", "[capabilities]\nusers = [\"twin\"]\n", "", "twin: shares user id 33");
    }
}
