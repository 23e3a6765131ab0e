//! The launch: from a [`MachineSpec`] to a QEMU that runs, with everything it may touch opened and checked by us.

use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{CONSOLE_LOG, MONITOR_TIME, Machine, Phase};
use crate::accelerator::Accelerator;
use crate::arguments::{Disk, Launch, Processor, arguments};
use crate::artifact::{Part, open_disk, read_boot_file, sealed_memory};
use crate::confinement::{self, UserLease};
use crate::console::{Console, Log};
use crate::descriptors::{Descriptors, FdSet};
use crate::error::HarnessError;
use crate::overlay;
use crate::process::{Fault, Killer, Process};
use crate::qemu::Qemu;
use crate::qmp::Qmp;
use crate::relay::Relay;
use crate::spec::{DiskSpec, Initrd, MachineSpec};
use crate::wire::Wire;

impl Machine {
    /// Checks all digests, starts QEMU and returns when its monitor answers. The guest boots meanwhile.
    ///
    /// # Errors
    /// [`HarnessError`]; nothing is left running. The run folder, once made, is the caller's to look into and remove.
    pub fn spawn(qemu: &Qemu, spec: MachineSpec) -> Result<Self, HarnessError> {
        spec.check()?;
        let user = UserLease::take(&spec.confinement)?;
        let mut descriptors = Descriptors::default();
        let (kernel, initrd) = boot_memory(&spec)?;
        let (kernel, initrd) = (descriptors.inherit(kernel), descriptors.inherit(initrd));
        let sealed = spec.disk.as_ref().map(|disk| open_sealed(disk, &mut descriptors)).transpose()?;
        make_run_dir(&spec.run_dir)?;
        let overlays: Vec<(String, PathBuf)> = spec
            .disk
            .iter()
            .flat_map(|disk| &disk.overlays)
            .map(|name| (format!("overlay-{name}"), spec.run_dir.join(format!("{name}.qcow2"))))
            .collect();
        let disk = sealed
            .map(|(sealed, size)| {
                Ok::<_, HarnessError>(Disk {
                    sealed,
                    overlays: make_overlays(qemu, &overlays, size, &mut descriptors)?,
                })
            })
            .transpose()?;
        let mut pair = || -> Result<_, HarnessError> {
            let (ours, theirs) =
                UnixStream::pair().map_err(|source| HarnessError::process("make a socket pair", source))?;
            Ok((ours, descriptors.inherit(OwnedFd::from(theirs))))
        };
        let (monitor, console, control) = (pair()?, pair()?, pair()?);
        let relay = spec.relay.is_some().then(&mut pair).transpose()?;
        let (relay_stream, relay_port) = relay.unzip();
        let launch = Launch {
            name: spec.name.clone(),
            processor: processor(spec.accelerator, &mut descriptors)?,
            memory_mib: spec.memory_mib,
            kernel,
            initrd,
            command_line: spec.command_line,
            disk,
            network: spec.network,
            monitor: monitor.1,
            console: console.1,
            control: control.1,
            relay: relay_port,
        };
        let mut command = confinement::command(qemu, &user, spec.memory_mib, &spec.limits);
        command.args(arguments(&launch));
        let failed = |source| HarnessError::process("start QEMU", source);
        let log = console_log(&spec.run_dir, spec.limits.console_log_bytes)?;
        let console = Console::follow(console.0, Some(log)).map_err(failed)?;
        let process =
            Process::spawn(command, descriptors.into_mappings(), spec.limits.wall_clock).map_err(failed)?;
        let killer = process.killer();
        let mut machine = Self {
            qmp: Qmp::new(monitor.0, move |event, data| on_event(&killer, event, data)).map_err(failed)?,
            wire: Wire::new(control.0).map_err(failed)?,
            relay: relay_stream
                .zip(spec.relay)
                .map(|(stream, relay)| Relay::serve(stream, relay))
                .transpose()
                .map_err(failed)?,
            phase: if spec.disk.is_some_and(|disk| !disk.layers.is_empty()) {
                Phase::Starting
            } else {
                Phase::Trusted
            },
            name: spec.name,
            process,
            console,
            overlays,
            top: 0,
            run_dir: spec.run_dir,
            user,
        };
        machine.qmp.negotiate(MONITOR_TIME).map_err(|error| machine.monitor_failed(&error))?;
        Ok(machine)
    }
}

