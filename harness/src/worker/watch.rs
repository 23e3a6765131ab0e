//! From a worker's start to its end: one loop over its answer, its standard error, its exit and its deadline.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::handover::Way;
use super::scratch::Folder;
use super::spawn::Start;
use super::task::{self, Said};
use super::{Death, Ended, Limit, WorkLimits};
use crate::error::{HarnessError, escape};

/// Bytes kept of the end of standard error.
const STDERR_TAIL: usize = 4096;
/// How often the scratch folder is looked at, and whether the worker is still wanted.
const LOOK: Duration = Duration::from_millis(200);
/// What Rust's runtime says before it aborts for want of memory.
const NO_MEMORY: &str = "memory allocation of ";

/// Starts the child and stays with it: the calling thread is the one whose end would kill it.
pub(super) fn watch(
    start: Start<'_>,
    way: Way,
    scratch: Option<&Folder>,
    until: &AtomicBool,
) -> Result<Ended, HarnessError> {
    let Way { stdin, answer } = way;
    let deadline = Instant::now() + start.limits.wall_clock;
    let mut running = Running { child: start.spawn(stdin)? };
    let mut streams =
        Streams::new(&mut running.child, answer, task::most(start.limits.answer_bytes)).map_err(failed)?;
    let exceeded = streams.follow(deadline, start.limits, scratch, until).map_err(failed)?;
    let status = running.end().map_err(failed)?;
    streams.read_all().map_err(failed)?;
    Ok(streams.judge(exceeded, status, start.limits))
}

fn failed(source: io::Error) -> HarnessError {
    HarnessError::process("watch a worker", source)
}

/// Never left running.
struct Running {
    child: Child,
}

impl Running {
    /// Kills it, if it still runs, and says how it ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What comes from the child.
struct Streams {
    process: OwnedFd,
    answer: Option<OwnedFd>,
    most: u64,
    said: Vec<u8>,
    stderr: Option<ChildStderr>,
    tail: Vec<u8>,
}

impl Streams {
    fn new(child: &mut Child, answer: OwnedFd, most: u64) -> io::Result<Self> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let stderr = child.stderr.take();
        if let Some(stderr) = &stderr {
            rustix::fs::fcntl_setfl(stderr, OFlags::NONBLOCK)?;
        }
        Ok(Self { process, answer: Some(answer), most, said: Vec::new(), stderr, tail: Vec::new() })
    }

    /// Reads until the child ends by itself or is wanted no more, or gives the limit for which it has to end.
    fn follow(
        &mut self,
        deadline: Instant,
        limits: &WorkLimits,
        scratch: Option<&Folder>,
        until: &AtomicBool,
    ) -> io::Result<Option<Limit>> {
        loop {
            if until.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(Limit::WallClock));
            }
            if scratch.is_some_and(|folder| folder.exceeds(limits.scratch_bytes)) {
                return Ok(Some(Limit::Scratch));
            }
            if self.wait(left.min(LOOK))? {
                return Ok(None);
            }
            self.read_all()?;
            if self.said.len() as u64 > self.most {
                return Ok(Some(Limit::Answer));
            }
        }
    }

    /// Waits for something to happen; true once the child has ended.
    fn wait(&self, at_most: Duration) -> io::Result<bool> {
        let mut watched = vec![PollFd::new(&self.process, PollFlags::IN)];
        watched.extend(self.answer.iter().map(|answer| PollFd::new(answer, PollFlags::IN)));
        watched.extend(self.stderr.iter().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        let timeout = Timespec::try_from(at_most).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) => Ok(!watched[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is there, of the answer at most one byte too many.
    fn read_all(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 << 10];
        while let Some(answer) = &self.answer {
            let room = self.most.saturating_add(1).saturating_sub(self.said.len() as u64);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(buffer.len());
            if room == 0 {
                break;
            }
            match ready(rustix::io::read(answer.as_fd(), &mut buffer[..room]).map_err(io::Error::from))? {
                Some(0) => self.answer = None,
                Some(read) => self.said.extend_from_slice(&buffer[..read]),
                None => break,
            }
        }
        // A flood is read away in bounded pieces, so that it cannot hold up the deadline.
        if let Some(stderr) = &mut self.stderr {
            match ready(stderr.read(&mut buffer))? {
                Some(0) => self.stderr = None,
                Some(read) => {
                    self.tail.extend_from_slice(&buffer[..read]);
                    let from = self.tail.len().saturating_sub(STDERR_TAIL);
                    self.tail.drain(..from);
                }
                None => {}
            }
        }
        Ok(())
    }

    fn judge(self, exceeded: Option<Limit>, status: ExitStatus, limits: &WorkLimits) -> Ended {
        if let Some(limit) = exceeded {
            return Ended::Exceeded(limit);
        }
        let tail = String::from_utf8_lossy(&self.tail).into_owned();
        let signal = status.signal().and_then(Signal::from_named_raw);
        match signal {
            Some(Signal::XCPU) => return Ended::Exceeded(Limit::Processor),
            Some(Signal::XFSZ) => return Ended::Exceeded(Limit::File),
            Some(Signal::ABORT) if tail.contains(NO_MEMORY) => return Ended::Exceeded(Limit::Memory),
            _ => {}
        }
        let died = Ended::Died(Death { status: status.to_string(), said: escape(tail.trim()) });
        if !status.success() {
            return died;
        }
        match task::read_trailer(self.said) {
            Some(Said::Answered(answer)) if answer.len() as u64 > limits.answer_bytes => {
                Ended::Exceeded(Limit::Answer)
            }
            Some(Said::Answered(answer)) => Ended::Answered(answer),
            Some(Said::Refused(refusal)) => Ended::Refused(refusal),
            Some(Said::OutOfMemory) => Ended::Exceeded(Limit::Memory),
            None => died,
        }
    }
}

/// Nothing where it would block.
fn ready(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
