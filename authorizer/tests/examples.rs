//! The examples and the site's recipes are what their READMEs say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::path::Path;

use authorizer::intake::read_folder;
use recipe_spec::{Limits, Recipe};
use scanner::{Decision, scan_recipe};

fn recipe(folder: &str) -> Recipe {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let files = read_folder(&folder, &Limits::STANDARD).unwrap();
    Recipe::from_payload(files.payload, &Limits::STANDARD)
        .unwrap_or_else(|error| panic!("{}: {}", folder.display(), error.report(false)))
}

#[test]
fn web_is_allowed_and_the_backdoor_is_denied() {
    let web = scan_recipe(&recipe("examples/web"));
    assert_eq!(web.decision, Decision::Allow, "{web:#?}");
    let backdoor = scan_recipe(&recipe("examples/backdoor"));
    assert_eq!(backdoor.decision, Decision::Deny, "{backdoor:#?}");
    // Each file of it that opens something is found, not only the first.
    for path in ["files/metrics.cron", "scripts/finish.sh", "recipe.toml"] {
        let found = backdoor.files.iter().any(|file| file.path == path && !file.findings.is_empty());
        assert!(found, "nothing found in {path}: {backdoor:#?}");
    }
}

#[test]
fn the_page_has_one_place_for_the_nonce() {
    let web = recipe("examples/web");
    let page = web.payload().file_at("files/index.html").unwrap();
    assert_eq!(String::from_utf8_lossy(&page.bytes).matches("NONCE").count(), 1);
}

#[test]
fn the_baseline_is_a_recipe_whose_scripts_can_run() {
    let baseline = recipe("site-recipes/baseline");
    let scripts: Vec<_> =
        baseline.payload().iter().filter(|(path, _)| path.to_string().starts_with("scripts/")).collect();
    assert_eq!(scripts.len(), 3);
    assert!(scripts.iter().all(|(_, file)| file.executable));
}
