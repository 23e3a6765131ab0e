//! The kernel itself: not tainted.

use serde::{Deserialize, Serialize};

use super::{Check, Sees};

/// Bits of `/proc/sys/kernel/tainted` that are tolerated (Linux `admin-guide/tainted-kernels`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelConfig {
    /// Their sum.
    pub allowed_taint: u64,
}

/// A processor was held up for long (`TAINT_SOFTLOCKUP`): what a busy host does to a guest, under emulation above all. It says
/// nothing of code that the kernel took, and is tolerated everywhere.
const SOFT_LOCKUP: u64 = 1 << 14;

pub(super) const CHECK: Check = Check {
    name: "kernel",
    sees: Sees::Machine,
    lists: &[],
    run: |evidence, config, complaints| {
        let taint = evidence.now.kernel_tainted & !(config.kernel.allowed_taint | SOFT_LOCKUP);
        if taint != 0 {
            complaints.add(
                "the kernel",
                format_args!("is tainted ({taint})"),
                "load only modules that the distribution signed",
            );
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::Machine;

    #[test]
    fn a_tainted_kernel_fails() {
        let mut machine = Machine::base();
        machine.passes("kernel", "", "");
        machine.now.kernel_tainted = 1 << 12;
        machine.fails("kernel", "", "", "4096");
    }

    #[test]
    fn a_busy_host_taints_no_kernel_and_hides_no_module() {
        let mut machine = Machine::base();
        machine.now.kernel_tainted = 1 << 14;
        machine.passes("kernel", "", "");
        machine.now.kernel_tainted |= 1 << 12;
        machine.fails("kernel", "", "", "(4096)");
    }
}
