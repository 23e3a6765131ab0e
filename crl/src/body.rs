//! The body of a list: records of [`RECORD_BYTES`] bytes one after the other, and nothing else.
//!
//! Records stand in strictly ascending byte order of their selector digests, so no digest occurs twice, a set of entries
//! has one encoding, and a look-up is a binary search in the bytes as they came.

use recipe_spec::digest::Sha256Digest;

use crate::record::{DIGEST_BYTES, Entry, RECORD_BYTES, RecordError};

/// Most entries of a list. A site that revokes a thousand things a day fills it in ten years.
pub const MAX_ENTRIES: usize = 4_000_000;

/// Most bytes of a body.
pub const MAX_BODY_BYTES: usize = MAX_ENTRIES * RECORD_BYTES;

type Record = [u8; RECORD_BYTES];

/// What is wrong with a body. Records count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than any list may be.
    #[error("the body has {0} bytes, the limit is {MAX_BODY_BYTES}")]
    TooLong(usize),
    /// The length is no multiple of a record's.
    #[error("the body has {0} bytes, which is no multiple of {RECORD_BYTES}")]
    Ragged(usize),
    /// A record breaks its form.
    #[error("record {index}: {error}")]
    Record {
        /// The record.
        index: usize,
        /// Its fault.
        error: RecordError,
    },
    /// A record stands before one with a smaller digest.
    #[error("record {0} is out of order")]
    Unsorted(usize),
    /// A record has the digest of the one before it.
    #[error("record {0} repeats the digest before it")]
    Duplicate(usize),
}

/// A checked body, in private memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    bytes: Vec<u8>,
}

impl Body {
    /// A body without entries.
    pub fn empty() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Checks form, order and uniqueness of every record. Whether anyone signed these bytes is asked before.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BodyError> {
        if bytes.len() > MAX_BODY_BYTES {
            return Err(BodyError::TooLong(bytes.len()));
        }
        let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
        if !rest.is_empty() {
            return Err(BodyError::Ragged(bytes.len()));
        }
        let mut before: Option<&Record> = None;
        for (index, record) in records.iter().enumerate() {
            Entry::from_bytes(record).map_err(|error| BodyError::Record { index, error })?;
            match before.map(|before| digest_of(before).cmp(digest_of(record))) {
                None | Some(std::cmp::Ordering::Less) => {}
                Some(std::cmp::Ordering::Equal) => return Err(BodyError::Duplicate(index)),
                Some(std::cmp::Ordering::Greater) => return Err(BodyError::Unsorted(index)),
            }
            before = Some(record);
        }
        Ok(Self { bytes })
    }

    /// A body of these entries. Of several with one selector digest the one that [`outweighs`] the others stands.
    pub(crate) fn from_entries(mut entries: Vec<Entry>) -> Self {
        // The sort is stable: among equals the order of arrival decides.
        entries.sort_by_key(|entry| entry.selector);
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            match kept.last_mut().filter(|last| last.selector == entry.selector) {
                Some(last) if outweighs(&entry, last) => {
                    *last = Entry { date: last.date.min(entry.date), ..entry }
                }
                Some(_) => {}
                None => kept.push(entry),
            }
        }
        let mut bytes = Vec::with_capacity(kept.len() * RECORD_BYTES);
        kept.iter().for_each(|entry| bytes.extend_from_slice(&entry.to_bytes()));
        Self { bytes }
    }

    /// The bytes, as published.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same bytes, given away.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.bytes.len() / RECORD_BYTES
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// SHA-256 of the bytes.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.bytes)
    }

    /// The entry under a selector's digest.
    pub fn find(&self, selector: &[u8; DIGEST_BYTES]) -> Option<Entry> {
        let records = self.records();
        let index = records.binary_search_by(|record| digest_of(record).cmp(selector)).ok()?;
        Some(checked(&records[index]))
    }

    /// Every entry, in order of digests.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry> + '_ {
        self.records().iter().map(checked)
    }

    fn records(&self) -> &[Record] {
        self.bytes.as_chunks().0
    }
}

/// Whether `new` replaces `old` under one digest: a revocation for good replaces a hold, and nothing else changes what
/// was said first.
fn outweighs(new: &Entry, old: &Entry) -> bool {
    use crate::record::Reason::CertificateHold;
    old.reason == CertificateHold && new.reason != CertificateHold
}

fn digest_of(record: &Record) -> &[u8] {
    &record[..DIGEST_BYTES]
}

