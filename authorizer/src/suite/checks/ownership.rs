//! Owners and modes of what the base has, and device nodes: nobody but the site gives rights to files of the base.

use disk::Kind;

use super::super::declarations::{By, Standing};
use super::super::pattern;
use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "ownership",
    sees: Sees::Changes,
    lists: &[],
    run: |evidence, config, complaints| {
        for change in &evidence.disk.comparison.changes {
            let Some(after) = &change.after else { continue };
            if pattern::any(&config.ownership.allow, &change.path) {
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
            let Some(before) = &change.before else { continue };
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
}
