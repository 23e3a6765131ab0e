//! From a tree to a disk: one ext4 file system, no partition table, as qcow2.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::BaseError;
use super::owners::Owners;
use super::workspace::Workspace;
use super::{DISK_FILE, tools};

/// Nothing is left to be initialised in the guest, where it would be written into every layer; the file is new
/// and sparse, so zeros need not be written.
const EXT4_OPTIONS: &str = "lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1,nodiscard";

/// Writes the tree into the disk of the base.
pub(super) fn write(
    tree: &Path,
    owners: Owners,
    workspace: &Workspace,
    disk_bytes: u64,
) -> Result<(), BaseError> {
    let raw = workspace.path("disk.raw");
    File::create_new(&raw)?.set_len(disk_bytes)?;
    // In a namespace the owners, and the capabilities of files, are seen as the tree has them only from inside.
    tools::run_as(
        "mke2fs",
        owners
            .command("mke2fs")
            .args(["-q", "-t", "ext4", "-L", "root", "-E", EXT4_OPTIONS, "-d"])
            .args([tree, &raw]),
    )?;
    let disk = workspace.output().join(DISK_FILE);
    tools::run(tools::command("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &disk]))?;
    std::fs::remove_file(&raw)?;
    let file = File::open(&disk)?;
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()?;
    Ok(())
}
