//! The header: what is signed of a list. It names its body by length and digest, so one signature is checked whatever the
//! size of the list.
//!
//! The file `crl.intoto.jsonl` is a DSSE envelope over an in-toto Statement v1 whose one subject is
//! `{"name": "crl.body", "digest": {"sha256": …}}` and whose predicate, of type `urn:countersign:crl:v1`, is:
//!
//! | field | value |
//! |---|---|
//! | `issuer` | name of who issues the list, 1 to 128 bytes; a name, not an identity: that is the pinned key |
//! | `scope` | what the issuer may revoke: `site` |
//! | `epoch` | 1; a later epoch begins only by a rotation |
//! | `number` | 1, then one more with each list of an epoch |
//! | `thisUpdate` | when it was issued, RFC 3339, whole seconds, `Z`, to 2106-02-07T06:28:15Z at most |
//! | `nextUpdate` | from when on it is refused |
//! | `base` | for deltas, number of the list it changes; refused today |
//! | `previous` | `{"sha256": …}`, header digest of number − 1; absent in number 1 only |
//! | `entries` | number of records |
//! | `bodyLength` | bytes of the body: 38 × `entries` |
//! | `body` | `{"sha256": …}` of the body |
//!
//! A *header digest* is the SHA-256 of the signed statement, not of the envelope around it: an envelope carries
//! certificates that are not signed, and whoever exchanged one for another of the same key could make an honest list look
//! like an equivocation. To redo it: `jq -r .payload crl.intoto.jsonl | base64 -d | sha256sum`.

use std::fmt;
use std::str::FromStr;

use recipe_spec::digest::Sha256Digest;
use recipe_spec::statement::DigestSet;
use recipe_spec::text::{Malformed, misleads};
use recipe_spec::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::body::MAX_ENTRIES;
use crate::record::{RECORD_BYTES, within_dates};

/// The number of an epoch's first list.
pub const FIRST_NUMBER: u64 = 1;

/// The epoch of an issuer's first list.
pub const FIRST_EPOCH: u64 = 1;

/// Longest name of an issuer, in bytes.
const MAX_ISSUER_BYTES: usize = 128;

/// The name of a list's issuer: 1 to 128 bytes that a terminal shows as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IssuerName(String);

impl IssuerName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IssuerName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fits = (1..=MAX_ISSUER_BYTES).contains(&text.len())
            && text.trim() == text
            && !text.chars().any(misleads);
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "an issuer's name",
                text,
                "use 1 to 128 bytes of visible text without spaces at the ends",
            ))
        }
    }
}

impl TryFrom<String> for IssuerName {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<IssuerName> for String {
    fn from(name: IssuerName) -> Self {
        name.0
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an issuer may revoke. A list of a scope unknown to this version is refused, for it could be meant wider or
/// narrower than we read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Anything that this site uses.
    Site,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.pad("site"),
        }
    }
}

/// The predicate of a list's statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// Who issued the list.
    pub issuer: IssuerName,
    /// What it may revoke.
    pub scope: Scope,
    /// The epoch.
    pub epoch: u64,
    /// The number in its epoch, from 1.
    pub number: u64,
    /// When it was issued.
    pub this_update: Timestamp,
    /// From when on it is refused.
    pub next_update: Timestamp,
    /// For a delta, the number of the list it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
    /// The header digest of the list before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<DigestSet>,
    /// Records in the body.
    pub entries: u64,
    /// Bytes of the body.
    pub body_length: u64,
    /// The body.
    pub body: DigestSet,
}

/// What a header says that no list can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Numbers and epochs begin with 1.
    #[error("number {number} of epoch {epoch}: both begin with 1")]
    Zero {
        /// The epoch.
        epoch: u64,
        /// The number.
        number: u64,
    },
    /// Number 1 has no predecessor, any other has one.
    #[error("number {number} {}", if *.has_previous { "names a list before it, which the first cannot" } else { "names no list before it" })]
    Previous {
        /// The number.
        number: u64,
        /// Whether it names a previous list.
        has_previous: bool,
    },
    /// A delta, which this version cannot apply.
    #[error("it changes list number {0}: deltas are not supported by this version")]
    Delta(u64),
    /// It ends before it begins, or lies outside 1970 to 2106.
    #[error(
        "it is valid from {this_update} to {next_update}, which is no span between 1970-01-01T00:00:00Z and 2106-02-07T06:28:15Z"
    )]
    Span {
        /// When it was issued.
        this_update: Timestamp,
        /// When it ends.
        next_update: Timestamp,
    },
    /// Count and length disagree.
    #[error("{entries} entries cannot have {body_length} bytes: each has {RECORD_BYTES}")]
    Lengths {
        /// Entries claimed.
        entries: u64,
        /// Bytes claimed.
        body_length: u64,
    },
    /// More entries than a list may have.
    #[error("{0} entries: the limit is {MAX_ENTRIES}")]
    TooMany(u64),
}

