//! Extended attributes: the base's, unchanged, and those that give nobody rights.

use serde::{Deserialize, Serialize};

use super::super::pattern::{self, Pattern};
use super::{Check, Sees};

/// What is tolerated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributesConfig {
    /// Paths whose attributes are tolerated, whatever they are.
    pub allow: Vec<Pattern>,
    /// Names that are tolerated anywhere.
    pub names: Vec<Pattern>,
}

pub(super) const CHECK: Check = Check {
    name: "attributes",
    sees: Sees::Files,
    lists: &["attributes"],
    run: |evidence, config, complaints| {
        let config = &config.attributes;
        for attribute in &evidence.now.attributes {
            if evidence.base.attributes.contains(attribute)
                || pattern::any(&config.names, &attribute.name)
                || pattern::any(&config.allow, &attribute.path)
            {
                continue;
            }
            complaints.add(
                &attribute.path,
                format_args!("has the attribute {}", shown(&attribute.name)),
                "an access control list gives rights that the mode does not show: remove it (setfacl -b, setfattr -x)",
            );
        }
    },
};

use super::super::complaints::shown;

#[cfg(test)]
mod tests {
    use guest::facts::FileAttribute;

    use crate::suite::fixture::Machine;

    #[test]
    fn an_access_control_list_that_the_base_has_not_fails() {
        let attribute = |name: &str, value: &str| FileAttribute {
            path: "/etc/shadow".to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let mut machine = Machine::base();
        machine.base.attributes.push(attribute("system.posix_acl_access", "02"));
        machine.now.attributes = machine.base.attributes.clone();
        machine.now.attributes.push(attribute("user.comment", "02"));
        machine.passes("attributes", "", "");
        machine.now.attributes[0] = attribute("system.posix_acl_access", "03");
        machine.fails("attributes", "", "", "/etc/shadow");
    }
}
