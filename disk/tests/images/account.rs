//! File systems that read well and would not stay as they are: what is in use has two owners, or is marked free.

use crate::changes::tree;
use crate::crafted::{BLOCK, Crafted};
use crate::image::Base;

fn i_block(crafted: &Crafted, number: u32) -> Vec<u8> {
    crafted.bytes[crafted.inode(number) + 0x28..][..60].to_vec()
}

#[test]
fn a_block_with_two_owners_is_refused() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let [a, c] = ["etc/a", "etc/deep/c"].map(|path| Crafted::number(&base, path));
    let shared = i_block(&crafted, a);
    crafted.clone().with_inode(c, 0x28, &shared).is_refused(&base, "has two owners");
    // The journal, a bitmap and the table of inodes have owners too.
    let journal = (Crafted::block(&base, "<8>", 3) / BLOCK) as u32;
    for block in [journal, crafted.word(2048), crafted.word(2048 + 8), 1, 0] {
        crafted.clone().with_inode(a, 0x28 + 20, &block.to_le_bytes()).is_refused(&base, "has two owners");
    }
    crafted.clone().with_inode(a, 0x28 + 20, &9_000_000u32.to_le_bytes()).is_refused(&base, "lies outside");
}

#[test]
fn what_is_in_use_but_marked_free_is_refused() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let block = Crafted::block(&base, "etc/a", 0) / BLOCK;
    // Bit 0 of a group is the first block behind the boot block.
    crafted
        .clone()
        .bitmap(0, 0x18, block - 1)
        .is_refused(&base, &format!("block {block} is in use but marked free"));
    let number = Crafted::number(&base, "etc/a");
    let in_use = format!("inode {number} is in use but marked free");
    crafted.clone().bitmap(4, 0x1a, number as usize - 1).is_refused(&base, &in_use);
    // The flags that say: nothing in this group was ever used.
    let flags = crafted.half(2048 + 0x12);
    crafted.clone().group(0x12, &(flags | 1).to_le_bytes()).is_refused(&base, "is in use but marked free");
    crafted.clone().group(0x12, &(flags | 2).to_le_bytes()).is_refused(&base, "is in use but marked free");
    // The kernel fills inodes that were never used with zeros.
    let inodes = crafted.word(1024 + 0x28) as u16;
    crafted.clone().group(0x1c, &(inodes - 11).to_le_bytes()).is_refused(&base, "is in use but marked free");
    crafted.clone().group(0x1c, &(inodes + 1).to_le_bytes()).is_refused(&base, "more unused inodes");
    let mut broken = crafted.clone();
    let bitmap = broken.word(2048) as usize * BLOCK;
    broken.bytes[bitmap + 1000] ^= 1;
    broken.is_refused(&base, "checksum of a bitmap");
}

#[test]
fn links_that_do_not_match_the_names_are_refused() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let [a, b] = ["etc/a", "etc/b"].map(|path| Crafted::number(&base, path));
    for (number, links, words) in [
        (a, 0u16, "no links"),
        (a, 2, "not as many names as links"),
        (b, 1, "more names than links"),
        (b, 3, "not as many names as links"),
    ] {
        crafted.clone().with_inode(number, 0x1a, &links.to_le_bytes()).is_refused(&base, words);
    }
}

