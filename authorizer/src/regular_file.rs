//! Files that somebody else may have put there: opened only if they are regular files, and never waited for.
//!
//! A FIFO in place of a file would hold up whoever opens it, a device may never end, and a link leads to a folder whose
//! owner nobody has asked about. All of them are refused before a byte is read, and what is read has a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a regular file for reading.
///
/// # Errors
/// As the operating system says; [`ErrorKind::InvalidInput`] for a link, a folder, a FIFO or a device.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(File::options().read(true), path)
}

/// As [`open`], in the way that `options` say.
///
/// # Errors
/// As [`open`].
pub fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let not_a_file = |what| io::Error::new(ErrorKind::InvalidInput, what);
    // Without NONBLOCK the opening of a FIFO waits for its other end.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = options.custom_flags(flags.cast_signed()).open(path).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::LOOP) => not_a_file("it is a symbolic link, and none is followed here"),
            // A FIFO that nobody reads, opened for writing.
            Some(Errno::NXIO) => not_a_file("it is not a regular file"),
            _ => error,
        }
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file("it is not a regular file")) }
}

/// The bytes of a regular file that has at most `limit`.
///
/// # Errors
/// As [`open`]; [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let too_large = || io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"));
    if file.metadata()?.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Put = fn(&Path);

    /// What can lie where a small file is expected: its name for messages, and how it is put there.
    const HOSTILE: [(&str, Put); 5] = [
        ("a FIFO", |path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
                .unwrap();
        }),
        ("a link to a good file", |path| std::os::unix::fs::symlink("/etc/hostname", path).unwrap()),
        ("a link to an endless device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
        ("a folder", |path| std::fs::create_dir(path).unwrap()),
        ("a sparse file of 10 GB", |path| File::create(path).unwrap().set_len(10 << 30).unwrap()),
    ];

    #[test]
    fn whatever_is_no_small_regular_file_is_refused_at_once() {
        for (what, put) in HOSTILE {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            put(&path);
            let start = std::time::Instant::now();
            let error = read(&path, 1000).unwrap_err();
            let expected =
                if what.contains("sparse") { ErrorKind::FileTooLarge } else { ErrorKind::InvalidInput };
            assert_eq!(error.kind(), expected, "{what}: {error}");
            if !what.contains("sparse") && !what.contains("folder") {
                let writing = open_with(File::options().write(true).create(true).truncate(false), &path);
                assert_eq!(writing.unwrap_err().kind(), ErrorKind::InvalidInput, "{what}, for writing");
            }
            assert!(start.elapsed().as_secs() < 5, "{what}");
        }
    }

    #[test]
    fn a_file_within_the_limit_is_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        assert_eq!(read(file.path(), 3).unwrap(), b"abc");
        assert_eq!(read(file.path(), 2).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let missing = read(&file.path().with_extension("missing"), 3).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        // Files of the kernel say that they have no bytes and have some.
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    }
}
