//! Accounts: the base's, unchanged, and those that a `user` step or `[capabilities] users` declares.

use guest::facts::{Password, User};

use super::super::complaints::Complaints;
use super::super::declarations::By;
use super::{Check, Evidence, Sees};

pub(super) const CHECK: Check = Check {
    name: "users",
    sees: Sees::Files,
    lists: &["users"],
    run: |evidence, _, complaints| {
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

fn judge(evidence: &Evidence<'_>, user: &User, complaints: &mut Complaints) {
    let declared = evidence.declared.users.get(&user.name);
    let base = evidence.base.users.iter().find(|base| base.name == user.name);
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
    use guest::facts::Password;

    use crate::suite::fixture::{Machine, user};

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
