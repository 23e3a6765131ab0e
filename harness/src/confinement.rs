//! Each QEMU runs as a user of its own, with nothing it does not need.
//!
//! ```text
//! prlimit (memory, file size, descriptors, threads, no core) → setpriv (user, no groups, no capabilities,
//!   no new privileges, dies with its parent) → qemu-system-x86_64 -sandbox …
//! ```
//! A user belongs to one machine at a time: it is taken by a lock on a file, which the kernel lets go when our
//! process ends, however it ends. Whoever takes a user next first kills what a killed process left running.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal};

use crate::error::HarnessError;
use crate::qemu::Qemu;
use crate::spec::MachineLimits;

/// How machines are confined on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Users set aside for machines.
    pub users: UserRange,
    /// Whether QEMU may run as our own user when we are not root.
    pub same_user: SameUser,
}

impl Confinement {
    /// The standard range, and never as our own user.
    #[must_use]
    pub fn standard() -> Self {
        Self { users: UserRange::standard(), same_user: SameUser::Refused }
    }
}

/// Whether QEMU may run as our own user when we are not root. As root this is never done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameUser {
    /// The machine is refused.
    Refused,
    /// Said openly by the caller: an escaped QEMU could then do what the caller can.
    Allowed,
}

/// Users set aside for machines; nobody else may have these ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRange {
    /// The first user id.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Folder of the lock files. It must be the same for all who use these ids on this host.
    pub locks: PathBuf,
}

impl UserRange {
    /// 61500 to 61563, locked in `/run/countersign/users`: outside of what Debian and systemd give out
    /// (Debian Policy §9.2.2, systemd `UIDS-GIDS.md`).
    #[must_use]
    pub fn standard() -> Self {
        Self { first: 61_500, count: 64, locks: PathBuf::from("/run/countersign/users") }
    }
}

/// A user that no other machine has, until it is dropped.
#[derive(Debug)]
pub(crate) struct UserLease {
    uid: Option<u32>,
    _lock: Option<File>,
}

impl UserLease {
    /// Takes a user, or refuses.
    pub(crate) fn take(confinement: &Confinement) -> Result<Self, HarnessError> {
        Self::take_as(rustix::process::geteuid().is_root(), confinement)
    }

    fn take_as(is_root: bool, confinement: &Confinement) -> Result<Self, HarnessError> {
        if !is_root {
            return match confinement.same_user {
                SameUser::Refused => Err(HarnessError::NotConfined),
                SameUser::Allowed => Ok(Self { uid: None, _lock: None }),
            };
        }
        let users = &confinement.users;
        prepare_folder(&users.locks)?;
        for uid in users.first..users.first.saturating_add(users.count) {
            let path = users.locks.join(uid.to_string());
            let lock = open_lock(&path).map_err(|source| HarnessError::system("open", &path, source))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    sweep(uid)?;
                    return Ok(Self { uid: Some(uid), _lock: Some(lock) });
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(HarnessError::system("lock", &path, error.into())),
            }
        }
        Err(HarnessError::NoFreeUser { first: users.first, count: users.count })
    }

    /// The user id; `None` means our own.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.uid
    }
}

fn prepare_folder(path: &Path) -> Result<(), HarnessError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| path.symlink_metadata())
        .and_then(|about| {
            if about.is_dir() && about.uid() == 0 {
                return std::fs::set_permissions(path, Permissions::from_mode(0o700));
            }
            Err(std::io::Error::other("it is not a folder of root's"))
        })
        .map_err(|source| HarnessError::system("prepare", path, source))
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}

/// How long a killed process may take to go.
const SWEEP_TIME: Duration = Duration::from_secs(10);

