//! One entry of the list: 38 bytes in the body.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | selector digest ([`Selector::digest`](crate::Selector::digest)) |
//! | 32 | 1 | kind: 1 recipe, 2 recipe version, 3 signer key, 4 certificate, 5 base image, 6 site recipe, 7 authorization |
//! | 33 | 1 | reason: the CRLReason number of RFC 5280 §5.3.1 (0–6, 9, 10) |
//! | 34 | 4 | date of revocation: seconds since 1970-01-01T00:00:00Z, unsigned, big-endian |
//!
//! Any other kind or reason is an error, and every field is fixed, so an entry has exactly one encoding. The last date that
//! 32 bits hold, [`LATEST_SECONDS`], is also the last one that a header may name.

use std::fmt;
use std::str::FromStr;

use recipe_spec::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::selector::Kind;

/// Bytes of one record.
pub const RECORD_BYTES: usize = 38;

/// Bytes of the selector digest, by which records are sorted.
pub(crate) const DIGEST_BYTES: usize = 32;

/// The first instant that a list may name: 1970-01-01T00:00:00Z.
pub const EARLIEST_SECONDS: i64 = 0;

/// The last instant that a list may name: 2106-02-07T06:28:15Z, the last in 32 bits.
pub const LATEST_SECONDS: i64 = u32::MAX as i64;

const KIND_AT: usize = 32;
const REASON_AT: usize = 33;
const DATE_AT: usize = 34;

/// Whether a list may name this instant.
pub(crate) fn within_dates(instant: Timestamp) -> bool {
    (EARLIEST_SECONDS..=LATEST_SECONDS).contains(&instant.unix())
}

/// Since when something is revoked: an instant from [`EARLIEST_SECONDS`] to [`LATEST_SECONDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevocationDate(u32);

/// An instant that a list cannot name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a list holds dates from 1970-01-01T00:00:00Z to 2106-02-07T06:28:15Z, and {0} is none of them")]
pub struct DateError(pub Timestamp);

impl TryFrom<Timestamp> for RevocationDate {
    type Error = DateError;

    fn try_from(instant: Timestamp) -> Result<Self, DateError> {
        u32::try_from(instant.unix()).map(Self).map_err(|_| DateError(instant))
    }
}

impl From<RevocationDate> for Timestamp {
    fn from(date: RevocationDate) -> Self {
        Self::from_unix(i64::from(date.0))
    }
}

/// Why something was revoked (RFC 5280 §5.3.1, with its names and numbers). `removeFromCRL` belongs to deltas and
/// cannot stand in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Reason {
    /// No reason given.
    Unspecified = 0,
    /// The private key is known or feared to be in other hands.
    KeyCompromise = 1,
    /// The authority's private key is.
    #[serde(rename = "cACompromise")]
    CaCompromise = 2,
    /// The holder belongs to the organisation no more.
    AffiliationChanged = 3,
    /// Something newer replaces it.
    Superseded = 4,
    /// It is no longer needed.
    CessationOfOperation = 5,
    /// Held for now; refused as firmly as the others while it stands.
    CertificateHold = 6,
    /// A right was taken back.
    PrivilegeWithdrawn = 9,
    /// The attribute authority's private key is known or feared to be in other hands.
    #[serde(rename = "aACompromise")]
    AaCompromise = 10,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The name in RFC 5280.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no reason: use unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, \
     cessationOfOperation, certificateHold, privilegeWithdrawn or aACompromise"
)]
pub struct ReasonError(pub String);

impl FromStr for Reason {
    type Err = ReasonError;

    fn from_str(word: &str) -> Result<Self, ReasonError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .ok_or_else(|| ReasonError(word.chars().take(40).collect()))
    }
}

/// One revoked thing, as the list holds it. The list knows digests only: what a digest stands for is known to whoever
/// asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The selector's digest.
    pub selector: [u8; 32],
    /// The kind of thing.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub date: RevocationDate,
}

