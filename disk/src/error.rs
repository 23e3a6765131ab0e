//! Why a disk could not be compared.

use std::fmt;
use std::io;

/// Which of the two disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The base image alone.
    Base,
    /// The base and all layers on it.
    Sealed,
}

impl fmt::Display for Which {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Which::Base => "the base",
            Which::Sealed => "the sealed disk",
        })
    }
}

/// Anything but a full comparison; [`DiskError::is_refusal`] tells what the disk is to blame for from what it is not.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file of the host could not be read.
    #[error("cannot read {image}: {source}")]
    Read {
        /// `the base` or `layer N`, bottom up from 1.
        image: String,
        /// What the system says.
        source: io::Error,
    },
    /// An image is no qcow2 file that we read.
    #[error("{image} is refused: {reason}")]
    Image {
        /// `the base` or `layer N`, bottom up from 1.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What lies on the disk is not a clean ext4 file system of the kind that we read.
    #[error("{disk} is refused: {reason}")]
    Unsupported {
        /// Which disk.
        disk: Which,
        /// What we do not read.
        reason: String,
    },
    /// The file system contradicts itself.
    #[error("the file system of {disk} is damaged: {reason}")]
    Damaged {
        /// Which disk.
        disk: Which,
        /// Where and how.
        reason: String,
    },
    /// The sealed file system is not the base's file system any more.
    #[error("the sealed disk's file system is not the base's: {reason}")]
    Replaced {
        /// What differs.
        reason: String,
    },
    /// A disk asks for more than it may.
    #[error("more than {allowed} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        allowed: u64,
    },
}

impl DiskError {
    /// Whether the disk is to be refused for it; else we could not decide, since a file of the host could not be read.
    ///
    /// A fault of the base is a refusal too: the caller has checked the base's digest, so it is as the site made it.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, DiskError::Read { .. })
    }
}

/// Why a structure was not accepted, before it is known whose it is.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Nothing that we read.
    Unsupported(String),
    /// It contradicts itself.
    Damaged(String),
    /// An error that already says whose it is.
    Known(DiskError),
}

impl Fault {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Fault::Damaged(reason.into())
    }

    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Fault::Unsupported(reason.into())
    }

    pub(crate) fn replaced(reason: impl Into<String>) -> Self {
        Fault::Known(DiskError::Replaced { reason: reason.into() })
    }

    pub(crate) fn limit(what: &'static str, allowed: u64) -> Self {
        Fault::Known(DiskError::Limit { what, allowed })
    }

    /// The error for callers.
    pub(crate) fn of(self, disk: Which) -> DiskError {
        match self {
            Fault::Unsupported(reason) => DiskError::Unsupported { disk, reason },
            Fault::Damaged(reason) => DiskError::Damaged { disk, reason },
            Fault::Known(error) => error,
        }
    }
}

impl From<DiskError> for Fault {
    fn from(error: DiskError) -> Self {
        Fault::Known(error)
    }
}
