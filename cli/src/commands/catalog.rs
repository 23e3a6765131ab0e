//! `countersign catalog`: what this site has authorized.

use std::path::Path;

use authorizer::authorization::Authorization;
use authorizer::publication::{self, AUTHORIZATION_FILE};
use authorizer::site::Site;
use recipe_spec::{Code, RecipeName, Timestamp};
use semver::Version;
use serde::Serialize;
use serde_json::json;

use crate::commands::site;
use crate::outcome::{Answer, Problem, table};

/// One authorization, as its own bytes show it now. Whether something it names is revoked is for a deploy to ask.
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
        let state = match (&line.code, &line.message) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            _ => "authorized".to_owned(),
        };
        let until = line.not_after.map(|until| until.to_string()).unwrap_or_default();
        [line.name.to_string(), line.version.to_string(), until, state]
    });
    let human = table(["recipe", "version", "valid until", "state"], rows);
    Ok(Answer::new(human, json!({"authorizations": lines})))
}

fn line(site: &Site, name: RecipeName, version: Version, now: Timestamp) -> Result<Line, Problem> {
    let published = publication::lookup(&site.layout().authorizations(), &name, Some(&version))?;
    let file = published.file(AUTHORIZATION_FILE).unwrap_or_default();
    Ok(match Authorization::verify(file, site.pins(), site.id(), now) {
        Ok(verified) => {
            let not_after = Some(verified.predicate().not_after);
            Line { name, version, not_after, code: None, message: None }
        }
        Err(error) => Line {
            name,
            version,
            not_after: None,
            code: Some(error.code()),
            message: Some(error.to_string()),
        },
    })
}
