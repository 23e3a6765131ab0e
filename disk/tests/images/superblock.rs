//! Disks whose file system is not the base's, or would not stay as it is once it is mounted.

use disk::{Left, Outside, What};

use crate::changes::{told, tree};
use crate::crafted::{BLOCK, Crafted};
use crate::image::Base;

#[test]
fn a_disk_that_was_not_powered_off_in_order_is_refused() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let incompatible = crafted.word(1024 + 0x60);
    let read_only = crafted.word(1024 + 0x64);
    crafted
        .clone()
        .superblock(0x60, &(incompatible | 4).to_le_bytes())
        .is_refused(&base, "journal was not closed");
    for state in [0u16, 2, 3, 5] {
        crafted.clone().superblock(0x3a, &state.to_le_bytes()).is_refused(&base, "not clean");
    }
    crafted.clone().superblock(0xe8, &12u32.to_le_bytes()).is_refused(&base, "orphans");
    crafted.clone().superblock(0x64, &(read_only | 0x10000).to_le_bytes()).is_refused(&base, "orphans");
    let journal = Crafted::block(&base, "<8>", 0);
    for (at, words) in
        [(0x1c, "journal is not empty"), (0x20, "journal is not empty"), (3, "journal is of no kind")]
    {
        let mut crafted = crafted.clone();
        crafted.bytes[journal + at] ^= 1;
        crafted.is_refused(&base, words);
    }
}

/// A program that goes on in each clone may have a file open that was removed; nothing else may wait on a frozen disk.
#[test]
fn a_frozen_disk_may_have_orphans_and_nothing_else_that_waits() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let orphans = crafted.clone().superblock(0xe8, &12u32.to_le_bytes());
    assert_eq!(told(&orphans.compared_as_left(&base, Left::Frozen).unwrap()), []);
    let refused = |crafted: Crafted, words: &str| {
        let error = crafted.compared_as_left(&base, Left::Frozen).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    let (incompatible, read_only) = (crafted.word(1024 + 0x60) | 4, crafted.word(1024 + 0x64) | 0x10000);
    refused(crafted.clone().superblock(0x60, &incompatible.to_le_bytes()), "not frozen");
    refused(crafted.clone().superblock(0x3a, &3u16.to_le_bytes()), "not clean");
    refused(crafted.clone().superblock(0x64, &read_only.to_le_bytes()), "orphans");
    let journal = Crafted::block(&base, "<8>", 0);
    let mut waiting = crafted;
    waiting.bytes[journal + 0x1c] ^= 1;
    refused(waiting, "journal is not empty");
}

#[test]
fn every_other_feature_is_refused() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    for word in [0x5c, 0x60, 0x64] {
        for bit in 0..32 {
            let changed = crafted.word(1024 + word) ^ 1 << bit;
            crafted.clone().superblock(word, &changed.to_le_bytes()).is_refused(&base, "the");
        }
    }
}

/// Above all the mount options that the kernel takes from there.
#[test]
fn every_field_that_the_kernel_does_not_keep_up_must_be_the_bases() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    crafted
        .clone()
        .superblock(0x200, b"data=journal")
        .is_refused(&base, "not the base's: the superblock differs at byte 0x200");
    let mut free = 0;
    for at in 0..0x3fc {
        let changed = crafted.clone().superblock(at, &[crafted.bytes[1024 + at] ^ 0x10]);
        match changed.compared(&base) {
            Ok(comparison) => {
                assert_eq!(told(&comparison), [], "{at:#x}");
                free += 1;
            }
            Err(error) => assert!(!error.contains("checksum"), "{error}"),
        }
    }
    // Counters, times, where it was last mounted, kilobytes written, overhead: as listed, without state and orphans.
    assert_eq!(free, 4 + 4 + 4 + 4 + 2 + 4 + 64 + 4 + 8 + 4 + 2 + 1);
    let mut crafted = crafted;
    crafted.bytes[1024 + 0x30] ^= 1;
    crafted.is_refused(&base, "superblock's checksum");
}

