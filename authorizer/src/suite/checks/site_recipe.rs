//! What the site's recipes put in place is still so: the VO's programs ran beside them and after them.

use recipe_spec::Sha256Digest;

use super::super::declarations::{By, Content, Standing};
use super::units::is_enabled;
use super::{Check, Sees};

/// Folders of which the facts list every file: what is missing in the facts is missing in the machine.
const SEEN_WHOLE: [&str; 7] = [
    "/etc/ssh/sshd_config.d/",
    "/etc/sudoers.d/",
    "/etc/systemd/system/",
    "/etc/cron.d/",
    "/etc/modprobe.d/",
    "/etc/profile.d/",
    "/etc/pam.d/",
];

/// What each machine makes for itself at its first boot; `site-files` sees that none lies on the sealed disk.
const BORN: [&str; 1] = ["/etc/machine-id"];

pub(super) const CHECK: Check = Check {
    name: "site-recipe",
    sees: Sees::Files,
    lists: &["sshd", "sudoers", "units", "cron", "hooks"],
    run: |evidence, _, complaints| {
        let now = evidence.now;
        for (path, file) in evidence.declared.site_files() {
            let small = [&now.sshd, &now.sudoers, &now.cron, &now.hooks].into_iter().flatten();
            let seen = small
                .map(|file| (&file.path, Some(file.sha256.as_str()), file.link.as_deref()))
                .chain(
                    now.units.iter().map(|unit| (&unit.path, unit.sha256.as_deref(), unit.link.as_deref())),
                )
                .find(|(seen, ..)| *seen == path);
            let problem = match seen {
                Some((_, sha256, link)) => match evidence.declared.standing(path, sha256, link) {
                    Standing::Declared(_) => continue,
                    Standing::Different | Standing::Unseen | Standing::Undeclared => {
                        "was changed after the site's recipe"
                    }
                },
                None if SEEN_WHOLE.iter().any(|folder| path.starts_with(folder)) => {
                    "was removed after the site's recipe"
                }
                None => match (&file.content, evidence.contents.get(path)) {
                    (Content::Link(_), _) => continue,
                    _ if BORN.contains(&path) => continue,
                    (Content::Bytes(digest), Some(bytes)) if Sha256Digest::of(bytes) == *digest => continue,
                    _ => "was changed or removed after the site's recipe",
                },
            };
            complaints.add(path, problem, "leave the site's settings alone");
        }
        for (unit, by) in &evidence.declared.enabled {
            if *by == By::Site && !is_enabled(&now.units, unit) {
                complaints.add(
                    unit,
                    "was enabled by the site's recipe and is not",
                    "leave the site's units alone",
                );
            }
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, link, small_file};

    const FILE: &str =
        "[[step]]\nfile = { path = \"/etc/ssh/sshd_config.d/00-x.conf\", content = \"# x\\n\" }\n";
    const SERVICE: &str = "[[step]]\nservice = { name = \"nftables\", enabled = true }\n";

    #[test]
    fn a_file_of_the_site_is_neither_changed_nor_gone() {
        let mut machine = Machine::base();
        machine.fails("site-recipe", "", FILE, "removed");
        machine.now.sshd.push(small_file("/etc/ssh/sshd_config.d/00-x.conf", "# x\n"));
        machine.passes("site-recipe", "", FILE);
        *machine.now.sshd.last_mut().unwrap() = small_file("/etc/ssh/sshd_config.d/00-x.conf", "# y\n");
        machine.fails("site-recipe", "", FILE, "changed");
    }

    #[test]
    fn a_unit_of_the_site_stays_enabled() {
        let mut machine = Machine::base();
        machine.fails("site-recipe", "", SERVICE, "nftables.service");
        machine.passes("site-recipe", SERVICE, "");
        machine.now.units.push(link(
            "/etc/systemd/system/sysinit.target.wants/nftables.service",
            "/lib/systemd/system/nftables.service",
        ));
        machine.passes("site-recipe", "", SERVICE);
        machine.now.units.push(link("/etc/systemd/system/nftables.service", "/dev/null"));
        machine.fails("site-recipe", "", SERVICE, "nftables.service");
    }

    #[test]
    fn a_file_of_the_site_is_as_it_says_in_the_machine_that_booted_too() {
        let step = "[[step]]\nfile = { path = \"/etc/audit/rules.d/x.rules\", content = \"x\" }\n";
        let mut machine = Machine::base();
        machine.fails("site-recipe", "", step, "/etc/audit/rules.d/x.rules");
        machine.contents.insert("/etc/audit/rules.d/x.rules".to_owned(), b"x".to_vec());
        machine.passes("site-recipe", "", step);
        machine.live_contents = Some(std::collections::BTreeMap::new());
        machine.fails("site-recipe", "", step, "/etc/audit/rules.d/x.rules");
        let identity = "[[step]]\nfile = { path = \"/etc/machine-id\", content = \"\" }\n";
        machine.passes("site-recipe", "", identity);
    }
}
