//! What the crates below report, as problems of the command line: each keeps its code, and what has none is either
//! something that the caller named wrongly (exit 2) or the host's or the site's own fault (exit 3).

use std::io::ErrorKind;

use authorizer::base::BaseError;
use authorizer::pipeline::CLOCK_HINT;
use authorizer::publication::PublicationError;
use authorizer::site::SiteError;
use authorizer::stopped::{Stopped, is_full};
use crl::CrlError;
use deployer::instance::InstanceError;
use recipe_spec::Code;
use signer::KeyError;

use crate::outcome::{Problem, printable_lines};

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Self {
        let mut problem =
            Self::coded(stopped.code, &stopped.message).details(printable_lines(&stopped.details));
        for hint in &stopped.hints {
            problem = problem.hint(hint);
        }
        match stopped.stage {
            Some(stage) => problem.with("stage", stage),
            None => problem,
        }
    }
}

/// The site as it is: whatever is wrong with it, a person has to set it right.
impl From<SiteError> for Problem {
    fn from(error: SiteError) -> Self {
        match (error.code(), &error) {
            (Some(code), _) => Self::coded(code, &error),
            (None, SiteError::Key { source, .. }) if is_of_caller(source) => Self::usage(&error),
            (None, SiteError::NotEmpty { .. } | SiteError::NoAnchor { .. }) => Self::usage(&error),
            (None, _) => Self::coded(Code::HostFailed, &error),
        }
    }
}

/// A wrong passphrase is the caller's.
fn is_of_caller(error: &KeyError) -> bool {
    matches!(error, KeyError::WrongPassphrase | KeyError::PassphraseNeeded | KeyError::BadPassphrase)
}

/// For a change of the site with files that the caller named: all that is not a failure of the host is the caller's.
pub(crate) fn named_wrongly(error: SiteError) -> Problem {
    match &error {
        SiteError::Io { source, .. } if source.kind() == ErrorKind::NotFound => Problem::usage(&error),
        SiteError::Io { .. } => error.into(),
        _ if error.code().is_some() => error.into(),
        _ => Problem::usage(&error),
    }
}

impl From<PublicationError> for Problem {
    fn from(error: PublicationError) -> Self {
        Self::coded(error.code().unwrap_or(Code::HostFailed), &error)
    }
}

impl From<CrlError> for Problem {
    fn from(error: CrlError) -> Self {
        let problem = Self::coded(error.code(), &error);
        match error.code() {
            Code::CrlExpired => problem.hint("publish a fresh list with `countersign crl publish`"),
            Code::ClockBackward => problem.hint(CLOCK_HINT),
            _ => problem,
        }
    }
}

impl From<BaseError> for Problem {
    fn from(error: BaseError) -> Self {
        match &error {
            BaseError::UnknownBase { .. } => Self::usage(&error),
            BaseError::Cache { .. } => Self::usage(&error),
            BaseError::Exists { .. } => Self::usage(format!("{error}; replace it with --replace")),
            _ => Stopped::from(error).into(),
        }
    }
}

impl From<InstanceError> for Problem {
    fn from(error: InstanceError) -> Self {
        match &error {
            InstanceError::Unknown { .. } => Self::usage(&error),
            InstanceError::StillRunning { .. } => Self::coded(Code::MachineFailed, &error),
            InstanceError::BadRecord { .. } => Self::coded(Code::HostFailed, &error),
            InstanceError::Io { source, .. } if is_full(source) => Self::coded(Code::HostFull, &error),
            InstanceError::Io { .. } => Self::coded(Code::HostFailed, &error),
        }
    }
}
