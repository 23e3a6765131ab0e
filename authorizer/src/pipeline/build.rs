//! Base image, VO's recipe, site's recipes, and both once more: from a scanned recipe to two sealed layers.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{AgentErrorKind, DiskSpec, HarnessError, Machine, Output, Pinned, StepOutcome};
use recipe_spec::manifest::{DECLARED_FILE, Manifest, Step, StepKind};
use recipe_spec::{Code, Payload, Recipe, Sha256Digest};
use serde::Serialize;

use super::scan::ScannedRecipe;
use crate::authorization::LayerRole;
use crate::base::{DISK_FILE, VerifiedBase};
use crate::events::{Event, Stage};
use crate::journal::Journal;
use crate::machines::{Machines, RestingBase};
use crate::site::Site;
use crate::stopped::Stopped;

/// Where a recipe's files lie in the guest while it is applied.
const PAYLOAD: &str = "/run/countersign/payload";

/// The VO's folder in [`PAYLOAD`].
const VO_FOLDER: &str = "vo";

/// The folder in [`PAYLOAD`] of one of the site's recipes, counted from 0.
fn site_folder(number: usize) -> String {
    format!("site-{number}")
}

/// A sealed layer: read-only, owned by the site, named by its digest.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Who made it.
    pub role: LayerRole,
    /// Digest of all inputs; it finds a layer and proves nothing.
    pub key: Sha256Digest,
    /// Digest of its bytes.
    pub sha256: Sha256Digest,
    /// Where it lies.
    pub path: PathBuf,
}

/// What one step did, for the evidence.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedStep {
    /// `VO/name@version` of the recipe.
    pub recipe: String,
    /// Line of the step in its manifest.
    pub line: usize,
    /// Kind and object.
    pub step: String,
    /// As the build machine said: for people, it proves nothing.
    pub outcome: StepOutcome,
    /// How long it took.
    pub seconds: f64,
}

/// A disk on which both recipes were applied; the machine that did it is gone.
#[derive(Debug)]
pub struct Sealed {
    pub(super) scanned: ScannedRecipe,
    pub(super) base: VerifiedBase,
    /// Of the base's boot that the build machine went on from.
    pub(super) base_template: Sha256Digest,
    pub(super) site_recipes: Vec<Recipe>,
    pub(super) layers: [Layer; 2],
    pub(super) steps: Vec<AppliedStep>,
    pub(super) fetched: Vec<Event>,
}

