//! Block groups: where inodes and bitmaps lie, and what is marked as in use.

use crate::error::Fault;

use super::bitmap::Bitmap;
use super::superblock::Superblock;
use super::{le16, le32};

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

/// A group descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Where the bitmaps and the table of inodes begin.
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
    flags: u16,
    block_bitmap_checksum: u32,
    inode_bitmap_checksum: u32,
    /// Inodes at the end of the table that the kernel may still fill with zeros.
    unused_inodes: u32,
}

impl Group {
    /// Reads the descriptor of a group.
    pub(super) fn parse(number: u32, bytes: &[u8], superblock: &Superblock) -> Result<Self, Fault> {
        let checksum = superblock
            .checksum_seed
            .and(&number.to_le_bytes())
            .and(&bytes[..0x1e])
            .and(&[0; 2])
            .and(&bytes[0x20..]);
        if checksum.0 & 0xffff != u32::from(le16(bytes, 0x1e)) {
            return Err(Fault::damaged(format!("the checksum of group {number} is wrong")));
        }
        let is_long = bytes.len() >= 64;
        let long = |low: usize, high: usize| {
            u64::from(le32(bytes, low)) | if is_long { u64::from(le32(bytes, high)) << 32 } else { 0 }
        };
        let word = |low: usize, high: usize| {
            u32::from(le16(bytes, low)) | if is_long { u32::from(le16(bytes, high)) << 16 } else { 0 }
        };
        let group = Group {
            block_bitmap: long(0x0, 0x20),
            inode_bitmap: long(0x4, 0x24),
            inode_table: long(0x8, 0x28),
            flags: le16(bytes, 0x12),
            block_bitmap_checksum: word(0x18, 0x38),
            inode_bitmap_checksum: word(0x1a, 0x3a),
            unused_inodes: word(0x1c, 0x32),
        };
        if group.unused_inodes > superblock.inodes_per_group {
            return Err(Fault::damaged(format!("group {number} has more unused inodes than inodes")));
        }
        Ok(group)
    }

    /// Whether bitmaps and inodes lie where the base has them.
    pub(super) fn is_same_place(&self, base: &Group) -> bool {
        (self.block_bitmap, self.inode_bitmap, self.inode_table)
            == (base.block_bitmap, base.inode_bitmap, base.inode_table)
    }

    /// Whether this inode, counted in the group from 0, is in use for the kernel, given the block of the inode bitmap.
    pub(super) fn inode_in_use(&self, index: u32, bitmap: &[u8], superblock: &Superblock) -> bool {
        self.flags & INODE_UNINIT == 0
            && index < superblock.inodes_per_group - self.unused_inodes
            && bitmap[(index / 8) as usize] >> (index % 8) & 1 == 1
    }

    /// Checks the block of the inode bitmap.
    pub(super) fn check_inode_bitmap(&self, bitmap: &[u8], superblock: &Superblock) -> Result<(), Fault> {
        let used = &bitmap[..superblock.inodes_per_group as usize / 8];
        self.check_bitmap(used, self.inode_bitmap_checksum, INODE_UNINIT, superblock)
    }

    /// Checks that each of the group's blocks that has an owner is in use for the kernel, given the block of the block bitmap.
    pub(super) fn check_blocks(
        &self,
        start: u64,
        length: u64,
        bitmap: &[u8],
        owned: &Bitmap,
        fixed: &Bitmap,
        superblock: &Superblock,
    ) -> Result<(), Fault> {
        let used = &bitmap[..superblock.blocks_per_group as usize / 8];
        self.check_bitmap(used, self.block_bitmap_checksum, BLOCK_UNINIT, superblock)?;
        let in_use = |index: u64| {
            if self.flags & BLOCK_UNINIT != 0 {
                fixed.has(start + index)
            } else {
                used[(index / 8) as usize] >> (index % 8) & 1 == 1
            }
        };
        match (0..length).find(|index| owned.has(start + index) && !in_use(*index)) {
            None => Ok(()),
            Some(index) => Err(Fault::damaged(format!("block {} is in use but marked free", start + index))),
        }
    }

    fn check_bitmap(
        &self,
        used: &[u8],
        expected: u32,
        unused: u16,
        superblock: &Superblock,
    ) -> Result<(), Fault> {
        let mask = if superblock.descriptor_size >= 64 { u32::MAX } else { 0xffff };
        if self.flags & unused == 0 && (superblock.checksum_seed.and(used).0 ^ expected) & mask != 0 {
            return Err(Fault::damaged("the checksum of a bitmap is wrong"));
        }
        Ok(())
    }
}
