//! From the archive to a tree: mmdebstrap with the host's apt, which checks the archive's signatures.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use recipe_spec::Sha256Digest;

use super::debian12::{self, When};
use super::error::BaseError;
use super::owners::Owners;
use super::sources::Sources;
use super::statement::Release;
use super::tools;
use super::workspace::Workspace;

/// Longest time for all packages, in seconds.
const TIME_LIMIT_SECONDS: u32 = 3600;
/// Last lines kept for the error.
const TAIL_LINES: usize = 40;
/// Longest line that is shown, in bytes.
const MAX_LINE: usize = 4096;

/// The finished tree.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// The signed release files that everything came from.
    pub(super) releases: Vec<Release>,
    /// Version by package name.
    pub(super) packages: BTreeMap<String, String>,
}

/// Installs the base's packages into a new tree.
pub(super) fn install(
    workspace: &Workspace,
    owners: Owners,
    sources: &Sources,
    output: &mut dyn FnMut(String),
) -> Result<Tree, BaseError> {
    let inputs = workspace.folder("inputs")?;
    for (index, file) in debian12::TREE.iter().enumerate() {
        std::fs::write(inputs.join(index.to_string()), file.content)?;
        std::fs::set_permissions(inputs.join(index.to_string()), PermissionsExt::from_mode(0o644))?;
    }
    std::fs::write(inputs.join("sources.list"), sources.guest_list())?;
    std::fs::write(inputs.join("finish.sh"), debian12::FINISH)?;
    let releases = workspace.folder("releases")?;
    let root = workspace.path("tree");

    let mut command = owners.guarded("timeout");
    for (name, value) in apt_proxies()? {
        command.env(name, value);
    }
    command.env("TMPDIR", workspace.folder("tmp")?);
    command.env("INPUTS", &inputs).env("RELEASES", &releases);
    command.args(["--signal=KILL", &TIME_LIMIT_SECONDS.to_string(), "mmdebstrap"]);
    command.args(arguments(&root, sources));
    stream(&mut command, output)?;
    // Device nodes, which nobody sees beneath the kernel's own /dev, can be made by root only. Without them a tree is the
    // same whoever built it.
    let mut command = owners.command("find");
    command.arg(root.join("dev")).args(["-xdev", "-mindepth", "1", "-delete"]);
    tools::run_as("find", &mut command)?;

    Ok(Tree {
        releases: read_releases(&releases)?,
        packages: installed(&std::fs::read_to_string(root.join("var/lib/dpkg/status"))?),
        root,
    })
}

/// mmdebstrap's arguments: `--mode=root` is right for root of a user namespace too. Hooks name their files through the environment, so no path is ever quoted.
fn arguments(root: &Path, sources: &Sources) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--architectures=amd64",
        "--skip=cleanup/apt",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--include={}", debian12::packages().collect::<Vec<_>>().join(",")));
    for (index, file) in debian12::TREE.iter().enumerate() {
        let stage = match file.when {
            When::Setup => "setup",
            When::Essential => "essential",
            When::Customize => "customize",
        };
        arguments.push(format!("--{stage}-hook=install -D -m 0644 \"$INPUTS/{index}\" \"$1{}\"", file.path));
    }
    for hook in [
        // What the archive signed, for the statement.
        "cp \"$1\"/var/lib/apt/lists/*Release \"$RELEASES/\"",
        "install -m 0644 \"$INPUTS/sources.list\" \"$1/etc/apt/sources.list\"",
        "chroot \"$1\" /bin/sh <\"$INPUTS/finish.sh\"",
    ] {
        arguments.push(format!("--customize-hook={hook}"));
    }
    arguments.push(debian12::CODENAME.to_owned());
    arguments.push(root.display().to_string());
    arguments.extend(sources.build_lines());
    arguments
}

/// The proxies that the host's apt uses, as the environment that apt also reads: mmdebstrap's apt does not read the
/// host's configuration, and a host behind a proxy has it there.
fn apt_proxies() -> Result<Vec<(&'static str, String)>, BaseError> {
    let mut proxies = Vec::new();
    for (name, option) in [("http_proxy", "Acquire::http::Proxy"), ("https_proxy", "Acquire::https::Proxy")] {
        let printed = tools::run(tools::command("apt-config").args(["dump", "--format=%v%n", option]))?;
        let value = String::from_utf8_lossy(&printed).trim().to_owned();
        if !value.is_empty() && value != "DIRECT" {
            proxies.push((name, value));
        }
    }
    Ok(proxies)
}

/// Runs a command, passing on each line of both its streams.
fn stream(command: &mut Command, output: &mut dyn FnMut(String)) -> Result<(), BaseError> {
    let (reader, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The command keeps the writing ends until it is set anew; without this the reader never sees the end.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut tail = std::collections::VecDeque::new();
    for line in BufReader::new(reader).split(b'\n') {
        let mut line = line?;
        line.truncate(MAX_LINE);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line.clone());
        output(line);
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(BaseError::Tool { program: "mmdebstrap".to_owned(), status: status.to_string(), tail: tail.into() })
}

fn read_releases(folder: &Path) -> Result<Vec<Release>, BaseError> {
    let mut releases = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let bytes = std::fs::read(entry?.path())?;
        let text = String::from_utf8_lossy(&bytes);
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        let codename = field("Codename:");
        releases.push(Release {
            suite: codename.ok_or_else(|| bad("a release file without a codename"))?,
            date: field("Date:").ok_or_else(|| bad("a release file without a date"))?,
            sha256: Sha256Digest::of(&bytes),
        });
    }
    if releases.is_empty() {
        return Err(bad("apt left no release file"));
    }
    releases.sort();
    Ok(releases)
}

fn bad(reason: &str) -> BaseError {
    BaseError::BadTree { reason: reason.to_owned() }
}

/// Version by package of dpkg's status file.
fn installed(status: &str) -> BTreeMap<String, String> {
    let mut packages = BTreeMap::new();
    for stanza in status.split("\n\n") {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let (Some(name), Some("install ok installed"), Some(version)) =
            (field("Package:"), field("Status:"), field("Version:"))
        {
            packages.insert(name.to_owned(), version.to_owned());
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_are_listed() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1:2\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 3\n";
        assert_eq!(installed(status), BTreeMap::from([("a".to_owned(), "1:2".to_owned())]));
    }

    #[test]
    fn both_streams_are_passed_on_and_quoted_in_the_error() {
        let mut lines = Vec::new();
        stream(tools::command("sh").args(["-c", "echo one; echo two >&2"]), &mut |line| lines.push(line))
            .unwrap();
        assert_eq!(lines, ["one", "two"]);
        let error =
            stream(tools::command("sh").args(["-c", "echo 'E: Failed to fetch x'; exit 100"]), &mut |_| {})
                .unwrap_err();
        assert_eq!(error.code(), recipe_spec::Code::RemoteUnavailable);
    }

    #[test]
    fn a_release_file_is_named_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_releases(folder.path()).is_err());
        std::fs::write(folder.path().join("x_InRelease"), "Codename: bookworm\nDate: Sat, 21 Nov 2026\n")
            .unwrap();
        let releases = read_releases(folder.path()).unwrap();
        assert_eq!((releases[0].suite.as_str(), releases[0].date.as_str()), ("bookworm", "Sat, 21 Nov 2026"));
    }
}
