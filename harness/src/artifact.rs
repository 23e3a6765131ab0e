//! Files that a machine starts from, pinned by digest.
//!
//! What is hashed is what QEMU opens: disks are hashed through the very descriptor that is passed on, kernel
//! and initramfs are copied into sealed memory. A file that QEMU's user could write is not taken at all.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use recipe_spec::digest::Sha256Digest;
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

use crate::digests::{Digested, State, digest};
use crate::error::HarnessError;

/// A file, and the digest that it must have at the moment it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: Sha256Digest,
}

impl Pinned {
    /// A file and the digest it must have.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, sha256: Sha256Digest) -> Self {
        Self { path: path.into(), sha256 }
    }
}

/// Whose file it is; decides the code of the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Base,
    Layer,
}

/// Largest disk that is hashed, in bytes: a sparse file of any size costs its maker nothing.
const MAX_DISK_FILE: u64 = 64 << 30;
/// Largest kernel or initramfs that is read into memory, in bytes.
const MAX_BOOT_FILE: u64 = 512 << 20;
/// Longest device state, in bytes: RAM is not in it, so it is some 400 KB.
pub(crate) const MAX_STATE: u64 = 64 << 20;

/// Whether a machine would start from this layer: the same file, owner, mode and bytes that a launch asks for.
///
/// # Errors
/// `LAYER_MISMATCH`, and what the operating system says.
pub fn check_layer(layer: &Pinned) -> Result<(), HarnessError> {
    open_disk(layer, Part::Layer).map(drop)
}

/// A file that was checked through this descriptor, and what it then was.
#[derive(Debug)]
pub(crate) struct Checked {
    /// At its start, read-only.
    pub(crate) file: File,
    /// To be asked again.
    pub(crate) seen: Seen,
}

/// The state of a file at the moment before it was hashed.
#[derive(Debug)]
pub(crate) struct Seen {
    path: PathBuf,
    part: Part,
    file: File,
    state: State,
}

impl Seen {
    /// Whether nobody has changed the file since: QEMU maps and reads it long after it was hashed.
    pub(crate) fn unchanged(&self) -> Result<(), HarnessError> {
        let failed = |source| HarnessError::system("look at", &self.path, source);
        let now = State::of(&self.file).map_err(failed)?;
        // That it lost its name, as by a sweep, counts as a change of it too, and its bytes are the same.
        let removed = self.file.metadata().map_err(failed)?.nlink() == 0;
        if now == self.state || (removed && now.has_content_of(&self.state)) {
            return Ok(());
        }
        let (path, layer) = (self.path.clone(), self.part == Part::Layer);
        Err(HarnessError::Unusable {
            path,
            layer,
            reason: "it was changed while a machine started from it".into(),
        })
    }
}

/// Opens a disk read-only, checks it through this descriptor, and gives the descriptor.
pub(crate) fn open_disk(pinned: &Pinned, part: Part) -> Result<Checked, HarnessError> {
    open_checked(pinned, part, Digested::AsWhole, MAX_DISK_FILE)
}

/// As [`open_disk`], for a template's device state.
pub(crate) fn open_state(pinned: &Pinned) -> Result<Checked, HarnessError> {
    open_checked(pinned, Part::Layer, Digested::AsWhole, MAX_STATE)
}

/// As [`open_disk`], for a template's RAM of so many bytes, which is named by [`memory_digest`](crate::digests::memory_digest).
pub(crate) fn open_memory(pinned: &Pinned, bytes: u64) -> Result<Checked, HarnessError> {
    open_checked(pinned, Part::Layer, Digested::AsMemory, bytes)
}

fn open_checked(pinned: &Pinned, part: Part, how: Digested, limit: u64) -> Result<Checked, HarnessError> {
    let mut file = open(&pinned.path, part, limit)?;
    let failed = |what| move |source| HarnessError::system(what, &pinned.path, source);
    let state = State::of(&file).map_err(failed("look at"))?;
    let actual = digest(&mut file, how).map_err(failed("read"))?;
    compare(pinned, part, actual)?;
    let again = file.try_clone().map_err(|source| HarnessError::process("duplicate a descriptor", source))?;
    Ok(Checked { file, seen: Seen { path: pinned.path.clone(), part, file: again, state } })
}

/// Reads a kernel or initramfs whole and checks the bytes read.
pub(crate) fn read_boot_file(pinned: &Pinned) -> Result<Vec<u8>, HarnessError> {
    let file = open(&pinned.path, Part::Base, MAX_DISK_FILE)?;
    let mut bytes = Vec::new();
    file.take(MAX_BOOT_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| HarnessError::system("read", &pinned.path, source))?;
    if bytes.len() as u64 > MAX_BOOT_FILE {
        let reason = format!("it is longer than {MAX_BOOT_FILE} bytes");
        return Err(HarnessError::Unusable { path: pinned.path.clone(), layer: false, reason });
    }
    compare(pinned, Part::Base, Sha256Digest::of(&bytes))?;
    Ok(bytes)
}

/// Memory that nobody can change any more, to be opened by QEMU as `/proc/self/fd/N`.
pub(crate) fn sealed_memory(name: &str, parts: &[&[u8]]) -> Result<OwnedFd, HarnessError> {
    let seal = || -> std::io::Result<OwnedFd> {
        let mut file =
            File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        for part in parts {
            file.write_all(part)?;
        }
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )?;
        Ok(file.into())
    };
    seal().map_err(|source| HarnessError::process("keep a boot file in sealed memory", source))
}

/// Why what could not be opened is no file at all, if so; the rest is the host's failure.
pub(crate) fn no_file(error: &std::io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw_os_error)? {
        Errno::NOENT => Some("it is missing"),
        Errno::LOOP => Some("it is a symbolic link"),
        Errno::NOTDIR => Some("it lies in what is no folder"),
        // A socket, and a device that is none.
        Errno::NXIO | Errno::NODEV => Some("it is not a regular file"),
        _ => None,
    }
}

