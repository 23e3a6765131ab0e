//! Reading a recipe out of a repository's objects, and finding a repository on this host.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Odb, Oid, Repository};
use recipe_spec::{Limits, RecipePath};

use super::collector::Collector;
use super::{Intake, IntakeError, Place, Revision, SourceRef};

/// The most bytes of a commit or tree object. A root folder of 20,000 entries fits.
const OBJECT_BYTES: usize = 1 << 20;

/// Modes of entries in a tree object, as git writes them (`git-fast-import(1)`).
const MODE_FOLDER: i32 = 0o040_000;
const MODE_FILE: i32 = 0o100_644;
const MODE_EXECUTABLE: i32 = 0o100_755;
const MODE_LINK: i32 = 0o120_000;
const MODE_SUBMODULE: i32 = 0o160_000;

/// Reads the recipe in `path` at `commit`, from the objects alone.
pub(super) fn read(
    repository: &Repository,
    uri: &str,
    commit: Oid,
    path: Option<&RecipePath>,
    limits: &Limits,
) -> Result<Intake, IntakeError> {
    let odb = repository.odb().map_err(|error| IntakeError::unavailable(uri, &error))?;
    let reader = Reader { repository, odb, uri };
    reader.check_size(commit, ObjectType::Commit)?;
    let root = repository.find_commit(commit).map_err(|error| reader.unavailable(&error))?.tree_id();
    let folder = reader.folder(root, path, commit)?;
    let mut collector = Collector::new(limits);
    reader.walk(folder, "", &mut collector)?;
    let files = collector.finish()?;
    Ok(Intake {
        payload: files.payload,
        envelope: files.envelope,
        source: SourceRef {
            uri: uri.to_owned(),
            commit: commit.to_string(),
            path: path.map_or_else(|| ".".to_owned(), RecipePath::to_string),
        },
    })
}

struct Reader<'a> {
    repository: &'a Repository,
    odb: Odb<'a>,
    uri: &'a str,
}

impl Reader<'_> {
    fn unavailable(&self, error: &git2::Error) -> IntakeError {
        IntakeError::unavailable(self.uri, error)
    }

    /// Judges an object by its header, before its content is unpacked.
    fn check_size(&self, id: Oid, kind: ObjectType) -> Result<(), IntakeError> {
        let (size, found) = self.odb.read_header(id).map_err(|error| self.unavailable(&error))?;
        if found != kind {
            return Err(IntakeError::Unavailable {
                uri: self.uri.to_owned(),
                why: format!("object {id} is a {found} where a {kind} is named"),
            });
        }
        if size > OBJECT_BYTES {
            return Err(IntakeError::RepositoryTooLarge {
                uri: self.uri.to_owned(),
                limit: OBJECT_BYTES as u64,
                unit: "bytes of a folder's list",
            });
        }
        Ok(())
    }

    /// The tree of the recipe's folder.
    fn folder(&self, root: Oid, path: Option<&RecipePath>, commit: Oid) -> Result<Oid, IntakeError> {
        let Some(path) = path else { return Ok(root) };
        let mut folder = root;
        for name in path.as_str().split('/') {
            self.check_size(folder, ObjectType::Tree)?;
            let tree = self.repository.find_tree(folder).map_err(|error| self.unavailable(&error))?;
            folder = match tree.get_name_bytes(name.as_bytes()) {
                Some(entry) if entry.filemode_raw() == MODE_FOLDER => entry.id(),
                _ => {
                    return Err(IntakeError::NoFolder { path: path.to_string(), commit: commit.to_string() });
                }
            };
        }
        Ok(folder)
    }

    fn walk(&self, tree: Oid, prefix: &str, collector: &mut Collector<'_>) -> Result<(), IntakeError> {
        self.check_size(tree, ObjectType::Tree)?;
        let tree = self.repository.find_tree(tree).map_err(|error| self.unavailable(&error))?;
        for entry in &tree {
            let name = String::from_utf8_lossy(entry.name_bytes());
            let path = format!("{prefix}{name}");
            let refuse = |what| Err(IntakeError::Entry { path: path.clone(), what });
            // libgit2 does not judge the names in trees that others wrote; git itself never writes these.
            if std::str::from_utf8(entry.name_bytes()).is_err() {
                return refuse("a name that is not UTF-8");
            }
            if name.is_empty() || name.contains('/') || name.eq_ignore_ascii_case(".git") {
                return refuse("a name that git itself refuses");
            }
            collector.count(&path)?;
            match entry.filemode_raw() {
                MODE_FOLDER => self.walk(entry.id(), &format!("{path}/"), collector)?,
                mode @ (MODE_FILE | MODE_EXECUTABLE) => {
                    let (size, kind) =
                        self.odb.read_header(entry.id()).map_err(|error| self.unavailable(&error))?;
                    if kind != ObjectType::Blob {
                        return refuse("a file whose object is none");
                    }
                    let admitted = collector.admit(&path, size as u64)?;
                    let object = self.odb.read(entry.id()).map_err(|error| self.unavailable(&error))?;
                    collector.add(admitted, object.data().to_vec(), mode == MODE_EXECUTABLE)?;
                }
                MODE_LINK => return refuse("a symbolic link"),
                MODE_SUBMODULE => return refuse("a submodule"),
                _ => return refuse("an entry of an unusual mode"),
            }
        }
        Ok(())
    }
}

