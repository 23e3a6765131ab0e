//! The ledger: which content each version of a recipe had when it was first verified, and which versions were
//! authorized. A version never changes its content, and nothing goes back to an older version unasked.
//!
//! A file of JSON lines that only ever grows. A line counts once it is whole and flushed; a last line that a kill
//! tore is cut off at the next opening, and damage anywhere else is an error, because a ledger with a hole would
//! admit what it was kept to refuse.
//!
//! Build metadata (`1.4.0+b`) does not make another version (SemVer §10): what has the same precedence must have the
//! same content.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use recipe_spec::{Code, RecipeName, Sha256Digest, Timestamp};
use rustix::fs::{FlockOperation, flock};
use semver::{BuildMetadata, Version};
use serde::{Deserialize, Serialize};

use crate::regular_file;
use crate::stopped::is_full;

/// The most bytes a ledger may have: some 250,000 versions.
const LEDGER_BYTES: u64 = 64 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    event: Happened,
    name: RecipeName,
    version: Version,
    recipe: Sha256Digest,
    at: Timestamp,
    /// Of the repository of authorizations, where the version was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Happened {
    Verified,
    Authorized,
    Published,
}

/// How a version came to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is what the repository holds now: it must not be below what was authorized before.
    Newest,
    /// A person named this version, and may go back to it.
    ByVersion,
}

/// A site's ledger, locked for as long as this value lives: open it for a question and let go of it.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    first: BTreeMap<(RecipeName, Version), Entry>,
    highest: BTreeMap<RecipeName, Version>,
    authorized: BTreeSet<(RecipeName, Version)>,
    published: BTreeSet<(RecipeName, Version)>,
    last_commit: Option<String>,
}

/// What a version was when it was first verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The recipe's digest.
    pub recipe: Sha256Digest,
    /// When it was first verified here.
    pub first_seen: Timestamp,
}

/// Why the ledger refuses a recipe, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The version was seen with other content.
    #[error(
        "{name} {version} was seen on {first_seen} with other content ({recorded}, now {offered}): raise the version"
    )]
    Reused {
        /// The recipe.
        name: Box<RecipeName>,
        /// The version offered.
        version: Box<Version>,
        /// When the other content was first seen.
        first_seen: Timestamp,
        /// The other content's digest.
        recorded: Sha256Digest,
        /// The digest offered.
        offered: Sha256Digest,
    },
    /// A higher version is authorized.
    #[error(
        "{name} {version} is below {highest}, which is authorized already: ask for the version to go back to it"
    )]
    Rollback {
        /// The recipe.
        name: Box<RecipeName>,
        /// The version offered.
        version: Box<Version>,
        /// The highest authorized version.
        highest: Box<Version>,
    },
    /// It is not there.
    #[error(
        "{}: the ledger is missing: restore it from a copy, nothing is decided without it (an empty file in its place forgets every version that was seen)",
        path.display()
    )]
    Missing {
        /// The ledger.
        path: PathBuf,
    },
    /// A line in the middle is not one of ours.
    #[error("{}: line {line} is damaged: restore the ledger from a copy, nothing is decided without it", path.display())]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// It has grown beyond the limit.
    #[error("{}: larger than {LEDGER_BYTES} bytes", path.display())]
    TooLarge {
        /// The ledger.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The ledger.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl LedgerError {
    /// The code of a refusal; none where the site's own folder is at fault.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Reused { .. } => Some(Code::VersionReused),
            Self::Rollback { .. } => Some(Code::VersionRollback),
            Self::Io { source, .. } if is_full(source) => Some(Code::HostFull),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::Interrupted => {
                Some(Code::Interrupted)
            }
            Self::Missing { .. } | Self::Damaged { .. } | Self::TooLarge { .. } | Self::Io { .. } => None,
        }
    }
}

