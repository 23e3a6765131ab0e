//! Bringing the machine to rest: all processes but the agent are frozen, then all file systems flushed, so that what is saved of
//! the machine is one state that many clones can go on from.
//!
//! Processes are frozen by their cgroups, from the topmost ones on (cgroup v2, `cgroup.freeze`): whoever is frozen holds no lock
//! of the kernel, so the agent can go on writing files. What cannot be frozen is a reason to refuse: processes in the topmost
//! cgroup, and in the agent's own.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use guest::control::{self, AgentError};

use super::cgroups::{Hierarchy, TOP, gone};
use super::entropy::Pool;
use super::escape::escaped;
use super::failure;
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

/// Cgroups that were not frozen before.
type Frozen = BTreeSet<PathBuf>;

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

    /// Freezes all processes but the agent and flushes all file systems. Afterwards the agent is in a cgroup of its own.
    ///
    /// # Errors
    /// `System`, or `TimedOut` if a cgroup cannot be frozen; then nothing is frozen that was not before.
    pub(crate) fn rest(&mut self, proc: &Proc) -> Result<(), AgentError> {
        let frozen =
            self.cgroups.as_ref().map_or(Ok(Frozen::new()), |cgroups| freeze_all(cgroups, proc, PATIENCE))?;
        // Only now: what runs writes. And nobody that is frozen keeps a file system from being flushed.
        rustix::fs::sync();
        self.frozen = Some(frozen);
        Ok(())
    }

    /// Makes the machine one of its own, then lets its processes go on.
    ///
    /// # Errors
    /// `BadRequest` if it is not at rest or the identity is not well-formed: then nothing was done. `System`. After any error
    /// the machine stays at rest.
    pub(crate) fn wake(
        &mut self,
        root: &Root,
        proc: &Proc,
        identity: control::Identity,
    ) -> Result<(), AgentError> {
        // Before anything else, so that what is secret in it is wiped in any case.
        let identity = Checked::check(identity);
        let frozen = self.frozen.as_ref().ok_or_else(|| {
            failure::bad_request("the machine does not rest: only one at rest can be woken")
        })?;
        let identity = identity?;
        if self.cgroups.is_none() && identity.names.is_some() {
            return Err(failure::bad_request("a nano guest has no names: wake it without"));
        }
        wake::take_on(identity, root, proc, &self.pool)?;
        if let Some(cgroups) = &self.cgroups {
            thaw(cgroups, frozen)?;
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

/// Freezes every topmost cgroup but the agent's own.
fn freeze_all(cgroups: &Hierarchy, proc: &Proc, patience: Patience) -> Result<Frozen, AgentError> {
    let failed = |error: io::Error| failure::system(DOING, error);
    cgroups.enter(Path::new(OWN)).map_err(failed)?;
    await_rest(patience.strays, || stray(cgroups, proc).map_err(failed))?;
    let mut frozen = Frozen::new();
    let at_rest = await_rest(patience.freezing, || freeze_once(cgroups, proc, &mut frozen).map_err(failed));
    match at_rest {
        Ok(()) => Ok(frozen),
        Err(mut error) => {
            if let Err(left) = thaw(cgroups, &frozen) {
                error.message = format!("{}; and then: {}", error.message, left.message);
            }
            Err(error)
        }
    }
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
fn freeze_once(cgroups: &Hierarchy, proc: &Proc, frozen: &mut Frozen) -> io::Result<Option<Unrest>> {
    let mut running = None;
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
            Ok(true) => {}
            Ok(false) => running = running.or(Some(Unrest::Running(cgroup))),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(running.or(stray(cgroups, proc)?))
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
fn thaw(cgroups: &Hierarchy, frozen: &Frozen) -> Result<(), AgentError> {
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
mod tests {
    use std::process::{Child, Command};

    use guest::control::AgentErrorKind;

    use super::super::cgroups::tests::Tree;
    use super::super::identity::tests::identity;
    use super::*;

    const SHORT: Patience =
        Patience { strays: Duration::from_millis(60), freezing: Duration::from_millis(60) };
    const LONG: Patience = Patience { strays: Duration::from_secs(20), freezing: Duration::from_secs(20) };

    fn proc() -> Proc {
        Proc::at("/proc").unwrap()
    }

    /// A hierarchy with the agent's cgroup.
    fn tree() -> Tree {
        let tree = Tree::new(&[]);
        tree.cgroup(OWN, false, &[std::process::id()]);
        tree
    }

    fn paths(frozen: &Frozen) -> Vec<&str> {
        frozen.iter().map(|path| path.to_str().unwrap()).collect()
    }

    /// A process that runs until the test ends.
    struct Program(Child);

    impl Program {
        fn start() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn all_but_the_agent_are_frozen_and_go_on_again() {
        let tree = tree();
        tree.cgroup("/init.scope", true, &[1]);
        tree.cgroup("/system.slice", true, &[]);
        // The guest's own doing, which a clone keeps.
        tree.cgroup("/paused.slice", true, &[]);
        tree.write("/paused.slice", "cgroup.freeze", "1\n");
        let cgroups = tree.hierarchy();
        let frozen = freeze_all(&cgroups, &proc(), SHORT).unwrap();
        assert_eq!(paths(&frozen), ["/init.scope", "/system.slice"]);
        let asked = |path| tree.read(path, "cgroup.freeze");
        assert_eq!((asked("/init.scope").as_str(), asked("/system.slice").as_str()), ("1", "1"));
        assert_eq!(asked(OWN), "0");
        thaw(&cgroups, &frozen).unwrap();
        assert_eq!((asked("/init.scope").as_str(), asked("/system.slice").as_str()), ("0", "0"));
        assert_eq!(asked("/paused.slice"), "1\n");
    }

    #[test]
    fn what_does_not_freeze_in_time_is_named_and_all_go_on() {
        let tree = tree();
        tree.cgroup("/a.slice", true, &[]);
        tree.cgroup("/b\u{1b}.slice", false, &[]);
        let error = freeze_all(&tree.hierarchy(), &proc(), SHORT).unwrap_err();
        assert_eq!(error.kind, AgentErrorKind::TimedOut);
        assert!(error.message.contains(r#"freezing the cgroup "/b\u{1b}.slice""#), "{}", error.message);
        assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0");
        assert_eq!(tree.read("/b\u{1b}.slice", "cgroup.freeze"), "0");
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_refused_and_all_go_on() {
        let tree = tree();
        tree.cgroup("/a.slice", true, &[]);
        tree.cgroup("/b.slice", true, &[]);
        tree.write("/b.slice", "cgroup.events", "populated 1\n");
        let error = freeze_all(&tree.hierarchy(), &proc(), LONG).unwrap_err();
        assert_eq!(error.kind, AgentErrorKind::System);
        assert!(error.message.contains("cgroup.events is not understood"), "{}", error.message);
        assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0");
        assert_eq!(tree.read("/b.slice", "cgroup.freeze"), "0");
    }

    #[test]
    fn a_process_in_the_topmost_cgroup_is_refused_before_anything_is_frozen() {
        let program = Program::start();
        let tree = tree();
        tree.cgroup("/a.slice", true, &[]);
        tree.write("/", "cgroup.procs", &format!("{}\n", program.0.id()));
        let error = freeze_all(&tree.hierarchy(), &proc(), SHORT).unwrap_err();
        assert_eq!(error.kind, AgentErrorKind::System);
        let named = format!(r#"process {} ("sleep") is in the cgroup "/""#, program.0.id());
        assert!(error.message.contains(&named), "{}", error.message);
        assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0\n");
    }

    #[test]
    fn what_is_within_the_agents_cgroup_is_refused() {
        let program = Program::start();
        let tree = tree();
        let look = || stray(&tree.hierarchy(), &proc());
        assert_eq!(look().unwrap(), None);
        tree.write(OWN, "cgroup.procs", &format!("{}\n{}\n", std::process::id(), program.0.id()));
        let expected = Unrest::Stray { pid: program.0.id(), name: "sleep".into(), cgroup: OWN };
        assert_eq!(look().unwrap(), Some(expected));
        tree.write(OWN, "cgroup.procs", &format!("{}\n", std::process::id()));
        tree.cgroup("/countersign/nest", true, &[]);
        assert_eq!(look().unwrap(), Some(Unrest::Within("/countersign/nest".into())));
        tree.write(OWN, "cgroup.procs", "");
        std::fs::remove_dir_all(tree.at("/countersign/nest", "")).unwrap();
        assert!(look().unwrap_err().to_string().contains("the agent is not in the cgroup"));
    }

    #[test]
    fn who_has_ended_is_no_stray() {
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        assert_eq!(program(&proc(), ended.id()).unwrap(), None);
        assert!(program(&proc(), std::process::id()).unwrap().is_some());
    }

    #[test]
    fn what_ends_or_appears_meanwhile_is_waited_for() {
        let program = Program::start();
        let tree = tree();
        tree.cgroup("/a.slice", false, &[]);
        // A cgroup that is gone again when it is looked at has no files.
        std::fs::create_dir(tree.at("/gone.slice", "")).unwrap();
        tree.write("/", "cgroup.procs", &format!("{}\n", program.0.id()));
        let started = Instant::now();
        let wait_for = |path: &str| {
            while tree.read(path, "cgroup.freeze") != "1" {
                assert!(started.elapsed() < LONG.freezing, "{path} is not frozen");
                thread::sleep(Duration::from_millis(1));
            }
        };
        let frozen = thread::scope(|scope| {
            let at_rest = scope.spawn(|| freeze_all(&tree.hierarchy(), &proc(), LONG));
            thread::sleep(Duration::from_millis(50));
            assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0\n", "nothing is frozen before it can be");
            tree.write("/", "cgroup.procs", "");
            wait_for("/a.slice");
            // Who was not frozen yet makes a cgroup, and starts what gets into the topmost one.
            tree.cgroup("/late.slice", false, &[]);
            tree.write("/", "cgroup.procs", &format!("{}\n", program.0.id()));
            tree.becomes("/a.slice", true);
            wait_for("/late.slice");
            tree.becomes("/late.slice", true);
            thread::sleep(Duration::from_millis(50));
            assert!(!at_rest.is_finished());
            tree.write("/", "cgroup.procs", "");
            at_rest.join().unwrap()
        });
        assert_eq!(paths(&frozen.unwrap()), ["/a.slice", "/late.slice"]);
    }

    #[test]
    fn one_quiet_look_is_not_enough() {
        let unrest = || Unrest::Running("/a".into());
        let mut looks = [None, Some(unrest()), None, None].into_iter();
        await_rest(LONG.freezing, || Ok(looks.next().unwrap())).unwrap();
        assert_eq!(looks.next(), None);
        let mut looks = [None, Some(unrest())].into_iter();
        await_rest(Duration::ZERO, || Ok(looks.next().unwrap())).unwrap_err();
    }

    /// At rest, with one cgroup frozen.
    fn at_rest(tree: &Tree) -> Repose {
        tree.cgroup("/a.slice", true, &[]);
        tree.write("/a.slice", "cgroup.freeze", "1");
        let frozen = Some(Frozen::from(["/a.slice".into()]));
        Repose { frozen, ..Repose::among(tree.hierarchy(), Pool::open().unwrap()) }
    }

    #[test]
    fn a_machine_that_could_not_become_another_stays_frozen() {
        let tree = tree();
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let mut repose = at_rest(&tree);
        for (identity, kind) in [
            (identity(), AgentErrorKind::System),
            (control::Identity { seed: "x".into(), ..identity() }, AgentErrorKind::BadRequest),
        ] {
            assert_eq!(repose.wake(&root, &proc(), identity).unwrap_err().kind, kind);
            assert!(repose.is_at_rest());
            assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "1");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
        }
    }

    #[test]
    fn names_are_for_machines_that_have_some() {
        let root = Root::open(tempfile::tempdir().unwrap().path()).unwrap();
        let mut repose = Repose::alone(Pool::open().unwrap());
        let awake = repose.wake(&root, &proc(), identity()).unwrap_err();
        assert!(awake.message.contains("does not rest"), "{}", awake.message);
        repose.rest(&proc()).unwrap();
        assert!(repose.is_at_rest());
        let named = repose.wake(&root, &proc(), identity()).unwrap_err();
        assert_eq!(named.kind, AgentErrorKind::BadRequest);
        assert!(named.message.contains("no names"), "{}", named.message);
        assert!(repose.is_at_rest());
    }
}
