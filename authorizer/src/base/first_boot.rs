//! The first boot of a finished base: what it looks like before any recipe touched it.

use std::path::Path;
use std::time::Duration;

use guest::facts::Facts;
use harness::accelerator::{ProbeGuest, probe};
use harness::{
    Confinement, DISK_COMMAND_LINE, DiskSpec, HarnessError, Initrd, Machine, MachineLimits, MachineSpec,
    Network, Pinned, Qemu, Start, SystemState,
};

use super::error::BaseError;
use super::statement::digest;
use super::{BootFiles, Progress};

/// How the first boot is done.
#[derive(Clone, Debug)]
pub struct FirstBoot<'a> {
    /// How QEMU is confined.
    pub confinement: &'a Confinement,
    /// Where it is kept whether KVM works on this host.
    pub accelerator_cache: &'a Path,
    /// Memory of the machine in MiB.
    pub memory_mib: u32,
    /// Longest time to the agent's first word, and from there to a system that runs.
    pub time_limit: Duration,
}

/// Name of the overlay that takes what the boot writes; it is thrown away.
const OVERLAY: &str = "first-boot";

impl FirstBoot<'_> {
    /// What this host and the site's settings lack for it.
    pub(super) fn missing(&self) -> Vec<HarnessError> {
        [Qemu::find().err(), self.confinement.check().err()].into_iter().flatten().collect()
    }

    /// Boots the base as a deployed machine boots, with a card that reaches nothing, and looks at it.
    ///
    /// # Errors
    /// [`BaseError::FirstBoot`]; [`BaseError::BadTree`] if a unit of the base fails, for then no machine made from it
    /// could be well.
    pub fn facts(&self, files: &BootFiles, progress: &mut dyn FnMut(Progress)) -> Result<Facts, BaseError> {
        let pin = |path: &Path| -> Result<Pinned, BaseError> { Ok(Pinned::new(path, digest(path)?)) };
        let kernel = pin(&files.kernel)?;
        let qemu = Qemu::find()?;
        let guest = ProbeGuest {
            kernel: kernel.clone(),
            nano: pin(&files.nano)?,
            confinement: self.confinement.clone(),
            scratch: files.scratch.clone(),
        };
        let found = probe(&qemu, &guest, self.accelerator_cache)?;
        progress(Progress::Output { line: found.reason });
        let spec = MachineSpec {
            name: OVERLAY.to_owned(),
            start: Start::boot(kernel, Initrd::Disk(pin(&files.initrd)?), DISK_COMMAND_LINE),
            memory_mib: self.memory_mib,
            disk: Some(DiskSpec {
                base: pin(&files.disk)?,
                layers: Vec::new(),
                overlays: vec![OVERLAY.to_owned()],
            }),
            network: Network::Restricted { forwards: Vec::new() },
            relay: None,
            accelerator: found.accelerator,
            confinement: self.confinement.clone(),
            run_dir: files.scratch.join(OVERLAY),
            limits: MachineLimits::STANDARD,
        };
        let mut machine = Machine::spawn(&qemu, spec)?;
        machine.wait_hello(self.time_limit)?;
        if machine.wait_running(self.time_limit)? != SystemState::Running {
            return Err(BaseError::BadTree { reason: "a unit of it fails at boot".to_owned() });
        }
        Ok(machine.facts()?)
    }
}
