//! Intake against real repositories, made by git itself and served by a real git daemon on loopback.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use harness::worker::Entry;
use harness::{Confinement, SameUser, UserRange};

use super::*;

mod bombs;
mod content;
mod hostile;
mod pack;
mod remotes;
mod tls;

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
    let workers = workers(folder.path());
    let taken = fetch(&source.parse().unwrap(), path.as_ref(), limits, fetch_limits, &workers, folder.path());
    let uid = workers.confinement.users.first;
    assert_eq!(processes_of(uid), 0, "a process is left");
    let left = |below: &str| std::fs::read_dir(folder.path().join(below)).map_or(0, Iterator::count);
    // Of the worker's own, and in the folder that it has where it runs as we do.
    let others = left("") - usize::from(folder.path().join("locks").exists());
    let others = others - usize::from(folder.path().join("scratch").exists());
    assert_eq!((left("scratch"), others), (0, 0), "a file is left");
    taken
}

/// The tests' own program, started again as `countersign worker` would be.
#[test]
#[ignore = "started by the other tests, as a worker"]
fn worker() {
    harness::worker::serve_in_test(&[JOB]);
}

/// As root a worker with a user id that nobody else has, so that what is left of it can be seen; a person without root gets
/// the weaker form.
fn workers(folder: &Path) -> Workers {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Far from what a host gives out, and another for each process that runs tests.
    let first = (1 << 30) + std::process::id() * 128 + TAKEN.fetch_add(1, Ordering::Relaxed) % 128;
    let users = UserRange { first, count: 1, locks: folder.join("locks") };
    Workers {
        entry: Entry::libtest("intake::tests::worker"),
        confinement: Confinement { users, same_user: SameUser::Allowed },
        until: Arc::default(),
    }
}

fn processes_of(uid: u32) -> usize {
    let is_of = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("status"))
            .is_ok_and(|status| status.contains(&format!("\nUid:\t{uid}\t")))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(is_of).count()
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

/// Writes a tree object byte for byte: git itself refuses to write these.
fn commit_raw_tree(git: &Git, entries: &[(&str, &[u8], &str)]) {
    let repository = git2::Repository::open(git.top()).unwrap();
    let mut tree = Vec::new();
    for (mode, name, object) in entries {
        tree.extend(format!("{mode} ").bytes());
        tree.extend(*name);
        tree.push(0);
        tree.extend(git2::Oid::from_str(object).unwrap().as_bytes());
    }
    let tree = repository.odb().unwrap().write(git2::ObjectType::Tree, &tree).unwrap();
    let who = git2::Signature::new("VO", "vo@example.org", &git2::Time::new(0, 0)).unwrap();
    let commit = format!("tree {tree}\nauthor {who} 0 +0000\ncommitter {who} 0 +0000\n\nraw\n");
    let commit = repository.odb().unwrap().write(git2::ObjectType::Commit, commit.as_bytes()).unwrap();
    repository.reference("refs/heads/raw", commit, true, "raw").unwrap();
}
