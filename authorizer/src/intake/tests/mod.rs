//! Intake against real repositories, made by git itself and served by a real git daemon on loopback.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use harness::worker::Entry;
use harness::{Confinement, SameUser, UserRange};

use super::*;

mod content;
mod remotes;

/// A repository with a working tree in a folder that goes with it.
struct Git {
    folder: tempfile::TempDir,
}

impl Git {
    fn init() -> Self {
        let git = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(git.top()).unwrap();
        git.run(&["init", "--quiet", "--initial-branch=main"]);
        git
    }

    /// The working tree.
    fn top(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.top())
            .args([
                "-c",
                "user.name=VO",
                "-c",
                "user.email=vo@example.org",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.top().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn commit(&self) -> String {
        self.run(&["add", "--all"]);
        self.run(&["commit", "--quiet", "--allow-empty", "--message=change"]);
        self.run(&["rev-parse", "HEAD"])
    }

    /// Adds an entry of any mode to the index, without a working tree.
    fn index(&self, mode: &str, object: &str, path: &str) {
        self.run(&["update-index", "--add", "--cacheinfo", &format!("{mode},{object},{path}")]);
    }

    fn object(&self, content: &str) -> String {
        self.write("../object", content);
        self.run(&["hash-object", "-w", "../object"])
    }

    fn commit_index(&self) -> String {
        self.run(&["commit", "--quiet", "--message=index"]);
        self.run(&["rev-parse", "HEAD"])
    }

    fn fetch(&self, fragment: &str, path: Option<&str>) -> Result<Intake, IntakeError> {
        take(&format!("{}{fragment}", self.top().display()), path)
    }

    fn serve(&self) -> Daemon {
        Daemon::serve(self.folder.path(), &[])
    }
}

fn take(source: &str, path: Option<&str>) -> Result<Intake, IntakeError> {
    take_within(source, path, &Limits::STANDARD, &FetchLimits::STANDARD)
}

fn take_within(
    source: &str,
    path: Option<&str>,
    limits: &Limits,
    fetch_limits: &FetchLimits,
) -> Result<Intake, IntakeError> {
    let path = path.map(|path| path.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let taken =
        fetch(&source.parse().unwrap(), path.as_ref(), limits, fetch_limits, &workers(), folder.path());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left");
    taken
}

/// The tests' own program, started again as `countersign worker` would be.
#[test]
#[ignore = "started by the other tests, as a worker"]
fn worker() {
    harness::worker::serve_in_test(&[JOB]);
}

/// As root each worker has a user of its own; a person without root gets the weaker form.
fn workers() -> Workers {
    Workers {
        entry: Entry::libtest("intake::tests::worker"),
        confinement: Confinement { users: UserRange::standard(), same_user: SameUser::Allowed },
    }
}

/// A git daemon; ends with this value.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn serve(folder: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "git"])
            .args(more)
            .args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.display()))
            .arg(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the git daemon does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }

    fn uri(&self, fragment: &str) -> String {
        format!("git://127.0.0.1:{}/repository{fragment}", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon's own children end with their connections.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn text<'a>(intake: &'a Intake, path: &str) -> &'a str {
    std::str::from_utf8(&intake.payload.file_at(path).unwrap().bytes).unwrap()
}

fn code(result: Result<Intake, IntakeError>) -> Option<Code> {
    result.unwrap_err().code()
}

/// The entry that was refused, and as what.
fn refused(result: Result<Intake, IntakeError>) -> (String, &'static str) {
    match result.unwrap_err() {
        IntakeError::Entry { path, what } => (path, what),
        other => panic!("{other}"),
    }
}

fn web() -> Git {
    let git = Git::init();
    git.write("web/recipe.toml", "one\n")
        .write("web/files/index.html", "<p>")
        .write("web/scripts/run.sh", "#!/bin/sh\n");
    git.write("web/recipe.intoto.jsonl", "{}\n").write("elsewhere/huge", vec![0; 1024]);
    let script = git.top().join("web/scripts/run.sh");
    std::fs::set_permissions(script, PermissionsExt::from_mode(0o755)).unwrap();
    git.commit();
    git
}

fn assert_web(intake: &Intake, commit: &str, path: &str) {
    let paths: Vec<_> = intake.payload.iter().map(|(path, file)| (path.as_str(), file.executable)).collect();
    assert_eq!(paths, [("files/index.html", false), ("recipe.toml", false), ("scripts/run.sh", true)]);
    assert_eq!(intake.envelope.as_deref(), Some(&b"{}\n"[..]));
    assert_eq!((intake.source.commit.as_str(), intake.source.path.as_str()), (commit, path));
}
