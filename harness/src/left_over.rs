//! What a user of machines and workers still has running, when nobody who started it is left to end it.

use std::path::Path;
use std::time::{Duration, Instant};

use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, Signal};

use crate::error::HarnessError;

/// How long a killed process may take to go.
const SWEEP_TIME: Duration = Duration::from_secs(10);

/// How long the parent of a dead process may take to notice, before its user counts as not free.
const BURIAL_TIME: Duration = Duration::from_millis(200);

/// Whether all dead processes of a user are gone too. Until their parent has waited for them they count among the user's
/// processes (`RLIMIT_NPROC`), and a program that may be the only one does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buried {
    All,
    NotYet,
}

/// Kills every process of a user whose lock we hold: nobody else starts processes under these ids.
pub(crate) fn end_all(uid: u32) -> Result<Buried, HarnessError> {
    let start = Instant::now();
    loop {
        let Processes { living, dead } =
            processes_of(uid).map_err(|source| HarnessError::system("read", Path::new("/proc"), source))?;
        let Some(first) = living.first() else {
            if dead == 0 {
                return Ok(Buried::All);
            }
            if start.elapsed() > BURIAL_TIME {
                return Ok(Buried::NotYet);
            }
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        if start.elapsed() > SWEEP_TIME {
            let source = std::io::Error::other(format!(
                "process {} of user {uid} does not go",
                first.as_raw_nonzero()
            ));
            return Err(HarnessError::process("end a left-over machine", source));
        }
        for pid in living {
            // It may be gone by now; the next look says.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[derive(Default)]
struct Processes {
    living: Vec<Pid>,
    dead: usize,
}

fn processes_of(uid: u32) -> std::io::Result<Processes> {
    let mut found = Processes::default();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A process may end between the listing and this look.
        if !entry.metadata().is_ok_and(|about| about.uid() == uid) {
            continue;
        }
        // Its name is its own to choose, and need not be text.
        match std::fs::read(entry.path().join("stat")) {
            Ok(stat) if is_dead(&String::from_utf8_lossy(&stat)) => found.dead += 1,
            Ok(_) => found.living.push(pid),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Whether nothing of a process runs any more, by proc(5)'s `stat`. Its first thread may end alone: the state, which is that
/// thread's, says `Z` then, and the others go on. The name is in parentheses and may hold any.
fn is_dead(stat: &str) -> bool {
    let Some((_, after_name)) = stat.rsplit_once(") ") else { return false };
    let mut fields = after_name.split(' ');
    // A dead process counts its first thread until its parent has waited for it.
    fields.next() == Some("Z") && matches!(fields.nth(THREADS_AFTER_STATE), Some("0" | "1"))
}

/// Fields between the state, the third, and the number of threads, the twentieth.
const THREADS_AFTER_STATE: usize = 16;

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::confinement::{Confinement, SameUser, UserLease, UserRange};

    /// A line of `stat` as Linux 6 writes it, up to its 22nd field.
    fn stat(name: &str, state: char, threads: u32) -> String {
        format!("19660 ({name}) {state} 2 19660 13982 0 -1 4228356 75 0 0 0 0 0 0 0 20 0 {threads} 0 341245")
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_alone_is_not_dead() {
        assert!(is_dead(&stat("qemu", 'Z', 1)));
        assert!(!is_dead(&stat("qemu", 'Z', 2)));
        assert!(!is_dead(&stat("qemu", 'S', 1)));
        assert!(!is_dead(&stat("q) Z 2", 'R', 1)), "the name is its own to choose");
        assert!(is_dead(&stat("q) R 2", 'Z', 1)));
        for cut in ["", "19660", "19660 (qemu) ", "19660 (qemu) Z", "19660 (qemu) Z 2 19660"] {
            assert!(!is_dead(cut), "{cut:?}");
        }
    }

    #[test]
    fn a_process_whose_name_is_no_text_is_found() {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: it starts a process of another user"
        );
        let mut child = Command::new("setpriv")
            .args(["--reuid=61978", "--clear-groups", "sh", "-c", "printf '\\377' >/proc/self/comm; read x"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let name = format!("/proc/{}/comm", child.id());
        let start = Instant::now();
        while std::fs::read(&name).unwrap() != b"\xff\n" {
            assert!(start.elapsed() < SWEEP_TIME);
            std::thread::sleep(Duration::from_millis(5));
        }
        let found = processes_of(61_978).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.living.contains(&pid));
    }

    #[test]
    fn what_a_killed_process_left_running_is_ended_and_buried_before_its_user_is_used_again() {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: it starts a process of another user"
        );
        let dir = tempfile::tempdir().unwrap();
        let users = UserRange { first: 61_975, count: 2, locks: dir.path().join("locks") };
        let confinement = Confinement { users, same_user: SameUser::Refused };
        let mut left = Command::new("setpriv")
            .args(["--reuid=61975", "--clear-groups", "sleep", "600"])
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&left);
        let start = Instant::now();
        while !processes_of(61_975).unwrap().living.contains(&pid) {
            assert!(start.elapsed() < SWEEP_TIME);
            std::thread::sleep(Duration::from_millis(5));
        }
        let lease = UserLease::take(&confinement).unwrap();
        assert_eq!(
            lease.uid(),
            Some(61_976),
            "the dead one still counts, as its parent has not waited for it"
        );
        drop(lease);
        assert!(!left.wait().unwrap().success());
        assert_eq!(UserLease::take(&confinement).unwrap().uid(), Some(61_975));
    }
}
