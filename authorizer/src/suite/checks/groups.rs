//! Privileged groups: nobody of a VO is in one.

use guest::facts::Password;
use serde::{Deserialize, Serialize};

use super::super::declarations::By;
use super::{Check, Sees};

/// Which groups give more than a user's rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupsConfig {
    /// Their names.
    pub privileged: Vec<String>,
}

const REMEDY: &str = "take it out of the group";

pub(super) const CHECK: Check = Check {
    name: "groups",
    sees: Sees::Files,
    lists: &["groups", "users"],
    run: |evidence, config, complaints| {
        let privileged = &config.groups.privileged;
        let by_site = |name: &str| evidence.declared.users.get(name).is_some_and(|user| user.by == By::Site);
        for group in &evidence.now.groups {
            let base = evidence.base.groups.iter().find(|base| base.name == group.name);
            if group.gid == 0 && group.name != "root" {
                complaints.add(&group.name, "is root's group under another name", "give it another group id");
            }
            if base.is_some_and(|base| base.gid != group.gid) {
                complaints.add(&group.name, "has another group id than in the base", "leave it as it was");
            }
            let base_has =
                |administrator| base.is_some_and(|base| base.administrators.contains(administrator));
            for administrator in group.administrators.iter().filter(|name| !base_has(name)) {
                complaints.add(
                    administrator,
                    format_args!("may add members to the group {}", group.name),
                    REMEDY,
                );
            }
            if group.password == Password::Set && base.is_none_or(|base| base.password != group.password) {
                complaints.add(
                    &group.name,
                    "has a password, and whoever knows it is a member",
                    "lock it (gpasswd -r)",
                );
            }
            // A group that shares the id of a privileged one is the same group to the kernel.
            let is_privileged = privileged.contains(&group.name)
                || evidence
                    .base
                    .groups
                    .iter()
                    .any(|base| base.gid == group.gid && privileged.contains(&base.name));
            if !is_privileged {
                continue;
            }
            for member in &group.members {
                if !base.is_some_and(|base| base.members.contains(member)) && !by_site(member) {
                    complaints.add(member, format_args!("is in the privileged group {}", group.name), REMEDY);
                }
            }
            for user in evidence.now.users.iter().filter(|user| user.gid == group.gid) {
                if !evidence.base.users.iter().any(|base| (&base.name, base.gid) == (&user.name, user.gid))
                    && !by_site(&user.name)
                {
                    let problem =
                        format_args!("has the privileged group {} as its own", group.name).to_string();
                    complaints.add(&user.name, problem, REMEDY);
                }
            }
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, group, user};

    #[test]
    fn a_vos_user_is_in_no_privileged_group() {
        let mut machine = Machine::base();
        machine.now.groups.push(group("sudo", 27, &[]));
        machine.passes("groups", "", "");
        machine.now.groups.last_mut().unwrap().members.push("atlas".to_owned());
        machine.fails("groups", "", "", "atlas: is in the privileged group sudo");
        machine.base.groups = machine.now.groups.clone();
        machine.passes("groups", "", "");
    }

    #[test]
    fn a_user_of_the_site_may_be() {
        let mut machine = Machine::base();
        machine.now.groups.push(group("adm", 4, &["operator"]));
        let step = "[capabilities]\nusers = [\"operator\"]\n[[step]]\nuser = { name = \"operator\", groups = [\"adm\"] }\n";
        machine.fails("groups", step, "", "operator");
        machine.passes("groups", "", step);
    }

    #[test]
    fn no_way_round_by_numbers() {
        let mut machine = Machine::base();
        machine.base.groups.push(group("sudo", 27, &[]));
        machine.now.groups.push(group("harmless", 27, &["atlas"]));
        machine.fails("groups", "", "", "atlas: is in the privileged group harmless");
        let mut machine = Machine::base();
        machine.now.groups.push(group("sudo", 27, &[]));
        machine.now.users.push(user("atlas", 1000));
        machine.now.users.last_mut().unwrap().gid = 27;
        machine.fails("groups", "", "", "atlas: has the privileged group sudo");
        let mut machine = Machine::base();
        machine.now.groups.push(group("wheelie", 0, &[]));
        machine.fails("groups", "", "", "wheelie");
    }

    #[test]
    fn nobody_gets_in_by_a_password_or_an_administrator() {
        let mut machine = Machine::base();
        let mut own = group("own", 1000, &[]);
        own.administrators.push("somebody".to_owned());
        machine.now.groups.push(own);
        machine.fails("groups", "", "", "somebody: may add members");
        machine.now.groups[1] = group("own", 1000, &[]);
        machine.now.groups[1].password = guest::facts::Password::Set;
        machine.fails("groups", "", "", "has a password");
    }
}
