//! The VO's side: keys, a CA, signing and verifying.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use signer::{SecretKey, ca};

use crate::attack::now;
use crate::minted::DAY;
use crate::world::{BACKDOOR, FETCH_AND_RUN, WEB, World};

const VERIFY: &str = "verify web --trust ca/ca.cert.pem --crl ca/ca.crl.pem --vo atlas";

fn signed() -> World {
    let world = World::with_vo();
    world.run("sign web --key alice.key.pem --cert alice.cert.pem").done();
    world
}

#[test]
fn a_key_is_encrypted_private_and_never_replaced() {
    let world = World::new();
    world.write("passphrase", "correct horse\nsecond line\n");
    world.write("other", "wrong\n");
    let made = world.json("key generate key.pem --passphrase-file passphrase");
    let text = world.read("key.pem");
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
    assert_eq!(std::fs::metadata(world.path("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    let public = world.json("key public key.pem --passphrase-file passphrase");
    assert_eq!(public["spkiSha256"], made["spkiSha256"]);
    assert_eq!(public["command"], "key public");
    assert_eq!(public["result"], "done");

    let refused = world.run("key public key.pem --passphrase-file other").usage();
    assert!(refused.stderr.contains("passphrase"), "{}", refused.stderr);
    let refused = world.run("key public key.pem").usage();
    assert!(
        refused.stderr.contains("--passphrase-file"),
        "there is no terminal to ask at: {}",
        refused.stderr
    );
    world.run("key generate key.pem --passphrase-file passphrase").usage();
    assert_eq!(world.read("key.pem"), text);
}

#[test]
fn an_empty_passphrase_is_refused_before_anything_is_written() {
    let world = World::new();
    world.write("passphrase", "\n");
    world.run("key generate key.pem --passphrase-file passphrase").usage();
    assert!(!world.path("key.pem").exists());
}

#[test]
fn a_ca_is_made_once_and_its_crl_counts_up() {
    let world = World::with_vo();
    let key = world.read("ca/ca.key.pem");
    world.run("ca init ca --organisation other --no-passphrase").usage();
    assert_eq!(world.read("ca/ca.key.pem"), key);
    world.run("ca issue ca --name bob --public-key alice.pub.pem --out alice.cert.pem").usage();
    let renewed = world.json("ca crl ca");
    assert_eq!((&renewed["number"], &renewed["revoked"]), (&json!(2), &json!(0)));
    let renewed = world.json("ca crl ca --revoke alice.cert.pem");
    assert_eq!((&renewed["number"], &renewed["revoked"]), (&json!(3), &json!(1)));
    // Revoked stays revoked, and once is enough.
    let renewed = world.json("ca crl ca --revoke alice.cert.pem");
    assert_eq!((&renewed["number"], &renewed["revoked"]), (&json!(4), &json!(1)));
}

#[test]
fn a_signed_recipe_verifies() {
    let world = signed();
    let verified = world.json(VERIFY);
    assert_eq!(verified["recipe"], "atlas/web@1.4.0");
    assert_eq!(verified["signers"][0]["vo"], "atlas");
    let human = world.run(VERIFY).done();
    assert!(human.stdout.contains("signed by"), "{}", human.stdout);
    // To sign again is no new version of anything: the envelope is the same.
    let envelope = world.read("web/recipe.intoto.jsonl");
    world.run("sign web --key alice.key.pem --cert alice.cert.pem").done();
    assert_eq!(world.read("web/recipe.intoto.jsonl"), envelope);
}

#[test]
fn one_changed_byte_is_a_bad_signature() {
    let world = signed();
    world.write("web/files/index.html", "hellO\n");
    world.json_ended(1, "BAD_SIGNATURE", VERIFY);
}

#[test]
fn an_unsigned_recipe_is_a_bad_signature_with_a_hint() {
    let world = World::with_vo();
    let refused = world.run(VERIFY).ended(1, "BAD_SIGNATURE");
    assert!(refused.stderr.contains("\nhint: sign the recipe"), "{}", refused.stderr);
}

#[test]
fn a_signer_counts_for_its_own_vo_only() {
    let world = signed();
    world.recipe("web", &WEB.replace("atlas/web", "cms/web"), &[]);
    let signed = world.json("sign web --key alice.key.pem --cert alice.cert.pem");
    assert_eq!(signed["otherOrganisation"], "atlas");
    world.json_ended(1, "WRONG_VO", &format!("{VERIFY} --vo cms"));
}

#[test]
fn a_signer_under_another_ca_is_not_trusted() {
    let world = signed();
    world.run("ca init mallory --organisation atlas --no-passphrase").done();
    world.json_ended(
        1,
        "UNTRUSTED_SIGNER",
        "verify web --trust mallory/ca.cert.pem --crl mallory/ca.crl.pem --vo atlas",
    );
}

#[test]
fn a_revoked_certificate_is_refused() {
    let world = signed();
    world.run("ca crl ca --revoke alice.cert.pem").done();
    world.json_ended(1, "CERT_REVOKED", VERIFY);
}

#[test]
fn a_signer_below_another_ca_counts_with_the_lists_of_both() {
    let world = World::with_vo();
    let secret = |path: &str| SecretKey::from_pem(&world.read(path), None).unwrap();
    let valid = (now(), now().plus_seconds(DAY));
    let subject = |name: &str| ca::Subject { organisation: "atlas".into(), common_name: name.into() };
    let (root, root_pem) = (secret("ca/ca.key.pem"), world.read("ca/ca.cert.pem"));
    let middle = SecretKey::generate().unwrap();
    let middle_pem = ca::issue_ca(&root, &root_pem, &subject("Issuing"), &middle.public(), valid).unwrap();
    let alice = secret("alice.key.pem").public();
    let leaf_pem = ca::issue(&middle, &middle_pem, &subject("Alice"), &alice, valid).unwrap();
    world.write("chain.pem", &(leaf_pem + &middle_pem));
    let of_middle = ca::crl(&middle, &middle_pem, &[], 5, valid.0, valid.1).unwrap();
    world.write("both.crl.pem", &(world.read("ca/ca.crl.pem") + &of_middle));
    world.run("sign web --key alice.key.pem --cert chain.pem").done();

    world.json_ended(1, "CRL_MISSING", VERIFY);
    let verified = world.json("verify web --trust ca/ca.cert.pem --crl both.crl.pem --vo atlas");
    assert_eq!(verified["signers"][0]["vo"], "atlas");
    world.write("none.crl.pem", "no PEM\n");
    world.run("verify web --trust ca/ca.cert.pem --crl none.crl.pem --vo atlas").usage();

    world.write("site-recipes/suites/baseline.toml", "");
    world.run("init site --id example-site --site-recipes site-recipes --no-passphrase").done();
    world.run("--site site anchor add atlas --ca ca/ca.cert.pem --crl both.crl.pem --vo atlas").done();
    assert_eq!(world.read("site/anchors/atlas.crl.pem"), world.read("both.crl.pem"));
    let lost = world.run("--site site anchor renew atlas --crl ca/ca.crl.pem").usage();
    assert!(lost.stderr.contains("newest list of each CA in one file"), "{}", lost.stderr);
    let older = ca::crl(&middle, &middle_pem, &[], 4, valid.0, valid.1).unwrap();
    world.write("older.crl.pem", &(world.read("ca/ca.crl.pem") + &older));
    world.run("--site site anchor renew atlas --crl older.crl.pem").usage();
    assert_eq!(world.read("site/anchors/atlas.crl.pem"), world.read("both.crl.pem"));
    world.run("--site site anchor renew atlas --crl both.crl.pem").done();
}

#[test]
fn a_certificate_for_another_key_does_not_sign() {
    let world = World::with_vo();
    world.signer("bob", "ca");
    world.run("sign web --key alice.key.pem --cert bob.cert.pem").usage();
    assert!(!world.path("web/recipe.intoto.jsonl").exists());
}

#[test]
fn mistakes_come_with_line_and_column() {
    let world = World::with_vo();
    world.recipe("web", &WEB.replace("summary", "sumary"), &[]);
    let refused = world.json_ended(1, "BAD_RECIPE", "check web");
    assert_eq!(refused["mistakes"][0]["line"], 4, "{refused}");
    assert_eq!(refused["mistakes"][0]["column"], 1, "{refused}");
    let refused = world.run("check web").ended(1, "BAD_RECIPE");
    assert!(
        refused.stderr.contains("recipe.toml:4:1") && refused.stderr.contains("sumary"),
        "{}",
        refused.stderr
    );
    world.run("sign web --key alice.key.pem --cert alice.cert.pem").ended(1, "BAD_RECIPE");
    assert!(!world.path("web/recipe.intoto.jsonl").exists());
}

#[test]
fn a_sound_recipe_passes_check_with_its_digest() {
    let world = World::with_vo();
    let checked = world.json("check web");
    assert_eq!(checked["recipe"], "atlas/web@1.4.0");
    assert_eq!(checked["decision"], "allow");
    assert_eq!(checked["digest"].as_str().unwrap().len(), 64);
}

#[test]
fn the_scan_denies_a_recipe_that_runs_what_it_downloads() {
    let world = World::with_vo();
    world.recipe("backdoor", BACKDOOR, &[("scripts/setup.sh", FETCH_AND_RUN)]);
    let refused = world.json_ended(1, "SCAN_DENIED", "scan web backdoor");
    let files = refused["files"].as_array().unwrap();
    let script = files.iter().find(|file| file["path"] == "backdoor/scripts/setup.sh").unwrap();
    let mut findings = script["findings"].as_array().unwrap().iter();
    let finding = findings.find(|finding| finding["severity"] == "deny").unwrap();
    assert_eq!(finding["line"], 2, "{script}");
    for member in ["rule", "column", "message", "help"] {
        assert!(!finding[member].is_null(), "{member}: {finding}");
    }
    assert!(files.iter().any(|file| file["path"] == "web/recipe.toml"), "{refused}");
    world.run("check backdoor").ended(1, "SCAN_DENIED");
    let refused = world.run("scan backdoor/scripts/setup.sh").ended(1, "SCAN_DENIED");
    assert!(refused.stderr.contains("curl"), "{}", refused.stderr);

    let allowed = world.json("scan web");
    assert_eq!(allowed["decision"], "allow");
}

#[test]
fn what_is_no_recipe_and_no_file_cannot_be_scanned() {
    let world = World::with_vo();
    world.run("scan ca").usage();
    world.run("scan missing").usage();
    world.run("scan").usage();
}

#[test]
fn a_ca_revokes_what_it_issued_and_nothing_else() {
    let world = World::with_vo();
    world.run("ca init other --organisation atlas --no-passphrase").done();
    world.signer("mallory", "other");
    let before = world.read("ca/ca.crl.pem");
    let refused = world.run("ca crl ca --revoke mallory.cert.pem").usage();
    assert!(refused.stderr.contains("not issued by this CA"), "{}", refused.stderr);
    assert_eq!(world.read("ca/ca.crl.pem"), before);
}

#[test]
fn revocations_at_the_same_time_are_all_kept() {
    let world = World::with_vo();
    let names = ["a", "b", "c", "d", "e", "f"];
    names.iter().for_each(|name| world.signer(name, "ca"));
    let running: Vec<_> = names
        .iter()
        .map(|name| world.command(&format!("ca crl ca --revoke {name}.cert.pem")).spawn().unwrap())
        .collect();
    for child in running {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(world.json("ca crl ca")["revoked"], names.len());
}
