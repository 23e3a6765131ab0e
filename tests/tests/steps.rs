//! What a recipe's steps do, on a real site with real machines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::fs;

use end_to_end::git::Daemon;
use end_to_end::site::Site;
use end_to_end::vo::Vo;

const MANIFEST: &str = r#"[recipe]
name = "atlas/restless"
version = "1.0.0"
summary = "Counts how often it was applied"
base = ["debian-12"]

[[step]]
directory = { path = "/srv/restless" }
[[step]]
run = { script = "count.sh", unless = "test -e /srv/restless/never" }

[[test]]
name = "never run"
run = "true"
"#;

#[test]
fn a_recipe_that_is_never_done_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vo = Vo::found("atlas", &folder.path().join("vo"));
    let site = Site::found("test-site", folder.path());
    let _ = site.trust(&vo).done();
    let _ = site.base().done();
    let daemon = Daemon::serve(&folder.path().join("vo"));
    let recipe = vo.recipe("restless");
    fs::create_dir_all(&recipe).unwrap();
    fs::write(recipe.join("recipe.toml"), MANIFEST).unwrap();
    fs::write(recipe.join("count.sh"), "echo again >> /srv/restless/times\n").unwrap();
    let _ = vo.sign("restless").done();
    vo.recipes.commit("restless");

    let run = site.run(["authorize", &daemon.url("recipes"), "--path", "restless"]);
    let run = run.refused("NOT_IDEMPOTENT");
    assert_eq!(run.json["stage"], "apply-again", "{:#}", run.json);
    let message = run.json["message"].as_str().unwrap();
    assert!(message.starts_with("atlas/restless@1.0.0, recipe.toml line 10: run count.sh: "), "{message}");
    assert!(run.json["hints"].to_string().contains("`unless` succeed"), "what to do next: {:#}", run.json);
    assert_eq!(site.run(["catalog"]).done().json["authorizations"], serde_json::json!([]));
}
