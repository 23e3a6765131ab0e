//! Overlays: the qcow2 files that a machine writes, and the header check of those it once wrote.
//!
//! A sealed layer was written by a QEMU that a hostile guest drove, so its header is hostile input. A qcow2
//! header can name other files of the host (backing file, external data file). The names are never followed,
//! since each node of the chain is named on QEMU's command line, and a header that has any is refused as well.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Makes an empty overlay of this size without any backing name, for us alone (0600).
///
/// `qemu-img` sees nothing but arguments of ours here; it is never run on a file that a guest has written.
pub(crate) fn create(qemu_img: &Path, path: &Path, virtual_size: u64) -> Result<(), HarnessError> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| HarnessError::system("create", path, source))?;
    let made = Command::new(qemu_img)
        .args(["create", "-q", "-f", "qcow2", "-o", "compat=1.1,lazy_refcounts=off"])
        .arg(path)
        .arg(virtual_size.to_string())
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|source| HarnessError::system("run qemu-img for", path, source))?;
    if made.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    if text.contains("No space left") {
        return Err(HarnessError::HostFull { what: text });
    }
    Err(HarnessError::system("create", path, std::io::Error::other(text)))
}

#[cfg(test)]
mod tests {
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
