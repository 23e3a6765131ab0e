//! A list that was checked, and the questions it answers.
//!
//! Two types, so that nobody decides on a stale list: [`AuthenticCrl`] is signed, whole and well formed, whatever its age;
//! it can be shown and extended. [`RecipeCrl`] is fresh too, and only it says what is revoked.

use std::borrow::Cow;

use recipe_spec::code::Code;
use recipe_spec::digest::Sha256Digest;
use recipe_spec::statement::{CRL_PREDICATE, Statement};
use recipe_spec::timestamp::Timestamp;
use signer::trust::{self, SitePins};

use crate::body::Body;
use crate::error::CrlError;
use crate::header::Header;
use crate::mark::Mark;
use crate::record::{Entry, Reason};
use crate::selector::Selector;

/// Name of the statement's subject, and of the body's file.
pub(crate) const BODY_NAME: &str = "crl.body";

/// How far the issuer's clock may be ahead of ours, in seconds.
pub const FUTURE_TOLERANCE_SECONDS: i64 = 300;

/// A list that a pinned issuer signed, whole and well formed, perhaps expired.
#[derive(Clone, Debug)]
pub struct AuthenticCrl {
    header: Header,
    header_sha256: Sha256Digest,
    signer: Sha256Digest,
    body: Body,
}

impl AuthenticCrl {
    /// Checks everything but the list's dates: the envelope's signature against the site's pins at `now`, the header, then
    /// length and digest of the body, and only then the body's records.
    ///
    /// # Errors
    /// `CRL_INVALID`.
    pub fn verify<'a>(
        header_envelope: &[u8],
        body: impl Into<Cow<'a, [u8]>>,
        pins: &SitePins,
        now: Timestamp,
    ) -> Result<Self, CrlError> {
        let envelope = trust::verify_site(header_envelope, signer::Role::CrlIssuer, pins, now)?;
        let signer = match envelope.signers() {
            [one] => one.spki_sha256(),
            _ => return Err(CrlError::Statement("it must have exactly one signature".to_owned())),
        };
        let header = parse_header(envelope.payload())?;
        let body = check_body(&header, body.into())?;
        Ok(Self { header, header_sha256: Sha256Digest::of(envelope.payload()), signer, body })
    }

    /// Checks the dates.
    ///
    /// # Errors
    /// `CRL_EXPIRED` from `next_update` on, `CRL_INVALID` if it was issued more than [`FUTURE_TOLERANCE_SECONDS`] from now.
    pub fn fresh(self, now: Timestamp) -> Result<RecipeCrl, CrlError> {
        let Header { this_update, next_update, .. } = self.header;
        if this_update > now.plus_seconds(FUTURE_TOLERANCE_SECONDS) {
            return Err(CrlError::NotYetValid { this_update, now });
        }
        if now >= next_update {
            return Err(CrlError::Expired { next_update, now });
        }
        Ok(RecipeCrl { list: self })
    }

    /// The signed header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The list's number.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// The header digest (see [`crate::header`]).
    pub fn header_sha256(&self) -> Sha256Digest {
        self.header_sha256
    }

    /// SHA-256 of the SubjectPublicKeyInfo that signed.
    pub fn signer(&self) -> Sha256Digest {
        self.signer
    }

    /// Place in the chain of lists.
    pub fn mark(&self) -> Mark {
        Mark::of(&self.header, self.header_sha256)
    }

    /// The entries.
    pub fn body(&self) -> &Body {
        &self.body
    }
}

/// Reads and checks the header in a payload. Signed or not: the caller knows.
pub(crate) fn parse_header(payload: &[u8]) -> Result<Header, CrlError> {
    let malformed = |why: String| CrlError::Statement(why);
    let statement = Statement::<Header>::parse_untrusted(payload, CRL_PREDICATE)
        .map_err(|error| malformed(error.to_string()))?;
    let header = statement.predicate;
    match statement.subject.as_slice() {
        [subject] if subject.name == BODY_NAME && subject.digest == header.body => {}
        _ => return Err(malformed(format!("its subject must be {BODY_NAME} with the digest of the body"))),
    }
    header.check()?;
    Ok(header)
}

/// The body that `header` names. Owned before it is hashed: what was checked is what is searched.
pub(crate) fn check_body(header: &Header, body: Cow<'_, [u8]>) -> Result<Body, CrlError> {
    let (signed, found) = (header.body_length, body.len() as u64);
    if signed != found {
        return Err(CrlError::BodyLength { signed, found });
    }
    let bytes = body.into_owned();
    let (signed, found) = (header.body.sha256, Sha256Digest::of(&bytes));
    if signed != found {
        return Err(CrlError::BodyDigest { signed, found });
    }
    Ok(Body::from_bytes(bytes)?)
}

