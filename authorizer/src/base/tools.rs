//! The programs of the host that a build calls: found first, all that is missing named at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use recipe_spec::Code;

use super::error::BaseError;
use super::first_boot::FirstBoot;
use super::owners::Owners;

/// A program, the Debian package that brings it, and how to ask its version (empty: it is not asked).
pub(super) struct Tool {
    pub(super) program: &'static str,
    pub(super) package: &'static str,
    pub(super) version: &'static [&'static str],
}

/// Where programs are looked for: a user's own `PATH` often lacks the `sbin` folders.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The programs of a build, all present.
pub(super) struct Tools {
    versions: BTreeMap<String, String>,
}

impl Tools {
    /// Finds every tool, and checks that this user may make a base and boot it.
    pub(super) fn find(
        wanted: &[Tool],
        owners: Owners,
        first_boot: &FirstBoot<'_>,
    ) -> Result<Self, BaseError> {
        let mut missing = Vec::new();
        let mut versions = BTreeMap::new();
        for tool in wanted {
            match find(tool.program) {
                None => missing.push(format!("{} is not installed (package {})", tool.program, tool.package)),
                Some(_) if tool.version.is_empty() => {}
                Some(_) => {
                    versions.insert(tool.program.to_owned(), version(tool)?);
                }
            }
        }
        missing.extend(owners.missing()?);
        let mut code = Code::HostFailed;
        for error in first_boot.missing() {
            if error.code() == Code::NoQemu {
                code = Code::NoQemu;
            }
            missing.push(error.to_string());
        }
        if missing.is_empty() { Ok(Self { versions }) } else { Err(BaseError::Missing { missing, code }) }
    }

    /// Version by program.
    pub(super) fn versions(&self) -> &BTreeMap<String, String> {
        &self.versions
    }
}

/// A command with a small, fixed environment.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").env("HOME", "/nonexistent");
    command.stdin(std::process::Stdio::null());
    command
}

/// Runs a command to its end and returns its standard output.
pub(super) fn run(command: &mut Command) -> Result<Vec<u8>, BaseError> {
    let program = command.get_program().to_string_lossy().into_owned();
    run_as(&program, command)
}

/// The same for a program that another one starts: the error names `program`.
pub(super) fn run_as(program: &str, command: &mut Command) -> Result<Vec<u8>, BaseError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let tail: Vec<String> =
        String::from_utf8_lossy(&output.stderr).lines().rev().take(20).map(str::to_owned).collect();
    Err(BaseError::Tool {
        program: program.to_owned(),
        status: output.status.to_string(),
        tail: tail.into_iter().rev().collect(),
    })
}

/// Where a program is.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|folder| PathBuf::from(folder).join(program)).find(|path| path.is_file())
}

/// The first line with a digit of what the tool says about itself, from either stream.
fn version(tool: &Tool) -> Result<String, BaseError> {
    let output = command(tool.program).args(tool.version).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).unwrap_or("unknown");
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let tool = |program, package| Tool { program, package, version: &[] };
        let wanted = [tool("sh", "dash"), tool("no-such-a", "pa"), tool("no-such-b", "pb")];
        let first_boot = FirstBoot {
            confinement: &harness::Confinement::standard(),
            accelerator_cache: Path::new("/nonexistent"),
            memory_mib: 1024,
            time_limit: Duration::from_secs(1),
        };
        let Err(BaseError::Missing { missing, .. }) = Tools::find(&wanted, Owners::ours(), &first_boot)
        else {
            panic!("found")
        };
        let text = missing.join("\n");
        assert!(text.contains("no-such-a is not installed (package pa)"), "{text}");
        assert!(text.contains("no-such-b is not installed (package pb)"), "{text}");
        assert!(!text.contains("dash"), "{text}");
    }

    #[test]
    fn a_failed_tool_is_quoted() {
        let error = run(command("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status: 3: two");
    }
}
