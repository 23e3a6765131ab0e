//! The examples and the site's recipes are what their READMEs say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::path::Path;

use authorizer::intake::read_folder;
use recipe_spec::manifest::StepKind;
use recipe_spec::{Limits, Recipe};
use scanner::{Decision, scan_recipe};

fn recipe(folder: &str) -> Recipe {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let files = read_folder(&folder, &Limits::STANDARD).unwrap();
    Recipe::from_payload(files.payload, &Limits::STANDARD)
        .unwrap_or_else(|error| panic!("{}: {}", folder.display(), error.report(false)))
}

#[test]
fn the_scan_allows_each_example_but_the_backdoor() {
    // What of these is refused is refused by what it does, and nothing in it can be read that does so.
    for name in ["web", "batch-worker", "sneaky", "broken", "stubborn"] {
        let report = scan_recipe(&recipe(&format!("examples/{name}")));
        assert_eq!(report.decision, Decision::Allow, "{name}: {report:#?}");
    }
    let backdoor = scan_recipe(&recipe("examples/backdoor"));
    assert_eq!(backdoor.decision, Decision::Deny, "{backdoor:#?}");
    // Each file of it that opens something is found, not only the first.
    for path in ["files/metrics.cron", "scripts/finish.sh", "recipe.toml"] {
        let found = backdoor.files.iter().any(|file| file.path == path && !file.findings.is_empty());
        assert!(found, "nothing found in {path}: {backdoor:#?}");
    }
}

#[test]
fn every_example_is_in_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    for example in folders.filter(|entry| entry.file_type().unwrap().is_dir()) {
        let row = format!("| `{}` |", example.file_name().to_string_lossy());
        assert!(table.contains(&row), "no row {row}");
    }
}

#[test]
fn the_worker_says_what_it_needs_and_holds_no_key() {
    let worker = recipe("examples/batch-worker");
    let manifest = worker.manifest();
    assert_eq!(manifest.network.listen.iter().map(|listen| listen.port).collect::<Vec<_>>(), [6818]);
    let users: Vec<_> = manifest.capabilities.users.iter().map(ToString::to_string).collect();
    assert_eq!(users, ["munge", "slurm"]);
    // munged takes no key of less than 32 bytes, so what lies in the key's place can never be taken for one.
    let place = manifest.steps.iter().find_map(|step| match &step.kind {
        StepKind::File(file) if file.path.as_str() == "/etc/munge/munge.key" => file.content.as_deref(),
        _ => None,
    });
    assert!(place.unwrap().len() < 32);
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
