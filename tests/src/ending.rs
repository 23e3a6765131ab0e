//! Ending `countersign authorize` at a chosen instant, by any signal, and looking at what it leaves.
//!
//! The instant is read from the run's own log, which is written as things happen. What is left alive is exact: the test is
//! the subreaper of all that it starts (`prctl(2)`, `PR_SET_CHILD_SUBREAPER`), so every orphan becomes its child.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use rustix::process::{Pid, Signal, WaitOptions};
use serde_json::Value;

use crate::command::Run;
use crate::git::Daemon;
use crate::log::NextLog;
use crate::site::Site;
use crate::vo::Vo;

/// After the end of the process, nothing that it started may live longer than this.
const GRACE: Duration = Duration::from_secs(2);
/// A run is not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(900);
/// A child has become its program by then.
const EXEC: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// What the caller has open, and by which number.
const SECRET: &str = "/etc/shadow";
const CALLERS: u32 = 200;

/// When a run is ended.
#[derive(Clone, Debug, PartialEq)]
pub enum At {
    /// So long after its start.
    After(Duration),
    /// So long after its log says that a stage was `stage-started` or `stage-finished`.
    Event(&'static str, &'static str, Duration),
}

/// A VO with one recipe that needs no package, a git daemon, and a site: everything for authorizing version after version.
#[derive(Debug)]
pub struct Ground {
    /// The site.
    pub site: Site,
    vo: Vo,
    daemon: Daemon,
    scratch: PathBuf,
    patch: u32,
}

/// How a run ended that was sent a signal.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Whether it had ended by itself before the signal.
    pub too_late: bool,
    /// From the signal until nothing lived any more.
    pub gone_after: Duration,
}

impl Ground {
    /// Makes all of it below `folder`.
    ///
    /// # Panics
    /// If something cannot be made.
    #[must_use]
    pub fn make(folder: &Path, id: &str) -> Self {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("orphans become ours");
        let vo = Vo::found("atlas", &folder.join("vo"));
        let scratch = folder.join("tmp");
        fs::create_dir_all(&scratch).expect("a folder for temporary files");
        let site = Site::found(id, folder);
        let _ = site.trust(&vo).done();
        let _ = site.base().done();
        let daemon = Daemon::serve(&folder.join("vo"));
        Self { site, vo, daemon, scratch, patch: 0 }
    }

