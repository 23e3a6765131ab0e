//! Finding a repository on this host, by names alone: what lies in it is read by the worker.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use recipe_spec::RecipePath;

use super::{IntakeError, Place};

/// The most bytes of a file that names a folder, as `.git` of a linked worktree does.
const POINTER_BYTES: u64 = 4096;

/// A repository on this host.
#[derive(Debug)]
pub(super) struct Local {
    /// Its git folder: `.git`, or the bare repository itself.
    pub(super) folder: PathBuf,
    /// Every folder that its objects and references lie in.
    pub(super) folders: Vec<PathBuf>,
    pub(super) uri: String,
    /// From the repository's top to the folder that was named.
    below: Option<RecipePath>,
}

impl Local {
    /// Finds the repository that `folder` is or lies in.
    pub(super) fn find(folder: &Path) -> Result<Self, IntakeError> {
        let uri = Place::Local(folder.to_owned()).to_string();
        let unavailable = |why: String| IntakeError::Unavailable { uri: uri.clone(), why };
        let real = fs::canonicalize(folder).map_err(|error| unavailable(error.to_string()))?;
        for top in real.ancestors() {
            let Some(git) = git_folder(top, top == real).map_err(|error| unavailable(error.to_string()))?
            else {
                continue;
            };
            let below = match real.strip_prefix(top).unwrap_or(Path::new("")).to_str() {
                Some("") => None,
                Some(below) => Some(below.parse()?),
                None => return Err(unavailable("the path is not UTF-8".to_owned())),
            };
            let common = common_folder(&git).map_err(|error| unavailable(error.to_string()))?;
            let folders: Vec<_> = std::iter::once(git.clone()).chain(common).collect();
            if folders.iter().any(|folder| borrows(folder)) {
                let why = "it borrows objects from another repository, copy them into it with `git repack -a -d` \
                           and remove objects/info/alternates";
                return Err(unavailable(why.to_owned()));
            }
            let uri = Place::Local(top.to_owned()).to_string();
            return Ok(Self { folder: git, folders, uri, below });
        }
        Err(unavailable("no git repository here: commit the recipe to one".to_owned()))
    }

    /// The recipe's folder within the repository.
    pub(super) fn path(&self, path: Option<&RecipePath>) -> Result<Option<RecipePath>, IntakeError> {
        Ok(match (&self.below, path) {
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (Some(below), Some(path)) => Some(format!("{below}/{path}").parse()?),
        })
    }
}

/// The git folder of the repository at `top`, if there is one.
fn git_folder(top: &Path, may_be_bare: bool) -> std::io::Result<Option<PathBuf>> {
    let inside = top.join(".git");
    if inside.is_dir() {
        return fs::canonicalize(inside).map(Some);
    }
    if inside.is_file() {
        // A linked worktree or a submodule: one line that names the folder.
        let line = pointer(&inside)?;
        let named = line.strip_prefix("gitdir:").map(str::trim_start);
        let named = named.ok_or_else(|| std::io::Error::other(".git is a file that names no folder"))?;
        return fs::canonicalize(top.join(named)).map(Some);
    }
    let looks_bare = || ["HEAD", "objects", "refs"].iter().all(|name| top.join(name).exists());
    Ok((may_be_bare && looks_bare()).then(|| top.to_owned()))
}

/// The folder that a linked worktree shares with the others.
fn common_folder(git: &Path) -> std::io::Result<Option<PathBuf>> {
    let file = git.join("commondir");
    if !file.is_file() {
        return Ok(None);
    }
    fs::canonicalize(git.join(pointer(&file)?)).map(Some)
}

fn pointer(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(POINTER_BYTES).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Whether objects are looked for in places that the repository names itself.
fn borrows(folder: &Path) -> bool {
    folder.join("objects/info/alternates").metadata().is_ok_and(|about| about.len() > 0)
}
