//! What a machine must not leave behind: a process, a lock, a file that nobody asked for.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Confinement, Machine, MachineSpec, UserRange};
use rustix::fs::{FlockOperation, flock};

/// First of the user ids of these tests: neither the standard ones nor those of other tests.
const FIRST: u32 = 61_800;
/// Locks and processes are let go within this time.
const SOON: Duration = Duration::from_secs(10);

/// The same machine with the only user of a range of its own; each number is one test's.
pub(crate) fn alone(spec: MachineSpec, number: u32) -> MachineSpec {
    let locks = spec.run_dir.parent().unwrap().join("locks");
    let users = UserRange { first: FIRST + number, count: 1, locks };
    MachineSpec { confinement: Confinement { users, ..spec.confinement }, ..spec }
}

/// Where a machine's remains would lie.
pub(crate) struct Watched {
    user: u32,
    lock: PathBuf,
    run_dir: PathBuf,
}

impl Watched {
    pub(crate) fn of(machine: &Machine, spec: &MachineSpec) -> Self {
        let watched = Self::before(spec);
        assert_eq!(machine.uid(), Some(watched.user), "this test needs root: only root has users to give");
        assert!(!watched.is_free() && watched.processes() > 0, "the watching itself works");
        watched
    }

    /// Of a machine that will perhaps never be.
    pub(crate) fn before(spec: &MachineSpec) -> Self {
        let users = &spec.confinement.users;
        assert_eq!(users.count, 1);
        let lock = users.locks.join(users.first.to_string());
        Self { user: users.first, lock, run_dir: spec.run_dir.clone() }
    }

    /// Call it when the machine was dropped, or could not be had.
    pub(crate) fn nothing_is_left(&self) {
        let start = Instant::now();
        while !self.is_free() || self.processes() > 0 {
            assert!(start.elapsed() < SOON, "lock free: {}, processes: {}", self.is_free(), self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
        for entry in fs::read_dir(&self.run_dir).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            assert_eq!(name, "console.log", "only what its caller looks into and removes");
        }
    }

    fn is_free(&self) -> bool {
        match File::open(&self.lock) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            // It was never taken.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Living processes of the user.
    fn processes(&self) -> usize {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let ours = entries.filter(|entry| entry.metadata().is_ok_and(|about| about.uid() == self.user));
        ours.filter(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        })
        .count()
    }
}
