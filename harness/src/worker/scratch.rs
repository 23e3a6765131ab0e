//! The folder that a worker writes in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Scratch;
use crate::confinement::{Confinement, UserLease};
use crate::error::HarnessError;

/// Files and folders in it, beyond which it counts as full: a repository of one pack has about twenty.
const MOST_ENTRIES: usize = 1000;

/// Gone with this value.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn make(
        lease: &UserLease,
        confinement: &Confinement,
        wanted: Scratch<'_>,
    ) -> Result<Option<Self>, HarnessError> {
        let Scratch::Below(below) = wanted else { return Ok(None) };
        if let Some(path) = lease.scratch(confinement)? {
            return Ok(Some(Self { path }));
        }
        // Another worker of this process may have one too.
        for number in 0.. {
            let path = below.join(format!("scratch-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Some(Self { path })),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(HarnessError::system("make", &path, source)),
            }
        }
        Ok(None)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds more than so many bytes. What cannot be looked at any more counts as nothing: it is being removed.
    pub(super) fn exceeds(&self, bytes: u64) -> bool {
        let mut left = MOST_ENTRIES;
        let mut used = 0_u64;
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // Of the entry itself, never of what a link names.
                let Ok(about) = entry.metadata() else { continue };
                // A file can be long and yet use nothing; the larger of both counts.
                used = used.saturating_add(about.len().max(about.blocks() * 512));
                left = left.saturating_sub(1);
                if used > bytes || left == 0 {
                    return true;
                }
                if about.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        false
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now goes when the user is taken next, or when the folder around it is swept.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_full_by_bytes_and_by_entries() {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder { path: top.path().join("scratch") };
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/file"), vec![0; 20_000]).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("a/link")).unwrap();
        assert!(folder.exceeds(19_999) && !folder.exceeds(100_000));
        for number in 0..MOST_ENTRIES {
            fs::create_dir(folder.path().join(number.to_string())).unwrap();
        }
        assert!(folder.exceeds(u64::MAX));
        drop(folder);
        assert!(!top.path().join("scratch").exists());
    }
}
