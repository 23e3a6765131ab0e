//! Files brought about: written under a temporary name, checked, then renamed into place.
//!
//! Nothing is flushed by itself: what a machine wrote counts only once it was powered off or frozen in order, and one that ends otherwise
//! never starts again from its disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use guest::control::{AgentError, StepOutcome};
use recipe_spec::digest::Sha256Digest;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use sha2::{Digest, Sha256};

use super::failure;
use super::root::{Root, regular, stat_in};

/// Read at once when files are copied or hashed, in bytes.
pub(crate) const BLOCK: usize = 128 * 1024;
/// Mode of a new file when none is asked for.
const FILE_MODE: u32 = 0o644;
/// The bits that `chmod` sets.
pub(crate) const MODE_BITS: u32 = 0o7777;
/// The bits that stay when content is replaced and no mode is asked for: as on a write by the system, setuid and setgid go.
const KEPT_BITS: u32 = 0o777;

/// Mode and ownership that are asked for; what is absent stays as it is; a new file is 0644 and the agent's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl Attributes {
    /// Sets on `open` what differs from `now`; says whether anything did.
    pub(crate) fn settle(&self, open: impl AsFd, now: &Stat) -> io::Result<bool> {
        let owner = self.uid.filter(|uid| *uid != now.st_uid);
        let group = self.gid.filter(|gid| *gid != now.st_gid);
        let owned = owner.is_some() || group.is_some();
        if owned {
            rustix::fs::fchown(&open, owner.map(Uid::from_raw), group.map(Gid::from_raw))?;
        }
        let mode = self.mode.unwrap_or(now.st_mode & MODE_BITS);
        // A change of owner clears the setuid bit, so the mode comes after it.
        let moded = mode != now.st_mode & MODE_BITS;
        if moded || (owned && self.mode.is_some()) {
            rustix::fs::fchmod(&open, Mode::from_raw_mode(mode))?;
        }
        Ok(owned || moded)
    }
}

/// Makes the regular file `path` hold `content`, which must be `size` bytes with that digest. A link or another kind of
/// file in its place is replaced, a folder is an error. Nothing is written if the file already is so.
///
/// # Errors
/// `BadRequest` if the content is not as announced: then the old file stays. `System`.
pub(crate) fn put(
    root: &Root,
    path: &Path,
    attributes: Attributes,
    announced: (&Sha256Digest, u64),
    content: &mut dyn Read,
) -> Result<StepOutcome, AgentError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => failure::bad_request(format!("{}: {error}", path.display())),
        _ => failure::system(format_args!("write {}", path.display()), error),
    };
    let (folder, name) = root.parent_made(path).map_err(failed)?;
    put_in(&folder, name, attributes, announced, content).map_err(failed)
}

/// As [`put`], in a folder that is already open.
pub(crate) fn put_in(
    folder: &OwnedFd,
    name: &OsStr,
    attributes: Attributes,
    (digest, size): (&Sha256Digest, u64),
    content: &mut dyn Read,
) -> io::Result<StepOutcome> {
    let existing = stat_in(folder, name)?;
    if let Some(stat) = &existing
        && let Some(same) = open_if_same(folder, name, stat, digest, size)?
    {
        copy_checked(content, &mut io::sink(), digest, size)?;
        let changed = attributes.settle(&same, stat)?;
        return Ok(if changed { StepOutcome::Changed } else { StepOutcome::Unchanged });
    }
    let replaced = existing.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let kept = Attributes {
        mode: attributes.mode.or(replaced.map(|stat| stat.st_mode & KEPT_BITS)).or(Some(FILE_MODE)),
        uid: attributes.uid.or(replaced.map(|stat| stat.st_uid)),
        gid: attributes.gid.or(replaced.map(|stat| stat.st_gid)),
    };
    let mut staged = Staged::new(folder)?;
    copy_checked(content, &mut staged.file, digest, size)?;
    kept.settle(&staged.file, &rustix::fs::fstat(&staged.file)?)?;
    staged.commit(name)?;
    Ok(StepOutcome::Changed)
}

/// The existing file, if it is regular and holds exactly the content.
fn open_if_same(
    folder: &OwnedFd,
    name: &OsStr,
    stat: &Stat,
    digest: &Sha256Digest,
    size: u64,
) -> io::Result<Option<File>> {
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_regular || u64::try_from(stat.st_size) != Ok(size) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = regular(rustix::fs::openat(folder, name, flags, Mode::empty())?)?;
    let (found, _) = Sha256Digest::of_reader(&mut file)?;
    Ok((found == *digest).then_some(file))
}

/// Copies exactly `size` bytes whose digest is `digest`.
///
/// # Errors
/// `InvalidData` if they are not so.
fn copy_checked(from: &mut dyn Read, to: &mut dyn Write, digest: &Sha256Digest, size: u64) -> io::Result<()> {
    let mut hasher = Sha256::new();
    let mut left = size;
    let mut block = vec![0; BLOCK];
    loop {
        let count = from.read(&mut block)?;
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the content is longer than announced")
        })?;
        hasher.update(&block[..count]);
        to.write_all(&block[..count])?;
    }
    if left > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the content is shorter than announced"));
    }
    if hasher.finalize().as_slice() != digest.as_bytes() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the content has another sha256 than announced",
        ));
    }
    Ok(())
}

/// A file under a temporary name, gone again unless committed.
pub(crate) struct Staged<'a> {
    folder: &'a OwnedFd,
    name: Option<String>,
    file: File,
}

impl<'a> Staged<'a> {
    fn new(folder: &'a OwnedFd) -> io::Result<Self> {
        let name = temporary_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, &name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Self { folder, name: Some(name), file: file.into() })
    }

    /// Gives it its name, in one step for whoever looks.
    fn commit(mut self, name: &OsStr) -> io::Result<()> {
        if let Some(temporary) = self.name.take()
            && let Err(error) = rustix::fs::renameat(self.folder, &temporary, self.folder, name)
        {
            self.name = Some(temporary);
            return Err(error.into());
        }
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // The file system may refuse; then a file with a telling name is left and the request has failed anyway.
            let _left = rustix::fs::unlinkat(self.folder, &name, AtFlags::empty());
        }
    }
}

/// A name that no other file of this boot has.
pub(crate) fn temporary_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(".countersign-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Size and digest of a regular file, which is left at its start.
pub(crate) fn measure(file: &mut File) -> io::Result<(Sha256Digest, u64)> {
    let measured = Sha256Digest::of_reader(file)?;
    file.rewind()?;
    Ok(measured)
}
