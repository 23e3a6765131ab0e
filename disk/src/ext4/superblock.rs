//! The superblock: which file system this is, and that it is the base's.

use crate::compare::Left;
use crate::error::Fault;

use super::checksum::Checksum;
use super::{le16, le32};

/// Where the superblock lies on the disk.
pub(crate) const SUPERBLOCK: u64 = 1024;
/// Its length.
pub(crate) const SUPERBLOCK_LENGTH: usize = 1024;

const MAGIC: u16 = 0xef53;
const CHECKSUM: usize = 0x3fc;
/// `s_state`: unmounted in order, without errors and orphans.
const STATE_CLEAN: u16 = 1;
/// `s_flags`: names are hashed as unsigned characters.
const UNSIGNED_HASH: u32 = 2;

/// Features that may be there, by word; all others are refused.
mod feature {
    pub(super) const HAS_JOURNAL: u32 = 0x4;
    const EXT_ATTR: u32 = 0x8;
    pub(super) const RESIZE_INODE: u32 = 0x10;
    pub(super) const DIR_INDEX: u32 = 0x20;
    pub(super) const COMPATIBLE: u32 = HAS_JOURNAL | EXT_ATTR | RESIZE_INODE | DIR_INDEX;

    const FILETYPE: u32 = 0x2;
    pub(super) const RECOVER: u32 = 0x4;
    const EXTENTS: u32 = 0x40;
    pub(super) const IS_64BIT: u32 = 0x80;
    const FLEX_BG: u32 = 0x200;
    pub(super) const CSUM_SEED: u32 = 0x2000;
    pub(super) const NEEDED_INCOMPATIBLE: u32 = FILETYPE | EXTENTS;
    pub(super) const INCOMPATIBLE: u32 = NEEDED_INCOMPATIBLE | IS_64BIT | FLEX_BG | CSUM_SEED;

    pub(super) const SPARSE_SUPER: u32 = 0x1;
    const LARGE_FILE: u32 = 0x2;
    const HUGE_FILE: u32 = 0x8;
    const DIR_NLINK: u32 = 0x20;
    const EXTRA_ISIZE: u32 = 0x40;
    const METADATA_CSUM: u32 = 0x400;
    pub(super) const ORPHAN_PRESENT: u32 = 0x10000;
    pub(super) const NEEDED_READ_ONLY: u32 = SPARSE_SUPER | METADATA_CSUM | HUGE_FILE;
    pub(super) const READ_ONLY: u32 = NEEDED_READ_ONLY | LARGE_FILE | DIR_NLINK | EXTRA_ISIZE;
}

/// Fields that the kernel keeps up on a mounted file system (offset and length); all others must equal the base's.
const KEPT_UP: [(usize, usize); 15] = [
    (0x0c, 4),     // free blocks
    (0x10, 4),     // free inodes
    (0x2c, 4),     // last mount
    (0x30, 4),     // last write
    (0x34, 2),     // mount count
    (0x3a, 2),     // state, checked
    (0x40, 4),     // last check
    (0x88, 64),    // where it was last mounted
    (0xe8, 4),     // head of the orphans, checked
    (0x158, 4),    // free blocks, high
    (0x178, 8),    // kilobytes written
    (0x248, 4),    // blocks of overhead, which newer kernels correct
    (0x274, 2),    // high bytes of last write and last mount
    (0x277, 1),    // high byte of last check
    (CHECKSUM, 4), // checked
];

/// What of a superblock is needed to read the file system.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) block_size: u32,
    pub(super) blocks: u64,
    pub(super) first_data_block: u32,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inodes: u32,
    pub(super) inode_size: u16,
    pub(super) descriptor_size: u16,
    pub(super) reserved_descriptor_blocks: u16,
    pub(super) groups: u32,
    pub(super) journal_inode: Option<u32>,
    pub(super) has_dir_index: bool,
    pub(super) hash_seed: [u32; 4],
    pub(super) hash_is_unsigned: bool,
    pub(super) checksum_seed: Checksum,
    bytes: Vec<u8>,
}

/// The first inode that is not reserved.
pub(super) const FIRST_INODE: u32 = 11;

