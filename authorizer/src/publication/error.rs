//! What goes wrong with the repository of authorizations.

use std::path::PathBuf;

use recipe_spec::Code;

use super::shelf::BRANCH;
use crate::stopped::git_is_full;

/// Why something could not be published or found.
#[derive(Debug, thiserror::Error)]
pub enum PublicationError {
    /// No authorization of this recipe or version.
    #[error("{what} is not authorized at this site")]
    NotAuthorized {
        /// `VO/name` or `VO/name@version`.
        what: String,
    },
    /// The repository's content is not what we write.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The repository.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// More than the limits.
    #[error("a publication of more than {limit} {unit}")]
    TooLarge {
        /// How much is allowed …
        limit: usize,
        /// … of what.
        unit: &'static str,
    },
    /// Another process published at the same moment, without the site lock.
    #[error("{}: {BRANCH} moved while it was written", path.display())]
    Moved {
        /// The repository.
        path: PathBuf,
    },
    /// git failed without a word, on a disk that has no room.
    #[error("{}: the disk has no room left", path.display())]
    NoRoom {
        /// The repository.
        path: PathBuf,
    },
    /// git failed.
    #[error("{}: {}", path.display(), source.message())]
    Git {
        /// The repository.
        path: PathBuf,
        /// Why.
        source: git2::Error,
    },
}

impl PublicationError {
    /// The code; none where the site's own folder is at fault.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::NotAuthorized { .. } => Some(Code::NotAuthorized),
            Self::NoRoom { .. } => Some(Code::HostFull),
            Self::Git { source, .. } if git_is_full(source) => Some(Code::HostFull),
            Self::Damaged { .. } | Self::TooLarge { .. } | Self::Moved { .. } | Self::Git { .. } => None,
        }
    }
}
