//! Extents: which blocks hold a file's content.
//!
//! The kernel finds an extent by binary search, so a tree out of order would read differently for it than for somebody who
//! lists it: anything out of order is damaged.

use crate::error::Fault;

use super::inode::Inode;
use super::{le16, le32};

const MAGIC: u16 = 0xf30a;
/// Length of a node's header and of each entry.
const ENTRY: usize = 12;
/// What the kernel takes.
const MAX_DEPTH: u16 = 5;
/// Lengths above this are of blocks that were set aside and never written.
const MAX_WRITTEN: u32 = 32_768;
/// One past the highest block of a file.
const FILE_END: u64 = 1 << 32;

/// Blocks that lie together, in the file and on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// First block in the file.
    pub(crate) logical: u64,
    /// First block on the disk.
    pub(crate) physical: u64,
    /// How many.
    pub(crate) length: u64,
    /// Whether the blocks were written; else they read as zeros.
    pub(crate) written: bool,
}

/// A file's extents, in order, and the blocks of the tree itself.
pub(crate) struct Extents {
    pub(crate) runs: Vec<Run>,
    pub(super) nodes: Vec<u64>,
}

/// Reads the whole tree; `block` gives the bytes of a block of the disk.
pub(super) fn read(
    inode: &Inode,
    limit: usize,
    block: &mut dyn FnMut(u64) -> Result<Vec<u8>, Fault>,
) -> Result<Extents, Fault> {
    let damaged = |what: &str| Fault::damaged(format!("inode {}: {what}", inode.number()));
    let mut found = Extents { runs: Vec::new(), nodes: Vec::new() };
    let root = Node::parse(inode.i_block().to_vec(), None).map_err(damaged)?;
    // Nodes to visit, the next on top, each with the range of file blocks that it may speak of.
    let mut waiting = vec![(root, 0..FILE_END)];
    while let Some((node, range)) = waiting.pop() {
        let mut at = range.start;
        if node.depth == 0 {
            for entry in node.entries() {
                let (logical, length) = (u64::from(le32(entry, 0)), u32::from(le16(entry, 4)));
                let written = length <= MAX_WRITTEN;
                let length = u64::from(if written { length } else { length - MAX_WRITTEN });
                if logical < at || length == 0 || logical + length > range.end {
                    return Err(damaged("its extents are out of order"));
                }
                at = logical + length;
                if found.runs.len() == limit {
                    return Err(Fault::limit("extents in a file", limit as u64));
                }
                let physical = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
                found.runs.push(Run { logical, physical, length, written });
            }
            continue;
        }
        let mut children = Vec::new();
        let starts: Vec<u64> = node.entries().map(|entry| u64::from(le32(entry, 0))).collect();
        for (index, entry) in node.entries().enumerate() {
            let start = starts[index];
            let end = starts.get(index + 1).copied().unwrap_or(range.end);
            if start < at || end <= start || end > range.end {
                return Err(damaged("the index of its extents is out of order"));
            }
            at = start;
            children.push((u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32, start..end));
        }
        for (place, range) in children.into_iter().rev() {
            // A tree that leads back to itself ends here, since depth goes down by one each time.
            if found.nodes.len() == limit {
                return Err(Fault::limit("extents in a file", limit as u64));
            }
            found.nodes.push(place);
            let child = Node::parse(block(place)?, Some((node.depth - 1, inode))).map_err(damaged)?;
            waiting.push((child, range));
        }
    }
    Ok(found)
}

/// A node whose header was checked.
struct Node {
    bytes: Vec<u8>,
    depth: u16,
    entries: usize,
}

impl Node {
    /// A root, or a block of the expected depth with a checksum.
    fn parse(bytes: Vec<u8>, block: Option<(u16, &Inode)>) -> Result<Self, &'static str> {
        let (entries, room, depth) =
            (usize::from(le16(&bytes, 2)), usize::from(le16(&bytes, 4)), le16(&bytes, 6));
        if le16(&bytes, 0) != MAGIC
            || depth > MAX_DEPTH
            || room > (bytes.len() - ENTRY) / ENTRY
            || entries > room
        {
            return Err("a node of its extents is none");
        }
        if depth > 0 && entries == 0 {
            return Err("a node of its extents is empty");
        }
        if let Some((expected, inode)) = block {
            let tail = ENTRY + room * ENTRY;
            if depth != expected || entries == 0 {
                return Err("a node of its extents is out of place");
            }
            if tail + 4 > bytes.len() || inode.checksum_seed().and(&bytes[..tail]).0 != le32(&bytes, tail) {
                return Err("the checksum of its extents is wrong");
            }
        }
        Ok(Node { bytes, depth, entries })
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(ENTRY).skip(1).take(self.entries)
    }
}