/// A repository on this host.
pub(super) struct Local {
    repository: Repository,
    uri: String,
    /// From the repository's top to the folder that was named.
    below: Option<RecipePath>,
}

impl Local {
    /// Finds the repository that `folder` is or lies in.
    pub(super) fn find(folder: &Path) -> Result<Self, IntakeError> {
        let uri = Place::Local(folder.to_owned()).to_string();
        let unavailable = |why: String| IntakeError::Unavailable { uri: uri.clone(), why };
        let real = std::fs::canonicalize(folder).map_err(|error| unavailable(error.to_string()))?;
        for top in real.ancestors() {
            let Some(opened) = open(top, top == real) else { continue };
            let repository = opened.map_err(|error| IntakeError::unavailable(&uri, &error))?;
            let below = match real.strip_prefix(top).unwrap_or(Path::new("")).to_str() {
                Some("") => None,
                Some(below) => Some(below.parse()?),
                None => return Err(unavailable("the path is not UTF-8".to_owned())),
            };
            let uri = Place::Local(top.to_owned()).to_string();
            return Ok(Self { repository, uri, below });
        }
        Err(unavailable("no git repository here: commit the recipe to one".to_owned()))
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// The recipe's folder within the repository.
    pub(super) fn path(&self, path: Option<&RecipePath>) -> Result<Option<RecipePath>, IntakeError> {
        Ok(match (&self.below, path) {
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (Some(below), Some(path)) => Some(format!("{below}/{path}").parse()?),
        })
    }

    /// The commit that `revision` names now.
    pub(super) fn resolve(&self, revision: &Revision) -> Result<Oid, IntakeError> {
        let missing = || IntakeError::NoRevision { uri: self.uri.clone(), revision: revision.to_string() };
        if let Revision::Commit(id) = revision {
            return self.repository.find_commit(*id).map(|commit| commit.id()).map_err(|_| missing());
        }
        let mut found = None;
        for name in revision.candidates() {
            let reference = match self.repository.find_reference(&name) {
                Ok(reference) => reference,
                Err(error) if error.code() == ErrorCode::NotFound => continue,
                Err(error) => return Err(IntakeError::unavailable(&self.uri, &error)),
            };
            let commit = reference.peel_to_commit().map_err(|_| missing())?.id();
            if found.is_some_and(|other| other != commit) {
                return Err(IntakeError::Ambiguous { uri: self.uri.clone(), revision: revision.to_string() });
            }
            found = Some(commit);
        }
        found.ok_or_else(missing)
    }
}

/// Opens the repository at `top`, if there is one. `open_bare` neither asks who owns it (it is only read, as data)
/// nor sets up a working tree; only a linked worktree, whose `.git` is a file, needs git's own way.
fn open(top: &Path, may_be_bare: bool) -> Option<Result<Repository, git2::Error>> {
    let inside = top.join(".git");
    if inside.is_dir() {
        return Some(Repository::open_bare(inside));
    }
    if inside.is_file() {
        return Some(Repository::open(top));
    }
    let looks_bare = || ["HEAD", "objects", "refs"].iter().all(|name| top.join(PathBuf::from(name)).exists());
    (may_be_bare && looks_bare()).then(|| Repository::open_bare(top))
}
