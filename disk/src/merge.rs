//! Both file systems walked side by side, name by name.

use std::cmp::Ordering;
use std::collections::HashMap;

use recipe_spec::digest::Sha256Digest;

use crate::content::{self, Budget};
use crate::error::{DiskError, Fault, Which};
use crate::ext4::{Entry, ROOT, Visited, Volume};
use crate::limits::Limits;
use crate::report::{self, Change, Kind, Node};
use crate::text::escaped;

/// Something of the base and the same of the sealed disk.
#[derive(Clone, Copy, Default)]
struct Both<T> {
    base: T,
    sealed: T,
}

/// One of the two disks.
struct Side<'v, 'a> {
    which: Which,
    volume: &'v mut Volume<'a>,
    /// Digests of files with several names.
    digests: HashMap<u32, Sha256Digest>,
}

/// A walk through both disks.
pub(crate) struct Walk<'v, 'a> {
    sides: Both<Side<'v, 'a>>,
    limits: Limits,
    budget: Budget,
    report_bytes: usize,
    changes: Vec<(Box<[u8]>, Change)>,
    base_paths: Vec<String>,
}

/// The inodes that a path leads to.
type Inodes = Both<Option<u32>>;

/// Directories below one directory, by name.
struct Level {
    own: Inodes,
    path_length: usize,
    directories: std::vec::IntoIter<(Box<[u8]>, Inodes)>,
}

impl<'v, 'a> Walk<'v, 'a> {
    /// A walk that has not begun.
    pub(crate) fn new(base: &'v mut Volume<'a>, sealed: &'v mut Volume<'a>, limits: Limits) -> Self {
        let side = |which, volume| Side { which, volume, digests: HashMap::new() };
        Walk {
            sides: Both { base: side(Which::Base, base), sealed: side(Which::Sealed, sealed) },
            limits,
            budget: Budget::new(limits.hashed_bytes),
            report_bytes: 0,
            changes: Vec::new(),
            base_paths: Vec::new(),
        }
    }

    /// All that differs, sorted by path; and all paths of the base.
    pub(crate) fn changes(mut self) -> Result<(Vec<Change>, Vec<String>), DiskError> {
        let root = Both { base: Some(ROOT), sealed: Some(ROOT) };
        self.visit(b"/", root, Both { base: Kind::Directory, sealed: Kind::Directory })?;
        let mut path = Vec::new();
        let mut levels = vec![self.list(&path, root, root)?];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_length);
            let Some((name, own)) = level.directories.next() else {
                levels.pop();
                continue;
            };
            let parent = level.own;
            path.push(b'/');
            path.extend(name);
            if levels.len() >= self.limits.depth {
                return Err(DiskError::Limit { what: "names in a path", allowed: self.limits.depth as u64 });
            }
            levels.push(self.list(&path, own, parent)?);
        }
        self.changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok((self.changes.into_iter().map(|(_, change)| change).collect(), self.base_paths))
    }

    /// Compares all names in a directory, which one of the two disks may lack.
    fn list(
        &mut self,
        path: &[u8],
        own: Both<Option<u32>>,
        parent: Both<Option<u32>>,
    ) -> Result<Level, DiskError> {
        let mut base = self.sides.base.entries(own.base, parent.base)?.into_iter().peekable();
        let mut sealed = self.sides.sealed.entries(own.sealed, parent.sealed)?.into_iter().peekable();
        let mut directories = Vec::new();
        loop {
            let order = match (base.peek(), sealed.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(before), Some(after)) => before.name.cmp(&after.name),
            };
            let entries = Both {
                base: if order.is_le() { base.next() } else { None },
                sealed: if order.is_ge() { sealed.next() } else { None },
            };
            let Some(some) = entries.base.as_ref().or(entries.sealed.as_ref()) else { break };
            let name = some.name.clone();
            let full = [path, b"/", &*name].concat();
            if full.len() > self.limits.path_bytes {
                return Err(DiskError::Limit {
                    what: "bytes in a path",
                    allowed: self.limits.path_bytes as u64,
                });
            }
            let kind = |entry: &Option<Entry>| entry.as_ref().map_or(some.kind, |entry| entry.kind);
            let kinds = Both { base: kind(&entries.base), sealed: kind(&entries.sealed) };
            let inode = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.inode);
            let inodes = Both { base: inode(&entries.base), sealed: inode(&entries.sealed) };
            self.visit(&full, inodes, kinds)?;
            let directory = |inode: Option<u32>, kind| inode.filter(|_| kind == Kind::Directory);
            let below = Both {
                base: directory(inodes.base, kinds.base),
                sealed: directory(inodes.sealed, kinds.sealed),
            };
            if below.base.is_some() || below.sealed.is_some() {
                directories.push((name, below));
            }
        }
        Ok(Level { own, path_length: path.len(), directories: directories.into_iter() })
    }

    /// Visits what a path leads to on both disks, and notes it if it differs.
    fn visit(&mut self, path: &[u8], inodes: Inodes, kinds: Both<Kind>) -> Result<(), DiskError> {
        let before = self.sides.base.visit(inodes.base, kinds.base)?;
        let after = self.sides.sealed.visit(inodes.sealed, kinds.sealed)?;
        if before.is_some() {
            self.base_paths.push(escaped(path));
        }
        let mut old = before.as_ref().map(|file| self.sides.base.node(file)).transpose()?;
        let mut new = after.as_ref().map(|file| self.sides.sealed.node(file)).transpose()?;
        let untouched = match (&before, &after) {
            (Some(before), Some(after)) if kinds.base == Kind::File && kinds.sealed == Kind::File => {
                content::is_untouched(before, after, self.sides.sealed.volume)
            }
            _ => false,
        };
        if old == new && (untouched || kinds.base != Kind::File) {
            return Ok(());
        }
        if let (Some(file), Some(node)) = (&before, &mut old) {
            node.sha256 = self.sides.base.digest(file, &mut self.budget)?;
        }
        if let (Some(file), Some(node)) = (&after, &mut new) {
            node.sha256 = match &old {
                Some(same) if untouched => same.sha256,
                _ => self.sides.sealed.digest(file, &mut self.budget)?,
            };
        }
        if old != new {
            let change = Change { path: escaped(path), before: old, after: new };
            self.report_bytes += report::line(&change).len();
            if self.report_bytes > self.limits.report_bytes {
                return Err(DiskError::Limit {
                    what: "bytes in the list of changes",
                    allowed: self.limits.report_bytes as u64,
                });
            }
            self.changes.push((path.into(), change));
        }
        Ok(())
    }
}

