//! Sessions: every command runs in one of its own, so that all it left there can be killed together.

use std::fs;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Rounds of looking for survivors. A process that forks faster than it is found outlives this, but not the
/// machine: the host has its own time limit.
const KILL_ROUNDS: usize = 50;

/// Kills every process of the session that `leader` began. The leader must not have been waited for yet, so that its
/// number cannot belong to another process.
pub(crate) fn kill(leader: Pid) {
    for _round in 0..KILL_ROUNDS {
        // Whoever is gone already needs no killing.
        let _gone = kill_process_group(leader, Signal::KILL);
        let alive = members(leader);
        if alive.is_empty() {
            return;
        }
        for pid in alive {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

/// Living processes (not zombies) of the session.
fn members(leader: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/stat"))
                .ok()
                .and_then(|stat| Stat::parse(&stat))
                .is_some_and(|stat| stat.session == leader.as_raw_nonzero().get() && stat.state != b'Z')
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// Some fields of `/proc/PID/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `Z` …
    pub(crate) state: u8,
    /// Parent's process id.
    pub(crate) parent: i32,
    /// Session id.
    pub(crate) session: i32,
    /// `PF_` flags of `linux/sched.h`.
    flags: u32,
}

impl Stat {
    /// `PF_KTHREAD`: a thread of the kernel, which runs no program. No process can give itself the flag.
    const KERNEL_THREAD: u32 = 0x0020_0000;

    /// Whether it is a thread of the kernel.
    pub(crate) fn is_kernel_thread(&self) -> bool {
        self.flags & Self::KERNEL_THREAD != 0
    }

    /// The program's name stands in parentheses and may itself hold any bytes, so fields are counted from the last `)`.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = str::from_utf8(&line[after_name..]).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let _process_group = fields.next()?;
        let session = fields.next()?.parse().ok()?;
        let (_terminal, _foreground) = (fields.next()?, fields.next()?);
        let flags = fields.next()?.parse().ok()?;
        Some(Self { state, parent, session, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_name_cannot_move_the_fields() {
        let stat = Stat::parse(b"42 (a) R 1 1 1) S 7 42 41 0 -1 4194560 1").unwrap();
        assert_eq!(stat, Stat { state: b'S', parent: 7, session: 41, flags: 0x40_0100 });
        assert_eq!(Stat::parse(b"42 (x"), None);
        assert_eq!(Stat::parse(b"42 (x) S 7 42 41 0 -1"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn threads_of_the_kernel_are_told_from_processes() {
        let is_one = |line: &[u8]| Stat::parse(line).unwrap().is_kernel_thread();
        assert!(is_one(b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0"));
        assert!(is_one(b"90 (kworker/1:1-events) I 2 0 0 0 -1 69238880 0 0"));
        assert!(!is_one(b"7 (forked) R 1 1 1 0 -1 4194368 0 0 0 0 0 0"));
        assert!(!is_one(b"1 (systemd) S 0 1 1 0 -1 4194560 0 0 0 0 0 0"));
        // Who calls itself so is none.
        assert!(!is_one(b"99 (kthreadd) S 0 0 0 0 -1 2129984) S 0 0 0 0 -1 4194560 0"));
    }
}
