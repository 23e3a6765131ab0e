//! One qcow2 image, read-only: where in the file each cluster of the disk lies, and nothing else.
//!
//! A header can name other files of the host (backing file, external data file); no such name is even read. Reference counts, the
//! list of snapshots and all header extensions do not change what a disk holds, so they are not read either. Anything else that
//! would need more than this table is refused (QEMU, `docs/interop/qcow2.txt`).

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::DiskError;
use crate::limits::Limits;

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Length of the fixed part of a version 3 header.
const HEADER: usize = 104;
/// 512 bytes to 2 MiB: what QEMU itself takes.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Bits of an entry that hold an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The reference count of what the entry leads to is one: a hint for writers.
const COPIED: u64 = 1 << 63;
/// An L2 entry of a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// An L2 entry of a cluster that reads as zeros.
const ZERO: u64 = 1;

/// Where a cluster lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// In an image below this one.
    Below,
    /// Nowhere: it is zeros.
    Zeros,
    /// At this offset in the file.
    At(u64),
}

/// An opened image.
pub(crate) struct Image<'a> {
    file: &'a File,
    name: String,
    file_length: u64,
    disk_length: u64,
    cluster_bits: u32,
    /// One L2 entry a cluster, without the bits that do not matter.
    clusters: Vec<u64>,
}

impl<'a> Image<'a> {
    /// Reads the header and all tables.
    pub(crate) fn open(file: &'a File, name: String, limits: &Limits) -> Result<Self, DiskError> {
        let file_length =
            file.metadata().map_err(|source| DiskError::Read { image: name.clone(), source })?.len();
        let mut image =
            Image { file, name, file_length, disk_length: 0, cluster_bits: 0, clusters: Vec::new() };
        image.read_tables(limits)?;
        Ok(image)
    }

    /// Length of the disk in bytes.
    pub(crate) fn disk_length(&self) -> u64 {
        self.disk_length
    }

    /// Name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes from `offset` to the end of its cluster.
    pub(crate) fn to_cluster_end(&self, offset: u64) -> u64 {
        let size = 1 << self.cluster_bits;
        size - (offset & (size - 1))
    }

    /// Where the byte at `offset` of the disk lies.
    pub(crate) fn locate(&self, offset: u64) -> Cluster {
        let index = (offset >> self.cluster_bits) as usize;
        match self.clusters.get(index) {
            None | Some(0) => Cluster::Below,
            Some(entry) if entry & ZERO != 0 => Cluster::Zeros,
            Some(entry) => Cluster::At(entry + (offset & ((1 << self.cluster_bits) - 1))),
        }
    }

    /// Reads from the file; what lies behind its end, in a cluster that begins before it, is zeros.
    pub(crate) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let present = self.file_length.saturating_sub(at).min(bytes.len() as u64) as usize;
        let (inside, behind) = bytes.split_at_mut(present);
        behind.fill(0);
        self.file
            .read_exact_at(inside, at)
            .map_err(|source| DiskError::Read { image: self.name.clone(), source })
    }

    fn refuse(&self, reason: impl Into<String>) -> DiskError {
        DiskError::Image { image: self.name.clone(), reason: reason.into() }
    }

    /// A table of `entries` entries that must lie in the file.
    fn table(&self, at: u64, entries: u64) -> Result<Vec<u64>, DiskError> {
        let end = entries.checked_mul(8).and_then(|length| at.checked_add(length));
        if at == 0
            || !at.is_multiple_of(1 << self.cluster_bits)
            || end.is_none_or(|end| end > self.file_length)
        {
            return Err(self.refuse(format!("a table at {at} does not lie in the file")));
        }
        let mut bytes = vec![0; entries as usize * 8];
        self.read(at, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    fn read_tables(&mut self, limits: &Limits) -> Result<(), DiskError> {
        if self.file_length < HEADER as u64 {
            return Err(self.refuse("it is too short for a qcow2 image"));
        }
        let mut header = [0; HEADER];
        self.read(0, &mut header)?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        if &header[..4] != MAGIC || word(4) != 3 {
            return Err(self.refuse("it is not a qcow2 image of version 3"));
        }
        if word(32) != 0 {
            return Err(self.refuse("it is encrypted"));
        }
        if word(60) != 0 {
            return Err(self.refuse("it has internal snapshots"));
        }
        if long(72) != 0 {
            return Err(self.refuse(format!(
                "it has features that are not read, or is marked dirty or corrupt (incompatible features {:#x})",
                long(72)
            )));
        }
        self.cluster_bits = word(20);
        if !CLUSTER_BITS.contains(&self.cluster_bits) {
            return Err(self.refuse("its cluster size is out of range"));
        }
        self.disk_length = long(24);
        if self.disk_length == 0 || !self.disk_length.is_multiple_of(512) {
            return Err(self.refuse("its size is not a number of sectors"));
        }
        if self.disk_length > limits.disk_bytes {
            return Err(DiskError::Limit { what: "bytes of a disk", allowed: limits.disk_bytes });
        }
        let clusters = self.disk_length.div_ceil(1 << self.cluster_bits);
        if clusters > limits.clusters {
            return Err(DiskError::Limit { what: "clusters in an image", allowed: limits.clusters });
        }
        let per_table = 1 << (self.cluster_bits - 3);
        let tables = clusters.div_ceil(per_table);
        if u64::from(word(36)) < tables {
            return Err(self.refuse("its L1 table is too short for its size"));
        }
        self.clusters = vec![0; clusters as usize];
        for (index, entry) in self.table(long(40), tables)?.into_iter().enumerate() {
            if entry & !(OFFSET | COPIED) != 0 {
                return Err(self.refuse("an L1 entry has reserved bits"));
            }
            let at = entry & OFFSET;
            if at == 0 {
                continue;
            }
            let first = index as u64 * per_table;
            let used = per_table.min(clusters - first);
            for (cluster, entry) in (first as usize..).zip(self.table(at, used)?) {
                self.clusters[cluster] = self.entry(entry)?;
            }
        }
        Ok(())
    }

    fn entry(&self, entry: u64) -> Result<u64, DiskError> {
        if entry & COMPRESSED != 0 {
            return Err(self.refuse("it has compressed clusters"));
        }
        if entry & !(OFFSET | COPIED | ZERO) != 0 {
            return Err(self.refuse("an L2 entry has reserved bits"));
        }
        let at = entry & OFFSET;
        if !at.is_multiple_of(1 << self.cluster_bits) || at >= self.file_length {
            return Err(self.refuse(format!("a cluster at {at} does not lie in the file")));
        }
        if at == 0 && entry & COPIED != 0 && entry & ZERO == 0 {
            return Err(self.refuse("a cluster lies where the header is"));
        }
        Ok(entry & (OFFSET | ZERO))
    }
}
