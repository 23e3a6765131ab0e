//! A file system on a chain of images, and the account of who owns each inode and block.

use std::collections::HashMap;

use crate::chain::Chain;
use crate::compare::Left;
use crate::error::Fault;
use crate::limits::Limits;
use crate::report::Kind;

use super::attributes::{self, Attributes};
use super::bitmap::Bitmap;
use super::directory::{self, Entry, Setting};
use super::extents::{self, Extents, Run};
use super::group::Group;
use super::hash::NameHash;
use super::inode::Inode;
use super::journal;
use super::superblock::{FIRST_INODE, SUPERBLOCK, SUPERBLOCK_LENGTH, Superblock};

/// Inode of the root directory.
pub(crate) const ROOT: u32 = 2;

/// A file system that is being visited.
pub(crate) struct Volume<'a> {
    chain: Chain<'a>,
    limits: Limits,
    superblock: Superblock,
    groups: Vec<Group>,
    /// Blocks of the file system itself.
    fixed: Bitmap,
    /// Blocks that have an owner, those included.
    owned: Bitmap,
    /// Inodes that were visited.
    visited: Bitmap,
    /// Inodes with several links: how many, and how many names were found.
    names: HashMap<u32, (u16, u64)>,
    /// Blocks of extended attributes: how many inodes each says it serves, and how many it was found to serve.
    shared: HashMap<u64, (u32, u64)>,
    /// Inode bitmaps that were checked.
    inode_bitmaps: HashMap<u32, Vec<u8>>,
    paths: u64,
}

/// What an inode leads to, beside its own fields.
pub(crate) struct Visited {
    pub(crate) inode: Inode,
    /// Where the content of a file, directory or long link lies.
    pub(crate) runs: Vec<Run>,
}

impl<'a> Volume<'a> {
    /// Opens the file system that fills the disk; if there is a base, it must be the base's, with other files in it.
    pub(crate) fn open(
        chain: Chain<'a>,
        limits: Limits,
        left: Left,
        base: Option<&Volume<'_>>,
    ) -> Result<Self, Fault> {
        let mut bytes = vec![0; SUPERBLOCK_LENGTH];
        chain.read_kept(SUPERBLOCK, &mut bytes)?;
        let superblock = Superblock::parse(bytes, chain.disk_length(), left)?;
        if let Some(base) = base {
            // First of all, so that only a trusted superblock decides how large tables are.
            superblock.check_same_system(&base.superblock)?;
        }
        let mut volume = Volume {
            fixed: Bitmap::new(superblock.blocks),
            owned: Bitmap::new(0),
            visited: Bitmap::new(u64::from(superblock.inodes) + 1),
            names: HashMap::new(),
            shared: HashMap::new(),
            inode_bitmaps: HashMap::new(),
            paths: 0,
            groups: Vec::new(),
            chain,
            limits,
            superblock,
        };
        volume.read_groups()?;
        if let Some(base) = base {
            volume.check_same_places(base)?;
        }
        volume.owned = volume.fixed.clone();
        volume.read_journal()?;
        Ok(volume)
    }

