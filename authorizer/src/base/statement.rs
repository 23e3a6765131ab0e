//! The site's statement over a base: which files, from which archive, by which tools.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;

use guest::facts::Facts;
use recipe_spec::statement::{BASE_PREDICATE, Statement, Subject};
use recipe_spec::{Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};
use signer::{PAYLOAD_TYPE, Signer, dsse};

use super::error::BaseError;
use super::{DISK_FILE, FILES, STATEMENT_FILE};
use crate::regular_file;

/// Largest disk of a base and largest other file of it, in bytes. A sparse file of any size costs its maker nothing, and
/// whoever hashes it hours.
const MAX_DISK: u64 = 64 << 30;
const MAX_OTHER: u64 = 512 << 20;

/// Predicate `urn:countersign:base:v1`: what the base was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasePredicate {
    /// Name in the site's catalogue.
    pub name: String,
    /// When the build ended.
    pub created: Timestamp,
    /// Release of its kernel (`uname -r`).
    pub kernel: String,
    /// The archive's signed release files, sorted by suite.
    pub releases: Vec<Release>,
    /// Version of each installed package.
    pub packages: BTreeMap<String, String>,
    /// Version of each tool of the host that made it.
    pub tools: BTreeMap<String, String>,
}

/// A release file of the archive, as apt accepted its signature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// For example `bookworm-security`.
    pub suite: String,
    /// `Date` as the archive wrote it.
    pub date: String,
    /// Of the file.
    pub sha256: Sha256Digest,
}

/// A signed statement.
pub(super) struct Signed {
    pub(super) envelope: Vec<u8>,
    pub(super) payload_sha256: Sha256Digest,
}

/// Hashes the finished files and signs the statement over them.
pub(super) fn sign(folder: &Path, predicate: BasePredicate, signer: &Signer) -> Result<Signed, BaseError> {
    let mut subject = Vec::new();
    for file in FILES {
        subject.push(Subject::new(file, digest(&folder.join(file))?));
    }
    let payload = Statement::new(subject, BASE_PREDICATE, predicate)
        .to_bytes()
        .map_err(|error| BaseError::Sign(error.to_string()))?;
    let envelope =
        dsse::sign(PAYLOAD_TYPE, &payload, signer).map_err(|error| BaseError::Sign(error.to_string()))?;
    Ok(Signed { envelope: envelope.to_bytes(), payload_sha256: Sha256Digest::of(&payload) })
}

/// A statement whose signature was checked.
pub(super) struct Opened {
    pub(super) predicate: BasePredicate,
    /// In the order of [`FILES`].
    pub(super) digests: [Sha256Digest; FILES.len()],
}

/// Reads a payload whose signature was checked: exactly our files, in our order.
pub(super) fn open(payload: &[u8]) -> Result<Opened, BaseError> {
    let mismatch = |reason: String| BaseError::Mismatch { file: STATEMENT_FILE.to_owned(), reason };
    let statement = Statement::<BasePredicate>::parse_untrusted(payload, BASE_PREDICATE)
        .map_err(|error| mismatch(error.to_string()))?;
    let names: Vec<&str> = statement.subject.iter().map(|subject| subject.name.as_str()).collect();
    if names != FILES {
        return Err(mismatch(format!("it names {}", names.join(", "))));
    }
    let mut digests = [Sha256Digest::from_bytes([0; 32]); FILES.len()];
    for (digest, subject) in digests.iter_mut().zip(&statement.subject) {
        *digest = subject.digest.sha256;
    }
    Ok(Opened { predicate: statement.predicate, digests })
}

/// `facts.json`: one line, so that equal machines give equal bytes.
pub(super) fn facts_bytes(facts: &Facts) -> Result<Vec<u8>, BaseError> {
    let mut bytes = serde_json::to_vec(facts)
        .map_err(|error| BaseError::BadTree { reason: format!("its facts cannot be written: {error}") })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// SHA-256 of one of a base's files.
pub(super) fn digest(path: &Path) -> Result<Sha256Digest, BaseError> {
    let limit = if path.file_name().is_some_and(|name| name == DISK_FILE) { MAX_DISK } else { MAX_OTHER };
    let mut file = regular_file::open(path).map_err(unusable(path))?;
    if file.metadata()?.len() > limit {
        return Err(mismatch(path, format!("it is larger than {limit} bytes")));
    }
    Ok(harness::file_digest(&mut file)?)
}

/// The bytes of a file that has at most `limit`.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, BaseError> {
    regular_file::read(path, limit).map_err(unusable(path))
}

/// What cannot be the file that was signed, whatever is in it, is another; the rest is the host's.
fn unusable(path: &Path) -> impl FnOnce(io::Error) -> BaseError + '_ {
    move |error| match error.kind() {
        ErrorKind::NotFound => mismatch(path, "it is missing".to_owned()),
        ErrorKind::InvalidInput | ErrorKind::FileTooLarge => mismatch(path, error.to_string()),
        _ => BaseError::Io(error),
    }
}

fn mismatch(path: &Path, reason: String) -> BaseError {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    BaseError::Mismatch { file, reason }
}
