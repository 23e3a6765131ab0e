//! The site's repository of authorizations: bare, one commit on `main` for each authorization, read back from its
//! objects alone.
//!
//! A reader sees the old commit or the new one and nothing between, because objects come first and the reference
//! moves last, from the value that was expected. A kill leaves objects that nothing names.

mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use git2::{
    ErrorClass, ErrorCode, FileMode, ObjectType, Oid, Repository, RepositoryInitOptions, Signature, Time,
    Tree, TreeBuilder,
};
use recipe_spec::payload::PayloadFile;
use recipe_spec::{Code, RecipeName, Sha256Digest, Timestamp};
use semver::Version;

use crate::authorization;
use crate::regular_file;
use crate::site::{Layout, SiteLock};
use crate::stopped::git_is_full;

pub use path::PublishedPath;

/// The authorization itself, within its version's folder.
pub const AUTHORIZATION_FILE: &str = "authorization.intoto.jsonl";
/// The recipe's envelope as the VO signed it.
pub const RECIPE_ENVELOPE_FILE: &str = "recipe.intoto.jsonl";
/// The folder of the recipe's files.
pub const RECIPE_FOLDER: &str = "recipe";
/// The folder of evidence that the authorization names by digest.
pub const EVIDENCE_FOLDER: &str = "evidence";

const BRANCH: &str = "refs/heads/main";
/// Who commits: git wants somebody, the authorization's signature is what counts.
const COMMITTER: (&str, &str) = ("countersign", "countersign@localhost");

/// Begins the name of an object's file while libgit2 writes it.
const HALF_OBJECT: &str = "tmp_object_git2_";

/// The most files of one publication.
const FILES: usize = 2048;
/// The most bytes of all its files.
pub(crate) const BYTES: usize = 64 << 20;
/// Files of a repository beside its objects, and the most bytes of each.
const READ_WHOLE: [&str; 3] = ["HEAD", "config", "packed-refs"];
const SMALL: u64 = 16 << 20;
/// The most recipes, and versions of one, that are listed.
const ENTRIES: usize = 100_000;

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

/// Why something could not be published or found.
#[derive(Debug, thiserror::Error)]
pub enum PublicationError {
    /// No authorization of this recipe or version.
    #[error("{what} is not authorized at this site")]
    NotAuthorized {
        /// `VO/name` or `VO/name@version`.
        what: String,
    },
    /// The repository's content is not what we write.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The repository.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// More than the limits.
    #[error("a publication of more than {limit} {unit}")]
    TooLarge {
        /// How much is allowed …
        limit: usize,
        /// … of what.
        unit: &'static str,
    },
    /// Another process published at the same moment, without the site lock.
    #[error("{}: {BRANCH} moved while it was written", path.display())]
    Moved {
        /// The repository.
        path: PathBuf,
    },
    /// git failed without a word, on a disk that has no room.
    #[error("{}: the disk has no room left", path.display())]
    NoRoom {
        /// The repository.
        path: PathBuf,
    },
    /// git failed.
    #[error("{}: {}", path.display(), source.message())]
    Git {
        /// The repository.
        path: PathBuf,
        /// Why.
        source: git2::Error,
    },
}

impl PublicationError {
    /// The code; none where the site's own folder is at fault.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::NotAuthorized { .. } => Some(Code::NotAuthorized),
            Self::NoRoom { .. } => Some(Code::HostFull),
            Self::Git { source, .. } if git_is_full(source) => Some(Code::HostFull),
            Self::Damaged { .. } | Self::TooLarge { .. } | Self::Moved { .. } | Self::Git { .. } => None,
        }
    }
}

/// Less than this, in bytes, and what git was writing may not have fitted: objects of some KB, and folders for them.
const LITTLE_ROOM: u64 = 1 << 20;

