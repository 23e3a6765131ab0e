//! The sealed disk, looked at from outside before anything of it runs: by the host, which reads it without mounting it, and by a
//! nano guest, which mounts it read-only under the base's kernel and runs nothing of it.
//!
//! The two see the same files in two ways. The host compares every byte with the base; the guest sees what the kernel makes of
//! it. Reading is done by a child process that can do nothing else, because every byte of the layers is hostile.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;
use std::time::Duration;

use disk::{Comparison, Left};
use guest::facts::Facts;
use harness::worker::{Ended, Job, Network, Order, Reading, Scratch, Stop, Task, WorkLimits};
use harness::{DiskSpec, HarnessError};
use recipe_spec::Code;

use super::build::Sealed;
use super::site_recipes;
use crate::events::Stage;
use crate::journal::Journal;
use crate::machines::{Machines, workers};
use crate::site::Site;
use crate::stopped::Stopped;
use crate::suite::{self, Sight};

/// A sealed disk of which every file is known.
#[derive(Debug)]
pub struct Inspected {
    pub(super) sealed: Sealed,
    /// What the nano guest saw.
    pub(super) files: Facts,
    /// What differs from the base.
    pub(super) comparison: Comparison,
    /// Every path of the base.
    pub(super) base_paths: Vec<String>,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Inspected {
    fn detail(&self) -> String {
        format!("{} changes to the base, {} files", self.comparison.changes.len(), self.comparison.files)
    }

    /// As the site's tests take it.
    pub(super) fn sight(&self) -> Sight<'_> {
        Sight { facts: &self.files, contents: &self.contents, changes: &self.comparison }
    }
}

/// Compares the sealed disk with its base, and has a clean guest look at it, side by side.
pub(super) fn inspect(
    sealed: Sealed,
    site: &Site,
    machines: &Machines<'_>,
    journal: &mut Journal<'_>,
) -> Result<Inspected, Stopped> {
    journal.stage(Stage::Inspect, Inspected::detail, |_| {
        let (config, _) = site_recipes::suite(site)?;
        let site_recipes: Vec<_> = sealed.site_recipes.iter().collect();
        let wanted = suite::contents_wanted(sealed.scanned.recipe(), &site_recipes, &config);
        let (compared, files) = thread::scope(|scope| {
            let compared = scope.spawn(|| compare(&sealed.disk(&[]), Left::PoweredOff, site));
            let files = look(&sealed, &wanted, site, machines);
            let compared = compared.join();
            (compared.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), files)
        });
        let (comparison, base_paths) = compared?;
        let (files, contents) = files?;
        Ok(Inspected { comparison, base_paths, files, contents, sealed })
    })
}

/// What a clean guest sees of the disk's files, and the content of those that are judged by it.
fn look(
    sealed: &Sealed,
    wanted: &BTreeMap<String, u64>,
    site: &Site,
    machines: &Machines<'_>,
) -> Result<(Facts, BTreeMap<String, Vec<u8>>), Stopped> {
    let mut machine = machines.inspecting(&sealed.base, sealed.disk(&[]))?;
    machine.wait_hello(Duration::from_secs(site.config().executor.boot_seconds.get().into()))?;
    let facts = machine.disk_facts().map_err(|error| match error {
        // The guest is ours: what it cannot mount or read is the recipe's doing.
        HarnessError::Agent { error, .. } => {
            Stopped::new(Code::TestFailed, format!("the sealed disk cannot be looked at: {}", error.message))
        }
        other => Stopped::from(other),
    })?;
    let contents = contents(wanted, |path, limit| machine.read_disk_file(path, limit))?;
    Ok((facts, contents))
}

/// What lies at these paths, as far as it can be read: their tests say what it means that something cannot.
pub(super) fn contents(
    wanted: &BTreeMap<String, u64>,
    mut read: impl FnMut(&str, u64) -> Result<Vec<u8>, HarnessError>,
) -> Result<BTreeMap<String, Vec<u8>>, Stopped> {
    let mut contents = BTreeMap::new();
    for (path, limit) in wanted {
        match read(path, *limit) {
            Ok(bytes) => drop(contents.insert(path.clone(), bytes)),
            Err(HarnessError::Agent { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(contents)
}

/// Reads both disks and tells what differs; it is told whether the machine was frozen. The answer is a line with all paths of the
/// base, then the list of changes.
pub const DISK_JOB: Job = Job { name: "disk", run: compare_as_worker };

const LIMITS: WorkLimits = WorkLimits {
    memory_bytes: 1 << 30,
    cpu_seconds: 300,
    wall_clock: Duration::from_secs(600),
    answer_bytes: 128 << 20,
    ..WorkLimits::STANDARD
};
/// Longest list of changes, in bytes: it is published with the authorization.
const MAX_REPORT: usize = 24 << 20;

fn compare_as_worker(task: &mut Task) -> Result<(), Stop> {
    let left = if task.request()? { Left::Frozen } else { Left::PoweredOff };
    let files = task.files();
    let [base, layers @ ..] = &files[..] else { return Err(Stop::Failed("no disk to read".to_owned())) };
    let limits = disk::Limits { report_bytes: MAX_REPORT, ..disk::Limits::default() };
    let (comparison, base_paths) =
        disk::compare_and_list(base, layers, left, &limits).map_err(|error| match error.is_refusal() {
            true => Stop::refused(&error.to_string()),
            false => Stop::Failed(error.to_string()),
        })?;
    let mut answer = serde_json::to_vec(&base_paths).map_err(|error| Stop::Failed(error.to_string()))?;
    answer.push(b'\n');
    answer.extend(comparison.to_json_lines());
    Ok(task.answer().write_all(&answer)?)
}

/// What differs from the base on a disk that was left so, and all paths of the base.
pub(super) fn compare(
    disk: &DiskSpec,
    left: Left,
    site: &Site,
) -> Result<(Comparison, Vec<String>), Stopped> {
    let order = Order {
        files: disk.open()?,
        reading: Reading::Nothing,
        network: Network::None,
        environment: Vec::new(),
        scratch: Scratch::None,
        limits: LIMITS,
    };
    let which = match left {
        Left::PoweredOff => "the sealed disk",
        Left::Frozen => "the disk of the booted machine",
    };
    let refused = |why: &dyn std::fmt::Display| {
        Stopped::new(Code::TestFailed, format!("{which} cannot be read from outside: {why}"))
    };
    match workers(site).run(&DISK_JOB, &(left == Left::Frozen), order)? {
        Ended::Answered(answer) => understood(&answer).ok_or_else(|| refused(&"its reader makes no sense")),
        Ended::Refused(reason) => {
            let reason: Result<String, _> = serde_json::from_slice(&reason);
            Err(refused(&reason.as_deref().unwrap_or("its reader makes no sense").escape_debug()))
        }
        Ended::Exceeded(limit) => Err(refused(&format_args!("it takes more {limit} than it may"))),
        Ended::Died(death) => {
            Err(Stopped::new(Code::MachineFailed, format!("the reader of {which} failed: {death}")))
        }
    }
}

fn understood(answer: &[u8]) -> Option<(Comparison, Vec<String>)> {
    let (base_paths, changes) = answer.split_at(answer.iter().position(|byte| *byte == b'\n')?);
    Some((Comparison::from_json_lines(&changes[1..]).ok()?, serde_json::from_slice(base_paths).ok()?))
}
