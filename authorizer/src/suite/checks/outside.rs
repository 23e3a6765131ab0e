//! What lies outside of the root file system, where no list of files shows it: as the base has it.

use disk::Outside;

use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "outside",
    sees: Sees::Files,
    lists: &[],
    run: |evidence, _, complaints| {
        if let Outside::Different { first_sector, count } = evidence.changes.outside {
            complaints.add(
                &format!("sector {first_sector}"),
                format_args!(
                    "of the disk and {} others outside of the file system were written to",
                    count.saturating_sub(1)
                ),
                "write to files, never to the device",
            );
        }
    },
};

#[cfg(test)]
mod tests {
    use disk::Outside;

    use crate::suite::fixture::Machine;

    #[test]
    fn a_written_boot_sector_fails() {
        let mut machine = Machine::base();
        machine.passes("outside", "", "");
        machine.disk.outside = Outside::Different { first_sector: 1, count: 2 };
        machine.fails("outside", "", "", "sector 1");
    }
}
