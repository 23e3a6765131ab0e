//! Running the binary.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::disk::SmallDisk;

/// The binary under test, found beside the running program or in the profile's folder above it.
///
/// # Panics
/// If it is not there: it is built by the same make target that runs this.
#[must_use]
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("the running program has a path");
    own.ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("countersign"))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("no binary `countersign` above {}: run `make build` first", own.display()))
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Run {
    /// Exit status; -1 if a signal ended it.
    pub status: i32,
    /// The JSON object on standard output.
    pub json: Value,
    /// Standard error as text.
    pub stderr: String,
}

impl Run {
    /// How a run with this output ended.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        Self {
            status: output.status.code().unwrap_or(-1),
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The published code, if it was refused or failed.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.json["code"].as_str()
    }

    /// Seconds that the command says it took.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.json["seconds"].as_f64().unwrap_or_default()
    }

    /// The tests that failed, as `suite/name`, each with what it found; empty unless the run was refused with `TEST_FAILED`.
    #[must_use]
    pub fn failed_tests(&self) -> BTreeMap<String, Vec<String>> {
        let mut failed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if self.code() != Some("TEST_FAILED") {
            return failed;
        }
        let mut test = String::new();
        for line in self.json["details"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(found) = line.strip_prefix("  ") {
                failed.entry(test.clone()).or_default().push(found.to_owned());
            } else {
                test = line.trim_end_matches(':').to_owned();
                failed.entry(test.clone()).or_default();
            }
        }
        failed
    }

    /// This run, which must have ended with 0.
    ///
    /// # Panics
    /// If it did not, with what it said.
    #[must_use]
    pub fn done(self) -> Self {
        assert_eq!(
            self.status, 0,
            "the command ended with {}: {}\n{:#}",
            self.status, self.stderr, self.json
        );
        self
    }

    /// This run, which must have failed with `code` and exit status 3, said in both places.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn failed(self, code: &str) -> Self {
        assert_eq!(
            (self.status, self.code()),
            (3, Some(code)),
            "expected the failure {code}: {}\n{:#}",
            self.stderr,
            self.json
        );
        assert!(self.stderr.starts_with(code), "standard error starts with the code: {}", self.stderr);
        self
    }

    /// This run, which must have been refused with `code` and exit status 1, said in both places.
    ///
    /// # Panics
    /// If it was not.
    #[must_use]
    pub fn refused(self, code: &str) -> Self {
        assert_eq!(
            (self.status, self.code()),
            (1, Some(code)),
            "expected the refusal {code}: {}\n{:#}",
            self.stderr,
            self.json
        );
        assert!(self.stderr.starts_with(code), "standard error starts with the code: {}", self.stderr);
        self
    }
}

/// A call of the binary with `--format json`.
#[derive(Debug)]
pub struct Countersign {
    command: Command,
}

impl Countersign {
    /// `countersign --format json ARGS…` with an empty standard input.
    #[must_use]
    pub fn new<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(binary());
        command
            .args(["--format", "json"])
            .args(arguments)
            .env_remove("COUNTERSIGN_SITE")
            .env_remove("COUNTERSIGN_PASSPHRASE_FILE")
            .stdin(Stdio::null());
        Self { command }
    }

    /// With more arguments.
    #[must_use]
    pub fn and<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// With a site's folder.
    #[must_use]
    pub fn at(mut self, site: &Path) -> Self {
        self.command.env("COUNTERSIGN_SITE", site);
        self
    }

    /// With the passphrase in `file`.
    #[must_use]
    pub fn passphrase(mut self, file: &Path) -> Self {
        self.command.env("COUNTERSIGN_PASSPHRASE_FILE", file);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(mut self) -> Run {
        Run::of(&self.command.output().expect("countersign starts"))
    }

    /// Runs it to its end where that disk is mounted.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run_on(self, disk: &SmallDisk) -> Run {
        Run::of(&disk.wrap(&self.command).output().expect("countersign starts"))
    }

    /// The command itself, for a test that wants to do more with it than to wait.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }
}
