//! The folder of one run: everything a killed run leaves lies below it, and the next run sweeps it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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
    pub(super) fn open(site: &Site, _lock: &SiteLock) -> Result<Self, Stopped> {
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
            }
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
