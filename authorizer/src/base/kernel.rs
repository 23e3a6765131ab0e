//! Kernel and initrd out of the tree, and the few modules of a nano guest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use harness::initramfs::Archive;

use super::error::BaseError;
use super::{INITRD_FILE, KERNEL_FILE, NANO_FILE, debian12, tools, write_new};

/// Copies kernel and initrd, writes `nano.cpio`, and returns the kernel's release.
pub(super) fn extract(tree: &Path, output: &Path) -> Result<String, BaseError> {
    let release = release(tree)?;
    for (source, file) in [("vmlinuz", KERNEL_FILE), ("initrd.img", INITRD_FILE)] {
        write_new(&output.join(file), &std::fs::read(tree.join(format!("boot/{source}-{release}")))?)?;
    }
    write_new(&output.join(NANO_FILE), &nano(tree, &release)?)?;
    Ok(release)
}

/// The one kernel in the tree.
fn release(tree: &Path) -> Result<String, BaseError> {
    let mut releases = Vec::new();
    for entry in std::fs::read_dir(tree.join("usr/lib/modules"))? {
        releases.push(entry?.file_name().to_string_lossy().into_owned());
    }
    match <[String; 1]>::try_from(releases) {
        Ok([release]) => Ok(release),
        Err(releases) => {
            Err(BaseError::BadTree { reason: format!("it has {} kernels, not one", releases.len()) })
        }
    }
}

/// The modules as an archive, uncompressed, with `/modules.list` in load order.
fn nano(tree: &Path, release: &str) -> Result<Vec<u8>, BaseError> {
    let modules = tree.join("usr/lib/modules").join(release);
    let dependencies = std::fs::read_to_string(modules.join("modules.dep"))?;
    let builtin = std::fs::read_to_string(modules.join("modules.builtin"))?;
    let mut archive = Archive::default();
    let mut folders = BTreeSet::new();
    let mut list = String::new();
    for module in load_order(debian12::NANO_MODULES, &dependencies, &builtin)? {
        let content = read_module(&modules.join(&module))?;
        let path = format!("lib/modules/{release}/{}", uncompressed_name(&module));
        for (end, _) in path.match_indices('/') {
            if folders.insert(path[..end].to_owned()) {
                archive.directory(&path[..end]);
            }
        }
        archive.file(&path, 0o644, &content);
        list.push_str(&format!("/{path}\n"));
    }
    archive.file("modules.list", 0o644, list.as_bytes());
    Ok(archive.finish())
}

/// Paths (below the modules' folder) to load, each after what it depends on. `modules.dep` lists dependencies so
/// that the last is to be loaded first. A module that the kernel has built in needs no loading.
fn load_order(wanted: &[&str], dependencies: &str, builtin: &str) -> Result<Vec<String>, BaseError> {
    let lines: BTreeMap<String, (&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs.split_whitespace().collect())))
        .collect();
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for module in wanted {
        let Some((path, needs)) = lines.get(*module) else {
            if builtin.contains(*module) {
                continue;
            }
            return Err(BaseError::BadTree { reason: format!("its kernel has no module {module}") });
        };
        for path in needs.iter().rev().chain([path]) {
            if !order.iter().any(|have| have == path) {
                order.push((*path).to_owned());
            }
        }
    }
    Ok(order)
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is the module `virtio_rng`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn uncompressed_name(path: &str) -> &str {
    path.strip_suffix(".xz").or_else(|| path.strip_suffix(".zst")).unwrap_or(path)
}

/// The agent loads modules from memory, uncompressed: not every kernel unpacks them itself.
fn read_module(path: &Path) -> Result<Vec<u8>, BaseError> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(std::fs::read(path)?),
    };
    tools::run(tools::command(program).arg("-dc").arg(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/virtio/virtio_ring.ko:\n\
        kernel/virtio/virtio.ko: kernel/virtio/virtio_ring.ko\n\
        kernel/virtio/virtio_pci.ko: kernel/virtio/virtio_dev.ko kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko\n\
        kernel/virtio/virtio_dev.ko:\n\
        kernel/char/virtio-rng.ko.xz: kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko\n";

    #[test]
    fn each_module_follows_what_it_needs() {
        let order =
            load_order(&["virtio_pci", "virtio_rng", "ext4"], DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n")
                .unwrap();
        assert_eq!(
            order,
            [
                "kernel/virtio/virtio_ring.ko",
                "kernel/virtio/virtio.ko",
                "kernel/virtio/virtio_dev.ko",
                "kernel/virtio/virtio_pci.ko",
                "kernel/char/virtio-rng.ko.xz",
            ]
        );
    }

    #[test]
    fn a_module_that_is_nowhere_is_an_error() {
        assert!(load_order(&["virtio_blk"], DEPENDENCIES, "").is_err());
    }

    #[test]
    fn an_archive_lists_its_modules_uncompressed() {
        let tree = tempfile::tempdir().unwrap();
        let modules = tree.path().join("usr/lib/modules/6.1");
        std::fs::create_dir_all(modules.join("kernel")).unwrap();
        std::fs::write(modules.join("modules.builtin"), "").unwrap();
        let lines: String =
            debian12::NANO_MODULES.iter().map(|module| format!("kernel/{module}.ko:\n")).collect();
        std::fs::write(modules.join("modules.dep"), lines).unwrap();
        for module in debian12::NANO_MODULES {
            std::fs::write(modules.join(format!("kernel/{module}.ko")), module).unwrap();
        }
        assert_eq!(release(tree.path()).unwrap(), "6.1");
        let archive = nano(tree.path(), "6.1").unwrap();
        let text = String::from_utf8_lossy(&archive);
        assert!(
            text.contains(
                "/lib/modules/6.1/kernel/virtio_pci.ko\n/lib/modules/6.1/kernel/virtio_console.ko\n"
            )
        );
        std::fs::create_dir(tree.path().join("usr/lib/modules/6.2")).unwrap();
        assert!(release(tree.path()).is_err());
    }
}
