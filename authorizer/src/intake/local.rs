//! Finding a repository on this host, by names alone: what lies in it is read by the worker.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use recipe_spec::RecipePath;

use super::{IntakeError, Place};
use crate::regular_file;

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

/// The git folder of the repository at `top`, if there is one. It is never looked for through a link: who may put one
/// there would lead root to a repository that is for root alone.
fn git_folder(top: &Path, may_be_bare: bool) -> io::Result<Option<PathBuf>> {
    let inside = top.join(".git");
    match inside.symlink_metadata() {
        Ok(about) if about.is_dir() => return fs::canonicalize(inside).map(Some),
        Ok(about) if about.is_file() => return linked_folder(top, &inside).map(Some),
        Ok(_) => {
            return Err(io::Error::other(".git is neither a folder nor a file, name the repository itself"));
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(error) => return Err(error),
    }
    let looks_bare = || ["HEAD", "objects", "refs"].iter().all(|name| top.join(name).exists());
    Ok((may_be_bare && looks_bare()).then(|| top.to_owned()))
}

/// Where the one line of a linked worktree's or submodule's `.git` leads: to what has the same owner as the line has.
fn linked_folder(top: &Path, file: &Path) -> io::Result<PathBuf> {
    let line = pointer(file)?;
    let named = line.strip_prefix("gitdir:").map(|rest| rest.strip_prefix(' ').unwrap_or(rest));
    let named = named.ok_or_else(|| io::Error::other(".git is a file that names no folder"))?;
    let folder = fs::canonicalize(top.join(plain(named)?))?;
    one_owner(&[top, file, &folder])?;
    Ok(folder)
}

/// The folder that a linked worktree shares with the others: the one that it lies in, as git makes it.
fn common_folder(git: &Path) -> io::Result<Option<PathBuf>> {
    let named = match pointer(&git.join("commondir")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        named => named?,
    };
    let common = fs::canonicalize(git.join(plain(&named)?))?;
    let worktrees = git.parent().filter(|folder| folder.file_name() == Some("worktrees".as_ref()));
    if worktrees.and_then(Path::parent) != Some(&common) {
        return Err(io::Error::other("commondir names another repository than the one that it lies in"));
    }
    one_owner(&[git, &common])?;
    Ok(Some(common))
}

/// The line of a file that names a folder, without its end.
fn pointer(file: &Path) -> io::Result<String> {
    let bytes = regular_file::read(file, POINTER_BYTES)?;
    let mut line =
        String::from_utf8(bytes).map_err(|_| io::Error::other("the name of a folder is not UTF-8"))?;
    if line.ends_with('\n') {
        line.pop();
    }
    Ok(line)
}

/// A name that everybody reads alike: git and libgit2 cut off different white space, and the one that reads must end up
/// where the other looked.
fn plain(name: &str) -> io::Result<&str> {
    if name.is_empty() || name.trim() != name || name.contains(char::is_control) {
        return Err(io::Error::other("the name of a folder begins or ends with white space, or is none"));
    }
    Ok(name)
}

fn one_owner(paths: &[&Path]) -> io::Result<()> {
    let mut owners = Vec::new();
    for path in paths {
        owners.push(path.symlink_metadata()?.uid());
    }
    owners.dedup();
    match owners.len() {
        1 => Ok(()),
        _ => Err(io::Error::other("its parts have several owners, name the repository itself")),
    }
}

/// Whether objects are looked for in places that the repository names itself.
fn borrows(folder: &Path) -> bool {
    let about = folder.join("objects/info/alternates").symlink_metadata();
    about.is_ok_and(|about| !about.is_file() || about.len() > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};
    use std::time::{Duration, Instant};

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// A repository with a linked worktree, laid out as git does it.
    struct Worktree(tempfile::TempDir);

    impl Worktree {
        fn new() -> Self {
            let new = Self(tempfile::tempdir().unwrap());
            for folder in
                ["main/.git/worktrees/linked", "main/.git/objects/info", "main/.git/refs", "linked/web"]
            {
                fs::create_dir_all(new.at(folder)).unwrap();
            }
            fs::write(new.at("main/.git/worktrees/linked/commondir"), "../..\n").unwrap();
            let line = format!("gitdir: {}\n", new.at("main/.git/worktrees/linked").display());
            fs::write(new.at("linked/.git"), line).unwrap();
            new
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(path)
        }

        /// Why the repository that `linked/web` lies in is not taken.
        fn refusal(&self) -> String {
            let start = Instant::now();
            let error = Local::find(&self.at("linked/web")).unwrap_err();
            assert!(start.elapsed() < Duration::from_secs(5), "{error}");
            assert!(matches!(error, IntakeError::Unavailable { .. }), "{error}");
            error.to_string()
        }
    }

    #[test]
    fn a_linked_worktree_is_read_where_it_leads() {
        let made = Worktree::new();
        let found = Local::find(&made.at("linked/web")).unwrap();
        assert_eq!(found.folder, made.at("main/.git/worktrees/linked"));
        assert_eq!(found.folders, [made.at("main/.git/worktrees/linked"), made.at("main/.git")]);
        assert_eq!(found.below.unwrap().as_str(), "web");
        let main = Local::find(&made.at("main")).unwrap();
        assert_eq!(main.folders, [made.at("main/.git")]);
    }

    #[test]
    fn what_names_a_folder_and_is_no_small_file_is_not_waited_for() {
        for file in
            ["linked/.git", "main/.git/worktrees/linked/commondir", "main/.git/objects/info/alternates"]
        {
            let made = Worktree::new();
            let path = made.at(file);
            let _ = fs::remove_file(&path);
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
            made.refusal();
            // As if it had been put there after the look at it.
            assert!(pointer(&path).unwrap_err().to_string().contains("regular file"), "{file}");
            fs::remove_file(&path).unwrap();
            fs::write(&path, "x".repeat(POINTER_BYTES as usize + 1)).unwrap();
            made.refusal();
        }
    }

    #[test]
    fn a_repository_does_not_lead_to_another() {
        let made = Worktree::new();
        fs::remove_file(made.at("linked/.git")).unwrap();
        symlink(made.at("main/.git"), made.at("linked/.git")).unwrap();
        assert!(made.refusal().contains(".git is neither"), "a link");

        for common in ["../../..", "/etc", "."] {
            let made = Worktree::new();
            fs::write(made.at("main/.git/worktrees/linked/commondir"), common).unwrap();
            assert!(made.refusal().contains("commondir names another"), "{common}");
        }
        let made = Worktree::new();
        fs::write(made.at("main/.git/commondir"), "../../linked").unwrap();
        assert!(Local::find(&made.at("main")).is_err(), "from a repository that is no worktree's");

        // libgit2 cuts this off, and would look where nobody looked before.
        for end in ["../.. ", "../..\t\n", " ../..", "../..\n\n", "../..\r\n", "", "\n"] {
            let made = Worktree::new();
            fs::write(made.at("main/.git/worktrees/linked/commondir"), end).unwrap();
            fs::create_dir_all(made.at("main/.git/.. ")).unwrap();
            assert!(made.refusal().contains("white space"), "{end:?}");
        }
    }

    #[test]
    fn nobody_leads_root_to_a_repository_of_roots() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: it gives files away");
        for foreign in ["linked/.git", "linked", "main/.git/worktrees/linked", "main/.git"] {
            let made = Worktree::new();
            chown(made.at(foreign), Some(61_990), None).unwrap();
            assert!(made.refusal().contains("several owners"), "{foreign}");
        }
        // Another user's own worktree is read all the same.
        let made = Worktree::new();
        for path in ["linked", "linked/.git", "main/.git/worktrees/linked", "main/.git"] {
            chown(made.at(path), Some(61_990), None).unwrap();
        }
        Local::find(&made.at("linked")).unwrap();
    }
}
