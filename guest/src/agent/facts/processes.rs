//! Processes, from `/proc`.

use std::io::{self, Read};
use std::path::Path;

use guest::facts::{MAX_ENTRIES, Process};

use super::Notes;
use crate::agent::escape::escaped;
use crate::agent::session::Stat;
use crate::agent::sight::{Proc, ended, process};

const NAME: &str = "processes";
/// Longest command line that is told, in bytes.
const MAX_COMMAND: u64 = 4 * 1024;
/// Longest of the small files that is read, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// All processes, by number. One that ends meanwhile is left out.
pub(super) fn all(proc: &Proc, notes: &mut Notes) -> Vec<Process> {
    let mut processes = Vec::new();
    let numbers = numbers(proc, NAME, notes);
    // Those that are there for certain: a list without them is of other processes, or of none.
    for certain in [1, std::process::id()] {
        if numbers.binary_search(&certain).is_err() {
            notes.add(format!("{NAME}: {certain} is not there"));
        }
    }
    for pid in numbers {
        match one(proc, pid) {
            Ok(process) => notes.push(NAME, &mut processes, process),
            Err(error) if ended(&error) => {}
            Err(error) => notes.add(format!("{NAME}: {pid}: {error}")),
        }
    }
    processes.sort();
    processes
}

/// Process numbers, ascending. `name` is the list that lacks something if they cannot be read.
pub(super) fn numbers(proc: &Proc, name: &str, notes: &mut Notes) -> Vec<u32> {
    // The entries that are no processes are some hundred.
    proc.numbers(".", 2 * MAX_ENTRIES).unwrap_or_else(|error| {
        notes.add(format!("{name}: the processes: {error}"));
        Vec::new()
    })
}

fn one(proc: &Proc, pid: u32) -> io::Result<Process> {
    let folder = process(pid);
    let odd = |file: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{file} is not understood"));
    let stat = Stat::parse(&proc.read(folder.join("stat"), MAX_TEXT)?).ok_or_else(|| odd("stat"))?;
    let uid = real_uid(&proc.read(folder.join("status"), MAX_TEXT)?).ok_or_else(|| odd("status"))?;
    let exe = program(proc, &folder)?;
    let mut words = Vec::new();
    proc.file(folder.join("cmdline"))?.take(MAX_COMMAND).read_to_end(&mut words)?;
    let command = if words.is_empty() {
        // A kernel thread, or a process that hides its words: its name, as `ps` shows it.
        let name = proc.read(folder.join("comm"), MAX_TEXT)?;
        format!("[{}]", escaped(name.trim_ascii_end()))
    } else {
        let words = words.strip_suffix(b"\0").unwrap_or(&words);
        escaped(&words.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect::<Vec<_>>())
    };
    let parent = stat.parent.try_into().map_err(|_| odd("stat"))?;
    Ok(Process { pid, parent, uid, exe, command })
}

/// The program that a process runs; `None` for kernel threads and for what has ended but is not waited for.
pub(super) fn program(proc: &Proc, folder: &Path) -> io::Result<Option<String>> {
    match proc.target(folder.join("exe")) {
        Ok(exe) => Ok(Some(escaped(&exe))),
        Err(error) if ended(&error) => Ok(None),
        Err(error) => Err(error),
    }
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
        let processes = all(&Proc::at("/proc").unwrap(), &mut notes);
        let me = processes.iter().find(|process| process.pid == std::process::id()).unwrap();
        assert_eq!(me.uid, rustix::process::getuid().as_raw());
        assert_eq!(me.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        let own = format!("processes: {}", me.pid);
        assert!(!notes.0.iter().any(|note| note.starts_with(&own)), "{notes:?}");
    }

    #[test]
    fn a_folder_of_other_processes_or_none_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let mut notes = Notes::default();
        assert!(all(&Proc::at(folder.path()).unwrap(), &mut notes).is_empty());
        assert!(notes.0.contains("processes: 1 is not there"), "{notes:?}");
        assert!(notes.0.contains("processes: the processes: not on a procfs"), "{notes:?}");
    }

    #[test]
    fn the_real_user_comes_first() {
        assert_eq!(real_uid(b"Name:\tx\nUid:\t33\t0\t0\t0\nGid:\t1"), Some(33));
        assert_eq!(real_uid(b"Uid:\t"), None);
    }
}