#[test]
fn a_count_of_attributes_that_lies_is_refused() {
    let base = Base::with(tree);
    let value = base.path("value");
    std::fs::write(&value, [b'v'; 600]).unwrap();
    let changed = base.changed(&[&format!("ea_set -f {} etc/a user.large", value.display())]);
    let crafted = Crafted::new(std::fs::read(changed).unwrap());
    let [a, c] = ["etc/a", "etc/deep/c"].map(|path| Crafted::number(&base, path));
    let at = crafted.word(crafted.inode(a) + 0x68) as usize * BLOCK;
    assert!(crafted.compared(&base).is_ok());
    crafted.clone().attributes(at, 4, &[2]).is_refused(&base, "does not serve as many");
    let pointer = ((at / BLOCK) as u32).to_le_bytes();
    let both = crafted.clone().with_inode(c, 0x68, &pointer);
    both.is_refused(&base, "does not serve as many");
    assert!(both.attributes(at, 4, &[2]).compared(&base).is_ok(), "two inodes may share a block");
    for (edit, words) in [
        ((0usize, &[1u8][..]), "no extended attributes"),
        ((32 + 1, &[9]), "unknown prefix"),
        ((32 + 4, &[1]), "inode of its own"),
        ((32 + 8, &[0xff, 0xff]), "makes no sense"),
        ((32 + 2, &[0x20, 0]), "makes no sense"),
        ((32, &[255]), "odd name"),
    ] {
        crafted.clone().attributes(at, edit.0, edit.1).is_refused(&base, words);
    }
    let mut broken = crafted.clone();
    broken.bytes[at + BLOCK - 1] ^= 1;
    broken.is_refused(&base, "wrong checksum");
}

#[test]
fn every_flag_of_an_inode_is_refused_or_told() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let a = Crafted::number(&base, "etc/a");
    let flags = crafted.word(crafted.inode(a) + 0x20);
    let mut told = 0u32;
    for bit in 0..32 {
        let changed = (flags ^ 1u32 << bit).to_le_bytes();
        match crafted.clone().with_inode(a, 0x20, &changed).compared(&base) {
            Ok(comparison) if bit == 18 => assert!(comparison.changes.is_empty(), "how blocks are counted"),
            Ok(comparison) => {
                assert_eq!(comparison.changes.len(), 1, "flag {bit}");
                assert_eq!(comparison.changes[0].after.as_ref().unwrap().flags, 1 << bit);
                told |= 1 << bit;
            }
            Err(error) => assert!(
                error.contains("flags that are not read")
                    || error.contains("index")
                    || error.contains("block map"),
                "{bit}: {error}"
            ),
        }
    }
    assert_eq!(told, 0x2203_c0fb);
}

#[test]
fn inodes_that_contradict_themselves_are_refused() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let [a, short, long] = ["etc/a", "etc/short", "etc/long"].map(|path| Crafted::number(&base, path));
    for (number, at, value, words) in [
        (a, 0x00, &[0xa0u8, 0x41][..], "not of the kind that its name says"),
        (a, 0x00, &[0xa0, 0xf1], "of no known kind"),
        (a, 0x80, &[0xff, 0], "odd length"),
        (a, 0x80, &[0x1e, 0], "odd length"),
        (a, 0x28, &[0], "is none"),
        (a, 0x28 + 6, &[6], "is none"),
        (a, 0x28 + 2, &[5], "is none"),
        (a, 0x28 + 16, &[0, 0], "out of order"),
        (a, 0x20, &[0, 0, 0, 0], "block map"),
        // A target in a block of its own where the kernel looks in the inode, and the other way round.
        (short, 0x1c, &[2, 0], "block map"),
        (long, 0x1c, &[0, 0], "makes no sense"),
        (short, 0x04, &[60, 0], "makes no sense"),
        (short, 0x04, &[0, 0], "makes no sense"),
        (short, 0x04, &[2, 0], "makes no sense"),
        (long, 0x04, &[0, 4], "makes no sense"),
        (short, 0x6c, &[1], "larger than its kind"),
    ] {
        crafted.clone().with_inode(number, at, value).is_refused(&base, words);
    }
    let mut broken = crafted.clone();
    let at = broken.inode(a);
    broken.bytes[at + 4] ^= 1;
    broken.is_refused(&base, "its checksum is wrong");
}

#[test]
fn endless_content_is_a_limit_and_not_a_long_wait() {
    let base = Base::with(tree);
    let a = Crafted::number(&base, "etc/a");
    let endless = Crafted::of(&base).with_inode(a, 0x6c, &0x6400u32.to_le_bytes());
    let start = std::time::Instant::now();
    endless.is_refused(&base, "more than 68719476736 bytes of file content to hash, holes included");
    assert!(start.elapsed().as_secs() < 5);
}
