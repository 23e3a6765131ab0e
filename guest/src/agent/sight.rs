//! Through what the facts look. A recipe has root, so it can mount anything over `/proc` or over a file of the disk; whoever
//! asks by path then reads what lies on top. So the agent takes two mounts of its own before a byte of the disk runs, which
//! are attached nowhere: a procfs, and the disk without anything that is mounted on it.
//!
//! Root could still attach them through `/proc/AGENT/fd` and mount over them then. So no path here crosses into another mount:
//! that is an error, and what cannot be read is named as not seen.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, open_tree,
};

use super::root::{self, Root};

/// What the facts are read through.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) proc: Proc,
    /// The disk beneath all mounts; `None` where there is no disk of its own (nano, a developer's system).
    pub(crate) disk: Option<Root>,
}

impl Sight {
    /// Mounts of our own, attached nowhere: `root` is where the disk is mounted, before it has become `/`. A copy that is
    /// made now shares no events with what the guest mounts later, because only systemd makes the root a shared mount.
    ///
    /// # Errors
    /// What the kernel says; without them a disk must not be judged.
    pub(crate) fn detached(root: &Root) -> io::Result<Self> {
        Ok(Self { proc: Proc::detached()?, disk: Some(bare(root)?) })
    }

    /// By path, where nothing else than ours has run (nano) or nothing is judged (a developer's system).
    pub(crate) fn plain() -> io::Result<Self> {
        Ok(Self { proc: Proc::at("/proc")?, disk: None })
    }
}

/// A copy of the mount that `root` lies in, without those below it.
pub(crate) fn bare(root: &Root) -> io::Result<Root> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(Root::of_one_mount(open_tree(root, "", flags)?))
}

/// The root of a procfs. Paths are relative to it.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

impl Proc {
    /// A new procfs of this process's PID namespace (the first one: the agent is started by the initramfs).
    pub(crate) fn detached() -> io::Result<Self> {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
    }

    /// What lies at `folder`. That it is a procfs is asked of each file.
    pub(crate) fn at(folder: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, folder.as_ref(), flags, Mode::empty())?))
    }

    /// The content of a file, of at most `limit` bytes.
    ///
    /// # Errors
    /// `FileTooLarge` above the limit; `CrossesDevices` if something is mounted over it; `InvalidData` if it is on no procfs.
    pub(crate) fn read(&self, path: impl AsRef<Path>, limit: usize) -> io::Result<Vec<u8>> {
        root::read_bounded(self.file(path)?, limit)
    }

    /// A file, opened for reading.
    pub(crate) fn file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        Ok(self.open(path.as_ref(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?.into())
    }

    /// Writes to a file that is there: a setting of the kernel.
    pub(crate) fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        File::from(self.open(path.as_ref(), OFlags::WRONLY)?).write_all(content)
    }

    /// Where a link says it points; it is not followed.
    pub(crate) fn target(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let link = self.open(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes())
    }

    /// Names in a folder that are numbers, ascending.
    ///
    /// # Errors
    /// `FileTooLarge` if there are more than `limit` names.
    pub(crate) fn numbers(&self, path: impl AsRef<Path>, limit: usize) -> io::Result<Vec<u32>> {
        let folder = self.open(path.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = root::list(folder, limit)?;
        let mut numbers: Vec<u32> =
            entries.iter().filter_map(|entry| entry.name.to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let opened = rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        if rustix::fs::fstatfs(&opened)?.f_type != PROC_SUPER_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not on a procfs"));
        }
        Ok(opened)
    }
}

/// The folder of a process.
pub(crate) fn process(pid: u32) -> PathBuf {
    PathBuf::from(pid.to_string())
}

/// Whether `error` says that a process, or a descriptor of it, ended while it was looked at.
pub(crate) fn ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}
