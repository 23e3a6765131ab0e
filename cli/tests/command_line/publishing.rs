//! `authorize` and `deploy` up to the first machine: what is refused before one starts.

use std::process::Command;

use crate::world::{BACKDOOR, FETCH_AND_RUN, WEB, World};

fn git(world: &World, arguments: &[&str]) {
    let output = Command::new("git")
        .current_dir(world.path("recipes"))
        .args(["-c", "user.name=VO", "-c", "user.email=vo@example.org"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A site, and a repository with the signed recipes `web` and `backdoor`, and `web` with one byte changed after signing.
pub(crate) fn published() -> World {
    let world = World::with_site();
    world.recipe("recipes/web", WEB, &[("files/index.html", "hello\n")]);
    world.recipe("recipes/backdoor", BACKDOOR, &[("scripts/setup.sh", FETCH_AND_RUN)]);
    world.recipe("recipes/changed", WEB, &[("files/index.html", "hello\n")]);
    world.recipe("recipes/unsigned", WEB, &[("files/index.html", "hello\n")]);
    for recipe in ["web", "backdoor", "changed"] {
        world.run(&format!("sign recipes/{recipe} --key alice.key.pem --cert alice.cert.pem")).done();
    }
    world.write("recipes/changed/files/index.html", "hellO\n");
    git(&world, &["init", "--quiet", "--initial-branch=main"]);
    git(&world, &["add", "--all"]);
    git(&world, &["commit", "--quiet", "--message", "Recipes"]);
    world
}

#[test]
fn a_refusal_names_its_stage_and_leaves_a_log() {
    let world = published();
    for (recipe, code, stage) in [
        ("changed", "BAD_SIGNATURE", "verify"),
        ("unsigned", "BAD_SIGNATURE", "verify"),
        ("backdoor", "SCAN_DENIED", "scan"),
    ] {
        let refused = world.json_ended(1, code, &format!("--site site authorize recipes --path {recipe}"));
        assert_eq!(refused["stage"], stage, "{refused}");
        assert_eq!(refused["stages"][0]["stage"], "intake", "{refused}");
        assert!(refused["stages"][0]["seconds"].is_f64(), "{refused}");
        assert_eq!(refused["coldBoots"], 0, "{refused}");
        let log = std::fs::read_to_string(refused["log"].as_str().unwrap()).unwrap();
        let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!((&last["event"], &last["result"]), (&"ended".into(), &code.into()), "{log}");
    }
    let human = world.run("--site site authorize recipes --path backdoor").ended(1, "SCAN_DENIED");
    assert!(human.stdout.contains("fetch the recipe"), "progress goes to standard output: {}", human.stdout);
    assert!(human.stderr.contains("curl"), "the finding is shown: {}", human.stderr);
}

#[test]
fn what_is_revoked_is_not_authorized() {
    let world = published();
    world.run("--site site revoke atlas/web@1.4.0").done();
    let refused = world.json_ended(1, "REVOKED", "--site site authorize recipes --path web");
    assert_eq!(refused["stage"], "revocation", "{refused}");
}

#[test]
fn a_repository_that_is_not_there_can_be_tried_again() {
    let world = published();
    world.json_ended(3, "REMOTE_UNAVAILABLE", "--site site authorize git://127.0.0.1:1/recipes");
    world.json_ended(3, "REMOTE_UNAVAILABLE", "--site site authorize recipes#no-such-branch --path web");
    world.run("--site site authorize ssh://127.0.0.1/recipes").usage();
    world.run("--site site authorize recipes --path ../web").usage();
    world.run("--site site authorize recipes --path web --version one").usage();
}

#[test]
fn what_was_never_authorized_is_not_deployed() {
    let world = World::with_site();
    let refused = world.json_ended(1, "NOT_AUTHORIZED", "--site site deploy atlas/web --forward 8080:80");
    assert_eq!(refused["command"], "deploy");
    assert_eq!(refused["stage"], "verify-authorization", "{refused}");
    assert_eq!(world.json("--site site instance list")["instances"], serde_json::json!([]));
    world.run("--site site deploy atlas/web --forward 80").usage();
    world.run("--site site deploy web").usage();
}
