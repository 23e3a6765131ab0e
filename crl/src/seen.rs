//! The highest list ever seen, kept on disk and never lowered.
//!
//! A signature says who made a list, not that it is the latest: whoever serves an old one must be caught by memory. The
//! memory holds signed values only (a [`Mark`]), never the time of this machine's clock, so that a clock that once
//! ran ahead locks nobody out. If it was the issuer's clock that ran ahead, the list that follows, dated rightly, is admitted.
//!
//! One folder remembers the lists of one source: `crl-seen` holds three lines (a title, the mark as JSON, the SHA-256 of
//! the first two), and `crl-seen.lock` is locked while it is read and replaced. What does not read back exactly is an
//! error that refuses; it is never taken for "nothing seen".

use std::fs::File;
use std::path::{Path, PathBuf};

use recipe_spec::digest::Sha256Digest;
use recipe_spec::timestamp::Timestamp;
use signer::trust::SitePins;

use crate::error::CrlError;
use crate::file;
use crate::folder::load;
use crate::list::{AuthenticCrl, FUTURE_TOLERANCE_SECONDS, RecipeCrl};
use crate::mark::{Advance, Mark};

const STATE_FILE: &str = "crl-seen";
const LOCK_FILE: &str = "crl-seen.lock";
const TITLE: &str = "countersign crl seen v1";

/// Most bytes of the state file: two names, a few numbers, two digests.
const MAX_STATE_BYTES: u64 = 4096;

/// The memory of one source of lists. Processes and threads may share its folder.
#[derive(Debug)]
pub struct Seen {
    folder: PathBuf,
}

impl Seen {
    /// Opens the memory in `folder`, which is made if it does not exist. A damaged state file is an error
    /// (`CRL_INVALID`), and so is a link or anything else in the folder's place.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, CrlError> {
        let folder = folder.into();
        no_other_memory(&folder)?;
        file::make_folder(&folder)?;
        let seen = Self { folder };
        seen.mark()?;
        Ok(seen)
    }

    /// The highest list seen so far.
    pub fn mark(&self) -> Result<Option<Mark>, CrlError> {
        self.read(&self.lock()?)
    }

    /// Refuses (`CLOCK_BACKWARD`) a clock that is behind the issue time of a list already seen.
    pub fn check_clock(&self, now: Timestamp) -> Result<(), CrlError> {
        match self.mark()? {
            Some(mark) => check_clock(&mark, now),
            None => Ok(()),
        }
    }

    /// Compares a list, which may have expired, with the highest one seen, and remembers nothing: whoever shows or extends a
    /// list asks whether it is one that counts.
    ///
    /// # Errors
    /// `CRL_ROLLBACK`, `CRL_EQUIVOCATION`, `CRL_FORK`, `CRL_INVALID`.
    pub fn compare(&self, list: &AuthenticCrl) -> Result<(), CrlError> {
        match self.mark()? {
            Some(mark) => mark.is_continued_by(&list.mark(), list.header().previous()).map(drop),
            None => Ok(()),
        }
    }

    /// As [`Seen::compare`], for whoever only looks into `folder`: nothing is made or locked there, so it may be read-only. The
    /// state is replaced as a whole, so it is read as a whole too.
    ///
    /// # Errors
    /// As [`Seen::compare`].
    pub fn compare_in(folder: &Path, list: &AuthenticCrl) -> Result<(), CrlError> {
        match read_state(folder)? {
            Some(mark) => mark.is_continued_by(&list.mark(), list.header().previous()).map(drop),
            None => Ok(()),
        }
    }

    /// Compares a list with the highest one seen and, if it is newer, remembers it on disk before returning.
    ///
    /// A first list is trusted as it is: ask [`RecipeCrl::require_number`] for what an authorization demands.
    ///
    /// # Errors
    /// `CRL_ROLLBACK`, `CRL_EQUIVOCATION`, `CRL_FORK`, `CLOCK_BACKWARD`; `CRL_INVALID` for another issuer's list or a
    /// damaged state file; `CRL_MISSING` or `HOST_FULL` if the state cannot be read or kept, for what is not
    /// remembered could be rolled back tomorrow.
    pub fn admit(&self, list: &RecipeCrl, now: Timestamp) -> Result<(), CrlError> {
        let lock = self.lock()?;
        let next = list.mark();
        if let Some(mark) = self.read(&lock)? {
            let previous = list.header().previous();
            let advance = match check_clock(&mark, now) {
                Ok(()) => mark.admits(&next, previous)?,
                // The issuer's own clock may have been ahead: a later list of today says so.
                Err(_) if next.number > mark.number && !is_ahead(next.this_update, now) => {
                    mark.is_continued_by(&next, previous)?
                }
                Err(behind) => return Err(behind),
            };
            if advance == Advance::Same {
                return Ok(());
            }
        }
        file::replace(&self.folder, STATE_FILE, encode(&next).as_bytes())
    }

    /// The list in `published`, checked in every respect: signature, form, body and dates, then this memory and the clock.
    /// This is what a decision asks for.
    ///
    /// A clock that is behind has its name whatever else is found: at another time, all else may be in order.
    pub fn current(&self, published: &Path, pins: &SitePins, now: Timestamp) -> Result<RecipeCrl, CrlError> {
        let clock = self.check_clock(now);
        let list = load(published)
            .and_then(|(header, body)| RecipeCrl::verify(&header, body, pins, now))
            .or_else(|error| clock.and(Err(error)))?;
        self.admit(&list, now)?;
        Ok(list)
    }

    fn lock(&self) -> Result<File, CrlError> {
        file::lock(&self.folder.join(LOCK_FILE))
    }

    /// Reads the state; the lock is a parameter so that nobody forgets it.
    fn read(&self, _lock: &File) -> Result<Option<Mark>, CrlError> {
        read_state(&self.folder)
    }
}

