//! A recipe in a plain folder, for its author and for the site's own recipes.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use recipe_spec::{ENVELOPE_FILE, Limits, is_outside_digest};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, open, openat, statat};

use super::collector::Collector;
use super::{IntakeError, RecipeFiles};

/// Reads the recipe in the folder at `path`: regular files only, no link followed below it, nothing read beyond
/// `limits`. The top-level `.git` is left out.
///
/// # Errors
/// [`IntakeError`]: `BAD_RECIPE` for what a recipe may not hold; no code where the folder cannot be read.
pub fn read_folder(path: &Path, limits: &Limits) -> Result<RecipeFiles, IntakeError> {
    let io = |errno: rustix::io::Errno| IntakeError::Io { path: path.to_owned(), source: errno.into() };
    let folder =
        open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    let mut collector = Collector::new(limits);
    walk(&folder, path, "", &mut collector)?;
    collector.finish()
}

fn walk(
    folder: &OwnedFd,
    root: &Path,
    prefix: &str,
    collector: &mut Collector<'_>,
) -> Result<(), IntakeError> {
    let io = |path: &str, errno: rustix::io::Errno| IntakeError::Io {
        path: root.join(path),
        source: errno.into(),
    };
    for entry in Dir::read_from(folder).map_err(|errno| io(prefix, errno))? {
        let entry = entry.map_err(|errno| io(prefix, errno))?;
        let name = match entry.file_name().to_str() {
            Ok("." | "..") => continue,
            Ok(name) => name,
            Err(_) => {
                let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
                return Err(IntakeError::Entry { path, what: "a name that is not UTF-8" });
            }
        };
        let path = format!("{prefix}{name}");
        if is_outside_digest(&path) && path != ENVELOPE_FILE {
            continue;
        }
        collector.count(&path)?;
        // The kind is looked at before opening: opening a device or a pipe has effects.
        let seen = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| io(&path, errno))?;
        match FileType::from_raw_mode(seen.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(folder, name, flags, Mode::empty()).map_err(|errno| io(&path, errno))?;
                walk(&below, root, &format!("{path}/"), collector)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(folder, name, flags, Mode::empty()).map_err(|errno| io(&path, errno))?;
                read_file(file, root, &path, collector)?;
            }
            FileType::Symlink => return Err(IntakeError::Entry { path, what: "a symbolic link" }),
            _ => return Err(IntakeError::Entry { path, what: "neither file nor folder" }),
        }
    }
    Ok(())
}

fn read_file(
    file: OwnedFd,
    root: &Path,
    path: &str,
    collector: &mut Collector<'_>,
) -> Result<(), IntakeError> {
    let io = |source| IntakeError::Io { path: root.join(path), source };
    let seen = fstat(file.as_fd()).map_err(|errno| io(errno.into()))?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Err(IntakeError::Changed { path: path.to_owned() });
    }
    let admitted = collector.admit(path, seen.st_size.unsigned_abs())?;
    let mut bytes = Vec::new();
    File::from(file).take(admitted.size + 1).read_to_end(&mut bytes).map_err(io)?;
    collector.add(admitted, bytes, Mode::from_raw_mode(seen.st_mode).contains(Mode::XUSR))
}
