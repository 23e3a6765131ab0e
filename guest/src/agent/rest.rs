//! Bringing the machine to rest: all processes but the agent are frozen, then its disk, so that what is saved of the machine is one
//! state that many clones can go on from, and what lies on the disk can be read from outside.
//!
//! Processes are frozen by their cgroups, from the topmost ones on (cgroup v2, `cgroup.freeze`): whoever is frozen holds no lock
//! of the kernel, so the agent can go on writing files. What cannot be frozen is a reason to refuse: processes in the topmost
//! cgroup, and in the agent's own. Whoever still runs can make cgroups faster than they are looked at, so at last every task that there is
//! must be in one that was found frozen.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use guest::control::{self, AgentError};

use super::cgroups::{Hierarchy, TOP, gone};
use super::entropy::Pool;
use super::escape::escaped;
use super::failure;
use super::freeze;
use super::identity::Checked;
use super::root::Root;
use super::session::Stat;
use super::sight::{Proc, ended, process};
use super::wake;

/// The agent's own cgroup, which is never frozen.
const OWN: &str = "/countersign";
/// What is done, for errors.
const DOING: &str = "bring the machine to rest";
/// Longest `/proc/PID/stat` and `comm` that is read, in bytes.
const MAX_TEXT: usize = 4 * 1024;
/// Processes, and threads of one, that are looked at.
const MAX_TASKS: usize = 32 * 1024;
/// Each pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Who still runs while the cgroups are gone through could move to where it was looked already, so once is not enough.
const QUIET_LOOKS: u32 = 2;

/// How long the machine may take to come to rest.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For what cannot be frozen to go away, before anything is frozen: programs that the kernel itself starts are short.
    strays: Duration,
    /// For all processes to be frozen.
    freezing: Duration,
}

const PATIENCE: Patience = Patience { strays: Duration::from_secs(2), freezing: Duration::from_secs(30) };

/// What brings a machine of ours to rest and wakes it again.
pub(crate) struct Repose {
    pool: Pool,
    /// None in a nano guest, where nothing but the agent runs.
    cgroups: Option<Hierarchy>,
    /// What was frozen, while the machine is at rest.
    frozen: Option<Frozen>,
}

/// What was not frozen before.
#[derive(Debug, Default)]
struct Frozen {
    cgroups: BTreeSet<PathBuf>,
    /// Whether the root file system is. A machine where nothing but the agent runs has none on a disk.
    disk: bool,
}

impl Repose {
    /// For a machine where nothing but the agent runs.
    pub(crate) fn alone(pool: Pool) -> Self {
        Self { pool, cgroups: None, frozen: None }
    }

    /// For a machine that runs what is on its disk.
    pub(crate) fn among(cgroups: Hierarchy, pool: Pool) -> Self {
        Self { pool, cgroups: Some(cgroups), frozen: None }
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.frozen.is_some()
    }

    /// Freezes all processes but the agent, flushes all file systems and freezes the root's. Afterwards the agent is in a cgroup of
    /// its own.
    ///
    /// # Errors
    /// `System`, or `TimedOut` if a cgroup cannot be frozen; then nothing is frozen that was not before.
    pub(crate) fn rest(&mut self, root: &Root, proc: &Proc) -> Result<(), AgentError> {
        let Some(cgroups) = &self.cgroups else {
            rustix::fs::sync();
            self.frozen = Some(Frozen::default());
            return Ok(());
        };
        let frozen = freeze_all(cgroups, proc, PATIENCE, &|still| outside(proc, still))?;
        // Only now: what runs writes. And nobody that is frozen keeps a file system from being flushed.
        self.frozen = Some(freeze_disk(root, cgroups, frozen)?);
        Ok(())
    }

    /// Makes the machine one of its own, then lets its processes go on.
    ///
    /// # Errors
    /// `BadRequest` if it is not at rest or the identity is not well-formed: then nothing was done. `System`. After any error
    /// its processes stay at rest.
    pub(crate) fn wake(
        &mut self,
        root: &Root,
        proc: &Proc,
        identity: control::Identity,
    ) -> Result<(), AgentError> {
        // Before anything else, so that what is secret in it is wiped in any case.
        let identity = Checked::check(identity);
        let frozen = self.frozen.as_mut().ok_or_else(|| {
            failure::bad_request("the machine does not rest: only one at rest can be woken")
        })?;
        let identity = identity?;
        if self.cgroups.is_none() && identity.names.is_some() {
            return Err(failure::bad_request("a nano guest has no names: wake it without"));
        }
        if frozen.disk {
            freeze::thaw(root).map_err(|error| failure::system("thaw the root file system", error))?;
            frozen.disk = false;
        }
        wake::take_on(identity, root, proc, &self.pool)?;
        if let Some(cgroups) = &self.cgroups {
            thaw(cgroups, &frozen.cgroups)?;
        }
        self.frozen = None;
        Ok(())
    }
}

