//! The QEMU of this host.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::HarnessError;

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
    pub(crate) image_tool: PathBuf,
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
        let version = version_of(&program)?;
        Ok(Self {
            program,
            version,
            image_tool: look_up("qemu-img", WANTED)?,
            setpriv: look_up("setpriv", "util-linux 2.33 or later")?,
            prlimit: look_up("prlimit", "util-linux")?,
        })
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

fn version_of(program: &Path) -> Result<String, HarnessError> {
    let missing = |reason: String| HarnessError::NoQemu { program: PROGRAM, wanted: WANTED, reason };
    let said = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(format!("{} cannot be started: {error}", program.display())))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let Some(version) = parse_version(&text) else {
        return Err(missing(format!("{} does not tell its version", program.display())));
    };
    match numbers(&version) {
        Some(found) if found >= OLDEST => Ok(version),
        _ => Err(missing(format!("{} is version {version}", program.display()))),
    }
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
}
