//! An inode: what a path leads to.

use crate::error::Fault;
use crate::report::Kind;

use super::checksum::Checksum;
use super::superblock::Superblock;
use super::{le16, le32};

/// Length of the part that every inode has.
pub(super) const SHORT_INODE: usize = 128;
/// Where the roots of extents, a short link's target or a device number lie.
const I_BLOCK: std::ops::Range<usize> = 0x28..0x64;
const CHECKSUM_LOW: usize = 0x7c;
const CHECKSUM_HIGH: usize = 0x82;

/// What chattr(1) sets.
const VISIBLE_FLAGS: u32 = 0x2203_c0fb;
const INDEX: u32 = 0x1000;
const HUGE_FILE: u32 = 0x4_0000;
const EXTENTS: u32 = 0x8_0000;

/// An inode that belongs to a path. Private fields, so that all of them have been checked.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    number: u32,
    kind: Kind,
    size: u64,
    flags: u32,
    checksum_seed: Checksum,
    bytes: Vec<u8>,
}

impl Inode {
    /// Reads an inode of a path.
    pub(super) fn parse(number: u32, bytes: Vec<u8>, superblock: &Superblock) -> Result<Self, Fault> {
        let damaged = |what: &str| Fault::damaged(format!("inode {number}: {what}"));
        let checksum_seed = superblock.checksum_seed.and(&number.to_le_bytes()).and(&bytes[0x64..0x68]);
        check_sum(&bytes, checksum_seed).map_err(damaged)?;
        let mode = le16(&bytes, 0);
        let kind = match mode >> 12 {
            0o01 => Kind::Fifo,
            0o02 => Kind::Char,
            0o04 => Kind::Directory,
            0o06 => Kind::Block,
            0o10 => Kind::File,
            0o12 => Kind::Link,
            0o14 => Kind::Socket,
            _ => return Err(damaged("it is of no known kind")),
        };
        if le16(&bytes, 0x1a) == 0 {
            return Err(damaged("it has a name but no links"));
        }
        let flags = le32(&bytes, 0x20);
        if flags & !(VISIBLE_FLAGS | INDEX | HUGE_FILE | EXTENTS) != 0 {
            return Err(Fault::unsupported(format!(
                "inode {number} has flags that are not read ({flags:#x}): encryption, verity, inline data or the like"
            )));
        }
        if flags & INDEX != 0 && (kind != Kind::Directory || !superblock.has_dir_index) {
            return Err(damaged("it has an index that it cannot have"));
        }
        let high = u64::from(le32(&bytes, 0x6c)) << 32;
        let size = u64::from(le32(&bytes, 0x4))
            | match kind {
                Kind::File => high,
                // The kernel looks at the upper half for regular files only.
                _ if high != 0 => return Err(damaged("it is larger than its kind can be")),
                _ => 0,
            };
        Ok(Inode { number, kind, size, flags, checksum_seed, bytes })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// `0o7777` of the mode.
    pub(crate) fn mode(&self) -> u32 {
        u32::from(le16(&self.bytes, 0)) & 0o7777
    }

    pub(crate) fn uid(&self) -> u32 {
        u32::from(le16(&self.bytes, 0x2)) | u32::from(le16(&self.bytes, 0x78)) << 16
    }

    pub(crate) fn gid(&self) -> u32 {
        u32::from(le16(&self.bytes, 0x18)) | u32::from(le16(&self.bytes, 0x7a)) << 16
    }

    /// Bytes of content.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Links as they are written; of a directory `.` and the `..` of its directories count.
    pub(crate) fn links(&self) -> u16 {
        le16(&self.bytes, 0x1a)
    }

    /// Flags that chattr(1) shows.
    pub(crate) fn visible_flags(&self) -> u32 {
        self.flags & VISIBLE_FLAGS
    }

    /// Whether a directory has a tree of hashes.
    pub(super) fn has_index(&self) -> bool {
        self.flags & INDEX != 0
    }

    /// Whether content is found by extents.
    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    /// The block that holds extended attributes, if one does.
    pub(super) fn attribute_block(&self) -> Option<u64> {
        let block = u64::from(le32(&self.bytes, 0x68)) | u64::from(le16(&self.bytes, 0x76)) << 32;
        (block != 0).then_some(block)
    }

    /// What stands behind the fixed fields, where extended attributes may lie.
    pub(super) fn tail(&self) -> &[u8] {
        if self.bytes.len() == SHORT_INODE {
            return &[];
        }
        // Without fields of its own the kernel looks for no attributes there; the length was checked.
        match usize::from(le16(&self.bytes, 0x80)) {
            0 => &[],
            extra => &self.bytes[SHORT_INODE + extra..],
        }
    }

    /// The 60 bytes for extents, target or device.
    pub(super) fn i_block(&self) -> &[u8] {
        &self.bytes[I_BLOCK]
    }

    /// What checksums of this inode's blocks begin with.
    pub(super) fn checksum_seed(&self) -> Checksum {
        self.checksum_seed
    }

    /// Whether a link's target stands in the inode. The kernel tells it by the count of blocks, not by the size.
    pub(super) fn is_short_link(&self, superblock: &Superblock) -> bool {
        let unit = if self.flags & HUGE_FILE != 0 { u64::from(superblock.block_size) / 512 } else { 1 };
        let blocks = u64::from(le32(&self.bytes, 0x1c)) | u64::from(le16(&self.bytes, 0x74)) << 32;
        let of_attributes = match self.attribute_block() {
            Some(_) => u64::from(superblock.block_size) / 512,
            None => 0,
        };
        self.kind == Kind::Link && blocks * unit == of_attributes
    }

    /// Major and minor number of a device, in either of the kernel's encodings.
    pub(crate) fn device(&self) -> Option<(u32, u32)> {
        if !matches!(self.kind, Kind::Char | Kind::Block) {
            return None;
        }
        let old = le32(self.i_block(), 0);
        if old != 0 {
            // old_decode_dev() takes 16 bits.
            return Some((old >> 8 & 0xff, old & 0xff));
        }
        let new = le32(self.i_block(), 4);
        Some((new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00))
    }
}

/// Checks the checksum as far as the inode has room for it, and the length of its further fields.
fn check_sum(bytes: &[u8], seed: Checksum) -> Result<(), &'static str> {
    let sum = seed.and(&bytes[..CHECKSUM_LOW]).and(&[0; 2]).and(&bytes[CHECKSUM_LOW + 2..SHORT_INODE]);
    let low = u32::from(le16(bytes, CHECKSUM_LOW));
    if bytes.len() == SHORT_INODE {
        return if sum.0 & 0xffff == low { Ok(()) } else { Err("its checksum is wrong") };
    }
    let extra = usize::from(le16(bytes, 0x80));
    if !extra.is_multiple_of(4) || SHORT_INODE + extra > bytes.len() {
        return Err("its further fields have an odd length");
    }
    let has_high = SHORT_INODE + extra >= CHECKSUM_HIGH + 2;
    let sum = sum.and(&bytes[SHORT_INODE..CHECKSUM_HIGH]);
    let (sum, expected, mask) = if has_high {
        let high = u32::from(le16(bytes, CHECKSUM_HIGH)) << 16;
        (sum.and(&[0; 2]).and(&bytes[CHECKSUM_HIGH + 2..]), low | high, u32::MAX)
    } else {
        (sum.and(&bytes[CHECKSUM_HIGH..]), low, 0xffff)
    };
    if sum.0 & mask == expected { Ok(()) } else { Err("its checksum is wrong") }
}