impl Sealed {
    /// The disk as machines get it, with these new overlays on top.
    pub(super) fn disk(&self, overlays: &[&str]) -> DiskSpec {
        DiskSpec {
            base: self.base.pinned(DISK_FILE),
            layers: self.pinned_layers(),
            overlays: overlays.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The layers, bottom up, each with the digest that a launch checks.
    fn pinned_layers(&self) -> Vec<Pinned> {
        self.layers.iter().map(|layer| Pinned::new(&layer.path, layer.sha256)).collect()
    }
}

/// Starts a build machine, applies the recipes, and seals the disk.
pub(super) fn build(
    scanned: ScannedRecipe,
    resting: RestingBase,
    site_recipes: Vec<Recipe>,
    site: &Site,
    machines: &Machines<'_>,
    deadline: Instant,
    journal: &mut Journal<'_>,
) -> Result<Sealed, Stopped> {
    let recipe = scanned.clear().verified().recipe();
    let keys = layer_keys(&resting.base, recipe, &site_recipes, machines.qemu_version());

    let mut machine = journal.stage(
        Stage::Boot,
        |_: &Machine| machines.described(),
        |journal| {
            let mut machine = machines.building(&resting, recipe.manifest(), journal.interruption())?;
            machine.open_relay()?;
            Ok(machine)
        },
    )?;
    let mut applying = Applying {
        site,
        machine: &mut machine,
        machines,
        deadline,
        downloaded: BTreeSet::new(),
        steps: Vec::new(),
    };
    journal.stage(
        Stage::ApplyVo,
        |count| format!("{count} steps"),
        |journal| {
            applying.apply(recipe.manifest(), recipe.payload(), VO_FOLDER, journal)?;
            applying.machine.freeze()?;
            applying.machine.switch_overlay()?;
            applying.machine.thaw()?;
            Ok(recipe.manifest().steps.len())
        },
    )?;
    journal.stage(
        Stage::ApplySite,
        |count| format!("{count} recipes"),
        |journal| {
            let declared = serde_json::to_vec(&recipe.manifest().declared()).map_err(Stopped::internal)?;
            applying.machine.write_file(DECLARED_FILE, 0o644, &declared)?;
            for (number, site_recipe) in site_recipes.iter().enumerate() {
                let folder = site_folder(number);
                applying.apply(site_recipe.manifest(), site_recipe.payload(), &folder, journal)?;
            }
            Ok(site_recipes.len())
        },
    )?;
    journal.stage(
        Stage::ApplyAgain,
        |count| format!("{count} steps changed nothing"),
        |journal| {
            let recipes = std::iter::once((recipe, VO_FOLDER.to_owned()))
                .chain(site_recipes.iter().enumerate().map(|(number, recipe)| (recipe, site_folder(number))));
            let mut count = 0;
            for (recipe, folder) in recipes {
                applying.apply_again(recipe.manifest(), &folder, journal)?;
                count += recipe.manifest().steps.len();
            }
            Ok(count)
        },
    )?;
    let steps = applying.steps;
    let fetched = machines.drain_fetched(journal);
    let layers = journal.stage(Stage::Seal, sealed_detail, |_| {
        machine.close_relay()?;
        machine.sync()?;
        let sealed = machine.power_off(machines.power_off_limit())?;
        let [vo, site_layer] = sealed.overlays.as_slice() else {
            return Err(Stopped::new(Code::MachineFailed, "the build machine did not leave two overlays"));
        };
        Ok([take(vo, LayerRole::Vo, keys[0])?, take(site_layer, LayerRole::Site, keys[1])?])
    })?;
    let RestingBase { base, template } = resting;
    Ok(Sealed { scanned, base, base_template: template.sha256(), site_recipes, layers, steps, fetched })
}

fn sealed_detail(layers: &[Layer; 2]) -> String {
    let size = |layer: &Layer| fs::metadata(&layer.path).map_or(0, |m| m.len()) >> 20;
    format!("VO layer {} MiB, site layer {} MiB", size(&layers[0]), size(&layers[1]))
}

/// A build machine that recipes are applied to.
struct Applying<'a, 'm> {
    site: &'a Site,
    machine: &'a mut Machine,
    machines: &'a Machines<'m>,
    deadline: Instant,
    /// Where the content of `download` steps lies in the guest.
    downloaded: BTreeSet<String>,
    steps: Vec<AppliedStep>,
}

impl Applying<'_, '_> {
    fn apply(
        &mut self,
        manifest: &Manifest,
        payload: &Payload,
        folder: &str,
        journal: &mut Journal<'_>,
    ) -> Result<(), Stopped> {
        let root = format!("{PAYLOAD}/{folder}");
        for (path, file) in payload.iter() {
            let mode = if file.executable { 0o755 } else { 0o644 };
            self.machine.write_file(&format!("{root}/{path}"), mode, &file.bytes)?;
        }
        for (index, step) in manifest.steps.iter().enumerate() {
            let applied = self.apply_step(manifest, step, index + 1, &root, journal)?;
            self.steps.push(applied);
        }
        Ok(())
    }

    /// Applies what was applied, and refuses what then still changes something, or fails.
    fn apply_again(
        &mut self,
        manifest: &Manifest,
        folder: &str,
        journal: &mut Journal<'_>,
    ) -> Result<(), Stopped> {
        let root = format!("{PAYLOAD}/{folder}");
        for (index, step) in manifest.steps.iter().enumerate() {
            match self.apply_step(manifest, step, index + 1, &root, journal) {
                Ok(AppliedStep { outcome: StepOutcome::Unchanged, .. }) => {}
                Ok(AppliedStep { recipe, .. }) => return Err(restless(&recipe, step)),
                Err(stopped) if stopped.code == Code::ApplyFailed && Instant::now() < self.deadline => {
                    let message = format!("applied once more, a step fails: {}", stopped.message);
                    return Err(Stopped { code: Code::NotIdempotent, message, ..stopped });
                }
                Err(stopped) => return Err(stopped),
            }
        }
        Ok(())
    }

    fn apply_step(
        &mut self,
        manifest: &Manifest,
        step: &Step,
        number: usize,
        root: &str,
        journal: &mut Journal<'_>,
    ) -> Result<AppliedStep, Stopped> {
        let recipe = manifest.subject_name();
        let described = step.kind.to_string();
        journal.tell(Event::StepStarted {
            recipe: recipe.clone(),
            number,
            of: manifest.steps.len(),
            step: described.clone(),
        });
        let start = Instant::now();
        let left = self.deadline.saturating_duration_since(start);
        if left.is_zero() {
            return Err(Stopped::new(Code::ApplyFailed, "the time limit for one authorization was reached")
                .hint("authorize_seconds in site.toml"));
        }
        if let StepKind::Download(download) = &step.kind {
            let place = format!("{root}/.download/{}", download.sha256);
            if !self.downloaded.contains(&place) {
                let content = self.machines.download(&download.url, download.sha256, journal)?;
                self.machine.write_file(&place, 0o644, &content)?;
                self.downloaded.insert(place);
            }
        }
        let limit = left.min(step_limit(&step.kind, self.site));
        let mut tail = Tail::default();
        let applied = self.machine.apply(&step.kind, root, limit, &mut |output| {
            let (Output::Stdout(bytes) | Output::Stderr(bytes)) = output;
            let text = String::from_utf8_lossy(bytes).into_owned();
            tail.push(&text);
            journal.tell(Event::Output { text });
        });
        self.machines.drain_fetched(journal);
        let outcome = applied.map_err(|error| failed(error, &recipe, step, &described, &tail))?;
        let seconds = start.elapsed().as_secs_f64();
        let changed = outcome == StepOutcome::Changed;
        journal.tell(Event::StepFinished { recipe: recipe.clone(), number, changed, seconds });
        Ok(AppliedStep { recipe, line: step.line, step: described, outcome, seconds })
    }
}

/// A step that was applied, as were all after it, and is not done.
fn restless(recipe: &str, step: &Step) -> Stopped {
    let message = format!(
        "{recipe}, recipe.toml line {}: {}: applied once more, it changed something again",
        step.line, step.kind
    );
    let hint = match &step.kind {
        StepKind::Run(_) => "after the script has run, its `creates` must be there, or its `unless` succeed",
        StepKind::Service(_) => {
            "the service does not stay as the step says: another step or the site's recipe may undo it, or it ends by itself \
             (a `oneshot` needs `RemainAfterExit=yes`)"
        }
        _ => "another step, or the site's recipe, undoes what this one does",
    };
    Stopped::new(Code::NotIdempotent, message).hint(hint)
}

fn failed(error: HarnessError, recipe: &str, step: &Step, described: &str, tail: &Tail) -> Stopped {
    let HarnessError::Agent { error: agent, .. } = &error else { return Stopped::from(error) };
    let stopped = Stopped::new(
        Code::ApplyFailed,
        format!("{recipe}, recipe.toml line {}: {described}: {}", step.line, agent.message),
    )
    .details(&tail.0);
    match agent.kind {
        AgentErrorKind::ToolMissing => {
            stopped.hint("install it with a `package` step before, or use a base that has it")
        }
        AgentErrorKind::TimedOut => stopped.hint("step_seconds in site.toml, or the step's own `timeout`"),
        _ => stopped,
    }
}

/// The end of a step's output, for its error.
#[derive(Default)]
struct Tail(String);

impl Tail {
    const BYTES: usize = 4096;

    fn push(&mut self, text: &str) {
        self.0.push_str(text);
        if self.0.len() > 2 * Self::BYTES {
            let mut cut = self.0.len() - Self::BYTES;
            while !self.0.is_char_boundary(cut) {
                cut += 1;
            }
            self.0.drain(..cut);
        }
    }
}

/// A `run` step names its own time; the site's limit bounds it.
fn step_limit(kind: &StepKind, site: &Site) -> Duration {
    let limit = Duration::from_secs(site.config().executor.step_seconds.get().into());
    match kind {
        StepKind::Run(run) => limit.min(run.timeout.duration()),
        _ => limit,
    }
}

/// Keys of both layers: the digest of everything that a layer is made from.
pub(super) fn layer_keys(
    base: &VerifiedBase,
    recipe: &Recipe,
    site_recipes: &[Recipe],
    qemu_version: &str,
) -> [Sha256Digest; 2] {
    let vo = Sha256Digest::of(
        format!(
            "countersign layer v1\nbase {}\nrecipe {}\nagent {}\nqemu {}\n",
            base.sha256(),
            recipe.digest(),
            Sha256Digest::of(harness::AGENT),
            qemu_version
        )
        .as_bytes(),
    );
    let mut text = format!("countersign layer v1\nparent {vo}\n");
    for site_recipe in site_recipes {
        text.push_str(&format!("recipe {}\n", site_recipe.digest()));
    }
    [vo, Sha256Digest::of(text.as_bytes())]
}

/// Takes an overlay that QEMU wrote: owned by us, read-only, hashed.
///
/// QEMU has ended and its user has no other process, so nobody holds the file open for writing any more.
fn take(overlay: &Path, role: LayerRole, key: Sha256Digest) -> Result<Layer, Stopped> {
    let io = |error: std::io::Error| Stopped::io("take the layer", overlay, &error);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    std::os::unix::fs::chown(overlay, Some(uid), Some(gid)).map_err(io)?;
    fs::set_permissions(overlay, fs::Permissions::from_mode(0o444)).map_err(io)?;
    let mut file = fs::File::open(overlay).map_err(io)?;
    file.sync_all().map_err(io)?;
    let (sha256, _) = Sha256Digest::of_reader(&mut file).map_err(io)?;
    Ok(Layer { role, key, sha256, path: overlay.to_owned() })
}

#[cfg(test)]
mod tests {
    use harness::{AgentError, AgentErrorKind};
    use recipe_spec::manifest::Manifest;

    use super::*;

    #[test]
    fn a_step_that_is_never_done_says_what_to_do() {
        let text = "[recipe]\nname = \"atlas/x\"\nversion = \"1.0.0\"\nsummary = \"x\"\nbase = [\"debian-12\"]\n\
                    [[step]]\npackage = [\"hello\"]\n[[step]]\nservice = { name = \"x\", running = true }\n\
                    [[step]]\nrun = { script = \"a.sh\", creates = \"/srv/x\" }\n";
        let manifest = Manifest::parse(text).unwrap();
        let wanted = ["undoes what this one does", "RemainAfterExit=yes", "its `creates` must be there"];
        for (step, wanted) in manifest.steps.iter().zip(wanted) {
            let stopped = restless("atlas/x@1.0.0", step);
            assert_eq!(stopped.code, Code::NotIdempotent);
            assert!(stopped.message.contains(&format!("line {}: {}: ", step.line, step.kind)), "{stopped:?}");
            assert!(stopped.hints[0].contains(wanted), "{stopped:?}");
        }
    }

    /// What an authorization says of a step, for each way in which it can end.
    #[test]
    fn a_step_that_fails_is_the_recipes_and_a_lost_machine_is_judged_as_it_was_lost() {
        let text = "[recipe]\nname = \"atlas/x\"\nversion = \"1.0.0\"\nsummary = \"x\"\nbase = [\"debian-12\"]\n\
                    [[step]]\npackage = [\"hello\"]\n";
        let manifest = Manifest::parse(text).unwrap();
        let step = &manifest.steps[0];
        let judge =
            |error| failed(error, "atlas/x@1.0.0", step, "package hello", &Tail("the tool's output".into()));
        let agent = |kind| {
            let error = AgentError { kind, message: "No space left on device (os error 28)".into() };
            HarnessError::Agent { machine: "build".into(), request: "apply", error }
        };
        for kind in [AgentErrorKind::System, AgentErrorKind::ToolFailed, AgentErrorKind::TimedOut] {
            let stopped = judge(agent(kind));
            assert_eq!(stopped.code, Code::ApplyFailed);
            assert!(
                stopped.message.contains("recipe.toml line 7: package hello: No space left"),
                "{}",
                stopped.message
            );
            assert_eq!(stopped.details, "the tool's output");
        }
        let (machine, console) = ("build".to_owned(), "last line".to_owned());
        let lost = HarnessError::ControlLost {
            machine: machine.clone(),
            reason: "x".into(),
            console: console.clone(),
        };
        let died = HarnessError::MachineFailed { machine, reason: "QEMU ended".into(), console };
        let full = HarnessError::HostFull { what: "x".into() };
        for (error, code) in [(lost, Code::ControlLost), (died, Code::MachineFailed), (full, Code::HostFull)]
        {
            assert_eq!(judge(error).code, code);
        }
    }
}
