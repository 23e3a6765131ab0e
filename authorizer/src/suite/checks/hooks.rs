//! Files that make the kernel, the loader, a boot or a login run something: the base's, and those that a `file` or
//! `link` step declares.

use guest::facts::SmallFile;
use serde::{Deserialize, Serialize};

use super::super::declarations::{By, Standing, UNSEEN};
use super::super::pattern::{self, Pattern};
use super::units::KINDS;
use super::{Check, Evidence, Sees};

/// What packages bring, and what no recipe may touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HooksConfig {
    /// Paths that are tolerated.
    pub allow: Vec<Pattern>,
    /// Paths that only the site's recipes may declare.
    pub protected: Vec<Pattern>,
}

pub(super) const CHECK: Check = Check {
    name: "hooks",
    sees: Sees::Files,
    lists: &["hooks", "units"],
    run: |evidence, config, complaints| {
        for file in &evidence.now.hooks {
            if evidence.base.hooks.contains(file) {
                continue;
            }
            let standing = evidence.standing(&file.path, Some(&file.sha256), file.link.as_deref());
            if pattern::any(&config.hooks.protected, &file.path) {
                if standing != Standing::Declared(By::Site) {
                    complaints.add(
                        &file.path,
                        "decides who becomes what in this machine, and is not the base's or the site's",
                        "leave it as the base has it",
                    );
                }
                continue;
            }
            if matches!(standing, Standing::Declared(_))
                || pattern::any(&config.hooks.allow, &file.path)
                || is_shadowed_script(evidence, file)
            {
                continue;
            }
            let problem = match standing {
                Standing::Different => "is not what the recipe declared",
                Standing::Unseen => UNSEEN,
                _ => "is run or read at boot or login, and nobody declared it",
            };
            complaints.add(&file.path, problem, "put it there with a `file` step, or remove it");
        }
    },
};

/// A script of the old init that a package still brings beside its unit: systemd runs the unit and never the script
/// (systemd-sysv-generator(8)).
fn is_shadowed_script(evidence: &Evidence<'_>, file: &SmallFile) -> bool {
    file.path.strip_prefix("/etc/init.d/").and_then(unit_of_script).is_some_and(|name| {
        let unit = format!("/usr/lib/systemd/system/{name}");
        let old_path = format!("/lib/systemd/system/{name}");
        evidence.now.units.iter().any(|have| have.path == unit || have.path == old_path)
    })
}

/// The unit that stands for a script of the old init: without a final `.sh`. Other names than plain ones are not taken, for
/// systemd escapes some, and takes those that end like a unit as they are.
pub(super) fn unit_of_script(script: &str) -> Option<String> {
    let name = script.strip_suffix(".sh").unwrap_or(script);
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let like_a_unit = name.rsplit('.').next().is_some_and(|end| KINDS.contains(&end));
    (plain && !like_a_unit && !name.is_empty()).then(|| format!("{name}.service"))
}

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, small_file, unit};

    const STEP: &str = "[[step]]\nfile = { path = \"/etc/profile.d/x.sh\", content = \"umask 027\\n\" }\n";

    #[test]
    fn a_hook_is_the_bases_or_declared_as_it_is() {
        let mut machine = Machine::base();
        machine.now.hooks.push(small_file("/etc/profile.d/x.sh", "umask 027\n"));
        machine.passes("hooks", STEP, "");
        machine.fails("hooks", "", "", "nobody declared");
        machine.now.hooks[0] = small_file("/etc/profile.d/x.sh", "umask 000\n");
        machine.fails("hooks", STEP, "", "not what the recipe declared");
    }

    #[test]
    fn an_old_init_script_is_harmless_beside_its_unit_only() {
        let mut machine = Machine::base();
        machine.now.hooks.push(small_file("/etc/init.d/nginx", "#!/bin/sh\n"));
        machine.fails("hooks", "", "", "/etc/init.d/nginx");
        machine.now.units.push(unit("/usr/lib/systemd/system/nginx.service", "x"));
        machine.passes("hooks", "", "");
    }

    #[test]
    fn the_unit_must_be_the_one_that_systemd_takes_for_the_script() {
        for (script, unit_name) in [
            ("zz.sh", "zz.sh.service"),
            ("zz.service", "zz.service.service"),
            ("zz@x", "zz@x.service"),
            ("z z", "z z.service"),
            (".sh", ".service"),
        ] {
            let mut machine = Machine::base();
            machine.now.hooks.push(small_file(&format!("/etc/init.d/{script}"), "#!/bin/sh\n"));
            machine.now.units.push(unit(&format!("/usr/lib/systemd/system/{unit_name}"), "x"));
            machine.fails("hooks", "", "", script);
        }
        for (script, unit_name) in [("console-setup.sh", "console-setup"), ("php8.2-fpm", "php8.2-fpm")] {
            let mut machine = Machine::base();
            machine.now.hooks.push(small_file(&format!("/etc/init.d/{script}"), "#!/bin/sh\n"));
            machine.now.units.push(unit(&format!("/usr/lib/systemd/system/{unit_name}.service"), "x"));
            machine.passes("hooks", "", "");
        }
    }

    #[test]
    fn what_decides_logins_is_the_sites() {
        let step = "[[step]]\nfile = { path = \"/etc/pam.d/sshd\", content = \"auth sufficient pam_permit.so\\n\" }\n";
        let mut machine = Machine::base();
        machine.now.hooks.push(small_file("/etc/pam.d/sshd", "auth sufficient pam_permit.so\n"));
        machine.fails("hooks", step, "", "/etc/pam.d/sshd");
        machine.passes("hooks", "", step);
    }
}