/// Events that end a machine: QEMU pauses a guest whose disk cannot grow, and nobody would ever resume it.
fn on_event(killer: &Killer, event: &str, data: &Value) {
    match event {
        "BLOCK_IO_ERROR" if data.get("nospace") == Some(&Value::Bool(true)) => {
            killer.kill_for(Fault::HostFull)
        }
        "GUEST_PANICKED" => killer.kill_for(Fault::Panic),
        _ => {}
    }
}

/// Kernel and initramfs, checked and in memory that cannot change.
fn boot_memory(spec: &MachineSpec) -> Result<(OwnedFd, OwnedFd), HarnessError> {
    let kernel = sealed_memory("kernel", &[&read_boot_file(&spec.kernel)?])?;
    let initrd = match &spec.initrd {
        Initrd::Disk(base) => crate::initramfs::disk_initrd(&read_boot_file(base)?, crate::AGENT),
        Initrd::Nano(nano) => crate::initramfs::nano_initrd(&read_boot_file(nano)?, crate::AGENT),
    };
    Ok((kernel, sealed_memory("initrd", &[&initrd])?))
}

fn make_run_dir(path: &Path) -> Result<(), HarnessError> {
    DirBuilder::new().mode(0o700).create(path).map_err(|source| HarnessError::system("make", path, source))
}

/// Base and layers, bottom up, checked and read-only, and the size of the disk in bytes.
fn open_sealed(spec: &DiskSpec, descriptors: &mut Descriptors) -> Result<(Vec<FdSet>, u64), HarnessError> {
    let mut sealed = Vec::new();
    let mut size = None;
    let layers = spec.layers.iter().map(|layer| (layer, Part::Layer));
    for (pinned, part) in std::iter::once((&spec.base, Part::Base)).chain(layers) {
        let mut file = open_disk(pinned, part)?;
        let unusable =
            |reason| HarnessError::Unusable { path: pinned.path.clone(), layer: part == Part::Layer, reason };
        let width = overlay::header(&mut file).map_err(unusable)?.virtual_size;
        if *size.get_or_insert(width) != width {
            return Err(unusable(format!("its disk has {width} bytes, that of its base another number")));
        }
        sealed.push(descriptors.set([file]));
    }
    Ok((sealed, size.unwrap_or_default()))
}

/// New overlays, empty, by node name.
fn make_overlays(
    qemu: &Qemu,
    overlays: &[(String, PathBuf)],
    size: u64,
    descriptors: &mut Descriptors,
) -> Result<Vec<(String, FdSet)>, HarnessError> {
    let mut made = Vec::new();
    for (node, path) in overlays {
        overlay::create(&qemu.image_tool, path, size)?;
        let open = |write| {
            let file = File::options().read(true).write(write).open(path);
            file.map_err(|source| HarnessError::system("open", path, source))
        };
        // QEMU reopens an overlay read-only when another one is put on top of it.
        made.push((node.clone(), descriptors.set([open(true)?, open(false)?])));
    }
    Ok(made)
}

fn processor(accelerator: Accelerator, descriptors: &mut Descriptors) -> Result<Processor, HarnessError> {
    match accelerator {
        Accelerator::Tcg => Ok(Processor::Tcg),
        Accelerator::Kvm => {
            let path = Path::new(crate::accelerator::KVM_DEVICE);
            let device = File::options().read(true).write(true).open(path);
            let device = device.map_err(|source| HarnessError::system("open", path, source))?;
            Ok(Processor::Kvm(descriptors.set([device])))
        }
    }
}

fn console_log(run_dir: &Path, limit: u64) -> Result<Log, HarnessError> {
    let path = run_dir.join(CONSOLE_LOG);
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
    Ok(Log { file: file.map_err(|source| HarnessError::system("create", &path, source))?, limit })
}
