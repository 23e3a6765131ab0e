//! The dynamic loader's cache (ld.so(8)): a file that every program of root believes, which leads to libraries in their folders
//! and nowhere else.
//!
//! ```text
//! "glibc-ld.so.cache1.1", number of entries, length of the names (u32 each), flags and padding (28 bytes)
//! entry: flags (i32), offset of name, offset of path, unused (u32 each), hardware (u64)
//! ```
//! Offsets count from the beginning of the file (glibc `sysdeps/generic/dl-cache.h`, `struct cache_file_new`).

use recipe_spec::Sha256Digest;

use super::super::pattern;
use super::{Check, Sees};

/// Where it lies.
pub(crate) const PATH: &str = "/etc/ld.so.cache";
/// Longest that is read, in bytes.
pub(crate) const MAX_BYTES: u64 = 8 << 20;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;

pub(super) const CHECK: Check = Check {
    name: "loader-cache",
    sees: Sees::Files,
    lists: &[],
    run: |evidence, config, complaints| {
        let changes = &evidence.changes.changes;
        let Some(change) = changes.iter().find(|change| change.path == PATH) else { return };
        let Some(after) = &change.after else {
            complaints.add(PATH, "is gone, and the loader looks elsewhere without it", "run ldconfig");
            return;
        };
        let read = evidence.contents.get(PATH).filter(|bytes| after.sha256 == Some(Sha256Digest::of(bytes)));
        let Some(entries) = read.and_then(|bytes| entries(bytes)) else {
            complaints.add(PATH, "is not a cache as ldconfig writes it", "run ldconfig, and leave it alone");
            return;
        };
        for (name, path) in entries {
            let own_name = path.rsplit('/').next() == Some(name);
            let plain = !path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
            if !own_name || !plain || !pattern::any(&config.programs.cached, path) {
                complaints.add(
                    PATH,
                    format_args!("leads from {} to {}", shown(name), shown(path)),
                    "keep libraries where the loader looks by itself, and run ldconfig",
                );
            }
        }
    },
};

use super::super::complaints::shown;

/// Name and path of each entry; `None` if anything is not as it must be.
fn entries(bytes: &[u8]) -> Option<Vec<(&str, &str)>> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let count = number(MAGIC.len())?;
    let table = bytes.get(HEADER..HEADER.checked_add(count.checked_mul(ENTRY)?)?)?;
    let text = |offset: usize| {
        let rest = bytes.get(offset..)?;
        std::str::from_utf8(&rest[..rest.iter().position(|byte| *byte == 0)?]).ok()
    };
    (0..table.len() / ENTRY)
        .map(|index| HEADER + index * ENTRY)
        .map(|at| Some((text(number(at + 4)?)?, text(number(at + 8)?)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::suite::fixture::{Machine, change, node};

    fn cache(libraries: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((libraries.len() as u32).to_le_bytes());
        bytes.resize(HEADER, 0);
        let mut names = Vec::new();
        let start = HEADER + libraries.len() * ENTRY;
        for (name, path) in libraries {
            bytes.extend([3, 0, 0, 0]);
            for text in [name, path] {
                bytes.extend(((start + names.len()) as u32).to_le_bytes());
                names.extend(text.as_bytes());
                names.push(0);
            }
            bytes.extend([0; 12]);
        }
        bytes.extend(names);
        bytes
    }

    fn machine(bytes: &[u8]) -> Machine {
        let mut machine = Machine::base();
        let mut after = node("");
        after.sha256 = Some(Sha256Digest::of(bytes));
        machine.disk.changes.push(change(PATH, Some(node("old")), Some(after)));
        machine.contents.insert(PATH.to_owned(), bytes.to_vec());
        machine
    }

    #[test]
    fn a_name_leads_to_the_file_of_that_name_where_libraries_are() {
        // As ldconfig writes it: `/lib` is a link.
        let good = ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6");
        let also = ("libx.so.1", "/usr/local/lib/libx.so.1");
        machine(&cache(&[good, also])).passes("loader-cache", "", "");
        for bad in [
            ("libc.so.6", "/lib/x86_64-linux-gnu/../libc.so.6"),
            ("libc.so.6", "/lib/../libc.so.6"),
            ("libc.so.6", "/lib//libc.so.6"),
            ("libc.so.6", "/usr/local/lib/d/libc.so.6"),
            ("..", "/lib/.."),
            ("libc.so.6", "/usr/lib/x86_64-linux-gnu/libown.so"),
            ("libc.so.6", "/tmp/libc.so.6"),
            ("libc.so.6", "/usr/lib/../../tmp/libc.so.6"),
        ] {
            machine(&cache(&[good, bad])).fails("loader-cache", "", "", bad.1);
        }
    }

    #[test]
    fn what_is_no_cache_or_another_than_on_the_disk_fails() {
        let bytes = cache(&[("libc.so.6", "/usr/lib/libc.so.6")]);
        for cut in 0..bytes.len() {
            machine(&bytes[..cut]).fails("loader-cache", "", "", "not a cache");
        }
        let mut other = machine(&bytes);
        other.contents.clear();
        other.fails("loader-cache", "", "", "not a cache");
        other.contents.insert(PATH.to_owned(), cache(&[]));
        other.fails("loader-cache", "", "", "not a cache");
        other.disk.changes.last_mut().unwrap().after = None;
        other.fails("loader-cache", "", "", "gone");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = entries(&bytes);
            let mut cache = MAGIC.to_vec();
            cache.extend(bytes);
            let _ = entries(&cache);
        }
    }
}
