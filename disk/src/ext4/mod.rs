//! A clean ext4 file system, read as the kernel of the guest would read it, and refused where that is in doubt.
//!
//! Only what `mke2fs -t ext4` makes and Linux keeps up is read: extents, metadata checksums, hashed directories, extended
//! attributes in the inode or in one block. Structure follows the kernel's documentation (`filesystems/ext4`); where kernel and
//! documentation leave a choice, the choice is an error. Checksums are checked because the kernel does not show what fails
//! them; they prove nothing against somebody who can write the disk.
//!
//! A file system that reads well can still change by itself once it is mounted: blocks or inodes that are in use but marked free
//! are given away, a journal is replayed, orphans are cut off. So the visit of all files also checks that nothing in use has
//! two owners or is marked free, and what only the kernel uses (journal, resize and quota inodes) must equal the base's.

mod attributes;
mod bitmap;
mod checksum;
mod directory;
mod extents;
mod group;
mod hash;
mod htree;
mod inode;
mod journal;
mod superblock;
mod volume;

pub(crate) use directory::Entry;
pub(crate) use volume::{ROOT, Visited, Volume};

/// Little-endian numbers at a place in a structure whose length is known to suffice.
fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}
