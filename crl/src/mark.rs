//! Where a list stands in its chain, and whether one may follow another.

use std::fmt;

use recipe_spec::digest::Sha256Digest;
use recipe_spec::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::CrlError;
use crate::header::{Header, IssuerName, Scope};

/// A list's place among its issuer's lists. Every value in it was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mark {
    /// Who issued it.
    pub issuer: IssuerName,
    /// What it may revoke.
    pub scope: Scope,
    /// Its epoch.
    pub epoch: u64,
    /// Its number.
    pub number: u64,
    /// Its header digest.
    pub header: Sha256Digest,
    /// When it was issued.
    pub this_update: Timestamp,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, scope, epoch, number, header, .. } = self;
        write!(
            f,
            "recipe CRL number {number} (header {header}, epoch {epoch}) of `{issuer}` for scope {scope}"
        )
    }
}

/// What a list adds to those seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// It is the one seen last.
    Same,
    /// It comes after.
    Forward,
}

impl Mark {
    /// The place of a header whose digest is `digest`.
    pub(crate) fn of(header: &Header, digest: Sha256Digest) -> Self {
        Self {
            issuer: header.issuer.clone(),
            scope: header.scope,
            epoch: header.epoch,
            number: header.number,
            header: digest,
            this_update: header.this_update,
        }
    }

    /// Whether `next`, which names `previous` as the header before it, may come after this list. Numbers may be skipped:
    /// who was away for a while sees no broken chain, and the signature still vouches for the newer list.
    ///
    /// The list that names this one as its predecessor may be dated before it: so an issuer whose clock was ahead comes
    /// back to the right time. It has all entries, and no list of a lower number counts again.
    pub(crate) fn admits(&self, next: &Self, previous: Option<Sha256Digest>) -> Result<Advance, CrlError> {
        let advance = self.is_continued_by(next, previous)?;
        let skipped = self.number.checked_add(1) != Some(next.number);
        if advance == Advance::Forward && skipped && next.this_update < self.this_update {
            return Err(
                self.fork(next, "it has a higher number, does not name this one, and was issued earlier")
            );
        }
        Ok(advance)
    }

    /// As [`Mark::admits`], whatever the dates. So is judged what an issuer whose clock was ahead publishes when it is right
    /// again: who saw this list and missed the next one would else have to wait until this one's date has come.
    pub(crate) fn is_continued_by(
        &self,
        next: &Self,
        previous: Option<Sha256Digest>,
    ) -> Result<Advance, CrlError> {
        let pair = || (Box::new(self.clone()), Box::new(next.clone()));
        if (&self.issuer, self.scope) != (&next.issuer, next.scope) {
            let (seen, found) = pair();
            return Err(CrlError::OtherIssuer { seen, found });
        }
        if (next.epoch, next.number) < (self.epoch, self.number) {
            let (seen, found) = pair();
            return Err(CrlError::Rollback { seen, found });
        }
        if next.epoch > self.epoch {
            return Err(
                self.fork(next, "a new epoch begins only by a rotation, which this version does not know")
            );
        }
        if next.number == self.number {
            if next.header == self.header {
                return Ok(Advance::Same);
            }
            let (seen, found) = pair();
            return Err(CrlError::Equivocation { seen, found });
        }
        if self.number.checked_add(1) == Some(next.number) && previous != Some(self.header) {
            return Err(self.fork(next, "it names another list as the one before it"));
        }
        Ok(Advance::Forward)
    }

    fn fork(&self, next: &Self, why: &'static str) -> CrlError {
        CrlError::Fork { seen: Box::new(self.clone()), found: Box::new(next.clone()), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipe_spec::code::Code;

    fn mark(epoch: u64, number: u64, content: &[u8]) -> Mark {
        Mark {
            issuer: "site".parse().unwrap(),
            scope: Scope::Site,
            epoch,
            number,
            header: Sha256Digest::of(content),
            this_update: Timestamp::from_unix(1000),
        }
    }

    fn verdict(seen: &Mark, next: &Mark, previous: &[u8]) -> Result<Advance, Code> {
        seen.admits(next, Some(Sha256Digest::of(previous))).map_err(|error| error.code())
    }

    #[test]
    fn the_whole_table() {
        let seen = mark(3, 7, b"seven");
        assert_eq!(verdict(&seen, &seen, b"six"), Ok(Advance::Same));
        assert_eq!(verdict(&seen, &mark(3, 8, b"eight"), b"seven"), Ok(Advance::Forward));
        assert_eq!(verdict(&seen, &mark(3, 8, b"eight"), b"other"), Err(Code::CrlFork));
        assert_eq!(verdict(&seen, &mark(3, 9, b"nine"), b"eight"), Ok(Advance::Forward));
        assert_eq!(verdict(&seen, &mark(3, 7, b"other"), b"six"), Err(Code::CrlEquivocation));
        assert_eq!(verdict(&seen, &mark(3, 6, b"six"), b"five"), Err(Code::CrlRollback));
        assert_eq!(verdict(&seen, &mark(2, 99, b"x"), b"seven"), Err(Code::CrlRollback));
        assert_eq!(verdict(&seen, &mark(4, 1, b"x"), b"seven"), Err(Code::CrlFork));
        assert_eq!(verdict(&seen, &mark(4, 8, b"x"), b"seven"), Err(Code::CrlFork));
        let renamed = Mark { issuer: "other".parse().unwrap(), ..mark(3, 8, b"eight") };
        assert_eq!(verdict(&seen, &renamed, b"seven"), Err(Code::CrlInvalid));
        let earlier = |number| Mark { this_update: Timestamp::from_unix(999), ..mark(3, number, b"earlier") };
        assert_eq!(verdict(&seen, &earlier(8), b"seven"), Ok(Advance::Forward));
        assert_eq!(verdict(&seen, &earlier(8), b"other"), Err(Code::CrlFork));
        assert_eq!(verdict(&seen, &earlier(9), b"eight"), Err(Code::CrlFork));
        assert_eq!(verdict(&seen, &earlier(7), b"six"), Err(Code::CrlEquivocation));
        assert_eq!(verdict(&seen, &earlier(6), b"five"), Err(Code::CrlRollback));
    }

    #[test]
    fn the_highest_number_has_no_successor() {
        let last = mark(1, u64::MAX, b"last");
        assert_eq!(verdict(&last, &last, b""), Ok(Advance::Same));
        assert_eq!(verdict(&last, &mark(1, u64::MAX, b"x"), b"last"), Err(Code::CrlEquivocation));
        assert_eq!(verdict(&last, &mark(1, 1, b"x"), b"last"), Err(Code::CrlRollback));
        let before = mark(1, u64::MAX - 1, b"before");
        assert_eq!(verdict(&before, &last, b"before"), Ok(Advance::Forward));
        assert_eq!(verdict(&before, &last, b"x"), Err(Code::CrlFork));
    }
}
