//! Overlays: the qcow2 files that a machine writes, and the header check of those it once wrote.
//!
//! A sealed layer was written by a QEMU that a hostile guest drove, so its header is hostile input. A qcow2
//! header can name other files of the host (backing file, external data file). The names are never followed,
//! since each node of the chain is named on QEMU's command line, and a header that has any is refused as well.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::HarnessError;

/// Length of the fixed part of a version 3 header (QEMU `docs/interop/qcow2.txt`).
const HEADER: usize = 104;
const MAGIC: &[u8] = b"QFI\xfb";

/// What a header says, as far as we let it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Size of the disk in bytes.
    pub(crate) virtual_size: u64,
}

/// Reads and checks the header through an open descriptor, and leaves it at the beginning.
///
/// # Errors
/// A reason, for a person.
pub(crate) fn header(file: &mut File) -> Result<Header, String> {
    let mut bytes = [0; HEADER];
    file.rewind()
        .and_then(|()| file.read_exact(&mut bytes))
        .and_then(|()| file.rewind())
        .map_err(|e| e.to_string())?;
    parse(&bytes)
}

fn parse(bytes: &[u8; HEADER]) -> Result<Header, String> {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    if &bytes[..4] != MAGIC || word(4) != 3 {
        return Err("it is not a qcow2 image of version 3".into());
    }
    for (field, name) in [
        (long(8), "a backing file"),
        (u64::from(word(32)), "encryption"),
        (u64::from(word(60)), "internal snapshots"),
        (long(72), "features that have no place here (a dirty or corrupt mark, an external data file)"),
    ] {
        if field != 0 {
            return Err(format!("its header has {name}"));
        }
    }
    Ok(Header { virtual_size: long(24) })
}

/// Clusters of 64 KiB, the size that QEMU itself takes.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of the disk behind one entry of the L1 table: a cluster of entries of 8 bytes, each for a cluster.
const BEHIND_L1_ENTRY: u64 = CLUSTER / 8 * CLUSTER;
/// References are counted in 16 bits (`refcount_order` 4).
const REFCOUNT_ORDER: u32 = 4;
/// Largest disk that an L1 table of one cluster covers.
const MAX_SIZE: u64 = CLUSTER / 8 * BEHIND_L1_ENTRY;

/// Makes an empty overlay of this size without any backing name, for us alone (0600): header, refcount table, one refcount block
/// and L1 table, a cluster each. Written here, for `qemu-img` takes longer to start than a clone has.
pub(crate) fn create(path: &Path, virtual_size: u64) -> Result<(), HarnessError> {
    if virtual_size > MAX_SIZE {
        let error = std::io::Error::other(format!("a disk of {virtual_size} bytes is too large"));
        return Err(HarnessError::system("create", path, error));
    }
    let write = || -> std::io::Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len(4 * CLUSTER)?;
        file.write_all_at(&empty_header(virtual_size), 0)?;
        // The one refcount block, and in it the four clusters that are in use.
        file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
        file.write_all_at(&[0, 1].repeat(4), 2 * CLUSTER)
    };
    write().map_err(|source| HarnessError::system("create", path, source))
}

/// Makes an overlay that begins as a copy of another, for us alone (0600).
pub(crate) fn copy(from: &mut File, path: &Path) -> Result<(), HarnessError> {
    let mut write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        std::io::copy(from, &mut file).map(drop)
    };
    write().map_err(|source| HarnessError::system("copy an overlay to", path, source))
}

/// The header of an image in which nothing is allocated (QEMU `docs/interop/qcow2.txt`).
fn empty_header(virtual_size: u64) -> Vec<u8> {
    let entries = u32::try_from(virtual_size.div_ceil(BEHIND_L1_ENTRY)).unwrap_or(u32::MAX);
    let mut header = MAGIC.to_vec();
    // Version; no backing file (offset, length of its name); cluster size.
    for word in [3, 0, 0, 0, CLUSTER_BITS] {
        header.extend_from_slice(&word.to_be_bytes());
    }
    header.extend_from_slice(&virtual_size.to_be_bytes());
    // No encryption; the L1 table with its number of entries.
    header.extend_from_slice(&0u32.to_be_bytes());
    header.extend_from_slice(&entries.to_be_bytes());
    header.extend_from_slice(&(3 * CLUSTER).to_be_bytes());
    // The refcount table, one cluster of it; no snapshots (number, offset).
    header.extend_from_slice(&CLUSTER.to_be_bytes());
    header.extend_from_slice(&1u32.to_be_bytes());
    header.extend_from_slice(&[0; 12]);
    // No features of the three kinds.
    header.extend_from_slice(&[0; 24]);
    header.extend_from_slice(&REFCOUNT_ORDER.to_be_bytes());
    header.extend_from_slice(&(HEADER as u32).to_be_bytes());
    // What follows is the end of the header's extensions: zeros.
    header
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn good() -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[7] = 3;
        bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        bytes
    }

    #[test]
    fn a_plain_header_gives_its_size() {
        assert_eq!(parse(&good()).unwrap().virtual_size, 1 << 30);
    }

    /// `qemu-img` finds an image of that size in which nothing is wrong and nothing allocated, and so do we.
    #[test]
    fn a_new_overlay_is_as_qemu_img_makes_one() {
        for size in [1 << 20, 4 << 30, (4 << 30) + 512, 100 << 30, MAX_SIZE] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("overlay");
            create(&path, size).unwrap();
            let asked = |verb: &str| {
                let said =
                    Command::new("qemu-img").args([verb, "--output=json"]).arg(&path).output().unwrap();
                assert!(said.status.success(), "{size}: {}", String::from_utf8_lossy(&said.stderr));
                serde_json::from_slice::<serde_json::Value>(&said.stdout).unwrap()
            };
            let checked = asked("check");
            assert_eq!(checked["image-end-offset"], 4 * CLUSTER, "{checked:#}");
            for damage in ["leaks", "corruptions", "check-errors", "allocated-clusters"] {
                assert!(checked[damage].as_u64().unwrap_or(0) == 0, "{size}: {checked:#}");
            }
            let info = asked("info");
            assert_eq!((&info["format"], &info["virtual-size"]), (&"qcow2".into(), &size.into()));
            assert_eq!(info["format-specific"]["data"]["compat"], "1.1");
            assert!(info.get("backing-filename").is_none(), "{info:#}");
            assert_eq!(header(&mut File::open(&path).unwrap()).unwrap().virtual_size, size);
        }
        let folder = tempfile::tempdir().unwrap();
        create(&folder.path().join("overlay"), MAX_SIZE + 1).unwrap_err();
    }

    #[test]
    fn whatever_could_name_another_file_is_refused() {
        for (at, what) in [
            (15, "backing"),
            (35, "encryption"),
            (63, "snapshots"),
            (79, "features"),
            (7, "version 3"),
            (0, "qcow2"),
        ] {
            let mut bytes = good();
            bytes[at] ^= 4;
            let refused = parse(&bytes).unwrap_err();
            assert!(refused.contains(what), "{at}: {refused}");
        }
    }
}
