//! Instances on disk: one folder each, whose state is read from evidence and never stored.
//!
//! `instances/ID/` holds `lock` (held by the supervisor as long as the instance lives), `instance.json`
//! (what was started), `control.sock` (the supervisor listens there) and the logs. The folder is 0700: who can reach
//! the socket may already do everything to the site.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use authorizer::regular_file;
use authorizer::site::config::Level;
use recipe_spec::{RecipeName, Sha256Digest, Timestamp};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Longest `instance.json` that is read, in bytes.
const MAX_RECORD: u64 = 64 * 1024;
/// Records and consoles of instances that have ended are kept for the newest so many.
const KEPT: usize = 1000;
/// A folder without a record and a lock may be one that another process has just made, unless it is older than this.
const JUST_MADE: Duration = Duration::from_secs(60);
/// A listing that looks at a lock lets go of it within this time.
const LOOKED_AT: Duration = Duration::from_secs(1);
/// Between two looks at a lock or a socket.
const PAUSE: Duration = Duration::from_millis(50);

/// What was started; written once, when the instance runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The instance's id, also its folder's name.
    pub id: String,
    /// The recipe.
    pub name: RecipeName,
    /// The recipe's version.
    pub version: semver::Version,
    /// Digest of the authorization's statement.
    pub authorization: Sha256Digest,
    /// Trust level, from the authorization.
    pub level: Level,
    /// Forwarded ports: host address and port of the instance.
    pub forwards: Vec<(SocketAddrV4, u16)>,
    /// When it was launched.
    pub started_at: Timestamp,
    /// Process id of the supervisor.
    pub supervisor: u32,
    /// Process id of QEMU.
    pub qemu: u32,
    /// User id that QEMU runs as.
    pub uid: u32,
    /// `kvm` or `tcg`.
    pub accelerator: String,
}

/// What an instance is doing, read from its lock and record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// A supervisor holds it, its tests have not passed yet.
    Starting,
    /// A supervisor holds it and it was found working.
    Running,
    /// No supervisor holds it.
    Ended,
    /// Its evidence cannot be read; `show` says why.
    Unknown,
}

impl State {
    fn of(held: bool, record: Option<&Record>) -> Self {
        match (held, record) {
            (true, Some(_)) => Self::Running,
            (true, None) => Self::Starting,
            (false, _) => Self::Ended,
        }
    }
}

/// An instance as listed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// The folder's name.
    pub id: String,
    /// Read from evidence at the time of listing.
    pub state: State,
    /// Absent if it ended before it ran, or if it cannot be read.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
}

/// Why an instance cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// No such folder, or the id is none.
    #[error("there is no instance {id}")]
    Unknown {
        /// As asked.
        id: String,
    },
    /// Its supervisor did not end it in time.
    #[error("instance {id} did not end within {seconds} s")]
    StillRunning {
        /// The instance.
        id: String,
        /// Seconds waited.
        seconds: u64,
    },
    /// Its record is not one that this version wrote.
    #[error("the record of instance {id} cannot be read: {reason}")]
    BadRecord {
        /// The instance.
        id: String,
        /// Why.
        reason: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstanceError + '_ {
    move |source| InstanceError::Io { path: path.to_owned(), source }
}

/// The folder of all instances of a site.
#[derive(Clone, Debug)]
pub struct Instances {
    folder: PathBuf,
}

impl Instances {
    /// The instances kept below `folder`, which need not exist yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// All instances, sorted by id. One that a full disk or a hand damaged hides no other.
    ///
    /// # Errors
    /// [`InstanceError::Io`] if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Instance>, InstanceError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(at(&self.folder))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(at(&self.folder))?.file_name();
            if let Some(id) = name.to_str().filter(|id| is_id(id)) {
                ids.push(id.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids.into_iter().filter_map(|id| self.listed(id)).collect())
    }

    fn listed(&self, id: String) -> Option<Instance> {
        let folder = self.folder.join(&id);
        let state = match self.show(&id) {
            // No folder, or one that was swept since its name was read.
            Err(InstanceError::Unknown { .. }) => return None,
            Err(InstanceError::BadRecord { .. }) => {
                lock_is_held(&folder.join(LOCK)).map_or(State::Unknown, |held| State::of(held, None))
            }
            Err(_) => State::Unknown,
            shown => return shown.ok(),
        };
        let record = read_record(&folder, &id).ok().flatten();
        Some(Instance { id, state, record })
    }

