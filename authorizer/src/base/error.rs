//! What can go wrong with a base, and its code.

use std::io;
use std::path::PathBuf;

use harness::HarnessError;
use recipe_spec::Code;

/// Why a base was not built, or is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// No recipe for building it.
    #[error("no base `{name}` can be built; this version builds debian-12")]
    UnknownBase {
        /// What was asked for.
        name: String,
    },
    /// It is there.
    #[error("the base {} is there already; authorizations name it", folder.display())]
    Exists {
        /// Its folder.
        folder: PathBuf,
    },
    /// Another build runs.
    #[error("another build works in {}", folder.display())]
    Busy {
        /// The folder of bases.
        folder: PathBuf,
    },
    /// The host lacks something; all of it is listed.
    #[error("a base cannot be built here: {}", missing.join("; "))]
    Missing {
        /// One thing each, with the package or the setting that brings it.
        missing: Vec<String>,
        /// `NO_QEMU` if that is among it, else `HOST_FAILED`.
        code: Code,
    },
    /// The host's apt sources do not have the suite.
    #[error("no signed apt source of this host offers {suite}")]
    NoSource {
        /// The suite wanted.
        suite: String,
    },
    /// A tool failed.
    #[error("{program} ended with {status}: {}", last_line(tail))]
    Tool {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// The tree that was built is not what an image needs.
    #[error("the tree that was built is not usable: {reason}")]
    BadTree {
        /// What is wrong.
        reason: String,
    },
    /// Something of a killed build cannot be removed safely.
    #[error("{} holds a mount ({}); unmount it first", folder.display(), mount.display())]
    Mounted {
        /// The folder to be removed.
        folder: PathBuf,
        /// The mount found in it.
        mount: PathBuf,
    },
    /// A file is not what the site signed.
    #[error("{file} of the base is not what the site signed: {reason}")]
    Mismatch {
        /// Its name in the base's folder.
        file: String,
        /// How it differs.
        reason: String,
    },
    /// A cache of bases that cannot be used.
    #[error("the cached base in {} cannot be used: {reason}", folder.display())]
    Cache {
        /// Its folder.
        folder: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The statement's signature does not hold.
    #[error("the base's statement is not trusted: {0}")]
    Untrusted(#[from] signer::trust::TrustError),
    /// The statement could not be signed.
    #[error("the base's statement could not be signed: {0}")]
    Sign(String),
    /// The first boot failed.
    #[error("the base did not boot: {0}")]
    FirstBoot(#[from] HarnessError),
    /// As the operating system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn last_line(tail: &[String]) -> &str {
    tail.last().map_or("it said nothing", String::as_str)
}

impl BaseError {
    /// The published code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Mismatch { .. } => Code::BaseMismatch,
            Self::Untrusted(error) => error.code(),
            Self::NoSource { .. } => Code::RemoteUnavailable,
            Self::Tool { tail, .. } if tail.iter().any(|line| is_fetch_failure(line)) => {
                Code::RemoteUnavailable
            }
            Self::Tool { tail, .. } if tail.iter().any(|line| line.contains("No space left")) => {
                Code::HostFull
            }
            Self::Missing { code, .. } => *code,
            Self::FirstBoot(error) => error.code(),
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => Code::HostFull,
            Self::UnknownBase { .. }
            | Self::Exists { .. }
            | Self::Busy { .. }
            | Self::Cache { .. }
            | Self::Tool { .. }
            | Self::BadTree { .. }
            | Self::Mounted { .. }
            | Self::Sign(_)
            | Self::Io(_) => Code::HostFailed,
        }
    }

    /// What to do next, if that is not plain.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some("replace it with --replace, or keep using it".to_owned()),
            Self::NoSource { suite } => {
                Some(format!("add an apt source over http for {suite}, with the keyring that signs it"))
            }
            Self::Mismatch { .. } => Some("build the base again with `countersign base build`".to_owned()),
            _ => None,
        }
    }

    /// The last lines of a tool that failed.
    #[must_use]
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Tool { tail, .. } => tail,
            _ => &[],
        }
    }
}

/// What apt says when a mirror does not answer or answers wrongly.
fn is_fetch_failure(line: &str) -> bool {
    ["Failed to fetch", "Could not resolve", "Could not connect", "is not signed", "Release file"]
        .iter()
        .any(|text| line.contains(text))
}
