//! The site's repository of authorizations: bare, one commit on `main` for each authorization, read back from its
//! objects alone.
//!
//! A reader sees the old commit or the new one and nothing between, because objects come first and the reference
//! moves last, from the value that was expected. A kill leaves objects that nothing names.

mod error;
mod path;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use git2::{ErrorCode, Oid, Repository, RepositoryInitOptions};
use recipe_spec::payload::PayloadFile;
use recipe_spec::{RecipeName, Sha256Digest, Timestamp};
use semver::Version;

use self::shelf::Shelf;
use crate::authorization;
use crate::site::{Layout, SiteLock};

pub use error::PublicationError;
pub use path::PublishedPath;

/// The authorization itself, within its version's folder.
pub const AUTHORIZATION_FILE: &str = "authorization.intoto.jsonl";
/// The recipe's envelope as the VO signed it.
pub const RECIPE_ENVELOPE_FILE: &str = "recipe.intoto.jsonl";
/// The folder of the recipe's files.
pub const RECIPE_FOLDER: &str = "recipe";
/// The folder of evidence that the authorization names by digest.
pub const EVIDENCE_FOLDER: &str = "evidence";

/// The most files of one publication.
const FILES: usize = 2048;
/// The most bytes of all its files.
pub(crate) const BYTES: usize = 64 << 20;
/// The files of one version, by path within its folder.
pub type Files = BTreeMap<PublishedPath, PayloadFile>;

/// What was published of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The recipe.
    pub name: RecipeName,
    /// Its version.
    pub version: Version,
    /// The commit that was read, 40 hexadecimal digits.
    pub commit: String,
    /// All files of the version's folder.
    pub files: Files,
}

impl Published {
    /// The bytes of a file, given as text.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        let path: PublishedPath = path.parse().ok()?;
        self.files.get(&path).map(|file| file.bytes.as_slice())
    }
}

/// Makes the empty bare repository at `path`.
///
/// # Errors
/// [`PublicationError::Git`].
pub fn init(path: &Path) -> Result<(), PublicationError> {
    let make = || -> Result<(), git2::Error> {
        let mut options = RepositoryInitOptions::new();
        let repository =
            Repository::init_opts(path, options.bare(true).external_template(false).initial_head("main"))?;
        let mut config = repository.config()?.open_level(git2::ConfigLevel::Local)?;
        // An authorization that was announced must survive a crash: libgit2 flushes objects and references then.
        config.set_bool("core.fsyncObjectFiles", true)
    };
    make().map_err(|source| PublicationError::Git { path: path.to_owned(), source })
}

/// Publishes the files of one version as one commit; what was published of that version before is replaced (and
/// stays in the history). Gives the commit's id.
///
/// # Errors
/// [`PublicationError`]; the repository is then as it was.
pub fn publish(
    lock: &SiteLock,
    name: &RecipeName,
    version: &Version,
    files: &Files,
    message: &str,
    now: Timestamp,
) -> Result<String, PublicationError> {
    stage(lock, files)?.publish(lock, name, version, message, now)
}

/// Files that lie in the repository, and nothing there names them yet.
pub(crate) struct Staged {
    shelf: Shelf,
    folder: Oid,
}

impl Staged {
    /// Publishes them as [`publish`] does.
    pub(crate) fn publish(
        &self,
        _lock: &SiteLock,
        name: &RecipeName,
        version: &Version,
        message: &str,
        now: Timestamp,
    ) -> Result<String, PublicationError> {
        self.shelf.publish(name, version, self.folder, message, now)
    }
}

/// Writes the files of one version: what cannot be published is refused here, before anybody notes that it will be.
pub(crate) fn stage(lock: &SiteLock, files: &Files) -> Result<Staged, PublicationError> {
    if files.len() > FILES {
        return Err(PublicationError::TooLarge { limit: FILES, unit: "files" });
    }
    if files.values().map(|file| file.bytes.len()).sum::<usize>() > BYTES {
        return Err(PublicationError::TooLarge { limit: BYTES, unit: "bytes" });
    }
    let shelf = Shelf::open(&lock.authorizations())?;
    shelf.sweep();
    let files: Vec<_> = files.iter().map(|(path, file)| (path.as_str(), file)).collect();
    let folder = shelf.write_folder(&files).map_err(|error| shelf.git(error))?;
    Ok(Staged { shelf, folder })
}

/// The files of a version: the one named, else the highest by precedence (SemVer §11).
///
/// # Errors
/// [`PublicationError::NotAuthorized`] if there is none; others where the repository cannot be read.
pub fn lookup(
    repository: &Path,
    name: &RecipeName,
    version: Option<&Version>,
) -> Result<Published, PublicationError> {
    Shelf::open(repository)?.lookup(name, version)
}

/// All recipes and versions that are published, by name and then by version. What is listed was not verified.
///
/// # Errors
/// [`PublicationError`], where the repository cannot be read.
pub fn list(repository: &Path) -> Result<Vec<(RecipeName, Version)>, PublicationError> {
    Shelf::open(repository)?.list()
}

/// Whether `main` is at this commit or was: a repository that was put back to an earlier state, or is empty, does not hold it.
///
/// # Errors
/// [`PublicationError`], where the repository cannot be read.
pub fn holds_commit(repository: &Path, commit: &str) -> Result<bool, PublicationError> {
    let shelf = Shelf::open(repository)?;
    let (Some(tip), Ok(commit)) = (shelf.tip()?, Oid::from_str(commit)) else { return Ok(false) };
    match shelf.repository.graph_descendant_of(tip, commit) {
        Ok(descends) => Ok(descends || tip == commit),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
        Err(error) => Err(shelf.git(error)),
    }
}

/// The commit of `main`; none before the first publication.
///
/// # Errors
/// [`PublicationError`], where the repository cannot be read.
pub fn tip(repository: &Path) -> Result<Option<String>, PublicationError> {
    Ok(Shelf::open(repository)?.tip()?.map(|id| id.to_string()))
}

/// The digests of all layers and templates that a published authorization names, whether it holds or not. Unverified: it tells
/// what to keep, never what to trust.
///
/// # Errors
/// [`PublicationError::Damaged`] if an authorization cannot be read, and others where the repository cannot.
pub fn needed_untrusted(repository: &Path) -> Result<BTreeSet<Sha256Digest>, PublicationError> {
    let shelf = Shelf::open(repository)?;
    let mut needed = BTreeSet::new();
    let Some((_, root)) = shelf.root()? else { return Ok(needed) };
    for (name, version) in shelf.list()? {
        let path = format!("{}/{AUTHORIZATION_FILE}", Layout::publication(&name, &version));
        let named = shelf.small_file(&root, &path)?.and_then(|file| authorization::needed_untrusted(&file));
        needed.extend(named.ok_or_else(|| shelf.damaged(format!("{path} cannot be read")))?);
    }
    Ok(needed)
}

#[cfg(test)]
mod tests;
