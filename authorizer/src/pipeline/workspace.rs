//! The folder of one run: everything a killed run leaves lies below it, and the next run sweeps it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use recipe_spec::Timestamp;

use super::layers;
use crate::events::Event;
use crate::journal::Journal;
use crate::site::{Site, SiteLock};
use crate::stopped::Stopped;

const PREFIX: &str = "authorize-";

/// A folder of its own (0700), gone with this value.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: PathBuf,
}

impl Workspace {
    /// Removes what killed runs left and makes the folder of this one. Who holds the site's lock is alone here.
    pub(super) fn open(
        site: &Site,
        lock: &SiteLock,
        now: Timestamp,
        journal: &mut Journal<'_>,
    ) -> Result<Self, Stopped> {
        let run = site.layout().run();
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| Stopped::io(what, &path, &error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&run).map_err(io("make", &run))?;
        for entry in fs::read_dir(&run).map_err(io("read", &run))? {
            let entry = entry.map_err(io("read", &run))?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(io("remove", &entry.path()))?;
                journal.tell(Event::Note { text: "removed what a killed run left".to_owned() });
            }
        }
        // What cannot be read is said by the sweep.
        let _ = layers::record_published(site, lock, now);
        let text = match layers::sweep(site, lock) {
            Ok(0) => None,
            Ok(count) => Some(format!("removed {count} layers and templates that no authorization names")),
            // Only space is lost. What is wrong with the repository will be said by whoever needs it.
            Err(stopped) => {
                Some(format!("layers and templates that no authorization names are not removed: {stopped}"))
            }
        };
        if let Some(text) = text {
            journal.tell(Event::Note { text });
        }
        let folder = run.join(format!("{PREFIX}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder).map_err(io("make", &folder))?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