#[test]
fn bitmaps_inodes_and_reserved_inodes_stay_where_they_are() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    for at in [0, 4, 8] {
        let moved = crafted.word(2048 + at) + 600;
        crafted.clone().group(at, &moved.to_le_bytes()).is_refused(&base, "bitmaps or inodes lie elsewhere");
    }
    let mut other = crafted.clone();
    other.bytes[2048 + 0x12] ^= 4;
    other.is_refused(&base, "checksum of group 0");
    for number in [1, 3, 4, 5, 6, 7, 8, 9, 10] {
        crafted
            .clone()
            .with_inode(number, 0x10, &[9])
            .is_refused(&base, &format!("the reserved inode {number} differs"));
    }
}

/// The kernel looks for partition tables of a dozen kinds in the first sectors, and `blkid` for other file systems.
#[test]
fn what_hides_outside_of_all_files_is_told() {
    let base = Base::made("8M", &["-b", "4096"], tree);
    let bytes = base.bytes();
    for (at, sector) in [(0, 0), (510, 0), (1023, 1), (2048, 4), (4095, 7), (4096 + 64, 8), (8191, 15)] {
        let mut changed = Crafted::new(bytes.clone());
        changed.bytes[at] ^= 0x55;
        let comparison = changed.compared(&base).unwrap();
        assert_eq!(comparison.outside, Outside::Different { first_sector: sector, count: 1 }, "{at}");
        assert_eq!(told(&comparison), []);
    }
    let mut changed = Crafted::new(bytes.clone());
    for at in [100, 700, 3000] {
        changed.bytes[at] ^= 1;
    }
    assert_eq!(changed.compared(&base).unwrap().outside, Outside::Different { first_sector: 0, count: 3 });
}

#[test]
fn what_lies_behind_the_file_system_is_told() {
    let small = Base::with(tree);
    let raw = small.path("longer.raw");
    let mut bytes = small.bytes();
    bytes.extend(vec![0; 100 * 512]);
    std::fs::write(&raw, &bytes).unwrap();
    let base = Base::of_raw(tempfile::tempdir().unwrap(), raw);
    let mut changed = Crafted::new(bytes);
    let sectors = changed.bytes.len() / 512;
    changed.bytes[(sectors - 2) * 512] = 1;
    changed.bytes[(sectors - 1) * 512] = 1;
    let comparison = changed.compared(&base).unwrap();
    assert_eq!(comparison.outside, Outside::Different { first_sector: sectors as u64 - 2, count: 2 });
}

#[test]
fn a_disk_without_a_file_system_at_its_beginning_is_refused() {
    let base = Base::with(tree);
    let mut crafted = Crafted::of(&base);
    crafted.bytes[..64 * BLOCK].fill(0);
    crafted.is_refused(&base, "the sealed disk is refused: no ext4 file system fills it");
    let xfs = Base::of_raw(tempfile::tempdir().unwrap(), {
        let raw = base.path("empty.raw");
        std::fs::write(&raw, vec![0; 1 << 20]).unwrap();
        raw
    });
    let error =
        disk::compare(&xfs.file(), &[], disk::Left::PoweredOff, &disk::Limits::default()).unwrap_err();
    assert!(error.to_string().starts_with("the base is refused: no ext4 file system"), "{error}");
}

#[test]
fn both_layouts_of_a_file_system_are_read() {
    for options in [
        &["-b", "4096", "-O", "^has_journal"][..],
        &["-b", "2048", "-I", "128"],
        &["-b", "1024", "-O", "^64bit"],
        &["-O", "metadata_csum_seed"],
    ] {
        let base = Base::made("16M", options, tree);
        let comparison = crate::changes::compared(&base, &["mkdir etc/x"]);
        assert_eq!(told(&comparison), [("/etc/x", What::Created)], "{options:?}");
    }
}
