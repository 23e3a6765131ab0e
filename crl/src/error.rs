//! Why a list was refused.

use std::io;
use std::path::PathBuf;

use recipe_spec::code::Code;
use recipe_spec::digest::Sha256Digest;
use recipe_spec::timestamp::Timestamp;

use crate::body::BodyError;
use crate::header::HeaderError;
use crate::issue::IssueError;
use crate::list::FUTURE_TOLERANCE_SECONDS;
use crate::mark::Mark;

/// Why a list cannot be used, or could not be made. All of them refuse: nothing is allowed on a list that gave one.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// No list where one was looked for.
    #[error("no recipe CRL: {} does not exist", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// A file of the list or of the state could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the lock for too long.
    #[error("{} is locked by another process for more than {seconds} s: try again", path.display())]
    Busy {
        /// What is locked.
        path: PathBuf,
        /// How long it was tried, in seconds.
        seconds: u64,
    },
    /// A file is larger than any valid one.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
    },
    /// The header's envelope is not signed by a pinned CRL issuer.
    #[error("the recipe CRL's header does not verify: {0}")]
    Envelope(#[from] signer::trust::TrustError),
    /// What is signed is no statement of a recipe CRL.
    #[error("the recipe CRL's statement is malformed: {0}")]
    Statement(String),
    /// The header says what no list can be.
    #[error("the recipe CRL's header is wrong: {0}")]
    Header(#[from] HeaderError),
    /// The body is longer or shorter than the header says.
    #[error("the recipe CRL's body has {found} bytes, its header says {signed}: fetch both again")]
    BodyLength {
        /// Bytes that the header names.
        signed: u64,
        /// Bytes at hand.
        found: u64,
    },
    /// The body is another than the header says.
    #[error("the recipe CRL's body has the digest {found}, its header says {signed}: fetch both again")]
    BodyDigest {
        /// The digest that the header names.
        signed: Sha256Digest,
        /// The digest of the body at hand.
        found: Sha256Digest,
    },
    /// The body is what was signed, and yet no body.
    #[error("the recipe CRL's body is malformed: {0}")]
    Body(#[from] BodyError),
    /// The list was issued in the future.
    #[error(
        "the recipe CRL was issued at {this_update}, and it is {now} (more than {FUTURE_TOLERANCE_SECONDS} s before): \
         check this clock and the issuer's"
    )]
    NotYetValid {
        /// When it says it was issued.
        this_update: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// The list is too old to rely on.
    #[error("the recipe CRL expired at {next_update}, and it is {now}: fetch or publish a newer one")]
    Expired {
        /// When its successor was due.
        next_update: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// The list is of another issuer or scope than those seen in this place.
    #[error("this is {found}; lists seen here are of {seen}")]
    OtherIssuer {
        /// The highest list seen.
        seen: Box<Mark>,
        /// The list at hand.
        found: Box<Mark>,
    },
    /// A list older than one already seen.
    #[error("{found} is older than {seen}, which was seen before")]
    Rollback {
        /// The highest list seen.
        seen: Box<Mark>,
        /// The list at hand.
        found: Box<Mark>,
    },
    /// A list older than the one that a decision was made under.
    #[error("recipe CRL number {found} is older than number {required}, under which this was authorized")]
    BelowRequired {
        /// The lowest number that will do.
        required: u64,
        /// The number at hand.
        found: u64,
    },
    /// Two lists with one number.
    #[error(
        "{found} has the number of {seen}, which was seen before, and another content: the issuer's key may be in other hands"
    )]
    Equivocation {
        /// The list seen.
        seen: Box<Mark>,
        /// The list at hand.
        found: Box<Mark>,
    },
    /// The list does not continue the one seen.
    #[error("{found} does not continue {seen}, which was seen before: {why}")]
    Fork {
        /// The highest list seen.
        seen: Box<Mark>,
        /// The list at hand.
        found: Box<Mark>,
        /// Where the chain breaks.
        why: &'static str,
    },
    /// The clock is behind a time that the issuer signed.
    #[error("it is {now}, but a recipe CRL of {seen} was already seen: the clock went back")]
    ClockBackward {
        /// The latest issue time seen.
        seen: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
    /// The file that remembers the highest list is damaged.
    #[error(
        "{} is damaged ({why}), so a rolled back recipe CRL could not be told from a current one: restore it, or remove it \
         after making sure by other means that the list at hand is the latest",
        path.display()
    )]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A list cannot be issued as asked.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl CrlError {
    /// The published code.
    pub fn code(&self) -> Code {
        match self {
            Self::Io { source, .. } if is_full(source) => Code::HostFull,
            // Somebody else was slow: nothing was decided about the list.
            Self::Busy { .. } => Code::HostFailed,
            Self::Missing { .. } | Self::Io { .. } => Code::CrlMissing,
            // Stale or missing revocation data of the CA keeps its name; any other fault of the envelope is the list's.
            Self::Envelope(error) => match error.code() {
                code @ (Code::CrlMissing | Code::CrlExpired) => code,
                _ => Code::CrlInvalid,
            },
            Self::TooLarge { .. }
            | Self::Statement(_)
            | Self::Header(_)
            | Self::BodyLength { .. }
            | Self::BodyDigest { .. }
            | Self::Body(_)
            | Self::NotYetValid { .. }
            | Self::OtherIssuer { .. }
            | Self::State { .. }
            | Self::Issue(_) => Code::CrlInvalid,
            Self::Expired { .. } => Code::CrlExpired,
            Self::Rollback { .. } | Self::BelowRequired { .. } => Code::CrlRollback,
            Self::Equivocation { .. } => Code::CrlEquivocation,
            Self::Fork { .. } => Code::CrlFork,
            Self::ClockBackward { .. } => Code::ClockBackward,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
