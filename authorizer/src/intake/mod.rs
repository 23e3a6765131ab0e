//! Intake: from a repository or a folder to bytes in memory. Whatever the repository says, only its objects are
//! looked at: nothing is checked out, so no filter, hook or submodule can run, and nothing is read before its kind and
//! size are known. And it is looked at in a confined worker, so that what it costs to unpack is bounded too.

mod collector;
mod folder;
mod job;
mod local;
mod remote;
mod repository;
mod source;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::HarnessError;
use harness::worker::{Ended, Limit, Network, Order, Reading, Scratch, WorkLimits, Workers};

use recipe_spec::payload::PayloadError;
use recipe_spec::text::{Malformed, quoted};
use recipe_spec::{Code, Limits, Payload, RecipePath};
use serde::{Deserialize, Serialize};

use crate::stopped::is_full;

pub use folder::read_folder;
pub(crate) use job::JOB;
use local::Local;
pub use source::{Place, Revision, Source, SourceError, SourceRef};
use wire::{Asked, Request, Unit, Where};

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

/// What reading a repository may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchLimits {
    /// Bytes of the pack that a remote sends.
    pub bytes: u64,
    /// Objects in that pack.
    pub objects: usize,
    /// Memory to unpack it in, in bytes.
    pub memory_bytes: u64,
    /// Processor time to unpack it, in seconds.
    pub cpu_seconds: u32,
    /// From the first packet to the last file read.
    pub deadline: Duration,
}

impl FetchLimits {
    /// What every command uses unless told otherwise.
    pub const STANDARD: Self = Self {
        bytes: 64 << 20,
        objects: 100_000,
        memory_bytes: 512 << 20,
        cpu_seconds: 60,
        deadline: Duration::from_secs(120),
    };

    /// The largest file of a fetch: the pack, which libgit2 lengthens before it asks us, or its index.
    fn file_bytes(&self) -> u64 {
        self.bytes.saturating_add(8 << 20)
    }

    /// All files of a fetch: a pack and its index.
    fn scratch_bytes(&self) -> u64 {
        self.file_bytes().saturating_mul(2)
    }
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
    /// This host has no room for the repository.
    #[error("{uri}: no room on this host to fetch it")]
    NoSpace {
        /// The repository.
        uri: String,
    },
    /// The worker that reads the repository ended in a way that nobody foresaw.
    #[error("{uri}: {why}")]
    Worker {
        /// The repository.
        uri: String,
        /// What is known.
        why: String,
    },
    /// No worker could be started.
    #[error(transparent)]
    Host(#[from] HarnessError),
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
            Self::NoSpace { .. } => Some(Code::HostFull),
            Self::Worker { .. } => Some(Code::HostFailed),
            Self::Host(error) => Some(error.code()),
            Self::Io { source, .. } if is_full(source) => Some(Code::HostFull),
            Self::Io { .. } => None,
        }
    }
}