/// Why a record is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Byte 32 is no kind.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// Byte 33 is no reason.
    #[error("unknown reason {0}")]
    Reason(u8),
}

impl Entry {
    /// The entry's only encoding.
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        record[..DIGEST_BYTES].copy_from_slice(&self.selector);
        record[KIND_AT] = self.kind as u8;
        record[REASON_AT] = self.reason as u8;
        record[DATE_AT..].copy_from_slice(&self.date.0.to_be_bytes());
        record
    }

    /// Reads a record.
    pub fn from_bytes(record: &[u8; RECORD_BYTES]) -> Result<Self, RecordError> {
        let mut selector = [0; DIGEST_BYTES];
        selector.copy_from_slice(&record[..DIGEST_BYTES]);
        let kind = Kind::from_number(record[KIND_AT]).ok_or(RecordError::Kind(record[KIND_AT]))?;
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| *reason as u8 == record[REASON_AT])
            .ok_or(RecordError::Reason(record[REASON_AT]))?;
        let mut seconds = [0; RECORD_BYTES - DATE_AT];
        seconds.copy_from_slice(&record[DATE_AT..]);
        let date = RevocationDate(u32::from_be_bytes(seconds));
        Ok(Self { selector, kind, reason, date })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> Entry {
        Entry {
            selector: [0xaa; 32],
            kind: Kind::SiteRecipe,
            reason: Reason::AaCompromise,
            date: RevocationDate(1_700_000_000),
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let expected = format!("{}060a6553f100", "aa".repeat(32));
        assert_eq!(hex::encode(entry().to_bytes()), expected);
    }

    #[test]
    fn the_names_are_those_of_rfc_5280() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{reason}\""));
        }
        assert!("removeFromCRL".parse::<Reason>().is_err());
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        let broken = |at: usize, byte: u8| {
            let mut record = entry().to_bytes();
            record[at] = byte;
            Entry::from_bytes(&record)
        };
        assert_eq!(broken(32, 0), Err(RecordError::Kind(0)));
        assert_eq!(broken(32, 8), Err(RecordError::Kind(8)));
        for number in [7, 8, 11, 255] {
            assert_eq!(broken(33, number), Err(RecordError::Reason(number)));
        }
    }

    #[test]
    fn the_ends_of_time() {
        for (seconds, hex_date) in [(0, "00000000"), (1 << 31, "80000000"), (LATEST_SECONDS, "ffffffff")] {
            let date = RevocationDate::try_from(Timestamp::from_unix(seconds)).unwrap();
            let record = Entry { date, ..entry() }.to_bytes();
            assert_eq!(hex::encode(&record[34..]), hex_date);
            assert_eq!(Timestamp::from(Entry::from_bytes(&record).unwrap().date).unix(), seconds);
        }
        for seconds in [-1, LATEST_SECONDS + 1, i64::MIN, i64::MAX] {
            let instant = Timestamp::from_unix(seconds);
            assert_eq!(RevocationDate::try_from(instant), Err(DateError(instant)));
            assert!(!within_dates(instant));
        }
        let error = DateError(Timestamp::from_unix(LATEST_SECONDS + 1)).to_string();
        for named in [EARLIEST_SECONDS, LATEST_SECONDS, LATEST_SECONDS + 1] {
            assert!(error.contains(&Timestamp::from_unix(named).to_string()), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_encodes_to_the_same_bytes(bytes in proptest::array::uniform32(any::<u8>()),
            kind in 0u8..9, reason in 0u8..12, seconds in any::<u32>()) {
            let mut record = [0; RECORD_BYTES];
            record[..32].copy_from_slice(&bytes);
            record[32] = kind;
            record[33] = reason;
            record[34..].copy_from_slice(&seconds.to_be_bytes());
            match Entry::from_bytes(&record) {
                Ok(entry) => prop_assert_eq!(entry.to_bytes(), record),
                Err(_) => prop_assert!(!(1..=7).contains(&kind) || [7, 8].contains(&reason) || reason > 10),
            }
        }
    }
}