/// Why the machine is not at rest yet.
#[derive(Debug, PartialEq, Eq)]
enum Unrest {
    /// Processes in this cgroup still run.
    Running(PathBuf),
    /// A process where it cannot be frozen.
    Stray { pid: u32, name: String, cgroup: &'static str },
    /// A cgroup within the agent's own.
    Within(PathBuf),
}

impl Display for Unrest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(cgroup) => {
                write!(f, "freezing the cgroup {cgroup:?}: see which of its processes cannot be interrupted")
            }
            Self::Stray { pid, name, cgroup } => write!(
                f,
                "process {pid} ({name:?}) is in the cgroup {cgroup:?}, where it cannot be frozen: end it first"
            ),
            Self::Within(cgroup) => {
                write!(
                    f,
                    "the cgroup {cgroup:?} is within the agent's own, so it cannot be frozen: remove it first"
                )
            }
        }
    }
}

impl From<Unrest> for AgentError {
    fn from(unrest: Unrest) -> Self {
        match unrest {
            Unrest::Running(_) => failure::timed_out(unrest),
            Unrest::Stray { .. } | Unrest::Within(_) => failure::system(DOING, unrest),
        }
    }
}

/// Looks for a task that is in none of these topmost cgroups.
type Outside<'a> = &'a dyn Fn(&BTreeSet<PathBuf>) -> io::Result<Option<Unrest>>;

/// Freezes every topmost cgroup but the agent's own; those that were not before.
fn freeze_all(
    cgroups: &Hierarchy,
    proc: &Proc,
    patience: Patience,
    outside: Outside<'_>,
) -> Result<BTreeSet<PathBuf>, AgentError> {
    let failed = |error: io::Error| failure::system(DOING, error);
    cgroups.enter(Path::new(OWN)).map_err(failed)?;
    await_rest(patience.strays, || stray(cgroups, proc).map_err(failed))?;
    let mut frozen = BTreeSet::new();
    let at_rest =
        await_rest(patience.freezing, || freeze_once(cgroups, proc, outside, &mut frozen).map_err(failed));
    at_rest.map_err(|error| undone(cgroups, &frozen, error))?;
    Ok(frozen)
}

/// Flushes all file systems, and freezes the root's.
fn freeze_disk(root: &Root, cgroups: &Hierarchy, frozen: BTreeSet<PathBuf>) -> Result<Frozen, AgentError> {
    // First all of them: what lies in a file of the root (a loop device) is written there.
    rustix::fs::sync();
    match freeze::freeze(root) {
        Ok(()) => Ok(Frozen { cgroups: frozen, disk: true }),
        Err(error) => {
            let error = failure::system("freeze the root file system", error);
            Err(undone(cgroups, &frozen, error))
        }
    }
}

/// Lets these cgroups go on, because of an error.
fn undone(cgroups: &Hierarchy, frozen: &BTreeSet<PathBuf>, mut error: AgentError) -> AgentError {
    if let Err(left) = thaw(cgroups, frozen) {
        error.message = format!("{}; and then: {}", error.message, left.message);
    }
    error
}

/// Looks until it has found no unrest [`QUIET_LOOKS`] times in a row, at most for `patience`.
fn await_rest(
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<Unrest>, AgentError>,
) -> Result<(), AgentError> {
    let deadline = Instant::now() + patience;
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        match look()? {
            None => quiet += 1,
            Some(unrest) if Instant::now() >= deadline => return Err(unrest.into()),
            Some(_) => {
                quiet = 0;
                thread::sleep(PAUSE);
            }
        }
    }
    Ok(())
}

