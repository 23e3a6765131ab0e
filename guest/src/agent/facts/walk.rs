//! One walk over the whole root device: files that give rights, and files that anyone may change.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use guest::facts::{FileCapability, FileMode};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::Notes;
use super::small_files::display;
use crate::agent::root::{Kind, Root, list};
use crate::agent::sight;

/// Names that are looked at in all.
const MAX_WALKED: usize = 1_000_000;
/// Names in one folder.
const MAX_FOLDER: usize = 250_000;
/// Longest value of `security.capability` (`VFS_CAP_REVISION_3` has 24 bytes).
const MAX_CAPABILITY: usize = 64;

const SETID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;

/// What the walk found, sorted.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) setuid: Vec<FileMode>,
    pub(super) capabilities: Vec<FileCapability>,
    pub(super) world_writable: Vec<FileMode>,
}

/// Walks the device of `root`, also what lies hidden below other mounts.
pub(super) fn whole_device(root: &Root, notes: &mut Notes) -> Walked {
    if root.is_one_mount() {
        return below(root, notes);
    }
    // A copy of the mount without those below it. Where that cannot be had, mounts are passed over.
    match sight::bare(root) {
        Ok(bare) => below(&bare, notes),
        Err(_) => below(root, notes),
    }
}

fn below(root: &Root, notes: &mut Notes) -> Walked {
    let mut walk = Walk { found: Walked::default(), looked: 0 };
    let mut folders = vec![PathBuf::from("/")];
    while let Some(folder) = folders.pop() {
        match walk.folder(root, &folder, &mut folders, notes) {
            Ok(()) => {}
            // Gone while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Another device. On one mount there is none, unless someone mounts over our own.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices && !root.is_one_mount() => {}
            Err(error) => notes.add(format!("walk: {}: {error}", display(&folder))),
        }
        if walk.looked > MAX_WALKED {
            notes.add("walk");
            break;
        }
    }
    let mut found = walk.found;
    found.setuid.sort();
    found.capabilities.sort();
    found.world_writable.sort();
    found
}

struct Walk {
    found: Walked,
    looked: usize,
}

impl Walk {
    fn folder(
        &mut self,
        root: &Root,
        path: &Path,
        folders: &mut Vec<PathBuf>,
        notes: &mut Notes,
    ) -> io::Result<()> {
        let open = root.open_on_device(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        let mut entries = list(open.try_clone()?, MAX_FOLDER)?;
        entries.sort();
        for entry in entries {
            self.looked += 1;
            if entry.kind == Kind::Link {
                continue;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            let stat = match rustix::fs::statx(&open, &entry.name, flags, StatxFlags::BASIC_STATS) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let full = path.join(&entry.name);
            if root.is_one_mount() && stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                notes.add(format!("walk: {}: something is mounted over it", display(&full)));
                continue;
            }
            if self.look(&open, &entry.name, &full, &stat, notes) == FileType::Directory {
                folders.push(full);
            }
        }
        Ok(())
    }

    fn look(
        &mut self,
        folder: &OwnedFd,
        name: &Path,
        path: &Path,
        stat: &Statx,
        notes: &mut Notes,
    ) -> FileType {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let mode = u32::from(stat.stx_mode) & 0o7777;
        let as_fact = || FileMode {
            path: display(path),
            mode,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            kind: match kind {
                FileType::RegularFile => "file",
                FileType::Directory => "directory",
                _ => "other",
            }
            .to_owned(),
        };
        if kind == FileType::RegularFile && mode & SETID != 0 {
            notes.push("setuid", &mut self.found.setuid, as_fact());
        }
        let guarded = kind == FileType::Directory && mode & STICKY != 0;
        if kind != FileType::Symlink && mode & OTHERS_WRITE != 0 && !guarded {
            notes.push("worldWritable", &mut self.found.world_writable, as_fact());
        }
        if kind == FileType::RegularFile {
            match capability(folder, name) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    let fact = FileCapability { path: display(path), value: hex::encode(value) };
                    notes.push("capabilities", &mut self.found.capabilities, fact);
                }
                Err(error) => notes.add(format!("capabilities: {}: {error}", display(path))),
            }
        }
        kind
    }
}

/// The file's `security.capability`. No call takes a folder and a name, so the file is opened: a way through `/proc/self/fd`
/// would believe whoever mounts over `/proc`.
fn capability(folder: &OwnedFd, name: &Path) -> io::Result<Option<Vec<u8>>> {
    // NONBLOCK: nothing that was put in the file's place holds the agent.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let mut value = [0; MAX_CAPABILITY];
    match rustix::fs::fgetxattr(file, "security.capability", &mut value) {
        Ok(count) => Ok(Some(value[..count].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_files_that_give_rights_or_that_anyone_may_change_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = |name: &str, mode: u32| {
            fs::write(at(name), "x").unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::create_dir(at("sticky")).unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(at("sticky"), Permissions::from_mode(0o1777)).unwrap();
        file("a/b/su", 0o4755);
        file("a/sg", 0o2755);
        file("a/plain", 0o755);
        file("a/b/anyone", 0o666);
        symlink("/etc", at("a/etc")).unwrap();

        let mut notes = Notes::default();
        let found = below(&Root::open(folder.path()).unwrap(), &mut notes);
        let paths = |facts: &[FileMode]| facts.iter().map(|fact| fact.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&found.setuid), ["/a/b/su", "/a/sg"]);
        assert_eq!(paths(&found.world_writable), ["/a/b/anyone", "/open"]);
        assert_eq!(found.setuid[0].mode, 0o4755);
        assert!(found.capabilities.is_empty() && notes.0.is_empty(), "{notes:?}");
    }

    #[test]
    fn capabilities_of_a_file_are_told_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ping");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        // `VFS_CAP_REVISION_2` and effective, then permitted and inheritable in two halves (linux/capability.h): CAP_NET_RAW.
        let mut value = [0; 20];
        (value[0], value[3], value[5]) = (1, 2, 0x20);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "security.capability", &value, flags)
            .expect("this test gives a file capabilities: run it as root");
        let mut notes = Notes::default();
        let found = below(&Root::open(folder.path()).unwrap(), &mut notes);
        let fact = FileCapability { path: "/ping".into(), value: hex::encode(value) };
        assert_eq!(found.capabilities, [fact]);
        assert!(notes.0.is_empty(), "{notes:?}");
    }
}
