//! The sealed disk, looked at from outside before anything of it runs: by the host, which reads it without mounting it, and by a
//! nano guest, which mounts it read-only under the base's kernel and runs nothing of it.
//!
//! The two see the same files in two ways. The host compares every byte with the base; the guest sees what the kernel makes of
//! it. Reading is done by a child process that can do nothing else, because every byte of the layers is hostile.

use std::thread;
use std::time::Duration;

use disk::Comparison;
use guest::facts::Facts;
use harness::HarnessError;
use recipe_spec::Code;

use super::build::Sealed;
use crate::events::Stage;
use crate::journal::Journal;
use crate::machines::Machines;
use crate::site::Site;
use crate::stopped::Stopped;
use crate::suite::{DiskSeen, LOADER_CACHE};

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
    loader_cache: Option<Vec<u8>>,
}

impl Inspected {
    fn detail(&self) -> String {
        format!("{} changes to the base, {} files", self.comparison.changes.len(), self.comparison.files)
    }

    /// As the site's tests take it.
    pub(super) fn disk(&self) -> DiskSeen<'_> {
        let loader_cache = self.loader_cache.as_deref();
        DiskSeen { comparison: &self.comparison, base_paths: &self.base_paths, loader_cache }
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
        let (compared, files) = thread::scope(|scope| {
            let compared = scope.spawn(|| compare(&sealed));
            let files = look(&sealed, site, machines);
            let compared = compared.join();
            (compared.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), files)
        });
        let (comparison, base_paths) = compared?;
        let (files, loader_cache) = files?;
        Ok(Inspected { comparison, base_paths, files, loader_cache, sealed })
    })
}

/// What a clean guest sees of the disk's files, and the content of the one that is judged by it.
fn look(sealed: &Sealed, site: &Site, machines: &Machines<'_>) -> Result<(Facts, Option<Vec<u8>>), Stopped> {
    let mut machine = machines.inspecting(&sealed.base, sealed.disk(&[]))?;
    machine.wait_hello(Duration::from_secs(site.config().executor.boot_seconds.get().into()))?;
    let facts = machine.disk_facts().map_err(|error| match error {
        // The guest is ours: what it cannot mount or read is the recipe's doing.
        HarnessError::Agent { error, .. } => {
            Stopped::new(Code::TestFailed, format!("the sealed disk cannot be looked at: {}", error.message))
        }
        other => Stopped::from(other),
    })?;
    let (path, limit) = LOADER_CACHE;
    match machine.read_disk_file(path, limit) {
        Ok(bytes) => Ok((facts, Some(bytes))),
        // Its test says what that means.
        Err(HarnessError::Agent { .. }) => Ok((facts, None)),
        Err(other) => Err(other.into()),
    }
}

fn compare(sealed: &Sealed) -> Result<(Comparison, Vec<String>), Stopped> {
    let mut files = sealed.disk(&[]).open()?;
    let base = files.remove(0);
    disk::compare_and_list(&base, &files, &disk::Limits::default()).map_err(|error| {
        Stopped::new(Code::TestFailed, format!("the sealed disk cannot be read from outside: {error}"))
    })
}
