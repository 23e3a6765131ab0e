//! One QEMU process, and the thread that owns it.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that started the process ends (prctl(2)). So each QEMU has a thread that
//! does nothing but start it, watch its time limit and wait for its end.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::console::Console;

/// Why a machine was ended by the host, or what QEMU itself reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ran longer than it may.
    TimeLimit(Duration),
    /// The host's disk is full.
    HostFull,
    /// The guest's kernel panicked.
    Panic,
    /// The agent's hold on the control port ended: whatever speaks there now is another.
    AgentGone,
}

/// Ends a process, never another one that has its number by then.
#[derive(Clone, Debug)]
pub struct Killer {
    pidfd: Arc<OwnedFd>,
    fault: Arc<OnceLock<Fault>>,
}

impl Killer {
    /// Kills it, if it has not ended yet. Does not wait.
    pub fn kill(&self) {
        // It fails only if the process is gone, which is what is wanted.
        let _ = pidfd_send_signal(&*self.pidfd, Signal::KILL);
    }

    /// Kills, and says why; the first reason stays.
    pub(crate) fn kill_for(&self, fault: Fault) {
        let _ = self.fault.set(fault);
        self.kill();
    }
}

/// A running or ended QEMU.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    killer: Killer,
    ended: Arc<Ended>,
    errors: Console,
}

#[derive(Debug, Default)]
struct Ended {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

impl Process {
    /// Starts the command with these descriptors, from a thread of its own.
    pub(crate) fn spawn(
        command: Command,
        mappings: Vec<FdMapping>,
        time_limit: Option<Duration>,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let ended = Arc::new(Ended::default());
        let reported = Arc::clone(&ended);
        thread::Builder::new().name("qemu".into()).spawn(move || {
            let started = start(command, mappings);
            match started {
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
                Ok((child, killer, errors)) => {
                    let _ = sender.send(Ok((child.id(), killer.clone(), errors)));
                    let status = watch(child, &killer, time_limit);
                    *reported.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                    reported.changed.notify_all();
                }
            }
        })?;
        let (pid, killer, errors) = receive(&receiver)?;
        Ok(Self { pid, killer, ended, errors })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn killer(&self) -> Killer {
        self.killer.clone()
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.killer.fault.get()
    }

    /// The last lines of its standard error; all of it, once the process has ended.
    pub(crate) fn errors(&self) -> String {
        if self.wait(Duration::ZERO).is_some() {
            self.errors.wait_end(LAST_WORDS);
        }
        self.errors.last_lines(5)
    }

    /// Waits for its end, at most so long.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let status = self.ended.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, _) = self
            .ended
            .changed
            .wait_timeout_while(status, timeout, |status| status.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *status
    }
}

/// What a process wrote before its end is read within this time.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// A killed process is gone within this time, unless the host is in trouble itself.
const KILL_TIME: Duration = Duration::from_secs(30);

impl Drop for Process {
    fn drop(&mut self) {
        self.killer.kill();
        self.wait(KILL_TIME);
    }
}

fn receive<T>(receiver: &Receiver<io::Result<T>>) -> io::Result<T> {
    receiver.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that starts QEMU ended early")))
}

fn start(mut command: Command, mappings: Vec<FdMapping>) -> io::Result<(Child, Killer, Console)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    let mut child = command.spawn()?;
    let ready = |child: &mut Child| -> io::Result<(Killer, Console)> {
        let pidfd = Arc::new(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?);
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
        Ok((Killer { pidfd, fault: Arc::default() }, Console::follow(stderr, None)?))
    };
    match ready(&mut child) {
        Ok((killer, errors)) => Ok((child, killer, errors)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// Waits for the end of the child, and kills it at its time limit.
fn watch(mut child: Child, killer: &Killer, time_limit: Option<Duration>) -> ExitStatus {
    if let Some(limit) = time_limit {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                killer.kill_for(Fault::TimeLimit(limit));
                break;
            }
            let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            let mut watched = [PollFd::new(&*killer.pidfd, PollFlags::IN)];
            if matches!(poll(&mut watched, Some(&timeout)), Ok(ready) if ready > 0) {
                break;
            }
        }
    }
    loop {
        match child.wait() {
            Ok(status) => return status,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else has waited for our child: it is gone, and how is not known.
            Err(_) => return std::os::unix::process::ExitStatusExt::from_raw(0xff00),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60");
        command
    }

    #[test]
    fn a_process_is_killed_at_its_time_limit() {
        let process = Process::spawn(sleep(), Vec::new(), Some(Duration::from_millis(50))).unwrap();
        assert!(process.wait(Duration::from_secs(10)).is_some_and(|status| !status.success()));
        assert_eq!(process.fault(), Some(&Fault::TimeLimit(Duration::from_millis(50))));
    }

    #[test]
    fn dropping_ends_it() {
        let process = Process::spawn(sleep(), Vec::new(), None).unwrap();
        let ended = Arc::clone(&process.ended);
        drop(process);
        assert!(ended.status.lock().unwrap().is_some());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(Process::spawn(Command::new("/nonexistent/qemu"), Vec::new(), None).is_err());
    }
}
