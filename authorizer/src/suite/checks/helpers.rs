//! What the kernel itself starts, as root: as in the base.

use guest::facts::Helper;
use serde::{Deserialize, Serialize};

use super::super::complaints::shown;
use super::{Check, Sees};

/// What is tolerated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelpersConfig {
    /// Settings and handlers with this very text, by the names that the facts give them.
    pub known: Vec<Helper>,
}

pub(super) const CHECK: Check = Check {
    name: "helpers",
    sees: Sees::Machine,
    lists: &["helpers"],
    run: |evidence, config, complaints| {
        let known =
            |helper: &Helper| evidence.base.helpers.contains(helper) || config.helpers.known.contains(helper);
        for helper in evidence.now.helpers.iter().filter(|helper| !known(helper)) {
            complaints.add(
                &helper.name,
                format_args!(
                    "makes the kernel start a program as the base's does not: {}",
                    shown(&helper.text)
                ),
                "leave it as the base has it",
            );
        }
    },
};

#[cfg(test)]
mod tests {
    use guest::facts::Helper;

    use crate::suite::fixture::Machine;

    #[test]
    fn the_kernel_starts_what_the_base_has_it_start() {
        let helper = |name: &str, text: &str| Helper { name: name.to_owned(), text: text.to_owned() };
        let mut machine = Machine::base();
        machine.base.helpers.push(helper("core_pattern", "core"));
        machine.now.helpers.push(helper("core_pattern", "core"));
        let known = Machine::config().helpers.known;
        assert!(!known.is_empty());
        machine.now.helpers.extend(known);
        machine.passes("helpers", "", "");
        machine.now.helpers[0].text = "|/opt/x %p".to_owned();
        machine.fails("helpers", "", "", "|/opt/x %p");
        machine.now.helpers[0] =
            helper("binfmt_misc/x", "enabled\ninterpreter /opt/x\nflags: \noffset 0\nmagic 7f454c46");
        machine.fails("helpers", "", "", "binfmt_misc/x");
    }
}
