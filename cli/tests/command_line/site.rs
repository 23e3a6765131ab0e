//! The site's side, as far as it needs no machine.

use serde_json::json;

use crate::world::World;

#[test]
fn a_site_is_made_once() {
    let world = World::with_vo();
    world.recipe(
        "site-recipes/baseline",
        "[recipe]\nname = \"site/baseline\"\nversion = \"1.0.0\"\nsummary = \"x\"\nbase = [\"debian-12\"]\n\n[[step]]\npackage = [\"auditd\"]\n",
        &[],
    );
    world.write("site-recipes/suites/baseline.toml", "");
    world.write("passphrase", "of the site\n");
    let made =
        world.json("init site --id example-site --site-recipes site-recipes --passphrase-file passphrase");
    assert_eq!(made["site"], "example-site");
    assert_eq!(made["siteRecipes"].as_array().unwrap().len(), 1, "{made}");
    assert!(world.read("site/keys/countersigner.pem").starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    world.run("init site --id other --site-recipes site-recipes --no-passphrase").usage();
    assert!(world.read("site/site.toml").contains("example-site"));
    world.run("init second --id Wrong! --site-recipes site-recipes --no-passphrase").usage();
    world.run("init second --id second --site-recipes missing --no-passphrase").usage();
    assert!(!world.path("second").exists());

    // The passphrase is asked for where a key is needed, and nowhere else.
    world.run("--site site crl verify").done();
    world.run("--site site crl publish").usage();
    world.run("--site site crl publish --passphrase-file passphrase").done();
    world.write("wrong", "x\n");
    world.run("--site site crl publish --passphrase-file wrong").usage();
    assert_eq!(world.json("--site site crl show")["number"], 2);
}

#[test]
fn an_anchor_is_added_once_and_renewed() {
    let world = World::with_site();
    let before = world.read("site/site.toml");
    let add = "--site site anchor add atlas --ca ca/ca.cert.pem --crl ca/ca.crl.pem --vo atlas";
    world.run(add).usage();
    world.run("--site site anchor add other --ca alice.cert.pem --crl ca/ca.crl.pem --vo atlas").usage();
    world.run("--site site anchor add other --ca ca/ca.cert.pem --crl ca/ca.cert.pem --vo atlas").usage();
    world.run("--site site anchor add other --ca site/certificates/ca.pem --crl site/certificates/ca.crl.pem --vo x").usage();
    let own = world.run("--site site anchor add other --ca ca/ca.cert.pem --crl ca/ca.crl.pem --vo site");
    assert!(own.status == 2 && own.stderr.contains("no VO's name"), "{}", own.stderr);
    assert_eq!(world.read("site/site.toml"), before);

    world.run("ca crl ca --revoke alice.cert.pem").done();
    let old = world.read("site/anchors/atlas.crl.pem");
    world.run("--site site anchor renew atlas --crl ca/ca.crl.pem").done();
    assert_eq!(world.read("site/anchors/atlas.crl.pem"), world.read("ca/ca.crl.pem"));
    world.write("old.pem", &old);
    world.run("--site site anchor renew atlas --crl old.pem").usage();
    world.run("--site site anchor renew nobody --crl ca/ca.crl.pem").usage();
}

#[test]
fn revoked_is_refused_and_the_list_counts_up() {
    let world = World::with_site();
    let shown = world.json("--site site crl show");
    assert_eq!(
        (&shown["number"], &shown["entries"], &shown["expired"]),
        (&json!(1), &json!([]), &json!(false))
    );
    let clear = world.json("--site site crl check atlas/web@1.4.0");
    assert_eq!(clear["status"], "notRevoked");

    let revoked = world.json("--site site revoke atlas/web@1.4.0 --reason keyCompromise");
    assert_eq!((&revoked["number"], &revoked["entries"]), (&json!(2), &json!(1)));
    assert_eq!(
        (&revoked["selector"], &revoked["reason"]),
        (&json!("version:atlas/web@1.4.0"), &json!("keyCompromise"))
    );
    let refused = world.json_ended(1, "REVOKED", "--site site crl check version:atlas/web@1.4.0");
    assert_eq!((&refused["number"], &refused["reason"]), (&json!(2), &json!("keyCompromise")));
    world.run("--site site crl check atlas/web@1.4.1").done();

    // What was revoked once keeps its reason.
    let again = world.json("--site site revoke atlas/web@1.4.0 --reason superseded");
    assert_eq!((&again["number"], &again["reason"]), (&json!(3), &json!("keyCompromise")));
    let published = world.json("--site site crl publish");
    assert_eq!((&published["number"], &published["caCrlRenewed"]), (&json!(4), &json!(true)));
    assert_eq!(world.json("--site site crl verify")["entries"], 1);
    let human = world.run("--site site crl show").done();
    assert!(human.stdout.contains("keyCompromise") && human.stdout.contains("number 4"), "{}", human.stdout);
}

#[test]
fn a_selector_or_reason_that_is_none_is_the_callers_mistake() {
    let world = World::with_site();
    for wrong in ["atlas/web", "recipe:xyz", "what"] {
        world.run(&format!("--site site revoke {wrong}")).usage();
        world.run(&format!("--site site crl check {wrong}")).usage();
    }
    world.run("--site site revoke atlas/web@1.4.0 --reason because").usage();
    assert_eq!(world.json("--site site crl show")["number"], 1);
}

fn copy(world: &World, from: &str, to: &str) {
    let (from, to) = (world.path(from), world.path(to));
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_list_put_back_is_a_rollback_that_nobody_extends() {
    let world = World::with_site();
    copy(&world, "site/crl", "backup");
    world.run("--site site revoke atlas/web@1.4.0").done();
    copy(&world, "backup", "site/crl");
    for command in ["crl verify", "crl check atlas/web@1.4.0", "crl publish", "revoke atlas/web@1.4.0"] {
        world.json_ended(1, "CRL_ROLLBACK", &format!("--site site {command}"));
    }
}

#[test]
fn a_missing_or_damaged_list_refuses() {
    let world = World::with_site();
    copy(&world, "site/crl", "backup");
    std::fs::remove_file(world.path("site/crl/crl.intoto.jsonl")).unwrap();
    for command in ["crl verify", "crl check atlas/web@1.4.0", "crl show", "crl publish"] {
        world.json_ended(1, "CRL_MISSING", &format!("--site site {command}"));
    }
    copy(&world, "backup", "site/crl");
    let header = world.read("site/crl/crl.intoto.jsonl");
    world.write("site/crl/crl.intoto.jsonl", &header.replacen("payload", "Payload", 1));
    world.json_ended(1, "CRL_INVALID", "--site site crl verify");
}

#[test]
fn an_empty_site_lists_nothing_and_knows_no_instance() {
    let world = World::with_site();
    assert_eq!(world.json("--site site catalog")["authorizations"], json!([]));
    assert_eq!(world.json("--site site instance list")["instances"], json!([]));
    world.run("--site site instance show web-1").usage();
    world.run("--site site instance logs ../../etc").usage();
    world.run("--site site instance stop web-1").usage();
    let bases = world.json("--site site base list");
    assert_eq!(
        (&bases["bases"][0]["name"], &bases["bases"][0]["built"]),
        (&json!("debian-12"), &json!(false))
    );
    world.run("--site site base build fedora-99").usage();
    world.run("--site site base verify fedora-99").usage();
    assert_ne!(world.run("--site site base verify debian-12").status, 0);
}

#[test]
fn the_site_is_named_by_option_or_environment() {
    let world = World::with_site();
    world.run("crl show").usage();
    world.run("--site ca crl show").usage();
    world.run("--site missing crl show").usage();
    let output = world.command("crl show").env("COUNTERSIGN_SITE", "site").output().unwrap();
    assert!(output.status.success());
}

#[test]
fn a_site_that_others_can_change_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_site();
    std::fs::set_permissions(world.path("site/site.toml"), PermissionsExt::from_mode(0o666)).unwrap();
    world.json_ended(3, "HOST_FAILED", "--site site crl show");
}
