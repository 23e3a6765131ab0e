//! The base's own boot, paused: what build machines are clones of, so that no authorization boots the base again.
//!
//! It is found by its key, a digest of all that it was made from, and used by its digest, which names its folder. It decides
//! nothing: what a build machine leaves is judged from outside and booted afresh.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{
    DISK_COMMAND_LINE, DiskSpec, HarnessError, Machine, MachineSpec, Memory, Network, Shape, Start, Template,
    Written,
};
use recipe_spec::manifest::Manifest;
use recipe_spec::{Code, Sha256Digest};

use super::{Machines, await_running};
use crate::base::{DISK_FILE, VerifiedBase};
use crate::interruption::Interruption;
use crate::journal::Journal;
use crate::site::SiteLock;
use crate::stopped::Stopped;

/// Name of the machine that is paused, and of its overlay.
const NAME: &str = "base-template";

/// A base and its own boot, paused.
#[derive(Debug)]
pub(crate) struct RestingBase {
    pub(crate) base: VerifiedBase,
    pub(crate) template: Template,
}

impl Machines<'_> {
    /// The template of `base` for this host's QEMU, this agent and this site's memory; made, if there is none yet. Others of a base of
    /// this name are removed then.
    ///
    /// # Errors
    /// `LAYER_MISMATCH` if the record of the one that is here is damaged; what a boot can end with; `HOST_FULL`.
    pub(crate) fn base_template(
        &self,
        base: VerifiedBase,
        _lock: &SiteLock,
        journal: &mut Journal<'_>,
    ) -> Result<RestingBase, Stopped> {
        let spec = self.base_template_source(&base)?;
        let key = key(&base, &Shape::of(&spec, self.qemu_version()));
        let store = self.site.layout().base_templates(base.name());
        if let Some((folder, sha256)) = find(&store, key)? {
            let template = Template::pinned(&folder, sha256).map_err(|error| made_again(error, &folder))?;
            return Ok(RestingBase { base, template });
        }
        let mut machine = self.start(spec)?;
        journal.cold_boot();
        await_running(&mut machine, self.site, journal)?;
        let kept = self.folder.join("kept-base");
        let sha256 = machine.into_template(&kept).map_err(no_recipes)?.sha256();
        let folder = store.join(format!("{key}.{sha256}"));
        keep(&kept, &store, &folder).map_err(|error| Stopped::io("keep it as", &folder, &error))?;
        let template = Template::pinned(&folder, sha256)?;
        Ok(RestingBase { base, template })
    }

    /// A machine to apply recipes in: a clone of the base's template, awake, without a network card, and with a relay to the origins that
    /// the VO's recipe declares. It writes to two overlays, `vo` and `site`, and what the template had written is in the first.
    ///
    /// # Errors
    /// `LAYER_MISMATCH` if the template is damaged; what the harness says.
    pub(crate) fn building(
        &self,
        RestingBase { base, template }: &RestingBase,
        manifest: &Manifest,
        interruption: &Interruption,
    ) -> Result<Machine, Stopped> {
        let limit = Duration::from_secs(self.site.config().executor.authorize_seconds.get().into());
        let overlays = ["vo", "site"].map(str::to_owned).to_vec();
        let disk = DiskSpec { base: base.pinned(DISK_FILE), layers: Vec::new(), overlays };
        let relay = self.relay(&manifest.network.fetch)?;
        let spec = MachineSpec {
            start: Start::Clone(template.clone(), Written::Copied),
            ..self.spec(base, "build", disk, Network::None, Some(relay), Some(limit))
        };
        let mut machine = self.start(spec).map_err(|error| made_again(error, template.folder()))?;
        let killer = machine.killer();
        interruption.when_asked(move || killer.kill());
        // Nothing reaches this machine or outlives it, so no service is restarted for a secret of its own.
        machine.wake(harness::identity::fresh(template, base.hostname())?).map_err(no_recipes)?;
        Ok(machine)
    }

    /// The machine that is paused: as build machines are, with a relay to nowhere.
    fn base_template_source(&self, base: &VerifiedBase) -> Result<MachineSpec, Stopped> {
        let limit = Duration::from_secs(self.site.config().executor.authorize_seconds.get().into());
        let disk =
            DiskSpec { base: base.pinned(DISK_FILE), layers: Vec::new(), overlays: vec![NAME.to_owned()] };
        let relay = self.relay(&[])?;
        let mut spec = self.spec(base, NAME, disk, Network::None, Some(relay), Some(limit));
        if let Start::Boot(boot) = &mut spec.start {
            boot.memory = Memory::Kept;
        }
        Ok(spec)
    }
}

