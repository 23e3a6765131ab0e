//! What the static agent sees of a machine, by reading a procfs and the disk itself.
//!
//! Facts are evidence from a hostile guest: every list is bounded, text that is not UTF-8 is escaped
//! (`\xNN`), and `truncated` names each list that was cut and each thing that was not understood. A cut list can never pass a test.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Longest list of any kind; of groups, all members together count too. A longer one is not read: memory must not grow with what a
/// hostile guest can write into [`MAX_BYTES`].
pub const MAX_ENTRIES: usize = 20_000;
/// Longest content of one small file that is sent whole, in bytes.
pub const MAX_SMALL_FILE: usize = 64 * 1024;

/// Longest value of an extended attribute that is told whole, in bytes; of a longer one its digest is told.
pub const MAX_ATTRIBUTE: usize = 256;

/// Longest JSON of all facts together, in bytes; an agent that would have to send more answers `tooLarge`.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;

/// All facts of one machine. Lists are sorted, but [`Facts::sshd`], so that equal machines have equal facts.
///
/// On a machine with a disk, files are those of the disk beneath all mounts, and `/proc` is a procfs of the agent's own, so
/// what a guest mounts over either hides nothing. Small files and units are told from the root as the guest sees it too, for
/// the sake of `/run`; one that differs from the disk's is named in `truncated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// Sockets that accept traffic: TCP in state LISTEN, UDP not connected; all network namespaces' are not seen, only PID 1's.
    #[serde(deserialize_with = "list")]
    pub listening: Vec<Socket>,
    /// Files with the setuid or setgid bit on the root file system.
    #[serde(deserialize_with = "list")]
    pub setuid: Vec<FileMode>,
    /// Files with a `security.capability` attribute.
    #[serde(deserialize_with = "list")]
    pub capabilities: Vec<FileCapability>,
    /// All other extended attributes of files and folders on the root file system: access control lists (`system.posix_acl_*`),
    /// `user.*`, `trusted.*`, and what else there may be.
    #[serde(deserialize_with = "list")]
    pub attributes: Vec<FileAttribute>,
    /// World-writable files, and world-writable directories without the sticky bit, on the root file system (not links).
    #[serde(deserialize_with = "list")]
    pub world_writable: Vec<FileMode>,
    /// `/etc/passwd` joined with `/etc/shadow`.
    #[serde(deserialize_with = "list")]
    pub users: Vec<User>,
    /// `/etc/group` joined with `/etc/gshadow`.
    #[serde(deserialize_with = "groups")]
    pub groups: Vec<Group>,
    /// Every `authorized_keys` and `authorized_keys2` file in any account's home or named by sshd_config.
    #[serde(deserialize_with = "list")]
    pub authorized_keys: Vec<SmallFile>,
    /// `/etc/sudoers` and all in `/etc/sudoers.d`, and `/etc/doas.conf`.
    #[serde(deserialize_with = "list")]
    pub sudoers: Vec<SmallFile>,
    /// `/etc/ssh/sshd_config` and what it includes, in the order in which the server reads them (not sorted).
    #[serde(deserialize_with = "list")]
    pub sshd: Vec<SmallFile>,
    /// Units, drop-ins, generators, configuration of the service manager and links under `/etc/systemd`, `/etc/xdg/systemd`,
    /// `/usr/local/lib/systemd`, `/usr/local/share/systemd`, `/usr/share/systemd/user`, in the folders of `/usr/lib/systemd`
    /// (and `/lib/systemd` unless `/lib` is a link; not the files directly there), in the search paths below `/run/systemd`
    /// (`system`, `user`, `*.control`, `system.attached`, `*.conf.d`, `generator*`, `*-generators`; its other folders hold state),
    /// and in every account's `.config/systemd`, `.local/share/systemd`, `.config/environment.d` and `.config/autostart`.
    #[serde(deserialize_with = "list")]
    pub units: Vec<UnitFile>,
    /// Cron and at: `/etc/crontab`, `/etc/anacrontab`, `/etc/cron.d`, `/etc/cron.{hourly,daily,weekly,monthly,yearly}`,
    /// `/etc/cron.{allow,deny}`, `/etc/at.{allow,deny}`, `/var/spool/cron`, `/var/spool/at`.
    #[serde(deserialize_with = "list")]
    pub cron: Vec<SmallFile>,
    /// Names in `/proc/modules`.
    #[serde(deserialize_with = "list")]
    pub modules: Vec<String>,
    /// Files that make the kernel, the loader, the device manager, a login, a package, a bus or a network run something or grant
    /// something: the places that `agent/facts/places.rs` lists as `HOOKS`, and dot files directly in `/root`.
    #[serde(deserialize_with = "list")]
    pub hooks: Vec<SmallFile>,
    /// Rules loaded in the kernel's nf_tables, as `nft list ruleset` of the base prints it; empty if nft is not there or the kernel has not
    /// loaded nf_tables.
    /// From a guest's program, so it informs and never passes a test by itself.
    pub firewall: String,
    /// Processes: pid, parent, uid, executable, command line.
    #[serde(deserialize_with = "list")]
    pub processes: Vec<Process>,
    /// What is mounted on the disk, as process 1 sees it; not what every machine has: the root itself, all below `/sys`, `/dev`,
    /// `/run`, `/tmp`, `/var/tmp` and `/boot`, and on `/proc` and below what belongs there (a whole procfs, binfmt_misc and its autofs).
    #[serde(deserialize_with = "list")]
    pub mounts: Vec<Mount>,
    /// `/proc/sys/kernel/tainted`.
    pub kernel_tainted: u64,
    /// What makes the kernel itself start programs: `core_pattern`, `hotplug`, `modprobe` and `poweroff_cmd` of `/proc/sys/kernel`, as far as
    /// the kernel has them, and each handler of binfmt_misc.
    #[serde(deserialize_with = "list")]
    pub helpers: Vec<Helper>,
    /// What is not told in full: lists that were cut at [`MAX_ENTRIES`], files that could not be read or understood. Sorted.
    #[serde(deserialize_with = "list")]
    pub truncated: Vec<String>,
}

