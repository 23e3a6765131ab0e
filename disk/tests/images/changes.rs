//! What is changed on a disk is told, and nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use disk::{Change, Comparison, Kind, Left, Limits, Outside, What, compare};
use recipe_spec::digest::Sha256Digest;

use crate::crafted::Crafted;
use crate::image::{Base, Whole};

/// A tree with something of each kind that an ordinary user can make.
pub(crate) fn tree(root: &Path) {
    fs::create_dir_all(root.join("etc/deep/deeper")).unwrap();
    for (path, content) in
        [("etc/a", "alpha\n"), ("etc/b", "beta\n"), ("etc/deep/c", "gamma\n"), ("etc/empty", "")]
    {
        fs::write(root.join(path), content).unwrap();
    }
    fs::write(root.join("etc/large"), vec![7; 300_000]).unwrap();
    fs::hard_link(root.join("etc/b"), root.join("etc/b2")).unwrap();
    symlink("a", root.join("etc/short")).unwrap();
    symlink("x".repeat(200), root.join("etc/long")).unwrap();
    fs::set_permissions(root.join("etc/a"), fs::Permissions::from_mode(0o640)).unwrap();
}

pub(crate) fn compared(base: &Base, commands: &[&str]) -> Comparison {
    let changed = base.changed(commands);
    compare(&base.file(), &[base.layer(&changed)], Left::PoweredOff, &Limits::default()).unwrap()
}

/// Path and gravest thing of each change.
pub(crate) fn told(comparison: &Comparison) -> Vec<(&str, What)> {
    comparison.changes.iter().map(|change| (change.path.as_str(), change.what())).collect()
}

#[test]
fn a_base_has_no_changes() {
    let base = Base::with(tree);
    let comparison = compare(&base.file(), &[], Left::PoweredOff, &Limits::default()).unwrap();
    assert_eq!(comparison, Comparison { files: 13, changes: vec![], outside: Outside::Equal });
    let whole = Whole::of(&base.bytes()).file();
    assert_eq!(compare(&base.file(), &[whole], Left::PoweredOff, &Limits::default()).unwrap(), comparison);
}

#[test]
fn what_is_made_removed_and_renamed_is_told() {
    let base = Base::with(tree);
    let new = base.path("new");
    fs::write(&new, b"new\n").unwrap();
    let comparison = compared(
        &base,
        &[
            &format!("write {} etc/new", new.display()),
            "rm etc/a",
            "ln etc/deep/c etc/moved",
            "unlink etc/deep/c",
            "mkdir etc/folder",
            "symlink etc/elsewhere /tmp/x",
            "cd etc",
            "mknod null c 1 3",
            "mknod disk b 259 300",
            "mknod pipe p",
        ],
    );
    assert_eq!(
        told(&comparison),
        [
            ("/etc/a", What::Deleted),
            ("/etc/deep/c", What::Deleted),
            ("/etc/disk", What::Created),
            ("/etc/elsewhere", What::Created),
            ("/etc/folder", What::Created),
            ("/etc/moved", What::Created),
            ("/etc/new", What::Created),
            ("/etc/null", What::Created),
            ("/etc/pipe", What::Created),
        ]
    );
    let after = |path: &str| find(&comparison, path).after.clone().unwrap();
    assert_eq!(after("/etc/disk").device, Some((259, 300)));
    assert_eq!((after("/etc/null").kind, after("/etc/null").device), (Kind::Char, Some((1, 3))));
    assert_eq!(after("/etc/elsewhere").target.as_deref(), Some("/tmp/x"));
    assert_eq!(after("/etc/new").sha256, Some(Sha256Digest::of(b"new\n")));
    assert_eq!(
        (after("/etc/moved").sha256, after("/etc/moved").links),
        (Some(Sha256Digest::of(b"gamma\n")), 1)
    );
    assert_eq!(find(&comparison, "/etc/a").before.as_ref().unwrap().mode, 0o640);
    assert_eq!(comparison.files, 13 - 2 + 7);
}

#[test]
fn a_write_past_the_file_system_is_seen_whatever_the_times_say() {
    let base = Base::with(tree);
    let block = Crafted::block(&base, "etc/large", 200);
    let mut bytes = base.bytes();
    bytes[block + 5] ^= 1;
    let changed = base.path("changed.raw");
    fs::write(&changed, &bytes).unwrap();
    let comparison =
        compare(&base.file(), &[base.layer(&changed)], Left::PoweredOff, &Limits::default()).unwrap();
    assert_eq!(told(&comparison), [("/etc/large", What::Content)]);
    let Change { before, after, .. } = &comparison.changes[0];
    assert_eq!(before.as_ref().unwrap().sha256, Some(Sha256Digest::of(&[7; 300_000])));
    let mut content = vec![7; 300_000];
    content[200 * 1024 + 5] ^= 1;
    assert_eq!(after.as_ref().unwrap().sha256, Some(Sha256Digest::of(&content)));
}

#[test]
fn each_field_of_an_inode_but_its_times_is_told() {
    let base = Base::with(tree);
    for (field, value, what) in [
        ("mode", "0104755", Some(What::Metadata)),
        ("uid", "100000", Some(What::Metadata)),
        ("gid", "100000", Some(What::Metadata)),
        ("flags", "0x80010", Some(What::Metadata)),
        ("size", "5", Some(What::Content)),
        ("mtime", "20200101", None),
        ("ctime", "20200101", None),
        ("atime", "20200101", None),
        ("generation", "7", None),
    ] {
        let comparison = compared(&base, &[&format!("set_inode_field etc/a {field} {value}")]);
        assert_eq!(
            told(&comparison),
            what.map(|what| ("/etc/a", what)).into_iter().collect::<Vec<_>>(),
            "{field}"
        );
        if let [change] = &comparison.changes[..] {
            assert!(
                change.before.as_ref().unwrap().sha256.is_some()
                    && change.after.as_ref().unwrap().sha256.is_some()
            );
        }
    }
}

