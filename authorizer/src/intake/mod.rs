//! Intake: from a repository or a folder to bytes in memory. Whatever the repository says, only its objects are
//! looked at: nothing is checked out, so no filter, hook or submodule can run, and nothing is read before its kind and
//! size are known.

mod collector;
mod deadline;
mod folder;
mod remote;
mod repository;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use recipe_spec::payload::PayloadError;
use recipe_spec::text::{Malformed, quoted};
use recipe_spec::{Code, Limits, Payload, RecipePath};

use deadline::Deadline;
pub use folder::read_folder;
pub use source::{Place, Revision, Source, SourceError, SourceRef};

/// The files of a recipe, within the limits and not yet judged.
#[derive(Debug)]
pub struct RecipeFiles {
    /// What the digest covers.
    pub payload: Payload,
    /// The envelope beside it, if there is one.
    pub envelope: Option<Vec<u8>>,
}

/// The files of a recipe at one commit of a repository.
#[derive(Debug)]
pub struct Intake {
    /// What the digest covers.
    pub payload: Payload,
    /// The envelope beside it, if there is one.
    pub envelope: Option<Vec<u8>>,
    /// Repository, commit and folder.
    pub source: SourceRef,
}

/// What a fetch from a remote repository may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of the pack.
    pub bytes: u64,
    /// Objects in the pack.
    pub objects: usize,
    /// From the first packet to the last file read; also for a repository on this host.
    pub deadline: Duration,
}

impl FetchLimits {
    /// What every command uses unless told otherwise.
    pub const STANDARD: Self = Self { bytes: 64 << 20, objects: 100_000, deadline: Duration::from_secs(120) };
}

/// Why a recipe could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// An entry that a recipe may not hold.
    #[error("{}: {what} cannot be part of a recipe", quoted(path))]
    Entry {
        /// Within the recipe.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A name that a recipe may not use.
    #[error(transparent)]
    Name(#[from] Malformed),
    /// A file beyond the limit.
    #[error("{}: {size} bytes, where {limit} are left to it", quoted(path))]
    TooLarge {
        /// Within the recipe.
        path: String,
        /// Bytes.
        size: u64,
        /// Bytes.
        limit: u64,
    },
    /// Too many entries.
    #[error("{}: more than {limit} files and folders", quoted(path))]
    TooMany {
        /// The first one too many.
        path: String,
        /// How many are allowed.
        limit: usize,
    },
    /// Folders within folders beyond the limit.
    #[error("{}: more than {limit} folders deep", quoted(path))]
    TooDeep {
        /// Within the recipe.
        path: String,
        /// How many names a path may have.
        limit: usize,
    },
    /// The payload's own rules.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The repository has no such folder.
    #[error("{} is no folder of commit {commit}", quoted(path))]
    NoFolder {
        /// Within the repository.
        path: String,
        /// The commit's id.
        commit: String,
    },
    /// The repository's objects are beyond the limits.
    #[error("{uri}: more than {limit} {unit} at one commit, put recipes into a repository of their own")]
    RepositoryTooLarge {
        /// The repository.
        uri: String,
        /// How much is allowed …
        limit: u64,
        /// … of what.
        unit: &'static str,
    },
    /// A file changed while it was read.
    #[error("{}: changed while it was read", quoted(path))]
    Changed {
        /// Within the recipe.
        path: String,
    },
    /// The repository cannot be reached, or gives no such object.
    #[error("{uri}: {why}")]
    Unavailable {
        /// The repository.
        uri: String,
        /// In git's words, quoted.
        why: String,
    },
    /// The fetch took too long.
    #[error("{uri}: no answer within {seconds} s")]
    Deadline {
        /// The repository.
        uri: String,
        /// The limit.
        seconds: u64,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{uri} has no {}", quoted(revision))]
    NoRevision {
        /// The repository.
        uri: String,
        /// What was asked for.
        revision: String,
    },
    /// A branch and a tag of one name that are not the same commit.
    #[error("{uri}: {} is a branch and another tag, write refs/heads/… or refs/tags/…", quoted(revision))]
    Ambiguous {
        /// The repository.
        uri: String,
        /// What was asked for.
        revision: String,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl IntakeError {
    /// The code; none where a folder on this host cannot be used.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Entry { .. }
            | Self::Name(_)
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::TooDeep { .. }
            | Self::Payload(_)
            | Self::NoFolder { .. }
            | Self::RepositoryTooLarge { .. }
            | Self::Changed { .. } => Some(Code::BadRecipe),
            Self::Unavailable { .. }
            | Self::Deadline { .. }
            | Self::NoRevision { .. }
            | Self::Ambiguous { .. } => Some(Code::RemoteUnavailable),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some(Code::HostFull)
            }
            Self::Io { .. } => None,
        }
    }

    fn unavailable(uri: impl ToString, error: &git2::Error) -> Self {
        Self::Unavailable { uri: uri.to_string(), why: quoted(error.message()) }
    }
}

/// Takes in the recipe in folder `path` (all of the repository if `None`) of a repository, at the commit that the
/// source's revision names now. What happens to the repository afterwards does not matter: the commit is pinned.
///
/// A repository on this host is read in place, whoever owns it; one reached over a network is fetched into a
/// temporary bare repository, of one commit where the revision is a branch or tag.
///
/// # Errors
/// [`IntakeError`], with `BAD_RECIPE` or `REMOTE_UNAVAILABLE`.
pub fn fetch(
    source: &Source,
    path: Option<&RecipePath>,
    limits: &Limits,
    fetch_limits: &FetchLimits,
) -> Result<Intake, IntakeError> {
    let job = {
        let (source, path, limits, fetch_limits) = (source.clone(), path.cloned(), *limits, *fetch_limits);
        move |deadline: &Deadline| match &source.place {
            Place::Local(folder) => {
                let local = repository::Local::find(folder)?;
                let commit = local.resolve(&source.revision)?;
                let path = local.path(path.as_ref())?;
                repository::read(local.repository(), local.uri(), commit, path.as_ref(), &limits)
            }
            Place::Remote(url) => {
                let fetched = remote::fetch(url, &source.revision, &fetch_limits, deadline)?;
                let uri = source.place.to_string();
                let repository = fetched.open().map_err(|error| IntakeError::unavailable(&uri, &error))?;
                repository::read(&repository, &uri, fetched.commit(), path.as_ref(), &limits)
            }
        }
    };
    deadline::within(fetch_limits.deadline, job).unwrap_or_else(|| {
        let (uri, seconds) = (source.place.to_string(), fetch_limits.deadline.as_secs());
        Err(IntakeError::Deadline { uri, seconds })
    })
}

#[cfg(test)]
mod tests;
