//! Reading a recipe out of a repository's objects, in the worker.

use std::io::Write;
use std::path::Path;

use git2::{ErrorCode, ObjectType, Odb, Oid, Repository};
use recipe_spec::path::means_git;
use recipe_spec::{Limits, RecipePath};

use super::Revision;
use super::collector::Admission;
use super::job::Halt;
use super::wire::{Answer, Kind, Refusal, Unit};

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
    commit: Oid,
    path: Option<&RecipePath>,
    limits: &Limits,
    out: &mut dyn Write,
) -> Result<(), Halt> {
    let odb = repository.odb().map_err(|error| Halt::git(&error))?;
    let reader = Reader { repository, odb };
    reader.check_size(commit, ObjectType::Commit)?;
    let root = repository.find_commit(commit).map_err(|error| Halt::git(&error))?.tree_id();
    let folder = reader.folder(root, path, commit)?;
    let mut answer = Answer::begin(out, commit)?;
    reader.walk(folder, "", &mut Admission::new(limits), &mut answer)
}

struct Reader<'a> {
    repository: &'a Repository,
    odb: Odb<'a>,
}

impl Reader<'_> {
    /// Judges an object by its header, before its content is unpacked.
    fn check_size(&self, id: Oid, kind: ObjectType) -> Result<(), Halt> {
        let (size, found) = self.odb.read_header(id).map_err(|error| Halt::git(&error))?;
        if found != kind {
            let said = format!("object {id} is a {found} where a {kind} is named");
            return Err(Refusal::Git { said }.into());
        }
        if size > OBJECT_BYTES {
            return Err(Refusal::Repository { limit: OBJECT_BYTES as u64, unit: Unit::ListBytes }.into());
        }
        Ok(())
    }

    /// The tree of the recipe's folder.
    fn folder(&self, root: Oid, path: Option<&RecipePath>, commit: Oid) -> Result<Oid, Halt> {
        let Some(path) = path else { return Ok(root) };
        let mut folder = root;
        for name in path.as_str().split('/') {
            self.check_size(folder, ObjectType::Tree)?;
            let tree = self.repository.find_tree(folder).map_err(|error| Halt::git(&error))?;
            folder = match tree.get_name_bytes(name.as_bytes()) {
                Some(entry) if entry.filemode_raw() == MODE_FOLDER => entry.id(),
                _ => return Err(Refusal::NoFolder { commit: commit.to_string() }.into()),
            };
        }
        Ok(folder)
    }

    fn walk(
        &self,
        tree: Oid,
        prefix: &str,
        admission: &mut Admission<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<(), Halt> {
        self.check_size(tree, ObjectType::Tree)?;
        let tree = self.repository.find_tree(tree).map_err(|error| Halt::git(&error))?;
        for entry in &tree {
            let name = String::from_utf8_lossy(entry.name_bytes());
            let path = format!("{prefix}{name}");
            let refuse = |kind| Err(Refusal::Entry { path: path.clone(), kind }.into());
            // libgit2 does not judge the names in trees that others wrote; git itself never writes these.
            if std::str::from_utf8(entry.name_bytes()).is_err() {
                return refuse(Kind::NotUtf8);
            }
            if name.is_empty() || name.contains('/') || means_git(&name) {
                return refuse(Kind::RefusedName);
            }
            admission.count(&path).map_err(Refusal::Beyond)?;
            match entry.filemode_raw() {
                MODE_FOLDER => self.walk(entry.id(), &format!("{path}/"), admission, answer)?,
                mode @ (MODE_FILE | MODE_EXECUTABLE) => {
                    let (size, kind) = self.odb.read_header(entry.id()).map_err(|error| Halt::git(&error))?;
                    if kind != ObjectType::Blob {
                        return refuse(Kind::NoBlob);
                    }
                    admission.admit(&path, size as u64).map_err(Refusal::Beyond)?;
                    let object = self.odb.read(entry.id()).map_err(|error| Halt::git(&error))?;
                    answer.file(&path, object.data(), mode == MODE_EXECUTABLE)?;
                }
                MODE_LINK => return refuse(Kind::Link),
                MODE_SUBMODULE => return refuse(Kind::Submodule),
                _ => return refuse(Kind::Unusual),
            }
        }
        Ok(())
    }
}

/// Opens the repository whose git folder this is, and finds the commit that `revision` names now. `open_bare` neither asks
/// who owns it (it is only read, as data) nor sets up a working tree.
pub(super) fn open(folder: &Path, revision: &Revision) -> Result<(Repository, Oid), Halt> {
    let repository = Repository::open_bare(folder).map_err(|error| Halt::git(&error))?;
    let commit = resolve(&repository, revision)?;
    Ok((repository, commit))
}

fn resolve(repository: &Repository, revision: &Revision) -> Result<Oid, Halt> {
    let missing = |error: git2::Error| Halt::missing(&error, Refusal::NoRevision);
    if let Revision::Commit(id) = revision {
        return repository.find_commit(*id).map(|commit| commit.id()).map_err(missing);
    }
    let mut found = None;
    for name in revision.candidates() {
        let reference = match repository.find_reference(&name) {
            Ok(reference) => reference,
            Err(error) if error.code() == ErrorCode::NotFound => continue,
            Err(error) => return Err(Halt::git(&error)),
        };
        let commit = reference.peel_to_commit().map_err(missing)?.id();
        if found.is_some_and(|other| other != commit) {
            return Err(Refusal::Ambiguous.into());
        }
        found = Some(commit);
    }
    found.ok_or_else(|| Refusal::NoRevision.into())
}
