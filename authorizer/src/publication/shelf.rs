//! The open repository: its objects, its one branch.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use git2::{
    ErrorClass, ErrorCode, FileMode, ObjectType, Oid, Repository, Signature, Time, Tree, TreeBuilder,
};
use recipe_spec::payload::PayloadFile;
use recipe_spec::{RecipeName, Timestamp};
use semver::Version;

use super::{BYTES, FILES, Files, PublicationError, Published, PublishedPath};
use crate::regular_file;

pub(super) const BRANCH: &str = "refs/heads/main";
/// Who commits: git wants somebody, the authorization's signature is what counts.
const COMMITTER: (&str, &str) = ("countersign", "countersign@localhost");

/// Begins the name of an object's file while libgit2 writes it.
const HALF_OBJECT: &str = "tmp_object_git2_";

/// Files of a repository beside its objects, and the most bytes of each.
const READ_WHOLE: [&str; 3] = ["HEAD", "config", "packed-refs"];
const SMALL: u64 = 16 << 20;
/// The most recipes, and versions of one, that are listed.
const ENTRIES: usize = 100_000;

/// Less than this, in bytes, and what git was writing may not have fitted: objects of some KB, and folders for them.
const LITTLE_ROOM: u64 = 1 << 20;

/// Bytes that the file system of `path` has left for us; none if it cannot be asked.
fn room_for(path: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(path).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

/// An open repository.
pub(super) struct Shelf {
    path: PathBuf,
    pub(super) repository: Repository,
}

impl Shelf {
    pub(super) fn open(path: &Path) -> Result<Self, PublicationError> {
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
    pub(super) fn git(&self, source: git2::Error) -> PublicationError {
        let path = self.path.clone();
        match source.class() {
            ErrorClass::None if room_for(&path).is_some_and(|left| left < LITTLE_ROOM) => {
                PublicationError::NoRoom { path }
            }
            _ => PublicationError::Git { path, source },
        }
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> PublicationError {
        PublicationError::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// Removes what a kill left: git's own lock, and objects that were not whole. Who holds the site lock is alone here.
    pub(super) fn sweep(&self) {
        let _ = std::fs::remove_file(self.path.join(format!("{BRANCH}.lock")));
        for entry in std::fs::read_dir(self.path.join("objects")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(HALF_OBJECT) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// The commit of `main`, unless nothing was published yet.
    pub(super) fn tip(&self) -> Result<Option<Oid>, PublicationError> {
        match self.repository.refname_to_id(BRANCH) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.git(error)),
        }
    }

    pub(super) fn publish(
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
    pub(super) fn write_folder(&self, files: &[(&str, &PayloadFile)]) -> Result<Oid, git2::Error> {
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
    pub(super) fn graft(
        &self,
        tree: Option<&Tree<'_>>,
        path: &[&str],
        leaf: Oid,
    ) -> Result<Oid, git2::Error> {
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
    pub(super) fn root(&self) -> Result<Option<(Oid, Tree<'_>)>, PublicationError> {
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

    pub(super) fn lookup(
        &self,
        name: &RecipeName,
        version: Option<&Version>,
    ) -> Result<Published, PublicationError> {
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

    pub(super) fn list(&self) -> Result<Vec<(RecipeName, Version)>, PublicationError> {
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
    pub(super) fn small_file(
        &self,
        root: &Tree<'_>,
        path: &str,
    ) -> Result<Option<Vec<u8>>, PublicationError> {
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
