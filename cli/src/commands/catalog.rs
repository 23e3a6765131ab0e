//! `countersign catalog`: what this site has authorized.

use std::path::Path;

use ::crl::Selector;
use authorizer::authorization::{Authorization, VerifiedAuthorization};
use authorizer::pipeline::ask_at_least;
use authorizer::publication::{self, AUTHORIZATION_FILE};
use authorizer::site::Site;
use authorizer::stopped::Stopped;
use recipe_spec::{Code, RecipeName, Timestamp};
use semver::Version;
use serde::Serialize;
use serde_json::json;

use crate::commands::site;
use crate::outcome::{Answer, Problem, table};

/// One authorization, as its own bytes and the recipe CRL show it now. A deploy also verifies the recipe, the base and
/// the layers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    name: RecipeName,
    version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Timestamp>,
    /// Why it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

pub(crate) fn run(folder: Option<&Path>, now: Timestamp) -> Result<Answer, Problem> {
    let site = site::open(folder)?;
    let lines = publication::list(&site.layout().authorizations())?
        .into_iter()
        .map(|(name, version)| line(&site, name, version, now))
        .collect::<Result<Vec<_>, _>>()?;
    if lines.is_empty() {
        return Ok(Answer::new("nothing is authorized yet", json!({"authorizations": lines})));
    }
    let rows = lines.iter().map(|line| {
        let state = line.code.map_or_else(|| "authorized".to_owned(), |code| code.to_string());
        let until = line.not_after.map(|until| until.to_string()).unwrap_or_default();
        [line.name.to_string(), line.version.to_string(), until, state]
    });
    let human = table(["recipe", "version", "valid until", "state"], rows);
    Ok(Answer::new(human, json!({"authorizations": lines})))
}

fn line(site: &Site, name: RecipeName, version: Version, now: Timestamp) -> Result<Line, Problem> {
    let published = publication::lookup(&site.layout().authorizations(), &name, Some(&version))?;
    let file = published.file(AUTHORIZATION_FILE).unwrap_or_default();
    let verified = Authorization::verify(file, site.pins(), site.id(), now);
    let not_after = verified.as_ref().ok().map(|authorization| authorization.predicate().not_after);
    let holds = verified.map_err(Stopped::from).and_then(|authorization| {
        let least = authorization.predicate().crls.iter().map(|crl| crl.number).max().unwrap_or_default();
        ask_at_least(site, &selectors(&authorization), least, now).map(|_clear| ())
    });
    let (code, message) = holds.err().map(|stopped| (stopped.code, stopped.message)).unzip();
    Ok(Line { name, version, not_after, code, message })
}

/// What an authorization names that can be revoked, itself included.
fn selectors(authorization: &VerifiedAuthorization) -> Vec<Selector> {
    let predicate = authorization.predicate();
    let recipe = &predicate.recipe;
    let mut selectors = vec![
        Selector::Authorization(authorization.digest()),
        Selector::Recipe(authorization.recipe()),
        Selector::RecipeVersion { name: recipe.name.clone(), version: recipe.version.clone() },
        Selector::SignerKey(recipe.signer.spki.sha256),
        Selector::BaseImage(predicate.base.sha256),
    ];
    selectors.extend(Selector::of_signer(authorization.signer()));
    selectors.extend(predicate.site_recipes.iter().map(|recipe| Selector::SiteRecipe(recipe.sha256)));
    selectors
}
