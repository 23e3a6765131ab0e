//! The pipeline on one screen: each stage takes the last one's evidence and gives its own, so none can be skipped.
//!
//! ```text
//! Intake → VerifiedRecipe → NotRevoked → ScannedRecipe → (Standing) → Sealed → Inspected → Tested → Authorization
//! ```

mod build;
mod inspect;
mod layers;
mod revocation;
mod scan;
mod sign;
mod site_recipes;
mod standing;
mod trial;
mod verify;
mod workspace;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crl::Clear;
use harness::Qemu;
use recipe_spec::path::RecipePath;
use recipe_spec::{Code, Limits, Recipe, RecipeName, Sha256Digest, Timestamp};
use semver::Version;
use serde::Serialize;
use signer::Signer;

use crate::base::{self, VerifiedBase};
use crate::events::{Event, Stage};
use crate::intake::{self, FetchLimits, Source};
use crate::journal::Journal;
use crate::machines::{Machines, RestingBase, workers};
use crate::site::{Site, SiteLock};
use crate::stopped::Stopped;

pub use build::{AppliedStep, Layer, Sealed};
pub use inspect::{DISK_JOB, Inspected};

pub use revocation::{CLOCK_HINT, NotRevoked, ask_at_least, check_clock};
pub use scan::ScannedRecipe;
pub use trial::Tested;
pub use verify::VerifiedRecipe;

use standing::Standing;
use workspace::Workspace;

/// What is to be authorized.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where the repository is.
    pub source: Source,
    /// The recipe's folder inside it; the top if absent.
    pub path: Option<RecipePath>,
    /// The one version to accept, which then may be below the highest authorized one.
    pub version: Option<Version>,
    /// What an authorization that holds already means.
    pub standing: IfStanding,
}

/// What to do where the site has authorized this very submission before, and that still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfStanding {
    /// It is the answer: nothing is built.
    Answer,
    /// A person wants a new decision, with today's packages say, which replaces it.
    DecideAgain,
}

/// When an authorization was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Made {
    /// By this run.
    Now,
    /// By an earlier one: it holds, so nothing was built.
    Before,
}

/// What an authorization ended with.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorized {
    /// The recipe's name.
    pub name: RecipeName,
    /// Its version.
    pub version: Version,
    /// Its digest.
    pub recipe: Sha256Digest,
    /// Digest of the authorization's statement: what a revocation names it by.
    pub authorization: Sha256Digest,
    /// The commit of the site's repository that holds it.
    pub commit: String,
    /// The commit of the VO's repository that it was made from.
    pub source_commit: String,
    /// Until when it can be deployed.
    pub not_after: Timestamp,
    /// Number of the recipe CRL that it was made under.
    pub crl_number: u64,
    /// Whether this run made it.
    pub made: Made,
}

