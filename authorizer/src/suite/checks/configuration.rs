//! Files below `/etc`: the base's, those that a step declares, and those of a service of their own.
//!
//! What decides who logs in, what is started and what is loaded has checks of its own, which know those files better; this one
//! sees that no other setting of the base is changed without being said.

use std::collections::HashSet;

use disk::{Change, Kind, Node};
use recipe_spec::Sha256Digest;
use serde::{Deserialize, Serialize};

use super::super::When;
use super::super::declarations::{By, Standing, UNSEEN};
use super::super::pattern::{self, Pattern};
use super::hooks::unit_of_script;
use super::programs::ProgramsConfig;
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
    /// Paths that only the site's recipes may declare.
    pub protected: Vec<Pattern>,
    /// Files of root's that a boot may write, whatever is in them: tolerated on a disk that has booted, and judged before.
    pub at_boot: Vec<Pattern>,
    /// Files of the distribution's packages that may be new with this very content.
    pub known: Vec<Known>,
}

/// A file with its content, or a link with its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Where it lies.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub is: KnownContent,
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnownContent {
    /// Digest of all of a file.
    Sha256(Sha256Digest),
    /// Where a link leads.
    Target(String),
}

impl Known {
    fn fits(&self, path: &str, node: &disk::Node) -> bool {
        self.path == path
            && match &self.is {
                KnownContent::Sha256(digest) => node.sha256 == Some(*digest),
                KnownContent::Target(target) => node.target.as_ref() == Some(target),
            }
    }
}

/// Folders of packages' units.
const UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

