//! The hidden folder of a build: swept first, renamed last, one build at a time.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags};

use super::error::BaseError;
use super::owners::Owners;
use super::{Existing, Progress, tools};
use crate::regular_file;

/// Begins the name of a build's folder.
const PREFIX: &str = ".build-";
/// Held for the whole build. Only its owner can open it, so nobody else can hold it.
const LOCK_FILE: &str = ".build.lock";

/// A build's folder. Dropped before [`Workspace::publish`], it is removed.
pub(super) struct Workspace {
    bases: PathBuf,
    name: String,
    folder: PathBuf,
    _lock: File,
}

impl Workspace {
    /// Takes the lock, sweeps what killed builds left, and makes a new folder.
    pub(super) fn open(
        bases: &Path,
        name: &str,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, BaseError> {
        std::fs::create_dir_all(bases)?;
        let mut options = File::options();
        let lock =
            regular_file::open_with(options.create(true).append(true).mode(0o600), &bases.join(LOCK_FILE))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| BaseError::Busy { folder: bases.to_owned() })?;
        for entry in std::fs::read_dir(bases)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove(&entry.path())?;
                progress(Progress::Swept { folder: entry.path() });
            }
        }
        let folder = bases.join(format!("{PREFIX}{name}-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        std::fs::create_dir(folder.join("output"))?;
        Ok(Self { bases: bases.to_owned(), name: name.to_owned(), folder, _lock: lock })
    }

    /// Where the base's files are written.
    pub(super) fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// A path for something in between.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A new folder for something in between.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, BaseError> {
        let path = self.path(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// Puts the finished files where the base belongs, in one rename.
    pub(super) fn publish(self, existing: Existing) -> Result<PathBuf, BaseError> {
        let target = self.bases.join(&self.name);
        File::open(self.output())?.sync_all()?;
        let flags = match existing {
            Existing::Replace if target.exists() => RenameFlags::EXCHANGE,
            Existing::Replace | Existing::Keep => RenameFlags::NOREPLACE,
        };
        rustix::fs::renameat_with(rustix::fs::CWD, self.output(), rustix::fs::CWD, &target, flags)
            .map_err(std::io::Error::from)?;
        File::open(&self.bases)?.sync_all()?;
        Ok(target)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next build.
        let _ = remove(&self.folder);
    }
}

/// Removes a build's folder, unless something is mounted in it: that would be somebody else's data.
fn remove(folder: &Path) -> Result<(), BaseError> {
    let folder = folder.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        let mount = Path::new(mount);
        if mount.starts_with(&folder) {
            return Err(BaseError::Mounted { folder, mount: mount.to_owned() });
        }
    }
    match std::fs::remove_dir_all(&folder) {
        // Files of other users, which only the root of our namespace can remove.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && Owners::ours() == Owners::Namespace => {
            let mut command = Owners::Namespace.command("rm");
            command.args(["-rf", "--one-file-system", "--"]).arg(&folder);
            tools::run_as("rm", &mut command)?;
            Ok(())
        }
        removed => Ok(removed?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn open(bases: &Path) -> Result<(Workspace, usize), BaseError> {
        let mut swept = 0;
        let workspace = Workspace::open(bases, "debian-12", &mut |_| swept += 1)?;
        Ok((workspace, swept))
    }

    #[test]
    fn a_killed_builds_folder_is_swept_by_the_next() {
        let bases = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(bases.path().join(".build-debian-12-1/output")).unwrap();
        let (workspace, swept) = open(bases.path()).unwrap();
        assert_eq!(swept, 1);
        assert!(!bases.path().join(".build-debian-12-1").exists());
        drop(workspace);
        assert_eq!(std::fs::read_dir(bases.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_builds_do_not_meet() {
        let bases = tempfile::tempdir().unwrap();
        let _first = open(bases.path()).unwrap();
        assert!(matches!(open(bases.path()), Err(BaseError::Busy { .. })));
    }

    #[test]
    fn nobody_else_can_hold_up_a_build() {
        let bases = tempfile::tempdir().unwrap();
        std::fs::set_permissions(bases.path(), Permissions::from_mode(0o755)).unwrap();
        drop(open(bases.path()).unwrap());
        let mut held = vec![File::open(bases.path()).unwrap()];
        for entry in std::fs::read_dir(bases.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.metadata().unwrap().mode() & 0o066 != 0 {
                held.push(File::open(entry.path()).unwrap());
            }
        }
        held.iter().for_each(|file| file.try_lock().unwrap());
        open(bases.path()).unwrap();
    }

    #[test]
    fn a_base_appears_whole_and_is_replaced_only_when_asked() {
        let bases = tempfile::tempdir().unwrap();
        let publish = |content: &str, existing| {
            let (workspace, _) = open(bases.path()).unwrap();
            std::fs::write(workspace.output().join("disk.qcow2"), content).unwrap();
            workspace.publish(existing)
        };
        let folder = publish("one", Existing::Keep).unwrap();
        assert!(publish("two", Existing::Keep).is_err());
        assert_eq!(std::fs::read_to_string(folder.join("disk.qcow2")).unwrap(), "one");
        publish("three", Existing::Replace).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("disk.qcow2")).unwrap(), "three");
        assert_eq!(super::super::list(bases.path()).unwrap(), ["debian-12"]);
    }
}
