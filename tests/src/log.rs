//! The log of a run, read while it is written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::site::Site;

/// The log of the run that a site begins next.
#[derive(Debug)]
pub struct NextLog {
    folder: PathBuf,
    before: BTreeSet<PathBuf>,
    path: Option<PathBuf>,
}

impl NextLog {
    /// Of the run that begins after this call.
    ///
    /// # Panics
    /// If the site has no folder of logs.
    #[must_use]
    pub fn of(site: &Site) -> Self {
        let folder = site.folder.join("logs");
        let before = files(&folder);
        Self { folder, before, path: None }
    }

    /// Whether it says by now that the stage was `stage-started` or `stage-finished`.
    ///
    /// # Panics
    /// As [`NextLog::of`].
    pub fn says(&mut self, event: &str, stage: &str) -> bool {
        if self.path.is_none() {
            self.path = files(&self.folder).difference(&self.before).next().cloned();
        }
        let Some(text) = self.path.as_ref().and_then(|path| fs::read_to_string(path).ok()) else {
            return false;
        };
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.any(|line| line["event"] == event && line["stage"] == stage)
    }
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(folder).expect("the folder of logs").flatten().map(|entry| entry.path()).collect()
}