/// Bytes that the file system of `path` has left for us; none if it cannot be asked.
fn room_for(path: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(path).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
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

/// An open repository.
struct Shelf {
    path: PathBuf,
    repository: Repository,
}

impl Shelf {
    fn open(path: &Path) -> Result<Self, PublicationError> {
        // git reads these to their end, whatever they are.
        for name in READ_WHOLE.iter().map(Path::new).chain([Path::new(BRANCH)]) {
            match regular_file::read(&path.join(name), SMALL) {
                Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) => {
                    let what = format!("{}: {error}", name.display());
                    return Err(PublicationError::Damaged { path: path.to_owned(), what });
                }
                // What else is wrong with it git will say.
                _ => {}
            }
        }
        let repository = Repository::open_bare(path)
            .map_err(|source| PublicationError::Git { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), repository })
    }

    /// A full disk often makes libgit2 fail with no reason at all, so the disk is asked.
    fn git(&self, source: git2::Error) -> PublicationError {
        let path = self.path.clone();
        match source.class() {
            ErrorClass::None if room_for(&path).is_some_and(|left| left < LITTLE_ROOM) => {
                PublicationError::NoRoom { path }
            }
            _ => PublicationError::Git { path, source },
        }
    }

    fn damaged(&self, what: impl Into<String>) -> PublicationError {
        PublicationError::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// Removes what a kill left: git's own lock, and objects that were not whole. Who holds the site lock is alone here.
    fn sweep(&self) {
        let _ = std::fs::remove_file(self.path.join(format!("{BRANCH}.lock")));
        for entry in std::fs::read_dir(self.path.join("objects")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(HALF_OBJECT) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// The commit of `main`, unless nothing was published yet.
    fn tip(&self) -> Result<Option<Oid>, PublicationError> {
        match self.repository.refname_to_id(BRANCH) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.git(error)),
        }
    }

    fn publish(
        &self,
        name: &RecipeName,
        version: &Version,
        folder: Oid,
        message: &str,
        now: Timestamp,
    ) -> Result<String, PublicationError> {
        let tip = self.tip()?;
        let write = || -> Result<Oid, git2::Error> {
            let parent = tip.map(|id| self.repository.find_commit(id)).transpose()?;
            let root = parent.as_ref().map(git2::Commit::tree).transpose()?;
            let version = version.to_string();
            let tree = self.graft(root.as_ref(), &[name.vo(), name.name(), &version], folder)?;
            let time = Time::new(now.unix(), 0);
            let committer = Signature::new(COMMITTER.0, COMMITTER.1, &time)?;
            let tree = self.repository.find_tree(tree)?;
            let parents: Vec<_> = parent.iter().collect();
            self.repository.commit(None, &committer, &committer, message, &tree, &parents)
        };
        let commit = write().map_err(|error| self.git(error))?;
        let moved = match tip {
            Some(tip) => self.repository.reference_matching(BRANCH, commit, true, tip, message),
            None => self.repository.reference(BRANCH, commit, false, message),
        };
        match moved {
            Ok(_) => Ok(commit.to_string()),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Exists) => {
                Err(PublicationError::Moved { path: self.path.clone() })
            }
            Err(error) => Err(self.git(error)),
        }
    }

    /// Writes the tree of one folder; `files` are in the order of their paths.
    fn write_folder(&self, files: &[(&str, &PayloadFile)]) -> Result<Oid, git2::Error> {
        let mut builder = self.repository.treebuilder(None)?;
        let mut folders: BTreeMap<&str, Vec<(&str, &PayloadFile)>> = BTreeMap::new();
        for (path, file) in files {
            match path.split_once('/') {
                Some((folder, rest)) => folders.entry(folder).or_default().push((rest, file)),
                None => {
                    let mode = if file.executable { FileMode::BlobExecutable } else { FileMode::Blob };
                    builder.insert(*path, self.repository.blob(&file.bytes)?, mode.into())?;
                }
            }
        }
        for (folder, files) in folders {
            builder.insert(folder, self.write_folder(&files)?, FileMode::Tree.into())?;
        }
        builder.write()
    }

    /// Puts the tree `leaf` at `path` into a copy of `tree`.
    fn graft(&self, tree: Option<&Tree<'_>>, path: &[&str], leaf: Oid) -> Result<Oid, git2::Error> {
        let [name, rest @ ..] = path else { return Ok(leaf) };
        let below = tree
            .and_then(|tree| tree.get_name(name))
            .filter(|entry| entry.kind() == Some(ObjectType::Tree))
            .map(|entry| self.repository.find_tree(entry.id()))
            .transpose()?;
        let grafted = self.graft(below.as_ref(), rest, leaf)?;
        let mut builder: TreeBuilder<'_> = self.repository.treebuilder(tree)?;
        builder.insert(*name, grafted, FileMode::Tree.into())?;
        builder.write()
    }

    /// The commit and root folder of what is published; none before the first publication.
    fn root(&self) -> Result<Option<(Oid, Tree<'_>)>, PublicationError> {
        let Some(tip) = self.tip()? else { return Ok(None) };
        let tree = self
            .repository
            .find_commit(tip)
            .and_then(|commit| commit.tree())
            .map_err(|error| self.git(error))?;
        Ok(Some((tip, tree)))
    }

    /// The folder `name` in `tree`, if it has one.
    fn folder(&self, tree: &Tree<'_>, name: &str) -> Result<Option<Tree<'_>>, PublicationError> {
        match tree.get_name(name) {
            Some(entry) if entry.kind() == Some(ObjectType::Tree) => {
                self.repository.find_tree(entry.id()).map(Some).map_err(|error| self.git(error))
            }
            Some(_) => Err(self.damaged(format!("{name} is not a folder"))),
            None => Ok(None),
        }
    }

    fn lookup(&self, name: &RecipeName, version: Option<&Version>) -> Result<Published, PublicationError> {
        let missing = || PublicationError::NotAuthorized {
            what: version.map_or_else(|| name.to_string(), |version| format!("{name}@{version}")),
        };
        let (commit, root) = self.root()?.ok_or_else(missing)?;
        let vo = self.folder(&root, name.vo())?.ok_or_else(missing)?;
        let recipe = self.folder(&vo, name.name())?.ok_or_else(missing)?;
        let version = match version {
            Some(version) => version.clone(),
            None => self.versions(&recipe)?.pop().ok_or_else(missing)?,
        };
        let folder = self.folder(&recipe, &version.to_string())?.ok_or_else(missing)?;
        let mut files = Files::new();
        let mut left = BYTES;
        self.read_folder(&folder, "", &mut files, &mut left)?;
        Ok(Published { name: name.clone(), version, commit: commit.to_string(), files })
    }

    /// The versions in a recipe's folder, lowest first.
    fn versions(&self, recipe: &Tree<'_>) -> Result<Vec<Version>, PublicationError> {
        let mut versions = self
            .names(recipe)?
            .iter()
            .map(|name| name.parse().map_err(|_| self.damaged(format!("{name} is not a version"))))
            .collect::<Result<Vec<Version>, _>>()?;
        versions.sort();
        Ok(versions)
    }

    fn names(&self, tree: &Tree<'_>) -> Result<Vec<String>, PublicationError> {
        if tree.len() > ENTRIES {
            return Err(PublicationError::TooLarge { limit: ENTRIES, unit: "entries in a folder" });
        }
        tree.iter()
            .map(|entry| entry.name().map(str::to_owned).map_err(|_| self.damaged("a name is not UTF-8")))
            .collect()
    }

    fn list(&self) -> Result<Vec<(RecipeName, Version)>, PublicationError> {
        let mut found = Vec::new();
        let Some((_, root)) = self.root()? else { return Ok(found) };
        for vo in self.names(&root)? {
            let Some(folder) = self.folder(&root, &vo)? else { continue };
            for name in self.names(&folder)? {
                let recipe: RecipeName =
                    format!("{vo}/{name}").parse().map_err(|error| self.damaged(format!("{error}")))?;
                let Some(folder) = self.folder(&folder, &name)? else { continue };
                found.extend(self.versions(&folder)?.into_iter().map(|version| (recipe.clone(), version)));
                if found.len() > ENTRIES {
                    return Err(PublicationError::TooLarge { limit: ENTRIES, unit: "versions" });
                }
            }
        }
        Ok(found)
    }

    /// A file's bytes, if it is one and within the limit of a whole publication.
    fn small_file(&self, root: &Tree<'_>, path: &str) -> Result<Option<Vec<u8>>, PublicationError> {
        let entry = match root.get_path(Path::new(path)) {
            Ok(entry) => entry,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(self.git(error)),
        };
        let odb = self.repository.odb().map_err(|error| self.git(error))?;
        let (size, kind) = odb.read_header(entry.id()).map_err(|error| self.git(error))?;
        if kind != ObjectType::Blob || size > BYTES {
            return Ok(None);
        }
        Ok(Some(odb.read(entry.id()).map_err(|error| self.git(error))?.data().to_vec()))
    }

    fn read_folder(
        &self,
        tree: &Tree<'_>,
        prefix: &str,
        files: &mut Files,
        left: &mut usize,
    ) -> Result<(), PublicationError> {
        let odb = self.repository.odb().map_err(|error| self.git(error))?;
        for entry in tree {
            let name = entry.name().map_err(|_| self.damaged("a name is not UTF-8"))?;
            let path: PublishedPath =
                format!("{prefix}{name}").parse().map_err(|error| self.damaged(format!("{error}")))?;
            match (entry.kind(), entry.filemode()) {
                (Some(ObjectType::Tree), _) => {
                    let below = self.repository.find_tree(entry.id()).map_err(|error| self.git(error))?;
                    self.read_folder(&below, &format!("{path}/"), files, left)?;
                }
                (Some(ObjectType::Blob), mode) if mode != i32::from(FileMode::Link) => {
                    let (size, _) = odb.read_header(entry.id()).map_err(|error| self.git(error))?;
                    *left = left
                        .checked_sub(size)
                        .ok_or(PublicationError::TooLarge { limit: BYTES, unit: "bytes" })?;
                    if files.len() == FILES {
                        return Err(PublicationError::TooLarge { limit: FILES, unit: "files" });
                    }
                    let object = odb.read(entry.id()).map_err(|error| self.git(error))?;
                    let executable = mode == i32::from(FileMode::BlobExecutable);
                    files.insert(path, PayloadFile { bytes: object.data().to_vec(), executable });
                }
                _ => return Err(self.damaged(format!("{path} is neither file nor folder"))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
