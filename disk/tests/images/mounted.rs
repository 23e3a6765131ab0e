//! None missed: the base of a site with every kind of change, against a list made by mounting both disks.
//!
//! The kernel that mounts here is the host's, and what it mounts was made by this test: the product never does this. Mounting
//! needs root and a loop device; where there are none, debugfs(8) is the second reader and the test says so.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use disk::{Change, Comparison, Left, Limits, compare};
use rustix::fs::{self as system, AtFlags, CWD, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags};

use crate::image::{Base, debugfs, run};
use crate::walked;

/// A mounted image; unmounted when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(raw: &Path, options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "ext4", "-o", options])
            .args([raw, folder.path()])
            .output()
            .unwrap();
        if mounted.status.success() {
            return Some(Mounted(folder));
        }
        eprintln!("cannot mount: {}", String::from_utf8_lossy(&mounted.stderr).trim());
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A program that another test starts has our descriptors for a moment, and with them the mount is busy.
        let free = || Command::new("umount").arg(self.path()).output().is_ok_and(|run| run.status.success());
        for _ in 0..100 {
            if free() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        run(Command::new("umount").arg(self.path()));
    }
}

/// The real base, as raw and qcow2.
fn real_base() -> Base {
    let folder =
        std::env::var_os("COUNTERSIGN_TEST_BASE").expect("COUNTERSIGN_TEST_BASE names the folder of a base");
    let scratch = tempfile::tempdir().unwrap();
    let raw = scratch.path().join("base.raw");
    run(Command::new("qemu-img")
        .args(["convert", "-O", "raw"])
        .args([&PathBuf::from(folder).join("disk.qcow2"), &raw]));
    Base::of_raw(scratch, raw)
}

#[test]
fn none_is_missed_against_a_list_made_by_mounting() {
    let base = real_base();
    let changed = base.path("changed.raw");
    run(Command::new("cp").arg("--sparse=always").args([&base.raw, &changed]));
    let Some(mounted) = Mounted::new(&changed, "loop") else {
        return with_debugfs(&base, &changed);
    };
    change(mounted.path());
    drop(mounted);
    write_to_the_device(&changed);

    let layer = base.layer(&changed);
    let start = std::time::Instant::now();
    let comparison = compare(&base.file(), &[layer], Left::PoweredOff, &Limits::default()).unwrap();
    let seconds = start.elapsed().as_secs_f64();

    let expected = same_as_mounted(&comparison, &base.raw, &changed);
    println!("{seconds:.2} s, {} paths, {} changes", comparison.files, comparison.changes.len());
    for path in
        ["/usr/bin/whoami", "/etc/hosts", "/opt/raw", "/opt/large", "/opt/names", "/opt/sparse", "/opt/null"]
    {
        assert!(expected.iter().any(|change| change.path == path), "{path} was not changed");
    }
    assert!(expected.len() > 3700);
}

/// The same for a disk that the pipeline sealed: `COUNTERSIGN_TEST_LAYERS` names its layers, bottom up, with `:` between them.
#[test]
#[ignore = "needs the layers of a sealed disk, root and a loop device"]
fn none_is_missed_on_a_sealed_disk() {
    let base = real_base();
    let layers =
        std::env::var("COUNTERSIGN_TEST_LAYERS").expect("COUNTERSIGN_TEST_LAYERS names sealed layers");
    let layers: Vec<&str> = layers.split(':').collect();
    let merged = base.path("merged.raw");
    let bottom = described(base.qcow2.to_str().unwrap(), "null");
    let chain = layers.iter().fold(bottom, |below, layer| described(layer, &below));
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(format!("json:{chain}")).arg(&merged));
    let sealed: Vec<File> = layers.iter().map(|layer| File::open(layer).unwrap()).collect();
    let comparison = compare(&base.file(), &sealed, Left::PoweredOff, &Limits::default()).unwrap();
    let expected = same_as_mounted(&comparison, &base.raw, &merged);
    println!("{} paths, {} changes", comparison.files, expected.len());
}

