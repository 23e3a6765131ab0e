//! How a pipeline ends when it does not end well.

use std::io;
use std::path::Path;

use harness::HarnessError;
use recipe_spec::Code;

use crate::base::BaseError;
use crate::events::Stage;

/// A refusal or a failure, by its code: [`Code::exit_status`] tells which.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stopped {
    /// The published code.
    pub code: Code,
    /// One line, lower case, no full stop.
    pub message: String,
    /// What to do next.
    pub hints: Vec<String>,
    /// More lines: source lines, failed tests, the end of a console.
    pub details: String,
    /// The stage it happened in, once known.
    pub stage: Option<Stage>,
}

impl Stopped {
    /// A stop with its code and one line.
    #[must_use]
    pub fn new(code: Code, message: impl ToString) -> Self {
        Self { code, message: message.to_string(), hints: Vec::new(), details: String::new(), stage: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl ToString) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Adds lines for a person.
    #[must_use]
    pub fn details(mut self, details: impl ToString) -> Self {
        self.details = details.to_string();
        self
    }

    /// A stop for what says nothing of the recipe and should not happen.
    #[must_use]
    pub fn internal(error: impl ToString) -> Self {
        Self::new(Code::HostFailed, error)
    }

    /// A stop because the host's file system failed.
    #[must_use]
    pub fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let code = if is_full(error) { Code::HostFull } else { Code::HostFailed };
        Self::new(code, format!("cannot {what} {}: {error}", path.display()))
    }
}

/// Whether the host has no space or memory left, or none for this user.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory)
}

/// As [`is_full`], of what libgit2 says: it keeps the operating system's words and not its number.
pub(crate) fn git_is_full(error: &git2::Error) -> bool {
    let words = ["No space left on device", "Disk quota exceeded"];
    error.class() == git2::ErrorClass::Os && words.iter().any(|words| error.message().contains(words))
}

/// Errors of the parts, each with its own code; those without one say nothing of the recipe.
macro_rules! stopped_from {
    (coded: $($coded:ty),* ; maybe: $($maybe:ty),* $(,)?) => {
        $(impl From<$coded> for Stopped {
            fn from(error: $coded) -> Self {
                Self::new(error.code(), &error)
            }
        })*
        $(impl From<$maybe> for Stopped {
            fn from(error: $maybe) -> Self {
                Self::new(error.code().unwrap_or(Code::HostFailed), &error)
            }
        })*
    };
}

stopped_from! {
    coded: crate::authorization::AuthorizationError, signer::TrustError;
    maybe: crate::authorization::CountersignError, crate::intake::IntakeError, crate::ledger::LedgerError,
        crate::publication::PublicationError, crate::site::SiteError,
}

/// For a command without root; what it gives up stands in the threat model.
const SAME_USER_HINT: &str = "run it as root, or set allow_same_user = true under [executor] in site.toml: an escaped QEMU could then do what you can";

impl From<HarnessError> for Stopped {
    fn from(error: HarnessError) -> Self {
        // The first line is the message; what follows is the end of a console.
        let text = error.to_string();
        let (message, details) = text.split_once('\n').unwrap_or((&text, ""));
        let stopped = Self::new(error.code(), message).details(details);
        match error {
            HarnessError::NotConfined => stopped.hint(SAME_USER_HINT),
            _ => stopped,
        }
    }
}

impl From<BaseError> for Stopped {
    fn from(error: BaseError) -> Self {
        let text = error.to_string();
        let (message, console) = text.split_once('\n').unwrap_or((&text, ""));
        let details = if error.tail().is_empty() { console.to_owned() } else { error.tail().join("\n") };
        let stopped = Self::new(error.code(), message).details(details);
        match error.hint() {
            Some(hint) => stopped.hint(hint),
            None => stopped,
        }
    }
}
