//! One running machine: everything a caller does with it goes through [`Machine`].

use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest::control::{Exec, Exited, Hello, Request, StepOutcome};
use guest::facts::Facts;
use recipe_spec::manifest::StepKind;
use serde_json::{Value, json};

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
use crate::qmp::{Qmp, QmpError};
use crate::relay::Relay;
use crate::spec::{DiskSpec, Initrd, MachineSpec};
use crate::wire::{Output, SHORT, Wire, WireError};

/// Name of the console's log in the run folder.
pub const CONSOLE_LOG: &str = "console.log";
/// QEMU is up and its monitor answers within this time, even on a busy host.
const MONITOR_TIME: Duration = Duration::from_secs(60);
/// After the control port is closed, QEMU's own end is waited for so long, to say what happened.
const EXIT_TIME: Duration = Duration::from_secs(3);
/// Lines of console in an error.
const CONSOLE_LINES: usize = 12;

/// A machine that runs. Dropping it kills QEMU and waits for its end; so does the end of this process.
#[derive(Debug)]
pub struct Machine {
    name: String,
    // Dropped in this order: QEMU is dead before its user and its folder can belong to another machine.
    process: Process,
    wire: Wire,
    qmp: Qmp,
    console: Console,
    relay: Option<Relay>,
    overlays: Vec<(String, PathBuf)>,
    /// Which overlay the guest writes to.
    top: usize,
    phase: Phase,
    run_dir: PathBuf,
    user: UserLease,
}

/// How far a machine is, for judging its silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte of a recipe has run in it: silence is a failure of ours.
    Trusted,
    /// Its disk has layers of recipes, but the agent has not yet said hello.
    Starting,
    /// A recipe has or may have run: silence is the recipe's doing.
    Recipe,
}

/// What is left of a machine that was powered off in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The overlays, bottom up, flushed to disk and read-only (0400). QEMU has written them: hostile input.
    pub overlays: Vec<PathBuf>,
}

/// What systemd says of the system once it is up. From the guest's own program: it informs, and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemState {
    /// All units are well.
    Running,
    /// Some unit has failed.
    Degraded,
}

impl Machine {
    /// Checks all digests, starts QEMU and returns when its monitor answers. The guest boots meanwhile.
    ///
    /// # Errors
    /// [`HarnessError`]; nothing is left running.
    pub fn spawn(qemu: &Qemu, spec: MachineSpec) -> Result<Self, HarnessError> {
        spec.check()?;
        let user = UserLease::take(&spec.confinement)?;
        let mut descriptors = Descriptors::default();
        let (kernel, initrd) = boot_memory(&spec)?;
        let (kernel, initrd) = (descriptors.inherit(kernel), descriptors.inherit(initrd));
        make_run_dir(&spec.run_dir)?;
        let overlays: Vec<(String, PathBuf)> = spec
            .disk
            .iter()
            .flat_map(|disk| &disk.overlays)
            .map(|name| (format!("overlay-{name}"), spec.run_dir.join(format!("{name}.qcow2"))))
            .collect();
        let disk =
            spec.disk.as_ref().map(|disk| open_chain(qemu, disk, &overlays, &mut descriptors)).transpose()?;
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

    /// Waits for the agent's first word, which comes before anything of the disk has run.
    ///
    /// # Errors
    /// `MACHINE_FAILED` with the last lines of the console if it does not come, or speaks another protocol.
    pub fn wait_hello(&mut self, timeout: Duration) -> Result<Hello, HarnessError> {
        let said = self.wire.wait_hello(timeout);
        let hello = said.map_err(|error| self.lost("hello", error))?;
        if self.phase == Phase::Starting {
            self.phase = Phase::Recipe;
        }
        Ok(hello)
    }

    /// Asks the agent whether it is there.
    ///
    /// # Errors
    /// `MACHINE_FAILED` or `CONTROL_LOST`, as for every request below.
    pub fn ping(&mut self) -> Result<(), HarnessError> {
        let answer = self.wire.ping();
        answer.map_err(|error| self.lost("ping", error))
    }

    /// Runs a command in the guest; its output goes to `output` as it comes.
    ///
    /// # Errors
    /// As [`Machine::ping`]; [`HarnessError::Agent`] if it could not be started. A failed command is not an error.
    pub fn exec(&mut self, exec: Exec, output: &mut dyn FnMut(Output)) -> Result<Exited, HarnessError> {
        let answer = self.wire.exec(exec, output);
        answer.map_err(|error| self.lost("exec", error))
    }

    /// Writes a file with these permission bits, atomically; says whether it differed.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn write_file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<bool, HarnessError> {
        let answer = self.wire.write_file(path, mode, content);
        answer.map_err(|error| self.lost("write file", error))
    }

