//! Setuid and setgid files: the base's, unchanged, and those asked for in `[capabilities] setuid`.

use super::super::pattern;
use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "setuid",
    sees: Sees::Files,
    lists: &["setuid"],
    run: |evidence, config, complaints| {
        for file in &evidence.now.setuid {
            // On a folder the bit only chooses the group of new files.
            if file.kind == "directory"
                || evidence.base.setuid.contains(file)
                || evidence.declared.setuid.contains(&file.path)
                || pattern::any(&config.setuid.allow, &file.path)
            {
                continue;
            }
            complaints.add(
                &file.path,
                format_args!(
                    "runs as another user (mode {:04o}, owner {}:{})",
                    file.mode, file.uid, file.gid
                ),
                "ask for it in [capabilities] setuid, or clear the bit",
            );
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, file_mode};

    const ASKED: &str = "[capabilities]\nsetuid = [\"/usr/local/bin/x\"]\n";

    #[test]
    fn only_the_bases_own_and_what_was_asked_for() {
        let mut machine = Machine::base();
        machine.base.setuid.push(file_mode("/usr/bin/su", 0o4755, "file"));
        machine.now.setuid = machine.base.setuid.clone();
        machine.now.setuid.push(file_mode("/usr/local/bin/x", 0o4755, "file"));
        machine.passes("setuid", ASKED, "");
        machine.fails("setuid", "", "", "/usr/local/bin/x");
    }

    #[test]
    fn a_file_of_the_base_that_gained_a_bit_fails() {
        let mut machine = Machine::base();
        machine.base.setuid.push(file_mode("/usr/bin/wall", 0o2755, "file"));
        machine.now.setuid.push(file_mode("/usr/bin/wall", 0o6755, "file"));
        machine.fails("setuid", "", "", "/usr/bin/wall");
    }

    #[test]
    fn a_setgid_folder_gives_no_rights() {
        let mut machine = Machine::base();
        machine.now.setuid.push(file_mode("/var/log/x", 0o2750, "directory"));
        machine.passes("setuid", "", "");
    }
}
