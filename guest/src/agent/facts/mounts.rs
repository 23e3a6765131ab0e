//! What is mounted over the disk, from `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

use std::path::Path;

use guest::facts::Mount;

use super::{Absence, Notes, proc_text};
use crate::agent::escape::escaped;
use crate::agent::sight::{Proc, process};

const NAME: &str = "mounts";
/// Where every machine has mounts that come and go, and where nothing of the disk is run or believed from.
const USUAL: [&str; 6] = ["/boot", "/dev", "/run", "/sys", "/tmp", "/var/tmp"];
/// Kinds that belong on `/proc` and below: itself, and what systemd puts on `/proc/sys/fs/binfmt_misc`.
const ON_PROC: [&str; 3] = ["autofs", "binfmt_misc", "proc"];

/// Every mount that process `pid` sees, but the usual ones; sorted.
pub(super) fn all(proc: &Proc, pid: u32, notes: &mut Notes) -> Vec<Mount> {
    let text =
        proc_text(proc, NAME, &process(pid).join("mountinfo"), Absence::Told, notes).unwrap_or_default();
    parse(&text, notes)
}

/// `id parent device root point options [optional]... - kind source options`
fn parse(text: &str, notes: &mut Notes) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let mut roots = 0;
    for line in text.lines() {
        let parts = line.split_once(" - ");
        let (before, after): (Vec<&str>, Vec<&str>) = parts
            .map(|(before, after)| (before.split(' ').collect(), after.split(' ').collect()))
            .unwrap_or_default();
        let ([_, _, _, within, point, _, ..], [kind, source, ..]) = (&before[..], &after[..]) else {
            notes.add(format!("{NAME}: a line is not understood"));
            continue;
        };
        let (within, point) = (plain(within), plain(point));
        if point == "/" {
            roots += 1;
            // The first is the disk; on top of it there is nothing.
            if roots == 1 {
                continue;
            }
        }
        if !usual(&point, kind, &within) {
            // A folder or file bound from elsewhere on a device.
            let source = if within == "/" { plain(source) } else { format!("{}[{within}]", plain(source)) };
            notes.push(NAME, &mut mounts, Mount { point, source, kind: (*kind).to_owned() });
        }
    }
    if roots == 0 {
        notes.add(format!("{NAME}: no root"));
    }
    mounts.sort();
    mounts
}

fn usual(point: &str, kind: &str, within: &str) -> bool {
    let point = Path::new(point);
    if point.starts_with("/proc") {
        return ON_PROC.contains(&kind) && within == "/";
    }
    USUAL.iter().any(|place| point.starts_with(place))
}

/// Undoes the kernel's `\040` for a space and its like.
fn plain(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let byte = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 4 } else { 1 };
    }
    escaped(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "\
        22 27 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n\
        23 22 0:30 / /proc/sys/fs/binfmt_misc rw shared:13 - autofs systemd-1 rw,fd=29\n\
        24 27 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
        25 27 0:24 / /run/user/0 rw - tmpfs tmpfs rw\n\
        27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n";

    fn parsed(text: &str) -> (Vec<(String, String)>, Notes) {
        let mut notes = Notes::default();
        let mounts = parse(text, &mut notes);
        (mounts.into_iter().map(|mount| (mount.point, mount.source)).collect(), notes)
    }

    #[test]
    fn a_machine_at_rest_has_none() {
        let (mounts, notes) = parsed(PLAIN);
        assert!(mounts.is_empty() && notes.0.is_empty(), "{mounts:?} {notes:?}");
    }

    #[test]
    fn what_lies_over_the_system_is_told() {
        let more = "\
            30 27 254:1 /srv/passwd /etc/passwd rw shared:1 - ext4 /dev/vda1 rw\n\
            31 22 254:1 /empty /proc/1/net/tcp rw - ext4 /dev/vda1 rw\n\
            32 22 0:40 /7 /proc/7 rw - proc proc rw\n\
            33 27 0:41 / /usr/a\\040b\\134 rw - tmpfs x rw\n\
            34 27 0:42 / / rw - overlay over rw\n\
            35 27 0:43 / /runner rw - tmpfs x rw\n";
        let (mounts, notes) = parsed(&format!("{PLAIN}{more}"));
        let said: Vec<_> = mounts.iter().map(|(point, source)| (point.as_str(), source.as_str())).collect();
        assert_eq!(
            said,
            [
                ("/", "over"),
                ("/etc/passwd", "/dev/vda1[/srv/passwd]"),
                ("/proc/1/net/tcp", "/dev/vda1[/empty]"),
                ("/proc/7", "proc[/7]"),
                ("/runner", "x"),
                ("/usr/a b\\", "x"),
            ]
        );
        assert!(notes.0.is_empty(), "{notes:?}");
    }

    #[test]
    fn a_table_that_is_not_understood_is_said() {
        for text in ["", "x\n", "22 27 0:21 / /proc rw - proc\n"] {
            assert!(parsed(text).1.0.iter().any(|note| note.starts_with("mounts: ")), "{text}");
        }
    }
}
