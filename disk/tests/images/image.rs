//! Makes bases and layers with the tools that make the real ones.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::SeekFrom;

pub(crate) const CLUSTER: usize = 65_536;

/// A base image, as qcow2 and raw, in a folder of its own.
pub(crate) struct Base {
    folder: tempfile::TempDir,
    pub(crate) qcow2: PathBuf,
    pub(crate) raw: PathBuf,
}

/// Runs a program; what it writes to stdout.
pub(crate) fn run(command: &mut Command) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Base {
    /// A small file system with what `fill` puts in a folder.
    pub(crate) fn with(fill: impl Fn(&Path)) -> Self {
        Base::made("4M", &["-b", "1024"], fill)
    }

    /// A file system of this size, made with these further options of mke2fs.
    pub(crate) fn made(size: &str, options: &[&str], fill: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fill(&tree);
        let raw = folder.path().join("base.raw");
        // As the base of a site is made, and the same in each run.
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-U", "6c9dd2a6-0d6c-4f4e-b7cb-51f9fb3ab5a2", "-E"])
            .arg("lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed=2f2bd0b5-3c71-4f7f-9f8f-1f4c8d3c54c1")
            .args(options)
            .arg("-d")
            .args([&tree, &raw])
            .arg(size));
        Base::of_raw(folder, raw)
    }

    /// The base that this raw image is.
    pub(crate) fn of_raw(folder: tempfile::TempDir, raw: PathBuf) -> Self {
        let qcow2 = folder.path().join("base.qcow2");
        run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &qcow2]));
        Base { folder, qcow2, raw }
    }

    pub(crate) fn file(&self) -> File {
        File::open(&self.qcow2).unwrap()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.raw).unwrap()
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A copy of the raw image on which these commands of debugfs(8) were done.
    pub(crate) fn changed(&self, commands: &[&str]) -> PathBuf {
        let changed = self.path("changed.raw");
        fs::copy(&self.raw, &changed).unwrap();
        debugfs(&changed, commands);
        changed
    }

    /// A layer, written by QEMU, that makes the base equal to the raw image.
    pub(crate) fn layer(&self, changed: &Path) -> File {
        let (layer, piece) = (self.path("layer.qcow2"), self.path("pieces"));
        fs::create_dir_all(&piece).unwrap();
        // As blockdev-snapshot leaves it: the header names the parent, and a name it could not open at that.
        run(Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-b"])
            .arg(&self.qcow2)
            .args(["-F", "qcow2"])
            .arg(&layer));
        let mut script = String::new();
        for (number, (offset, bytes)) in differing(&self.raw, changed).into_iter().enumerate() {
            let path = piece.join(number.to_string());
            fs::write(&path, &bytes).unwrap();
            script += &format!("write -q -s {} {offset} {}\n", path.display(), bytes.len());
        }
        let mut writer = Command::new("qemu-io")
            .args(["-f", "qcow2"])
            .arg(&layer)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        run(Command::new("qemu-img").args(["compare", "-f", "raw", "-F", "qcow2"]).args([changed, &layer]));
        fs::remove_dir_all(piece).unwrap();
        File::open(layer).unwrap()
    }
}

/// Does these commands of debugfs(8), none of which may fail.
pub(crate) fn debugfs(image: &Path, commands: &[&str]) -> String {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script.write_all((commands.join("\n") + "\n").as_bytes()).unwrap();
    let output = Command::new("/usr/sbin/debugfs")
        .arg("-w")
        .arg("-f")
        .args([script.path(), image])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // It tells its version there, and ends with 0 whatever happens.
    let errors: Vec<_> = errors.lines().filter(|line| !line.starts_with("debugfs 1.")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Pieces of whole clusters in which two raw images differ; the second is read only where it has data.
fn differing(base: &Path, changed: &Path) -> Vec<(u64, Vec<u8>)> {
    let (base, changed) = (File::open(base).unwrap(), File::open(changed).unwrap());
    let length = changed.metadata().unwrap().len();
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&changed, SeekFrom::Data(at)) {
        at = data / CLUSTER as u64 * CLUSTER as u64;
        let size = CLUSTER.min((length - at) as usize);
        let [mut old, mut new] = [vec![0; size], vec![0; size]];
        base.read_exact_at(&mut old, at).unwrap();
        changed.read_exact_at(&mut new, at).unwrap();
        if old != new {
            match found.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.extend(new),
                _ => found.push((at, new)),
            }
        }
        at += CLUSTER as u64;
    }
    found
}

/// A qcow2 file that holds every cluster of a disk, written by hand so that it can be damaged at known places.
pub(crate) struct Whole {
    pub(crate) bytes: Vec<u8>,
}

impl Whole {
    /// Where the L1 table, the L2 table and the first cluster lie.
    pub(crate) const L1: usize = CLUSTER;
    pub(crate) const L2: usize = 2 * CLUSTER;
    pub(crate) const DATA: usize = 3 * CLUSTER;

    pub(crate) fn of(disk: &[u8]) -> Self {
        let mut bytes = vec![0; Self::DATA];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"QFI\xfb");
        put(4, &3u32.to_be_bytes());
        put(20, &16u32.to_be_bytes());
        put(24, &(disk.len() as u64).to_be_bytes());
        put(36, &1u32.to_be_bytes());
        put(40, &(Self::L1 as u64).to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
        put(Self::L1, &(Self::L2 as u64 | 1 << 63).to_be_bytes());
        for cluster in 0..disk.len().div_ceil(CLUSTER) {
            let place = (Self::DATA + cluster * CLUSTER) as u64 | 1 << 63;
            put(Self::L2 + cluster * 8, &place.to_be_bytes());
        }
        bytes.extend(disk);
        Whole { bytes }
    }

    /// Only the clusters in which `disk` differs from `below`.
    pub(crate) fn between(below: &[u8], disk: &[u8]) -> Self {
        let mut whole = Whole::of(disk);
        for (cluster, (old, new)) in below.chunks(CLUSTER).zip(disk.chunks(CLUSTER)).enumerate() {
            if old == new {
                whole.bytes[Self::L2 + cluster * 8..][..8].fill(0);
            }
        }
        whole
    }

    /// As a file in memory.
    pub(crate) fn file(&self) -> File {
        let file = File::from(rustix::fs::memfd_create("layer", rustix::fs::MemfdFlags::empty()).unwrap());
        file.write_all_at(&self.bytes, 0).unwrap();
        file
    }
}
