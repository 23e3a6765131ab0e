//! The rules in the kernel of the running machine, as the machine's own `nft` lists them: what the site's recipe makes of the
//! declared ports, and nothing else. The file alone says little: something could keep it from being loaded, or change the rules after.

use serde::{Deserialize, Serialize};

use super::site_files::rendered;
use super::{Check, Sees};

/// What the listing must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirewallConfig {
    /// As in [`super::Rendered::listen`].
    pub listen: String,
    /// As in [`super::Rendered::text`]. Empty lines and blanks around lines do not count; a listing without lines is not judged.
    pub listing: String,
}

pub(super) const CHECK: Check = Check {
    name: "firewall",
    sees: Sees::Machine,
    lists: &["firewall"],
    run: |evidence, config, complaints| {
        let config = &config.firewall;
        let wanted = rendered(&config.listing, &config.listen, &evidence.declared.vo_listen);
        if lines(&wanted).next().is_some() && !lines(&wanted).eq(lines(&evidence.now.firewall)) {
            let first = lines(&evidence.now.firewall).find(|have| !lines(&wanted).any(|line| line == *have));
            complaints.add(
                "the firewall",
                match first {
                    Some(rule) => format!(
                        "has the rule `{}`, which the site has not",
                        super::super::complaints::shown(rule)
                    ),
                    None => "lacks rules of the site".to_owned(),
                },
                "leave nftables to the site, and declare ports in [network] listen",
            );
        }
    },
};

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::suite::fixture::Machine;

    #[test]
    fn the_rules_are_the_sites_with_the_declared_ports() {
        let listen = "[network]\nlisten = [{ port = 80, protocol = \"tcp\" }]\n";
        let config = Machine::config().firewall;
        let mut machine = Machine::base();
        machine.passes("firewall", "", "");
        machine.fails("firewall", listen, "", "lacks rules");
        let with = |rule: &str| config.listing.replace("{listen}", rule).replace("\n", "\n\n\t");
        machine.now.firewall = with("tcp dport 80 accept");
        machine.passes("firewall", listen, "");
        machine.fails("firewall", "", "", "`tcp dport 80 accept`");
        machine.now.firewall = String::new();
        machine.fails("firewall", "", "", "lacks rules");
        machine.now.firewall = with("").replace("policy drop", "policy accept");
        machine.fails("firewall", "", "", "policy accept");
    }
}