/// A list to decide on: signed by a pinned issuer, whole, well formed and fresh. Whether it is the newest one is for
/// [`Seen`](crate::Seen) to say. Keep it for one decision only: it expires, and a newer one may come.
#[derive(Clone, Debug)]
#[must_use]
pub struct RecipeCrl {
    list: AuthenticCrl,
}

/// What a list says of one selector, with the list that said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Status {
    /// The list does not revoke it.
    NotRevoked {
        /// Number of the list.
        number: u64,
        /// Header digest of the list.
        header: Sha256Digest,
    },
    /// The list revokes it.
    Revoked {
        /// Number of the list.
        number: u64,
        /// Header digest of the list.
        header: Sha256Digest,
        /// Why.
        reason: Reason,
        /// Since when.
        date: Timestamp,
    },
}

/// None of the selectors asked about is revoked by this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Clear {
    /// Number of the list.
    pub number: u64,
    /// Header digest of the list.
    pub header: Sha256Digest,
    /// How many selectors were asked about.
    pub checked: usize,
}

/// One selector that a list revokes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Revocation {
    /// What is revoked.
    pub selector: Selector,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub date: Timestamp,
}

/// At least one of the selectors asked about is revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} (recipe CRL number {number})", describe(.revocations))]
pub struct Revoked {
    /// Number of the list.
    pub number: u64,
    /// Header digest of the list.
    pub header: Sha256Digest,
    /// All that is revoked of what was asked about, in the order asked.
    pub revocations: Vec<Revocation>,
}

impl Revoked {
    /// `REVOKED`.
    pub fn code(&self) -> Code {
        Code::Revoked
    }
}

fn describe(revocations: &[Revocation]) -> String {
    let each = |revocation: &Revocation| {
        let Revocation { selector, reason, date } = revocation;
        format!("{selector} is revoked since {date} ({reason})")
    };
    revocations.iter().map(each).collect::<Vec<_>>().join("; ")
}

impl RecipeCrl {
    /// Checks a list in every respect that its bytes and `now` can show.
    ///
    /// # Errors
    /// `CRL_INVALID`, `CRL_EXPIRED`.
    pub fn verify<'a>(
        header_envelope: &[u8],
        body: impl Into<Cow<'a, [u8]>>,
        pins: &SitePins,
        now: Timestamp,
    ) -> Result<Self, CrlError> {
        AuthenticCrl::verify(header_envelope, body, pins, now)?.fresh(now)
    }

    /// The same list without the promise of freshness.
    pub fn authentic(&self) -> &AuthenticCrl {
        &self.list
    }

    /// The signed header.
    pub fn header(&self) -> &Header {
        self.list.header()
    }

    /// The list's number.
    pub fn number(&self) -> u64 {
        self.list.number()
    }

    /// The header digest (see [`crate::header`]).
    pub fn header_sha256(&self) -> Sha256Digest {
        self.list.header_sha256()
    }

    /// From when on the list is refused.
    pub fn next_update(&self) -> Timestamp {
        self.header().next_update
    }

    /// Place in the chain of lists.
    pub fn mark(&self) -> Mark {
        self.list.mark()
    }

    /// Refuses (`CRL_ROLLBACK`) a list below `number`, which an authorization records as the one it was made under.
    pub fn require_number(&self, number: u64) -> Result<(), CrlError> {
        if self.number() < number {
            return Err(CrlError::BelowRequired { required: number, found: self.number() });
        }
        Ok(())
    }

    /// What the list says of one selector.
    pub fn status(&self, selector: &Selector) -> Status {
        let (number, header) = (self.number(), self.header_sha256());
        match self.list.body.find(&selector.digest()) {
            None => Status::NotRevoked { number, header },
            Some(Entry { reason, date, .. }) => Status::Revoked { number, header, reason, date: date.into() },
        }
    }

    /// Asks about everything that a decision rests on at once; all that is revoked is told, not only the first.
    pub fn check_all(&self, selectors: &[Selector]) -> Result<Clear, Revoked> {
        let (number, header) = (self.number(), self.header_sha256());
        let revocations: Vec<Revocation> = selectors
            .iter()
            .filter_map(|selector| match self.status(selector) {
                Status::NotRevoked { .. } => None,
                Status::Revoked { reason, date, .. } => {
                    Some(Revocation { selector: selector.clone(), reason, date })
                }
            })
            .collect();
        if revocations.is_empty() {
            Ok(Clear { number, header, checked: selectors.len() })
        } else {
            Err(Revoked { number, header, revocations })
        }
    }
}
