//! A clone of a machine at rest becomes a machine of its own, while nothing but the agent runs in it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use guest::control::AgentError;
use recipe_spec::digest::Sha256Digest;
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::content::{Attributes, put_in};
use super::entropy::Pool;
use super::failure;
use super::identity::{Checked, CheckedNames};
use super::link;
use super::root::{self, Root, stat_in};
use super::sight::Proc;

/// The network card (`net.ifnames=0`).
const CARD: &str = "eth0";
/// Where sshd has its keys, if the machine has an sshd.
const SSH: &str = "/etc/ssh";
/// How sshd's keys, private and public, are called.
const HOST_KEYS: &[u8] = b"ssh_host_";
/// Names in [`SSH`] that are looked at.
const MAX_NAMES: usize = 4096;

/// Gives the machine its identity: clock, randomness, then its names.
///
/// # Errors
/// `System`; then it must not go on, for it is half one machine and half another.
pub(crate) fn take_on(identity: Checked, root: &Root, proc: &Proc, pool: &Pool) -> Result<(), AgentError> {
    let Checked { seed, time, names } = identity;
    let now = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    clock_settime(ClockId::Realtime, now).map_err(|error| failure::system("set the clock", error))?;
    pool.reseed(&seed).map_err(|error| failure::system("seed the random generator", error))?;
    let Some(names) = names else { return Ok(()) };
    write_names(root, &names)?;
    rustix::system::sethostname(names.hostname.as_bytes())
        .map_err(|error| failure::system("set the hostname", error))?;
    names.mac.map_or(Ok(()), |mac| link::set_address(proc, CARD, mac)).map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(code) if code == Errno::NODEV.raw_os_error() => {
                ": there is no such card, so give no address"
            }
            _ => "",
        };
        failure::system(format_args!("set the address of {CARD}"), format_args!("{error}{hint}"))
    })
}

/// What names the machine in its files. A link in the place of one is replaced, not followed.
fn write_names(root: &Root, names: &CheckedNames) -> Result<(), AgentError> {
    let failed = |path: &str| {
        let doing = format!("write {path}");
        move |error: io::Error| failure::system(doing, error)
    };
    let etc = root.parent_made(Path::new("/etc/machine-id")).map_err(failed("/etc"))?.0;
    write(&etc, "machine-id", 0o444, &format!("{}\n", names.machine_id))
        .map_err(failed("/etc/machine-id"))?;
    write(&etc, "hostname", 0o644, &format!("{}\n", names.hostname)).map_err(failed("/etc/hostname"))?;
    let ssh = match root.open_at(Path::new(SSH), OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        other => other.map_err(|error| failure::system(format_args!("open {SSH}"), error))?,
    };
    remove_keys(&ssh)
        .map_err(|error| failure::system(format_args!("remove the host keys in {SSH}"), error))?;
    let key = "ssh_host_ed25519_key";
    write(&ssh, key, 0o600, &names.private_key).map_err(failed(SSH))?;
    write(&ssh, &format!("{key}.pub"), 0o644, &names.public_key).map_err(failed(SSH))
}

/// Removes all files and links that are called as host keys are: each would be another machine's.
fn remove_keys(ssh: &OwnedFd) -> io::Result<()> {
    let listed = rustix::fs::openat(
        ssh,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    for entry in root::list(listed, MAX_NAMES)? {
        let name: &OsStr = entry.name.as_os_str();
        if !name.as_encoded_bytes().starts_with(HOST_KEYS) {
            continue;
        }
        // Not by the kind that the folder tells: some file systems do not tell any.
        let kind = stat_in(ssh, name)?.map(|stat| FileType::from_raw_mode(stat.st_mode));
        if matches!(kind, Some(FileType::RegularFile | FileType::Symlink)) {
            rustix::fs::unlinkat(ssh, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// A file of root's with this content.
fn write(folder: &OwnedFd, name: &str, mode: u32, content: &str) -> io::Result<()> {
    let attributes = Attributes { mode: Some(mode), uid: Some(0), gid: Some(0) };
    let announced = (&Sha256Digest::of(content.as_bytes()), content.len() as u64);
    put_in(folder, OsStr::new(name), attributes, announced, &mut content.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::identity::tests::{PRIVATE, PUBLIC, identity};
    use super::*;

    fn names() -> CheckedNames {
        Checked::check(identity()).unwrap().names.unwrap()
    }

    #[test]
    fn files_name_the_new_machine_and_no_key_of_another_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("etc/ssh/ssh_host_folder")).unwrap();
        fs::write(at("elsewhere"), "kept").unwrap();
        symlink("/elsewhere", at("etc/machine-id")).unwrap();
        // Another user's file becomes root's.
        fs::write(at("etc/hostname"), "old\n").unwrap();
        std::os::unix::fs::chown(at("etc/hostname"), Some(1), Some(1)).expect("run this test as root");
        for kept in ["sshd_config", "my_ssh_host_key", "moduli"] {
            fs::write(at("etc/ssh").join(kept), "kept").unwrap();
        }
        for old in ["ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key", "ssh_host_x\u{1b}"] {
            fs::write(at("etc/ssh").join(old), "old").unwrap();
        }
        symlink("/elsewhere", at("etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
        symlink("/nowhere", at("etc/ssh/ssh_host_ecdsa_key")).unwrap();

        write_names(&Root::open(folder.path()).unwrap(), &names()).unwrap();
        for (path, content, mode) in [
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444),
            ("etc/hostname", "vm-1\n", 0o644),
            ("etc/ssh/ssh_host_ed25519_key", PRIVATE, 0o600),
            ("etc/ssh/ssh_host_ed25519_key.pub", PUBLIC, 0o644),
        ] {
            assert_eq!(fs::read_to_string(at(path)).unwrap(), content, "{path}");
            let found = fs::symlink_metadata(at(path)).unwrap();
            assert!(found.is_file(), "{path}");
            assert_eq!(
                (found.permissions().mode() & 0o7777, found.uid(), found.gid()),
                (mode, 0, 0),
                "{path}"
            );
        }
        assert_eq!(fs::read_to_string(at("elsewhere")).unwrap(), "kept");
        let mut left: Vec<_> =
            fs::read_dir(at("etc/ssh")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "moduli",
                "my_ssh_host_key",
                "ssh_host_ed25519_key",
                "ssh_host_ed25519_key.pub",
                "ssh_host_folder",
                "sshd_config"
            ]
        );
    }

    #[test]
    fn a_machine_without_ssh_gets_no_keys() {
        for ssh_is_a_file in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("etc")).unwrap();
            if ssh_is_a_file {
                fs::write(folder.path().join("etc/ssh"), "").unwrap();
            }
            write_names(&Root::open(folder.path()).unwrap(), &names()).unwrap();
            assert!(folder.path().join("etc/machine-id").is_file());
            assert!(!folder.path().join("etc/ssh").is_dir());
        }
    }

    #[test]
    fn names_stay_within_the_machine() {
        // A link that leads out of a folder leads within it here, as it would in the guest.
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let within = folder.path().join(outside.path().strip_prefix("/").unwrap());
        fs::create_dir_all(&within).unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        symlink(outside.path(), folder.path().join("etc/ssh")).unwrap();
        write_names(&Root::open(folder.path()).unwrap(), &names()).unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(within).unwrap().count(), 2);
    }
}