/// Takes in the recipe in folder `path` (all of the repository if `None`) of a repository, at the commit that the
/// source's revision names now. What happens to the repository afterwards does not matter: the commit is pinned.
///
/// A repository on this host is read in place, whoever owns it; one reached over a network is fetched into a
/// temporary bare repository, of one commit where the revision is a branch or tag. Both by one of `workers`; where that runs
/// as we do, its temporary repository lies in `folder`.
///
/// # Errors
/// [`IntakeError`], with `BAD_RECIPE` or `REMOTE_UNAVAILABLE`; what says nothing of the repository has a code of the host's.
pub fn fetch(
    source: &Source,
    path: Option<&RecipePath>,
    limits: &Limits,
    fetch_limits: &FetchLimits,
    workers: &Workers,
    folder: &Path,
) -> Result<Intake, IntakeError> {
    let order = Order {
        files: Vec::new(),
        reading: Reading::Nothing,
        network: Network::None,
        environment: Vec::new(),
        scratch: Scratch::None,
        limits: WorkLimits {
            memory_bytes: fetch_limits.memory_bytes,
            cpu_seconds: fetch_limits.cpu_seconds,
            wall_clock: fetch_limits.deadline,
            answer_bytes: wire::most(limits),
            ..WorkLimits::STANDARD
        },
    };
    let (uri, path, place, order) = match &source.place {
        Place::Local(named) => {
            let local = Local::find(named)?;
            let path = local.path(path)?;
            let reading =
                Reading::AsCaller(local.folders.into_iter().chain([SYSTEM_CONFIG.into()]).collect());
            (local.uri, path, Where::Local(local.folder), Order { reading, ..order })
        }
        Place::Remote(url) => {
            let (environment, certificates) = environment();
            let reading = SYSTEM.iter().map(PathBuf::from).chain(certificates).collect();
            let order = Order {
                reading: Reading::Public(reading),
                network: Network::Host,
                environment,
                scratch: Scratch::Below(folder),
                limits: WorkLimits {
                    file_bytes: fetch_limits.file_bytes(),
                    scratch_bytes: fetch_limits.scratch_bytes(),
                    ..order.limits
                },
                ..order
            };
            (source.place.to_string(), path.cloned(), Where::Remote(url.to_string()), order)
        }
    };
    let asked = Asked { uri: &uri, path: path.as_ref(), revision: &source.revision };
    let request = Request {
        place,
        revision: source.revision.to_string(),
        path: path.clone(),
        limits: *limits,
        fetch_limits: *fetch_limits,
    };
    let work_limits = order.limits;
    match workers.run(&JOB, &request, order)? {
        Ended::Answered(answer) => {
            let (files, commit) = asked.answered(&answer, limits)?;
            let path = path.as_ref().map_or_else(|| ".".to_owned(), RecipePath::to_string);
            let source = SourceRef { uri, commit, path };
            Ok(Intake { payload: files.payload, envelope: files.envelope, source })
        }
        Ended::Refused(refusal) => Err(asked.refused(&refusal)),
        Ended::Exceeded(limit) => Err(exceeded(&asked, limit, &work_limits)),
        Ended::Died(death) => {
            let why = format!("the worker that reads it is lost: {death}");
            Err(IntakeError::Worker { uri, why })
        }
    }
}

/// git's settings for this host, which libgit2 reads with every repository.
const SYSTEM_CONFIG: &str = "/etc/gitconfig";
/// What name resolution and TLS read. `/etc/resolv.conf` may be a link to a place of its own.
const SYSTEM: [&str; 8] = [
    "/etc",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/usr",
    "/lib",
    "/lib64",
    "/dev/null",
    "/dev/urandom",
];
/// A site's proxy, as libgit2 and OpenSSL look for it.
const PROXY: [&str; 6] = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
/// Where a site keeps the certificates that it trusts, if not where OpenSSL looks by itself.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What a worker that fetches has of our environment, and the paths in it.
fn environment() -> (Vec<(&'static str, String)>, Vec<PathBuf>) {
    let set = |name: &'static str| Some((name, std::env::var(name).ok()?));
    let certificates: Vec<_> = CERTIFICATES.into_iter().filter_map(set).collect();
    let paths = certificates.iter().map(|(_, path)| PathBuf::from(path)).collect();
    (PROXY.into_iter().filter_map(set).chain(certificates).collect(), paths)
}

/// A repository that costs more than it may is the repository's fault, but for its time: a slow network is nobody's.
fn exceeded(asked: &Asked<'_>, limit: Limit, limits: &WorkLimits) -> IntakeError {
    match limit {
        Limit::Memory => asked.too_large(limits.memory_bytes, Unit::Memory),
        Limit::Processor => asked.too_large(limits.cpu_seconds.into(), Unit::Processor),
        Limit::Answer => asked.too_large(limits.answer_bytes, Unit::Answer),
        Limit::File => asked.too_large(limits.file_bytes, Unit::Disk),
        Limit::Scratch => asked.too_large(limits.scratch_bytes, Unit::Disk),
        Limit::WallClock => {
            IntakeError::Deadline { uri: asked.uri.to_owned(), seconds: limits.wall_clock.as_secs() }
        }
    }
}

#[cfg(test)]
mod tests;
