//! Making the next list.

use recipe_spec::statement::{CRL_PREDICATE, Statement, StatementError, Subject};
use recipe_spec::timestamp::Timestamp;
use signer::Signer;
use signer::dsse::{self, PAYLOAD_TYPE};

use crate::body::{Body, MAX_ENTRIES};
use crate::error::CrlError;
use crate::header::{FIRST_EPOCH, FIRST_NUMBER, Header, IssuerName, Scope};
use crate::list::{AuthenticCrl, BODY_NAME};
use crate::record::{DateError, Entry, Reason, RevocationDate, within_dates};
use crate::selector::Selector;

/// Why a list cannot be issued as asked.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The issuer's name cannot stand in a header.
    #[error(transparent)]
    Issuer(#[from] recipe_spec::text::Malformed),
    /// The list to extend is another issuer's, or of another scope.
    #[error(
        "the list to extend is of `{issuer}` for scope {scope}: a list has one issuer and scope for ever"
    )]
    OtherList {
        /// Issuer of the list to extend.
        issuer: IssuerName,
        /// Its scope.
        scope: Scope,
    },
    /// The dates make no span of time that a list may have.
    #[error(
        "a list cannot be valid from {now} to {next_update}: that is no span between 1970-01-01T00:00:00Z and 2106-02-07T06:28:15Z"
    )]
    Span {
        /// The time of issue.
        now: Timestamp,
        /// The end asked for.
        next_update: Timestamp,
    },
    /// A revocation has a date that no record can hold.
    #[error("{selector} cannot be revoked as of then: {source}")]
    Date {
        /// What was to be revoked.
        selector: Box<Selector>,
        /// The date asked for, and what is allowed.
        source: DateError,
    },
    /// A revocation is dated after the list.
    #[error("{selector} cannot be revoked as of {date}: that is after the list itself, which is of {now}")]
    Ahead {
        /// What was to be revoked.
        selector: Box<Selector>,
        /// The date asked for.
        date: Timestamp,
        /// The time of issue.
        now: Timestamp,
    },
    /// The list is full.
    #[error("the list would have {0} entries, the limit is {MAX_ENTRIES}")]
    TooMany(usize),
    /// The epoch's numbers are used up.
    #[error("number {} is the last of its epoch: a new epoch is needed", u64::MAX)]
    LastNumber,
    /// The header cannot be written.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Signing failed; a key of another role than CRL issuer signs no list.
    #[error(transparent)]
    Sign(#[from] dsse::SignError),
}

/// Issues the list that follows `previous`, or an issuer's first one: the entries of before and those to `add`, sorted and
/// without duplicates, issued `now` and valid until `next_update`. `previous` may have expired; with nothing to add the
/// list is renewed. Something already revoked keeps its reason and date, but a hold gives way to a revocation for good.
///
/// Gives the bytes of header and body for [`store`](crate::store).
///
/// # Errors
/// `CLOCK_BACKWARD` if `now` is before the previous list's issue; `CRL_INVALID` with an [`IssueError`] else.
pub fn issue(
    previous: Option<&AuthenticCrl>,
    add: &[(Selector, Reason, Timestamp)],
    issuer: &str,
    scope: Scope,
    next_update: Timestamp,
    signer: &Signer,
    now: Timestamp,
) -> Result<(Vec<u8>, Vec<u8>), CrlError> {
    if let Some(seen) = previous.map(|list| list.header().this_update).filter(|seen| now < *seen) {
        return Err(CrlError::ClockBackward { seen, now });
    }
    issue_at_any_time(previous, add, issuer, scope, next_update, signer, now)
}

/// Issues the list after `previous` with its entries, dated `now` although that may be before `previous`: for an issuer whose
/// clock was ahead then and is right now. An entry dated after `now` is dated `now`.
///
/// Only a person can know which of two times is right, so nothing calls this by itself.
///
/// # Errors
/// `CRL_INVALID` with an [`IssueError`].
pub fn issue_correction(
    previous: &AuthenticCrl,
    next_update: Timestamp,
    signer: &Signer,
    now: Timestamp,
) -> Result<(Vec<u8>, Vec<u8>), CrlError> {
    let Header { issuer, scope, .. } = previous.header();
    issue_at_any_time(Some(previous), &[], issuer.as_str(), *scope, next_update, signer, now)
}