    /// One instance.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn show(&self, id: &str) -> Result<Instance, InstanceError> {
        let folder = self.existing(id)?;
        let record = read_record(&folder, id)?;
        let state = State::of(lock_is_held(&folder.join(LOCK))?, record.as_ref());
        Ok(Instance { id: id.to_owned(), state, record })
    }

    /// Where an instance's console is kept.
    ///
    /// # Errors
    /// [`InstanceError::Unknown`].
    pub fn console(&self, id: &str) -> Result<PathBuf, InstanceError> {
        let folder = self.existing(id)?;
        let running = folder.join(MACHINE).join(CONSOLE);
        Ok(if running.exists() { running } else { folder.join(CONSOLE) })
    }

    /// Asks the supervisor to shut the instance down and waits until it has ended. An instance that has ended already
    /// stays so.
    ///
    /// # Errors
    /// [`InstanceError::StillRunning`] after `patience`, and the others.
    pub fn stop(&self, id: &str, patience: Duration) -> Result<Instance, InstanceError> {
        let folder = self.existing(id)?;
        let start = Instant::now();
        if lock_is_held(&folder.join(LOCK))? {
            if let Ok(mut stream) = connect(&folder) {
                // A supervisor that is just ending closes the socket before it answers: the lock tells.
                let _ = stream.write_all(STOP);
            }
            while lock_is_held(&folder.join(LOCK))? {
                if start.elapsed() > patience {
                    return Err(InstanceError::StillRunning {
                        id: id.to_owned(),
                        seconds: patience.as_secs(),
                    });
                }
                std::thread::sleep(PAUSE);
            }
        }
        self.show(id)
    }

    /// Makes the folder of a new instance and takes its lock.
    ///
    /// # Errors
    /// [`InstanceError::Io`]: no folder is left then.
    pub fn begin(&self, id: &str) -> Result<Held, InstanceError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(at(&self.folder))?;
        self.sweep();
        let folder = self.folder.join(id);
        DirBuilder::new().mode(0o700).create(&folder).map_err(at(&folder))?;
        let held = Held::take(id, &folder);
        if held.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        held
    }

    /// Removes of every instance that has ended the machine's folder, which is there if the supervisor was killed. Record and console
    /// of the newest stay; of one that never ran nothing does, since what happened is in the site's logs.
    fn sweep(&self) {
        let all = self.list().unwrap_or_default();
        let mut ran = Vec::new();
        for instance in all.into_iter().filter(|instance| instance.state == State::Ended) {
            let folder = self.folder.join(&instance.id);
            if never_ran(&folder) {
                let _ = fs::remove_dir_all(&folder);
                continue;
            }
            clear(&folder);
            if let Some(record) = instance.record {
                ran.push((record.started_at, folder));
            }
        }
        ran.sort_unstable();
        for (_, folder) in ran.iter().rev().skip(KEPT) {
            let _ = fs::remove_dir_all(folder);
        }
    }

    fn existing(&self, id: &str) -> Result<PathBuf, InstanceError> {
        let folder = self.folder.join(id);
        if is_id(id) && folder.is_dir() {
            Ok(folder)
        } else {
            Err(InstanceError::Unknown { id: id.to_owned() })
        }
    }
}

/// The machine's own folder inside an instance's: its overlay, and its console as long as it runs.
pub(crate) const MACHINE: &str = "instance";
const CONSOLE: &str = "console.log";

/// Leaves of a machine that is gone its console's log only.
pub(crate) fn clear(folder: &Path) {
    let machine = folder.join(MACHINE);
    // What cannot be moved or removed stays for the next sweep.
    let _ = fs::rename(machine.join(CONSOLE), folder.join(CONSOLE));
    let _ = fs::remove_dir_all(&machine);
}
const RECORD: &str = "instance.json";
const LOCK: &str = "lock";
const SOCKET: &str = "control.sock";
const STOP: &[u8] = b"stop\n";

/// An instance in the hands of its supervisor: as long as this value lives, others see it as held.
#[derive(Debug)]
pub struct Held {
    id: String,
    folder: PathBuf,
    listener: UnixListener,
    _lock: File,
}

impl Held {
    fn take(id: &str, folder: &Path) -> Result<Self, InstanceError> {
        let path = folder.join(LOCK);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(at(&path))?;
        lock(&file).map_err(at(&path))?;
        let listener = listen(folder)?;
        Ok(Self { id: id.to_owned(), folder: folder.to_owned(), listener, _lock: file })
    }