impl Side<'_, '_> {
    fn visit(&mut self, inode: Option<u32>, kind: Kind) -> Result<Option<Visited>, DiskError> {
        inode.map(|inode| self.volume.visit(inode, kind)).transpose().map_err(|fault| fault.of(self.which))
    }

    fn entries(&self, own: Option<u32>, parent: Option<u32>) -> Result<Vec<Entry>, DiskError> {
        match (own, parent) {
            (Some(own), Some(parent)) => {
                self.volume.entries(own, parent).map_err(|fault| fault.of(self.which))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What is told of a file, but for its digest.
    fn node(&self, file: &Visited) -> Result<Node, DiskError> {
        self.describe(file).map_err(|fault| fault.of(self.which))
    }

    fn describe(&self, file: &Visited) -> Result<Node, Fault> {
        let inode = &file.inode;
        let attributes = self.volume.attributes(inode)?;
        Ok(Node {
            kind: inode.kind(),
            mode: inode.mode(),
            uid: inode.uid(),
            gid: inode.gid(),
            size: if matches!(inode.kind(), Kind::File | Kind::Link) { inode.size() } else { 0 },
            sha256: None,
            target: match inode.kind() {
                Kind::Link => Some(escaped(&self.volume.target(file)?)),
                _ => None,
            },
            device: inode.device(),
            links: if inode.kind() == Kind::Directory { 1 } else { inode.links() },
            flags: inode.visible_flags(),
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (escaped(&name), hex::encode(value)))
                .collect(),
        })
    }

    fn digest(&mut self, file: &Visited, budget: &mut Budget) -> Result<Option<Sha256Digest>, DiskError> {
        if file.inode.kind() != Kind::File {
            return Ok(None);
        }
        if let Some(known) = self.digests.get(&file.inode.number()) {
            return Ok(Some(*known));
        }
        let digest = content::digest(file, self.volume, budget).map_err(|fault| fault.of(self.which))?;
        if file.inode.links() > 1 {
            self.digests.insert(file.inode.number(), digest);
        }
        Ok(Some(digest))
    }
}
