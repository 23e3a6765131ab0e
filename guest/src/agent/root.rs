//! The guest's root folder. Every path of a request or a fact is resolved below it with `RESOLVE_IN_ROOT`, so that a link in
//! the guest leads where it would lead the guest, and tests can use any folder as root.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The kernel answers `EAGAIN` when a name moved while it resolved a path; that often it is asked again.
const RACE_RETRIES: usize = 32;
/// Folders that are made get this mode unless another is asked for.
pub(crate) const FOLDER_MODE: u32 = 0o755;

/// An open root folder.
#[derive(Debug)]
pub(crate) struct Root {
    folder: OwnedFd,
    /// What every path below it keeps to.
    resolve: ResolveFlags,
}

impl Root {
    /// Opens `folder` as root.
    pub(crate) fn open(folder: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, folder.as_ref(), flags, Mode::empty())?;
        Ok(Self { folder, resolve: ResolveFlags::IN_ROOT })
    }

    /// A root that is already open, and that no path leaves for another mount: `CrossesDevices` then.
    pub(crate) fn of_one_mount(folder: OwnedFd) -> Self {
        Self { folder, resolve: ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV }
    }

    /// Whether paths may lead into other mounts.
    pub(crate) fn is_one_mount(&self) -> bool {
        self.resolve.contains(ResolveFlags::NO_XDEV)
    }

    /// Opens `path` with `flags`; links are followed inside the root, the last one only without `NOFOLLOW`.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::empty())
    }

    /// Opens `path`, which must not leave the root's device or pass through a link.
    pub(crate) fn open_on_device(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
    }

    fn resolve(&self, path: &Path, flags: OFlags, further: ResolveFlags) -> io::Result<OwnedFd> {
        let resolve = self.resolve | further;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RACE_RETRIES => tries += 1,
                other => return Ok(other?),
            }
        }
    }

    /// Opens the folder that holds `path`, making what is missing on the way (mode 0755, root's); gives the last component.
    ///
    /// # Errors
    /// `InvalidInput` if the path is not absolute or ends in nothing, `.` or `..`.
    pub(crate) fn parent_made<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (folder, name) = split(path)?;
        self.make_folders(folder)?;
        Ok((self.open_at(folder, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    /// Makes `folder` and all folders above it that are missing.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        match self.open_at(folder, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(drop),
        }
        let (parent, name) = self.parent_made(folder)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // The umask of whoever started the agent has no say.
        let made = rustix::fs::openat(
            &parent,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(FOLDER_MODE))?;
        Ok(())
    }

    /// What lies at `path`, without following a link in the last component; `None` if nothing does.
    pub(crate) fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        absent_as_none(self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW))?
            .map(|found| rustix::fs::fstat(&found).map_err(io::Error::from))
            .transpose()
    }

    /// True if anything lies at `path`, a broken link too.
    pub(crate) fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.stat(path)?.is_some())
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// `InvalidInput` if something else lies there; `NotFound`; with [`LastLink::Refused`] a link is an error too.
    pub(crate) fn open_regular(&self, path: &Path, last: LastLink) -> io::Result<File> {
        let nofollow = if last == LastLink::Refused { OFlags::NOFOLLOW } else { OFlags::empty() };
        // NONBLOCK: a named pipe put in the file's place must not hold the agent.
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | nofollow)?;
        regular(file)
    }

    /// The content of a regular file of at most `limit` bytes, links followed; `None` if there is none.
    ///
    /// # Errors
    /// `FileTooLarge` above the limit; what the system says.
    pub(crate) fn read(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        absent_as_none(self.open_regular(path, LastLink::Followed))?
            .map(|file| read_bounded(file, limit))
            .transpose()
    }

    /// Names and kinds in a folder, in byte order; `None` if there is no such folder.
    ///
    /// # Errors
    /// `FileTooLarge` if there are more than `limit`.
    pub(crate) fn list(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<Entry>>> {
        let folder = match self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            other => other?,
        };
        let mut entries = list(folder, limit)?;
        entries.sort();
        Ok(Some(entries))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// What becomes of a link in the last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastLink {
    /// It is followed, inside the root.
    Followed,
    /// It is an error.
    Refused,
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) name: PathBuf,
    pub(crate) kind: Kind,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
    Other,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Folder,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }
}

/// Names and kinds in an open folder, in no order.
pub(crate) fn list(folder: OwnedFd, limit: usize) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in Dir::new(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if entries.len() >= limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        entries.push(Entry { name: PathBuf::from(OsStr::from_bytes(name)), kind: entry.file_type().into() });
    }
    Ok(entries)
}

/// The whole content of `file`.
///
/// # Errors
/// `FileTooLarge` if it is longer than `limit` bytes.
pub(crate) fn read_bounded(file: File, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// `file`, if it is a regular file.
pub(crate) fn regular(file: OwnedFd) -> io::Result<File> {
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// What lies at `name` in `folder`, links not followed.
pub(crate) fn stat_in(folder: impl AsFd, name: &OsStr) -> io::Result<Option<Stat>> {
    absent_as_none(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from))
}

fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not an absolute path of a file");
    if !path.is_absolute() || path.as_os_str().as_bytes().ends_with(b"/.") {
        return Err(invalid());
    }
    path.parent().zip(path.file_name()).ok_or_else(invalid)
}