/// One socket that accepts traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Socket {
    /// `tcp` or `udp`, for both IP versions; also `udplite`, `raw`, `icmp`, `sctp`, `packet`. Sockets of vsock(7) are in no file of `/proc`.
    pub protocol: String,
    /// Local address without port.
    pub address: String,
    /// Local port.
    pub port: u16,
    /// Owner of the socket.
    pub uid: u32,
    /// Path of the program that holds it, if found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub program: Option<String>,
}

/// A file by path, permission bits (`0o7777` of the mode), owner and group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileMode {
    /// Absolute path.
    pub path: String,
    /// `0o7777` of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `file`, `directory`, `other`.
    pub kind: String,
}

/// A file with capabilities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileCapability {
    /// Absolute path.
    pub path: String,
    /// The attribute's bytes in hex.
    pub value: String,
}

/// An extended attribute of a file or folder (xattr(7)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileAttribute {
    /// Absolute path.
    pub path: String,
    /// Name with its class, for example `system.posix_acl_access`.
    pub name: String,
    /// The value in hex, or `sha256:` and the digest of one longer than [`MAX_ATTRIBUTE`].
    pub value: String,
}

/// A setting of the kernel that names a program, or a handler of binfmt_misc.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Helper {
    /// Name of the setting, or `binfmt_misc/` and the handler's.
    pub name: String,
    /// What the kernel tells of it, without white space at the end.
    pub text: String,
}

/// A login account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// What the shadow file holds as password.
    pub password: Password,
}

/// What a password field says; the hash itself never leaves the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Password {
    /// Empty: anyone may log in.
    Empty,
    /// `*` or starts with `!`: no password fits.
    Locked,
    /// A hash.
    Set,
    /// No entry in the shadow file.
    Missing,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// Group name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Supplementary members of `/etc/group` and `/etc/gshadow`, sorted.
    #[serde(deserialize_with = "list")]
    pub members: Vec<String>,
    /// What its password field says: who knows the password becomes a member (newgrp(1)).
    pub password: Password,
    /// Who may add members, in the order of the file.
    #[serde(deserialize_with = "list")]
    pub administrators: Vec<String>,
}

/// A small text file of interest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmallFile {
    /// Absolute path.
    pub path: String,
    /// `0o7777` of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// SHA-256 of the content, lower-case hex; of the target text for a symbolic link.
    pub sha256: String,
    /// Target, if it is a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
    /// Content as text if it is at most [`MAX_SMALL_FILE`] long (only for authorized_keys, sudoers, sshd and cron); of a
    /// link, what the file holds that it leads to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
}

/// A unit file, drop-in, generator or link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitFile {
    /// Absolute path.
    pub path: String,
    /// SHA-256 of the content (regular file) or absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// Target, if it is a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Absolute path that it lies on.
    pub point: String,
    /// Device or name of the source; `[/path]` follows if only a part of it was bound.
    pub source: String,
    /// Type of its file system, as the kernel calls it.
    pub kind: String,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent: u32,
    /// Real user id.
    pub uid: u32,
    /// `/proc/PID/exe`, absent for kernel threads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe: Option<String>,
    /// Command line, spaces between arguments, cut at 4 KiB.
    pub command: String,
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(Bounded { weight: |_: &T| 1 })
}

fn groups<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Group>, D::Error> {
    from.deserialize_seq(Bounded {
        weight: |group: &Group| 1 + group.members.len() + group.administrators.len(),
    })
}

/// Reads a list until its elements weigh more than [`MAX_ENTRIES`].
struct Bounded<T> {
    weight: fn(&T) -> usize,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX_ENTRIES} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        let mut left = MAX_ENTRIES;
        while let Some(element) = from.next_element()? {
            left = left.checked_sub((self.weight)(&element)).ok_or_else(|| {
                A::Error::custom(format_args!("a list has more than {MAX_ENTRIES} elements"))
            })?;
            list.push(element);
        }
        Ok(list)
    }
}