/// Refuses what lies in place of the folder: a link would lead to a memory that somebody else keeps, perhaps an old one.
fn no_other_memory(folder: &Path) -> Result<(), CrlError> {
    match folder.symlink_metadata() {
        Ok(found) if !found.is_dir() => {
            Err(CrlError::State { path: folder.to_owned(), why: "it is not a folder" })
        }
        _ => Ok(()),
    }
}

fn read_state(folder: &Path) -> Result<Option<Mark>, CrlError> {
    no_other_memory(folder)?;
    let path = folder.join(STATE_FILE);
    let Some(bytes) = file::read_if_present(&path, MAX_STATE_BYTES)? else { return Ok(None) };
    decode(&bytes).map(Some).map_err(|why| CrlError::State { path, why })
}

/// A list may be dated ahead of us by the tolerance, so that much behind it is no clock that went back.
fn check_clock(mark: &Mark, now: Timestamp) -> Result<(), CrlError> {
    if is_ahead(mark.this_update, now) {
        return Err(CrlError::ClockBackward { seen: mark.this_update, now });
    }
    Ok(())
}

fn is_ahead(issued: Timestamp, now: Timestamp) -> bool {
    now.plus_seconds(FUTURE_TOLERANCE_SECONDS) < issued
}

fn encode(mark: &Mark) -> String {
    let json = serde_json::to_string(mark)
        .unwrap_or_else(|_| unreachable!("a mark has no map with other keys than text"));
    let text = format!("{TITLE}\n{json}\n");
    let check = Sha256Digest::of(text.as_bytes());
    format!("{text}{check}\n")
}

/// Reads what [`encode`] writes, byte for byte.
fn decode(bytes: &[u8]) -> Result<Mark, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let json = text
        .strip_prefix(TITLE)
        .and_then(|rest| rest.strip_prefix('\n'))
        .and_then(|rest| rest.lines().next())
        .ok_or("its first line is not the expected one")?;
    let mark: Mark = serde_json::from_str(json).map_err(|_| "its second line is no mark of a list")?;
    if encode(&mark) == text { Ok(mark) } else { Err("its check sum is wrong") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Scope;

    fn mark() -> Mark {
        Mark {
            issuer: "Example \"site\"".parse().unwrap(),
            scope: Scope::Site,
            epoch: 1,
            number: u64::MAX,
            header: Sha256Digest::of(b"header"),
            this_update: Timestamp::from_unix(1_800_000_000),
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_of_the_state_refuses() {
        let whole = encode(&mark()).into_bytes();
        assert_eq!(decode(&whole), Ok(mark()));
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit} flipped");
        }
        assert!(decode(&[&whole[..], b"\n"].concat()).is_err());
    }

    #[test]
    fn a_damaged_state_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Seen::open(folder.path()).unwrap();
        assert_eq!(seen.mark().unwrap(), None);
        std::fs::write(folder.path().join(STATE_FILE), b"").unwrap();
        assert!(matches!(seen.mark(), Err(CrlError::State { .. })));
        let error = Seen::open(folder.path()).unwrap_err();
        assert_eq!(error.code(), recipe_spec::code::Code::CrlInvalid);
        std::fs::remove_file(folder.path().join(STATE_FILE)).unwrap();
        std::fs::create_dir(folder.path().join(STATE_FILE)).unwrap();
        assert!(seen.mark().is_err(), "nor is a folder in its place");
    }

    #[test]
    fn another_memory_in_place_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let _ = Seen::open(at("old")).unwrap();
        std::os::unix::fs::symlink("old", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("broken")).unwrap();
        std::fs::write(at("file"), b"").unwrap();
        for name in ["link", "broken", "file"] {
            let error = Seen::open(at(name)).unwrap_err();
            assert!(matches!(error, CrlError::State { .. }), "{name}: {error}");
            assert!(matches!(read_state(&at(name)), Err(CrlError::State { .. })), "{name}");
        }
    }
}
