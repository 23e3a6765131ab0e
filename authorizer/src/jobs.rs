//! The jobs that this program does as a confined worker: what reads hostile bytes with code that is not ours to vouch for.

use harness::worker::Job;

/// Every job, by its name.
const JOBS: &[Job] = &[crate::intake::JOB, crate::pipeline::DISK_JOB];

/// Does the job of this name; the whole of `countersign worker NAME`. Gives the exit status.
#[must_use]
pub fn serve(name: &str) -> u8 {
    harness::worker::serve(JOBS, name)
}
