//! Files below `/etc`: the base's, those that a step declares, and those of a service of their own.
//!
//! What decides who logs in, what is started and what is loaded has checks of its own, which know those files better; this one
//! sees that no other setting of the base is changed without being said.

use std::collections::HashSet;

use disk::{Change, Kind};
use serde::{Deserialize, Serialize};

use super::super::declarations::Standing;
use super::super::pattern::{self, Pattern};
use super::{Check, Evidence, Sees};

/// What is judged, and what is tolerated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationConfig {
    /// What is judged.
    pub judged: Vec<Pattern>,
    /// Paths that are tolerated however they changed: others judge them.
    pub allow: Vec<Pattern>,
    /// Paths that may be new, but not changed.
    pub new: Vec<Pattern>,
    /// Folders that the base may not have and its programs look into all the same: new ones are judged too.
    pub base_reads: Vec<Pattern>,
    /// Paths that may be new if a unit of the same name is new too: settings of a service that a package brought.
    pub own_service: Vec<Pattern>,
}

/// Folders of packages' units.
const UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

pub(super) const CHECK: Check = Check {
    name: "configuration",
    sees: Sees::Changes,
    lists: &[],
    run: |evidence, config, complaints| {
        let config = &config.configuration;
        let changes = &evidence.disk.comparison.changes;
        let new: HashSet<&str> =
            changes.iter().filter(|c| c.before.is_none()).map(|c| c.path.as_str()).collect();
        for change in changes {
            if !pattern::any(&config.judged, &change.path) || pattern::any(&config.allow, &change.path) {
                continue;
            }
            if let Some(problem) = judge(evidence, config, change, &new) {
                complaints.add(
                    &change.path,
                    problem,
                    "declare it with a `file` or `link` step, or leave it as the base has it",
                );
            }
        }
    },
};

fn judge(
    evidence: &Evidence<'_>,
    config: &ConfigurationConfig,
    change: &Change,
    new: &HashSet<&str>,
) -> Option<&'static str> {
    let Some(after) = &change.after else { return Some("is of the base and is gone") };
    let digest = after.sha256.map(|digest| digest.to_hex());
    match evidence.declared.standing(&change.path, digest.as_deref(), after.target.as_deref()) {
        Standing::Declared(_) => return None,
        Standing::Different => return Some("is not what the recipe declared"),
        Standing::Undeclared => {}
    }
    if let Some(before) = &change.before {
        let same = (before.kind, before.sha256, &before.target) == (after.kind, after.sha256, &after.target);
        // Owner and mode are another check's.
        return (!same).then_some("is of the base and was changed, and nobody declared it");
    }
    let tolerated = pattern::any(&config.new, &change.path)
        || (in_new_folder(&change.path, new) && !pattern::any(&config.base_reads, &change.path))
        // A folder is what lies in it.
        || after.kind == Kind::Directory
        || (pattern::any(&config.own_service, &change.path) && has_new_unit(&change.path, new));
    (!tolerated).then_some("is new among settings of the base, and nobody declared it")
}

/// Whether the path lies in a folder directly below `/etc` that is new itself.
fn in_new_folder(path: &str, new: &HashSet<&str>) -> bool {
    let end = path.strip_prefix("/etc/").and_then(|rest| rest.find('/')).map(|at| at + "/etc/".len());
    end.is_some_and(|end| new.contains(&path[..end]))
}

fn has_new_unit(path: &str, new: &HashSet<&str>) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    // `S01nginx` in `/etc/rc2.d` is the old init's name for nginx.
    let name = match name.as_bytes() {
        [b'S' | b'K', b'0'..=b'9', b'0'..=b'9', ..] if path.starts_with("/etc/rc") => &name[3..],
        _ => name,
    };
    UNITS.iter().any(|folder| new.contains(format!("{folder}/{name}.service").as_str()))
}

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, change, node};

    #[test]
    fn a_setting_of_the_base_changes_only_if_it_is_declared() {
        let step = "[[step]]\nfile = { path = \"/etc/nanorc\", content = \"b\" }\n";
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/etc/nanorc", Some(node("a")), Some(node("b"))));
        machine.passes("configuration", step, "");
        machine.fails("configuration", "", "", "nobody declared");
        machine.disk.changes[0] = change("/etc/nanorc", Some(node("a")), Some(node("c")));
        machine.fails("configuration", step, "", "not what the recipe declared");
        machine.disk.changes[0] = change("/etc/nanorc", Some(node("a")), None);
        machine.fails("configuration", "", "", "gone");
    }

    #[test]
    fn a_packages_own_folder_and_the_settings_of_its_own_service_are_its_own() {
        let mut machine = Machine::base();
        let mut folder = node("");
        (folder.kind, folder.sha256) = (disk::Kind::Directory, None);
        machine.disk.changes.push(change("/etc/nginx", None, Some(folder.clone())));
        machine.disk.changes.push(change("/etc/nginx/conf.d/x", None, Some(node("x"))));
        machine.disk.changes.push(change("/etc/default/nginx", None, Some(node("x"))));
        machine.fails("configuration", "", "", "/etc/default/nginx");
        machine.disk.changes.push(change("/usr/lib/systemd/system/nginx.service", None, Some(node("x"))));
        machine.passes("configuration", "", "");
        machine.disk.changes.push(change("/etc/default/cron", None, Some(node("x"))));
        machine.fails("configuration", "", "", "/etc/default/cron");
        machine.disk.changes.push(change("/etc/credstore", None, Some(folder.clone())));
        machine.disk.changes.push(change("/etc/credstore/tmpfiles.extra", None, Some(node("x"))));
        machine.fails("configuration", "", "", "/etc/credstore/tmpfiles.extra");
        machine.disk.changes[4] = change("/etc/security/limits.d/x", None, Some(node("x")));
        machine.disk.changes.push(change("/etc/security/limits.d", None, Some(folder)));
        machine.fails("configuration", "", "", "/etc/security/limits.d/x");
    }
}