/// Takes a recipe through all stages. `clock` is read once for each decision.
///
/// # Errors
/// [`Stopped`], with the code and the stage. Nothing is published then, and no machine is left.
pub fn authorize(
    job: &Job,
    site: &Site,
    lock: &SiteLock,
    countersigner: &Signer,
    clock: &dyn Fn() -> Timestamp,
    journal: &mut Journal<'_>,
) -> Result<Authorized, Stopped> {
    let workspace = Workspace::open(site, lock, clock(), journal)?;
    let intake = journal.stage(Stage::Intake, intake_detail, |journal| {
        let (job, workers, folder) = (job.clone(), workers(site), workspace.path().to_owned());
        let until = Arc::clone(&workers.until);
        journal.interruption().when_asked(move || until.store(true, Ordering::Relaxed));
        let fetched = journal.interruption().unless_asked(move || {
            let (source, path) = (&job.source, job.path.as_ref());
            intake::fetch(source, path, &Limits::STANDARD, &FetchLimits::STANDARD, &workers, &folder)
        });
        Ok(fetched??)
    })?;
    let verified = journal.stage(Stage::Verify, VerifiedRecipe::detail, |_| {
        VerifiedRecipe::verify(intake, job.version.as_ref(), site, lock, clock())
    })?;
    let clear = journal
        .stage(Stage::Revocation, NotRevoked::detail, |_| NotRevoked::check(verified, site, clock()))?;
    let scanned = journal
        .stage(Stage::Scan, ScannedRecipe::detail, |_| ScannedRecipe::scan(clear, &site.config().policy))?;
    let base = journal.stage(
        Stage::Base,
        |base: &VerifiedBase| base.name().to_owned(),
        |_| base_for(scanned.recipe(), site, clock()),
    )?;
    if job.standing == IfStanding::Answer
        && let Some(authorized) = journal.stage(Stage::Standing, standing_detail, |journal| {
            standing(&scanned, &base, site, clock(), journal)
        })?
    {
        return Ok(authorized);
    }
    let machines = journal.stage(Stage::Machines, Machines::described, |journal| {
        Machines::prepare(site, &base, Qemu::find()?, workspace.path(), journal)
    })?;
    let site_recipes = site_recipes::load_unrevoked(site, &base, clock())?;
    let resting = journal.stage(
        Stage::BaseTemplate,
        |resting: &RestingBase| format!("template {}", resting.template.sha256()),
        |journal| machines.base_template(base, lock, journal),
    )?;
    // One for all that the recipe can make long: its steps, its boot and its tests.
    let deadline =
        Instant::now() + Duration::from_secs(site.config().executor.authorize_seconds.get().into());
    let sealed = build::build(scanned, resting, site_recipes, site, &machines, deadline, journal)?;
    let inspected = inspect::inspect(sealed, site, &machines, journal)?;
    let tested = trial::run(inspected, site, &machines, workspace.path(), deadline, journal)?;
    let current = journal.stage(
        Stage::RevocationAgain,
        |c: &Clear| format!("number {}", c.number),
        |_| tested.check_revocation(site, clock()),
    )?;
    let signed = journal.stage(Stage::Countersign, sign::Signed::detail, |_| {
        sign::countersign(tested, &current, site, &machines, countersigner, clock())
    })?;
    journal.stage(Stage::Publish, Authorized::detail, |_| signed.publish(site, lock, clock()))
}

/// The first of the recipe's bases that the site has, verified from its bytes.
fn base_for(recipe: &Recipe, site: &Site, now: Timestamp) -> Result<VerifiedBase, Stopped> {
    let wanted = &recipe.manifest().recipe.base;
    let Some(folder) = wanted.iter().find_map(|name| site.base(name).filter(|folder| folder.exists())) else {
        let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        return Err(Stopped::new(
            Code::BaseMismatch,
            format!("this site has no base image {}", names.join(" or ")),
        )
        .hint("build one with `countersign base build`"));
    };
    Ok(base::verify(&folder, site.pins(), now)?)
}

/// The authorization that answers for this submission already; why an earlier one does not is said aloud.
fn standing(
    scanned: &ScannedRecipe,
    base: &VerifiedBase,
    site: &Site,
    now: Timestamp,
    journal: &mut Journal<'_>,
) -> Result<Option<Authorized>, Stopped> {
    match Standing::of(scanned, base, site, now)? {
        Standing::Holds(authorized) => Ok(Some(authorized)),
        Standing::Replaced(why) => {
            let text = format!("the authorization of this version does not stand, it is decided anew: {why}");
            journal.tell(Event::Note { text });
            Ok(None)
        }
        Standing::Nothing => Ok(None),
    }
}

fn standing_detail(standing: &Option<Authorized>) -> String {
    match standing {
        Some(authorized) => format!("already authorized until {}", authorized.not_after),
        None => "none holds".to_owned(),
    }
}

fn intake_detail(intake: &intake::Intake) -> String {
    let commit = intake.source.commit.get(..12).unwrap_or(&intake.source.commit);
    format!("{} files at commit {commit}", intake.payload.iter().len())
}
