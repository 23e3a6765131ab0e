//! Mounts over the disk's own paths: what lies beneath would be judged, and something else would be used.

use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "mounts",
    sees: Sees::Machine,
    lists: &["mounts"],
    run: |evidence, _, complaints| {
        for mount in &evidence.now.mounts {
            if !evidence.base.mounts.contains(mount) {
                let problem = format!("{} ({}) is mounted over it", mount.source, mount.kind);
                complaints.add(
                    &mount.point,
                    problem,
                    "put files where they belong instead of mounting over them",
                );
            }
        }
    },
};

#[cfg(test)]
mod tests {
    use guest::facts::Mount;

    use crate::suite::fixture::Machine;

    #[test]
    fn only_the_bases_mounts_lie_over_the_disk() {
        let mut machine = Machine::base();
        let mount = |point: &str| Mount {
            point: point.to_owned(),
            source: "/dev/vda[/srv/bin]".to_owned(),
            kind: "ext4".to_owned(),
        };
        machine.now.mounts.push(mount("/usr/bin"));
        machine.fails("mounts", "", "", "/usr/bin");
        machine.base.mounts.push(mount("/usr/bin"));
        machine.passes("mounts", "", "");
    }
}