impl Superblock {
    /// Reads it, for a disk of so many bytes that was left so.
    pub(super) fn parse(bytes: Vec<u8>, disk_length: u64, left: Left) -> Result<Self, Fault> {
        let word = |at| le32(&bytes, at);
        let half = |at| le16(&bytes, at);
        if half(0x38) != MAGIC {
            return Err(Fault::unsupported(
                "no ext4 file system fills it from its first sector on (partition tables are not read)",
            ));
        }
        let [compatible, incompatible, read_only] = [word(0x5c), word(0x60), word(0x64)];
        if incompatible & feature::RECOVER != 0 {
            return Err(Fault::unsupported(
                "its journal was not closed; the machine was not powered off in order, or not frozen",
            ));
        }
        let has_orphans = word(0xe8) != 0 && left == Left::PoweredOff;
        if half(0x3a) != STATE_CLEAN || has_orphans || read_only & feature::ORPHAN_PRESENT != 0 {
            return Err(Fault::unsupported(
                "its file system is marked as not clean, with errors or with orphans: the kernel would change it",
            ));
        }
        let unknown = |word: u32, needed: u32, known: u32| word & !known != 0 || word & needed != needed;
        if unknown(compatible, 0, feature::COMPATIBLE)
            || unknown(incompatible, feature::NEEDED_INCOMPATIBLE, feature::INCOMPATIBLE)
            || unknown(read_only, feature::NEEDED_READ_ONLY, feature::READ_ONLY)
        {
            return Err(Fault::unsupported(format!(
                "its file system has features that are not read, or lacks some that are needed \
                 ({compatible:#x} {incompatible:#x} {read_only:#x})"
            )));
        }
        // Creator Linux, dynamic revision, CRC-32C.
        if word(0x48) != 0 || word(0x4c) != 1 || bytes[0x175] != 1 {
            return Err(Fault::unsupported("its file system is not of Linux's current kind"));
        }
        if Checksum::START.and(&bytes[..CHECKSUM]).0 != word(CHECKSUM) {
            return Err(Fault::damaged("the superblock's checksum is wrong"));
        }
        let has = |word: u32, bit: u32| word & bit != 0;
        let is_64bit = has(incompatible, feature::IS_64BIT);
        let superblock = Superblock {
            block_size: 1024u32.checked_shl(word(0x18)).unwrap_or(0),
            blocks: u64::from(word(4)) | if is_64bit { u64::from(word(0x150)) << 32 } else { 0 },
            first_data_block: word(0x14),
            blocks_per_group: word(0x20),
            inodes_per_group: word(0x28),
            inodes: word(0),
            inode_size: half(0x58),
            descriptor_size: if is_64bit { half(0xfe) } else { 32 },
            reserved_descriptor_blocks: if has(compatible, feature::RESIZE_INODE) { half(0xce) } else { 0 },
            groups: 0,
            journal_inode: has(compatible, feature::HAS_JOURNAL).then(|| word(0xe0)),
            has_dir_index: has(compatible, feature::DIR_INDEX),
            hash_seed: [word(0xec), word(0xf0), word(0xf4), word(0xf8)],
            hash_is_unsigned: has(word(0x160), UNSIGNED_HASH),
            checksum_seed: if has(incompatible, feature::CSUM_SEED) {
                Checksum(word(0x270))
            } else {
                Checksum::START.and(&bytes[0x68..0x78])
            },
            bytes: Vec::new(),
        };
        if word(0x18) != word(0x1c) || word(0xe4) != 0 || word(0x54) != FIRST_INODE {
            return Err(Fault::unsupported(
                "its file system has clusters, a journal elsewhere, or odd reserved inodes",
            ));
        }
        Ok(Superblock { bytes, ..superblock.with_groups(disk_length)? })
    }

    /// Checks the geometry.
    fn with_groups(self, disk_length: u64) -> Result<Self, Fault> {
        let odd = |what: &str| Fault::damaged(format!("the superblock's {what} make no sense"));
        let size = self.block_size;
        if !matches!(size, 1024 | 2048 | 4096) || self.first_data_block != u32::from(size == 1024) {
            return Err(odd("block size and first block"));
        }
        if !self.inode_size.is_power_of_two() || !(128..=size).contains(&u32::from(self.inode_size)) {
            return Err(odd("inodes"));
        }
        if !matches!(self.descriptor_size, 32 | 64) {
            return Err(odd("group descriptors"));
        }
        let bits = size * 8;
        let per_block = size / u32::from(self.inode_size);
        if self.blocks_per_group == 0
            || self.blocks_per_group > bits
            || !self.blocks_per_group.is_multiple_of(8)
            || self.inodes_per_group < per_block
            || self.inodes_per_group > bits
            || !self.inodes_per_group.is_multiple_of(8)
            || !self.inodes_per_group.is_multiple_of(per_block)
        {
            return Err(odd("groups"));
        }
        let table = self.inodes_per_group / per_block;
        let in_groups =
            self.blocks.checked_sub(u64::from(self.first_data_block)).ok_or_else(|| odd("blocks"))?;
        if self.blocks.checked_mul(u64::from(size)).is_none_or(|length| length > disk_length) {
            return Err(Fault::damaged("the file system is larger than the disk"));
        }
        let groups =
            u32::try_from(in_groups.div_ceil(u64::from(self.blocks_per_group))).map_err(|_| odd("blocks"))?;
        let superblock = Superblock { groups, ..self };
        // A group has room for its own tables, so a small file system cannot ask for large ones.
        let copies = 1 + superblock.descriptor_blocks() + u64::from(superblock.reserved_descriptor_blocks);
        if copies + u64::from(table) + 2 > u64::from(superblock.blocks_per_group) {
            return Err(odd("groups"));
        }
        if groups == 0 || groups.checked_mul(superblock.inodes_per_group) != Some(superblock.inodes) {
            return Err(odd("inodes"));
        }
        Ok(superblock)
    }

    /// First block of a group.
    pub(super) fn group_start(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// Blocks of a group; the last may have fewer.
    pub(super) fn group_length(&self, group: u32) -> u64 {
        u64::from(self.blocks_per_group).min(self.blocks - self.group_start(group))
    }

    /// Blocks that hold group descriptors.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        (u64::from(self.groups) * u64::from(self.descriptor_size)).div_ceil(u64::from(self.block_size))
    }

    /// Whether a group begins with a copy of the superblock and the descriptors (sparse_super).
    pub(super) fn has_copy(&self, group: u32) -> bool {
        let power_of = |base: u32| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    /// Checks that this is the base's superblock but for what the kernel keeps up.
    pub(super) fn check_same_system(&self, base: &Superblock) -> Result<(), Fault> {
        let kept_up = |at: usize| KEPT_UP.iter().any(|(from, length)| (*from..from + length).contains(&at));
        match (0..SUPERBLOCK_LENGTH).find(|at| self.bytes[*at] != base.bytes[*at] && !kept_up(*at)) {
            None => Ok(()),
            Some(at) => Err(Fault::replaced(format!("the superblock differs at byte {at:#x}"))),
        }
    }
}
