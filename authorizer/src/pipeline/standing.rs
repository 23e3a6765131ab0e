//! What the site decided already: an authorization that still holds answers for the same submission again, so that one
//! submission never has two countersignatures.
//!
//! A submission is the recipe's content and the VO's signature on it, wherever it was fetched from. The authorization
//! holds as long as all that the decision rests on is what it was: base image, site recipes, policy and tests, the
//! program, and that nothing of it is revoked, expired or damaged. If anything differs, the old decision says nothing
//! about today, and a new one replaces it.

use crl::Selector;
use harness::artifact::check_layer;
use harness::{Pinned, Qemu, Template};
use recipe_spec::statement::DigestSet;
use recipe_spec::{Code, Sha256Digest, Timestamp};
use signer::verify_signed_recipe_at;

use super::build::layer_keys;
use super::revocation::{ask, ask_at_least, selectors_of_site};
use super::scan::ScannedRecipe;
use super::sign::policy_in_force;
use super::{Authorized, Made, site_recipes};
use crate::authorization::{Authorization, VerifiedAuthorization};
use crate::base::VerifiedBase;
use crate::machines;
use crate::publication::{
    self, AUTHORIZATION_FILE, PublicationError, Published, PublishedPath, RECIPE_ENVELOPE_FILE, RECIPE_FOLDER,
};
use crate::site::{Layout, Site};
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
    let verified = scanned.clear().verified();
    let said = authorization.predicate();
    // As a deployment does: today's anchors may know nothing of the moment at which the site judged the chain.
    let judged_at = said.recipe.signer.chain_valid_at;
    let signature =
        match verify_signed_recipe_at(verified.envelope(), verified.recipe(), site.trust(), judged_at, now) {
            Ok(signature) => signature,
            Err(error) => return Ok(Err(error.to_string())),
        };
    if signature.signers().iter().any(|signer| signer.spki_sha256() != said.recipe.signer.spki.sha256) {
        return Ok(Err("it names another signer".to_owned()));
    }
    let site_recipes = site_recipes::load(site)?;
    let (_, suite) = site_recipes::suite(site)?;
    let policy = Sha256Digest::of(&policy_in_force(site, suite)?);
    let same_site_recipes =
        said.site_recipes.iter().map(|recipe| recipe.sha256).eq(site_recipes.iter().map(|r| r.digest()));
    let keys = layer_keys(base, verified.recipe(), &site_recipes, &said.builder.qemu);
    let other = [
        (said.base.name.as_str() != base.name() || said.base.sha256 != base.sha256(), "the base image"),
        (!same_site_recipes, "a site recipe"),
        (said.policy != DigestSet { sha256: policy }, "the policy or the configuration of the tests"),
        (said.builder.version != env!("CARGO_PKG_VERSION"), "the version of countersign"),
        (!said.layers.iter().map(|layer| layer.key).eq(keys), "the agent that applies recipes"),
    ];
    if let Some((_, what)) = other.into_iter().find(|(differs, _)| *differs) {
        return Ok(Err(format!("{what} is another one now")));
    }
    let _clear = ask(site, &selectors_of_site(base, &site_recipes), now)?;
    let number = said.crls.iter().map(|crl| crl.number).max().unwrap_or(u64::MAX);
    let mut own = vec![Selector::Authorization(authorization.digest())];
    for signer in signature.signers().iter().chain([authorization.signer()]) {
        own.extend(Selector::of_signer(signer));
    }
    match ask_at_least(site, &own, number, now) {
        Ok(_) => {}
        // Not the recipe is revoked, which was asked before, but this decision about it or who signed it.
        Err(stopped) if stopped.code == Code::Revoked => return Ok(Err(stopped.message)),
        Err(stopped) => return Err(stopped),
    }
    let layers = said.layers.iter().map(|layer| layer.sha256);
    let template = said.template.as_ref().map(|template| template.sha256);
    match refused_layer(layers, site.layout()) {
        Some(damage) => Ok(Err(damage)),
        None => Ok(match refused_template(template, site)? {
            Some(damage) => Err(damage),
            None => Ok(authorization),
        }),
    }
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
    let beneath = |path: &PublishedPath| {
        path.as_str().strip_prefix(RECIPE_FOLDER)?.strip_prefix('/').map(str::to_owned)
    };
    let published = published.files.iter().filter_map(|(path, file)| Some((beneath(path)?, file)));
    let intact = published.eq(payload.iter().map(|(path, file)| (path.to_string(), file)));
    (!intact).then_some("the published recipe is damaged")
}

/// Why a deployment would not start from one of these layers. A new build replaces it, whatever is wrong with it.
fn refused_layer(mut layers: impl Iterator<Item = Sha256Digest>, layout: &Layout) -> Option<String> {
    layers.find_map(|digest| {
        let refused = check_layer(&Pinned::new(layout.layer(digest), digest)).err()?;
        Some(format!("layer {digest}: {refused}"))
    })
}

/// Why a deployment could not clone this template: it is damaged, or made for other machines than there are now.
fn refused_template(template: Option<Sha256Digest>, site: &Site) -> Result<Option<String>, Stopped> {
    let Some(digest) = template else { return Ok(Some("it names no template".to_owned())) };
    let template = match Template::pinned(&site.layout().template(digest), digest) {
        Ok(template) => template,
        Err(error) => return Ok(Some(format!("template {digest}: {error}"))),
    };
    if let Some(other) = machines::outdated(&template, &Qemu::find()?.version, site) {
        return Ok(Some(other));
    }
    Ok(template.check_files().err().map(|error| format!("template {digest}: {error}")))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::Path;
    use std::time::{Duration, Instant};

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    const LAYER: &[u8] = b"a layer";

    fn put(path: &Path, mode: u32) {
        fs::write(path, LAYER).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    type Put = fn(&Path);

    /// What can lie in place of a layer, each with what is said of it.
    const HOSTILE: [(&str, Put); 6] = [
        ("it is missing", |_| {}),
        ("it is a symbolic link", |path| {
            put(&path.with_extension("real"), 0o444);
            symlink(path.with_extension("real"), path).unwrap();
        }),
        ("it is a symbolic link", |path| symlink("/dev/zero", path).unwrap()),
        ("it is not a regular file", |path| mkfifoat(CWD, path, Mode::RUSR).unwrap()),
        ("others may write to it", |path| put(path, 0o666)),
        ("it belongs to user 61999", |path| {
            put(path, 0o444);
            chown(path, Some(61999), None).unwrap();
        }),
    ];

    #[test]
    fn a_layer_that_no_deployment_takes_does_not_stand_and_is_not_waited_for() {
        let digest = Sha256Digest::of(LAYER);
        let start = Instant::now();
        for (said, hostile) in HOSTILE {
            if said.contains("belongs") && !rustix::process::geteuid().is_root() {
                continue;
            }
            let site = tempfile::tempdir().unwrap();
            let layout = Layout::new(site.path().to_owned());
            fs::create_dir_all(layout.layers()).unwrap();
            hostile(&layout.layer(digest));
            let refused = refused_layer([digest].into_iter(), &layout).expect(said);
            assert!(refused.contains(said), "{said}: {refused}");
            let _ = fs::remove_file(layout.layer(digest));
            put(&layout.layer(digest), 0o444);
            assert_eq!(refused_layer([digest].into_iter(), &layout), None, "{said}");
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