impl Header {
    /// Checks what a header can be wrong about by itself; signature, body and time are judged elsewhere.
    pub(crate) fn check(&self) -> Result<(), HeaderError> {
        let Self { epoch, number, this_update, next_update, entries, body_length, .. } = *self;
        if epoch < FIRST_EPOCH || number < FIRST_NUMBER {
            return Err(HeaderError::Zero { epoch, number });
        }
        if self.previous.is_some() != (number > FIRST_NUMBER) {
            return Err(HeaderError::Previous { number, has_previous: self.previous.is_some() });
        }
        if let Some(base) = self.base {
            return Err(HeaderError::Delta(base));
        }
        if this_update >= next_update || !within_dates(this_update) || !within_dates(next_update) {
            return Err(HeaderError::Span { this_update, next_update });
        }
        if entries.checked_mul(RECORD_BYTES as u64) != Some(body_length) {
            return Err(HeaderError::Lengths { entries, body_length });
        }
        if entries > MAX_ENTRIES as u64 {
            return Err(HeaderError::TooMany(entries));
        }
        Ok(())
    }

    /// The header digest of the list before.
    pub fn previous(&self) -> Option<Sha256Digest> {
        self.previous.map(|previous| previous.sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            issuer: "Example site".parse().unwrap(),
            scope: Scope::Site,
            epoch: 1,
            number: 2,
            this_update: Timestamp::from_unix(1000),
            next_update: Timestamp::from_unix(2000),
            base: None,
            previous: Some(DigestSet { sha256: Sha256Digest::of(b"one") }),
            entries: 3,
            body_length: 114,
            body: DigestSet { sha256: Sha256Digest::of(b"body") },
        }
    }

    fn refusal(change: impl FnOnce(&mut Header)) -> HeaderError {
        let mut changed = header();
        change(&mut changed);
        changed.check().unwrap_err()
    }

    #[test]
    fn each_lie_has_its_name() {
        assert_eq!(header().check(), Ok(()));
        let first = Header { number: 1, previous: None, ..header() };
        assert_eq!(first.check(), Ok(()));
        assert!(matches!(refusal(|h| h.epoch = 0), HeaderError::Zero { .. }));
        assert!(matches!(refusal(|h| h.number = 0), HeaderError::Zero { .. }));
        assert!(matches!(refusal(|h| h.number = 1), HeaderError::Previous { has_previous: true, .. }));
        assert!(matches!(refusal(|h| h.previous = None), HeaderError::Previous { has_previous: false, .. }));
        assert_eq!(refusal(|h| h.base = Some(1)), HeaderError::Delta(1));
        for seconds in [1000, 999, -1] {
            assert!(matches!(
                refusal(|h| h.next_update = Timestamp::from_unix(seconds)),
                HeaderError::Span { .. }
            ));
        }
        assert!(matches!(refusal(|h| h.this_update = Timestamp::from_unix(-1)), HeaderError::Span { .. }));
        assert!(matches!(
            refusal(|h| h.next_update = "2106-02-07T06:28:16Z".parse().unwrap()),
            HeaderError::Span { .. }
        ));
        let last = Header { next_update: "2106-02-07T06:28:15Z".parse().unwrap(), ..header() };
        assert_eq!(last.check(), Ok(()));
        assert!(matches!(refusal(|h| h.body_length = 113), HeaderError::Lengths { .. }));
        assert!(matches!(refusal(|h| h.entries = 2), HeaderError::Lengths { .. }));
    }

    #[test]
    fn lengths_at_the_ends_of_u64_neither_overflow_nor_pass() {
        let wraps = u64::MAX / 38 + 1;
        let product = wraps.wrapping_mul(38);
        for (entries, body_length) in [(u64::MAX, u64::MAX), (u64::MAX, 0), (wraps, product), (0, 38)] {
            assert!(matches!(
                refusal(|h| (h.entries, h.body_length) = (entries, body_length)),
                HeaderError::Lengths { .. }
            ));
        }
        let entries = MAX_ENTRIES as u64 + 1;
        assert_eq!(
            refusal(|h| (h.entries, h.body_length) = (entries, entries * 38)),
            HeaderError::TooMany(entries)
        );
    }

    #[test]
    fn unknown_fields_and_scopes_are_errors() {
        let json = serde_json::to_string(&header()).unwrap();
        assert_eq!(serde_json::from_str::<Header>(&json).unwrap(), header());
        assert!(serde_json::from_str::<Header>(&json.replacen('{', "{\"extra\":1,", 1)).is_err());
        assert!(serde_json::from_str::<Header>(&json.replace("\"site\"", "\"world\"")).is_err());
        assert!(serde_json::from_str::<Header>(&json.replace("\"number\":2", "\"number\":-2")).is_err());
        assert!(serde_json::from_str::<Header>(&json.replace("\"number\":2", "\"number\":2.0")).is_err());
    }

    #[test]
    fn an_issuers_name_can_be_shown() {
        for name in ["", " x", "x ", "a\nb", "a\u{202e}b", &"x".repeat(129)] {
            assert!(name.parse::<IssuerName>().is_err(), "{name:?}");
        }
        assert_eq!("Büro 3, CERN".parse::<IssuerName>().unwrap().as_str(), "Büro 3, CERN");
    }
}
