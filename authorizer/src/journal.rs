//! The journal of one run: every event goes to the log file and to whoever watches; stages are timed here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::events::{Event, Stage};
use crate::interruption::{Interruption, interrupted};
use crate::regular_file;
use crate::stopped::Stopped;
use crate::suite::TestResult;

/// Most bytes of one log; what a guest prints beyond it is not kept.
const MAX_LOG: u64 = 64 << 20;

/// How many logs a site keeps, and how many bytes of them together: the newest.
const KEPT_LOGS: usize = 200;
const KEPT_BYTES: u64 = 1 << 30;

/// The end of a log's name.
const LOG_EXTENSION: &str = "jsonl";

/// How long a stage took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    /// The stage.
    pub stage: Stage,
    /// Its seconds.
    pub seconds: f64,
}

/// Where events go.
pub struct Journal<'a> {
    watcher: &'a mut dyn FnMut(&Event),
    log: Option<(PathBuf, File, u64)>,
    start: Instant,
    timings: Vec<Timing>,
    cold_boots: u32,
    interruption: Interruption,
}

impl<'a> Journal<'a> {
    /// A journal that only tells `watcher`.
    pub fn new(watcher: &'a mut dyn FnMut(&Event)) -> Self {
        Self {
            watcher,
            log: None,
            start: Instant::now(),
            timings: Vec::new(),
            cold_boots: 0,
            interruption: Interruption::default(),
        }
    }

    /// Begins no stage any more once this was asked for.
    #[must_use]
    pub fn until(mut self, interruption: &Interruption) -> Self {
        self.interruption = interruption.clone();
        self
    }

    /// What may end the work.
    #[must_use]
    pub fn interruption(&self) -> &Interruption {
        &self.interruption
    }