/// Kills every process of a user whose lock we hold: nobody else starts processes under these ids.
fn sweep(uid: u32) -> Result<(), HarnessError> {
    let start = Instant::now();
    loop {
        let left =
            processes_of(uid).map_err(|source| HarnessError::system("read", Path::new("/proc"), source))?;
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > SWEEP_TIME {
            let source = std::io::Error::other(format!(
                "process {} of user {uid} does not go",
                left[0].as_raw_nonzero()
            ));
            return Err(HarnessError::process("end a left-over machine", source));
        }
        for pid in left {
            // It may be gone by now; the next look says.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn processes_of(uid: u32) -> std::io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A process may end between the listing and this look.
        if entry.metadata().is_ok_and(|about| about.uid() == uid) && !is_zombie(pid) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// The whole chain of programs up to and with QEMU; its arguments and descriptors are still to be added.
pub(crate) fn command(qemu: &Qemu, lease: &UserLease, memory_mib: u32, limits: &MachineLimits) -> Command {
    let mut command = Command::new(&qemu.prlimit);
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    command.args(chain(qemu, lease.uid(), memory_mib, limits));
    command
}

fn chain(qemu: &Qemu, uid: Option<u32>, memory_mib: u32, limits: &MachineLimits) -> Vec<OsString> {
    let address_space = u64::from(memory_mib + limits.overhead_mib) << 20;
    let mut out: Vec<OsString> = vec![
        format!("--as={address_space}").into(),
        format!("--fsize={}", limits.file_bytes).into(),
        format!("--nofile={}", limits.open_files).into(),
        "--core=0".into(),
    ];
    // This limit counts all processes of a user, so it only makes sense for a user of its own.
    if uid.is_some() {
        out.push(format!("--nproc={}", limits.threads).into());
    }
    out.extend(["--".into(), qemu.setpriv.clone().into_os_string()]);
    if let Some(uid) = uid {
        out.extend([
            format!("--reuid={uid}").into(),
            format!("--regid={uid}").into(),
            "--clear-groups".into(),
            "--bounding-set=-all".into(),
        ]);
    }
    out.extend(
        ["--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--pdeathsig=KILL", "--"]
            .map(OsString::from),
    );
    out.push(qemu.program.clone().into_os_string());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu() -> Qemu {
        Qemu {
            program: "/usr/bin/qemu-system-x86_64".into(),
            version: "10.0.2".into(),
            image_tool: "/usr/bin/qemu-img".into(),
            setpriv: "/usr/bin/setpriv".into(),
            prlimit: "/usr/bin/prlimit".into(),
        }
    }

    #[test]
    fn the_chain_of_a_machine_with_a_user_of_its_own() {
        let chain: Vec<_> = chain(&qemu(), Some(61_500), 512, &MachineLimits::STANDARD)
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect();
        assert_eq!(
            chain.join(" "),
            "--as=3758096384 --fsize=17179869184 --nofile=512 --core=0 --nproc=256 -- /usr/bin/setpriv \
             --reuid=61500 --regid=61500 --clear-groups --bounding-set=-all --inh-caps=-all --ambient-caps=-all \
             --no-new-privs --pdeathsig=KILL -- /usr/bin/qemu-system-x86_64"
        );
    }

    #[test]
    fn without_root_the_chain_keeps_what_it_can() {
        let chain = chain(&qemu(), None, 512, &MachineLimits::STANDARD);
        assert!(chain.contains(&"--no-new-privs".into()) && chain.contains(&"--pdeathsig=KILL".into()));
        assert!(!chain.iter().any(|argument| argument.to_string_lossy().starts_with("--nproc")));
    }

    #[test]
    fn without_root_nothing_starts_unless_it_was_allowed_openly() {
        let refused = UserLease::take_as(false, &Confinement::standard());
        assert!(matches!(refused, Err(HarnessError::NotConfined)));
        let allowed = Confinement { same_user: SameUser::Allowed, ..Confinement::standard() };
        assert_eq!(UserLease::take_as(false, &allowed).unwrap().uid(), None);
    }

    #[test]
    fn two_machines_never_have_the_same_user() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: only root has users to give");
        let dir = tempfile::tempdir().unwrap();
        // Ids that nothing else uses, so that the sweep finds nothing.
        let users = UserRange { first: 61_970, count: 2, locks: dir.path().join("locks") };
        let confinement = Confinement { users, same_user: SameUser::Refused };
        let first = UserLease::take(&confinement).unwrap();
        let second = UserLease::take(&confinement).unwrap();
        assert_ne!(first.uid(), second.uid());
        assert!(matches!(UserLease::take(&confinement), Err(HarnessError::NoFreeUser { count: 2, .. })));
        let freed = first.uid();
        drop(first);
        assert_eq!(UserLease::take(&confinement).unwrap().uid(), freed);
    }

    #[test]
    fn what_a_killed_process_left_running_is_ended_before_its_user_is_used_again() {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: it starts a process of another user"
        );
        let dir = tempfile::tempdir().unwrap();
        let users = UserRange { first: 61_975, count: 1, locks: dir.path().join("locks") };
        let mut left = Command::new("setpriv")
            .args(["--reuid=61975", "--clear-groups", "sleep", "600"])
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&left);
        let start = Instant::now();
        while !processes_of(61_975).unwrap().contains(&pid) {
            assert!(start.elapsed() < SWEEP_TIME);
            std::thread::sleep(Duration::from_millis(5));
        }
        let lease = UserLease::take(&Confinement { users, same_user: SameUser::Refused }).unwrap();
        assert_eq!(lease.uid(), Some(61_975));
        assert!(!left.wait().unwrap().success());
    }
}