/// A record of a checked body.
fn checked(record: &Record) -> Entry {
    Entry::from_bytes(record).unwrap_or_else(|_| unreachable!("every record was read when the body was made"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Reason, RevocationDate};
    use crate::selector::Kind;
    use proptest::prelude::*;
    use recipe_spec::timestamp::Timestamp;
    use std::collections::BTreeMap;

    fn date(seconds: u32) -> RevocationDate {
        Timestamp::from_unix(seconds.into()).try_into().unwrap()
    }

    fn entry(first: u8, reason: Reason, seconds: u32) -> Entry {
        let mut selector = [0; 32];
        selector[0] = first;
        Entry { selector, kind: Kind::Recipe, reason, date: date(seconds) }
    }

    fn bytes_of(entries: &[Entry]) -> Vec<u8> {
        entries.iter().flat_map(|entry| entry.to_bytes()).collect()
    }

    #[test]
    fn an_empty_body_is_a_list_of_nothing() {
        let body = Body::from_bytes(Vec::new()).unwrap();
        assert_eq!(body, Body::empty());
        assert_eq!(body.find(&[0; 32]), None);
    }

    #[test]
    fn order_and_repetition_are_refused_by_name() {
        let [a, b] = [entry(1, Reason::Superseded, 5), entry(2, Reason::Superseded, 5)];
        assert!(Body::from_bytes(bytes_of(&[a, b])).is_ok());
        assert_eq!(Body::from_bytes(bytes_of(&[b, a])), Err(BodyError::Unsorted(1)));
        assert_eq!(Body::from_bytes(bytes_of(&[a, a])), Err(BodyError::Duplicate(1)));
        let other = Entry { reason: Reason::Unspecified, ..a };
        assert_eq!(Body::from_bytes(bytes_of(&[a, other])), Err(BodyError::Duplicate(1)));
    }

    #[test]
    fn every_cut_inside_a_record_is_ragged() {
        let whole = bytes_of(&[entry(1, Reason::Superseded, 5), entry(2, Reason::Superseded, 5)]);
        for length in (0..whole.len()).filter(|length| length % RECORD_BYTES != 0) {
            assert_eq!(Body::from_bytes(whole[..length].to_vec()), Err(BodyError::Ragged(length)));
        }
    }

    #[test]
    fn a_body_over_the_limit_is_refused_unread() {
        let length = MAX_BODY_BYTES + RECORD_BYTES;
        assert_eq!(Body::from_bytes(vec![0; length]), Err(BodyError::TooLong(length)));
    }

    #[test]
    fn the_first_word_stands_but_a_hold_gives_way() {
        let merged = |entries: &[Entry]| {
            let body = Body::from_entries(entries.to_vec());
            assert_eq!(body.len(), 1);
            body.entries().next().map(|entry| (entry.reason, Timestamp::from(entry.date).unix())).unwrap()
        };
        let [hold, key, old] = [
            entry(1, Reason::CertificateHold, 50),
            entry(1, Reason::KeyCompromise, 70),
            entry(1, Reason::Superseded, 20),
        ];
        assert_eq!(merged(&[key, old]), (Reason::KeyCompromise, 70));
        assert_eq!(merged(&[key, hold]), (Reason::KeyCompromise, 70));
        assert_eq!(merged(&[hold, key]), (Reason::KeyCompromise, 50), "revoked since it was held");
        assert_eq!(merged(&[hold, old]), (Reason::Superseded, 20));
        assert_eq!(merged(&[hold, hold]), (Reason::CertificateHold, 50));
        let earlier = Entry { date: date(10), ..hold };
        assert_eq!(
            merged(&[hold, earlier]),
            (Reason::CertificateHold, 50),
            "a hold said again changes nothing"
        );
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        // Few values of the first byte and one of the last: digests collide and neighbour each other.
        let digest = (0u8..20, 0u8..3).prop_map(|(first, last)| {
            let mut digest = [0x55; 32];
            digest[0] = first;
            digest[31] = last;
            digest
        });
        let entry = (digest, 0..Kind::ALL.len(), 0..Reason::ALL.len(), any::<u32>()).prop_map(
            |(selector, kind, reason, seconds)| Entry {
                selector,
                kind: Kind::ALL[kind],
                reason: Reason::ALL[reason],
                date: date(seconds),
            },
        );
        proptest::collection::vec(entry, 0..60)
    }

    proptest! {
        #[test]
        fn a_look_up_equals_a_naive_set(entries in entries(), first in 0u8..22, last in 0u8..4) {
            let body = Body::from_entries(entries.clone());
            let naive: BTreeMap<[u8; 32], ()> = entries.iter().map(|entry| (entry.selector, ())).collect();
            prop_assert_eq!(body.len(), naive.len());
            let mut asked = [0x55; 32];
            asked[0] = first;
            asked[31] = last;
            prop_assert_eq!(body.find(&asked).is_some(), naive.contains_key(&asked));
            for digest in naive.keys() {
                prop_assert_eq!(body.find(digest).map(|entry| entry.selector), Some(*digest));
            }
            prop_assert_eq!(Body::from_bytes(body.as_bytes().to_vec()), Ok(body));
        }
    }
}
