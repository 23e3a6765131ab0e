//! Debian 12 as a small server: the data of the base, kept as files in `debian-12/`.

use super::tools::Tool;

/// Name in the site's catalogue.
pub(super) const NAME: &str = "debian-12";
/// The distribution's name of the release.
pub(super) const CODENAME: &str = "bookworm";
/// Name of the machine until a recipe gives another.
pub(super) const HOSTNAME: &str = "debian\n";

/// The host's programs that the build calls.
pub(super) const TOOLS: &[Tool] = &[
    Tool { program: "mmdebstrap", package: "mmdebstrap", version: &["--version"] },
    Tool { program: "mke2fs", package: "e2fsprogs", version: &["-V"] },
    Tool { program: "qemu-img", package: "qemu-utils", version: &["--version"] },
    Tool { program: "apt-get", package: "apt", version: &["--version"] },
    Tool { program: "setpriv", package: "util-linux", version: &[] },
    Tool { program: "unshare", package: "util-linux", version: &[] },
    Tool { program: "timeout", package: "coreutils", version: &[] },
];

/// The modules that a nano guest loads.
pub(super) const NANO_MODULES: &[&str] =
    &["virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "crc32c_generic"];

/// The packages, one a line; `#` begins a comment.
pub(super) const PACKAGES: &str = include_str!("debian-12/packages");
/// Runs in the finished tree.
pub(super) const FINISH: &str = include_str!("debian-12/finish.sh");

/// When a file is put into the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before anything is unpacked.
    Setup,
    /// Before the packages beyond the essential ones: the kernel's installation reads it.
    Essential,
    /// When all is installed.
    Customize,
}

/// A file of the tree, owned by root, 0644.
pub(super) struct TreeFile {
    pub(super) when: When,
    pub(super) path: &'static str,
    pub(super) content: &'static str,
}

/// Every file that the base adds to what the packages bring.
pub(super) const TREE: &[TreeFile] = &[
    TreeFile {
        when: When::Setup,
        path: "/etc/dpkg/dpkg.cfg.d/countersign",
        content: include_str!("debian-12/early/dpkg-excludes"),
    },
    TreeFile {
        when: When::Essential,
        path: "/etc/initramfs-tools/modules",
        content: include_str!("debian-12/early/modules"),
    },
    TreeFile {
        when: When::Essential,
        path: "/etc/initramfs-tools/conf.d/driver-policy",
        content: include_str!("debian-12/early/driver-policy"),
    },
    TreeFile {
        when: When::Customize,
        path: "/etc/systemd/network/80-card.network",
        content: include_str!("debian-12/tree/card.network"),
    },
    TreeFile {
        when: When::Customize,
        path: "/usr/lib/systemd/system/ssh-host-key.service",
        content: include_str!("debian-12/tree/ssh-host-key.service"),
    },
    TreeFile {
        when: When::Customize,
        path: "/etc/ssh/sshd_config.d/10-host-key.conf",
        content: include_str!("debian-12/tree/sshd-host-key.conf"),
    },
    TreeFile { when: When::Customize, path: "/etc/hosts", content: include_str!("debian-12/tree/hosts") },
    TreeFile { when: When::Customize, path: "/etc/fstab", content: include_str!("debian-12/tree/fstab") },
    TreeFile {
        when: When::Customize,
        path: "/etc/resolv.conf",
        content: include_str!("debian-12/tree/resolv.conf"),
    },
    TreeFile { when: When::Customize, path: "/etc/hostname", content: HOSTNAME },
];

/// Names of [`PACKAGES`].
pub(super) fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_site_recipe_needs_is_in_the_base() {
        let packages: Vec<_> = packages().collect();
        for package in ["systemd", "openssh-server", "nftables", "auditd", "sudo", "cron", "kmod"] {
            assert!(packages.contains(&package), "{package}");
        }
        assert!(packages.iter().all(|name| !name.contains([' ', ','])));
    }

    #[test]
    fn the_initrd_has_what_a_nano_guest_has() {
        let listed = include_str!("debian-12/early/modules");
        for module in NANO_MODULES {
            assert!(listed.lines().any(|line| line == *module), "{module}");
        }
    }
}
