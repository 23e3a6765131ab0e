//! Digests of files, remembered for as long as a file is surely the same.
//!
//! A file's state is its device, inode, size, mtime and ctime, in nanoseconds. Whoever could change the bytes and keep that
//! state is root, who could as well change this program. Between processes digests are kept in a file, one a line, each of the boot that it
//! was computed in: what happened to a disk while this system did not run is not known to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use recipe_spec::digest::Sha256Digest;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// How a file is named by a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Digested {
    /// SHA-256 of its bytes.
    AsWhole,
    /// [`memory_digest`].
    AsMemory,
}

/// A clock behind ctime ticks coarsely: a file that was changed just now could change again within the same tick.
const SETTLED: Duration = Duration::from_secs(2);
/// Digests remembered at most; the rest is computed again.
const MAX_REMEMBERED: usize = 4096;
/// Longest file of digests that is read, in bytes; a longer one starts anew.
const MAX_FILE: u64 = 1 << 20;
/// Names the system's boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

static REMEMBERED: LazyLock<Mutex<Remembered>> = LazyLock::new(Mutex::default);

/// From now on this process also knows the digests that others have computed since the system booted, and leaves them its own.
/// `file` is where; its folder must be one that only root or our user may write. What cannot be read or kept there is computed again.
pub fn remember_in(file: &Path) {
    let Ok(boot) = std::fs::read_to_string(BOOT_ID) else { return };
    REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner).keep_in(file, boot.trim());
}

/// SHA-256 of an open regular file, from memory if this very state of it was hashed before. The file is left at its start.
///
/// # Errors
/// As the operating system says.
pub fn file_digest(file: &mut File) -> io::Result<Sha256Digest> {
    digest(file, Digested::AsWhole)
}

/// As [`file_digest`], for either kind of digest.
pub(crate) fn digest(file: &mut File, how: Digested) -> io::Result<Sha256Digest> {
    let key = Key { how, state: State::of(file)? };
    if let Some(known) = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner).known.get(&key) {
        return Ok(*known);
    }
    let digest = match how {
        Digested::AsWhole => Sha256Digest::of_reader(file)?.0,
        Digested::AsMemory => memory_digest(file)?,
    };
    file.rewind()?;
    if key.state.is_settled() && State::of(file)? == key.state {
        REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner).learn(key, digest);
    }
    Ok(digest)
}

/// What tells one state of a file from another. Only root can turn `ctime` back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl State {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let about = file.metadata()?;
        Ok(Self {
            device: about.dev(),
            inode: about.ino(),
            size: about.size(),
            mtime: (about.mtime(), about.mtime_nsec()),
            ctime: (about.ctime(), about.ctime_nsec()),
        })
    }

    /// Whether nothing was written between the two, going by size and time.
    pub(crate) fn has_content_of(&self, other: &Self) -> bool {
        let content = |state: &Self| (state.device, state.inode, state.size, state.mtime);
        content(self) == content(other)
    }

    /// Whether a later write would surely give another ctime.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.ctime.0).unwrap_or(u64::MAX));
        now.checked_sub(changed).is_some_and(|age| age > SETTLED)
    }
}

/// A state of a file, and how it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    how: Digested,
    state: State,
}

/// What is known, and where it is kept.
#[derive(Debug, Default)]
struct Remembered {
    known: HashMap<Key, Sha256Digest>,
    /// Where new lines go.
    kept: Option<Kept>,
}

/// The file between processes.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// The boot that new lines are of.
    boot: String,
    /// Open for appending; made with the first line.
    file: Option<File>,
}

