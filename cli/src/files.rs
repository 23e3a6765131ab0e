//! Files named on the command line: read with a bound, written so that nothing is lost.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use authorizer::regular_file;
use authorizer::stopped::is_full;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::interrupt;
use crate::outcome::Problem;

/// Longest key, certificate, CRL or envelope that is read, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// 0600
    Secret,
    /// 0644
    Public,
}

/// Reads a text file; `what` names it in messages.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<Zeroizing<String>, Problem> {
    let unreadable =
        |error: std::io::Error| Problem::usage(format!("cannot read {what} {}: {error}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let mut text = Zeroizing::new(String::new());
    let read = file.take(MAX_TEXT + 1).read_to_string(&mut text).map_err(unreadable)?;
    if read as u64 > MAX_TEXT {
        return Err(Problem::usage(format!("{what} {} is longer than {MAX_TEXT} bytes", path.display())));
    }
    Ok(text)
}

/// Writes a new file and flushes it to the disk; never replaces one. What cannot be written whole is not there.
pub(crate) fn write_new(path: &Path, content: &[u8], access: Access) -> Result<(), Problem> {
    let whole = written_beside(path, content, access)?;
    whole.persist_noclobber(path).map_err(|error| unwritable(path, &error.error))?;
    Ok(())
}

/// Waits until nobody else has the lock of this file, which is made if it does not exist. Only its owner can open it, so
/// only its owner's commands are waited for.
pub(crate) fn lock(path: &Path) -> Result<File, Problem> {
    let mut options = File::options();
    regular_file::open_with(options.write(true).create(true).truncate(false).mode(0o600), path)
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|error| Problem::usage(format!("cannot lock {}: {error}", path.display())))
}

/// Writes a file in place of an older one, which stays until the new one is whole on the disk.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Problem> {
    let whole = written_beside(path, content, Access::Public)?;
    whole.persist(path).map_err(|error| unwritable(path, &error.error))?;
    Ok(())
}

/// A file without a lasting name in the folder of `path`, whole on the disk.
fn written_beside(path: &Path, content: &[u8], access: Access) -> Result<NamedTempFile, Problem> {
    let _ = interrupt::in_order();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = match access {
        Access::Secret => 0o600,
        Access::Public => 0o644,
    };
    let mut file = NamedTempFile::new_in(folder).map_err(|error| unwritable(path, &error))?;
    file.write_all(content)
        .and_then(|()| file.as_file().set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.as_file().sync_all())
        .map_err(|error| unwritable(path, &error))?;
    Ok(file)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    match error.kind() {
        _ if is_full(error) => {
            Problem::coded(recipe_spec::Code::HostFull, format!("no space left to write {}", path.display()))
        }
        std::io::ErrorKind::AlreadyExists => {
            Problem::usage(format!("{} exists already; it is not replaced", path.display()))
        }
        _ => Problem::usage(format!("cannot write {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_lock_is_one_that_its_owner_alone_can_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crl.lock");
        let held = lock(&path).unwrap();
        assert_eq!(held.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(File::open(&path).unwrap().try_lock().is_err(), "it is held");
        drop(held);
        lock(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), rustix::fs::Mode::RUSR).unwrap();
        assert!(lock(&folder.path().join("pipe")).is_err());
    }
}
