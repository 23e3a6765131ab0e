//! From what was fetched to a recipe whose signature, signer and version the site accepts.

use recipe_spec::{Code, Limits, Recipe, Timestamp};
use semver::Version;
use signer::{VerifiedSigner, verify_signed_recipe, verify_signed_recipe_at};

use super::revocation::check_clock;
use crate::intake::{Intake, SourceRef};
use crate::ledger::{Asked, Ledger};
use crate::site::{Site, SiteLock};
use crate::stopped::Stopped;

/// A recipe that is what its VO signed, under a version that never had other content here.
#[derive(Debug)]
pub struct VerifiedRecipe {
    recipe: Recipe,
    envelope: Vec<u8>,
    signer: VerifiedSigner,
    source: SourceRef,
    verified_at: Timestamp,
}

impl VerifiedRecipe {
    /// Checks the clock and the form first, then signature, chain and VO, then the ledger, which remembers what it has seen.
    pub(super) fn verify(
        intake: Intake,
        wanted: Option<&Version>,
        site: &Site,
        _lock: &SiteLock,
        now: Timestamp,
    ) -> Result<Self, Stopped> {
        check_clock(site, now)?;
        let envelope = intake.envelope.ok_or_else(|| {
            Stopped::new(Code::BadSignature, "the recipe is not signed: recipe.intoto.jsonl is missing")
                .hint("sign it with `countersign sign` and commit the file")
        })?;
        let recipe = Recipe::from_payload(intake.payload, &Limits::STANDARD)
            .map_err(|error| Stopped::new(error.code(), &error).details(error.report(false)))?;
        let signature = verify_signed_recipe(&envelope, &recipe, site.trust(), now)
            .map_err(|error| Stopped::new(error.code(), error))?;
        let [signer] = signature.signers() else {
            return Err(Stopped::new(
                Code::UntrustedSigner,
                "the recipe has several signatures, and this version accepts exactly one",
            ));
        };
        let signer = signer.clone();
        let info = &recipe.manifest().recipe;
        if let Some(wanted) = wanted.filter(|wanted| **wanted != info.version) {
            return Err(Stopped::new(
                Code::NotAuthorized,
                format!("version {wanted} was asked for, the repository has {}", info.version),
            ));
        }
        let asked = if wanted.is_some() { Asked::ByVersion } else { Asked::Newest };
        let mut ledger = Ledger::open(&site.layout().ledger())?;
        ledger.record_verified(&info.name, &info.version, recipe.digest(), asked, now)?;
        Ok(Self { recipe, envelope, signer, source: intake.source, verified_at: now })
    }

    /// Verifies the signature once more, under what `site` trusts now: the chain as it was when it was first verified,
    /// revocation as it is `now`.
    pub(super) fn verify_again(&self, site: &Site, now: Timestamp) -> Result<(), Stopped> {
        let _ = verify_signed_recipe_at(&self.envelope, &self.recipe, site.trust(), self.verified_at, now)?;
        Ok(())
    }

    /// The recipe.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The VO's envelope, as it was fetched.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Who signed.
    #[must_use]
    pub fn signer(&self) -> &VerifiedSigner {
        &self.signer
    }

    /// Where it came from.
    #[must_use]
    pub fn source(&self) -> &SourceRef {
        &self.source
    }

    /// When the signer's chain was checked.
    #[must_use]
    pub fn verified_at(&self) -> Timestamp {
        self.verified_at
    }

    pub(super) fn detail(&self) -> String {
        format!("{} by {}", self.recipe.manifest().subject_name(), self.signer.subject())
    }
}
