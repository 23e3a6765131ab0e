//! OpenSSL reads what we write, and we read what it writes.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{authority, days, leaf, now, recipe, signed, signer, subject};
use signer::ca::{self, Revoked};
use signer::{Certificate, Envelope, Passphrase, Role, SecretKey, dsse};
use x509_cert::ext::pkix::CrlReason;

fn openssl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("openssl is needed for this test")
}

#[track_caller]
fn accepts(folder: &Path, arguments: &[&str]) -> String {
    let output = openssl(folder, arguments);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "openssl {arguments:?}: {text}");
    text
}

#[track_caller]
fn refuses(folder: &Path, arguments: &[&str], why: &str) {
    let output = openssl(folder, arguments);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "openssl {arguments:?}: {text}");
    assert!(text.contains(why), "openssl {arguments:?} should say {why:?}: {text}");
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

#[test]
fn openssl_verifies_our_chains_and_crls() {
    let (root, stranger) = (authority("atlas"), authority("atlas"));
    let middle = SecretKey::generate().unwrap();
    let who = subject("atlas", "Issuing CA");
    let middle_pem =
        ca::issue_ca(&root.key, &root.certificate_pem, &who, &middle.public(), days(-50, 500)).unwrap();
    let key = SecretKey::generate().unwrap();
    let leaf_pem =
        ca::issue(&middle, &middle_pem, &subject("atlas", "Release"), &key.public(), days(-10, 100)).unwrap();
    let serial = Certificate::from_pem(&leaf_pem).unwrap().serial().to_vec();
    let crl = |revoked: &[Revoked]| {
        ca::crl(&middle, &middle_pem, revoked, 1, days(-1, 0).0, days(0, 30).1).unwrap()
    };
    let revoked = Revoked { serial, date: days(-1, 0).0, reason: CrlReason::KeyCompromise };
    let both = |middle_crl: &str| format!("{}{middle_crl}", root.crl_pem);
    let folder = folder(&[
        ("root.pem", root.certificate_pem.as_bytes()),
        ("stranger.pem", stranger.certificate_pem.as_bytes()),
        ("middle.pem", middle_pem.as_bytes()),
        ("leaf.pem", leaf_pem.as_bytes()),
        ("crls.pem", both(&crl(&[])).as_bytes()),
        ("revoked.pem", both(&crl(&[revoked])).as_bytes()),
        ("root-crl.pem", root.crl_pem.as_bytes()),
    ]);
    let at = |days: i64| (now().unix() + days * crate::support::DAY).to_string();
    let verify = |time: &str, root: &str, more: &[&str]| -> Vec<String> {
        ["verify", "-x509_strict", "-attime", time, "-CAfile", root, "-untrusted", "middle.pem"]
            .iter()
            .chain(more)
            .chain(&["leaf.pem"])
            .map(|argument| (*argument).to_owned())
            .collect()
    };
    let check = |arguments: Vec<String>, refusal: Option<&str>| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        match refusal {
            None => assert!(accepts(folder.path(), &arguments).contains("leaf.pem: OK")),
            Some(why) => refuses(folder.path(), &arguments, why),
        }
    };
    check(verify(&at(0), "root.pem", &[]), None);
    check(verify(&at(0), "stranger.pem", &[]), Some("unable to get"));
    check(verify(&at(101), "root.pem", &[]), Some("expired"));
    check(verify(&at(-11), "root.pem", &[]), Some("not yet valid"));
    let crl_check = ["-crl_check_all", "-CRLfile"];
    check(verify(&at(0), "root.pem", &[crl_check[0], crl_check[1], "crls.pem"]), None);
    check(
        verify(&at(0), "root.pem", &[crl_check[0], crl_check[1], "revoked.pem"]),
        Some("certificate revoked"),
    );
    check(
        verify(&at(0), "root.pem", &[crl_check[0], crl_check[1], "root-crl.pem"]),
        Some("unable to get certificate CRL"),
    );
    check(verify(&at(31), "root.pem", &[crl_check[0], crl_check[1], "crls.pem"]), Some("CRL has expired"));
}

#[test]
fn openssl_reads_the_fields_that_rfc_5280_wants() {
    let ca = authority("atlas");
    let folder = folder(&[
        ("ca.pem", ca.certificate_pem.as_bytes()),
        ("leaf.pem", leaf(&ca, "atlas").1.as_bytes()),
        ("crl.pem", ca.crl_pem.as_bytes()),
    ]);
    let leaf = accepts(folder.path(), &["x509", "-noout", "-text", "-in", "leaf.pem"]);
    for wanted in [
        "Version: 3",
        "Signature Algorithm: ED25519",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                Code Signing\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
        "Subject: O = atlas, CN = Release key",
    ] {
        assert!(leaf.contains(wanted), "{wanted:?} in {leaf}");
    }
    let root = accepts(folder.path(), &["x509", "-noout", "-text", "-in", "ca.pem"]);
    assert!(root.contains("X509v3 Basic Constraints: critical\n                CA:TRUE\n"), "{root}");
    assert!(
        root.contains("X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n"),
        "{root}"
    );
    let crl = accepts(folder.path(), &["crl", "-noout", "-text", "-in", "crl.pem"]);
    assert!(
        crl.contains("X509v3 CRL Number: \n                1\n") && crl.contains("No Revoked Certificates"),
        "{crl}"
    );
    let identifier = |text: &str, name: &str| {
        let after = &text[text.find(name).unwrap() + name.len()..];
        after.lines().nth(1).unwrap().trim().trim_start_matches("keyid:").to_owned()
    };
    assert_eq!(
        identifier(&crl, "X509v3 Authority Key Identifier:"),
        identifier(&root, "X509v3 Subject Key Identifier:")
    );
}

