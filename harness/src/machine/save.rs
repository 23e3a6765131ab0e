//! From a machine at rest to a template, and from a template to a clone that is awake.

use std::path::Path;
use std::time::{Duration, Instant};

use guest::control::{Identity, Request};
use serde_json::json;

use super::{EXIT_TIME, MONITOR_TIME, Machine, Sealed, seal};
use crate::error::HarnessError;
use crate::template::Template;
use crate::wire::LONG;

/// A device state is written or read within this time: RAM is not in it.
const STATE_TIME: Duration = Duration::from_secs(60);
/// QEMU is asked again after so long whether it is done.
const PAUSE: Duration = Duration::from_millis(1);

impl Machine {
    /// Brings the guest to rest, pauses the machine for ever and keeps it as a template in a new folder: RAM, device state and what
    /// it has written to its disk, one triple from one pause.
    ///
    /// # Errors
    /// As [`Machine::ping`]; [`HarnessError::BadSpec`] if its memory is not one to be kept, or it has two overlays; `HOST_FULL`.
    /// What was made of the folder is the caller's to remove.
    pub fn into_template(mut self, folder: &Path) -> Result<Template, HarnessError> {
        let bad =
            |reason: &str| HarnessError::BadSpec { machine: self.name.clone(), reason: reason.to_owned() };
        if self.overlays.len() > 1 {
            return Err(bad("a machine with two overlays cannot become a template"));
        }
        let kept = self.kept.take().ok_or_else(|| bad("its memory is not one that can be kept"))?;
        self.done_within(&Request::Rest, "rest", LONG)?;
        self.qmp("stop", json!({}))?;
        self.ignore_shared_memory()?;
        let uri = state_uri(kept.state_set);
        self.qmp("migrate", json!({"uri": uri}))?;
        self.wait_migrated()?;
        let Sealed { overlays } = self.quit()?;
        kept.write(overlays.first().map(std::path::PathBuf::as_path), folder)
    }

    /// Lets a clone go on, as a machine of its own: the agent gives it fresh randomness and this identity before any other of its
    /// processes runs.
    ///
    /// # Errors
    /// As [`Machine::ping`], and [`HarnessError::Agent`]: then none of its processes has run, unless letting them go on was what failed.
    pub fn wake(&mut self, identity: Identity) -> Result<(), HarnessError> {
        self.qmp("cont", json!({}))?;
        self.done(&Request::Wake(identity), "wake")
    }

    /// Reads the device state of its template.
    pub(super) fn load(&mut self, state_set: u32) -> Result<(), HarnessError> {
        self.ignore_shared_memory()?;
        self.qmp("migrate-incoming", json!({"uri": state_uri(state_set)}))?;
        self.wait_migrated()
    }

    /// RAM is a file of its own: it is not copied into the device state.
    fn ignore_shared_memory(&mut self) -> Result<(), HarnessError> {
        let capability = json!({"capability": "x-ignore-shared", "state": true});
        self.qmp("migrate-set-capabilities", json!({"capabilities": [capability]})).map(drop)
    }

    fn wait_migrated(&mut self) -> Result<(), HarnessError> {
        let start = Instant::now();
        loop {
            let answer = self.qmp("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let why = answer["error-desc"].as_str().unwrap_or("no reason given");
                    let reason = format!("its device state was not moved: {}", crate::error::escape(why));
                    return Err(self.failed(reason));
                }
                _ if start.elapsed() > STATE_TIME => {
                    let seconds = STATE_TIME.as_secs();
                    return Err(self.failed(format!("its device state was not moved within {seconds} s")));
                }
                _ => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Ends a paused QEMU in order and seals its overlays.
    fn quit(mut self) -> Result<Sealed, HarnessError> {
        self.leaving.store(true, std::sync::atomic::Ordering::Release);
        self.qmp.execute("quit", json!({}), MONITOR_TIME).map_err(|error| self.monitor_failed(&error))?;
        let ended = self.process.wait(EXIT_TIME.max(MONITOR_TIME));
        if !ended.is_some_and(|status| status.success()) || self.process.fault().is_some() {
            return Err(self.monitor_failed(&crate::qmp::QmpError::Gone));
        }
        self.seal_overlays()
    }

    /// What is left of a machine whose QEMU has ended: its overlays, flushed and read-only.
    pub(super) fn seal_overlays(&self) -> Result<Sealed, HarnessError> {
        let overlays: Vec<_> = self.overlays.iter().map(|(_, path)| path.clone()).collect();
        for path in &overlays {
            seal(path).map_err(|source| HarnessError::system("seal", path, source))?;
        }
        super::sync_folder(&self.run_dir)
            .map_err(|source| HarnessError::system("flush", &self.run_dir, source))?;
        Ok(Sealed { overlays })
    }
}

/// How QEMU names a descriptor that it has got, for its migration.
fn state_uri(set: u32) -> String {
    format!("file:/dev/fdset/{set}")
}
