//! The launch: from a [`MachineSpec`] to a QEMU that runs, with everything it may touch opened and checked by us.

use std::fs::{DirBuilder, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};

use recipe_spec::digest::Sha256Digest;
use serde_json::Value;

use super::{CONSOLE_LOG, MONITOR_TIME, Machine, Phase};
use crate::accelerator::Accelerator;
use crate::arguments::{self, Begin, CONTROL_PORT, Disk, Launch, Processor};
use crate::artifact::{Checked, Part, Pinned, Seen, open_disk, read_boot_file, sealed_memory};
use crate::confinement::{self, UserLease};
use crate::console::{Console, Log};
use crate::descriptors::{Descriptors, FdSet};
use crate::error::HarnessError;
use crate::overlay;
use crate::process::{Fault, Killer, Process};
use crate::qemu::Qemu;
use crate::qmp::Qmp;
use crate::relay::Relay;
use crate::spec::{Boot, Initrd, MachineSpec, Memory, Start, Written};
use crate::template::{Booted, Kept, Shape, nameless};
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
        let shape = Shape::of(&spec, &qemu.version);
        // Side by side, for both hash much.
        let (begun, images) = thread::scope(|scope| {
            let images = scope.spawn(|| sealed_images(&spec).map(|images| open_sealed(&images)).transpose());
            (begin(&spec, shape, &mut descriptors), joined(images))
        });
        let (begin, kept, mut seen) = begun?;
        let sealed = images?.map(|(images, size)| {
            let files = images.into_iter().map(|Checked { file, seen: as_hashed }| {
                seen.push(as_hashed);
                file
            });
            (files.collect::<Vec<_>>(), size)
        });
        make_run_dir(&spec.run_dir)?;
        let overlays: Vec<(String, PathBuf)> = spec
            .disk
            .iter()
            .flat_map(|disk| &disk.overlays)
            .map(|name| (format!("overlay-{name}"), spec.run_dir.join(format!("{name}.qcow2"))))
            .collect();
        let disk = sealed
            .map(|(mut files, size)| {
                let written = if copies_overlay(&spec.start) { files.pop() } else { None };
                Ok::<_, HarnessError>(Disk {
                    sealed: files.into_iter().map(|file| descriptors.set([file])).collect(),
                    overlays: make_overlays(&overlays, size, written, &mut descriptors)?,
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
            begin,
            disk,
            network: spec.network,
            monitor: monitor.1,
            console: console.1,
            control: control.1,
            relay: relay_port,
        };
        let loads = match &launch.begin {
            Begin::Clone { state, .. } => Some(state.number),
            Begin::Boot { .. } => None,
        };
        let mut command = confinement::command(qemu, &user, spec.memory_mib, &spec.limits);
        command.args(arguments::arguments(&launch));
        let failed = |source| HarnessError::process("start QEMU", source);
        let log = console_log(&spec.run_dir, spec.limits.console_log_bytes)?;
        let console = Console::follow(console.0, Some(log)).map_err(failed)?;
        let process =
            Process::spawn(command, descriptors.into_mappings(), spec.limits.wall_clock).map_err(failed)?;
        let leaving = Arc::new(AtomicBool::new(false));
        let mut watch = Watch { killer: process.killer(), leaving: Arc::clone(&leaving), held: false };
        let mut machine = Self {
            qmp: Qmp::new(monitor.0, move |event, data| watch.on_event(event, data)).map_err(failed)?,
            wire: match spec.start {
                Start::Boot(_) => Wire::new(control.0),
                Start::Clone(..) => Wire::resumed(control.0),
            }
            .map_err(failed)?,
            relay: relay_stream
                .zip(spec.relay)
                .map(|(stream, relay)| Relay::serve(stream, relay))
                .transpose()
                .map_err(failed)?,
            phase: match (&spec.start, spec.disk.is_some_and(|disk| !disk.layers.is_empty())) {
                (_, false) => Phase::Trusted,
                (Start::Boot(_), true) => Phase::Starting,
                (Start::Clone(..), true) => Phase::Recipe,
            },
            mode: spec.start.mode(),
            kept,
            seen,
            name: spec.name,
            process,
            console,
            overlays,
            top: 0,
            leaving,
            run_dir: spec.run_dir,
            user,
        };
        machine.qmp.negotiate(MONITOR_TIME).map_err(|error| machine.not_started(&error))?;
        if let Some(state) = loads {
            machine.load(state)?;
        }
        machine.check_unchanged()?;
        Ok(machine)
    }
}

/// Listens for what QEMU itself sees of a machine.
struct Watch {
    killer: Killer,
    leaving: Arc<AtomicBool>,
    held: bool,
}

impl Watch {
    fn on_event(&mut self, event: &str, data: &Value) {
        if let Some(fault) = self.fault(event, data) {
            self.killer.kill_for(fault);
        }
    }

    /// What ends the machine. QEMU pauses a guest whose disk cannot grow, and nobody would ever resume it.
    fn fault(&mut self, event: &str, data: &Value) -> Option<Fault> {
        match event {
            "BLOCK_IO_ERROR" if data["nospace"] == true => Some(Fault::HostFull),
            "GUEST_PANICKED" => Some(Fault::Panic),
            // The agent opens its port before the disk's first program and never closes it. QEMU may pass over a closing
            // that is followed by an opening within a second, so a second opening tells as much.
            "VSERPORT_CHANGE" if data["id"] == CONTROL_PORT && !self.leaving.load(Ordering::Acquire) => {
                let first = data["open"] == true && !std::mem::replace(&mut self.held, true);
                (!first).then_some(Fault::AgentGone)
            }
            _ => None,
        }
    }
}

/// What the machine begins with, checked and opened, and what it leaves if it is to become a template.
fn begin(
    spec: &MachineSpec,
    shape: Shape,
    descriptors: &mut Descriptors,
) -> Result<(Begin, Option<Kept>, Vec<Seen>), HarnessError> {
    match &spec.start {
        Start::Boot(boot) => {
            let (begin, kept) = boot_from(boot, spec.memory_mib, shape, descriptors)?;
            Ok((begin, kept, Vec::new()))
        }
        Start::Clone(template, _) => {
            if let Some(reason) = template.misfit(&shape) {
                let path = template.folder().to_owned();
                return Err(HarnessError::Unusable { path, layer: true, reason });
            }
            let (memory, state) = (template.open_memory()?, template.open_state()?);
            let seen = vec![memory.seen, state.seen];
            let memory = descriptors.inherit(memory.file);
            let state = descriptors.set([state.file]);
            Ok((Begin::Clone { memory, state }, None, seen))
        }
    }
}

/// Kernel and initramfs, checked and in memory that cannot change.
fn boot_from(
    boot: &Boot,
    memory_mib: u32,
    shape: Shape,
    descriptors: &mut Descriptors,
) -> Result<(Begin, Option<Kept>), HarnessError> {
    let kernel = sealed_memory("kernel", &[&read_boot_file(&boot.kernel)?])?;
    let initrd = match &boot.initrd {
        Initrd::Disk(base) => crate::initramfs::disk_initrd(&read_boot_file(base)?, crate::AGENT),
        Initrd::Nano(nano) => crate::initramfs::nano_initrd(&read_boot_file(nano)?, crate::AGENT),
    };
    let kept = match boot.memory {
        Memory::Private => None,
        Memory::Kept => {
            let booted = Booted {
                kernel: boot.kernel.sha256,
                initrd: Sha256Digest::of(&initrd),
                command_line: boot.command_line.clone(),
            };
            Some(keep(memory_mib, shape, booted, descriptors)?)
        }
    };
    let kernel = descriptors.inherit(kernel);
    let initrd = descriptors.inherit(sealed_memory("initrd", &[&initrd])?);
    let (arguments, kept) = kept.unzip();
    let command_line = boot.command_line.clone();
    Ok((Begin::Boot { kernel, initrd, command_line, kept: arguments }, kept))
}

/// Memory and device state of a template's source, in memory without a name that we hold as well.
fn keep(
    memory_mib: u32,
    shape: Shape,
    booted: Booted,
    descriptors: &mut Descriptors,
) -> Result<(arguments::Kept, Kept), HarnessError> {
    let memory = nameless("memory", Some(u64::from(memory_mib) << 20))?;
    let state = nameless("state", None)?;
    let copy = |file: &File| {
        file.try_clone().map_err(|source| HarnessError::process("duplicate a descriptor", source))
    };
    // QEMU takes from a set only what has exactly the access that it wants.
    let path = format!("/proc/self/fd/{}", state.as_raw_fd());
    let write_only = File::options().write(true).open(&path);
    let write_only = write_only.map_err(|source| HarnessError::process("open memory to be kept", source))?;
    let inherited = descriptors.inherit(copy(&memory)?);
    let set = descriptors.set([write_only]);
    let kept = Kept { memory, state, state_set: set.number, shape, booted };
    Ok((arguments::Kept { memory: inherited, state: set }, kept))
}

fn make_run_dir(path: &Path) -> Result<(), HarnessError> {
    DirBuilder::new().mode(0o700).create(path).map_err(|source| HarnessError::system("make", path, source))
}

/// Base, layers and a template's overlay, bottom up, each with what it is.
fn sealed_images(spec: &MachineSpec) -> Option<Vec<(Pinned, Part)>> {
    let disk = spec.disk.as_ref()?;
    let layers = disk.layers.iter().cloned().map(|layer| (layer, Part::Layer));
    let overlay = match &spec.start {
        Start::Boot(_) => None,
        Start::Clone(template, _) => template.overlay().map(|overlay| (overlay, Part::Layer)),
    };
    Some(std::iter::once((disk.base.clone(), Part::Base)).chain(layers).chain(overlay).collect())
}

/// Whether the last of the sealed images is one that the machine's first overlay begins as a copy of.
fn copies_overlay(start: &Start) -> bool {
    match start {
        Start::Boot(_) => false,
        Start::Clone(template, written) => *written == Written::Copied && template.overlay().is_some(),
    }
}

/// What a thread found.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The images, checked and read-only, and the size of the disk in bytes.
fn open_sealed(images: &[(Pinned, Part)]) -> Result<(Vec<Checked>, u64), HarnessError> {
    let opened: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            images.iter().map(|(pinned, part)| scope.spawn(|| open_disk(pinned, *part))).collect();
        threads.into_iter().map(joined).collect()
    });
    let mut sealed = Vec::new();
    let mut size = None;
    for ((pinned, part), file) in images.iter().zip(opened) {
        let mut image = file?;
        let unusable = |reason| HarnessError::Unusable {
            path: pinned.path.clone(),
            layer: *part == Part::Layer,
            reason,
        };
        let width = overlay::header(&mut image.file).map_err(unusable)?.virtual_size;
        if *size.get_or_insert(width) != width {
            return Err(unusable(format!("its disk has {width} bytes, that of its base another number")));
        }
        sealed.push(image);
    }
    Ok((sealed, size.unwrap_or_default()))
}

