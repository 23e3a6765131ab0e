//! Keys that open an account: only those of a `user` step, in that user's own file.

use guest::facts::SmallFile;

use super::super::declarations::By;
use super::{Check, Evidence, Sees};

pub(super) const CHECK: Check = Check {
    name: "authorized-keys",
    sees: Sees::Files,
    lists: &["authorizedKeys", "users"],
    run: |evidence, _, complaints| {
        for file in &evidence.now.authorized_keys {
            if evidence.base.authorized_keys.contains(file) {
                continue;
            }
            if let Err(problem) = judge(evidence, file) {
                complaints.add(
                    &file.path,
                    problem,
                    "give keys with `authorized_keys` of a `user` step, or remove the file",
                );
            }
        }
    },
};

fn judge(evidence: &Evidence<'_>, file: &SmallFile) -> Result<(), &'static str> {
    let Some((name, declared)) = evidence.declared.users.iter().find(|(name, declared)| {
        let home = evidence.now.users.iter().find(|user| user.name == **name).map(|user| user.home.as_str());
        home.or(declared.home.as_deref())
            .is_some_and(|home| file.path == format!("{home}/.ssh/authorized_keys"))
    }) else {
        return Err("opens an account and belongs to no declared user");
    };
    let user = evidence.now.users.iter().find(|user| user.name == *name);
    if user.is_none_or(|user| user.uid == 0) && declared.by == By::Vo {
        return Err("opens root");
    }
    if file.uid != 0 && user.is_none_or(|user| user.uid != file.uid) {
        return Err("belongs to another user");
    }
    if file.mode & 0o022 != 0 {
        return Err("can be written by others");
    }
    let Some(text) = &file.text else { return Err("could not be read whole") };
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for key in keys {
        if !declared.authorized_keys.iter().any(|declared| declared.trim() == key) {
            return Err("holds a key that nobody declared");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, small_file, user};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqhZ0Jq5N5v5y0qzv7G0nJ9m4Zt6o1v8w3x2y1z0abc a@b";
    const STEP: &str = "[capabilities]\nusers = [\"atlas\"]\n[[step]]\nuser = { name = \"atlas\", authorized_keys = \
        [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqhZ0Jq5N5v5y0qzv7G0nJ9m4Zt6o1v8w3x2y1z0abc a@b\"] }\n";
    const PATH: &str = "/home/atlas/.ssh/authorized_keys";

    fn machine(path: &str, text: &str) -> Machine {
        let mut machine = Machine::base();
        machine.now.users.push(user("atlas", 1000));
        machine.now.authorized_keys.push(small_file(path, text));
        machine
    }

    #[test]
    fn declared_keys_in_their_place_pass() {
        let mut machine = machine(PATH, &format!("# note\n{KEY}\n"));
        machine.passes("authorized-keys", STEP, "");
        machine.fails("authorized-keys", "", "", "no declared user");
        machine.now.authorized_keys[0].mode = 0o666;
        machine.fails("authorized-keys", STEP, "", "written by others");
        machine.now.authorized_keys[0].mode = 0o600;
        machine.now.authorized_keys[0].uid = 33;
        machine.fails("authorized-keys", STEP, "", "another user");
        machine.now.authorized_keys[0].uid = 1000;
        machine.now.authorized_keys[0].text = None;
        machine.fails("authorized-keys", STEP, "", "read whole");
    }

    #[test]
    fn other_keys_and_other_files_fail() {
        machine(PATH, &format!("{KEY}\nssh-ed25519 BBBB x\n")).fails(
            "authorized-keys",
            STEP,
            "",
            "nobody declared",
        );
        machine("/root/.ssh/authorized_keys", KEY).fails("authorized-keys", STEP, "", "/root/.ssh");
        machine("/home/atlas/.ssh/authorized_keys2", KEY).fails("authorized-keys", STEP, "", "keys2");
    }

    #[test]
    fn a_vo_opens_root_under_no_name() {
        let mut machine = machine(PATH, KEY);
        machine.now.users.last_mut().unwrap().uid = 0;
        machine.fails("authorized-keys", STEP, "", "opens root");
    }
}
