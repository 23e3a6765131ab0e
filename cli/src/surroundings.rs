//! What whoever started us left open or set must decide nothing: no program that we start gets a descriptor that we did not
//! hand it, and what we make can be written by its owner only.

use std::fs;
use std::io;

use rustix::fs::Mode;

/// The first descriptor after the standard streams.
const FIRST: i32 = 3;

/// Puts both right. To be called before there is a second thread.
///
/// # Errors
/// If a descriptor would still be inherited, or nobody can tell.
pub(crate) fn settle() -> io::Result<()> {
    // A stricter one stays: it is what the caller wanted.
    let umask = rustix::process::umask(Mode::all());
    rustix::process::umask(umask | Mode::WGRP | Mode::WOTH);
    close_fds::set_fds_cloexec(FIRST, &[]);
    // That says nothing of how it went.
    match inherited()? {
        None => Ok(()),
        Some(number) => {
            Err(io::Error::other(format!("descriptor {number} would be open in every program started")))
        }
    }
}

/// A descriptor that a program started by us would have, beside the standard streams.
fn inherited() -> io::Result<Option<i32>> {
    let folder = "/proc/self/fdinfo";
    let cannot = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {folder}: {error}"));
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let number: i32 = number.ok_or_else(|| io::Error::other("a descriptor without a number"))?;
        if number < FIRST {
            continue;
        }
        let about = fs::read_to_string(format!("{folder}/{number}")).map_err(cannot)?;
        if !is_closed_on_exec(&about) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// As `fdinfo` says it, in octal (proc_pid_fdinfo(5)).
fn is_closed_on_exec(about: &str) -> bool {
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_flag_itself_counts_as_closed() {
        assert!(is_closed_on_exec("pos:\t0\nflags:\t02100000\nmnt_id:\t9\n"));
        for open in ["pos:\t0\nflags:\t0100000\n", "flags:\t", "", "flags:\t9\n"] {
            assert!(!is_closed_on_exec(open), "{open}");
        }
    }
}
