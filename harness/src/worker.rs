//! A confined child process for work on hostile bytes, so that a parser that eats memory, hangs or is taken over takes nothing
//! with it.
//!
//! ```text
//! Workers::run(job, request, order) → prlimit → unshare → setpriv → this same program ─ Landlock ─→ the job
//!                                   ← answer, refusal, or which limit was exceeded ←
//! ```
//! A crate declares a [`Job`]; whoever has the program's `main` hands all jobs to [`serve`], behind a hidden subcommand. The child
//! runs as a user of its own, without capabilities, with nothing inherited but the descriptors of its [`Order`], and
//! gives back bounded bytes, which are still hostile: whoever asked checks them again.
//!
//! Descriptors, the request and the way for the answer come to the child over a socket on its standard input, so neither
//! numbers nor names of files are guessed, and nothing that a library prints gets into an answer.

mod handover;
mod restrict;
mod scratch;
mod spawn;
mod task;
mod watch;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::confinement::{Confinement, UserLease};
use crate::error::HarnessError;

pub use task::{Stop, Task, serve, serve_in_test};

/// Work that a child does.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// `[a-z-]`: names it on the command line and in the process list.
    pub name: &'static str,
    /// What the child does. It has one thread unless its [`WorkLimits::threads`] say more.
    pub run: fn(&mut Task) -> Result<(), Stop>,
}

/// How workers are started and confined.
#[derive(Clone, Debug)]
pub struct Workers {
    /// How this program is started as a worker.
    pub entry: Entry,
    /// The users to take from, and whether it may be our own where we are not root.
    pub confinement: Confinement,
    /// Once this is true, a worker that runs is killed and counts as died.
    pub until: Arc<AtomicBool>,
}

/// How this program is started so that it ends up in [`serve`]; the job's name comes last.
#[derive(Clone, Debug)]
pub struct Entry {
    arguments: Vec<String>,
    /// Threads that the program itself has by then.
    threads: u32,
}

impl Entry {
    /// `countersign worker NAME`.
    #[must_use]
    pub fn program() -> Self {
        Self { arguments: vec!["worker".to_owned()], threads: 1 }
    }

    /// A test program of Cargo's that starts itself again: `test` is the full name of an `#[ignore]`d test that calls
    /// [`serve_in_test`].
    #[must_use]
    pub fn libtest(test: &str) -> Self {
        let arguments = ["--ignored", "--nocapture", "--exact", test].map(str::to_owned).to_vec();
        Self { arguments, threads: 2 }
    }
}

/// What a worker gets and may.
#[derive(Debug)]
pub struct Order<'a> {
    /// Open files, which the job finds in this order. The child has exactly the access that they were opened with.
    pub files: Vec<File>,
    /// What it may open by name.
    pub reading: Reading,
    /// Whether it may use the network.
    pub network: Network,
    /// The environment; nothing else is in it but `LC_ALL` and `MALLOC_ARENA_MAX`.
    pub environment: Vec<(&'static str, String)>,
    /// A folder that it may write in.
    pub scratch: Scratch<'a>,
    /// How much of everything.
    pub limits: WorkLimits,
}

/// What a worker may open by name, read-only. Where the kernel has no Landlock, it is what its user may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reading {
    /// Nothing.
    #[default]
    Nothing,
    /// What lies below these and everybody may read.
    Public(Vec<PathBuf>),
    /// What lies below these and we may read: a child of root's keeps `CAP_DAC_READ_SEARCH` for it.
    AsCaller(Vec<PathBuf>),
}

/// Whether a worker may use the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// As root a network namespace of its own with nothing in it; else what Landlock can do.
    #[default]
    None,
    /// The host's.
    Host,
}

/// A folder for a worker's own files. It is gone when [`Workers::run`] returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scratch<'a> {
    /// It writes no file.
    #[default]
    None,
    /// A worker with a user of its own gets a folder beside the users' locks; what a killed process left there goes when its
    /// user is taken next. A worker that runs as we do gets one below this folder, which its owner sweeps.
    Below(&'a Path),
}

/// How much a worker may use; each is a [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLimits {
    /// Memory that it writes, in bytes. Program and files that are mapped to be read come on top.
    pub memory_bytes: u64,
    /// Processor time in seconds.
    pub cpu_seconds: u32,
    /// From its start to its end.
    pub wall_clock: Duration,
    /// Bytes of its answer.
    pub answer_bytes: u64,
    /// Largest file in its scratch folder, in bytes.
    pub file_bytes: u64,
    /// All files of its scratch folder, in bytes. Looked at from outside, a few times a second.
    pub scratch_bytes: u64,
    /// Open descriptors.
    pub open_files: u32,
    /// Threads of the job's own, beyond its first.
    pub threads: u32,
}

impl WorkLimits {
    /// A job in memory: 256 MiB, half a minute, no file.
    pub const STANDARD: Self = Self {
        memory_bytes: 256 << 20,
        cpu_seconds: 30,
        wall_clock: Duration::from_secs(60),
        answer_bytes: 32 << 20,
        file_bytes: 0,
        scratch_bytes: 0,
        open_files: 64,
        threads: 0,
    };
}

/// How a worker ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// The job's answer, whole: hostile bytes.
    Answered(Vec<u8>),
    /// The job's own no, as JSON: hostile bytes.
    Refused(Vec<u8>),
    /// It wanted more than its order says.
    Exceeded(Limit),
    /// Nothing that was foreseen.
    Died(Death),
}

/// A limit of an [`Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`WorkLimits::memory_bytes`].
    Memory,
    /// [`WorkLimits::cpu_seconds`].
    Processor,
    /// [`WorkLimits::wall_clock`].
    WallClock,
    /// [`WorkLimits::answer_bytes`].
    Answer,
    /// [`WorkLimits::file_bytes`].
    File,
    /// [`WorkLimits::scratch_bytes`].
    Scratch,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Memory => "memory",
            Self::Processor => "processor time",
            Self::WallClock => "time",
            Self::Answer => "output",
            Self::File => "file size",
            Self::Scratch => "disk",
        })
    }
}

/// An end that nobody foresaw.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it ended with {status}{}", after(.said))]
pub struct Death {
    /// Exit status or signal.
    pub status: String,
    /// The end of its standard error, escaped; may be empty.
    pub said: String,
}

fn after(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl Workers {
    /// Has a job done, and waits for its end. No process and no file of it is left then.
    ///
    /// # Errors
    /// [`HarnessError`] where the host cannot start a worker; what happens in the worker is an [`Ended`].
    pub fn run(&self, job: &Job, request: &impl Serialize, order: Order<'_>) -> Result<Ended, HarnessError> {
        let lease = UserLease::take(&self.confinement)?;
        let scratch = scratch::Folder::make(&lease, &self.confinement, order.scratch)?;
        let orders = handover::Orders {
            reading: order.reading,
            network: order.network,
            scratch: scratch.as_ref().map(|folder| folder.path().to_owned()),
            request: serde_json::to_value(request)
                .map_err(|error| HarnessError::process("write a request to a worker", error))?,
        };
        let way = handover::Way::prepare(&orders, &order.files)?;
        let start = spawn::Start {
            entry: &self.entry,
            job: job.name,
            lease: &lease,
            orders: &orders,
            environment: &order.environment,
            limits: &order.limits,
        };
        let ended = watch::watch(start, way, scratch.as_ref(), &self.until);
        // Whatever the job started goes with it, also where it was taken over.
        lease.end_all()?;
        ended
    }
}
