//! Reading and writing the site's own files: bounded, with explicit modes, and never half.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::SiteError;
use crate::regular_file;

/// What others may do with a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read it.
    Public,
    /// Nothing.
    Private,
}

impl Access {
    fn file(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Private => 0o600,
        }
    }

    fn folder(self) -> u32 {
        match self {
            Self::Public => 0o755,
            Self::Private => 0o700,
        }
    }
}

/// The text of a regular file of at most `limit` bytes.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, SiteError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::FileTooLarge => SiteError::TooLarge { path: path.to_owned(), limit },
        _ => SiteError::io("read", path, source),
    };
    let bytes = regular_file::read(path, limit).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| failed(io::Error::new(ErrorKind::InvalidData, error)))
}

/// As [`read_text`]; a file that is not there has no text.
pub(super) fn read_text_if_present(path: &Path, limit: u64) -> Result<String, SiteError> {
    match read_text(path, limit) {
        Err(SiteError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

/// Makes a folder with exactly these permissions, whatever the umask.
pub(super) fn make_folder(path: &Path, access: Access) -> Result<(), SiteError> {
    DirBuilder::new()
        .mode(access.folder())
        .create(path)
        .map_err(|source| SiteError::io("make", path, source))?;
    fs::set_permissions(path, Permissions::from_mode(access.folder()))
        .map_err(|source| SiteError::io("make", path, source))
}

/// Writes a new file with exactly these permissions, whatever the umask, and flushes it.
pub(super) fn write_new(path: &Path, bytes: &[u8], access: Access) -> Result<(), SiteError> {
    write_mode(path, bytes, access.file())
}

/// As [`write_new`], for a file that may be run.
pub(super) fn write_new_program(path: &Path, bytes: &[u8]) -> Result<(), SiteError> {
    write_mode(path, bytes, Access::Public.folder())
}

fn write_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SiteError> {
    let write = || -> std::io::Result<()> {
        // Private until it is whole.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    write().map_err(|source| SiteError::io("write", path, source))
}

/// Replaces a file, so that a reader sees the old text or the new one and a crash leaves one of them.
pub(super) fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), SiteError> {
    let io = |source| SiteError::io("replace", path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut next = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    next.write_all(bytes).map_err(io)?;
    next.as_file().set_permissions(Permissions::from_mode(access.file())).map_err(io)?;
    next.as_file().sync_all().map_err(io)?;
    next.persist(path).map_err(|error| io(error.error))?;
    sync_folder(folder)
}

/// Flushes the names in a folder.
pub(super) fn sync_folder(path: &Path) -> Result<(), SiteError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| SiteError::io("flush", path, source))
}

/// Refuses what others than the owner may use in any way.
pub(super) fn check_private(path: &Path) -> Result<(), SiteError> {
    let mode = about(path)?.map_or(0, |about| about.mode() & 0o7777);
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(SiteError::Mode { path: path.to_owned(), mode, access: "read", fix: "go-rwx" })
}

/// Refuses what others than its owner may change, and an owner who is neither this process's user nor root. What does not
/// exist nobody can change.
pub(super) fn check_unwritable(path: &Path) -> Result<(), SiteError> {
    let Some(about) = about(path)? else { return Ok(()) };
    let (mode, owner) = (about.mode() & 0o7777, about.uid());
    if mode & 0o022 != 0 {
        return Err(SiteError::Mode { path: path.to_owned(), mode, access: "change", fix: "go-w" });
    }
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(SiteError::Owner { path: path.to_owned(), owner });
    }
    Ok(())
}

/// As [`check_unwritable`], for a folder and all that lies in it. Links are not followed: no recipe may hold one.
pub(super) fn check_tree_unwritable(path: &Path) -> Result<(), SiteError> {
    check_unwritable(path)?;
    let io = |source| SiteError::io("read", path, source);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io)?,
    };
    for entry in entries {
        let entry = entry.map_err(io)?;
        let kind = entry.file_type().map_err(io)?;
        if kind.is_dir() {
            check_tree_unwritable(&entry.path())?;
        } else if !kind.is_symlink() {
            check_unwritable(&entry.path())?;
        }
    }
    Ok(())
}

/// Owner and permission bits of what `path` leads to.
fn about(path: &Path) -> Result<Option<fs::Metadata>, SiteError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SiteError::io("look at", path, error)),
    }
}