impl Remembered {
    /// Takes what the file has of this boot, and appends to it from now on.
    fn keep_in(&mut self, path: &Path, boot: &str) {
        let text = match open_kept(path).and_then(read_kept) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(String::new()),
            // Not ours, or not readable: nothing of it counts, and it stays as it is.
            Err(_) => return,
        };
        let read: Vec<_> = text.iter().flat_map(|text| text.lines()).map(|line| parse(line, boot)).collect();
        let known: HashMap<_, _> = read.iter().flatten().copied().take(MAX_REMEMBERED).collect();
        // Lines of another boot or cut off, and what is known twice, would pile up.
        if text.is_none() || known.len() < read.len() {
            let lines: String = known.iter().map(|(key, digest)| line(key, digest, boot)).collect();
            if replace(path, &lines).is_err() {
                return;
            }
        }
        self.known.extend(known);
        self.kept = Some(Kept { path: path.to_owned(), boot: boot.to_owned(), file: None });
    }

    fn learn(&mut self, key: Key, digest: Sha256Digest) {
        if self.known.len() >= MAX_REMEMBERED {
            return;
        }
        self.known.insert(key, digest);
        if let Some(kept) = &mut self.kept {
            // What is not kept is computed again.
            let _ = kept.append(&key, &digest);
        }
    }
}

impl Kept {
    fn append(&mut self, key: &Key, digest: &Sha256Digest) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open_or_make(&self.path)?),
        };
        // One write, so that lines of several processes do not mix.
        file.write_all(line(key, digest, &self.boot).as_bytes())
    }
}

fn open_or_make(path: &Path) -> io::Result<File> {
    match open_kept(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match File::options().append(true).create_new(true).mode(0o600).open(path) {
        // Another process was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_kept(path),
        made => made,
    }
}

/// Opens the file of digests for reading and appending, if nobody but root and our user can have written it.
fn open_kept(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = File::options().read(true).append(true).custom_flags(flags.cast_signed()).open(path)?;
    let about = file.metadata()?;
    let ours = about.uid() == 0 || about.uid() == rustix::process::geteuid().as_raw();
    if about.is_file() && ours && about.mode() & 0o022 == 0 {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// What it holds; nothing if that is too much or no text.
fn read_kept(file: File) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes)
        .filter(|bytes| bytes.len() as u64 <= MAX_FILE)
        .and_then(|bytes| String::from_utf8(bytes).ok()))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.persist(path)?;
    Ok(())
}

/// `BOOT HOW DEVICE INODE SIZE MTIME NSEC CTIME NSEC SHA256`
fn line(Key { how, state }: &Key, digest: &Sha256Digest, boot: &str) -> String {
    let how = match how {
        Digested::AsWhole => "whole",
        Digested::AsMemory => "memory",
    };
    let State { device, inode, size, mtime, ctime } = state;
    let (mtime, ctime) = (format!("{} {}", mtime.0, mtime.1), format!("{} {}", ctime.0, ctime.1));
    format!("{boot} {how} {device} {inode} {size} {mtime} {ctime} {digest}\n")
}

/// What a line says; nothing if it was cut off or is of another boot.
fn parse(line: &str, boot: &str) -> Option<(Key, Sha256Digest)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [of, how, device, inode, size, mtime, mtime_nsec, ctime, ctime_nsec, digest] = words[..] else {
        return None;
    };
    let how = match how {
        "whole" => Digested::AsWhole,
        "memory" => Digested::AsMemory,
        _ => return None,
    };
    let state = State {
        device: device.parse().ok()?,
        inode: inode.parse().ok()?,
        size: size.parse().ok()?,
        mtime: (mtime.parse().ok()?, mtime_nsec.parse().ok()?),
        ctime: (ctime.parse().ok()?, ctime_nsec.parse().ok()?),
    };
    let digest = Sha256Digest::from_hex(digest).ok()?;
    (of == boot).then_some((Key { how, state }, digest))
}

/// RAM is hashed in pieces of this size.
const PIECE: u64 = 1 << 20;

/// The digest that names a template's RAM: SHA-256 of the SHA-256 of each MiB of it, in order. Pieces are hashed side by side, and one
/// that is a hole of the file, which reads as zeros by definition, is not read: most of a machine's RAM was never touched.
pub(crate) fn memory_digest(file: &File) -> std::io::Result<Sha256Digest> {
    let size = file.metadata()?.len();
    let pieces = size.div_ceil(PIECE);
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64).min(pieces.max(1));
    let share = pieces.div_ceil(threads);
    let hashed: Vec<std::io::Result<Vec<u8>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let range = number * share..((number + 1) * share).min(pieces);
                scope.spawn(move || piece_digests(file, size, range))
            })
            .collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect()
    });
    let mut all = Vec::new();
    for digests in hashed {
        all.extend(digests?);
    }
    Ok(Sha256Digest::of(&all))
}

