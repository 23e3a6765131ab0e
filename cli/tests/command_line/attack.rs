//! A site under attack: what a command says of it, and that it leaves nothing behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use recipe_spec::{Recipe, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::minted::Minted;
use crate::world::{Run, World};

/// What no refusal takes as long as.
const PATIENCE: Duration = Duration::from_secs(30);

/// The machine's own clock, which the binary reads.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix(since.as_secs().try_into().unwrap())
}

/// A site with one authorization, and a folder for the VO's repository.
pub(crate) struct Attack {
    pub(crate) minted: Minted,
    pub(crate) world: World,
}

impl Attack {
    pub(crate) fn on(minted: Minted) -> Self {
        let attack = Self { minted, world: World::new() };
        // The locks' files are there from the first command on.
        attack.run("crl verify");
        attack.run("authorize nowhere");
        attack
    }

    /// Writes a recipe with any envelope into the repository.
    pub(crate) fn recipe(&self, folder: &str, recipe: &Recipe, envelope: &[u8]) {
        for (path, file) in recipe.payload().iter() {
            self.write(&format!("{folder}/{path}"), &file.bytes);
        }
        self.write(&format!("{folder}/recipe.intoto.jsonl"), envelope);
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.world.path("recipes").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Commits what is in the repository's folder.
    pub(crate) fn commit(&self) {
        let git = |arguments: &[&str]| {
            let run = Command::new("git")
                .current_dir(self.world.path("recipes"))
                .args(["-c", "user.name=VO", "-c", "user.email=vo@example.org", "-c", "core.compression=1"])
                .args(arguments)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .output()
                .unwrap();
            assert!(run.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
        };
        git(&["init", "--quiet", "--initial-branch=main"]);
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "Recipes"]);
    }

    /// Runs a command of the site, which must end within [`PATIENCE`].
    pub(crate) fn run(&self, arguments: &str) -> Run {
        let site = self.minted.layout().root().display().to_string();
        let mut child = self
            .world
            .command(&format!("--site {site} --format json {arguments}"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{arguments}: no end after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Run::of(&child.wait_with_output().unwrap())
    }

    /// Runs what must end with this status and code, said in both places, and leave the site as it was.
    #[track_caller]
    pub(crate) fn ends(&self, status: i32, code: &str, arguments: &str) -> Value {
        let before = self.snapshot();
        let run = self.run(arguments);
        assert_eq!(run.status, status, "{arguments}: {}{}", run.stderr, run.stdout);
        assert!(run.stderr.starts_with(&format!("{code}: ")), "{arguments}: {}", run.stderr);
        let value = run.json();
        assert_eq!(value["code"], code, "{arguments}: {value}");
        assert_eq!(value["result"], if status == 1 { "refused" } else { "failed" }, "{arguments}");
        self.nothing_is_left(&before, arguments);
        value
    }

    #[track_caller]
    pub(crate) fn refused(&self, code: &str, arguments: &str) -> Value {
        self.ends(1, code, arguments)
    }

    /// Everything in the site's folder but the logs, which every run adds to, and the digests, which may be forgotten at any time.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        walk(self.minted.layout().root(), &mut found);
        let layout = self.minted.layout();
        found.retain(|path, _| !path.starts_with(layout.logs()) && *path != layout.digests());
        found
    }

    /// The site is as it was, or stricter: the ledger can have grown. No lock is held and no run's folder is there.
    #[track_caller]
    fn nothing_is_left(&self, before: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
        let after = self.snapshot();
        let layout = self.minted.layout();
        let names = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(before), "{what}");
        for (path, bytes) in &after {
            if *path == layout.ledger() {
                assert!(bytes.starts_with(&before[path]), "{what}: the ledger lost something");
            } else {
                assert!(*bytes == before[path], "{what}: {} changed", path.display());
            }
        }
        assert_eq!(fs::read_dir(layout.run()).unwrap().count(), 0, "{what}");
        for lock in
            [layout.lock(), layout.trust_lock(), layout.ledger(), layout.crl_seen().join("crl-seen.lock")]
        {
            if fs::symlink_metadata(&lock).is_ok_and(|about| about.is_file()) {
                let file = File::open(&lock).unwrap();
                assert!(
                    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
                    "{what}: {}",
                    lock.display()
                );
            }
        }
    }
}

/// Regular files by their bytes (large ones by their length), everything else by its kind.
fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let about = fs::symlink_metadata(&path).unwrap();
        let content = if about.is_dir() {
            walk(&path, found);
            b"a folder".to_vec()
        } else if about.is_file() && about.len() < 1 << 20 {
            fs::read(&path).unwrap()
        } else {
            format!("{:?}, {} bytes", about.file_type(), about.len()).into_bytes()
        };
        found.insert(path, content);
    }
}
