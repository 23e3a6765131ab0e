//! Small files of interest: their attributes, digest and, where asked, text.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guest::facts::{MAX_ENTRIES, MAX_SMALL_FILE, SmallFile};
use recipe_spec::digest::Sha256Digest;
use rustix::fs::{FileType, OFlags};

use super::Notes;
use crate::agent::escape::escaped;
use crate::agent::root::{Kind, LastLink, Root};

/// Longest file that is hashed, in bytes; a longer one is named as cut.
const MAX_HASHED: u64 = 16 * 1024 * 1024;
/// Text that is sent in all, in bytes.
const MAX_TEXT: usize = 4 * 1024 * 1024;
/// Folders below a place that are entered.
const MAX_DEPTH: usize = 8;

/// Whether the text of a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Kept,
    Left,
}

/// Reads small files of one root, within limits for all of them.
pub(super) struct Reader<'a> {
    root: &'a Root,
    notes: &'a mut Notes,
    text_left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(root: &'a Root, notes: &'a mut Notes) -> Self {
        Self { root, notes, text_left: MAX_TEXT }
    }

    /// Adds `entry` to the list called `name`, unless that is full.
    pub(super) fn push<T>(&mut self, name: &str, list: &mut Vec<T>, entry: T) {
        self.notes.push(name, list, entry);
    }

    /// Remembers that something was not told.
    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.notes.add(what);
    }

    /// Every file and link at `places` or in folders there, sorted. `name` is the list's.
    pub(super) fn all(&mut self, name: &str, places: &[&str], text: Text) -> Vec<SmallFile> {
        let mut files = Vec::new();
        for place in places {
            self.each(name, Path::new(place), &mut |reader, path| {
                if let Some(file) = reader.one(name, path, text) {
                    reader.push(name, &mut files, file);
                }
            });
        }
        files.sort();
        files
    }

    /// Files and links directly in `home` whose names begin with a dot.
    pub(super) fn dot_files(&mut self, name: &str, home: &str) -> Vec<SmallFile> {
        let mut files = Vec::new();
        for (path, kind) in self.list(name, Path::new(home)) {
            let dotted = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
            if dotted
                && kind != Kind::Folder
                && let Some(file) = self.one(name, &path, Text::Left)
            {
                files.push(file);
            }
        }
        files
    }

    /// Calls `found` with `place` if it is anything but a folder, else with all below it, in order.
    pub(super) fn each(&mut self, name: &str, place: &Path, found: &mut dyn FnMut(&mut Self, &Path)) {
        match self.root.stat(place) {
            Ok(Some(stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.descend(name, place, MAX_DEPTH, found);
            }
            Ok(Some(_)) => found(self, place),
            Ok(None) => {}
            Err(error) => self.unread(name, place, &error),
        }
    }

    fn descend(&mut self, name: &str, folder: &Path, depth: usize, found: &mut dyn FnMut(&mut Self, &Path)) {
        for (path, kind) in self.list(name, folder) {
            match kind {
                Kind::Folder if depth == 0 => self.note(format!("{name}: {} is too deep", display(&path))),
                Kind::Folder => self.descend(name, &path, depth - 1, found),
                _ => found(self, &path),
            }
        }
    }

    /// What lies in a folder, in order; nothing if it is none.
    pub(super) fn list(&mut self, name: &str, folder: &Path) -> Vec<(PathBuf, Kind)> {
        match self.root.list(folder, MAX_ENTRIES) {
            Ok(entries) => entries
                .unwrap_or_default()
                .into_iter()
                .map(|entry| (folder.join(entry.name), entry.kind))
                .collect(),
            Err(error) => {
                self.unread(name, folder, &error);
                Vec::new()
            }
        }
    }

    /// The file or link at `path`, if there is one. The text of a link is that of the file it leads to.
    pub(super) fn one(&mut self, name: &str, path: &Path, text: Text) -> Option<SmallFile> {
        match self.read_one(path, text) {
            Ok(found) => found,
            Err(error) => {
                self.unread(name, path, &error);
                None
            }
        }
    }

    fn read_one(&mut self, path: &Path, text: Text) -> io::Result<Option<SmallFile>> {
        let Some(stat) = self.root.stat(path)? else { return Ok(None) };
        let link = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Some(self.target(path)?),
            _ => None,
        };
        let sha256 = match &link {
            Some(target) => Sha256Digest::of(target),
            None => self.digest(path)?,
        };
        let text = if text == Text::Kept { self.text(path)? } else { None };
        Ok(Some(SmallFile {
            path: display(path),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            sha256: sha256.to_hex(),
            link: link.map(|target| escaped(&target)),
            text,
        }))
    }

    /// Where the link at `path` points.
    pub(super) fn target(&self, path: &Path) -> io::Result<Vec<u8>> {
        let link = self.root.open_at(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes())
    }

    /// Digest of the regular file at `path`.
    pub(super) fn digest(&self, path: &Path) -> io::Result<Sha256Digest> {
        let file: File = self.root.open_regular(path, LastLink::Refused)?;
        let (digest, size) = Sha256Digest::of_reader(&mut file.take(MAX_HASHED + 1))?;
        if size > MAX_HASHED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(digest)
    }

    fn text(&mut self, path: &Path) -> io::Result<Option<String>> {
        match self.root.read(path, MAX_SMALL_FILE.min(self.text_left)) {
            Ok(bytes) => {
                self.text_left -= bytes.as_ref().map_or(0, Vec::len);
                Ok(bytes.map(|bytes| escaped(&bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.note(format!("the text of {}", display(path)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn unread(&mut self, name: &str, path: &Path, error: &io::Error) {
        self.note(format!("{name}: {}: {error}", display(path)));
    }
}

/// A path as text.
pub(super) fn display(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}
