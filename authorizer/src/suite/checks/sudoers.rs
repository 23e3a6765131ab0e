//! Who may become root: what the base says, and the site's recipes. A VO grants nothing.

use super::super::declarations::{By, Standing};
use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "sudoers",
    sees: Sees::Files,
    lists: &["sudoers"],
    run: |evidence, _, complaints| {
        for file in &evidence.now.sudoers {
            let standing = evidence.standing(&file.path, Some(&file.sha256), file.link.as_deref());
            if evidence.base.sudoers.contains(file) || standing == Standing::Declared(By::Site) {
                continue;
            }
            complaints.add(
                &file.path,
                "grants rights of root, or may, and is not the base's or the site's",
                "remove it; a recipe runs as root while it is applied and needs no sudo",
            );
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, small_file};

    const STEP: &str = "[[step]]\nfile = { path = \"/etc/sudoers.d/x\", content = \"x ALL=(ALL) ALL\\n\" }\n";

    #[test]
    fn only_the_site_grants() {
        let mut machine = Machine::base();
        machine.now.sudoers.push(small_file("/etc/sudoers.d/x", "x ALL=(ALL) ALL\n"));
        machine.passes("sudoers", "", STEP);
        machine.fails("sudoers", STEP, "", "/etc/sudoers.d/x");
        machine.now.sudoers[0] = small_file("/etc/sudoers.d/x", "x ALL=(ALL) NOPASSWD: ALL\n");
        machine.fails("sudoers", "", STEP, "/etc/sudoers.d/x");
        machine.base.sudoers = machine.now.sudoers.clone();
        machine.passes("sudoers", "", "");
    }
}
