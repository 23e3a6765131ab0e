//! Each QEMU, and each worker, runs as a user of its own, with nothing it does not need.
//!
//! ```text
//! prlimit (memory, file size, descriptors, threads, no core) → setpriv (user, no groups, no capabilities,
//!   no new privileges, dies with its parent) → sh (is that parent still there?) → qemu-system-x86_64 -sandbox …
//! ```
//! A user belongs to one machine or worker at a time: it is taken by a lock on a file, which the kernel lets go when our
//! process ends, however it ends. Whoever takes a user next first kills what a killed process left running.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::HarnessError;
use crate::left_over::{self, Buried};
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

    /// Whether this process may start a machine at all, said before anything is done for it.
    ///
    /// # Errors
    /// [`HarnessError::NotConfined`].
    pub fn check(&self) -> Result<(), HarnessError> {
        self.check_as(rustix::process::geteuid().is_root())
    }

    fn check_as(&self, is_root: bool) -> Result<(), HarnessError> {
        if is_root || self.same_user == SameUser::Allowed { Ok(()) } else { Err(HarnessError::NotConfined) }
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
    /// Folder of the lock files. It must be the same for all who use these ids on this host. The folders that workers
    /// write in lie beside it, in `scratch`.
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
        confinement.check_as(is_root)?;
        if !is_root {
            return Ok(Self { uid: None, _lock: None });
        }
        let users = &confinement.users;
        prepare_folder(&users.locks, PRIVATE)?;
        for uid in users.first..users.first.saturating_add(users.count) {
            let path = users.locks.join(uid.to_string());
            let lock = open_lock(&path).map_err(|source| HarnessError::system("open", &path, source))?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let buried = left_over::end_all(uid)?;
                    remove_scratch(&scratch_of(users, uid))?;
                    if buried == Buried::NotYet {
                        continue;
                    }
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

    /// Makes an empty folder that belongs to this user and that it can reach; nothing where the user is our own.
    pub(crate) fn scratch(&self, confinement: &Confinement) -> Result<Option<PathBuf>, HarnessError> {
        let Some(uid) = self.uid else { return Ok(None) };
        let path = scratch_of(&confinement.users, uid);
        let folder = path.parent().unwrap_or(&path);
        prepare_folder(folder, PASSABLE)?;
        make_passable(folder.parent().unwrap_or(folder))?;
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .and_then(|()| std::os::unix::fs::chown(&path, Some(uid), Some(uid)))
            .map_err(|source| HarnessError::system("make", &path, source))?;
        Ok(Some(path))
    }

    /// Ends every process of this user, where it is not our own.
    pub(crate) fn end_all(&self) -> Result<(), HarnessError> {
        self.uid.map_or(Ok(()), |uid| left_over::end_all(uid).map(drop))
    }
}

/// Only root may list it.
const PRIVATE: u32 = 0o700;
/// Others may pass through it to what is theirs.
const PASSABLE: u32 = 0o711;

/// Beside the locks, and outlives a process as they do: who takes the user's lock removes it.
fn scratch_of(users: &UserRange, uid: u32) -> PathBuf {
    users.locks.with_file_name("scratch").join(uid.to_string())
}

fn remove_scratch(path: &Path) -> Result<(), HarnessError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HarnessError::system("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Makes a folder and the one above it where they are missing. Whoever could put others in their place could give one user
/// to two machines, so both must be folders of root's that nobody else may write, and no links.
fn prepare_folder(path: &Path, mode: u32) -> Result<(), HarnessError> {
    for folder in [path.parent().unwrap_or(path), path] {
        let made = match DirBuilder::new().mode(mode).create(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        made.and_then(|()| folder.symlink_metadata())
            .and_then(|about| match about {
                _ if !about.is_dir() => Err(std::io::Error::other("it is not a folder")),
                _ if about.uid() != 0 => Err(std::io::Error::other("it is not root's: remove it")),
                _ if about.mode() & 0o022 != 0 && about.mode() & 0o1000 == 0 => {
                    Err(std::io::Error::other("others can write it: remove it"))
                }
                _ => Ok(()),
            })
            .map_err(|source| HarnessError::system("prepare", folder, source))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|source| HarnessError::system("prepare", path, source))
}

/// Lets others pass through a folder of root's that a stricter umask, or an older version, closed to them.
fn make_passable(path: &Path) -> Result<(), HarnessError> {
    let mode = |about: std::fs::Metadata| about.mode() & 0o7777;
    let open = |mode: u32| match mode | 0o011 {
        passable if passable == mode => Ok(()),
        passable => std::fs::set_permissions(path, Permissions::from_mode(passable)),
    };
    path.symlink_metadata()
        .map(mode)
        .and_then(open)
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

/// What a confined program may use.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Address space in bytes: memory and every mapped file.
    pub(crate) address_space: u64,
    /// Private writable memory in bytes, where that is bounded apart.
    pub(crate) data: Option<u64>,
    /// Processor time in seconds. `SIGXCPU` ends the program then, `SIGKILL` a second later.
    pub(crate) cpu_seconds: Option<u32>,
    /// Largest file that it may write, in bytes.
    pub(crate) file_bytes: u64,
    /// Open descriptors.
    pub(crate) open_files: u32,
    /// Threads and processes of its user.
    pub(crate) threads: u32,
    /// The one capability that it keeps as a user of its own, as setpriv(1) names it.
    pub(crate) capability: Option<&'static str>,
    /// `unshare` by its path, where the program gets a network namespace of its own with nothing in it.
    pub(crate) unshare: Option<PathBuf>,
}

/// The whole chain of programs up to and with QEMU; its arguments and descriptors are still to be added.
pub(crate) fn command(qemu: &Qemu, lease: &UserLease, memory_mib: u32, limits: &MachineLimits) -> Command {
    let bounds = Bounds {
        address_space: u64::from(memory_mib + limits.overhead_mib) << 20,
        data: None,
        cpu_seconds: None,
        file_bytes: limits.file_bytes,
        open_files: limits.open_files,
        threads: limits.threads,
        capability: None,
        unshare: None,
    };
    confined(&qemu.prlimit, &qemu.setpriv, lease, &bounds, &qemu.program)
}

/// The chain of programs that ends with `program`, with an empty environment and in `/`.
pub(crate) fn confined(
    prlimit: &Path,
    setpriv: &Path,
    lease: &UserLease,
    bounds: &Bounds,
    program: &Path,
) -> Command {
    let mut command = Command::new(prlimit);
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    command.args(chain(setpriv, lease.uid(), bounds, std::process::id(), program));
    command
}

/// A parent that died before `setpriv` asked for its signal will send none: then nothing must start. (The parent's process
/// number cannot belong to another one here, since it would have to be our parent.)
const IF_PARENT_LIVES: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; unset PWD OLDPWD; exec "$@""#;

fn chain(setpriv: &Path, uid: Option<u32>, bounds: &Bounds, parent: u32, program: &Path) -> Vec<OsString> {
    let mut out: Vec<OsString> = vec![
        format!("--as={}", bounds.address_space).into(),
        format!("--fsize={}", bounds.file_bytes).into(),
        format!("--nofile={}", bounds.open_files).into(),
        "--core=0".into(),
    ];
    out.extend(bounds.data.map(|bytes| format!("--data={bytes}").into()));
    out.extend(bounds.cpu_seconds.map(|soft| format!("--cpu={soft}:{}", soft.saturating_add(1)).into()));
    // This limit counts all processes of a user, so it only makes sense for a user of its own.
    if uid.is_some() {
        out.push(format!("--nproc={}", bounds.threads).into());
    }
    out.push("--".into());
    if let Some(unshare) = &bounds.unshare {
        out.extend([unshare.clone().into_os_string(), "--net".into(), "--".into()]);
    }
    out.push(setpriv.as_os_str().to_owned());
    let capabilities = match (uid, bounds.capability) {
        (Some(_), Some(capability)) => format!("-all,+{capability}"),
        _ => "-all".to_owned(),
    };
    if let Some(uid) = uid {
        out.extend([
            format!("--reuid={uid}").into(),
            format!("--regid={uid}").into(),
            "--clear-groups".into(),
            format!("--bounding-set={capabilities}").into(),
        ]);
        // access(2) judges by the real user, and would leave out a capability that this user has.
        if bounds.capability.is_some() {
            out.push("--securebits=+no_setuid_fixup".into());
        }
    }
    out.extend([
        format!("--inh-caps={capabilities}").into(),
        format!("--ambient-caps={capabilities}").into(),
        "--no-new-privs".into(),
        "--pdeathsig=KILL".into(),
        "--".into(),
    ]);
    out.extend(if_parent_lives(parent));
    out.push(program.as_os_str().to_owned());
    out
}

fn if_parent_lives(parent: u32) -> [OsString; 5] {
    ["/bin/sh", "-c", IF_PARENT_LIVES, "sh", &parent.to_string()].map(OsString::from)
}

/// A program that is not confined, and that the kernel kills when the thread that starts it ends.
pub(crate) fn mortal(setpriv: &Path, program: &Path) -> Command {
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig=KILL", "--"]).args(if_parent_lives(std::process::id())).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu() -> Qemu {
        Qemu {
            program: "/usr/bin/qemu-system-x86_64".into(),
            version: "10.0.2".into(),
            setpriv: "/usr/bin/setpriv".into(),
            prlimit: "/usr/bin/prlimit".into(),
        }
    }

    /// What `Command` would start, without its program; the look at the parent in one word.
    fn chain_of(command: &Command) -> String {
        let chain =
            command.get_args().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let parent = format!("/bin/sh -c {IF_PARENT_LIVES} sh {}", std::process::id());
        assert!(chain.contains(&parent), "{chain}");
        chain.replace(&parent, "if-parent-lives")
    }

    fn as_user(uid: Option<u32>) -> UserLease {
        UserLease { uid, _lock: None }
    }

    #[test]
    fn the_chain_of_a_machine_with_a_user_of_its_own() {
        let command = command(&qemu(), &as_user(Some(61_500)), 512, &MachineLimits::STANDARD);
        assert_eq!(
            chain_of(&command),
            "--as=3758096384 --fsize=17179869184 --nofile=512 --core=0 --nproc=256 -- /usr/bin/setpriv \
             --reuid=61500 --regid=61500 --clear-groups --bounding-set=-all --inh-caps=-all --ambient-caps=-all \
             --no-new-privs --pdeathsig=KILL -- if-parent-lives /usr/bin/qemu-system-x86_64"
        );
    }

    #[test]
    fn nothing_starts_for_a_parent_that_is_gone() {
        let bounds = Bounds {
            address_space: 1 << 30,
            data: None,
            cpu_seconds: None,
            file_bytes: 0,
            open_files: 64,
            threads: 1,
            capability: None,
            unshare: None,
        };
        let said = |parent: u32| {
            let mut command = Command::new("prlimit");
            command.args(chain(Path::new("setpriv"), None, &bounds, parent, Path::new("/bin/echo")));
            String::from_utf8(command.arg("started").output().unwrap().stdout).unwrap()
        };
        assert_eq!(said(std::process::id()), "started\n");
        assert_eq!(said(1), "");
    }

    #[test]
    fn the_chain_of_a_worker_that_reads_what_the_caller_reads() {
        let bounds = Bounds {
            address_space: 4,
            data: Some(3),
            cpu_seconds: Some(60),
            file_bytes: 0,
            open_files: 64,
            threads: 1,
            capability: Some("dac_read_search"),
            unshare: Some("/usr/bin/unshare".into()),
        };
        let chain = |uid| {
            let lease = as_user(uid);
            chain_of(&confined(
                Path::new("prlimit"),
                Path::new("/usr/bin/setpriv"),
                &lease,
                &bounds,
                Path::new("x"),
            ))
        };
        assert_eq!(
            chain(Some(61_500)),
            "--as=4 --fsize=0 --nofile=64 --core=0 --data=3 --cpu=60:61 --nproc=1 -- /usr/bin/unshare --net -- \
             /usr/bin/setpriv --reuid=61500 --regid=61500 --clear-groups --bounding-set=-all,+dac_read_search \
             --securebits=+no_setuid_fixup --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search --no-new-privs --pdeathsig=KILL -- if-parent-lives x"
        );
        assert!(!chain(None).contains("dac_read_search"), "our own user needs none, and gets none");
    }

    #[test]
    fn without_root_the_chain_keeps_what_it_can() {
        let command = command(&qemu(), &as_user(None), 512, &MachineLimits::STANDARD);
        let chain = chain_of(&command);
        assert!(chain.contains("--no-new-privs") && chain.contains("--pdeathsig=KILL"));
        assert!(!chain.contains("--nproc"));
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
    fn locks_lie_only_where_nobody_else_can_change_them() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: only root has users to give");
        let dir = tempfile::tempdir().unwrap();
        let take = |locks: PathBuf| {
            let users = UserRange { first: 61_980, count: 1, locks };
            UserLease::take(&Confinement { users, same_user: SameUser::Refused })
        };
        let at = |name: &str| dir.path().join(name);
        take(at("new/users")).unwrap();
        let mode = std::fs::metadata(at("new/users")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);

        std::os::unix::fs::symlink(at("new"), at("link")).unwrap();
        assert!(take(at("link/users")).is_err(), "the folder above is a link");
        std::os::unix::fs::symlink(at("new/users"), at("new/other")).unwrap();
        assert!(take(at("new/other")).is_err(), "the folder is a link");
        std::fs::create_dir(at("foreign")).unwrap();
        std::os::unix::fs::chown(at("foreign"), Some(61_980), None).unwrap();
        assert!(take(at("foreign/users")).is_err(), "somebody else's");
        std::fs::create_dir(at("open")).unwrap();
        std::fs::set_permissions(at("open"), Permissions::from_mode(0o777)).unwrap();
        assert!(take(at("open/users")).is_err(), "others can write it");
        std::fs::write(at("file"), "").unwrap();
        assert!(take(at("file/users")).is_err(), "a file");
        let Err(error) = take(at("file")) else { panic!("a file is no folder") };
        assert!(error.to_string().contains(&at("file").display().to_string()), "{error}");
    }
}
