//! How much a disk may ask of us. Each limit that is broken is an error that names it.

/// Bounds for one comparison. The time that it may take is bounded by the caller, which runs it in a process that can be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Layers on top of the base.
    pub layers: usize,
    /// Bytes of the disk.
    pub disk_bytes: u64,
    /// Clusters of one image, allocated or not: its virtual size over its cluster size. Eight bytes of memory each.
    pub clusters: u64,
    /// Paths of one disk.
    pub paths: u64,
    /// Names from the root to a file.
    pub depth: usize,
    /// Bytes of one path. Linux itself takes 4096.
    pub path_bytes: usize,
    /// Names in one directory.
    pub directory_names: usize,
    /// Extents of one file.
    pub extents: usize,
    /// Bytes of file content that are hashed, on both sides together, holes included.
    pub hashed_bytes: u64,
    /// Bytes of all changes together, as JSON.
    pub report_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            layers: 16,
            disk_bytes: 256 << 30,
            clusters: 4 << 20,
            paths: 1_000_000,
            depth: 256,
            path_bytes: 4096,
            directory_names: 500_000,
            extents: 1_000_000,
            hashed_bytes: 64 << 30,
            report_bytes: 64 << 20,
        }
    }
}
