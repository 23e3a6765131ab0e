//! `countersign check`, `sign` and `verify`: what an author does with a recipe's folder.

use std::path::Path;

use authorizer::intake::{self, RecipeFiles};
use recipe_spec::statement::recipe_statement;
use recipe_spec::{Code, ENVELOPE_FILE, Limits, MANIFEST_FILE, Recipe, RecipeError, Timestamp};
use serde_json::json;
use signer::{Chain, PAYLOAD_TYPE, Role, Signer, TrustStore, dsse, verify_signed_recipe};

use crate::arguments::PassphraseSource;
use crate::commands::{key, trust_anchor};
use crate::files::{read_text, replace};
use crate::outcome::{Answer, Problem, printable};

pub(crate) fn check(dir: &Path, colour: bool) -> Result<Answer, Problem> {
    let (recipe, _) = read(dir, colour)?;
    let report = scanner::scan_recipe(&recipe);
    let name = recipe.manifest().subject_name();
    let scan = super::scan::human_of_recipe(&report, &recipe, colour);
    let human = format!("{scan}{name}: sha256 {}", recipe.digest());
    let data = json!({
        "recipe": name,
        "digest": recipe.digest(),
        "decision": report.decision,
        "files": report.files,
    });
    super::scan::ended(&report, human, data)
}

pub(crate) fn sign(
    dir: &Path,
    key_file: &Path,
    certificate: &Path,
    passphrase: &PassphraseSource,
    now: Timestamp,
    colour: bool,
) -> Result<Answer, Problem> {
    let (recipe, _) = read(dir, colour)?;
    let chain = Chain::from_pem(&read_text(certificate, "the certificate")?)
        .map_err(|error| Problem::usage(format!("{}: {error}", certificate.display())))?;
    let leaf = chain.leaf();
    if !leaf.is_valid_at(now) {
        return Err(Problem::coded(
            Code::CertExpired,
            format!(
                "the certificate is valid from {} to {}, it is {now}",
                leaf.not_before(),
                leaf.not_after()
            ),
        ));
    }
    let vo = recipe.manifest().recipe.name.vo();
    let other_vo = leaf.organisation().filter(|organisation| *organisation != vo).map(str::to_owned);
    let secret = key::load(key_file, passphrase)?;
    let signer = Signer::new(Role::RecipeSigner, secret, chain).map_err(Problem::usage)?;
    let payload = recipe_statement(&recipe).to_bytes().map_err(Problem::usage)?;
    let envelope = dsse::sign(PAYLOAD_TYPE, &payload, &signer).map_err(Problem::usage)?;
    let file = dir.join(ENVELOPE_FILE);
    replace(&file, &envelope.to_bytes())?;
    let name = recipe.manifest().subject_name();
    let mut human = format!(
        "signed {name}: sha256 {}\nwrote {}",
        recipe.digest(),
        printable(&file.display().to_string())
    );
    if let Some(organisation) = &other_vo {
        human.push_str(&format!(
            "\nnote: the certificate's O is {organisation}, not {vo}: sites accept this only if they map the key to {vo}"
        ));
    }
    let data = json!({"recipe": name, "digest": recipe.digest(), "envelope": file, "envelopeSha256": envelope.sha256(), "otherOrganisation": other_vo});
    Ok(Answer::new(human, data))
}

pub(crate) fn verify(
    dir: &Path,
    ca: &Path,
    crl: &Path,
    vos: &[String],
    now: Timestamp,
    colour: bool,
) -> Result<Answer, Problem> {
    let anchor = trust_anchor("command-line", ca, crl, vos)?;
    let trust = TrustStore::new(vec![anchor]).map_err(Problem::usage)?;
    let (recipe, files) = read(dir, colour)?;
    let envelope = files.ok_or_else(|| {
        Problem::coded(Code::BadSignature, format!("{} is missing", dir.join(ENVELOPE_FILE).display()))
            .hint("sign the recipe with `countersign sign`")
    })?;
    let verified = verify_signed_recipe(&envelope, &recipe, &trust, now)
        .map_err(|error| Problem::coded(error.code(), &error))?;
    let name = recipe.manifest().subject_name();
    let signers: Vec<_> = verified
        .signers()
        .iter()
        .map(|s| json!({"subject": s.subject(), "spkiSha256": s.spki_sha256(), "vo": s.vo(), "notAfter": s.not_after()}))
        .collect();
    let mut human = format!("{name}: sha256 {}", recipe.digest());
    for signer in verified.signers() {
        human.push_str(&format!("\nsigned by {}, key {}", printable(signer.subject()), signer.spki_sha256()));
    }
    Ok(Answer::new(human, json!({"recipe": name, "digest": recipe.digest(), "signers": signers})))
}

/// Reads a recipe from a folder; the envelope is the bytes beside it, if there are any.
pub(crate) fn read(dir: &Path, colour: bool) -> Result<(Recipe, Option<Vec<u8>>), Problem> {
    let RecipeFiles { payload, envelope } =
        intake::read_folder(dir, &Limits::STANDARD).map_err(|error| match error.code() {
            Some(code) => Problem::coded(code, &error),
            None => Problem::usage(&error),
        })?;
    let recipe =
        Recipe::from_payload(payload, &Limits::STANDARD).map_err(|error| bad_recipe(&error, dir, colour))?;
    Ok((recipe, envelope))
}

fn bad_recipe(error: &RecipeError, dir: &Path, colour: bool) -> Problem {
    let mistakes: Vec<_> = error
        .diagnostics()
        .iter()
        .map(|d| json!({"line": d.line, "column": d.column, "message": d.message, "help": d.help}))
        .collect();
    Problem::coded(error.code(), error)
        .details(error.report(colour))
        .with("file", dir.join(MANIFEST_FILE))
        .with("mistakes", mistakes)
}
