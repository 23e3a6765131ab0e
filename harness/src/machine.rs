//! One running machine: everything a caller does with it goes through [`Machine`].

mod launch;
mod save;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guest::control::{DISK_MOUNT, Exec, Exited, Hello, Mode, Request, StepOutcome};
use guest::facts::Facts;
use recipe_spec::manifest::StepKind;
use serde_json::{Value, json};

use crate::artifact::Seen;
use crate::confinement::UserLease;
use crate::console::Console;
use crate::error::HarnessError;
use crate::process::{Fault, Killer, LAST_WORDS, Process};
use crate::qmp::{Qmp, QmpError};
use crate::relay::Relay;
use crate::template::Kept;
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
    /// It was told to power off: the agent may go.
    leaving: Arc<AtomicBool>,
    phase: Phase,
    /// What kind of guest it is; its agent must say the same.
    mode: Mode,
    /// What it leaves if it becomes a template.
    kept: Option<Kept>,
    /// What it runs from, as it was when it was hashed.
    seen: Vec<Seen>,
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
    /// Waits for the agent's first word, which comes before anything of the disk has run.
    ///
    /// # Errors
    /// `MACHINE_FAILED` with the last lines of the console if it does not come, speaks another protocol or comes from another
    /// kind of guest.
    pub fn wait_hello(&mut self, timeout: Duration) -> Result<Hello, HarnessError> {
        let said = self.wire.wait_hello(timeout, self.mode);
        let hello = self.answered("hello", said)?;
        if self.phase == Phase::Starting {
            self.phase = Phase::Recipe;
        }
        Ok(hello)
    }

    /// Whether the files that it runs from, disk and RAM of its template, are still what was hashed when it started.
    ///
    /// # Errors
    /// [`HarnessError::Unusable`] (`BASE_MISMATCH`, `LAYER_MISMATCH`) if one was written to since.
    pub fn check_unchanged(&self) -> Result<(), HarnessError> {
        self.seen.iter().try_for_each(Seen::unchanged)
    }

    /// Asks the agent whether it is there.
    ///
    /// # Errors
    /// `MACHINE_FAILED` or `CONTROL_LOST`, as for every request below.
    pub fn ping(&mut self) -> Result<(), HarnessError> {
        let answer = self.wire.ping();
        self.answered("ping", answer)
    }

    /// Runs a command in the guest; its output goes to `output` as it comes.
    ///
    /// # Errors
    /// As [`Machine::ping`]; [`HarnessError::Agent`] if it could not be started. A failed command is not an error.
    pub fn exec(&mut self, exec: Exec, output: &mut dyn FnMut(Output)) -> Result<Exited, HarnessError> {
        let answer = self.wire.exec(exec, output);
        self.answered("exec", answer)
    }

    /// Writes a file with these permission bits, atomically; says whether it differed.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn write_file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<bool, HarnessError> {
        let answer = self.wire.write_file(path, mode, content);
        self.answered("write file", answer)
    }

    /// Reads a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`].
    pub fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, HarnessError> {
        let answer = self.wire.read_file(path, limit);
        self.answered("read file", answer)
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
        self.answered("apply", answer)
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
        self.answered("facts", answer)
    }

    /// What the agent of a nano guest sees of the files on the machine's disk, of which nothing runs. All else is empty.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`] if the disk cannot be mounted as it is.
    pub fn disk_facts(&mut self) -> Result<Facts, HarnessError> {
        let answer = self.wire.disk_facts();
        self.answered("disk facts", answer)
    }

    /// Reads a regular file of at most `limit` bytes on the disk that [`Machine::disk_facts`] has mounted. A folder on the way that
    /// is a link leads into the guest's own root, where nothing lies.
    ///
    /// # Errors
    /// As [`Machine::read_file`].
    pub fn read_disk_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, HarnessError> {
        self.read_file(&format!("{DISK_MOUNT}{path}"), limit)
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
        self.leaving.store(true, Ordering::Release);
        self.done_within(&Request::PowerOff, "power off", timeout.min(SHORT))?;
        let ended = self.process.wait(timeout.saturating_sub(start.elapsed()));
        if ended.is_none() {
            // A guest that does not go is not a QEMU that died.
            self.process.killer().kill_for(Fault::TimeLimit(timeout));
        }
        if !ended.is_some_and(|status| status.success()) || self.process.fault().is_some() {
            return Err(self.lost("power off", WireError::Closed { waiting_for: "power off" }));
        }
        self.seal_overlays()
    }

    /// What ends QEMU from another thread, while this one waits for the guest: the wait then fails.
    #[must_use]
    pub fn killer(&self) -> Killer {
        self.process.killer()
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
                let seconds = timeout.as_secs();
                return Err(self.given_up(format!("its system was not up after {seconds} s")));
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
        if self.process.wait(Duration::ZERO).is_some() {
            self.console.wait_end(LAST_WORDS);
        }
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
        self.done_within(request, name, SHORT)
    }

    fn done_within(
        &mut self,
        request: &Request,
        name: &'static str,
        timeout: Duration,
    ) -> Result<(), HarnessError> {
        let answer = self.wire.done(request, name, timeout);
        self.answered(name, answer)
    }

    /// An answer counts only as long as the agent keeps to both protocols.
    fn answered<T>(&self, request: &'static str, answer: Result<T, WireError>) -> Result<T, HarnessError> {
        let answer = answer.map_err(|error| self.lost(request, error))?;
        match self.relay.as_ref().and_then(Relay::breach) {
            Some(breach) => Err(self.given_up(format!("it broke the relay's protocol: {breach}"))),
            None => Ok(answer),
        }
    }

    /// Turns the silence of a wire into what it means.
    fn lost(&self, request: &'static str, error: WireError) -> HarnessError {
        let machine = self.name.clone();
        if let WireError::Refused(error) = error {
            return HarnessError::Agent { machine, request, error };
        }
        let time = match error {
            WireError::Closed { .. } | WireError::Dead => EXIT_TIME,
            _ => Duration::ZERO,
        };
        match self.ended(request, time) {
            Some(End::OfQemu(error)) => error,
            Some(End::OfGuest(reason)) => self.given_up(reason),
            None => self.given_up(error.to_string()),
        }
    }

    /// What it means that the guest is lost.
    fn given_up(&self, reason: String) -> HarnessError {
        match self.phase {
            Phase::Recipe => self.control_lost(reason),
            Phase::Trusted | Phase::Starting => self.failed(reason),
        }
    }

    /// What ended the machine, if it has ended.
    fn ended(&self, request: &'static str, time: Duration) -> Option<End> {
        let status = self.process.wait(time)?;
        Some(match self.process.fault() {
            Some(Fault::HostFull) => {
                let what = format!("machine {} could not write to its disk", self.name);
                End::OfQemu(HarnessError::HostFull { what })
            }
            Some(Fault::TimeLimit(limit)) => End::OfGuest(format!(
                "it reached its time limit of {:.1} s during {request}",
                limit.as_secs_f64()
            )),
            Some(Fault::Panic) => End::OfGuest("the guest's kernel panicked".into()),
            Some(Fault::AgentGone) => End::OfGuest("the agent let go of the control port".into()),
            None if status.success() => End::OfGuest(format!("the guest ended by itself during {request}")),
            None => {
                let reason = format!("QEMU ended with {status} during {request}; {}", self.process.errors());
                End::OfQemu(self.failed(reason))
            }
        })
    }

    fn failed(&self, reason: String) -> HarnessError {
        HarnessError::MachineFailed { machine: self.name.clone(), reason, console: self.console_tail() }
    }

    fn control_lost(&self, reason: String) -> HarnessError {
        HarnessError::ControlLost { machine: self.name.clone(), reason, console: self.console_tail() }
    }

    fn monitor_failed(&self, error: &QmpError) -> HarnessError {
        match self.ended("a command of QEMU's monitor", EXIT_TIME) {
            Some(End::OfQemu(error)) => error,
            Some(End::OfGuest(reason)) => self.given_up(reason),
            None => self.failed(error.to_string()),
        }
    }

    /// Why QEMU did not come up. No guest has run, so its own words can be believed.
    fn not_started(&self, error: &QmpError) -> HarnessError {
        let error = self.monitor_failed(error);
        if self.process.fault().is_none()
            && NO_MEMORY.iter().any(|words| self.process.errors().contains(words))
        {
            let what = format!("no memory for machine {}: {}", self.name, self.process.errors());
            return HarnessError::HostFull { what };
        }
        error
    }
}

/// What QEMU, GLib and the dynamic loader say when they are given no memory, for themselves or for a thread's stack.
const NO_MEMORY: [&str; 4] = [
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "failed to allocate",
    "failed to map segment",
];

/// Whose doing the end of a machine was.
enum End {
    OfQemu(HarnessError),
    OfGuest(String),
}

fn seal(path: &Path) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    file.sync_all()?;
    file.set_permissions(std::fs::Permissions::from_mode(0o400))?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