fn open(path: &Path, part: Part, limit: u64) -> Result<File, HarnessError> {
    // NONBLOCK: opening a FIFO that somebody put there must not hang; it is refused below.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let unusable =
        |reason: String| HarnessError::Unusable { path: path.to_owned(), layer: part == Part::Layer, reason };
    let opened = File::options().read(true).custom_flags(flags.cast_signed()).open(path);
    let file = opened.map_err(|source| match no_file(&source) {
        Some(reason) => unusable(reason.into()),
        None => HarnessError::system("open", path, source),
    })?;
    let about = file.metadata().map_err(|source| HarnessError::system("look at", path, source))?;
    if !about.is_file() {
        return Err(unusable("it is not a regular file".into()));
    }
    let us = rustix::process::geteuid().as_raw();
    if about.uid() != us && about.uid() != 0 {
        return Err(unusable(format!("it belongs to user {}, neither root nor us", about.uid())));
    }
    if about.len() > limit {
        return Err(unusable(format!("it is longer than {limit} bytes")));
    }
    if about.mode() & 0o022 != 0 {
        return Err(unusable(format!("others may write to it (mode {:04o})", about.mode() & 0o7777)));
    }
    Ok(file)
}

fn compare(pinned: &Pinned, part: Part, actual: Sha256Digest) -> Result<(), HarnessError> {
    if actual == pinned.sha256 {
        return Ok(());
    }
    let (path, expected) = (pinned.path.clone(), pinned.sha256);
    Err(match part {
        Part::Base => HarnessError::BaseMismatch { path, expected, actual },
        Part::Layer => HarnessError::LayerMismatch { path, expected, actual },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use recipe_spec::Code;

    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_changed_byte_is_a_mismatch_with_the_right_code() {
        let (_dir, path) = file(b"disk");
        let right = Pinned::new(&path, Sha256Digest::of(b"disk"));
        open_disk(&right, Part::Base).unwrap();
        std::fs::write(&path, b"disc").unwrap();
        assert!(matches!(open_disk(&right, Part::Base), Err(HarnessError::BaseMismatch { .. })));
        assert!(matches!(open_disk(&right, Part::Layer), Err(HarnessError::LayerMismatch { .. })));
        assert!(matches!(read_boot_file(&right), Err(HarnessError::BaseMismatch { .. })));
    }

    #[test]
    fn the_descriptor_passed_on_starts_at_the_beginning() {
        let (_dir, path) = file(b"disk");
        let mut text = String::new();
        open_disk(&Pinned::new(&path, Sha256Digest::of(b"disk")), Part::Base)
            .unwrap()
            .file
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "disk");
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let (_dir, path) = file(b"disk");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let refused = open_disk(&Pinned::new(&path, Sha256Digest::of(b"disk")), Part::Layer);
        assert!(matches!(refused, Err(HarnessError::Unusable { layer: true, .. })), "{refused:?}");
    }

    #[test]
    fn what_is_missing_longer_or_no_file_has_the_code_of_its_part() {
        let (dir, path) = file(b"disk");
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(&path, at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::fs::write(at("longer"), b"disk\0").unwrap();
        File::create(at("endless")).unwrap().set_len(1 << 42).unwrap();
        for name in ["missing", "link", "fifo", "folder", "socket", "disk/below", "longer", "endless"] {
            let pinned = Pinned::new(at(name), Sha256Digest::of(b"disk"));
            assert_eq!(open_disk(&pinned, Part::Base).unwrap_err().code(), Code::BaseMismatch, "{name}");
            assert_eq!(open_disk(&pinned, Part::Layer).unwrap_err().code(), Code::LayerMismatch, "{name}");
            assert_eq!(read_boot_file(&pinned).unwrap_err().code(), Code::BaseMismatch, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_written_to_after_it_was_hashed_is_told() {
        let (_dir, path) = file(b"disk");
        let right = Pinned::new(&path, Sha256Digest::of(b"disk"));
        let opened = || open_disk(&right, Part::Layer).unwrap().seen;
        let (written, removed) = (opened(), opened());
        written.unchanged().unwrap();
        // A later tick of the clock behind ctime.
        std::thread::sleep(std::time::Duration::from_millis(50));
        File::options().write(true).open(&path).unwrap().write_all(b"d").unwrap();
        assert_eq!(
            written.unchanged().unwrap_err().code(),
            Code::LayerMismatch,
            "although the bytes are the same"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(removed.unchanged().unwrap_err().code(), Code::LayerMismatch);
        std::fs::write(&path, b"disk").unwrap();
        let removed = opened();
        std::fs::remove_file(&path).unwrap();
        removed.unchanged().unwrap();
    }

    #[test]
    fn a_state_or_memory_that_is_too_long_is_not_hashed() {
        let (_dir, path) = file(b"disk");
        let right = Pinned::new(&path, Sha256Digest::of(b"disk"));
        File::options().write(true).open(&path).unwrap().set_len(MAX_STATE + 1).unwrap();
        for refused in [open_state(&right), open_memory(&right, MAX_STATE)] {
            let error = refused.unwrap_err();
            assert_eq!(error.code(), Code::LayerMismatch);
            assert!(error.to_string().contains("longer than 67108864 bytes"), "{error}");
        }
    }

    #[test]
    fn sealed_memory_cannot_be_written() {
        let memory = sealed_memory("test", &[b"ab", b"c"]).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        let mut again = File::options().write(true).open(&path).unwrap();
        assert!(again.write_all(b"x").is_err());
    }
}