    /// The disk that it lies on.
    pub(crate) fn chain(&self) -> &Chain<'a> {
        &self.chain
    }

    /// Bytes of a block.
    pub(crate) fn block_size(&self) -> u64 {
        u64::from(self.superblock.block_size)
    }

    /// Paths that were visited.
    pub(crate) fn paths(&self) -> u64 {
        self.paths
    }

    /// Bytes of the disk that no structure and no file can own: before and behind the superblock, behind the last descriptor of
    /// a group, set aside for further descriptors, and behind the last block.
    pub(crate) fn unowned(&self) -> Vec<std::ops::Range<u64>> {
        let size = self.block_size();
        let first = u64::from(self.superblock.first_data_block);
        let descriptors = (first + 1) * size;
        let used = u64::from(self.superblock.groups) * u64::from(self.superblock.descriptor_size);
        let set_aside = u64::from(self.superblock.reserved_descriptor_blocks);
        let behind = descriptors + (self.superblock.descriptor_blocks() + set_aside) * size;
        vec![
            0..SUPERBLOCK,
            SUPERBLOCK + SUPERBLOCK_LENGTH as u64..descriptors,
            descriptors + used..behind,
            self.superblock.blocks * size..self.chain.disk_length(),
        ]
    }

    /// Follows a name to its inode: checks it, and takes its blocks into account.
    pub(crate) fn visit(&mut self, number: u32, kind: Kind) -> Result<Visited, Fault> {
        if self.paths == self.limits.paths {
            return Err(Fault::limit("paths on a disk", self.limits.paths));
        }
        self.paths += 1;
        if number != ROOT && !(FIRST_INODE..=self.superblock.inodes).contains(&number) {
            return Err(Fault::damaged(format!("a name leads to inode {number}, which no file can have")));
        }
        let inode = Inode::parse(number, self.inode_bytes(number)?, &self.superblock)?;
        if inode.kind() != kind {
            return Err(Fault::damaged(format!("inode {number} is not of the kind that its name says")));
        }
        let is_first = self.visited.put(u64::from(number), 1);
        if kind != Kind::Directory && inode.links() > 1 {
            self.names.entry(number).or_insert((inode.links(), 0)).1 += 1;
        } else if !is_first {
            return Err(Fault::damaged(format!("inode {number} has more names than links")));
        }
        let extents = self.extents(&inode)?;
        if is_first {
            self.check_in_use(number)?;
            self.own(&inode, &extents)?;
        }
        Ok(Visited { inode, runs: extents.runs })
    }

    /// Names in a directory that was visited, sorted.
    pub(crate) fn entries(&self, number: u32, parent: u32) -> Result<Vec<Entry>, Fault> {
        let inode = Inode::parse(number, self.inode_bytes(number)?, &self.superblock)?;
        let runs = self.extents(&inode)?.runs;
        let size = self.block_size();
        let blocks = inode.size() / size;
        let mut covered = 0;
        let whole = runs.iter().all(|run| {
            let follows = run.logical == covered && run.written;
            covered += run.length;
            follows || run.logical >= blocks
        });
        if blocks == 0 || !inode.size().is_multiple_of(size) || !whole || covered < blocks {
            return Err(Fault::damaged(format!("directory inode {number}: it is empty or has holes")));
        }
        let mut block = |logical: u64| {
            let next = runs.partition_point(|run| run.logical <= logical);
            let run =
                next.checked_sub(1).map(|index| runs[index]).filter(|run| logical < run.logical + run.length);
            let run =
                run.filter(|_| logical < blocks).ok_or_else(|| Fault::damaged("a directory has a hole"))?;
            self.block(run.physical + logical - run.logical)
        };
        let hash =
            NameHash { seed: self.superblock.hash_seed, is_unsigned: self.superblock.hash_is_unsigned };
        let limit = self.limits.directory_names;
        directory::read(&inode, &mut Setting { parent, hash, blocks, limit, block: &mut block })
    }

    /// Extended attributes.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<Attributes, Fault> {
        let mut found = attributes::in_inode(inode.tail())?;
        if let Some(block) = inode.attribute_block() {
            let (more, _) = attributes::in_block(&self.block(block)?, block, self.superblock.checksum_seed)?;
            for (name, value) in more {
                if found.insert(name, value).is_some() {
                    return Err(Fault::damaged(format!(
                        "inode {}: it has an attribute twice",
                        inode.number()
                    )));
                }
            }
        }
        Ok(found)
    }

    /// Where a symbolic link leads.
    pub(crate) fn target(&self, link: &Visited) -> Result<Vec<u8>, Fault> {
        let Visited { inode, runs } = link;
        let damaged = || Fault::damaged(format!("link inode {}: its target makes no sense", inode.number()));
        let area = if inode.is_short_link(&self.superblock) {
            inode.i_block().to_vec()
        } else {
            match runs[..] {
                [Run { logical: 0, physical, written: true, .. }] => self.block(physical)?,
                _ => return Err(damaged()),
            }
        };
        // The kernel puts a zero behind the target, so there must be room for it.
        let target = usize::try_from(inode.size()).ok().filter(|size| *size > 0 && *size < area.len());
        let target =
            target.map(|size| &area[..size]).filter(|target| !target.contains(&0)).ok_or_else(damaged)?;
        Ok(target.to_vec())
    }

    /// Checks, when all paths were visited, that counts agree and nothing that is in use is marked free.
    pub(crate) fn check_account(&self) -> Result<(), Fault> {
        if let Some((number, _)) = self.names.iter().find(|(_, (links, names))| u64::from(*links) != *names) {
            return Err(Fault::damaged(format!("inode {number} has not as many names as links")));
        }
        if let Some((block, _)) = self.shared.iter().find(|(_, (said, found))| u64::from(*said) != *found) {
            return Err(Fault::damaged(format!(
                "block {block} of attributes does not serve as many inodes as it says"
            )));
        }
        for (group, number) in self.groups.iter().zip(0..) {
            let bitmap = self.block(group.block_bitmap)?;
            let (start, length) = (self.superblock.group_start(number), self.superblock.group_length(number));
            group.check_blocks(start, length, &bitmap, &self.owned, &self.fixed, &self.superblock)?;
        }
        Ok(())
    }

    fn read_groups(&mut self) -> Result<(), Fault> {
        let superblock = self.superblock.clone();
        let length = usize::from(superblock.descriptor_size);
        let first = (u64::from(superblock.first_data_block) + 1) * self.block_size();
        let table =
            u64::from(superblock.inodes_per_group) * u64::from(superblock.inode_size) / self.block_size();
        let copies = 1 + superblock.descriptor_blocks() + u64::from(superblock.reserved_descriptor_blocks);
        // The block in front of group 0, where blocks have 1024 bytes.
        let mut fixed = vec![(0, u64::from(superblock.first_data_block))];
        for number in 0..superblock.groups {
            let mut bytes = vec![0; length];
            self.chain.read_kept(first + u64::from(number) * length as u64, &mut bytes)?;
            let group = Group::parse(number, &bytes, &superblock)?;
            if superblock.has_copy(number) {
                fixed.push((superblock.group_start(number), copies));
            }
            fixed.extend([(group.block_bitmap, 1), (group.inode_bitmap, 1), (group.inode_table, table)]);
            self.groups.push(group);
        }
        for (start, count) in fixed {
            if !self.fixed.put(start, count) {
                return Err(Fault::damaged("structures of the file system overlap or lie outside it"));
            }
        }
        Ok(())
    }

    /// Checks that what only the kernel uses is the base's.
    fn check_same_places(&self, base: &Volume<'_>) -> Result<(), Fault> {
        if !self.groups.iter().zip(&base.groups).all(|(own, other)| own.is_same_place(other)) {
            return Err(Fault::replaced("bitmaps or inodes lie elsewhere"));
        }
        // Bad blocks, quota, boot loader, undelete, resize, journal.
        for number in (1..FIRST_INODE).filter(|number| *number != ROOT) {
            if self.inode_bytes(number)? != base.inode_bytes(number)? {
                return Err(Fault::replaced(format!("the reserved inode {number} differs")));
            }
        }
        Ok(())
    }

    fn read_journal(&mut self) -> Result<(), Fault> {
        let Some(number) = self.superblock.journal_inode else { return Ok(()) };
        if number == 0 || number >= FIRST_INODE || number == ROOT {
            return Err(Fault::unsupported("its journal has an inode that is not reserved"));
        }
        let inode = Inode::parse(number, self.inode_bytes(number)?, &self.superblock)?;
        if inode.kind() != Kind::File {
            return Err(Fault::damaged("the journal is no file"));
        }
        let extents = self.extents(&inode)?;
        self.own(&inode, &extents)?;
        match extents.runs.first() {
            Some(Run { logical: 0, physical, written: true, .. }) => {
                journal::check_empty(&self.block(*physical)?)
            }
            _ => Err(Fault::damaged("the journal has no first block")),
        }
    }

    fn block(&self, number: u64) -> Result<Vec<u8>, Fault> {
        if number >= self.superblock.blocks {
            return Err(Fault::damaged(format!("block {number} lies outside the file system")));
        }
        let mut bytes = vec![0; self.superblock.block_size as usize];
        self.chain.read_kept(number * self.block_size(), &mut bytes)?;
        Ok(bytes)
    }

    fn place(&self, number: u32) -> (u32, u32) {
        let index = number - 1;
        (index / self.superblock.inodes_per_group, index % self.superblock.inodes_per_group)
    }

    fn inode_bytes(&self, number: u32) -> Result<Vec<u8>, Fault> {
        let (group, index) = self.place(number);
        let size = u64::from(self.superblock.inode_size);
        let mut bytes = vec![0; size as usize];
        let at = self.groups[group as usize].inode_table * self.block_size() + u64::from(index) * size;
        self.chain.read_kept(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Extents of what has any.
    fn extents(&self, inode: &Inode) -> Result<Extents, Fault> {
        let has_content = match inode.kind() {
            Kind::File | Kind::Directory => true,
            Kind::Link => !inode.is_short_link(&self.superblock),
            _ => false,
        };
        if !has_content {
            return Ok(Extents { runs: Vec::new(), nodes: Vec::new() });
        }
        if !inode.has_extents() {
            return Err(Fault::unsupported(format!("inode {} has a block map, not extents", inode.number())));
        }
        extents::read(inode, self.limits.extents, &mut |number| self.block(number))
    }

    /// Whether the kernel takes the inode for one that is in use.
    fn check_in_use(&mut self, number: u32) -> Result<(), Fault> {
        let (group, index) = self.place(number);
        let descriptor = &self.groups[group as usize];
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.inode_bitmaps.entry(group) {
            let mut bitmap = vec![0; self.superblock.block_size as usize];
            self.chain
                .read_kept(descriptor.inode_bitmap * u64::from(self.superblock.block_size), &mut bitmap)?;
            descriptor.check_inode_bitmap(&bitmap, &self.superblock)?;
            vacant.insert(bitmap);
        }
        if !descriptor.inode_in_use(index, &self.inode_bitmaps[&group], &self.superblock) {
            return Err(Fault::damaged(format!("inode {number} is in use but marked free")));
        }
        Ok(())
    }

    /// Enters the inode as owner of its blocks.
    fn own(&mut self, inode: &Inode, extents: &Extents) -> Result<(), Fault> {
        let twice = |block: u64| {
            Fault::damaged(format!("block {block} has two owners or lies outside the file system"))
        };
        let runs = extents.runs.iter().map(|run| (run.physical, run.length));
        for (start, count) in runs.chain(extents.nodes.iter().map(|node| (*node, 1))) {
            if !self.owned.put(start, count) {
                return Err(twice(start));
            }
        }
        if let Some(block) = inode.attribute_block() {
            if let Some((_, found)) = self.shared.get_mut(&block) {
                *found += 1;
            } else if self.owned.put(block, 1) {
                let (_, said) =
                    attributes::in_block(&self.block(block)?, block, self.superblock.checksum_seed)?;
                self.shared.insert(block, (said, 1));
            } else {
                return Err(twice(block));
            }
        }
        Ok(())
    }
}
