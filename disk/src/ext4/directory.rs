//! Directories: all names, each where the kernel finds it.

use crate::error::Fault;
use crate::report::Kind;

use super::hash::NameHash;
use super::htree::{self, Leaf};
use super::inode::Inode;
use super::{le16, le32};

/// Length of an entry without its name.
const ENTRY: usize = 8;
/// Length of the entry without inode that ends each block and holds its checksum.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;

/// A name and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Box<[u8]>,
    pub(crate) inode: u32,
    pub(crate) kind: Kind,
}

/// What is needed beside the inode to read a directory.
pub(super) struct Setting<'s> {
    pub(super) parent: u32,
    pub(super) hash: NameHash,
    pub(super) blocks: u64,
    pub(super) limit: usize,
    /// Gives a block of the directory.
    pub(super) block: &'s mut dyn FnMut(u64) -> Result<Vec<u8>, Fault>,
}

/// Reads all entries but `.` and `..`, sorted by name.
pub(super) fn read(inode: &Inode, setting: &mut Setting<'_>) -> Result<Vec<Entry>, Fault> {
    let damaged = |what: &str| Fault::damaged(format!("directory inode {}: {what}", inode.number()));
    let mut found = Vec::new();
    let leaves = if inode.has_index() {
        let root = (setting.block)(0)?;
        check_dots(&root, inode, setting.parent).map_err(damaged)?;
        htree::leaves(inode, setting.blocks, setting.block)?
    } else {
        (0..setting.blocks).map(|block| Leaf { block, first: 0, end: 1 << 32 }).collect()
    };
    for leaf in leaves {
        let bytes = (setting.block)(leaf.block)?;
        let names = names(&bytes, inode).map_err(damaged)?;
        let skip = if !inode.has_index() && leaf.block == 0 {
            check_dots(&bytes, inode, setting.parent).map_err(damaged)?;
            2
        } else {
            0
        };
        for raw in names.into_iter().skip(skip).filter(|raw| raw.inode != 0) {
            if inode.has_index() && !leaf.takes(setting.hash.of(raw.name)) {
                return Err(damaged("a name lies where it is not looked for"));
            }
            if found.len() == setting.limit {
                return Err(Fault::limit("names in a directory", setting.limit as u64));
            }
            found.push(raw.entry().map_err(damaged)?);
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if found.windows(2).any(|pair| pair[0].name == pair[1].name) {
        return Err(damaged("it has a name twice"));
    }
    Ok(found)
}

/// An entry as it stands, with or without inode.
struct Raw<'b> {
    inode: u32,
    kind: u8,
    name: &'b [u8],
}

impl Raw<'_> {
    fn entry(&self) -> Result<Entry, &'static str> {
        let kind = match self.kind {
            1 => Kind::File,
            2 => Kind::Directory,
            3 => Kind::Char,
            4 => Kind::Block,
            5 => Kind::Fifo,
            6 => Kind::Socket,
            7 => Kind::Link,
            _ => return Err("a name is of no known kind"),
        };
        if matches!(self.name, b"" | b"." | b"..") || self.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err("it has a name that no file can have");
        }
        Ok(Entry { name: self.name.into(), inode: self.inode, kind })
    }
}

/// All entries of a block, after its checksum.
fn names<'b>(block: &'b [u8], inode: &Inode) -> Result<Vec<Raw<'b>>, &'static str> {
    let end = block.len() - TAIL;
    let tail = &block[end..];
    if le32(tail, 0) != 0 || usize::from(le16(tail, 4)) != TAIL || tail[6] != 0 || tail[7] != TAIL_TYPE {
        return Err("a block does not end as it must");
    }
    if inode.checksum_seed().and(&block[..end]).0 != le32(tail, 8) {
        return Err("the checksum of a block is wrong");
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < end {
        let raw = entry(block, at, end)?;
        at += usize::from(le16(block, at + 4));
        found.push(raw);
    }
    Ok(found)
}

fn entry(block: &[u8], at: usize, end: usize) -> Result<Raw<'_>, &'static str> {
    if end - at < ENTRY + 4 {
        return Err("an entry does not fit");
    }
    let length = usize::from(le16(block, at + 4));
    let name = usize::from(block[at + 6]);
    if length < ENTRY + 4 || !length.is_multiple_of(4) || length > end - at || ENTRY + name > length {
        return Err("an entry has an odd length");
    }
    Ok(Raw { inode: le32(block, at), kind: block[at + 7], name: &block[at + ENTRY..at + ENTRY + name] })
}

/// The first two entries of a directory are itself and its parent.
fn check_dots(block: &[u8], inode: &Inode, parent: u32) -> Result<(), &'static str> {
    let own = entry(block, 0, block.len())?;
    let up = entry(block, usize::from(le16(block, 4)), block.len())?;
    if (own.name, own.inode, own.kind) != (b".", inode.number(), 2)
        || (up.name, up.inode, up.kind) != (b"..", parent, 2)
    {
        return Err("it does not begin with itself and its parent");
    }
    Ok(())
}
