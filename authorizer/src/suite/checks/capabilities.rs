//! File capabilities: the base's, unchanged, and those asked for in `[capabilities] setuid`.

use super::super::pattern;
use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "capabilities",
    sees: Sees::Files,
    lists: &["capabilities"],
    run: |evidence, config, complaints| {
        for file in &evidence.now.capabilities {
            if evidence.base.capabilities.contains(file)
                || evidence.declared.setuid.contains(&file.path)
                || pattern::any(&config.setuid.allow, &file.path)
            {
                continue;
            }
            complaints.add(
                &file.path,
                "has capabilities of root",
                "ask for it in [capabilities] setuid, or remove them with setcap -r",
            );
        }
    },
};

#[cfg(test)]
mod tests {
    use guest::facts::FileCapability;

    use crate::suite::fixture::Machine;

    #[test]
    fn only_the_bases_own_and_what_was_asked_for() {
        let file = |value: &str| FileCapability { path: "/usr/bin/ping".to_owned(), value: value.to_owned() };
        let mut machine = Machine::base();
        machine.base.capabilities.push(file("01"));
        machine.now.capabilities.push(file("01"));
        machine.passes("capabilities", "", "");
        machine.now.capabilities = vec![file("ff")];
        machine.fails("capabilities", "", "", "/usr/bin/ping");
        machine.passes("capabilities", "[capabilities]\nsetuid = [\"/usr/bin/ping\"]\n", "");
    }
}
