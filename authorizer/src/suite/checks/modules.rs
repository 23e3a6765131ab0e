//! Kernel modules: those the base loads, and those the site tolerates.

use serde::{Deserialize, Serialize};

use super::super::pattern::{self, Pattern};
use super::{Check, Sees};

/// Modules that come and go with devices, firewall rules and file systems.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModulesConfig {
    /// Names that are tolerated.
    pub allow: Vec<Pattern>,
}

pub(super) const CHECK: Check = Check {
    name: "modules",
    sees: Sees::Machine,
    lists: &["modules"],
    run: |evidence, config, complaints| {
        for module in &evidence.now.modules {
            if !evidence.base.modules.contains(module) && !pattern::any(&config.modules.allow, module) {
                complaints.add(
                    module,
                    "is in the kernel, and not in the base's",
                    "load no module of your own",
                );
            }
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::Machine;

    #[test]
    fn only_the_bases_and_the_tolerated() {
        let mut machine = Machine::base();
        machine.now.modules.push("nft_ct".to_owned());
        machine.passes("modules", "", "");
        machine.now.modules.push("rootkit".to_owned());
        machine.fails("modules", "", "", "rootkit");
        machine.base.modules.push("rootkit".to_owned());
        machine.passes("modules", "", "");
    }
}