    /// Signs and commits the next version: a submission that the site has not seen.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn submit(&mut self) {
        self.patch += 1;
        let folder = self.vo.recipe("note");
        fs::create_dir_all(&folder).expect("the recipe's folder");
        let manifest = format!(
            "[recipe]\nname = \"atlas/note\"\nversion = \"1.0.{}\"\nsummary = \"A file\"\nbase = [\"debian-12\"]\n\n\
             [[step]]\nfile = {{ path = \"/etc/note\", content = \"{}\\n\", mode = \"0644\" }}\n\n\
             [[test]]\nname = \"is there\"\nrun = \"test -s /etc/note\"\ntimeout = \"10s\"\n",
            self.patch, self.patch
        );
        fs::write(folder.join("recipe.toml"), manifest).expect("the manifest is written");
        let _ = self.vo.sign("note").done();
        self.vo.recipes.commit("The next version");
    }

    /// Starts `authorize` of the version submitted last.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self) -> Authorizing {
        let log = NextLog::of(&self.site);
        let authorize =
            self.site.call(["authorize", &self.daemon.url("recipes"), "--path", "note"]).into_command();
        // The tests themselves may have been started with signals ignored (nohup), and a process inherits that.
        // And whoever calls may have a file open that nothing of ours may touch. By its session all that it starts is known
        // to be its own; it ends with us, for Ctrl-C does not reach it there.
        let mut command = Command::new("bash");
        let script = format!(
            "exec {CALLERS}<{SECRET}; exec setsid setpriv --pdeathsig KILL -- env --default-signal \"$@\""
        );
        command.args(["-c", &script, "bash"]).arg(authorize.get_program()).args(authorize.get_args());
        for (name, value) in authorize.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command
            .stdin(Stdio::null())
            .env("TMPDIR", &self.scratch)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("countersign starts");
        Authorizing { child, start: Instant::now(), log }
    }

    /// Authorizes the version submitted last, to its end.
    ///
    /// # Panics
    /// If the command cannot be started.
    #[must_use]
    pub fn authorize(&self) -> Run {
        self.site.run(["authorize", &self.daemon.url("recipes"), "--path", "note"])
    }

    /// Asserts what must hold at the end of a run however it ended: no lock is held, and no temporary file lies outside the
    /// site's folder.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn nothing_is_held(&self, how: &str) {
        for lock in ["state/site.lock", "state/trust.lock", "state/ledger.jsonl"] {
            if let Ok(file) = fs::File::open(self.site.folder.join(lock)) {
                file.try_lock().unwrap_or_else(|error| panic!("{how}: {lock} is held: {error}"));
            }
        }
        assert_eq!(names(&self.scratch), BTreeSet::new(), "{how}: temporary files");
    }

    /// Asserts that the site holds exactly one authorization of each version submitted, and nothing that none of them names.
    ///
    /// # Panics
    /// If it does not.
    pub fn one_authorization_each(&self, how: &str) {
        let repository = self.site.folder.join("authorizations.git");
        let commits = git(&repository, &["rev-list", "--count", "main"]);
        assert_eq!(commits.trim(), self.patch.to_string(), "{how}: one commit for each version");
        let catalog = self.site.run(["catalog"]).done();
        let listed = catalog.json["authorizations"].as_array().expect("a list").clone();
        assert_eq!(listed.len(), self.patch as usize, "{how}: {listed:#?}");
        assert!(listed.iter().all(|line| line["code"].is_null()), "{how}: all hold: {listed:#?}");
        git(&repository, &["fsck", "--strict", "--no-dangling"]);

        let mut named = BTreeSet::new();
        for patch in 1..=self.patch {
            let path = format!("main:atlas/note/1.0.{patch}/authorization.intoto.jsonl");
            let file = git(&repository, &["show", &path]);
            for layer in statement(&file)["predicate"]["layers"].as_array().expect("layers") {
                named.insert(format!("{}.qcow2", layer["sha256"].as_str().expect("a digest")));
            }
        }
        assert_eq!(names(&self.site.folder.join("layers")), named, "{how}: the layers");
        assert_eq!(names(&self.site.folder.join("run")), BTreeSet::new(), "{how}: run folders");
        assert_eq!(left_over(&self.site.folder), Vec::<PathBuf>::new(), "{how}: half-written files");
        self.nothing_is_held(how);
    }
}

/// A run that was started.
#[derive(Debug)]
pub struct Authorizing {
    child: Child,
    start: Instant,
    log: NextLog,
}

impl Authorizing {
    /// Sends `signal` at that instant and waits until nothing of the run lives any more.
    ///
    /// # Panics
    /// If something lives on too long, or the instant never comes.
    #[must_use]
    pub fn end(mut self, signal: Signal, at: &At) -> Ended {
        let too_late = !self.wait_for(at);
        let (pid, session) = (Pid::from_child(&self.child), self.child.id());
        for below in descendants(self.child.id()) {
            let (seen, callers) = (Instant::now(), format!("/proc/{below}/fd/{CALLERS}"));
            // A child has all that we have until it becomes its program.
            while fs::read_link(&callers).is_ok_and(|path| path == Path::new(SECRET)) {
                assert!(seen.elapsed() < EXEC, "{at:?}: {below} has what the caller opened");
                std::thread::sleep(LOOK);
            }
        }
        if !too_late {
            rustix::process::kill_process(pid, signal).expect("the signal is sent");
        }
        let sent = Instant::now();
        let output = self.child.wait_with_output().expect("it is waited for");
        if signal == Signal::KILL && !too_late {
            let killed = output.status.signal() == Some(9) || output.status.code() == Some(0);
            assert!(killed, "{at:?}: {}", output.status);
        }
        let ended = Instant::now();
        loop {
            let orphans = orphans(session);
            if orphans.is_empty() {
                break;
            }
            assert!(ended.elapsed() < GRACE, "{at:?}: alive after {GRACE:?}: {orphans:?}");
            std::thread::sleep(LOOK);
        }
        Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            too_late,
            gone_after: sent.elapsed(),
        }
    }

    /// Waits for the instant; false if the process ended before it.
    fn wait_for(&mut self, at: &At) -> bool {
        let (event, stage, then) = match at {
            At::After(span) => {
                while self.start.elapsed() < *span {
                    if self.has_ended() {
                        return false;
                    }
                    std::thread::sleep(LOOK);
                }
                return !self.has_ended();
            }
            At::Event(event, stage, then) => (*event, *stage, *then),
        };
        while !self.log.says(event, stage) {
            assert!(self.start.elapsed() < PATIENCE, "{at:?} does not come");
            if self.has_ended() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        let seen = Instant::now();
        while seen.elapsed() < then {
            std::hint::spin_loop();
        }
        !self.has_ended()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is looked at").is_some()
    }
}

