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

pub(super) const CHECK: Check = Check {
    name: "kernel",
    sees: Sees::Machine,
    lists: &[],
    run: |evidence, config, complaints| {
        let taint = evidence.now.kernel_tainted & !config.kernel.allowed_taint;
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
}
