//! Paths that anyone may write: the base's only.

use super::super::pattern;
use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "world-writable",
    sees: Sees::Files,
    lists: &["worldWritable"],
    run: |evidence, config, complaints| {
        for file in &evidence.now.world_writable {
            if evidence.base.world_writable.contains(file)
                || pattern::any(&config.world_writable.allow, &file.path)
            {
                continue;
            }
            complaints.add(
                &file.path,
                format_args!("can be written by anyone (mode {:04o})", file.mode),
                "take the right away with chmod o-w",
            );
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, file_mode};

    #[test]
    fn only_the_bases() {
        let mut machine = Machine::base();
        machine.now.world_writable.push(file_mode("/etc/x", 0o666, "file"));
        machine.fails("world-writable", "", "", "/etc/x");
        machine.base.world_writable = machine.now.world_writable.clone();
        machine.passes("world-writable", "", "");
        machine.now.world_writable[0].mode = 0o777;
        machine.fails("world-writable", "", "", "0777");
    }
}
