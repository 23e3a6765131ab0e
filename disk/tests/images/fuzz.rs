//! Any bytes, with and without right checksums: an answer within a second, and no panic.

use std::time::Instant;

use proptest::prelude::*;

use crate::changes::tree;
use crate::crafted::{BLOCK, Crafted};
use crate::image::Base;

/// A base and a disk with something of each structure: attributes in a block, extents in a block, a tree of hashes.
struct Rich {
    base: Base,
    disk: Crafted,
    etc: u32,
    sparse: u32,
    names: usize,
    extents: usize,
    attributes: usize,
}

thread_local!(static RICH: Rich = rich());

fn rich() -> Rich {
    let base = Base::with(|root| {
        tree(root);
        let file = std::fs::File::create(root.join("etc/sparse")).unwrap();
        for block in [1u64, 50, 100, 150, 200, 250] {
            std::os::unix::fs::FileExt::write_all_at(&file, &[b'x'; 1024], block * 1024).unwrap();
        }
    });
    let value = base.path("value");
    std::fs::write(&value, [b'v'; 600]).unwrap();
    let changed = base.changed(&[
        &format!("ea_set -f {} etc/a user.large", value.display()),
        "ea_set etc/a user.small x",
        "mkdir etc/new",
    ]);
    let disk = Crafted::new(std::fs::read(changed).unwrap());
    let [etc, sparse, a] = ["etc", "etc/sparse", "etc/a"].map(|path| Crafted::number(&base, path));
    let names = Crafted::block(&base, "etc", 0);
    let extents = disk.word(disk.inode(sparse) + 0x28 + 16) as usize * BLOCK;
    let attributes = disk.word(disk.inode(a) + 0x68) as usize * BLOCK;
    assert_eq!(disk.half(extents), 0xf30a);
    assert_eq!(disk.word(attributes), 0xea02_0000);
    assert!(disk.compared(&base).is_ok());
    Rich { base, disk, etc, sparse, names, extents, attributes }
}

/// One structure, one place in it, one value.
#[derive(Clone, Debug)]
enum Edit {
    Superblock(usize, u8),
    Group(usize, u8),
    Inode(u32, usize, u8),
    Names(usize, u8),
    Extents(usize, u8),
    Attributes(usize, u8),
    Anything(usize, u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    // Bytes that are likely to matter: small, large, and with one bit.
    let value = prop_oneof![any::<u8>(), Just(0), Just(1), Just(2), Just(0x7f), Just(0x80), Just(0xff)];
    let place = prop_oneof![
        (0..1020usize).prop_map(|at| (0, 0, at)),
        (0..64usize).prop_map(|at| (1, 0, at)),
        ((2..30u32), 0..256usize).prop_map(|(number, at)| (2, number, at)),
        (0..1012usize).prop_map(|at| (3, 0, at)),
        (0..100usize).prop_map(|at| (4, 0, at)),
        prop_oneof![0..80usize, 0..1024usize].prop_map(|at| (5, 0, at)),
        (0..(1usize << 20)).prop_map(|at| (6, 0, at)),
    ];
    (place, value).prop_map(|((structure, number, at), value)| match structure {
        0 => Edit::Superblock(at, value),
        1 => Edit::Group(at, value),
        2 => Edit::Inode(number, at, value),
        3 => Edit::Names(at, value),
        4 => Edit::Extents(at, value),
        5 => Edit::Attributes(at, value),
        _ => Edit::Anything(at, value),
    })
}

impl Rich {
    fn edited(&self, edits: &[Edit]) -> Crafted {
        edits.iter().fold(self.disk.clone(), |mut disk, edit| match *edit {
            Edit::Superblock(at, value) => disk.superblock(at, &[value]),
            Edit::Group(at, value) => disk.group(at, &[value]),
            Edit::Inode(number, at, value) => disk.with_inode(number, at, &[value]),
            Edit::Names(at, value) => disk.names(self.etc, self.names, at, &[value]),
            Edit::Extents(at, value) => disk.extents(self.sparse, self.extents, at, &[value]),
            Edit::Attributes(at, value) => disk.attributes(self.attributes, at, &[value]),
            Edit::Anything(at, value) => {
                disk.bytes[at] = value;
                disk
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_metadata_does_harm(edits in proptest::collection::vec(edit(), 1..4)) {
        RICH.with(|rich| {
            let disk = rich.edited(&edits);
            let start = Instant::now();
            // That an error is a refusal is asserted there.
            let _either = disk.compared(&rich.base);
            assert!(start.elapsed().as_secs() < 10, "it took {:?}", start.elapsed());
        });
    }
}

/// A changed disk is never taken for an unchanged one: what the kernel could read differently is told or refused.
#[test]
fn no_byte_of_an_inode_in_use_changes_unseen() {
    RICH.with(|rich| {
        let whole = rich.disk.compared(&rich.base).unwrap();
        let mut unseen = Vec::new();
        for at in 0..256 {
            let inode = rich.disk.inode(rich.sparse);
            let disk = rich.disk.clone().with_inode(rich.sparse, at, &[rich.disk.bytes[inode + at] ^ 0x04]);
            if disk.compared(&rich.base).is_ok_and(|comparison| comparison == whole) {
                unseen.push(at);
            }
        }
        let expected: Vec<usize> = [
            0x08..0x18,  // access, change, modification and deletion time
            0x1c..0x20,  // count of blocks, low
            0x22..0x23,  // of the flags, that which says how blocks are counted
            0x24..0x28,  // version, low
            0x30..0x34,  // generation of the extents' root, which nothing reads
            0x3e..0x40,  // a half word of an index entry that is not in use
            0x40..0x64,  // index entries that are not in use
            0x70..0x76,  // a word that is not in use; count of blocks, high
            0x7c..0x81, // checksum, low; a half word that is not in use; length of fields, as there are no attributes
            0x82..0x100, // checksum, high; fine times, creation time, version, project; no attributes
        ]
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(unseen, expected);
    });
}
