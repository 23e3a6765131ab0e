//! The QEMU of this host.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::confinement::mortal;
use crate::error::{HarnessError, is_full};

/// The oldest QEMU that works: `file:` migration and `mapped-ram` came with it.
pub const OLDEST: (u32, u32) = (9, 0);
const WANTED: &str = "QEMU 9.0 or later";
const PROGRAM: &str = "qemu-system-x86_64";

/// The programs that a machine needs, each by absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// `qemu-system-x86_64`.
    pub program: PathBuf,
    /// What `--version` says after `version`, for example `10.0.2 (Debian 1:10.0.2+ds-2)`.
    pub version: String,
    pub(crate) setpriv: PathBuf,
    pub(crate) prlimit: PathBuf,
}

impl Qemu {
    /// Looks for QEMU and the tools beside it in `PATH` and the system's folders.
    ///
    /// # Errors
    /// [`HarnessError::NoQemu`] says what is missing or too old, and what is wanted.
    pub fn find() -> Result<Self, HarnessError> {
        let program = look_up(PROGRAM, WANTED)?;
        let setpriv = look_up("setpriv", "util-linux 2.33 or later")?;
        let version = version_of(&setpriv, &program, VERSION_TIME)?;
        Ok(Self { program, version, setpriv, prlimit: look_up("prlimit", "util-linux")? })
    }
}

/// Looks for a program in `PATH` and the system's folders.
pub(crate) fn look_up(program: &'static str, wanted: &'static str) -> Result<PathBuf, HarnessError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(system)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| HarnessError::NoQemu { program, wanted, reason: "it is not installed".into() })
}

/// A program says its version within this time, even on a busy host.
const VERSION_TIME: Duration = Duration::from_secs(20);
/// What is read of it, in bytes.
const MAX_VERSION: usize = 4096;

fn version_of(setpriv: &Path, program: &Path, time: Duration) -> Result<String, HarnessError> {
    let missing = |reason: String| HarnessError::NoQemu { program: PROGRAM, wanted: WANTED, reason };
    let text = first_words(setpriv, program, time).map_err(|error| match is_full(&error) {
        true => HarnessError::process("ask QEMU for its version", error),
        false => missing(format!("{} cannot be asked: {error}", program.display())),
    })?;
    let Some(version) = parse_version(&text) else {
        return Err(missing(format!("{} does not tell its version", program.display())));
    };
    let version = crate::error::escape(&version);
    match numbers(&version) {
        Some(found) if found >= OLDEST => Ok(version),
        _ => Err(missing(format!("{} is version {version}", program.display()))),
    }
}

/// What `program --version` says; then it is ended, if it has not. It may hang, and must not outlive us if we are killed.
fn first_words(setpriv: &Path, program: &Path, time: Duration) -> io::Result<String> {
    let mut child = mortal(setpriv, program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let said = match child.stdout.take() {
        Some(pipe) => read_within(pipe, time),
        None => Err(io::Error::other("no standard output")),
    };
    // It fails only if the program is gone already.
    let _ = child.kill();
    child.wait()?;
    said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn read_within(mut from: ChildStdout, time: Duration) -> io::Result<Vec<u8>> {
    let start = Instant::now();
    let mut said = vec![0; MAX_VERSION];
    let mut length = 0;
    loop {
        let left = time.saturating_sub(start.elapsed());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        match from.read(&mut said[length..])? {
            0 => break,
            read => length += read,
        }
    }
    said.truncate(length);
    Ok(said)
}

fn parse_version(text: &str) -> Option<String> {
    let (_, version) = text.lines().next()?.split_once(" version ")?;
    Some(version.trim().to_owned())
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version =
            parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright\n").unwrap();
        assert_eq!(version, "10.0.2 (Debian 1:10.0.2+ds-2)");
        assert!(numbers(&version).unwrap() >= OLDEST);
        assert!(numbers("7.2.9").unwrap() < OLDEST);
        assert!(numbers("8.99").unwrap() < OLDEST);
        assert_eq!(numbers("x"), None);
        assert_eq!(parse_version("bash: not found"), None);
    }

    fn setpriv() -> PathBuf {
        look_up("setpriv", "util-linux 2.33 or later").unwrap()
    }

    fn written(folder: &Path, script: &str) -> PathBuf {
        let program = folder.join("qemu");
        // By another process: a program that we hold open for writing, even in a fork of another thread, cannot be started.
        let written = Command::new("sh")
            .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod 700 \"$2\"", "sh", script])
            .arg(&program)
            .status();
        assert!(written.unwrap().success());
        program
    }

    fn said_by(script: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        match version_of(&setpriv(), &written(folder.path(), script), Duration::from_secs(3)) {
            Ok(version) => version,
            Err(error) => {
                assert_eq!(error.code(), recipe_spec::Code::NoQemu);
                error.to_string()
            }
        }
    }

    #[test]
    fn a_qemu_that_is_missing_old_broken_or_hangs_is_no_qemu() {
        assert_eq!(said_by("echo QEMU emulator version 9.0.0"), "9.0.0");
        assert!(said_by("echo QEMU emulator version 7.2.9").contains("is version 7.2.9"));
        assert!(said_by("echo hello").contains("does not tell its version"));
        assert!(said_by("exit 1").contains("does not tell its version"));
        assert!(said_by("exec yes QEMU emulator version 7.2").contains("is version 7.2"));
        assert!(said_by("exec sleep 600").contains("timed out"));
        let missing = look_up("qemu-that-nobody-has", WANTED).unwrap_err();
        assert_eq!(missing.code(), recipe_spec::Code::NoQemu);
        let gone = version_of(&setpriv(), Path::new("/nonexistent/qemu"), VERSION_TIME).unwrap_err();
        assert_eq!(gone.code(), recipe_spec::Code::NoQemu);
    }

    #[test]
    fn who_is_asked_for_its_version_dies_with_us() {
        let folder = tempfile::tempdir().unwrap();
        let program = written(folder.path(), "exec setpriv --dump");
        let said = first_words(&setpriv(), &program, VERSION_TIME).unwrap();
        assert!(said.lines().any(|line| line == "Parent death signal: KILL"), "{said}");
    }
}
