//! Owners and modes of what the base has, and device nodes: nobody but the site gives rights to files of the base. What is new where
//! programs of root look is root's.

use disk::Kind;

use super::super::declarations::{By, Standing};
use serde::{Deserialize, Serialize};

use super::super::pattern::{self, Pattern};
use super::configuration::{ConfigurationConfig, is_of_boot, is_own, new_paths};
use super::{Check, Sees};

/// What is tolerated, and what is root's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnershipConfig {
    /// Paths that are tolerated.
    pub allow: Vec<Pattern>,
    /// Where a new file or folder is root's, and nobody else writes to it, unless a step gives it away or it is a package's own.
    pub roots: Vec<Pattern>,
    /// Where no step may give it away.
    pub always_roots: Vec<Pattern>,
}

/// Group `staff`, to which Debian gives new folders below `/usr/local`: being in it is being nearly root, as the test of groups
/// knows.
const STAFF: u32 = 50;

pub(super) const CHECK: Check = Check {
    name: "ownership",
    sees: Sees::Files,
    lists: &[],
    run: |evidence, config, complaints| {
        let new = new_paths(evidence);
        for change in &evidence.changes.changes {
            let Some(after) = &change.after else { continue };
            if pattern::any(&config.ownership.allow, &change.path)
                || is_of_boot(evidence.when, &config.configuration, change)
            {
                continue;
            }
            let same_node = change.before.as_ref().is_some_and(|before| before.device == after.device);
            if matches!(after.kind, Kind::Char | Kind::Block) && !same_node {
                complaints.add(
                    &change.path,
                    "is a device node",
                    "the kernel makes those below /dev; remove it",
                );
                continue;
            }
            let Some(before) = &change.before else {
                let config = (&config.ownership, &config.configuration);
                let others = after.uid != 0
                    || after.mode & 0o002 != 0
                    || (after.mode & 0o020 != 0 && !matches!(after.gid, 0 | STAFF));
                let may_be = !pattern::any(&config.0.roots, &change.path)
                    || (!pattern::any(&config.0.always_roots, &change.path)
                        && (is_own(config.1, &change.path, &new)
                            || is_own_folder(config.1, &change.path, after)
                            || evidence.declared.is_given_away(&change.path)));
                if others && !may_be && matches!(after.kind, Kind::File | Kind::Directory) {
                    complaints.add(
                        &change.path,
                        format_args!(
                            "lies where programs of root look, and others can write to it: mode {:04o}, owner {}:{}",
                            after.mode, after.uid, after.gid
                        ),
                        "leave it to root",
                    );
                }
                continue;
            };
            let rights = |node: &disk::Node| (node.mode, node.uid, node.gid);
            if before.flags != after.flags {
                complaints.add(
                    &change.path,
                    format_args!(
                        "is of the base and has other flags (chattr): {:#x}, now {:#x}",
                        before.flags, after.flags
                    ),
                    "leave files of the base as they are",
                );
            }
            if rights(before) == rights(after) {
                continue;
            }
            let digest = after.sha256.map(|digest| digest.to_hex());
            let standing =
                evidence.declared.standing(&change.path, digest.as_deref(), after.target.as_deref());
            if standing != Standing::Declared(By::Site) {
                complaints.add(
                    &change.path,
                    format_args!(
                        "is of the base and had mode {:04o} and owner {}:{}, now {:04o} and {}:{}",
                        before.mode, before.uid, before.gid, after.mode, after.uid, after.gid
                    ),
                    "leave files of the base as they are",
                );
            }
        }
    },
};

/// Whether it is the folder directly below `/etc` that a package made for itself.
fn is_own_folder(config: &ConfigurationConfig, path: &str, node: &disk::Node) -> bool {
    node.kind == Kind::Directory
        && path.strip_prefix("/etc/").is_some_and(|name| !name.contains('/'))
        && !config.base_reads.iter().any(|read| read.lies_below(path))
}

#[cfg(test)]
mod tests {
    use disk::Kind;

    use crate::suite::fixture::{Machine, change, node};

    #[test]
    fn a_file_of_the_base_keeps_its_owner_and_mode() {
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/srv/x", None, Some(node("x"))));
        machine.disk.changes.push(change("/var/lib/x", Some(node("x")), Some(node("y"))));
        machine.passes("ownership", "", "");
        let mut open = node("x");
        open.mode = 0o664;
        machine.disk.changes[0] = change("/etc/shadow", Some(node("x")), Some(open));
        machine.fails("ownership", "", "", "/etc/shadow");
        let mut owned = node("x");
        owned.uid = 33;
        machine.disk.changes[0] = change("/etc", Some(node("x")), Some(owned));
        machine.fails("ownership", "", "", "33:0");
        let mut immutable = node("x");
        immutable.flags = 0x10;
        machine.disk.changes[0] = change("/etc/nanorc", Some(node("x")), Some(immutable));
        machine.fails("ownership", "", "", "0x10");
    }

    #[test]
    fn a_device_node_fails_wherever_it_lies() {
        let mut machine = Machine::base();
        let mut disk = node("");
        (disk.kind, disk.device, disk.sha256) = (Kind::Block, Some((254, 0)), None);
        machine.disk.changes.push(change("/var/lib/x/disk", None, Some(disk)));
        machine.fails("ownership", "", "", "/var/lib/x/disk");
    }

    #[test]
    fn what_is_new_where_root_looks_is_roots() {
        let given = |uid: u32, gid: u32, mode: u32| disk::Node { uid, gid, mode, ..node("x") };
        let folder =
            |uid: u32| disk::Node { kind: disk::Kind::Directory, sha256: None, ..given(uid, 0, 0o755) };
        let with = |path: &str, node: disk::Node| {
            let mut machine = Machine::base();
            machine.disk.changes.push(change("/etc/own", None, Some(folder(7))));
            machine.disk.changes.push(change(path, None, Some(node)));
            machine
        };
        for (path, node) in [
            ("/etc/systemd/system/cron.service.d", folder(65534)),
            ("/usr/lib/systemd/system/ssh.service.d", folder(65534)),
            ("/etc/credstore", folder(7)),
            ("/etc/credstore/x", given(7, 0, 0o644)),
            ("/usr/bin/own", given(0, 7, 0o775)),
            ("/usr/bin/own", given(0, 0, 0o757)),
        ] {
            with(path, node).fails("ownership", "", "", path);
        }
        for (path, node) in [
            ("/etc/own/key", given(7, 7, 0o660)),
            ("/var/lib/own", folder(7)),
            ("/usr/local/lib/python3.11", disk::Node { mode: 0o2775, gid: 50, ..folder(0) }),
            ("/usr/bin/own", given(0, 7, 0o2755)),
        ] {
            with(path, node).passes("ownership", "", "");
        }
        let step = |path: &str| format!("[[step]]\ndirectory = {{ path = \"{path}\", owner = \"munge\" }}\n");
        with("/etc/cron.own", folder(7)).passes("ownership", &step("/etc/cron.own"), "");
        let unit = "/etc/systemd/system/own.service";
        with(unit, given(7, 0, 0o644)).fails(
            "ownership",
            &format!("[[step]]\nfile = {{ path = \"{unit}\", content = \"x\", owner = \"munge\" }}\n"),
            "",
            unit,
        );
    }
}