fn issue_at_any_time(
    previous: Option<&AuthenticCrl>,
    add: &[(Selector, Reason, Timestamp)],
    issuer: &str,
    scope: Scope,
    next_update: Timestamp,
    signer: &Signer,
    now: Timestamp,
) -> Result<(Vec<u8>, Vec<u8>), CrlError> {
    if now >= next_update || !within_dates(now) || !within_dates(next_update) {
        return Err(IssueError::Span { now, next_update }.into());
    }
    let issuer: IssuerName = issuer.parse().map_err(IssueError::Issuer)?;
    if let Some(previous) = previous.map(AuthenticCrl::header)
        && (&previous.issuer, previous.scope) != (&issuer, scope)
    {
        return Err(IssueError::OtherList { issuer: previous.issuer.clone(), scope: previous.scope }.into());
    }
    let body = extended_body(previous.map(AuthenticCrl::body), add, now)?;
    let body_sha256 = body.digest();
    let header = Header {
        issuer,
        scope,
        epoch: previous.map_or(FIRST_EPOCH, |previous| previous.header().epoch),
        number: match previous {
            None => FIRST_NUMBER,
            Some(previous) => previous.number().checked_add(1).ok_or(IssueError::LastNumber)?,
        },
        this_update: now,
        next_update,
        base: None,
        previous: previous.map(|previous| previous.header_sha256().into()),
        entries: body.len() as u64,
        body_length: body.as_bytes().len() as u64,
        body: body_sha256.into(),
    };
    let statement = Statement::new(vec![Subject::new(BODY_NAME, body_sha256)], CRL_PREDICATE, header);
    let payload = statement.to_bytes().map_err(IssueError::Statement)?;
    let envelope = dsse::sign(PAYLOAD_TYPE, &payload, signer).map_err(IssueError::Sign)?;
    Ok((envelope.to_bytes(), body.into_bytes()))
}

fn extended_body(
    previous: Option<&Body>,
    add: &[(Selector, Reason, Timestamp)],
    now: Timestamp,
) -> Result<Body, IssueError> {
    // What was said before comes first: it stands against what is said again.
    let mut entries: Vec<Entry> = previous.map(|body| body.entries().collect()).unwrap_or_default();
    if let Ok(latest) = RevocationDate::try_from(now) {
        // No entry is dated after its list; one can be only where a clock that was ahead is corrected.
        entries.iter_mut().for_each(|entry| entry.date = entry.date.min(latest));
    }
    entries.reserve(add.len());
    for (selector, reason, date) in add {
        let named = || Box::new(selector.clone());
        let held = RevocationDate::try_from(*date)
            .map_err(|source| IssueError::Date { selector: named(), source })?;
        if *date > now {
            return Err(IssueError::Ahead { selector: named(), date: *date, now });
        }
        entries.push(Entry {
            selector: selector.digest(),
            kind: selector.kind(),
            reason: *reason,
            date: held,
        });
    }
    let body = Body::from_entries(entries);
    if body.len() > MAX_ENTRIES { Err(IssueError::TooMany(body.len())) } else { Ok(body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipe_spec::digest::Sha256Digest;

    /// The signed bytes of a list, to the byte: `vectors/regenerate.py` computes them without this code.
    #[test]
    fn the_statement_of_a_second_list() {
        let selector: Selector = "version:atlas/web@1.4.0".parse().unwrap();
        let date = Timestamp::from_unix(1_795_395_723);
        let body = extended_body(None, &[(selector, Reason::KeyCompromise, date)], date).unwrap();
        let header = Header {
            issuer: "example-site".parse().unwrap(),
            scope: Scope::Site,
            epoch: 1,
            number: 2,
            this_update: date,
            next_update: date.plus_seconds(7 * 24 * 3600),
            base: None,
            previous: Some(Sha256Digest::of(b"the first list's statement").into()),
            entries: 1,
            body_length: 38,
            body: body.digest().into(),
        };
        let statement = Statement::new(vec![Subject::new(BODY_NAME, body.digest())], CRL_PREDICATE, header);
        assert_eq!(hex::encode(body.as_bytes()), include_str!("../vectors/body.hex").trim_end());
        let expected = include_str!("../vectors/statement.json").trim_end();
        assert_eq!(String::from_utf8(statement.to_bytes().unwrap()).unwrap(), expected);
    }
}