/// Has every topmost cgroup frozen that is not; what then still runs, or cannot be frozen.
fn freeze_once(
    cgroups: &Hierarchy,
    proc: &Proc,
    outside: Outside<'_>,
    frozen: &mut BTreeSet<PathBuf>,
) -> io::Result<Option<Unrest>> {
    let mut running = None;
    let mut still = BTreeSet::new();
    for cgroup in cgroups.children(Path::new(TOP))? {
        if cgroup == Path::new(OWN) {
            continue;
        }
        let asked = cgroups.freeze(&cgroup).and_then(|new| {
            if new {
                frozen.insert(cgroup.clone());
            }
            cgroups.is_frozen(&cgroup)
        });
        match asked {
            Ok(true) => {
                still.insert(cgroup);
            }
            Ok(false) => running = running.or(Some(Unrest::Running(cgroup))),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let unrest = running.or(stray(cgroups, proc)?);
    // Last: whoever moved while the cgroups were gone through is now in one that was not found frozen.
    if unrest.is_some() { Ok(unrest) } else { outside(&still) }
}

/// A task that may still run, for it is in none of the topmost cgroups `still`, which are frozen.
fn outside(proc: &Proc, still: &BTreeSet<PathBuf>) -> io::Result<Option<Unrest>> {
    let own = std::process::id();
    for pid in proc.numbers(".", MAX_TASKS)?.into_iter().filter(|pid| *pid != own) {
        match tops(proc, pid) {
            Ok(tops) => {
                if let Some(top) = tops.into_iter().find(|top| !still.contains(top)) {
                    return Ok(Some(Unrest::Running(top)));
                }
            }
            Err(error) if ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The topmost cgroup of each thread of a process; none for a thread of the kernel, and for what has ended.
fn tops(proc: &Proc, pid: u32) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let tasks = process(pid).join("task");
    for task in proc.numbers(&tasks, MAX_TASKS)? {
        let folder = tasks.join(task.to_string());
        let not_understood = |what: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the {what} of {pid} is not understood"))
        };
        let stat =
            Stat::parse(&proc.read(folder.join("stat"), MAX_TEXT)?).ok_or_else(|| not_understood("state"))?;
        if stat.is_kernel_thread() {
            return Ok(Vec::new());
        }
        if !matches!(stat.state, b'Z' | b'X') {
            let text = proc.read(folder.join("cgroup"), MAX_TEXT)?;
            found.push(topmost(&text).ok_or_else(|| not_understood("cgroup"))?);
        }
    }
    Ok(found)
}

/// The first part of the path in `/proc/PID/cgroup` (cgroups(7), cgroup v2: `0::PATH`).
fn topmost(text: &[u8]) -> Option<PathBuf> {
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::/"))?;
    let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    Some(Path::new(TOP).join(OsStr::from_bytes(first)))
}

/// A process that cannot be frozen where it is.
fn stray(cgroups: &Hierarchy, proc: &Proc) -> io::Result<Option<Unrest>> {
    if let Some(within) = cgroups.children(Path::new(OWN))?.into_iter().next() {
        return Ok(Some(Unrest::Within(within)));
    }
    let own = cgroups.processes(Path::new(OWN))?;
    if !own.contains(&std::process::id()) {
        return Err(io::Error::other(format!("the agent is not in the cgroup {OWN:?} that it moved to")));
    }
    for pid in own.into_iter().filter(|pid| *pid != std::process::id()) {
        if let Some(name) = program(proc, pid)? {
            return Ok(Some(Unrest::Stray { pid, name, cgroup: OWN }));
        }
    }
    for pid in cgroups.processes(Path::new(TOP))? {
        if let Some(name) = program(proc, pid)? {
            return Ok(Some(Unrest::Stray { pid, name, cgroup: TOP }));
        }
    }
    Ok(None)
}

/// What a process calls itself; `None` if it has ended or is a thread of the kernel.
fn program(proc: &Proc, pid: u32) -> io::Result<Option<String>> {
    let folder = process(pid);
    let told = || {
        let stat = Stat::parse(&proc.read(folder.join("stat"), MAX_TEXT)?).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the state of {pid} is not understood"))
        })?;
        if stat.is_kernel_thread() {
            return Ok(None);
        }
        Ok(Some(escaped(proc.read(folder.join("comm"), MAX_TEXT)?.trim_ascii_end())))
    };
    match told() {
        Err(error) if ended(&error) => Ok(None),
        other => other,
    }
}

/// Lets the processes of these cgroups go on, as many as can.
fn thaw(cgroups: &Hierarchy, frozen: &BTreeSet<PathBuf>) -> Result<(), AgentError> {
    let mut failed = None;
    for cgroup in frozen {
        match cgroups.thaw(cgroup) {
            Err(error) if !gone(&error) => {
                failed = Some(failure::system(format_args!("thaw the cgroup {cgroup:?}"), error));
            }
            _ => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
