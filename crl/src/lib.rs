//! The recipe CRL: one signed, numbered, expiring list of all that an issuer revoked.
//!
//! Nothing is allowed without a list that is signed, whole, fresh, and not older than one seen before. A list is a small
//! signed [`header`] that names a [`body`] of sorted 38-byte [`record`]s, so one signature is checked whatever the size and a
//! question is a binary search.
//!
//! ```text
//! folder ─load→ bytes ─AuthenticCrl::verify→ AuthenticCrl ─fresh(now)→ RecipeCrl ─Seen::admit→ status, check_all
//!                                                │
//!                                                └─issue→ bytes ─store→ folder
//! ```
//!
//! [`Seen::current`] goes the upper way in one call.
//!
//! | code | when |
//! |---|---|
//! | `CRL_MISSING` | there is no list, or it or the state cannot be read or kept |
//! | `CRL_INVALID` | signature, form, body, issuer or state file are wrong, or the list was issued in the future |
//! | `CRL_EXPIRED` | `nextUpdate` is reached |
//! | `CRL_ROLLBACK` | a lower number than seen before, or than an authorization records |
//! | `CRL_EQUIVOCATION` | the number seen last, with another header |
//! | `CRL_FORK` | the next number, but it names another list before it; or a number beyond the next, issued earlier |
//! | `CLOCK_BACKWARD` | the clock is behind the issue of a list seen before, and no later one says that this was a mistake |
//! | `HOST_FULL` | no room to keep list or state |
//! | `HOST_FAILED` | another process held list or state too long |

pub mod body;
mod error;
mod file;
mod folder;
pub mod header;
mod issue;
mod list;
mod mark;
pub mod record;
mod seen;
pub mod selector;
mod show;

pub use error::CrlError;
pub use folder::{BODY_FILE, HEADER_FILE, MAX_HEADER_BYTES, NEXT_BODY_FILE, load, store};
pub use header::{Header, IssuerName, Scope};
pub use issue::{IssueError, issue, issue_correction};
pub use list::{AuthenticCrl, Clear, FUTURE_TOLERANCE_SECONDS, RecipeCrl, Revocation, Revoked, Status};
pub use mark::Mark;
pub use record::{DateError, Entry, Reason, RecordError, RevocationDate};
pub use seen::Seen;
pub use selector::{Kind, Selector, SelectorError};
pub use show::{Shown, ShownEntry};
