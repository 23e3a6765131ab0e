//! Directories: every name that the kernel finds, and no directory that it would read otherwise.

use std::fs;

use disk::{Left, Limits, What, compare};

use crate::changes::{told, tree};
use crate::crafted::{BLOCK, Crafted};
use crate::image::{Base, debugfs, run};

/// Where an entry with this name begins, in a block of names.
fn entry(crafted: &Crafted, block: usize, name: &str) -> usize {
    let found =
        crafted.bytes[block..block + BLOCK].windows(name.len()).position(|bytes| bytes == name.as_bytes());
    found.unwrap() - 8
}

#[test]
fn names_that_no_file_can_have_are_refused() {
    let base = Base::with(tree);
    let crafted = Crafted::of(&base);
    let directory = Crafted::number(&base, "etc");
    let block = Crafted::block(&base, "etc", 0);
    let b = entry(&crafted, block, "empty");
    for (name, words) in [
        (&b"emp/y"[..], "a name that no file can have"),
        (b"em\0ty", "a name that no file can have"),
        (b"large", "has a name twice"),
    ] {
        crafted.clone().names(directory, block, b + 8, name).is_refused(&base, words);
    }
    for (length, words) in [(0, "no file can have"), (200, "odd length")] {
        crafted.clone().names(directory, block, b + 6, &[length]).is_refused(&base, words);
    }
    let dots = crafted.clone().names(directory, block, b + 8, b"..").names(directory, block, b + 6, &[2]);
    dots.is_refused(&base, "a name that no file can have");
    for (kind, words) in
        [(0, "no known kind"), (2, "not of the kind"), (7, "not of the kind"), (9, "no known kind")]
    {
        crafted.clone().names(directory, block, b + 7, &[kind]).is_refused(&base, words);
    }
    for (inode, words) in
        [(7u32, "which no file can have"), (1, "which no file can have"), (1 << 20, "which no file can have")]
    {
        crafted.clone().names(directory, block, b, &inode.to_le_bytes()).is_refused(&base, words);
    }
    for length in [0u16, 4, 8, 13, 4096] {
        let words = if length == 4096 { "odd length" } else { "" };
        crafted.clone().names(directory, block, b + 4, &length.to_le_bytes()).is_refused(&base, words);
    }
    for (at, words) in
        [(BLOCK - 5, "does not end as it must"), (8, "itself and its parent"), (12, "itself and its parent")]
    {
        crafted.clone().names(directory, block, at, &[0x66]).is_refused(&base, words);
    }
    let mut broken = crafted.clone();
    broken.bytes[block + 900] ^= 1;
    broken.is_refused(&base, "checksum of a block");
}

#[test]
fn a_directory_that_leads_back_is_refused() {
    let base = Base::with(tree);
    let block = Crafted::block(&base, "etc/deep", 0);
    let [etc, deep] = ["etc", "etc/deep"].map(|path| Crafted::number(&base, path));
    let crafted = Crafted::of(&base);
    let at = entry(&crafted, block, "deeper");
    for number in [etc, deep, 2] {
        crafted
            .clone()
            .names(deep, block, at, &number.to_le_bytes())
            .is_refused(&base, "more names than links");
    }
}

#[test]
fn a_directory_with_holes_or_of_odd_length_is_refused() {
    let base = Base::with(tree);
    let deep = Crafted::number(&base, "etc/deep");
    for size in [0u32, 1023, 1025, 2048, u32::MAX, 1 << 31] {
        let crafted = Crafted::of(&base).with_inode(deep, 4, &size.to_le_bytes());
        crafted.is_refused(&base, "is empty or has holes");
    }
}

#[test]
fn depth_length_and_number_of_names_are_limits() {
    let base = Base::with(tree);
    let mut commands: Vec<String> = Vec::new();
    for _ in 0..40 {
        commands.extend(["mkdir dddddddddd".into(), "cd dddddddddd".into()]);
    }
    let changed = base.changed(&commands.iter().map(String::as_str).collect::<Vec<_>>());
    let layer = base.layer(&changed);
    let limited =
        |limits: Limits| compare(&base.file(), &[layer.try_clone().unwrap()], Left::PoweredOff, &limits);
    let most = Limits::default();
    assert_eq!(limited(Limits { depth: 41, path_bytes: 440, ..most }).unwrap().changes.len(), 40);
    let error = |limits| limited(limits).unwrap_err().to_string();
    assert_eq!(error(Limits { depth: 40, ..most }), "more than 40 names in a path");
    assert_eq!(error(Limits { path_bytes: 439, ..most }), "more than 439 bytes in a path");
    assert_eq!(error(Limits { directory_names: 7, ..most }), "more than 7 names in a directory");
    assert_eq!(error(Limits { report_bytes: 4000, ..most }), "more than 4000 bytes in the list of changes");
}