    /// The instance's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the record: from now on the instance counts as running.
    ///
    /// # Errors
    /// [`InstanceError::Io`].
    pub fn running(&self, record: &Record) -> Result<(), InstanceError> {
        let path = self.folder.join(RECORD);
        let temporary = self.folder.join("instance.json.new");
        let bytes = serde_json::to_vec(record)
            .map_err(|e| InstanceError::BadRecord { id: self.id.clone(), reason: e.to_string() })?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(at(&temporary))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(at(&temporary))?;
        fs::rename(&temporary, &path).map_err(at(&path))
    }

    /// Listens, in a thread of its own, for someone who asks for the end of the instance, and does `then` at once.
    ///
    /// # Errors
    /// [`InstanceError::Io`].
    pub fn listen(&self, then: impl FnOnce() + Send + 'static) -> Result<Listening, InstanceError> {
        let path = self.folder.join(SOCKET);
        let listener = self.listener.try_clone().map_err(at(&path))?;
        let asked = Arc::new(AtomicBool::new(false));
        let listening = Arc::downgrade(&asked);
        let hear = move || {
            while let Some(asked) = listening.upgrade() {
                if hears_stop(&listener) {
                    asked.store(true, Ordering::Relaxed);
                    then();
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        };
        std::thread::Builder::new().name("control".into()).spawn(hear).map_err(at(&path))?;
        Ok(Listening { asked })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join(SOCKET));
    }
}

/// The control socket is listened to as long as this value lives.
#[derive(Debug)]
pub struct Listening {
    asked: Arc<AtomicBool>,
}

impl Listening {
    /// Whether someone has asked for the end of the instance.
    #[must_use]
    pub fn asked_to_stop(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

/// `web-0123456789ab`: the recipe's short name and 12 random hex digits.
fn is_id(id: &str) -> bool {
    id.len() <= 100
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn read_record(folder: &Path, id: &str) -> Result<Option<Record>, InstanceError> {
    let path = folder.join(RECORD);
    let bad = |reason: &dyn std::fmt::Display| InstanceError::BadRecord {
        id: id.to_owned(),
        reason: reason.to_string(),
    };
    let bytes = match regular_file::read(&path, MAX_RECORD) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge) => {
            return Err(bad(&error));
        }
        bytes => bytes.map_err(at(&path))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| bad(&error))
}

/// Whether a folder that nobody holds has no record, and is none that is only just being made.
fn never_ran(folder: &Path) -> bool {
    let no_record =
        fs::symlink_metadata(folder.join(RECORD)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let changed = fs::symlink_metadata(folder).and_then(|metadata| metadata.modified());
    let age = changed.ok().and_then(|changed| changed.elapsed().ok());
    no_record && age.is_some_and(|age| age > JUST_MADE)
}

/// Takes the lock of a new instance. Nobody else does that, but whoever looks whether it is held has it for a moment.
fn lock(file: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if start.elapsed() < LOOKED_AT => std::thread::sleep(PAUSE),
            taken => return Ok(taken?),
        }
    }
}

fn lock_is_held(path: &Path) -> Result<bool, InstanceError> {
    let file = match regular_file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.map_err(at(path))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(at(path)(error.into())),
    }
}

/// A socket's path is at most 107 bytes long; one that goes over a descriptor of the folder always fits.
fn socket_path(folder: &Path) -> Result<(File, PathBuf), InstanceError> {
    let handle = File::open(folder).map_err(at(folder))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()));
    Ok((handle, path))
}

fn listen(folder: &Path) -> Result<UnixListener, InstanceError> {
    let (_handle, path) = socket_path(folder)?;
    let listener = UnixListener::bind(&path).map_err(at(&path))?;
    listener.set_nonblocking(true).map_err(at(&path))?;
    Ok(listener)
}

/// Whether somebody is there and asks for the end. Waits only for the word of one who is.
fn hears_stop(listener: &UnixListener) -> bool {
    let Ok((mut stream, _)) = listener.accept() else { return false };
    let mut word = [0; STOP.len()];
    let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
    stream.read_exact(&mut word).is_ok() && word == STOP
}

fn connect(folder: &Path) -> Result<UnixStream, InstanceError> {
    let (_handle, path) = socket_path(folder)?;
    UnixStream::connect(&path).map_err(at(&path))
}

#[cfg(test)]
mod tests;
