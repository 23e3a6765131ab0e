//! One walk over the whole root device: files that give rights, files that anyone may change, and extended attributes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use guest::facts::{FileAttribute, FileCapability, FileMode, MAX_ATTRIBUTE};
use recipe_spec::digest::Sha256Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::Notes;
use super::small_files::display;
use crate::agent::escape::escaped;
use crate::agent::root::{Kind, Root, list};
use crate::agent::sight;

/// Names that are looked at in all.
const MAX_WALKED: usize = 1_000_000;
/// Names in one folder.
const MAX_FOLDER: usize = 250_000;
/// Longest list of names, and longest value, that the kernel gives (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`, linux/limits.h).
const MAX_XATTR: usize = 65_536;
/// The attribute with a list of its own.
const CAPABILITY: &[u8] = b"security.capability";

const SETID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;

/// What the walk found, sorted.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) setuid: Vec<FileMode>,
    pub(super) capabilities: Vec<FileCapability>,
    pub(super) attributes: Vec<FileAttribute>,
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
    let mut walk =
        Walk { found: Walked::default(), looked: 0, names: vec![0; MAX_XATTR], value: vec![0; MAX_XATTR] };
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
    found.attributes.sort();
    found.world_writable.sort();
    found
}

struct Walk {
    found: Walked,
    looked: usize,
    /// Room for the names of one file's attributes, and for one value.
    names: Vec<u8>,
    value: Vec<u8>,
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
        if matches!(kind, FileType::RegularFile | FileType::Directory)
            && let Err(error) = self.attributes(folder, name, path, notes)
            && error.kind() != io::ErrorKind::NotFound
        {
            for list in ["capabilities", "attributes"] {
                notes.add(format!("{list}: {}: {error}", display(path)));
            }
        }
        kind
    }

    /// The extended attributes of a file or folder. No call takes a folder and a name, so it is opened: a way through
    /// `/proc/self/fd` would believe whoever mounts over `/proc`.
    fn attributes(
        &mut self,
        folder: &OwnedFd,
        name: &Path,
        path: &Path,
        notes: &mut Notes,
    ) -> io::Result<()> {
        // NONBLOCK: nothing that was put in the file's place holds the agent.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
        let length = match rustix::fs::flistxattr(&file, &mut self.names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        };
        let names: Vec<Vec<u8>> = self.names[..length]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        for attribute in names {
            let length = match rustix::fs::fgetxattr(&file, attribute.as_slice(), &mut self.value[..]) {
                Ok(length) => length,
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(error.into()),
            };
            let value = &self.value[..length];
            if attribute == CAPABILITY {
                let fact = FileCapability { path: display(path), value: hex::encode(value) };
                notes.push("capabilities", &mut self.found.capabilities, fact);
                continue;
            }
            let value = if length > MAX_ATTRIBUTE {
                format!("sha256:{}", Sha256Digest::of(value))
            } else {
                hex::encode(value)
            };
            let fact = FileAttribute { path: display(path), name: escaped(&attribute), value };
            notes.push("attributes", &mut self.found.attributes, fact);
        }
        Ok(())
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
        assert!(found.attributes.is_empty() && notes.0.is_empty(), "{notes:?}");
    }

    #[test]
    fn other_attributes_of_files_and_folders_are_told_too() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/shadow"), "x").unwrap();
        // Version 2; the owner and the group nothing, user 7 everything, mask, others nothing (linux/posix_acl_xattr.h).
        let mut list = vec![2, 0, 0, 0];
        for (tag, permissions, id) in
            [(1u16, 6u16, u32::MAX), (2, 7, 7), (4, 0, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
        {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(at("a/shadow"), "system.posix_acl_access", &list, flags).unwrap();
        let long = vec![b'x'; MAX_ATTRIBUTE + 1];
        rustix::fs::setxattr(at("a"), "user.long", &long, flags).unwrap();
        let mut notes = Notes::default();
        let found = below(&Root::open(folder.path()).unwrap(), &mut notes);
        let fact = |path: &str, name: &str, value: String| FileAttribute {
            path: path.into(),
            name: name.into(),
            value,
        };
        assert_eq!(
            found.attributes,
            [
                fact("/a", "user.long", format!("sha256:{}", Sha256Digest::of(&long))),
                fact("/a/shadow", "system.posix_acl_access", hex::encode(&list)),
            ]
        );
        assert!(notes.0.is_empty(), "{notes:?}");
    }
}