/// A base with a directory that has a tree of hashes, made by e2fsck(8).
fn indexed(names: usize, levels: usize) -> Base {
    let base = Base::made("8M", &["-b", "1024", "-N", "6000"], |root| {
        tree(root);
        fs::create_dir(root.join("many")).unwrap();
        for number in 0..names {
            // Names with bytes above 0x7f, whose sign the hash depends on, and longer than one round of it.
            fs::write(root.join(format!("many/é-{}-{number}", "n".repeat(number % 60))), "").unwrap();
        }
    });
    let raw = base.path("indexed.raw");
    fs::copy(&base.raw, &raw).unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
    // It ends with 1 if it says that it changed something.
    let mut fsck = std::process::Command::new("e2fsck");
    let status = fsck.env("PATH", path).args(["-fyD"]).arg(&raw).output().unwrap().status;
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    let tree = debugfs(&raw, &["htree_dump many"]);
    assert!(tree.contains(&format!("Indirect levels: {}", levels - 1)), "{tree}");
    let folder = tempfile::tempdir().unwrap();
    let moved = folder.path().join("base.raw");
    run(std::process::Command::new("mv").args([&raw, &moved]));
    Base::of_raw(folder, moved)
}

#[test]
fn every_name_of_a_large_directory_is_found() {
    let base = indexed(4000, 2);
    let comparison = compare(&base.file(), &[], Left::PoweredOff, &Limits::default()).unwrap();
    assert_eq!(comparison.files, 13 + 1 + 4000);
    let changed = base.changed(&["rm many/é--0", "rm many/é-nnnnnnn-67"]);
    let comparison =
        compare(&base.file(), &[base.layer(&changed)], Left::PoweredOff, &Limits::default()).unwrap();
    assert_eq!(told(&comparison), [("/many/é--0", What::Deleted), ("/many/é-nnnnnnn-67", What::Deleted)]);
}

/// A name that is listed but not found when it is opened, or the other way round.
#[test]
fn a_name_that_lies_where_it_is_not_looked_for_is_refused() {
    let base = indexed(120, 1);
    let many = Crafted::number(&base, "many");
    let root = Crafted::block(&base, "many", 0);
    let crafted = Crafted::of(&base);
    let second = crafted.word(root + 40);
    for hash in [2, second - 0x0100_0000, second + 0x0100_0000] {
        let crafted = crafted.clone().index(many, root, 32, 40, &(hash & !1).to_le_bytes());
        crafted.is_refused(&base, "a name lies where it is not looked for");
    }
    let third = crafted.word(root + 48);
    crafted.clone().index(many, root, 32, 40, &(third + 2).to_le_bytes()).is_refused(&base, "out of order");
    for (at, value, words) in [
        (28, &[2u8][..], "of no kind that is read"),
        (28, &[6], "of no kind that is read"),
        (30, &[2], "of no kind that is read"),
        (30, &[1], "is none"),
        (31, &[1], "of no kind that is read"),
        (29, &[16], "of no kind that is read"),
        (16, &[12, 0], "of no kind that is read"),
        (24, &[1], "of no kind that is read"),
        (34, &[0, 0], "odd counts"),
        (34, &[200, 0], "odd counts"),
        (32, &[10, 0], "odd counts"),
        (44, &[1, 0, 0, 0], "each of its blocks once"),
        (44, &[200, 0, 0, 0], "each of its blocks once"),
        (36, &[0, 0, 0, 0], "each of its blocks once"),
    ] {
        crafted.clone().index(many, root, 32, at, value).is_refused(&base, words);
    }
    // One leaf less, which the tree does not lead to any more.
    let count = crafted.half(root + 34) - 1;
    crafted
        .clone()
        .index(many, root, 32, 34, &count.to_le_bytes())
        .is_refused(&base, "each of its blocks once");
    let mut broken = crafted.clone();
    broken.bytes[root + 40] ^= 2;
    broken.is_refused(&base, "checksum of its index");
    // The index taken away: to the kernel then all blocks but the first are names, and the first has none.
    let flags = crafted.word(crafted.inode(many) + 0x20) & !0x1000;
    crafted.clone().with_inode(many, 0x20, &flags.to_le_bytes()).is_refused(&base, "does not end as it must");
}

#[test]
fn a_node_of_a_tree_is_checked_like_its_root() {
    let base = indexed(4000, 2);
    let many = Crafted::number(&base, "many");
    let crafted = Crafted::of(&base);
    let root = Crafted::block(&base, "many", 0);
    let node = Crafted::block(&base, "many", crafted.word(root + 36));
    for (at, value, words) in [
        (4, &[12u8, 0][..], "is none"),
        (0, &[12], "is none"),
        (8, &[10, 0], "odd counts"),
        (16, &[0xff, 0xff, 0xff, 0xff], "out of order"),
        (12, &[0, 0, 0, 0], "each of its blocks once"),
    ] {
        crafted.clone().index(many, node, 8, at, value).is_refused(&base, words);
    }
    crafted.clone().index(many, root, 32, 36, &[255, 255, 0, 0]).is_refused(&base, "leads out of it");
}