/// New overlays by node name: empty, but for the first, which may begin as a copy.
fn make_overlays(
    overlays: &[(String, PathBuf)],
    size: u64,
    mut written: Option<File>,
    descriptors: &mut Descriptors,
) -> Result<Vec<(String, FdSet)>, HarnessError> {
    let mut made = Vec::new();
    for (node, path) in overlays {
        match written.take() {
            Some(mut from) => overlay::copy(&mut from, path)?,
            None => overlay::create(path, size)?,
        }
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;
    use crate::process::Process;

    fn watch(process: &Process) -> Watch {
        Watch { killer: process.killer(), leaving: Arc::default(), held: false }
    }

    #[test]
    fn whoever_takes_the_agents_port_is_not_the_agent() {
        let process = Process::spawn(Command::new("true"), Vec::new(), None).unwrap();
        let change = |id: &str, open: bool| json!({"id": id, "open": open});
        let mut watch = watch(&process);
        let mut fault = |data: Value| watch.fault("VSERPORT_CHANGE", &data);
        assert_eq!(fault(change("control", true)), None);
        assert_eq!(fault(change("relay", false)), None);
        assert_eq!(fault(change("control", true)), Some(Fault::AgentGone), "a closing that was passed over");
        assert_eq!(fault(change("control", false)), Some(Fault::AgentGone));
        watch.leaving.store(true, Ordering::Release);
        assert_eq!(watch.fault("VSERPORT_CHANGE", &change("control", false)), None, "powering off");
    }

    #[test]
    fn a_full_host_and_a_panic_end_a_machine() {
        let process = Process::spawn(Command::new("true"), Vec::new(), None).unwrap();
        let mut watch = watch(&process);
        assert_eq!(watch.fault("BLOCK_IO_ERROR", &json!({"nospace": true})), Some(Fault::HostFull));
        assert_eq!(watch.fault("BLOCK_IO_ERROR", &json!({"nospace": false})), None);
        assert_eq!(watch.fault("GUEST_PANICKED", &json!({})), Some(Fault::Panic));
        assert_eq!(watch.fault("STOP", &Value::Null), None);
    }
}