/// All processes below this one, the nearest first.
///
/// # Panics
/// If they cannot be listed.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Children of this process that it did not start itself: what the run that had this session left, and what another run did
/// whose session is not known here. Those that ended are reaped.
fn orphans(session: u32) -> Vec<String> {
    let me = std::process::id().to_string();
    let mut alive = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((start, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        let (state, parent, _group) = (fields.next(), fields.next(), fields.next());
        let left = fields.next().and_then(|id| id.parse().ok()) == Some(session);
        let name = start.split_once('(').map_or("", |(_, name)| name);
        // What the test starts itself are these three, and none of them in that session.
        let own = ["countersign", "git-daemon", "git"].contains(&name);
        if parent != Some(me.as_str()) || (own && !left) {
            continue;
        }
        if state == Some("Z") {
            let _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        } else {
            alive.push(format!("{pid} {name} {}", state.unwrap_or_default()));
        }
    }
    alive
}

/// Names that only something unfinished has, anywhere in a site.
fn left_over(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the site").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let unfinished = [".tmp", "tmp_", ".build-", "authorize-", "intake-", "probe-"];
        if unfinished.iter().any(|begin| name.starts_with(begin))
            || name.ends_with(".new")
            || name.ends_with("main.lock")
        {
            found.push(entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(left_over(&entry.path()));
        }
    }
    found
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn git(repository: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).output().expect("git starts");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The statement in the first line of an authorization's file.
fn statement(file: &str) -> Value {
    let envelope: Value = serde_json::from_str(file.lines().next().unwrap_or_default()).expect("an envelope");
    let payload = envelope["payload"].as_str().expect("a payload");
    let bytes = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
    serde_json::from_slice(&bytes).expect("a statement")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_leaves_is_found_whatever_it_is_called() {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("countersign");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut own = Command::new(&program).arg("60").spawn().unwrap();
        let mut run =
            Command::new("setsid").args(["sh", "-c", "\"$1\" 60 &", "sh"]).arg(&program).spawn().unwrap();
        let session = run.id();
        assert!(run.wait().unwrap().success());
        let named = || {
            let mut left = orphans(session);
            left.retain(|line| line.contains(" countersign "));
            left
        };
        let start = Instant::now();
        let left: i32 = loop {
            // Until it becomes its program it has another name.
            match &named()[..] {
                [left] => break left.split(' ').next().unwrap().parse().unwrap(),
                other => assert!(other.is_empty() && start.elapsed() < GRACE, "{other:?}"),
            }
            std::thread::sleep(LOOK);
        };
        assert_ne!(left.cast_unsigned(), own.id(), "what we started ourselves");
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
        while !named().is_empty() {
            assert!(start.elapsed() < GRACE * 2, "{left} lives on");
            std::thread::sleep(LOOK);
        }
        own.kill().unwrap();
        own.wait().unwrap();
    }
}