#[test]
fn openssl_verifies_our_signature_over_the_pae() {
    let ca = authority("atlas");
    let bytes = signed(&recipe("atlas/web", "hello"), &signer(Role::RecipeSigner, leaf(&ca, "atlas")));
    let envelope = Envelope::parse_untrusted(&bytes).unwrap();
    let signature = &envelope.signatures()[0];
    let pae = dsse::pae(envelope.payload_type(), envelope.payload_untrusted());
    let mut other = pae.clone();
    *other.last_mut().unwrap() ^= 1;
    let folder = folder(&[
        ("leaf.pem", signature.chain().leaf().to_pem().as_bytes()),
        ("pae.bin", &pae),
        ("other.bin", &other),
        ("sig.bin", signature.signature()),
    ]);
    accepts(folder.path(), &["x509", "-in", "leaf.pem", "-noout", "-pubkey", "-out", "key.pem"]);
    let verify = |input| {
        ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pem", "-in", input, "-sigfile", "sig.bin"]
    };
    accepts(folder.path(), &verify("pae.bin"));
    refuses(folder.path(), &verify("other.bin"), "Signature Verification Failure");
    let public = std::fs::read_to_string(folder.path().join("key.pem")).unwrap();
    assert_eq!(signature.chain().leaf().public_key().to_pem().unwrap(), public);
    assert_eq!(signer::PublicKey::from_pem(&public).unwrap().spki_sha256(), signature.keyid());
}

#[test]
fn openssl_opens_our_encrypted_key() {
    let key = SecretKey::generate().unwrap();
    let passphrase = Passphrase::new("correct horse".to_owned()).unwrap();
    let pem = key.to_encrypted_pem(&passphrase).unwrap();
    let folder =
        folder(&[("key.pem", pem.as_bytes()), ("plain.pem", key.to_plain_pem().unwrap().as_bytes())]);
    let public = key.public().to_pem().unwrap();
    let out = |arguments: &[&str]| accepts(folder.path(), arguments);
    assert_eq!(out(&["pkey", "-in", "key.pem", "-passin", "pass:correct horse", "-pubout"]), public);
    assert_eq!(out(&["pkey", "-in", "plain.pem", "-pubout"]), public);
    refuses(folder.path(), &["pkey", "-in", "key.pem", "-passin", "pass:wrong", "-pubout"], "");
    let scheme = out(&["asn1parse", "-in", "key.pem"]);
    for wanted in ["PBES2", "PBKDF2", "hmacWithSHA256", "aes-256-cbc"] {
        assert!(scheme.contains(wanted), "{wanted} in {scheme}");
    }
}

#[test]
fn we_open_a_key_that_openssl_made() {
    let folder = folder(&[]);
    let make = [
        "genpkey",
        "-algorithm",
        "ed25519",
        "-aes-256-cbc",
        "-pass",
        "pass:correct horse",
        "-out",
        "key.pem",
    ];
    accepts(folder.path(), &make);
    accepts(folder.path(), &["pkey", "-in", "key.pem", "-passin", "pass:correct horse", "-out", "plain.pem"]);
    accepts(folder.path(), &["genpkey", "-algorithm", "ed448", "-out", "ed448.pem"]);
    let public = accepts(folder.path(), &["pkey", "-in", "plain.pem", "-pubout"]);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let passphrase = |text: &str| Passphrase::new(text.to_owned()).unwrap();
    let key = SecretKey::from_pem(&read("key.pem"), Some(&passphrase("correct horse"))).unwrap();
    assert_eq!(key.public().to_pem().unwrap(), public);
    assert_eq!(SecretKey::from_pem(&read("plain.pem"), None).unwrap().public(), key.public());
    let refusal =
        |name: &str, given: Option<&Passphrase>| SecretKey::from_pem(&read(name), given).unwrap_err();
    assert!(matches!(refusal("key.pem", Some(&passphrase("wrong"))), signer::KeyError::WrongPassphrase));
    assert!(matches!(refusal("key.pem", None), signer::KeyError::PassphraseNeeded));
    assert!(matches!(refusal("ed448.pem", None), signer::KeyError::NotEd25519 { .. }));
}
