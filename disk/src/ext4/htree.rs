//! The tree of hashes of a large directory: which blocks hold names, and the hashes of the names that belong there.
//!
//! The kernel finds a name only in the block that its hash leads to. A name in another block can be listed but not opened, and
//! the other way round, so every name must lie where it is looked for.

use crate::error::Fault;

use super::inode::Inode;
use super::{le16, le32};

/// Half MD4, signed or unsigned by the superblock's flag.
const HALF_MD4: u8 = 1;
/// Length of an index entry.
const ENTRY: usize = 8;
/// Where entries begin in the root (behind `.`, `..` and 8 bytes) and in other nodes (behind an empty entry).
const ROOT_ENTRIES: usize = 32;
const NODE_ENTRIES: usize = 8;
/// Bits of an entry that number a block of the directory.
const BLOCK: u32 = 0x0fff_ffff;
/// Without large directories, which we do not read, the kernel goes down no further.
const MAX_LEVELS: u8 = 1;

/// A block with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Its number in the directory.
    pub(super) block: u64,
    /// Lowest hash; if it is odd, names of the even hash below it may have overflowed into this block.
    pub(super) first: u32,
    /// One past the highest hash.
    pub(super) end: u64,
}

impl Leaf {
    /// Whether the kernel looks for a name of this hash here.
    pub(super) fn takes(&self, hash: u32) -> bool {
        let overflow = self.first & 1 == 1 && self.first & !1 == hash;
        overflow || (hash >= self.first && u64::from(hash) < self.end)
    }
}

/// An index node: hashes, and the blocks that they lead to.
struct Node {
    entries: Vec<(u32, u64)>,
}

/// Reads the tree of a directory of `blocks` blocks; `block` gives one of them.
pub(super) fn leaves(
    inode: &Inode,
    blocks: u64,
    block: &mut dyn FnMut(u64) -> Result<Vec<u8>, Fault>,
) -> Result<Vec<Leaf>, Fault> {
    let damaged = |what: &str| Fault::damaged(format!("directory inode {}: {what}", inode.number()));
    let root = block(0)?;
    let size = root.len();
    let [version, info_length, levels, unused] = [root[28], root[29], root[30], root[31]];
    // `..` takes all the rest of the block, so that to a reader that knows no trees the block has no further names.
    if usize::from(le16(&root, 4)) != 12
        || usize::from(le16(&root, 16)) != size - 12
        || le32(&root, 24) != 0
        || version != HALF_MD4
        || info_length != 8
        || levels > MAX_LEVELS
        || unused != 0
    {
        return Err(damaged("the root of its index is of no kind that is read"));
    }
    let mut seen = vec![0];
    let mut found = Vec::new();
    let top = Node::parse(&root, ROOT_ENTRIES, inode).map_err(damaged)?;
    for (index, (first, place)) in top.entries.iter().enumerate() {
        let end = top.entries.get(index + 1).map_or(1 << 32, |(next, _)| u64::from(*next));
        if levels == 0 {
            found.push(Leaf { block: *place, first: *first, end });
            continue;
        }
        if *place >= blocks {
            return Err(damaged("its index leads out of it"));
        }
        seen.push(*place);
        let bytes = block(*place)?;
        if le32(&bytes, 0) != 0 || usize::from(le16(&bytes, 4)) != size {
            return Err(damaged("a node of its index is none"));
        }
        let node = Node::parse(&bytes, NODE_ENTRIES, inode).map_err(damaged)?;
        for (index, (inner, place)) in node.entries.iter().enumerate() {
            // The first entry has no hash of its own.
            let inner = if index == 0 { *first } else { *inner };
            let end = node.entries.get(index + 1).map_or(end, |(next, _)| u64::from(*next));
            found.push(Leaf { block: *place, first: inner, end });
        }
    }
    if found.iter().any(|leaf| u64::from(leaf.first) > leaf.end) {
        return Err(damaged("its index is out of order"));
    }
    seen.extend(found.iter().map(|leaf| leaf.block));
    seen.sort_unstable();
    // Each block is the root, a node or a leaf, and that once.
    if !seen.iter().copied().eq(0..blocks) {
        return Err(damaged("its index does not lead to each of its blocks once"));
    }
    Ok(found)
}

impl Node {
    fn parse(bytes: &[u8], at: usize, inode: &Inode) -> Result<Self, &'static str> {
        // Eight bytes at the end are for the checksum.
        let room = (bytes.len() - at - 8) / ENTRY;
        let (limit, count) = (usize::from(le16(bytes, at)), usize::from(le16(bytes, at + 2)));
        if limit != room || count == 0 || count > limit {
            return Err("a node of its index has odd counts");
        }
        let tail = &bytes[at + limit * ENTRY..];
        let sum = inode.checksum_seed().and(&bytes[..at + count * ENTRY]).and(&tail[..4]).and(&[0; 4]);
        if sum.0 != le32(tail, 4) {
            return Err("the checksum of its index is wrong");
        }
        let entries = bytes[at..at + count * ENTRY]
            .chunks_exact(ENTRY)
            .enumerate()
            .map(|(index, entry)| {
                let hash = if index == 0 { 0 } else { le32(entry, 0) };
                (hash, u64::from(le32(entry, 4) & BLOCK))
            })
            .collect();
        Ok(Node { entries })
    }
}