/// The digest of all that a template of this base is made from.
fn key(base: &VerifiedBase, shape: &Shape) -> Sha256Digest {
    let agent = Sha256Digest::of(harness::AGENT);
    let shape = serde_json::to_string(shape).unwrap_or_default();
    let text = format!(
        "countersign base template v1\nbase {}\nagent {agent}\ncommand line {DISK_COMMAND_LINE}\nshape {shape}\n",
        base.sha256()
    );
    Sha256Digest::of(text.as_bytes())
}

/// What an agent cannot do where no recipe has run yet is no recipe's fault, so it is a failure and no refusal.
fn no_recipes(error: HarnessError) -> Stopped {
    match &error {
        HarnessError::Agent { .. } => Stopped::new(Code::MachineFailed, &error),
        _ => Stopped::from(error),
    }
}

/// What a damaged template is refused with: without it, it is made again.
fn made_again(error: HarnessError, folder: &Path) -> Stopped {
    let stopped = Stopped::from(error);
    match stopped.code {
        Code::LayerMismatch => stopped.hint(format!("remove {}: it is made again", folder.display())),
        _ => stopped,
    }
}

/// The template with this key, and its digest.
fn find(store: &Path, key: Sha256Digest) -> Result<Option<(PathBuf, Sha256Digest)>, Stopped> {
    let found = names(store).map_err(|error| Stopped::io("read", store, &error))?;
    Ok(found.into_iter().find_map(|name| {
        let sha256 = name.strip_prefix(&format!("{key}."))?.parse().ok()?;
        Some((store.join(name), sha256))
    }))
}

/// What lies in a store; nothing in one that was never made. A name that is not UTF-8 is not one of ours.
fn names(store: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let names = entries?.map(|entry| Ok(entry?.file_name().into_string().ok()));
            Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
        }
    }
}

/// Moves a template into its store, whole or not at all, and removes all others: the base, QEMU or agent that they were made from
/// was replaced.
fn keep(kept: &Path, store: &Path, folder: &Path) -> io::Result<()> {
    let others = names(store)?;
    DirBuilder::new().recursive(true).mode(0o700).create(store)?;
    fs::rename(kept, folder)?;
    fs::File::open(store)?.sync_all()?;
    for name in others {
        fs::remove_dir_all(store.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use harness::{AgentError, AgentErrorKind};

    use super::*;

    #[test]
    fn a_base_that_cannot_rest_or_wake_refuses_no_recipe() {
        let error = AgentError { kind: AgentErrorKind::TimedOut, message: "freezing".into() };
        let agent = HarnessError::Agent { machine: NAME.into(), request: "rest", error };
        assert_eq!(no_recipes(agent).code, Code::MachineFailed);
        let full = HarnessError::HostFull { what: "x".into() };
        assert_eq!(no_recipes(full).code, Code::HostFull);
    }

    #[test]
    fn a_template_is_found_by_its_key_and_replaces_those_of_others() {
        let place = tempfile::tempdir().unwrap();
        let store = place.path().join("base-templates/debian-12");
        let digest = |text: &str| Sha256Digest::of(text.as_bytes());
        let (old, new) = (digest("old"), digest("new"));
        assert_eq!(find(&store, old).unwrap(), None);
        for key in [old, new] {
            let kept = place.path().join("kept");
            fs::create_dir(&kept).unwrap();
            fs::write(kept.join("memory"), b"x").unwrap();
            let folder = store.join(format!("{key}.{}", digest("a template")));
            keep(&kept, &store, &folder).unwrap();
            assert_eq!(find(&store, key).unwrap(), Some((folder.clone(), digest("a template"))));
            assert!(folder.join("memory").exists() && !kept.exists());
        }
        assert_eq!(find(&store, old).unwrap(), None);
        assert_eq!(names(&store).unwrap().len(), 1);
        // Something else that lies there is no template, and goes with the next one that is made.
        fs::create_dir(store.join(format!("{old}.not-a-digest"))).unwrap();
        assert_eq!(find(&store, old).unwrap(), None);
    }
}
