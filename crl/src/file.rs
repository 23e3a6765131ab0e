//! Reading hostile files and replacing our own ones so that a crash leaves the old or the new.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::error::CrlError;

/// How long a lock is waited for. Its holders do no more than write one list.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two tries for a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Suffix of a file that is being written.
const UNFINISHED: &str = ".new";

/// Turns an I/O error into ours.
pub(crate) fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CrlError + 'a {
    move |source| CrlError::Io { action, path: path.to_owned(), source }
}

/// Reads a regular file of at most `limit` bytes; no link is followed and no pipe or device is waited for.
/// Absent is [`CrlError::Missing`].
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CrlError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CrlError::Missing { path: path.to_owned() });
        }
        opened => opened.map_err(failed("open", path))?,
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    if !metadata.is_file() {
        return Err(failed("read", path)(io::Error::other("not a regular file")));
    }
    let too_large = || CrlError::TooLarge { path: path.to_owned(), limit };
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).map_err(|_| too_large())?);
    // The file may grow while it is read.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// The same, with `None` for a file that does not exist.
pub(crate) fn read_if_present(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, CrlError> {
    match read(path, limit) {
        Err(CrlError::Missing { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Replaces `folder/name`: written beside it, flushed, renamed, the folder flushed. The caller holds the lock of the
/// folder's writers, so a file left unfinished is one of a process that died.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), CrlError> {
    let unfinished = folder.join(format!("{name}{UNFINISHED}"));
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(failed("remove", &unfinished))?,
    }
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        // On a full disk also this little is wanted back; if it cannot be removed, the next writer does.
        let _ = std::fs::remove_file(&unfinished);
        failed("write", &unfinished)(error)
    })?;
    rename(folder, &unfinished, name)
}

/// Gives a complete file its name and makes that last.
pub(crate) fn rename(folder: &Path, from: &Path, name: &str) -> Result<(), CrlError> {
    let target = folder.join(name);
    std::fs::rename(from, &target).map_err(failed("replace", &target))?;
    sync_folder(folder)
}

/// Makes a folder that does not exist, and makes its name last: a memory that a crash loses remembers nothing.
pub(crate) fn make_folder(folder: &Path) -> Result<(), CrlError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_folder(above)?;
        create(folder)?;
        return sync_folder(above);
    }
    create(folder)?;
    sync_folder(Path::new("."))
}

fn create(folder: &Path) -> Result<(), CrlError> {
    match std::fs::create_dir(folder) {
        // Another process was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        created => created.map_err(failed("make", folder)),
    }
}

/// Flushes a folder's entries.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), CrlError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("flush", folder))
}

/// Locks the file at `path`, which is made if it does not exist, for us alone until it is dropped. Whoever can open a
/// file can lock it for ever, so only its owner can open this one: a revocation must not wait for a stranger.
pub(crate) fn lock(path: &Path) -> Result<File, CrlError> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.cast_signed())
        .open(path)
        .map_err(failed("open", path))?;
    if !file.metadata().map_err(failed("read", path))?.is_file() {
        return Err(failed("open", path)(io::Error::other("not a regular file")));
    }
    // One that an older version made.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("close to others", path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path)(source)),
            Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_PATIENCE => {
                return Err(CrlError::Busy { path: path.to_owned(), seconds: LOCK_PATIENCE.as_secs() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipe_spec::code::Code;

    #[test]
    fn only_a_regular_file_within_the_limit_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(matches!(read(&path, 3), Err(CrlError::Missing { .. })));
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"abc");
        assert!(matches!(read(&path, 2), Err(CrlError::TooLarge { limit: 2, .. })));

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(read(&link, 3), Err(CrlError::Io { .. })));
        assert!(matches!(read(folder.path(), 3), Err(CrlError::Io { .. })));
        assert!(matches!(read(Path::new("/dev/zero"), 3), Err(CrlError::Io { .. })), "an endless device");

        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(read(&pipe, 3), Err(CrlError::Io { .. })), "nor is a pipe waited for");
    }

    #[test]
    fn a_file_left_unfinished_is_no_obstacle_and_no_trap() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, b"untouched").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("state.new")).unwrap();
        replace(folder.path(), "state", b"two").unwrap();
        assert_eq!(std::fs::read(folder.path().join("state")).unwrap(), b"two");
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
        assert!(!folder.path().join("state.new").exists());
    }

    #[test]
    fn a_full_disk_is_said_to_be_one() {
        let full = failed("write", Path::new("x"))(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.code(), Code::HostFull);
    }
}