    /// Reads a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, HarnessError> {
        let answer = self.wire.read_file(path, limit);
        answer.map_err(|error| self.lost("read file", error))
    }

    /// Brings one step about. `payload` is the folder in the guest that holds the recipe's files. From now on the
    /// machine's silence is the recipe's doing (`CONTROL_LOST`).
    ///
    /// # Errors
    /// As [`Machine::ping`]; [`HarnessError::Agent`] (`APPLY_FAILED`) if the step failed.
    pub fn apply(
        &mut self,
        step: &StepKind,
        payload: &str,
        timeout: Duration,
        output: &mut dyn FnMut(Output),
    ) -> Result<StepOutcome, HarnessError> {
        self.phase = Phase::Recipe;
        let request = Request::Apply {
            step: step.clone(),
            payload: payload.to_owned(),
            relay: self.relay.is_some(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = self.wire.apply(&request, timeout, output);
        answer.map_err(|error| self.lost("apply", error))
    }

    /// Says that a recipe runs from now on by other means than [`Machine::apply`].
    pub fn recipe_begins(&mut self) {
        self.phase = Phase::Recipe;
    }

    /// What the agent sees of the machine.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn facts(&mut self) -> Result<Facts, HarnessError> {
        let answer = self.wire.facts();
        answer.map_err(|error| self.lost("facts", error))
    }

    /// Opens the relay in the guest: programs there may use `http://127.0.0.1:3128` as their proxy.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn open_relay(&mut self) -> Result<(), HarnessError> {
        self.done(&Request::Relay { open: true }, "open relay")
    }

    /// Closes the relay in the guest.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn close_relay(&mut self) -> Result<(), HarnessError> {
        self.done(&Request::Relay { open: false }, "close relay")
    }

    /// Why the relay was ended, if the guest broke its protocol.
    #[must_use]
    pub fn relay_breach(&self) -> Option<String> {
        self.relay.as_ref().and_then(Relay::breach)
    }

    /// Flushes and freezes the root file system.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn freeze(&mut self) -> Result<(), HarnessError> {
        self.done(&Request::Freeze, "freeze")
    }

    /// Undoes [`Machine::freeze`].
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn thaw(&mut self) -> Result<(), HarnessError> {
        self.done(&Request::Thaw, "thaw")
    }

    /// Flushes all file systems of the guest.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn sync(&mut self) -> Result<(), HarnessError> {
        self.done(&Request::Sync, "sync")
    }

    /// From now on the guest writes to the second overlay, and the first never changes again. Freeze the guest before and
    /// thaw it afterwards, so that the first is a clean file system.
    ///
    /// # Errors
    /// [`HarnessError::BadSpec`] if there is no second overlay; `MACHINE_FAILED` if QEMU refuses.
    pub fn switch_overlay(&mut self) -> Result<(), HarnessError> {
        let (Some((from, _)), Some((to, _))) = (self.overlays.get(self.top), self.overlays.get(self.top + 1))
        else {
            let reason = "it has no further overlay to switch to".into();
            return Err(HarnessError::BadSpec { machine: self.name.clone(), reason });
        };
        let nodes = json!({"node": from, "overlay": to});
        self.qmp
            .execute("blockdev-snapshot", nodes, MONITOR_TIME)
            .map_err(|error| self.monitor_failed(&error))?;
        self.top += 1;
        Ok(())
    }

    /// Powers the guest off in order and seals its overlays: flushed to disk, read-only. After the deadline it is killed, and
    /// nothing is sealed.
    ///
    /// # Errors
    /// As [`Machine::ping`]; `HOST_FULL` if the host could not keep what was written.
    pub fn power_off(mut self, timeout: Duration) -> Result<Sealed, HarnessError> {
        let start = Instant::now();
        self.done(&Request::PowerOff, "power off")?;
        match self.process.wait(timeout.saturating_sub(start.elapsed())) {
            Some(status) if status.success() && self.process.fault().is_none() => {}
            Some(_) => return Err(self.lost("power off", WireError::Closed { waiting_for: "power off" })),
            None => {
                self.kill();
                return Err(
                    self.lost("power off", WireError::Silent { waiting_for: "power off", waited: timeout })
                );
            }
        }
        let overlays: Vec<PathBuf> = self.overlays.iter().map(|(_, path)| path.clone()).collect();
        for path in &overlays {
            seal(path).map_err(|source| HarnessError::system("seal", path, source))?;
        }
        sync_folder(&self.run_dir).map_err(|source| HarnessError::system("flush", &self.run_dir, source))?;
        Ok(Sealed { overlays })
    }

    /// Kills QEMU at once and waits for its end.
    pub fn kill(&mut self) {
        self.process.killer().kill();
        self.process.wait(MONITOR_TIME);
    }

    /// Waits until QEMU has ended by itself; false if it still runs after `timeout`.
    #[must_use]
    pub fn wait_exit(&self, timeout: Duration) -> bool {
        self.process.wait(timeout).is_some()
    }

    /// Waits until systemd says that the system is up.
    ///
    /// # Errors
    /// `MACHINE_FAILED` or `CONTROL_LOST` if it is not up within `timeout`.
    pub fn wait_running(&mut self, timeout: Duration) -> Result<SystemState, HarnessError> {
        const PAUSE: Duration = Duration::from_millis(500);
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(
                    self.lost("boot", WireError::Silent { waiting_for: "system to be up", waited: timeout })
                );
            }
            let exec = Exec {
                argv: ["systemctl", "is-system-running", "--wait"].map(str::to_owned).to_vec(),
                env: Default::default(),
                cwd: None,
                user: None,
                timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                output_limit: 4096,
            };
            let mut said = Vec::new();
            let result = self.exec(exec, &mut |output| {
                if let Output::Stdout(bytes) = output {
                    said.extend_from_slice(bytes);
                }
            });
            match (result, said.trim_ascii()) {
                (Ok(_), b"running") => return Ok(SystemState::Running),
                (Ok(_), b"degraded") => return Ok(SystemState::Degraded),
                // Too early: systemd does not run yet, or its disk is not yet where programs are looked for.
                (Ok(_) | Err(HarnessError::Agent { .. }), _) => std::thread::sleep(PAUSE.min(left)),
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Runs one command of QEMU's monitor.
    ///
    /// # Errors
    /// `MACHINE_FAILED` if QEMU refuses or does not answer.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Result<Value, HarnessError> {
        self.qmp.execute(command, arguments, MONITOR_TIME).map_err(|error| self.monitor_failed(&error))
    }

    /// The last lines of the console, escaped for a terminal.
    #[must_use]
    pub fn console_tail(&self) -> String {
        self.console.last_lines(CONSOLE_LINES)
    }

    /// Where the console's log is written.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.run_dir.join(CONSOLE_LOG)
    }

    /// Process id of QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The user QEMU runs as; `None` means our own, which the caller has allowed.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.user.uid()
    }

    fn done(&mut self, request: &Request, name: &'static str) -> Result<(), HarnessError> {
        let answer = self.wire.done(request, name, SHORT);
        answer.map_err(|error| self.lost(name, error))
    }

    /// Turns the silence of a wire into what it means.
    fn lost(&self, request: &'static str, error: WireError) -> HarnessError {
        let machine = self.name.clone();
        if let WireError::Refused(error) = error {
            return HarnessError::Agent { machine, request, error };
        }
        let exited = match error {
            WireError::Closed { .. } | WireError::Dead => self.process.wait(EXIT_TIME),
            _ => self.process.wait(Duration::ZERO),
        };
        let console = self.console_tail();
        let by_guest = exited.is_none_or(|status| status.success());
        let reason = match (self.process.fault(), exited) {
            (Some(Fault::HostFull), _) => {
                return HarnessError::HostFull {
                    what: format!("machine {machine} could not write to its disk"),
                };
            }
            (Some(Fault::TimeLimit(limit)), _) => {
                format!("it reached its time limit of {} s", limit.as_secs())
            }
            (Some(Fault::Panic), _) => "the guest's kernel panicked".to_owned(),
            (None, Some(status)) if status.success() => format!("the guest ended by itself during {request}"),
            (None, Some(status)) => {
                format!("QEMU ended with {status} during {request}; {}", self.process.errors())
            }
            (None, None) => error.to_string(),
        };
        match self.phase {
            Phase::Recipe if by_guest || self.process.fault().is_some() => {
                HarnessError::ControlLost { machine, reason, console }
            }
            _ => HarnessError::MachineFailed { machine, reason, console },
        }
    }

    fn monitor_failed(&self, error: &QmpError) -> HarnessError {
        let exited = self.process.wait(EXIT_TIME);
        let reason = match exited {
            Some(status) => format!("QEMU ended with {status}: {}", self.process.errors()),
            None => error.to_string(),
        };
        HarnessError::MachineFailed { machine: self.name.clone(), reason, console: self.console_tail() }
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

/// Base and layers, read-only, and new overlays on top of them.
fn open_chain(
    qemu: &Qemu,
    spec: &DiskSpec,
    overlays: &[(String, PathBuf)],
    descriptors: &mut Descriptors,
) -> Result<Disk, HarnessError> {
    let mut sealed = Vec::new();
    let mut virtual_size = 0;
    let layers = spec.layers.iter().map(|layer| (layer, Part::Layer));
    for (pinned, part) in std::iter::once((&spec.base, Part::Base)).chain(layers) {
        let mut file = open_disk(pinned, part)?;
        let unusable =
            |reason| HarnessError::Unusable { path: pinned.path.clone(), layer: part == Part::Layer, reason };
        let header = overlay::header(&mut file).map_err(unusable)?;
        if part == Part::Layer && header.virtual_size != virtual_size {
            return Err(unusable(format!(
                "it is {} bytes wide, its base {virtual_size}",
                header.virtual_size
            )));
        }
        virtual_size = header.virtual_size;
        sealed.push(descriptors.set([file]));
    }
    let mut writable = Vec::new();
    for (name, path) in overlays {
        overlay::create(&qemu.image_tool, path, virtual_size)?;
        let open = |write| {
            File::options()
                .read(true)
                .write(write)
                .open(path)
                .map_err(|source| HarnessError::system("open", path, source))
        };
        // QEMU reopens an overlay read-only when another one is put on top of it.
        writable.push((name.clone(), descriptors.set([open(true)?, open(false)?])));
    }
    Ok(Disk { sealed, overlays: writable })
}

fn processor(accelerator: Accelerator, descriptors: &mut Descriptors) -> Result<Processor, HarnessError> {
    match accelerator {
        Accelerator::Tcg => Ok(Processor::Tcg),
        Accelerator::Kvm => {
            let path = Path::new(crate::accelerator::KVM_DEVICE);
            let device: Result<FdSet, HarnessError> = File::options()
                .read(true)
                .write(true)
                .open(path)
                .map(|device| descriptors.set([device]))
                .map_err(|source| HarnessError::system("open", path, source));
            device.map(Processor::Kvm)
        }
    }
}

fn console_log(run_dir: &Path, limit: u64) -> Result<Log, HarnessError> {
    let path = run_dir.join(CONSOLE_LOG);
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
    Ok(Log { file: file.map_err(|source| HarnessError::system("create", &path, source))?, limit })
}

fn seal(path: &Path) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    file.sync_all()?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o400))?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