#[test]
fn each_name_of_a_file_is_told() {
    let base = Base::with(tree);
    let comparison = compared(&base, &["set_inode_field etc/b mode 0104711"]);
    assert_eq!(told(&comparison), [("/etc/b", What::Metadata), ("/etc/b2", What::Metadata)]);
    let comparison = compared(&base, &["ln etc/b etc/b3", "set_inode_field etc/b links_count 3"]);
    assert_eq!(
        told(&comparison),
        [("/etc/b", What::Metadata), ("/etc/b2", What::Metadata), ("/etc/b3", What::Created)]
    );
    assert_eq!(find(&comparison, "/etc/b").after.as_ref().unwrap().links, 3);
}

#[test]
fn extended_attributes_are_told_wherever_they_lie() {
    let base = Base::with(tree);
    let value = base.path("value");
    fs::write(&value, vec![b'v'; 600]).unwrap();
    let comparison = compared(
        &base,
        &[
            "ea_set etc/a security.capability \\001\\000\\000\\002",
            &format!("ea_set -f {} etc/b user.large", value.display()),
            "ea_set etc/deep trusted.x y",
        ],
    );
    assert_eq!(
        told(&comparison),
        [
            ("/etc/a", What::Metadata),
            ("/etc/b", What::Metadata),
            ("/etc/b2", What::Metadata),
            ("/etc/deep", What::Metadata)
        ]
    );
    let after = |path: &str| find(&comparison, path).after.clone().unwrap().attributes;
    assert_eq!(after("/etc/a").get("security.capability").map(String::as_str), Some("01000002"));
    assert_eq!(after("/etc/b").get("user.large"), Some(&"76".repeat(600)));
    assert_eq!(after("/etc/deep").get("trusted.x").map(String::as_str), Some("79"));
}

#[test]
fn a_file_that_becomes_a_directory_or_a_link_is_told_with_all_below() {
    let base = Base::with(tree);
    let comparison = compared(
        &base,
        &[
            "rm etc/a",
            "mkdir etc/a",
            "mkdir etc/a/x",
            "rm etc/deep/c",
            "rmdir etc/deep/deeper",
            "rmdir etc/deep",
            "symlink etc/deep /",
        ],
    );
    assert_eq!(
        told(&comparison),
        [
            ("/etc/a", What::Kind),
            ("/etc/a/x", What::Created),
            ("/etc/deep", What::Kind),
            ("/etc/deep/c", What::Deleted),
            ("/etc/deep/deeper", What::Deleted),
        ]
    );
}

#[test]
fn several_layers_are_one_disk() {
    let base = Base::with(tree);
    let mut lower = base.bytes();
    lower[Crafted::block(&base, "etc/large", 250) + 5] ^= 1;
    let upper = base.changed(&["rm etc/a"]);
    let mut both = fs::read(upper).unwrap();
    both[Crafted::block(&base, "etc/large", 250) + 5] ^= 1;
    // What the upper layer does not hold must come from the lower one.
    let layers = [Whole::between(&base.bytes(), &lower).file(), Whole::between(&lower, &both).file()];
    let comparison = compare(&base.file(), &layers, Left::PoweredOff, &Limits::default()).unwrap();
    assert_eq!(told(&comparison), [("/etc/a", What::Deleted), ("/etc/large", What::Content)]);
    let [lower, upper] = layers;
    let comparison = compare(&base.file(), &[lower], Left::PoweredOff, &Limits::default()).unwrap();
    assert_eq!(told(&comparison), [("/etc/large", What::Content)]);
    let comparison = compare(&base.file(), &[upper], Left::PoweredOff, &Limits::default()).unwrap();
    assert_eq!(told(&comparison), [("/etc/a", What::Deleted)]);
}

#[test]
fn names_that_are_no_text_are_escaped() {
    let base = Base::with(tree);
    let comparison = compared(&base, &["mkdir \"etc/a\\b\"", "mkdir etc/\u{9b}2J"]);
    assert_eq!(told(&comparison), [("/etc/a\\x5cb", What::Created), ("/etc/\\xc2\\x9b2J", What::Created)]);
}

#[test]
fn holes_read_as_zeros() {
    let base = Base::with(|root| {
        tree(root);
        let file = fs::File::create(root.join("etc/sparse")).unwrap();
        for block in [1u64, 50, 100, 150, 200, 250, 999] {
            std::os::unix::fs::FileExt::write_all_at(&file, &[b'x'; 1024], block * 1024).unwrap();
        }
        file.set_len(2_000_003).unwrap();
    });
    let mut content = vec![0; 2_000_003];
    for block in [1, 50, 100, 150, 200, 250, 999] {
        content[block * 1024..(block + 1) * 1024].fill(b'x');
    }
    let comparison = compared(&base, &["set_inode_field etc/sparse mode 0100600"]);
    assert_eq!(
        find(&comparison, "/etc/sparse").after.as_ref().unwrap().sha256,
        Some(Sha256Digest::of(&content))
    );
}

pub(crate) fn find<'c>(comparison: &'c Comparison, path: &str) -> &'c Change {
    comparison.changes.iter().find(|change| change.path == path).unwrap()
}
