//! Where things lie that make a machine run something, let someone in, or give someone rights.

/// Who may become whom.
pub(super) const SUDOERS: &[&str] = &["/etc/sudoers", "/etc/sudoers.d", "/etc/doas.conf"];

/// What runs at a time.
pub(super) const CRON: &[&str] = &[
    "/etc/crontab",
    "/etc/anacrontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/etc/cron.yearly",
    "/etc/cron.allow",
    "/etc/cron.deny",
    "/etc/at.allow",
    "/etc/at.deny",
    "/var/spool/cron",
    "/var/spool/at",
];

/// What the kernel, the loader, a login, a package or a network makes run.
pub(super) const HOOKS: &[&str] = &[
    "/etc/NetworkManager/dispatcher.d",
    "/etc/apt/apt.conf",
    "/etc/apt/apt.conf.d",
    "/etc/bash.bashrc",
    "/etc/binfmt.d",
    "/etc/dbus-1",
    "/etc/dhcp/dhclient-enter-hooks.d",
    "/etc/dhcp/dhclient-exit-hooks.d",
    "/etc/environment",
    "/etc/environment.d",
    "/etc/init.d",
    "/etc/initramfs-tools",
    "/etc/kernel",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/modprobe.d",
    "/etc/modules",
    "/etc/modules-load.d",
    "/etc/network/if-down.d",
    "/etc/network/if-post-down.d",
    "/etc/network/if-pre-up.d",
    "/etc/network/if-up.d",
    "/etc/nsswitch.conf",
    "/etc/pam.d",
    "/etc/polkit-1",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/rc.local",
    "/etc/security/pam_env.conf",
    "/etc/sudo.conf",
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/etc/tmpfiles.d",
    "/etc/udev/rules.d",
    "/etc/update-motd.d",
    "/etc/xdg/autostart",
    "/usr/lib/environment.d",
    "/usr/lib/modprobe.d",
    "/usr/lib/modules-load.d",
    "/usr/lib/sysctl.d",
    "/usr/lib/tmpfiles.d",
    "/usr/lib/udev/rules.d",
    "/usr/local/lib/environment.d",
    "/usr/local/lib/modprobe.d",
    "/usr/local/lib/modules-load.d",
    "/usr/local/lib/sysctl.d",
    "/usr/local/lib/tmpfiles.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/share/dbus-1/system-services",
    "/usr/share/polkit-1",
    "/var/lib/systemd/linger",
];

/// Whose dot files count as hooks.
pub(super) const ROOT_HOME: &str = "/root";

/// Search paths of the service manager (systemd.unit(5), systemd.generator(7), systemd-system.conf(5)).
pub(super) const UNITS: &[&str] = &[
    "/etc/systemd",
    "/etc/xdg/systemd",
    "/run/systemd/generator",
    "/run/systemd/generator.early",
    "/run/systemd/generator.late",
    "/run/systemd/system",
    "/run/systemd/system-environment-generators",
    "/run/systemd/system-generators",
    "/run/systemd/system.attached",
    "/run/systemd/system.conf.d",
    "/run/systemd/system.control",
    "/run/systemd/user",
    "/run/systemd/user-environment-generators",
    "/run/systemd/user-generators",
    "/run/systemd/user.conf.d",
    "/run/systemd/user.control",
    "/usr/local/lib/systemd",
    "/usr/local/share/systemd",
    "/usr/share/systemd/user",
];

/// As [`UNITS`], but here only the folders below: the files themselves are the service manager's own programs.
pub(super) const UNIT_LIBRARIES: &[&str] = &["/usr/lib/systemd", "/lib/systemd"];

/// Unit folders below each home.
pub(super) const HOME_UNITS: &[&str] =
    &[".config/systemd", ".local/share/systemd", ".config/environment.d", ".config/autostart"];
