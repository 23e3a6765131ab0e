//! The tree of control groups (cgroup v2), through which all processes but the agent are frozen.
//!
//! It is a mount of the agent's own that is attached nowhere, so no path of the guest is believed. It is made before the disk's
//! init starts: a new mount of cgroup2 also sets the options of the whole hierarchy (kernel/cgroup/cgroup.c,
//! `apply_cgroup_root_flags`), so one that is made later would undo what systemd asked for with its own.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::root::{Kind, Root};

/// The topmost cgroup, in which nothing can be frozen.
pub(crate) const TOP: &str = "/";
/// Names in one cgroup, the kernel's files included, that are looked at.
const MAX_NAMES: usize = 4096;
/// Longest list of processes of one cgroup, in bytes: some ten thousand.
const MAX_PROCESSES: usize = 256 * 1024;
/// Longest of the small files, in bytes.
const MAX_TEXT: usize = 4 * 1024;
/// Mode of a cgroup that is made.
const MODE: Mode = Mode::from_raw_mode(0o755);

/// The hierarchy. Cgroups are named by their paths in it.
#[derive(Debug)]
pub(crate) struct Hierarchy(Root);

impl Hierarchy {
    /// A new mount of the hierarchy, from its top because the agent is in the first cgroup namespace.
    ///
    /// # Errors
    /// What the kernel says: without cgroup v2 there is no such file system.
    pub(crate) fn detached() -> io::Result<Self> {
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self::of(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
    }

    /// The hierarchy whose top is `folder`. No path leaves it for another mount.
    pub(crate) fn of(folder: OwnedFd) -> Self {
        Self(Root::of_one_mount(folder))
    }

    /// The cgroups directly in `cgroup`, in byte order; none if it is gone.
    ///
    /// # Errors
    /// `FileTooLarge` if there are too many.
    pub(crate) fn children(&self, cgroup: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = self.0.list(cgroup, MAX_NAMES)?.unwrap_or_default();
        let folders = entries.into_iter().filter(|entry| entry.kind == Kind::Folder);
        Ok(folders.map(|entry| cgroup.join(entry.name)).collect())
    }

    /// The processes in `cgroup`, not in those below it.
    ///
    /// # Errors
    /// `FileTooLarge` if there are too many; `InvalidData` if one has no number here, as one of another PID namespace.
    pub(crate) fn processes(&self, cgroup: &Path) -> io::Result<Vec<u32>> {
        let list = self.text(cgroup, "cgroup.procs", MAX_PROCESSES)?;
        let number = |line: &str| line.parse().map(NonZeroU32::get);
        list.lines().map(|line| number(line).map_err(|_| not_understood("cgroup.procs"))).collect()
    }

    /// Whether every process in `cgroup` and below it is frozen.
    ///
    /// # Errors
    /// `InvalidData` if the kernel does not tell, as before Linux 5.2.
    pub(crate) fn is_frozen(&self, cgroup: &Path) -> io::Result<bool> {
        frozen(&self.text(cgroup, "cgroup.events", MAX_TEXT)?).ok_or_else(|| not_understood("cgroup.events"))
    }

    /// Asks that `cgroup` and all below it be frozen; false if that was asked already.
    pub(crate) fn freeze(&self, cgroup: &Path) -> io::Result<bool> {
        if self.text(cgroup, "cgroup.freeze", MAX_TEXT)?.trim_end() == "1" {
            return Ok(false);
        }
        self.write(cgroup, "cgroup.freeze", "1").map(|()| true)
    }

    /// Undoes [`Hierarchy::freeze`]. What was frozen by itself below `cgroup` stays so.
    pub(crate) fn thaw(&self, cgroup: &Path) -> io::Result<()> {
        self.write(cgroup, "cgroup.freeze", "0")
    }

    /// Makes `cgroup`, which lies at the top, if it is not there, and moves this process with all its threads into it.
    pub(crate) fn enter(&self, cgroup: &Path) -> io::Result<()> {
        match rustix::fs::mkdirat(self.0.as_fd(), cgroup.strip_prefix(TOP).unwrap_or(cgroup), MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Whoever made it before us may have frozen it, and us with it.
        self.thaw(cgroup)?;
        self.write(cgroup, "cgroup.procs", &std::process::id().to_string())
    }

    fn text(&self, cgroup: &Path, file: &str, limit: usize) -> io::Result<String> {
        let bytes = self.0.read(&cgroup.join(file), limit)?.ok_or(io::ErrorKind::NotFound)?;
        String::from_utf8(bytes).map_err(|_| not_understood(file))
    }

    fn write(&self, cgroup: &Path, file: &str, text: &str) -> io::Result<()> {
        let open = self.0.open_at(&cgroup.join(file), OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW)?;
        // One write is one order to the kernel.
        File::from(open).write_all(text.as_bytes())
    }
}

/// Whether `error` says that a cgroup went away while it was looked at.
pub(crate) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn not_understood(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} is not understood"))
}

/// The value of `frozen` in `cgroup.events`.
fn frozen(events: &str) -> Option<bool> {
    match events.lines().find_map(|line| line.strip_prefix("frozen "))? {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;
    use tempfile::TempDir;

    use super::*;

    /// A folder that looks like a hierarchy; nothing in it moves by itself.
    pub(crate) struct Tree(TempDir);

    impl Tree {
        /// A top with the processes `processes`.
        pub(crate) fn new(processes: &[u32]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.write("/", "cgroup.procs", &lines(processes));
            tree
        }

        /// A cgroup whose `cgroup.events` says `frozen`, whatever is written to `cgroup.freeze`.
        pub(crate) fn cgroup(&self, path: &str, frozen: bool, processes: &[u32]) {
            fs::create_dir(self.at(path, "")).unwrap();
            self.write(path, "cgroup.freeze", "0\n");
            self.write(path, "cgroup.procs", &lines(processes));
            self.becomes(path, frozen);
        }

        pub(crate) fn becomes(&self, path: &str, frozen: bool) {
            // At once, as the kernel does it.
            self.write(path, "new", &format!("populated 1\nfrozen {}\n", u8::from(frozen)));
            fs::rename(self.at(path, "new"), self.at(path, "cgroup.events")).unwrap();
        }

        pub(crate) fn write(&self, path: &str, file: &str, text: &str) {
            fs::write(self.at(path, file), text).unwrap();
        }

        pub(crate) fn read(&self, path: &str, file: &str) -> String {
            fs::read_to_string(self.at(path, file)).unwrap()
        }

        pub(crate) fn at(&self, path: &str, file: &str) -> PathBuf {
            self.0.path().join(path.trim_start_matches('/')).join(file)
        }

        pub(crate) fn hierarchy(&self) -> Hierarchy {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Hierarchy::of(rustix::fs::openat(CWD, self.0.path(), flags, Mode::empty()).unwrap())
        }
    }

    fn lines(processes: &[u32]) -> String {
        processes.iter().map(|process| format!("{process}\n")).collect()
    }

    #[test]
    fn only_a_plain_answer_says_frozen() {
        assert_eq!(frozen("populated 1\nfrozen 1\n"), Some(true));
        assert_eq!(frozen("frozen 0\npopulated 1\n"), Some(false));
        for events in ["", "populated 1\n", "frozen\n", "frozen 2\n", "frozen 1 \n", "unfrozen 1\n"] {
            assert_eq!(frozen(events), None, "{events:?}");
        }
    }

    #[test]
    fn freezing_is_asked_once_and_undone() {
        let tree = Tree::new(&[]);
        tree.cgroup("/a", false, &[]);
        let (hierarchy, a) = (tree.hierarchy(), Path::new("/a"));
        assert!(hierarchy.freeze(a).unwrap());
        assert_eq!(tree.read("/a", "cgroup.freeze"), "1");
        assert!(!hierarchy.freeze(a).unwrap());
        hierarchy.thaw(a).unwrap();
        assert_eq!(tree.read("/a", "cgroup.freeze"), "0");
        assert!(gone(&hierarchy.freeze(Path::new("/b")).unwrap_err()));
    }

    #[test]
    fn only_folders_are_cgroups_and_lists_are_bounded() {
        let tree = Tree::new(&[1, 20]);
        tree.cgroup("/b", false, &[]);
        tree.cgroup("/a", false, &[]);
        symlink("/", tree.at("/", "link")).unwrap();
        let (hierarchy, top) = (tree.hierarchy(), Path::new(TOP));
        assert_eq!(hierarchy.children(top).unwrap(), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(hierarchy.processes(top).unwrap(), [1, 20]);
        for list in ["1\nx\n", "-1\n", "0\n", "1 2\n", "4294967296\n", "\n"] {
            tree.write("/", "cgroup.procs", list);
            assert_eq!(hierarchy.processes(top).unwrap_err().kind(), io::ErrorKind::InvalidData, "{list:?}");
        }
        tree.write("/", "cgroup.procs", &"1\n".repeat(MAX_PROCESSES / 2 + 1));
        assert_eq!(hierarchy.processes(top).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for number in 0..MAX_NAMES {
            tree.write("/", &format!("{number}"), "");
        }
        assert_eq!(hierarchy.children(top).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn the_agent_enters_also_what_was_made_and_frozen_before() {
        let tree = Tree::new(&[]);
        tree.cgroup("/own", false, &[]);
        tree.write("/own", "cgroup.freeze", "1\n");
        tree.hierarchy().enter(Path::new("/own")).unwrap();
        assert_eq!(tree.read("/own", "cgroup.freeze"), "0");
        assert_eq!(tree.read("/own", "cgroup.procs"), std::process::id().to_string());
        // A new one is made; in a folder that is no hierarchy it lacks the kernel's files.
        assert!(gone(&tree.hierarchy().enter(Path::new("/new")).unwrap_err()));
        assert!(tree.at("/new", "").is_dir());
    }
}
