//! Files that a machine starts from, pinned by digest.
//!
//! What is hashed is what QEMU opens: disks are hashed through the very descriptor that is passed on, kernel
//! and initramfs are copied into sealed memory. A file that QEMU's user could write is not taken at all.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use recipe_spec::digest::Sha256Digest;
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

use crate::digests::{Digested, digest};
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

/// Whether a machine would start from this layer: the same file, owner, mode and bytes that a launch asks for.
///
/// # Errors
/// `LAYER_MISMATCH`, and what the operating system says.
pub fn check_layer(layer: &Pinned) -> Result<(), HarnessError> {
    open_disk(layer, Part::Layer).map(drop)
}

/// Opens a disk read-only, checks it through this descriptor, and gives the descriptor.
pub(crate) fn open_disk(pinned: &Pinned, part: Part) -> Result<File, HarnessError> {
    open_checked(pinned, part, Digested::AsWhole)
}

/// As [`open_disk`], for a template's RAM, which is named by [`memory_digest`](crate::digests::memory_digest).
pub(crate) fn open_memory(pinned: &Pinned) -> Result<File, HarnessError> {
    open_checked(pinned, Part::Layer, Digested::AsMemory)
}

fn open_checked(pinned: &Pinned, part: Part, how: Digested) -> Result<File, HarnessError> {
    let mut file = open(&pinned.path, part)?;
    let actual =
        digest(&mut file, how).map_err(|source| HarnessError::system("read", &pinned.path, source))?;
    compare(pinned, part, actual)?;
    Ok(file)
}

/// Reads a kernel or initramfs whole and checks the bytes read.
pub(crate) fn read_boot_file(pinned: &Pinned) -> Result<Vec<u8>, HarnessError> {
    let file = open(&pinned.path, Part::Base)?;
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

fn open(path: &Path, part: Part) -> Result<File, HarnessError> {
    // NONBLOCK: opening a FIFO that somebody put there must not hang; it is refused below.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let unusable =
        |reason: String| HarnessError::Unusable { path: path.to_owned(), layer: part == Part::Layer, reason };
    let file = File::options().read(true).custom_flags(flags as i32).open(path).map_err(|source| {
        match (source.kind(), source.raw_os_error().map(Errno::from_raw_os_error)) {
            (ErrorKind::NotFound, _) => unusable("it is missing".into()),
            (_, Some(Errno::LOOP)) => unusable("it is a symbolic link".into()),
            _ => HarnessError::system("open", path, source),
        }
    })?;
    let about = file.metadata().map_err(|source| HarnessError::system("look at", path, source))?;
    if !about.is_file() {
        return Err(unusable("it is not a regular file".into()));
    }
    let us = rustix::process::geteuid().as_raw();
    if about.uid() != us && about.uid() != 0 {
        return Err(unusable(format!("it belongs to user {}, neither root nor us", about.uid())));
    }
    if about.len() > MAX_DISK_FILE {
        return Err(unusable(format!("it is longer than {MAX_DISK_FILE} bytes")));
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
        std::fs::write(at("longer"), b"disk\0").unwrap();
        File::create(at("endless")).unwrap().set_len(1 << 42).unwrap();
        for name in ["missing", "link", "fifo", "folder", "longer", "endless"] {
            let pinned = Pinned::new(at(name), Sha256Digest::of(b"disk"));
            assert_eq!(open_disk(&pinned, Part::Base).unwrap_err().code(), Code::BaseMismatch, "{name}");
            assert_eq!(open_disk(&pinned, Part::Layer).unwrap_err().code(), Code::LayerMismatch, "{name}");
            assert_eq!(read_boot_file(&pinned).unwrap_err().code(), Code::BaseMismatch, "{name}");
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