impl Ledger {
    /// Opens the ledger, which `init` made, and waits for other processes to close it. A torn last line is cut off.
    ///
    /// # Errors
    /// [`LedgerError::Missing`]: a new one would admit what the lost one refused; [`LedgerError::Damaged`], [`LedgerError::TooLarge`], [`LedgerError::Io`].
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let io = |action| move |source| LedgerError::Io { action, path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let mut file = regular_file::open_with(&mut options, path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => LedgerError::Missing { path: path.to_owned() },
            _ => io("open")(source),
        })?;
        flock(&file, FlockOperation::LockExclusive).map_err(|errno| io("lock")(errno.into()))?;
        if file.metadata().map_err(io("read"))?.len() > LEDGER_BYTES {
            return Err(LedgerError::TooLarge { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        (&file).take(LEDGER_BYTES + 1).read_to_end(&mut bytes).map_err(io("read"))?;
        if bytes.len() as u64 > LEDGER_BYTES {
            return Err(LedgerError::TooLarge { path: path.to_owned() });
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io("repair"))?;
        }
        // The name of a new file is flushed too, or a crash could take the ledger away as a whole.
        file.sync_all().map_err(io("flush"))?;
        if let Some(parent) = path.parent() {
            File::open(parent).and_then(|folder| folder.sync_all()).map_err(io("flush"))?;
        }
        file.seek(SeekFrom::Start(whole as u64)).map_err(io("read"))?;
        let mut ledger = Self {
            path: path.to_owned(),
            file,
            first: BTreeMap::new(),
            highest: BTreeMap::new(),
            authorized: BTreeSet::new(),
            published: BTreeSet::new(),
            last_commit: None,
        };
        for (number, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let damaged = || LedgerError::Damaged { path: path.to_owned(), line: number + 1 };
            let line: Line = serde_json::from_slice(line).map_err(|_| damaged())?;
            let known = ledger.first.get(&key(&line.name, &line.version)).map(|entry| entry.recipe);
            let consistent = match line.event {
                Happened::Verified => known.is_none(),
                Happened::Authorized | Happened::Published => known == Some(line.recipe),
            };
            if !consistent || line.commit.is_some() != (line.event == Happened::Published) {
                return Err(damaged());
            }
            ledger.remember(line);
        }
        Ok(ledger)
    }

    /// Judges and records a recipe whose signature was just verified. Every version is recorded with the content it
    /// had first, also when it is then refused.
    ///
    /// # Errors
    /// [`LedgerError::Reused`] if the version had other content; [`LedgerError::Rollback`] if it is below the highest
    /// authorized one and was not asked for by version; [`LedgerError::Io`].
    pub fn record_verified(
        &mut self,
        name: &RecipeName,
        version: &Version,
        recipe: Sha256Digest,
        asked: Asked,
        now: Timestamp,
    ) -> Result<Entry, LedgerError> {
        let entry = match self.entry(name, version) {
            Some(entry) => entry,
            None => {
                self.append(Line {
                    event: Happened::Verified,
                    name: name.clone(),
                    version: version.clone(),
                    recipe,
                    at: now,
                    commit: None,
                })?;
                Entry { recipe, first_seen: now }
            }
        };
        self.check_content(name, version, entry, recipe)?;
        match self.highest_authorized(name) {
            Some(highest) if asked == Asked::Newest && version.cmp_precedence(highest).is_lt() => {
                Err(LedgerError::Rollback {
                    name: name.clone().into(),
                    version: version.clone().into(),
                    highest: highest.clone().into(),
                })
            }
            _ => Ok(entry),
        }
    }

    /// Records that a version is about to be authorized. Called before the authorization is published: a crash
    /// between the two then leaves the stricter state.
    ///
    /// # Errors
    /// [`LedgerError::Reused`] if the version was verified with other content, [`LedgerError::Io`].
    pub fn record_authorized(
        &mut self,
        name: &RecipeName,
        version: &Version,
        recipe: Sha256Digest,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.record_verified(name, version, recipe, Asked::ByVersion, now)?;
        self.append(Line {
            event: Happened::Authorized,
            name: name.clone(),
            version: version.clone(),
            recipe,
            at: now,
            commit: None,
        })
    }

    /// Records that an authorization is published, by this commit or by one before it. Called after the commit, and later for
    /// what a kill in between kept from being recorded.
    ///
    /// # Errors
    /// As [`Ledger::record_authorized`].
    pub fn record_published(
        &mut self,
        name: &RecipeName,
        version: &Version,
        recipe: Sha256Digest,
        commit: &str,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.record_verified(name, version, recipe, Asked::ByVersion, now)?;
        self.append(Line {
            event: Happened::Published,
            name: name.clone(),
            version: version.clone(),
            recipe,
            at: now,
            commit: Some(commit.to_owned()),
        })
    }

    /// What a version was when it was first verified here.
    pub fn entry(&self, name: &RecipeName, version: &Version) -> Option<Entry> {
        self.first.get(&key(name, version)).copied()
    }

    /// The highest version of a recipe that was ever about to be authorized here, whether or not that was published.
    pub fn highest_authorized(&self, name: &RecipeName) -> Option<&Version> {
        self.highest.get(name)
    }

    /// The highest version of a recipe whose authorization was published.
    pub fn highest_published(&self, name: &RecipeName) -> Option<&Version> {
        let of_name = self.published.iter().filter(|(published, _)| published == name);
        of_name.map(|(_, version)| version).max_by(|one, other| one.cmp_precedence(other))
    }

    /// Every version whose authorization was published.
    #[must_use]
    pub fn published(&self) -> &BTreeSet<(RecipeName, Version)> {
        &self.published
    }

    /// Every version that was about to be authorized and of which nobody recorded that it was published.
    pub fn unpublished(&self) -> impl Iterator<Item = &(RecipeName, Version)> {
        self.authorized.difference(&self.published)
    }

    /// The last commit by which something was published.
    #[must_use]
    pub fn last_commit(&self) -> Option<&str> {
        self.last_commit.as_deref()
    }

    fn check_content(
        &self,
        name: &RecipeName,
        version: &Version,
        entry: Entry,
        offered: Sha256Digest,
    ) -> Result<(), LedgerError> {
        if entry.recipe == offered {
            return Ok(());
        }
        Err(LedgerError::Reused {
            name: name.clone().into(),
            version: version.clone().into(),
            first_seen: entry.first_seen,
            recorded: entry.recipe,
            offered,
        })
    }

    fn append(&mut self, line: Line) -> Result<(), LedgerError> {
        let io = |action| {
            let path = self.path.clone();
            move |source| LedgerError::Io { action, path, source }
        };
        let mut bytes = serde_json::to_vec(&line).map_err(|error| io("write")(error.into()))?;
        bytes.push(b'\n');
        let before = self.file.stream_position().map_err(io("write"))?;
        if before + bytes.len() as u64 > LEDGER_BYTES {
            return Err(LedgerError::TooLarge { path: self.path.clone() });
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not be continued by the next one; if this fails too, the next opening cuts it off.
            let _ = self.file.set_len(before).and_then(|()| self.file.seek(SeekFrom::Start(before)));
            return Err(io("write")(error));
        }
        self.remember(line);
        Ok(())
    }

    fn remember(&mut self, line: Line) {
        match line.event {
            Happened::Verified => {
                self.first
                    .entry(key(&line.name, &line.version))
                    .or_insert(Entry { recipe: line.recipe, first_seen: line.at });
            }
            Happened::Published => {
                self.published.insert((line.name, line.version));
                self.last_commit = line.commit;
            }
            Happened::Authorized => {
                self.authorized.insert((line.name.clone(), line.version.clone()));
                let highest = self.highest.entry(line.name).or_insert_with(|| line.version.clone());
                if highest.cmp_precedence(&line.version).is_lt() {
                    *highest = line.version;
                }
            }
        }
    }
}

/// What identifies a version: its precedence, so without build metadata.
fn key(name: &RecipeName, version: &Version) -> (RecipeName, Version) {
    (name.clone(), Version { build: BuildMetadata::EMPTY, ..version.clone() })
}

#[cfg(test)]
mod tests;
