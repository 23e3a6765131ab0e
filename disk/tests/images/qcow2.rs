//! Layers whose format is a lie.

use std::fs::{self, File};

use disk::{DiskError, Left, Limits, What, compare};
use proptest::prelude::*;

use crate::changes::{told, tree};
use crate::crafted::Crafted;
use crate::image::{Base, CLUSTER, Whole};

/// The error of a layer that holds the base's own bytes, after `damage`.
fn refused(base: &Base, damage: impl Fn(&mut Vec<u8>)) -> Result<(), String> {
    let mut whole = Whole::of(&base.bytes());
    damage(&mut whole.bytes);
    match compare(&base.file(), &[whole.file()], Left::PoweredOff, &Limits::default()) {
        Ok(_) => Ok(()),
        Err(error) => {
            assert!(error.is_refusal(), "{error}");
            Err(error.to_string())
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn a_header_that_asks_for_more_than_a_table_is_refused() {
    let base = Base::with(tree);
    assert_eq!(refused(&base, |_| ()), Ok(()));
    for (at, value, expected) in [
        (0, 0, "not a qcow2 image"),
        (7, 2, "version 3"),
        (23, 8, "cluster size"),
        (23, 22, "cluster size"),
        (23, 17, "does not lie in the file"),
        (35, 1, "encrypted"),
        (63, 1, "internal snapshots"),
        (79, 1, "incompatible features 0x1"),
        (79, 2, "incompatible features 0x2"),
        (79, 4, "incompatible features 0x4"),
        (79, 8, "incompatible features 0x8"),
        (79, 16, "incompatible features 0x10"),
        (72, 128, "incompatible features"),
        (39, 0, "L1 table is too short"),
        (31, 1, "number of sectors"),
        (30, 2, "its disk has"),
        (24, 1, "more than 274877906944 bytes of a disk"),
        (46, 1, "does not lie in the file"),
        (41, 1, "does not lie in the file"),
    ] {
        let error = refused(&base, |bytes| bytes[at] = value).unwrap_err();
        assert!(error.contains(expected), "{at}: {error}");
    }
}

#[test]
fn a_table_that_leads_astray_is_refused() {
    let base = Base::with(tree);
    let length = Whole::of(&base.bytes()).bytes.len() as u64;
    for (at, value, expected) in [
        (Whole::L1, length.next_multiple_of(CLUSTER as u64), "does not lie in the file"),
        (Whole::L1, Whole::L2 as u64 + 512, "does not lie in the file"),
        (Whole::L1, Whole::L2 as u64 | 1, "L1 entry has reserved bits"),
        (Whole::L1, Whole::L2 as u64 | 1 << 60, "L1 entry has reserved bits"),
        (Whole::L2, Whole::DATA as u64 | 1 << 62, "compressed"),
        (Whole::L2, Whole::DATA as u64 | 2, "L2 entry has reserved bits"),
        (Whole::L2, Whole::DATA as u64 | 1 << 56, "L2 entry has reserved bits"),
        (Whole::L2, Whole::DATA as u64 + 512, "does not lie in the file"),
        (Whole::L2, 1 << 40, "does not lie in the file"),
        (Whole::L2, 1 << 63, "lies where the header is"),
    ] {
        let error = refused(&base, |bytes| put(bytes, at, value)).unwrap_err();
        assert!(error.contains(expected), "{at}: {error}");
    }
}

#[test]
fn a_name_in_a_header_has_no_effect() {
    let base = Base::with(tree);
    let secret = base.path("secret");
    fs::copy(&base.qcow2, &secret).unwrap();
    let name = secret.to_str().unwrap().as_bytes();
    let named = |bytes: &mut Vec<u8>| {
        put(bytes, 8, 512);
        bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        bytes[512..512 + name.len()].copy_from_slice(name);
        // The format of the backing file, as a header extension.
        bytes[104..112].copy_from_slice(&[0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 5]);
        bytes[112..117].copy_from_slice(b"qcow2");
    };
    fs::remove_file(&secret).unwrap();
    assert_eq!(refused(&base, named), Ok(()));
    // A whole chain of names: the clusters that the layer lacks still come from the base that was given.
    assert_eq!(
        refused(&base, |bytes| {
            named(bytes);
            bytes[Whole::L2..Whole::L2 + 4096].fill(0);
        }),
        Ok(())
    );
}

#[test]
fn zero_clusters_hide_what_lies_below() {
    let base = Base::with(tree);
    let block = Crafted::block(&base, "etc/large", 100);
    for entry in [1, Whole::DATA as u64 | 1, 1 << 63 | Whole::DATA as u64 | 1] {
        let mut whole = Whole::of(&base.bytes());
        whole.bytes[Whole::L2..Whole::L2 + 4096].fill(0);
        put(&mut whole.bytes, Whole::L2 + block / CLUSTER * 8, entry);
        let comparison =
            compare(&base.file(), &[whole.file()], Left::PoweredOff, &Limits::default()).unwrap();
        assert_eq!(told(&comparison), [("/etc/large", What::Content)], "{entry:#x}");
    }
}

#[test]
fn a_layer_that_ends_early_is_refused_or_reads_as_qemu_reads_it() {
    let base = Base::with(tree);
    let whole = Whole::of(&base.bytes());
    let step = 40_000;
    let mut lengths: Vec<usize> = (0..whole.bytes.len()).step_by(step).collect();
    lengths.extend([1, 71, 103, 104, 105, Whole::L2, Whole::DATA, Whole::DATA + 1]);
    for length in lengths {
        let file = Whole { bytes: whole.bytes[..length].to_vec() }.file();
        let result = compare(&base.file(), &[file], Left::PoweredOff, &Limits::default());
        // Only what the last cluster lacks may read as zeros; the disk's end is free space.
        assert!(result.is_err() || length + CLUSTER > whole.bytes.len(), "{length}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_no_refusal() {
    let base = Base::with(tree);
    let unreadable = File::options().write(true).open(&base.qcow2).unwrap();
    let error = compare(&base.file(), &[unreadable], Left::PoweredOff, &Limits::default()).unwrap_err();
    assert!(matches!(&error, DiskError::Read { image, .. } if image == "layer 1"), "{error}");
    assert!(!error.is_refusal());
    let folder = File::open(base.path("tree")).unwrap();
    assert!(!compare(&folder, &[], Left::PoweredOff, &Limits::default()).unwrap_err().is_refusal());
}

#[test]
fn limits_of_a_chain_hold() {
    let base = Base::with(tree);
    let limited = |limits: Limits| {
        compare(&base.file(), &[base.file(), base.file()], Left::PoweredOff, &limits).unwrap_err().to_string()
    };
    let least = Limits::default();
    assert_eq!(limited(Limits { layers: 1, ..least }), "more than 1 layers");
    assert_eq!(limited(Limits { clusters: 63, ..least }), "more than 63 clusters in an image");
    assert_eq!(
        limited(Limits { disk_bytes: 4 << 20, clusters: 64, paths: 12, ..least }),
        "more than 12 paths on a disk"
    );
    assert_eq!(limited(Limits { disk_bytes: (4 << 20) - 1, ..least }), "more than 4194303 bytes of a disk");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in header and tables: an answer, and none that tells of a disk of another size.
    #[test]
    fn no_header_and_no_table_does_harm(
        edits in proptest::collection::vec((prop_oneof![0usize..112, Whole::L1..Whole::L1 + 24, Whole::L2..Whole::L2 + 1100], any::<u8>()), 1..4)
    ) {
        thread_local!(static BASE: Base = Base::with(tree));
        BASE.with(|base| {
            let mut whole = Whole::of(&base.bytes());
            for (at, value) in edits {
                whole.bytes[at] = value;
            }
            if let Err(error) = compare(&base.file(), &[whole.file()], Left::PoweredOff, &Limits::default()) {
                assert!(error.is_refusal(), "{error}");
            }
        });
    }
}