/// The digests of some pieces, one after the other.
fn piece_digests(file: &File, size: u64, pieces: Range<u64>) -> std::io::Result<Vec<u8>> {
    let zeros = Sha256Digest::of(&vec![0; PIECE as usize]);
    let mut buffer = vec![0; PIECE as usize];
    let mut digests = Vec::new();
    for piece in pieces {
        let start = piece * PIECE;
        let length = PIECE.min(size - start);
        let digest = if length == PIECE && is_hole(file, start, length)? {
            zeros
        } else {
            let bytes = &mut buffer[..length as usize];
            file.read_exact_at(bytes, start)?;
            Sha256Digest::of(bytes)
        };
        digests.extend_from_slice(digest.as_bytes());
    }
    Ok(digests)
}

/// Whether the file system has nothing there (lseek(2), `SEEK_DATA`).
fn is_hole(file: &File, start: u64, length: u64) -> std::io::Result<bool> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(start)) {
        Ok(data) => Ok(data >= start + length),
        // No data up to the end of the file.
        Err(Errno::NXIO) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::*;

    const BOOT: &str = "0b5ee5a4-0000-4000-8000-000000000001";

    fn key(inode: u64) -> Key {
        let state = State { device: 1, inode, size: 3, mtime: (-5, 7), ctime: (9, 0) };
        Key { how: Digested::AsMemory, state }
    }

    /// As another process of this boot starts.
    fn reopened(path: &Path, boot: &str) -> Remembered {
        let mut remembered = Remembered::default();
        remembered.keep_in(path, boot);
        remembered
    }

    fn kept(path: &Path) -> Vec<u64> {
        let mut inodes: Vec<_> = reopened(path, BOOT).known.keys().map(|key| key.state.inode).collect();
        inodes.sort_unstable();
        inodes
    }

    #[test]
    fn what_one_process_computed_another_knows_until_the_system_boots() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digests");
        let (mut one, mut other) = (reopened(&path, BOOT), reopened(&path, BOOT));
        one.learn(key(1), Sha256Digest::of(b"1"));
        other.learn(key(2), Sha256Digest::of(b"2"));
        assert_eq!(reopened(&path, BOOT).known[&key(1)], Sha256Digest::of(b"1"));
        assert_eq!(kept(&path), [1, 2]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(reopened(&path, "another-boot").known.len(), 0);
        assert_eq!(fs::read(&path).unwrap(), b"", "lines of another boot do not pile up");
    }

    #[test]
    fn a_line_that_was_cut_off_or_is_nonsense_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digests");
        let whole = |inode| line(&key(inode), &Sha256Digest::of(b"1"), BOOT);
        let cut = &whole(2)[..100];
        fs::write(&path, format!("{}{cut}{}x y\n\n{}{}", whole(1), whole(3), whole(4), whole(4))).unwrap();
        assert_eq!(kept(&path), [1, 4]);
        let mut lines: Vec<_> =
            fs::read_to_string(&path).unwrap().lines().map(|line| format!("{line}\n")).collect();
        lines.sort();
        assert_eq!(lines, [whole(1), whole(4)]);
        fs::write(&path, [0xff; 100]).unwrap();
        assert!(kept(&path).is_empty());
        fs::write(&path, whole(1).repeat(1 << 14)).unwrap();
        assert!(kept(&path).is_empty(), "longer than is read");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn what_others_could_have_written_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = line(&key(1), &Sha256Digest::of(b"1"), BOOT);
        for (name, mode, uid) in [("writable", 0o620, 0), ("anothers", 0o600, 61_000)] {
            fs::write(at(name), &text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(at(name), Some(uid), None).expect("run this test as root");
        }
        fs::write(at("good"), &text).unwrap();
        symlink("good", at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR).unwrap();
        for name in ["writable", "anothers", "link", "folder", "fifo", "missing/digests"] {
            let mut remembered = reopened(&at(name), BOOT);
            assert!(remembered.known.is_empty(), "{name}");
            remembered.learn(key(2), Sha256Digest::of(b"2"));
            assert_eq!(remembered.known.len(), 1, "within the process it is remembered: {name}");
        }
        assert_eq!(fs::read_to_string(at("writable")).unwrap(), text);
        assert_eq!(kept(&at("good")), [1]);
    }

    #[test]
    fn another_state_is_hashed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "abc").unwrap();
        let of = || digest(&mut File::open(&path).unwrap(), Digested::AsWhole).unwrap();
        assert_eq!(of(), Sha256Digest::of(b"abc"));
        // Within the same tick, where its times tell nothing.
        fs::write(&path, "abd").unwrap();
        assert_eq!(of(), Sha256Digest::of(b"abd"));
        thread::sleep(SETTLED + Duration::from_secs(1));
        let mut open = File::open(&path).unwrap();
        let state = State::of(&open).unwrap();
        assert!(state.is_settled());
        digest(&mut open, Digested::AsWhole).unwrap();
        let known = |key| REMEMBERED.lock().unwrap().known.get(&key).copied();
        assert_eq!(known(Key { how: Digested::AsWhole, state }), Some(Sha256Digest::of(b"abd")));
        assert_eq!(known(Key { how: Digested::AsMemory, state }), None);
        // The same size, and the old time of change put back.
        fs::write(&path, "abe").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(of(), Sha256Digest::of(b"abe"));
    }

    proptest! {
        #[test]
        fn a_line_reads_back_and_no_part_of_it_does(
            (device, inode, size) in any::<(u64, u64, u64)>(),
            (mtime, ctime) in any::<((i64, i64), (i64, i64))>(),
            (whole, cut) in any::<(bool, prop::sample::Index)>(),
        ) {
            let how = if whole { Digested::AsWhole } else { Digested::AsMemory };
            let key = Key { how, state: State { device, inode, size, mtime, ctime } };
            let digest = Sha256Digest::of(&inode.to_le_bytes());
            let text = line(&key, &digest, BOOT);
            let text = text.strip_suffix('\n').unwrap();
            prop_assert_eq!(parse(text, BOOT), Some((key, digest)));
            prop_assert_eq!(parse(&text[..cut.index(text.len())], BOOT), None);
            prop_assert_eq!(parse(text, "another"), None);
        }
    }

    #[test]
    fn memory_is_named_by_its_pieces_whether_they_are_holes_or_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let (sparse, full) = (folder.path().join("sparse"), folder.path().join("full"));
        let size = 5 * PIECE as usize + 4096;
        let mut bytes = vec![0; size];
        // A byte at the end of one piece and at the start of the file's last, which is shorter.
        for at in [2 * PIECE as usize - 1, 5 * PIECE as usize] {
            bytes[at] = 7;
        }
        std::fs::write(&full, &bytes).unwrap();
        let file = File::create_new(&sparse).unwrap();
        file.set_len(size as u64).unwrap();
        for at in [2 * PIECE as usize - 1, 5 * PIECE as usize] {
            file.write_all_at(&[7], at as u64).unwrap();
        }
        let expected: Vec<u8> =
            bytes.chunks(PIECE as usize).flat_map(|piece| *Sha256Digest::of(piece).as_bytes()).collect();
        let digest = |path: &PathBuf| memory_digest(&File::open(path).unwrap()).unwrap();
        assert_eq!(digest(&full), Sha256Digest::of(&expected));
        assert_eq!(digest(&sparse), digest(&full));
        file.write_all_at(&[1], 3 * PIECE).unwrap();
        assert_ne!(digest(&sparse), digest(&full), "a byte where a hole was");
        std::fs::write(&full, b"").unwrap();
        assert_eq!(digest(&full), Sha256Digest::of(b""));
    }
}
