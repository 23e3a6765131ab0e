//! The worker's side of an intake: all that libgit2 does, and everything that looks into a repository.

use std::io::Write;
use std::path::Path;

use harness::worker::{Job, Stop, Task};

use super::wire::{Refusal, Request, Where};
use super::{Revision, remote, repository};

/// Reads a recipe out of a repository.
pub(crate) const JOB: Job = Job { name: "intake", run };

/// The system's words for `ENOSPC`, which libgit2 appends to its own; it keeps no number. A worker's locale is always C.
const NO_SPACE: &str = "No space left on device";

/// Why a worker gives nothing.
#[derive(Debug)]
pub(super) enum Halt {
    Refused(Refusal),
    OutOfMemory,
    Failed(String),
}

impl Halt {
    /// What git says, judged by its kind.
    pub(super) fn git(error: &git2::Error) -> Self {
        if error.class() == git2::ErrorClass::NoMemory {
            return Self::OutOfMemory;
        }
        if error.message().contains(NO_SPACE) {
            return Self::Refused(Refusal::NoSpace);
        }
        Self::Refused(Refusal::Git { said: error.message().to_owned() })
    }

    /// Where git's answer means that something is not there, unless it means that it could not look.
    pub(super) fn missing(error: &git2::Error, refusal: Refusal) -> Self {
        match Self::git(error) {
            Self::Refused(Refusal::Git { .. }) => Self::Refused(refusal),
            other => other,
        }
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<std::io::Error> for Halt {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn run(task: &mut Task) -> Result<(), Stop> {
    let request: Request = task.request()?;
    let scratch = task.scratch().map(Path::to_owned);
    take(&request, scratch.as_deref(), task.answer()).map_err(|halt| match halt {
        Halt::Refused(refusal) => Stop::refused(&refusal),
        Halt::OutOfMemory => Stop::OutOfMemory,
        Halt::Failed(message) => Stop::Failed(message),
    })
}

fn take(request: &Request, scratch: Option<&Path>, out: &mut dyn Write) -> Result<(), Halt> {
    let revision: Revision = request.revision.parse().map_err(|error| Halt::Failed(format!("{error}")))?;
    let (repository, commit) = match &request.place {
        Where::Local(folder) => repository::open(folder, &revision)?,
        Where::Remote(url) => {
            let folder = scratch.ok_or_else(|| Halt::Failed("no folder to fetch into".to_owned()))?;
            let url = url.parse().map_err(|error| Halt::Failed(format!("{error}")))?;
            remote::fetch(folder, &url, &revision, &request.fetch_limits)?
        }
    };
    repository::read(&repository, commit, request.path.as_ref(), &request.limits, out)
}
