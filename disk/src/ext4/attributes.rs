//! Extended attributes, in the inode itself and in one block of its own.

use std::collections::BTreeMap;

use crate::error::Fault;

use super::checksum::Checksum;
use super::{le16, le32};

const MAGIC: u32 = 0xea02_0000;
/// Length of a block's header, and of an entry without its name.
const BLOCK_HEADER: usize = 32;
const ENTRY: usize = 16;
const CHECKSUM: usize = 0x10;

/// Names and values.
pub(super) type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// Which area; the kernel searches a block by order, and an inode from end to end.
enum Order {
    Sorted,
    Any,
}

/// Reads what stands behind the fields of an inode.
pub(super) fn in_inode(tail: &[u8]) -> Result<Attributes, Fault> {
    if tail.len() < 4 || le32(tail, 0) != MAGIC {
        return Ok(Attributes::new());
    }
    list(&tail[4..], 0, &Order::Any)
}

/// A block of attributes, and how many inodes it says it serves.
pub(super) fn in_block(bytes: &[u8], block: u64, seed: Checksum) -> Result<(Attributes, u32), Fault> {
    let sum = seed.and(&block.to_le_bytes()).and(&bytes[..CHECKSUM]).and(&[0; 4]).and(&bytes[CHECKSUM + 4..]);
    if le32(bytes, 0) != MAGIC || le32(bytes, 8) != 1 || sum.0 != le32(bytes, CHECKSUM) {
        return Err(Fault::damaged(format!(
            "block {block} holds no extended attributes or has a wrong checksum"
        )));
    }
    Ok((list(bytes, BLOCK_HEADER, &Order::Sorted)?, le32(bytes, 4)))
}

/// Reads entries from `first` on; their values count from the beginning of `area`.
fn list(area: &[u8], first: usize, order: &Order) -> Result<Attributes, Fault> {
    let damaged = || Fault::damaged("a list of extended attributes makes no sense");
    let mut found = Attributes::new();
    let mut values = Vec::new();
    let mut before: Option<(u8, usize, &[u8])> = None;
    let mut at = first;
    loop {
        if le32(area.get(at..at + 4).ok_or_else(damaged)?, 0) == 0 {
            break;
        }
        let entry = area.get(at..at + ENTRY).ok_or_else(damaged)?;
        let name = area.get(at + ENTRY..at + ENTRY + usize::from(entry[0])).ok_or_else(damaged)?;
        let (start, length) = (usize::from(le16(entry, 2)), le32(entry, 8) as usize);
        if le32(entry, 4) != 0 {
            return Err(Fault::unsupported("an extended attribute has an inode of its own"));
        }
        let value = start.checked_add(length).and_then(|end| area.get(start..end)).ok_or_else(damaged)?;
        if length > 0 {
            values.push(start);
        }
        let key = (entry[1], name.len(), name);
        if matches!(order, Order::Sorted) && before.is_some_and(|before| before >= key) {
            return Err(damaged());
        }
        before = Some(key);
        let value = match entry[1] {
            2 | 3 => access_list(value).ok_or_else(damaged)?,
            _ => value.to_vec(),
        };
        if found.insert(full_name(entry[1], name)?, value).is_some() {
            return Err(damaged());
        }
        at += (ENTRY + name.len()).next_multiple_of(4);
    }
    // Four bytes of zeros end the entries; values stand behind them.
    if values.iter().any(|start| *start < at + 4) {
        return Err(damaged());
    }
    Ok(found)
}

fn full_name(prefix: u8, name: &[u8]) -> Result<Vec<u8>, Fault> {
    let (prefix, is_whole): (&[u8], bool) = match prefix {
        1 => (b"user.", false),
        2 => (b"system.posix_acl_access", true),
        3 => (b"system.posix_acl_default", true),
        4 => (b"trusted.", false),
        6 => (b"security.", false),
        _ => {
            return Err(Fault::unsupported(format!("an extended attribute has the unknown prefix {prefix}")));
        }
    };
    if is_whole != name.is_empty() || name.contains(&0) {
        return Err(Fault::damaged("an extended attribute has an odd name"));
    }
    Ok([prefix, name].concat())
}

/// An access control list as programs see it: ext4 stores it under another version number, and without the id where there is none.
fn access_list(stored: &[u8]) -> Option<Vec<u8>> {
    const NO_ID: [u8; 4] = [0xff; 4];
    let (version, mut rest) = stored.split_at_checked(4)?;
    if le32(version, 0) != 1 {
        return None;
    }
    let mut list = vec![2, 0, 0, 0];
    while !rest.is_empty() {
        let (entry, further) = rest.split_at_checked(4)?;
        list.extend(entry);
        // A user or a group by its id; owner, owning group, mask and others have none.
        rest = match le16(entry, 0) {
            2 | 8 => {
                let (id, further) = further.split_at_checked(4)?;
                list.extend(id);
                further
            }
            1 | 4 | 16 | 32 => {
                list.extend(NO_ID);
                further
            }
            _ => return None,
        };
    }
    Some(list)
}