/// QEMU's description of an image on another.
fn described(image: &str, below: &str) -> String {
    format!(r#"{{"driver":"qcow2","file":{{"driver":"file","filename":"{image}"}},"backing":{below}}}"#)
}

/// Asserts that mounting both disks shows the same changes, and gives them.
fn same_as_mounted(comparison: &Comparison, base: &Path, sealed: &Path) -> Vec<Change> {
    let [before, after] = [base, sealed].map(|raw| {
        let mounted = Mounted::new(raw, "loop,ro,noload").unwrap();
        walked::walk(mounted.path())
    });
    let expected = walked::changes(&before, &after);
    assert_eq!(comparison.files, after.len() as u64);
    for (found, expected) in comparison.changes.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(comparison.changes.len(), expected.len());
    expected
}

/// Everything that root can do to a mounted disk.
fn change(root: &Path) {
    let at = |path: &str| root.join(path);
    let opt = at("opt");
    // Content with the same length and times as before.
    for path in ["etc/hosts", "usr/bin/whoami"] {
        let metadata = fs::metadata(at(path)).unwrap();
        let mut content = fs::read(at(path)).unwrap();
        content[10] ^= 1;
        fs::write(at(path), content).unwrap();
        let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps {
            last_access: time(metadata.atime(), metadata.atime_nsec()),
            last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
        };
        system::utimensat(CWD, at(path), &times, AtFlags::empty()).unwrap();
    }
    fs::write(opt.join("created"), "created\n").unwrap();
    fs::write(opt.join("empty"), "").unwrap();
    fs::remove_file(at("etc/issue.net")).unwrap();
    fs::rename(at("etc/issue"), at("etc/renamed")).unwrap();
    fs::rename(at("etc/cron.daily"), opt.join("cron")).unwrap();
    fs::set_permissions(at("etc/passwd"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(at("usr/bin/env"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(at("srv"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(at("etc/group"), Some(4_000_000_000), Some(70_000)).unwrap();
    std::os::unix::fs::lchown(at("etc/mtab"), Some(5), Some(6)).unwrap();
    fs::hard_link(at("etc/shadow"), opt.join("shadow")).unwrap();
    symlink("/etc/shadow", opt.join("link")).unwrap();
    symlink("x".repeat(59), opt.join("link59")).unwrap();
    symlink("x".repeat(60), opt.join("link60")).unwrap();
    symlink("x".repeat(4000), opt.join("link4000")).unwrap();
    let device = |name: &str, kind, major, minor| {
        system::mknodat(CWD, opt.join(name), kind, Mode::from_raw_mode(0o666), system::makedev(major, minor))
            .unwrap();
    };
    device("null", FileType::CharacterDevice, 1, 3);
    device("disk", FileType::BlockDevice, 300, 70_000);
    device("pipe", FileType::Fifo, 0, 0);
    drop(UnixListener::bind(opt.join("socket")).unwrap());
    // A file becomes a directory, a directory a link.
    fs::remove_file(at("etc/debian_version")).unwrap();
    fs::create_dir_all(at("etc/debian_version/below")).unwrap();
    fs::remove_dir_all(at("usr/share/doc")).unwrap();
    symlink("man", at("usr/share/doc")).unwrap();
    // An access control list: owner, one user, group, mask, others.
    let mut list = vec![2, 0, 0, 0];
    for (tag, access, id) in
        [(1u16, 7u16, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend([&tag.to_le_bytes()[..], &access.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    // Attributes in the inode and in a block, shared and not, on files and directories.
    for (path, name, value) in [
        (
            "usr/bin/cat",
            "security.capability",
            &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        ),
        ("opt/created", "user.large", &[7; 3000]),
        ("opt/empty", "user.large", &[7; 3000]),
        ("opt", "trusted.x", b"y"),
        ("opt", "user.none", b""),
        ("etc/skel", "system.posix_acl_default", &list),
    ] {
        system::lsetxattr(at(path), name, value, XattrFlags::empty()).unwrap();
    }
    // Sizes: large, sparse, with blocks set aside but not written.
    let large = File::create(opt.join("large")).unwrap();
    let piece: Vec<u8> =
        (0..1u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for number in 0..130 {
        large.write_all_at(&piece, number << 20).unwrap();
    }
    let sparse = File::create(opt.join("sparse")).unwrap();
    for number in 0..400 {
        sparse.write_all_at(b"here", number * 1_000_003).unwrap();
    }
    sparse.set_len(600_000_001).unwrap();
    let aside = File::create(opt.join("aside")).unwrap();
    system::fallocate(&aside, system::FallocateFlags::empty(), 0, 3_000_000).unwrap();
    system::fallocate(&aside, system::FallocateFlags::KEEP_SIZE, 0, 5_000_000).unwrap();
    aside.write_all_at(b"in the middle", 1_500_000).unwrap();
    // Large directories: hashed in one and in two levels, and one of which most names were removed again.
    for (name, count) in [("names", 3000), ("few", 600)] {
        fs::create_dir(opt.join(name)).unwrap();
        for number in 0..count {
            File::create(opt.join(name).join(format!("é{}{number}", "-".repeat(number % 120)))).unwrap();
        }
    }
    for number in 20..600 {
        fs::remove_file(opt.join("few").join(format!("é{}{number}", "-".repeat(number % 120)))).unwrap();
    }
    fs::create_dir_all(opt.join("d/".repeat(100))).unwrap();
    fs::write(
        opt.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd\xff\n\\name")),
        "",
    )
    .unwrap();
    // Unchanged again after all: another inode with the same content, mode, owner and names.
    let motd = fs::read(at("etc/motd")).unwrap();
    fs::remove_file(at("etc/motd")).unwrap();
    fs::write(at("etc/motd"), motd).unwrap();
    fs::set_permissions(at("etc/motd"), fs::Permissions::from_mode(0o644)).unwrap();
    let flagged = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o400)
        .open(opt.join("flagged"))
        .unwrap();
    // Without the flags that it has the kernel would turn its extents into a block map.
    let flags = system::ioctl_getflags(&flagged).unwrap() | IFlags::IMMUTABLE | IFlags::NOATIME;
    system::ioctl_setflags(&flagged, flags).unwrap();
    fs::write(opt.join("raw"), vec![b'r'; 10_000]).unwrap();
}

/// Writes to a block of a file past the file system.
fn write_to_the_device(raw: &Path) {
    for (path, block) in [("/opt/raw", 1), ("/usr/bin/find", 3)] {
        let said = debugfs(raw, &[&format!("bmap {path} {block}")]);
        let place: u64 = said.lines().last().unwrap().trim().parse().unwrap();
        let file = File::options().write(true).open(raw).unwrap();
        file.write_all_at(b"past the file system", place * 4096 + 100).unwrap();
    }
}

/// The second reader where nothing can be mounted: changes made by debugfs(8), and content read by it.
fn with_debugfs(base: &Base, changed: &Path) {
    eprintln!("NOT MOUNTED: debugfs is the second reader, which shows no owners and no special files");
    debugfs(
        changed,
        &[
            "rm /etc/issue.net",
            "ln /etc/issue /etc/renamed",
            "unlink /etc/issue",
            "mkdir /opt/new",
            "symlink /opt/link /etc",
        ],
    );
    let read = |raw: &Path| {
        let folder = tempfile::tempdir().unwrap();
        debugfs(raw, &[&format!("rdump / {}", folder.path().display())]);
        walked::walk(folder.path())
    };
    let expected = walked::changes(&read(&base.raw), &read(changed));
    let comparison =
        compare(&base.file(), &[base.layer(changed)], Left::PoweredOff, &Limits::default()).unwrap();
    let paths = |changes: &[Change]| changes.iter().map(|change| change.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&comparison.changes), paths(&expected));
}