    /// A new file for [`Journal::log_to`]. It is locked for as long as it is open, so that [`sweep`] leaves it.
    ///
    /// # Errors
    /// As the file system says, also if something is there already.
    pub fn new_log(path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// Also writes every event as a line of JSON, with the seconds since the start, to this new file.
    #[must_use]
    pub fn log_to(mut self, path: &Path, file: File) -> Self {
        self.log = Some((path.to_owned(), file, 0));
        self
    }

    /// The log file, if there is one.
    #[must_use]
    pub fn log_path(&self) -> Option<&Path> {
        self.log.as_ref().map(|(path, ..)| path.as_path())
    }

    /// The stages that ended well so far.
    #[must_use]
    pub fn timings(&self) -> &[Timing] {
        &self.timings
    }

    /// How many machines were booted from nothing.
    #[must_use]
    pub fn cold_boots(&self) -> u32 {
        self.cold_boots
    }

    /// Counts one more machine booted from nothing.
    pub fn cold_boot(&mut self) {
        self.cold_boots += 1;
    }

    /// Tells of an event.
    pub fn tell(&mut self, event: Event) {
        if let Some((_, file, written)) = &mut self.log
            && let Ok(mut line) =
                serde_json::to_vec(&Line { at: self.start.elapsed().as_secs_f64(), event: &event })
        {
            line.push(b'\n');
            *written += line.len() as u64;
            // A log that cannot be written (a full disk) must not change what is decided.
            if *written <= MAX_LOG
                && let Err(error) = file.write_all(&line)
            {
                self.log = None;
                let text = format!("the log ends here, because it cannot be written: {error}");
                (self.watcher)(&Event::Note { text });
            }
        }
        (self.watcher)(&event);
    }

    /// Tells what something in a guest said, if it said anything.
    pub fn tell_output(&mut self, text: String) {
        if !text.is_empty() {
            self.tell(Event::Output { text });
        }
    }

    /// Tells of tests that ended.
    pub fn tell_tests(&mut self, results: &[TestResult]) {
        for result in results {
            self.tell(Event::TestFinished {
                suite: result.suite.clone(),
                name: result.name.clone(),
                passed: result.passed(),
                seconds: result.seconds,
                detail: result.detail.clone(),
            });
        }
    }

    /// Runs one stage; `detail` says its result in a few words.
    ///
    /// # Errors
    /// What `work` says, with the stage noted; `INTERRUPTED`.
    pub fn stage<T>(
        &mut self,
        stage: Stage,
        detail: impl FnOnce(&T) -> String,
        work: impl FnOnce(&mut Self) -> Result<T, Stopped>,
    ) -> Result<T, Stopped> {
        self.tell(Event::StageStarted { stage });
        let start = Instant::now();
        let ended = if self.interruption.asked() { Err(interrupted()) } else { work(self) };
        match ended {
            Ok(value) => {
                let seconds = start.elapsed().as_secs_f64();
                self.timings.push(Timing { stage, seconds });
                self.tell(Event::StageFinished { stage, seconds, detail: detail(&value) });
                Ok(value)
            }
            Err(mut stopped) => {
                // What it died of was done to it: a machine that was ended, say.
                if self.interruption.asked() {
                    stopped = interrupted();
                }
                stopped.stage.get_or_insert(stage);
                Err(stopped)
            }
        }
    }
}

/// Removes the logs in a folder but for the newest 200, of at most 1 GiB together. One that a run still writes is left,
/// and so is what cannot be removed: a run does not fail because of old logs.
pub fn sweep(folder: &Path) {
    sweep_beyond(folder, KEPT_LOGS, KEPT_BYTES);
}

fn sweep_beyond(folder: &Path, most: usize, most_bytes: u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut logs: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let (path, about) = (entry.path(), entry.metadata().ok()?);
            let is_log = about.is_file() && path.extension().is_some_and(|end| end == LOG_EXTENSION);
            if is_log { Some((about.modified().ok()?, path, about.len())) } else { None }
        })
        .collect();
    logs.sort();
    let mut bytes = 0;
    for (newer, (_, path, size)) in logs.iter().rev().enumerate() {
        bytes += size;
        if newer >= most || bytes > most_bytes {
            let over = regular_file::open(path)
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
            if over {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    at: f64,
    #[serde(flatten)]
    event: &'a Event,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use recipe_spec::Code;

    #[test]
    fn the_newest_logs_are_kept_and_what_is_still_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let fill = |mut file: File, age: u64| {
            file.write_all(b"12345678").unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            file
        };
        let there = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        for (name, age) in [("a.jsonl", 10), ("b.jsonl", 50), ("c.jsonl", 30), ("d.jsonl", 20)] {
            fill(File::create(at(name)).unwrap(), age);
        }
        let written = fill(Journal::new_log(&at("e.jsonl")).unwrap(), 60);
        fs::write(at("a note"), "x").unwrap();
        fs::create_dir(at("folder.jsonl")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", at("link.jsonl")).unwrap();
        let others = ["a note", "folder.jsonl", "link.jsonl"];
        let and_others = |logs: &[&'static str]| {
            let mut all = [logs, &others[..]].concat();
            all.sort_unstable();
            all
        };
        sweep(folder.path());
        assert_eq!(there(), and_others(&["a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "e.jsonl"]));
        sweep_beyond(folder.path(), 3, 100);
        assert_eq!(there(), and_others(&["a.jsonl", "c.jsonl", "d.jsonl", "e.jsonl"]));
        sweep_beyond(folder.path(), 3, 17);
        assert_eq!(there(), and_others(&["a.jsonl", "d.jsonl", "e.jsonl"]));
        drop(written);
        sweep(&at("none"));
    }

    #[test]
    fn a_stage_is_told_timed_and_noted_in_its_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let mut seen = Vec::new();
        let mut watcher = |event: &Event| seen.push(event.clone());
        let mut journal = Journal::new(&mut watcher).log_to(&path, Journal::new_log(&path).unwrap());
        assert_eq!(Journal::new_log(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let value = journal.stage(Stage::Scan, |n| format!("{n} findings"), |_| Ok(3)).unwrap();
        assert_eq!(value, 3);
        assert_eq!(journal.timings().len(), 1);
        let stopped = journal
            .stage(
                Stage::Seal,
                |(): &()| String::new(),
                |_| Err(Stopped::new(Code::HostFull, "no space left")),
            )
            .unwrap_err();
        assert_eq!(stopped.stage, Some(Stage::Seal));
        assert_eq!(journal.timings().len(), 1);
        drop(journal);
        assert_eq!(seen.len(), 3);
        let log = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["detail"], "3 findings");
        assert_eq!(lines[2]["event"], "stage-started");
    }
}