pub(super) const CHECK: Check = Check {
    name: "configuration",
    sees: Sees::Files,
    lists: &[],
    run: |evidence, config, complaints| {
        let (config, programs) = (&config.configuration, &config.programs);
        let changes = &evidence.changes.changes;
        let new = new_paths(evidence);
        for change in changes {
            if is_new_link(change) && is_searched(config, programs, &change.path) {
                complaints.add(
                    &change.path,
                    "is a link where programs of the base look into a folder",
                    "make it a folder, or remove it",
                );
                continue;
            }
            if !pattern::any(&config.judged, &change.path)
                || (pattern::any(&config.allow, &change.path) && !is_odd(config, change))
                || is_of_boot(evidence.when, config, change)
            {
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
    let standing = evidence.standing(&change.path, digest.as_deref(), after.target.as_deref());
    match standing {
        Standing::Declared(By::Vo) if pattern::any(&config.protected, &change.path) => {
            return Some("is the site's to decide");
        }
        Standing::Declared(_) => return None,
        Standing::Different => return Some("is not what the recipe declared"),
        Standing::Unseen | Standing::Undeclared => {}
    }
    let undeclared = |otherwise| if standing == Standing::Unseen { UNSEEN } else { otherwise };
    if let Some(before) = &change.before {
        let same = (before.kind, before.sha256, &before.target) == (after.kind, after.sha256, &after.target);
        // Owner and mode are another check's.
        return (!same).then_some(undeclared("is of the base and was changed, and nobody declared it"));
    }
    let tolerated = pattern::any(&config.new, &change.path)
        || is_own(config, &change.path, new)
        // A folder is what lies in it, unless a file is looked for.
        || (after.kind == Kind::Directory && !config.allow.iter().any(|allowed| allowed.is(&change.path)))
        || config.known.iter().any(|known| known.fits(&change.path, after));
    (!tolerated).then_some(undeclared("is new among settings of the base, and nobody declared it"))
}

/// Whether a new path is a package's own: in a new folder, or a setting of its service, and nothing of the base reads it.
pub(super) fn is_own(config: &ConfigurationConfig, path: &str, new: &HashSet<&str>) -> bool {
    let own_service = || pattern::any(&config.own_service, path) && has_new_unit(path, new);
    (in_new_folder(path, new) || own_service()) && !pattern::any(&config.base_reads, path)
}

/// Every path that the base does not have.
pub(super) fn new_paths<'a>(evidence: &Evidence<'a>) -> HashSet<&'a str> {
    let changes = &evidence.changes.changes;
    changes.iter().filter(|change| change.before.is_none()).map(|change| change.path.as_str()).collect()
}

/// Whether something else than a file lies where others judge a file of that very name.
fn is_odd(config: &ConfigurationConfig, change: &Change) -> bool {
    let file = change.after.as_ref().is_none_or(|node| node.kind == Kind::File);
    !file && config.allow.iter().any(|allowed| allowed.is(&change.path))
}

/// Whether it is what a boot may do to a disk: a file that only root can write.
pub(super) fn is_of_boot(when: When, config: &ConfigurationConfig, change: &Change) -> bool {
    let may_be =
        |after: &Node| (after.kind, after.uid, after.gid, after.mode & 0o022) == (Kind::File, 0, 0, 0);
    when == When::Booted
        && pattern::any(&config.at_boot, &change.path)
        && change.after.as_ref().is_some_and(may_be)
}

fn is_new_link(change: &Change) -> bool {
    let is_link = |node: &Option<disk::Node>| node.as_ref().is_some_and(|node| node.kind == Kind::Link);
    is_link(&change.after) && !is_link(&change.before)
}

/// Whether something that is judged by its place is looked for below this path.
fn is_searched(config: &ConfigurationConfig, programs: &ProgramsConfig, path: &str) -> bool {
    let patterns = [&config.judged, &config.base_reads, &programs.search, &programs.libraries];
    patterns.into_iter().flatten().any(|pattern| pattern.lies_below(path))
        || programs.trees.iter().flatten().any(|root| root == path || pattern::is_below(root, path))
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
    unit_of_script(name)
        .is_some_and(|unit| UNITS.iter().any(|folder| new.contains(format!("{folder}/{unit}").as_str())))
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
        *machine.disk.changes.last_mut().unwrap() = change("/etc/nanorc", Some(node("a")), Some(node("c")));
        machine.fails("configuration", step, "", "not what the recipe declared");
        *machine.disk.changes.last_mut().unwrap() = change("/etc/nanorc", Some(node("a")), None);
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

    fn link(target: &str) -> disk::Node {
        disk::Node { kind: disk::Kind::Link, sha256: None, target: Some(target.to_owned()), ..node("") }
    }

    #[test]
    fn what_programs_of_the_base_take_as_soon_as_it_is_there_is_declared() {
        for path in [
            "/system-update",
            "/usr/sbin/request-key",
            "/usr/sbin/tomoyo-init",
            "/usr/sbin/mount.mqueue",
            "/usr/lib/command-not-found",
            "/usr/lib/x86_64-linux-gnu/libnss_db.so.2",
            "/usr/lib/clock-epoch",
            "/usr/lib/credstore/tmpfiles.extra",
            "/usr/local/lib/credstore/tmpfiles.extra",
            "/usr/local/lib/binfmt.d/own.conf",
            "/usr/lib/dbus-1/system-services/org.own.x.service",
            "/usr/lib/udev/hwdb.d/99-own.hwdb",
            "/var/lib/extensions/own.raw",
            "/var/lib/systemd/credential.secret",
            "/root/.ssh/rc",
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/machine-id",
        ] {
            let mut machine = Machine::base();
            machine.disk.changes.push(change(path, None, Some(node("x"))));
            machine.fails("configuration", "", "", path);
        }
    }

    #[test]
    fn a_unit_of_the_name_excuses_no_setting_that_the_base_reads() {
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/usr/lib/systemd/system/locale.service", None, Some(node("x"))));
        machine.disk.changes.push(change("/etc/default/locale", None, Some(node("LD_PRELOAD=/x"))));
        machine.fails("configuration", "", "", "/etc/default/locale");
    }

    #[test]
    fn a_folder_that_is_searched_is_no_link() {
        for path in [
            "/usr/local/share/perl",
            "/usr/local/share/dbus-1",
            "/usr/local/lib/systemd",
            "/etc/credstore",
            "/usr/local/lib/site_perl",
            "/usr/local/lib/x86_64-linux-gnu",
        ] {
            let mut machine = Machine::base();
            machine.disk.changes.push(change(path, None, Some(link("/opt/own"))));
            machine.fails("configuration", "", "", path);
        }
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/usr/share/own", None, Some(link("/opt/own"))));
        machine.disk.changes.push(change("/etc/alternatives/own", None, Some(link("/usr/bin/own"))));
        machine.passes("configuration", "", "");
    }

    #[test]
    fn a_known_file_has_its_known_content() {
        let baseline = include_str!("../../../../site-recipes/suites/baseline.toml");
        let more =
            baseline.replace("target = \"/etc/machine-id\" }", "target = \"/etc/machine-id\", mode = 1 }");
        assert!(more != baseline && crate::suite::SuiteConfig::parse(&more).is_err(), "an unknown field");
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/etc/inputrc", None, Some(node("x"))));
        machine.fails("configuration", "", "", "/etc/inputrc");
        let known =
            Machine::config().configuration.known.into_iter().find(|known| known.path == "/etc/inputrc");
        let Some(super::KnownContent::Sha256(digest)) = known.map(|known| known.is) else { panic!("a file") };
        machine.disk.changes.last_mut().unwrap().after.as_mut().unwrap().sha256 = Some(digest);
        machine.passes("configuration", "", "");
        let id = "/var/lib/dbus/machine-id";
        machine.disk.changes.push(change(id, None, Some(link("/etc/machine-id"))));
        machine.passes("configuration", "", "");
        machine.disk.changes.push(change(id, None, Some(link("/opt/id"))));
        machine.fails("configuration", "", "", id);
    }

    #[test]
    fn what_the_site_closes_and_watches_with_is_no_vos_to_declare() {
        let step = |path: &str| format!("[[step]]\nfile = {{ path = \"{path}\", content = \"x\" }}\n");
        for path in ["/etc/audit/rules.d/99-y.rules", "/etc/sudo.conf"] {
            let mut machine = Machine::base();
            machine.disk.changes.push(change(path, None, Some(node("x"))));
            machine.fails("configuration", &step(path), "", "the site's to decide");
            machine.passes("configuration", "", &step(path));
        }
    }

    #[test]
    fn where_another_test_reads_a_file_there_is_a_file() {
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/etc/audit/audit.rules", None, Some(node("x"))));
        machine.passes("configuration", "", "");
        let folder = disk::Node { kind: disk::Kind::Directory, sha256: None, ..node("") };
        machine.disk.changes.last_mut().unwrap().after = Some(folder);
        machine.fails("configuration", "", "", "/etc/audit/audit.rules");
    }
}
