//! Processes, from `/proc`.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use guest::facts::Process;

use super::Notes;
use crate::agent::escape::escaped;
use crate::agent::session::Stat;

/// Longest command line that is told, in bytes.
const MAX_COMMAND: u64 = 4 * 1024;

/// All processes, by number. One that ends meanwhile is left out.
pub(super) fn all(proc: &Path, notes: &mut Notes) -> Vec<Process> {
    let mut processes = Vec::new();
    for pid in numbers(proc) {
        if let Some(process) = one(&proc.join(pid.to_string()), pid) {
            notes.push("processes", &mut processes, process);
        }
    }
    processes.sort();
    processes
}

/// Process numbers in `proc`, ascending.
pub(super) fn numbers(proc: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn one(folder: &Path, pid: u32) -> Option<Process> {
    let stat = Stat::parse(&fs::read(folder.join("stat")).ok()?)?;
    let uid = real_uid(&fs::read(folder.join("status")).ok()?)?;
    let exe = program(folder);
    let mut words = Vec::new();
    File::open(folder.join("cmdline")).ok()?.take(MAX_COMMAND).read_to_end(&mut words).ok()?;
    let command = if words.is_empty() {
        // A kernel thread, or a process that hides its words: its name, as `ps` shows it.
        let name = fs::read(folder.join("comm")).ok()?;
        format!("[{}]", escaped(name.trim_ascii_end()))
    } else {
        let words = words.strip_suffix(b"\0").unwrap_or(&words);
        escaped(&words.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect::<Vec<_>>())
    };
    Some(Process { pid, parent: stat.parent.try_into().ok()?, uid, exe, command })
}

/// The program that a process runs; `None` for kernel threads.
pub(super) fn program(folder: &Path) -> Option<String> {
    fs::read_link(folder.join("exe")).ok().map(|exe| escaped(exe.as_os_str().as_bytes()))
}

/// The real user id in `/proc/PID/status`.
fn real_uid(status: &[u8]) -> Option<u32> {
    let status = escaped(status);
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let mut notes = Notes::default();
        let processes = all(Path::new("/proc"), &mut notes);
        let me = processes.iter().find(|process| process.pid == std::process::id()).unwrap();
        assert_eq!(me.uid, rustix::process::getuid().as_raw());
        assert_eq!(me.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert!(notes.0.is_empty());
    }

    #[test]
    fn the_real_user_comes_first() {
        assert_eq!(real_uid(b"Name:\tx\nUid:\t33\t0\t0\t0\nGid:\t1"), Some(33));
        assert_eq!(real_uid(b"Uid:\t"), None);
    }
}
