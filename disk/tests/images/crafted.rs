//! A file system whose bytes can be changed with all checksums made right again, as somebody with root in a guest can.

use std::fs::File;

use crc::{Algorithm, Crc, Table};
use disk::{Comparison, Left, Limits, compare};

use crate::image::{Base, Whole, debugfs};

const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&Algorithm {
    width: 32,
    poly: 0x1edc_6f41,
    init: 0xffff_ffff,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0,
    residue: 0,
});
pub(crate) const BLOCK: usize = 1024;
const SUPERBLOCK: usize = 1024;
const DESCRIPTORS: usize = 2048;
const INODE: usize = 256;

/// An image of a file system with blocks of 1024 bytes and one group.
#[derive(Clone)]
pub(crate) struct Crafted {
    pub(crate) bytes: Vec<u8>,
    /// Where the table of inodes lies, whatever the descriptor will say.
    table: usize,
}

fn sum(parts: &[&[u8]], seed: u32) -> u32 {
    let mut digest = CRC32C.digest_with_initial(seed.reverse_bits());
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

impl Crafted {
    pub(crate) fn of(base: &Base) -> Self {
        Crafted::new(base.bytes())
    }

    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut crafted = Crafted { bytes, table: 0 };
        crafted.table = crafted.word(DESCRIPTORS + 8) as usize * BLOCK;
        crafted
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    pub(crate) fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn seed(&self) -> u32 {
        sum(&[&self.bytes[SUPERBLOCK + 0x68..][..16]], u32::MAX)
    }

    /// Number of the inode that a path leads to.
    pub(crate) fn number(base: &Base, path: &str) -> u32 {
        let said = debugfs(&base.raw, &[&format!("stat {path}")]);
        let number = said.split("Inode: ").nth(1).unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    /// Where a block of a file lies, in bytes.
    pub(crate) fn block(base: &Base, path: &str, logical: u32) -> usize {
        let said = debugfs(&base.raw, &[&format!("bmap {path} {logical}")]);
        said.lines().last().unwrap().parse::<usize>().unwrap() * BLOCK
    }

    /// Where an inode lies.
    pub(crate) fn inode(&self, number: u32) -> usize {
        self.table + (number as usize - 1) * INODE
    }

    /// Changes the superblock.
    pub(crate) fn superblock(mut self, at: usize, value: &[u8]) -> Self {
        self.put(SUPERBLOCK + at, value);
        let sum = sum(&[&self.bytes[SUPERBLOCK..][..0x3fc]], u32::MAX);
        self.put(SUPERBLOCK + 0x3fc, &sum.to_le_bytes());
        self
    }

    /// Changes the descriptor of the group.
    pub(crate) fn group(mut self, at: usize, value: &[u8]) -> Self {
        self.put(DESCRIPTORS + at, value);
        self.sum_group();
        self
    }

    fn sum_group(&mut self) {
        let descriptor = &self.bytes[DESCRIPTORS..][..64];
        let sum = sum(&[&[0; 4], &descriptor[..0x1e], &[0; 2], &descriptor[0x20..]], self.seed());
        self.put(DESCRIPTORS + 0x1e, &(sum as u16).to_le_bytes());
    }

    /// Changes an inode.
    pub(crate) fn with_inode(mut self, number: u32, at: usize, value: &[u8]) -> Self {
        let inode = self.inode(number);
        self.put(inode + at, value);
        self.sum_inode(number);
        self
    }

    pub(crate) fn sum_inode(&mut self, number: u32) {
        let at = self.inode(number);
        self.put(at + 0x7c, &[0; 2]);
        if self.half(at + 0x80) >= 4 {
            self.put(at + 0x82, &[0; 2]);
        }
        let sum = sum(&[&self.bytes[at..at + INODE]], self.inode_seed(number));
        self.put(at + 0x7c, &(sum as u16).to_le_bytes());
        if self.half(at + 0x80) >= 4 {
            self.put(at + 0x82, &((sum >> 16) as u16).to_le_bytes());
        }
    }

    fn inode_seed(&self, number: u32) -> u32 {
        let generation = &self.bytes[self.inode(number) + 0x64..][..4];
        sum(&[&number.to_le_bytes(), generation], self.seed())
    }

    /// Changes a block of names, at bytes of the disk, of this directory.
    pub(crate) fn names(mut self, directory: u32, block: usize, at: usize, value: &[u8]) -> Self {
        self.put(block + at, value);
        let sum = sum(&[&self.bytes[block..block + BLOCK - 12]], self.inode_seed(directory));
        self.put(block + BLOCK - 4, &sum.to_le_bytes());
        self
    }

    /// Changes a block of the tree of hashes: entries begin at 32 in the root and at 8 in a node.
    pub(crate) fn index(
        mut self,
        directory: u32,
        block: usize,
        entries: usize,
        at: usize,
        value: &[u8],
    ) -> Self {
        self.put(block + at, value);
        let (limit, count) =
            (usize::from(self.half(block + entries)), usize::from(self.half(block + entries + 2)));
        let tail = (entries + limit * 8).min(BLOCK - 8);
        let used = (entries + count * 8).min(BLOCK);
        let seed = self.inode_seed(directory);
        let sum = sum(&[&self.bytes[block..block + used], &self.bytes[block + tail..][..4], &[0; 4]], seed);
        self.put(block + tail + 4, &sum.to_le_bytes());
        self
    }

    /// Changes a block of extents.
    pub(crate) fn extents(mut self, file: u32, block: usize, at: usize, value: &[u8]) -> Self {
        self.put(block + at, value);
        let tail = (12 + usize::from(self.half(block + 4)) * 12).min(BLOCK - 4);
        let sum = sum(&[&self.bytes[block..block + tail]], self.inode_seed(file));
        self.put(block + tail, &sum.to_le_bytes());
        self
    }

    /// Changes a block of extended attributes.
    pub(crate) fn attributes(mut self, block: usize, at: usize, value: &[u8]) -> Self {
        self.put(block + at, value);
        self.put(block + 0x10, &[0; 4]);
        let number = ((block / BLOCK) as u64).to_le_bytes();
        let sum = sum(&[&number, &self.bytes[block..block + BLOCK]], self.seed());
        self.put(block + 0x10, &sum.to_le_bytes());
        self
    }

    /// Changes one of the two bitmaps: where its place and its checksum stand in the descriptor, and how long it is.
    pub(crate) fn bitmap(mut self, place: usize, checksum: usize, bit: usize) -> Self {
        let block = self.word(DESCRIPTORS + place) as usize * BLOCK;
        self.bytes[block + bit / 8] ^= 1 << (bit % 8);
        let per_group = self.word(SUPERBLOCK + if place == 0 { 0x20 } else { 0x28 }) as usize;
        let sum = sum(&[&self.bytes[block..block + per_group / 8]], self.seed());
        self.put(DESCRIPTORS + checksum, &(sum as u16).to_le_bytes());
        self.put(DESCRIPTORS + checksum + 0x20, &((sum >> 16) as u16).to_le_bytes());
        self.sum_group();
        self
    }

    /// As a layer that holds all.
    pub(crate) fn layer(&self) -> File {
        Whole::of(&self.bytes).file()
    }

    /// Compared with the base.
    pub(crate) fn compared(&self, base: &Base) -> Result<Comparison, String> {
        self.compared_as_left(base, Left::PoweredOff)
    }

    /// Compared with the base, as the disk of a machine that left it so.
    pub(crate) fn compared_as_left(&self, base: &Base, left: Left) -> Result<Comparison, String> {
        compare(&base.file(), &[self.layer()], left, &Limits::default()).map_err(|error| {
            assert!(error.is_refusal(), "{error}");
            error.to_string()
        })
    }

    /// Asserts that it is refused, for a reason that has these words.
    #[track_caller]
    pub(crate) fn is_refused(&self, base: &Base, words: &str) {
        let error = self.compared(base).expect_err(words);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn making_checksums_right_again_changes_nothing() {
    let base = Base::with(crate::changes::tree);
    let crafted = Crafted::of(&base);
    let number = Crafted::number(&base, "etc");
    let block = Crafted::block(&base, "etc", 0);
    let same = crafted.clone().superblock(0, &[]).group(0, &[]).with_inode(number, 0, &[]).names(
        number,
        block,
        0,
        &[],
    );
    // The padding of a bitmap and a bit twice: all that is the same again.
    let same = same.bitmap(0, 0x18, 8000).bitmap(0, 0x18, 8000).bitmap(4, 0x1a, 1000).bitmap(4, 0x1a, 1000);
    assert!(same.bytes == crafted.bytes);
}
