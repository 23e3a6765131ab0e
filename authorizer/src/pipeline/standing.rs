//! What the site decided already: an authorization that still holds answers for the same submission again, so that one
//! submission never has two countersignatures.
//!
//! A submission is the recipe's content and the VO's signature on it, wherever it was fetched from. The authorization
//! holds as long as all that the decision rests on is what it was: base image, site recipes, policy and tests, the
//! program, and that nothing of it is revoked, expired or damaged. If anything differs, the old decision says nothing
//! about today, and a new one replaces it.

use std::fs::File;

use crl::Selector;
use recipe_spec::statement::DigestSet;
use recipe_spec::{Code, RecipePath, Sha256Digest, Timestamp};

use super::revocation::{ask, ask_at_least, selectors_of_site};
use super::scan::ScannedRecipe;
use super::sign::policy_in_force;
use super::{Authorized, Made, site_recipes};
use crate::authorization::{Authorization, AuthorizationPredicate, VerifiedAuthorization};
use crate::base::VerifiedBase;
use crate::publication::{
    self, AUTHORIZATION_FILE, PublicationError, Published, RECIPE_ENVELOPE_FILE, RECIPE_FOLDER,
};
use crate::site::Site;
use crate::stopped::Stopped;

/// Whether the site's last decision about a submission stands.
#[derive(Debug)]
#[must_use]
pub(super) enum Standing {
    /// It does.
    Holds(Authorized),
    /// It does not, because of this.
    Replaced(String),
    /// There was none.
    Nothing,
}

impl Standing {
    /// Asks it of a recipe that was verified and scanned just now.
    ///
    /// # Errors
    /// `REVOKED` for base or site recipes and what the recipe CRL says otherwise, for nothing could be authorized now
    /// either; a site's folder that cannot be read.
    pub(super) fn of(
        scanned: &ScannedRecipe,
        base: &VerifiedBase,
        site: &Site,
        now: Timestamp,
    ) -> Result<Self, Stopped> {
        let info = &scanned.recipe().manifest().recipe;
        let repository = site.layout().authorizations();
        let published = match publication::lookup(&repository, &info.name, Some(&info.version)) {
            Ok(published) => published,
            Err(PublicationError::NotAuthorized { .. }) => return Ok(Self::Nothing),
            Err(error) => return Err(error.into()),
        };
        match holds(&published, scanned, base, site, now)? {
            Ok(authorization) => Ok(Self::Holds(answer(&published, &authorization))),
            Err(why) => Ok(Self::Replaced(why)),
        }
    }
}

/// The authorization if it holds; else why not.
fn holds(
    published: &Published,
    scanned: &ScannedRecipe,
    base: &VerifiedBase,
    site: &Site,
    now: Timestamp,
) -> Result<Result<VerifiedAuthorization, String>, Stopped> {
    let Some(file) = published.file(AUTHORIZATION_FILE) else {
        return Ok(Err(format!("it was published without {AUTHORIZATION_FILE}")));
    };
    let authorization = match Authorization::verify(file, site.pins(), site.id(), now) {
        Ok(authorization) => authorization,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if let Some(other) = other_submission(published, scanned, &authorization) {
        return Ok(Err(other.to_owned()));
    }
    let site_recipes = site_recipes::load(site)?;
    let (_, suite) = site_recipes::suite(site)?;
    let policy = Sha256Digest::of(&policy_in_force(site, suite)?);
    let said = authorization.predicate();
    let same_site_recipes =
        said.site_recipes.iter().map(|recipe| recipe.sha256).eq(site_recipes.iter().map(|r| r.digest()));
    let other = [
        (said.base.name.as_str() != base.name() || said.base.sha256 != base.sha256(), "the base image"),
        (!same_site_recipes, "a site recipe"),
        (said.policy != DigestSet { sha256: policy }, "the policy or the configuration of the tests"),
        (said.builder.version != env!("CARGO_PKG_VERSION"), "the version of countersign"),
    ];
    if let Some((_, what)) = other.into_iter().find(|(differs, _)| *differs) {
        return Ok(Err(format!("{what} is another one now")));
    }
    let _clear = ask(site, &selectors_of_site(base, &site_recipes), now)?;
    let number = said.crls.iter().map(|crl| crl.number).max().unwrap_or(u64::MAX);
    let mut own = vec![Selector::Authorization(authorization.digest())];
    own.extend(Selector::of_signer(authorization.signer()));
    match ask_at_least(site, &own, number, now) {
        Ok(_) => {}
        // Not the recipe is revoked, which was asked before, but this decision about it or who signed it.
        Err(stopped) if stopped.code == Code::Revoked => return Ok(Err(stopped.message)),
        Err(stopped) => return Err(stopped),
    }
    Ok(match damaged_layer(said, site) {
        Some(damage) => Err(damage),
        None => Ok(authorization),
    })
}

/// What was published must be what was verified just now, byte for byte: a deployment reads it from there.
fn other_submission(
    published: &Published,
    scanned: &ScannedRecipe,
    authorization: &VerifiedAuthorization,
) -> Option<&'static str> {
    let verified = scanned.clear().verified();
    let said = &authorization.predicate().recipe;
    let info = &verified.recipe().manifest().recipe;
    if (&said.name, &said.version) != (&info.name, &info.version) {
        return Some("it is another recipe's");
    }
    let envelope = verified.envelope();
    let same = authorization.recipe() == verified.recipe().digest()
        && said.envelope.sha256 == Sha256Digest::of(envelope)
        && published.file(RECIPE_ENVELOPE_FILE) == Some(envelope);
    if !same {
        return Some("it was made for another signature");
    }
    let payload = verified.recipe().payload();
    let beneath =
        |path: &RecipePath| path.as_str().strip_prefix(RECIPE_FOLDER)?.strip_prefix('/').map(str::to_owned);
    let published = published.files.iter().filter_map(|(path, file)| Some((beneath(path)?, file)));
    let intact = published.eq(payload.iter().map(|(path, file)| (path.to_string(), file)));
    (!intact).then_some("the published recipe is damaged")
}

/// A layer that no deployment would accept.
fn damaged_layer(said: &AuthorizationPredicate, site: &Site) -> Option<String> {
    said.layers.iter().find_map(|layer| {
        let path = site.layout().layer(layer.sha256);
        match File::open(&path).and_then(|mut file| Sha256Digest::of_reader(&mut file)) {
            Ok((found, _)) if found == layer.sha256 => None,
            Ok(_) => Some(format!("layer {} is damaged", layer.sha256)),
            Err(error) => Some(format!("layer {} cannot be read: {error}", layer.sha256)),
        }
    })
}

fn answer(published: &Published, authorization: &VerifiedAuthorization) -> Authorized {
    let said = authorization.predicate();
    Authorized {
        name: said.recipe.name.clone(),
        version: said.recipe.version.clone(),
        recipe: authorization.recipe(),
        authorization: authorization.digest(),
        commit: published.commit.clone(),
        source_commit: said.recipe.source.commit.clone(),
        not_after: said.not_after,
        crl_number: said.crls.iter().map(|crl| crl.number).max().unwrap_or_default(),
        made: Made::Before,
    }
}
