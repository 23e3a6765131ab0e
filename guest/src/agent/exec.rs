//! Running a command: streamed output, a time limit that holds, and nothing that can keep the agent waiting.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest::control::{AgentError, Exited};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::child::Identity;
use super::output::{Output, Stream};
use super::{failure, session};

/// Where programs are looked up, and the `PATH` that commands get.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest time limit that is taken as it stands; a longer one is cut to this.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// After the command itself ended, a process it left behind may hold the pipes open: so long is still read.
const LEFT_BEHIND_GRACE: Duration = Duration::from_millis(500);
/// How long a killed command may take to be gone (it may sit in a system call that cannot be interrupted).
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Read at once from a pipe, and so the longest body of an output frame, in bytes.
const CHUNK: usize = 32 * 1024;

/// A point in time by which something must be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// So far from now, at most a day.
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit.min(LONGEST))
    }

    /// The earlier of this and `limit` from now.
    pub(crate) fn sooner(self, limit: Duration) -> Self {
        Self(self.0.min(Self::after(limit).0))
    }
}

/// A command, ready to be run.
pub(crate) struct Launch {
    /// Program (absolute, or looked up in [`PATH`]) and arguments.
    pub(crate) argv: Vec<String>,
    /// Added to the minimal environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Working directory.
    pub(crate) cwd: PathBuf,
    /// Whom it runs as.
    pub(crate) identity: Identity,
}

impl Launch {
    /// As root, in `/`, with the minimal environment.
    pub(crate) fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            cwd: PathBuf::from("/"),
            identity: Identity::root(),
        }
    }

    /// Adds a variable to its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs it to its end or to the deadline, when its whole session is killed.
    ///
    /// # Errors
    /// `BadRequest`, `ToolMissing` or `System` if it could not be started. Ending badly is no error here.
    pub(crate) fn run(&self, deadline: Deadline, output: &mut dyn Output) -> Result<Exited, AgentError> {
        let child = self.start()?;
        Running::new(child)
            .and_then(|running| running.watch(deadline, output))
            .map_err(|error| failure::system(format_args!("watch `{}`", self.argv[0]), error))
    }

    fn start(&self) -> Result<Child, AgentError> {
        let name = self.argv.first().ok_or_else(|| failure::bad_request("the command is empty"))?;
        if self.env.keys().any(|key| key.is_empty() || key.contains(['=', '\0'])) {
            return Err(failure::bad_request("the name of an environment variable is empty or holds `=`"));
        }
        if self.argv.iter().chain(self.env.values()).any(|word| word.contains('\0')) {
            return Err(failure::bad_request("a word of the command holds a zero byte"));
        }
        if !self.cwd.is_dir() {
            return Err(failure::bad_request(format!(
                "the working directory {} does not exist",
                self.cwd.display()
            )));
        }
        let program = look_up(name).ok_or_else(|| failure::tool_missing(name))?;
        Command::new("/proc/self/exe")
            .arg0("countersign-child")
            .arg("child")
            .args(self.identity.arguments())
            .arg(&self.cwd)
            .arg("--")
            .arg(program)
            .args(&self.argv)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.identity.home)
            .env("LANG", "C.UTF-8")
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failure::system(format_args!("start `{name}`"), error))
    }
}

/// The program's path: `name` itself if it holds a slash, else the first match in [`PATH`].
pub(crate) fn look_up(name: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_absolute() && runs(path));
    }
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| !name.is_empty() && runs(path))
}

/// A started command and the ends of its pipes that are still open.
struct Running {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    pipes: Vec<(Stream, Box<dyn Pipe>)>,
}

/// What can be polled and read.
trait Pipe: Read + AsFd {}
impl<T: Read + AsFd> Pipe for T {}

/// What [`Running::watch`] waits for at the moment.
enum Waiting {
    /// The command runs, until the deadline.
    Running,
    /// It was killed and must be gone by then.
    Killed(Instant),
    /// It ended; its pipes are read on until then.
    Ended(Instant),
}

impl Running {
    fn new(mut child: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                session::kill(pid);
                child.wait()?;
                return Err(error.into());
            }
        };
        let mut pipes: Vec<(Stream, Box<dyn Pipe>)> = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            pipes.push((Stream::Stdout, Box::new(pipe)));
        }
        if let Some(pipe) = child.stderr.take() {
            pipes.push((Stream::Stderr, Box::new(pipe)));
        }
        Ok(Self { child, pid, pidfd, pipes })
    }

    fn watch(mut self, deadline: Deadline, output: &mut dyn Output) -> io::Result<Exited> {
        let mut waiting = Waiting::Running;
        let mut timed_out = false;
        loop {
            let now = Instant::now();
            let until = match waiting {
                Waiting::Running => deadline.0,
                Waiting::Killed(until) | Waiting::Ended(until) => until,
            };
            if now >= until {
                match waiting {
                    Waiting::Running => {
                        timed_out = true;
                        session::kill(self.pid);
                        waiting = Waiting::Killed(now + KILL_GRACE);
                        continue;
                    }
                    Waiting::Killed(_) => {
                        return Ok(Exited { status: None, signal: None, timed_out, truncated: false });
                    }
                    Waiting::Ended(_) => break,
                }
            }
            let ended = self.step(until - now, matches!(waiting, Waiting::Ended(_)), output)?;
            match (&waiting, ended) {
                (Waiting::Running | Waiting::Killed(_), true) => {
                    waiting = Waiting::Ended(Instant::now() + LEFT_BEHIND_GRACE);
                }
                (Waiting::Ended(_), _) if self.pipes.is_empty() => break,
                _ => {}
            }
        }
        let status = self.child.wait()?;
        Ok(Exited { status: status.code(), signal: status.signal(), timed_out, truncated: false })
    }

    /// Waits for one event, at most `patience`; passes output on; true if the command itself has ended.
    fn step(&mut self, patience: Duration, ended: bool, output: &mut dyn Output) -> io::Result<bool> {
        let mut watched: Vec<PollFd<'_>> = self
            .pipes
            .iter()
            .map(|(_, pipe)| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN))
            .collect();
        if !ended {
            watched.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        if watched.is_empty() {
            return Ok(ended);
        }
        match poll(&mut watched, Some(&timespec(patience))) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(ended),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = watched.iter().map(|event| !event.revents().is_empty()).collect();
        let ended = ended || ready.last().copied().unwrap_or(false);
        let mut ready = ready.into_iter();
        let mut buffer = [0; CHUNK];
        self.pipes.retain_mut(|(stream, pipe)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match pipe.read(&mut buffer) {
                Ok(0) => false,
                Ok(count) => {
                    output.take(*stream, &buffer[..count]);
                    true
                }
                Err(error) => error.kind() == io::ErrorKind::Interrupted,
            }
        });
        Ok(ended)
    }
}

/// A time limit as `poll` takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
