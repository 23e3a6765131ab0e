//! The second opinion: what the kernel shows of a file system, walked with the standard library.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use disk::{Change, Kind, Node, escaped};
use recipe_spec::digest::Sha256Digest;
use rustix::fs as system;

/// Every path below `root`, which stands for `/`.
pub(crate) fn walk(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut found = BTreeMap::from([(b"/".to_vec(), node(root))]);
    let mut waiting = vec![(root.to_owned(), Vec::new())];
    while let Some((folder, path)) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let full = [&path[..], b"/", entry.file_name().as_bytes()].concat();
            if entry.file_type().unwrap().is_dir() {
                waiting.push((entry.path(), full.clone()));
            }
            found.insert(full, node(&entry.path()));
        }
    }
    found
}

/// What differs, by the rule of the format: times and numbers of inodes do not count.
pub(crate) fn changes(before: &BTreeMap<Vec<u8>, Node>, after: &BTreeMap<Vec<u8>, Node>) -> Vec<Change> {
    let paths: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| Change {
            path: escaped(path),
            before: before.get(path).cloned(),
            after: after.get(path).cloned(),
        })
        .collect()
}

fn node(path: &Path) -> Node {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Link,
        kind if kind.is_char_device() => Kind::Char,
        kind if kind.is_block_device() => Kind::Block,
        kind if kind.is_fifo() => Kind::Fifo,
        kind if kind.is_socket() => Kind::Socket,
        _ => Kind::File,
    };
    let device = metadata.rdev();
    let is_device = matches!(kind, Kind::Char | Kind::Block);
    // Only of files and directories does the kernel show flags.
    let flags = if matches!(kind, Kind::File | Kind::Directory) {
        system::ioctl_getflags(File::open(path).unwrap()).unwrap().bits() & 0x2203_c0fb
    } else {
        0
    };
    Node {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: if matches!(kind, Kind::File | Kind::Link) { metadata.size() } else { 0 },
        sha256: (kind == Kind::File)
            .then(|| Sha256Digest::of_reader(&mut File::open(path).unwrap()).unwrap().0),
        target: (kind == Kind::Link).then(|| escaped(fs::read_link(path).unwrap().as_os_str().as_bytes())),
        device: is_device.then(|| (system::major(device), system::minor(device))),
        links: if kind == Kind::Directory { 1 } else { u16::try_from(metadata.nlink()).unwrap() },
        flags,
        attributes: attributes(path),
    }
}

fn attributes(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; 65_536];
    let length = system::llistxattr(path, &mut names[..]).unwrap();
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = system::lgetxattr(path, name, &mut value[..]).unwrap();
            (escaped(name), value[..length].iter().map(|byte| format!("{byte:02x}")).collect())
        })
        .collect()
}
