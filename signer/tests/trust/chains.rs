//! Who may sign what: each broken rule has its refusal, and the good way works.

use std::collections::BTreeMap;

use crate::support::{
    DAY, Forged, SERVER_AUTH, accepted, authority, code, days, leaf, leaf_for, now, recipe, signed,
    signed_by_force, signer, statement, store, store_with, subject, vo,
};
use recipe_spec::Code;
use signer::ca::{self, Revoked};
use signer::{
    Anchor, Chain, ChainError, Role, SecretKey, Signer, SignerError, TrustError, TrustSetupError, TrustStore,
    VoMap, verify_recipe, verify_recipe_at, verify_signed_recipe,
};
use x509_cert::ext::pkix::{BasicConstraints, CrlReason, KeyUsage, KeyUsages};

#[test]
fn a_signed_recipe_is_verified_and_says_by_whom() {
    let ca = authority("atlas");
    let signer = signer(Role::RecipeSigner, leaf(&ca, "atlas"));
    let content = recipe("atlas/web", "hello");
    let envelope = signed(&content, &signer);
    let verified = verify_signed_recipe(&envelope, &content, &store(&ca), now()).unwrap();
    assert_eq!(verified.recipe_sha256(), content.digest());
    assert_eq!(verified.envelope().payload(), statement(&content));
    assert_eq!(verified.envelope().envelope_sha256(), recipe_spec::Sha256Digest::of(&envelope));
    let who = &verified.signers()[0];
    assert_eq!(who.subject(), "CN=Release key,O=atlas");
    assert_eq!(who.vo(), Some(&vo("atlas")));
    assert_eq!(who.spki_sha256(), signer.spki_sha256());
    assert_eq!(who.serial(), signer.chain().leaf().serial());
    assert_eq!(who.crls()[0].number, "1");
}

#[test]
fn two_people_sign_and_both_count_once() {
    let ca = authority("atlas");
    let content = recipe("atlas/web", "hello");
    let (first, second) =
        (signer(Role::RecipeSigner, leaf(&ca, "atlas")), signer(Role::RecipeSigner, leaf(&ca, "atlas")));
    let both = crate::support::envelope(&content, &first).with_signature(&second).unwrap();
    let verified = verify_signed_recipe(&both.to_bytes(), &content, &store(&ca), now()).unwrap();
    assert_eq!(verified.signers().len(), 2);
    assert!(
        crate::support::envelope(&content, &first).with_signature(&first).is_err(),
        "one key does not count twice"
    );
    // A second signature that does not count here refuses the whole.
    let stranger = signer(Role::RecipeSigner, leaf(&authority("cms"), "cms"));
    let mixed = crate::support::envelope(&content, &first).with_signature(&stranger).unwrap();
    assert_eq!(code(verify_recipe(&mixed.to_bytes(), &store(&ca), now())), Code::UntrustedSigner);
}

#[test]
fn validity_is_judged_to_the_second() {
    let ca = authority("atlas");
    let (from, until) = days(-2, 10);
    let signer = signer(Role::RecipeSigner, leaf_for(&ca, "atlas", (from, until)));
    let envelope = signed(&recipe("atlas/web", "hello"), &signer);
    let store = store(&ca);
    let at = |moment| verify_recipe(&envelope, &store, moment);
    assert!(at(from).is_ok() && at(until).is_ok());
    assert!(
        matches!(at(until.plus_seconds(1)), Err(TrustError::Expired { not_after, .. }) if not_after == until)
    );
    assert!(
        matches!(at(from.plus_seconds(-1)), Err(TrustError::NotYetValid { not_before, .. }) if not_before == from)
    );
    assert_eq!(code(at(until.plus_seconds(1))), Code::CertExpired);
    assert_eq!(code(at(from.plus_seconds(-1))), Code::CertExpired);
}

/// A deploy asks: was the certificate good when the site authorized, and is it unrevoked today?
#[test]
fn judged_as_of_the_authorization_but_revocation_as_of_now() {
    let ca = authority("atlas");
    let (key, pem) = leaf_for(&ca, "atlas", days(-20, -5));
    let serial = signer::Certificate::from_pem(&pem).unwrap().serial().to_vec();
    let envelope = signed(&recipe("atlas/web", "hello"), &signer(Role::RecipeSigner, (key, pem)));
    let issued_at = days(-6, 0).0;
    assert_eq!(code(verify_recipe(&envelope, &store(&ca), now())), Code::CertExpired);
    accepted(verify_recipe_at(&envelope, &store(&ca), issued_at, now()));
    let revoked = Revoked { serial, date: days(-1, 0).0, reason: CrlReason::KeyCompromise };
    let crl = ca::crl(&ca.key, &ca.certificate_pem, &[revoked], 2, days(-1, 0).0, days(0, 30).1).unwrap();
    let newer = store_with(&ca.certificate_pem, &[&crl]);
    assert_eq!(code(verify_recipe_at(&envelope, &newer, issued_at, now())), Code::CertRevoked);
    let later = days(0, 31).1;
    assert_eq!(code(verify_recipe_at(&envelope, &store(&ca), issued_at, later)), Code::CrlExpired);
    assert_eq!(code(verify_recipe_at(&envelope, &store(&ca), later, now())), Code::ClockBackward);
}

#[test]
fn a_revoked_leaf_is_refused_with_date_and_reason() {
    let ca = authority("atlas");
    let (key, pem) = leaf(&ca, "atlas");
    let serial = signer::Certificate::from_pem(&pem).unwrap().serial().to_vec();
    let envelope = signed(&recipe("atlas/web", "hello"), &signer(Role::RecipeSigner, (key, pem)));
    let date = days(-1, 0).0;
    let other = Revoked { serial: vec![0x42; 16], date, reason: CrlReason::Unspecified };
    let revoked = Revoked { serial, date, reason: CrlReason::KeyCompromise };
    let crl =
        |entries: &[Revoked]| ca::crl(&ca.key, &ca.certificate_pem, entries, 2, date, days(0, 30).1).unwrap();
    accepted(verify_recipe(
        &envelope,
        &store_with(&ca.certificate_pem, &[&crl(std::slice::from_ref(&other))]),
        now(),
    ));
    let refusal =
        verify_recipe(&envelope, &store_with(&ca.certificate_pem, &[&crl(&[other, revoked])]), now());
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.code(), Code::CertRevoked);
    assert!(refusal.to_string().contains("keyCompromise") && refusal.to_string().contains(&date.to_string()));
}

#[test]
fn without_a_good_crl_everything_is_refused() {
    let ca = authority("atlas");
    let envelope = signed(&recipe("atlas/web", "hello"), &signer(Role::RecipeSigner, leaf(&ca, "atlas")));
    let judged = |crl: &[&str]| code(verify_recipe(&envelope, &store_with(&ca.certificate_pem, crl), now()));
    let crl = |number, from, until| {
        let (this_update, next_update) = days(from, until);
        ca::crl(&ca.key, &ca.certificate_pem, &[], number, this_update, next_update).unwrap()
    };
    assert_eq!(judged(&[]), Code::CrlMissing);
    assert_eq!(judged(&[&crl(2, -40, 0)]), Code::CrlExpired, "next update is the first second of expiry");
    assert_eq!(judged(&[&crl(2, 1, 30)]), Code::CrlInvalid, "a list from the future");
    let stranger = authority("atlas");
    assert_eq!(
        judged(&[&stranger.crl_pem]),
        Code::CrlMissing,
        "the list of a CA with the same name and another key"
    );
    let damaged = flip_signature(&ca.crl_pem);
    assert_eq!(judged(&[&damaged]), Code::CrlInvalid);
    let twice = Anchor::new("a", &ca.certificate_pem, &[&ca.crl_pem, &crl(2, -1, 30)], [vo("atlas")]);
    assert_eq!(twice.unwrap_err().code(), Code::CrlInvalid);
}

/// The last byte of the DER is the last one of the signature.
fn flip_signature(crl_pem: &str) -> String {
    let (label, mut der) = der::pem::decode_vec(crl_pem.as_bytes()).unwrap();
    let last = der.len() - 20;
    der[last] ^= 1;
    der::pem::encode_string(label, der::pem::LineEnding::LF, &der).unwrap()
}

#[test]
fn a_stranger_is_refused_even_with_the_same_names() {
    let (ours, theirs) = (authority("atlas"), authority("atlas"));
    let envelope = signed(&recipe("atlas/web", "hello"), &signer(Role::RecipeSigner, leaf(&theirs, "atlas")));
    accepted(verify_recipe(&envelope, &store(&theirs), now()));
    assert_eq!(code(verify_recipe(&envelope, &store(&ours), now())), Code::UntrustedSigner);
    let empty = TrustStore::new(vec![]).unwrap();
    assert_eq!(code(verify_recipe(&envelope, &empty, now())), Code::UntrustedSigner);
}

#[test]
fn an_expired_anchor_vouches_for_nobody() {
    let ca = ca::init("atlas", "Test CA", days(-100, 5), days(0, 30).1).unwrap();
    let envelope = signed(
        &recipe("atlas/web", "hello"),
        &signer(Role::RecipeSigner, leaf_for(&ca, "atlas", days(-1, 4))),
    );
    // Issued by force beyond its CA's end.
    let (key, pem) = Forged::leaf("atlas").issued_by(&ca.key, &ca.certificate_pem);
    let outliving = signed_by_force(&statement(&recipe("atlas/web", "hello")), &key, &pem, &[]);
    accepted(verify_recipe(&envelope, &store(&ca), now()));
    accepted(verify_recipe(&outliving, &store(&ca), now()));
    let refusal = verify_recipe(&outliving, &store(&ca), days(0, 6).1).unwrap_err();
    assert_eq!(refusal.code(), Code::CertExpired);
    assert!(refusal.to_string().contains("Test CA"), "{refusal}");
}

#[test]
fn certificates_of_the_wrong_kind_cannot_sign() {
    let ca = authority("atlas");
    let usage = |usages: KeyUsages| Some((true, KeyUsage(usages.into())));
    let wrong = [
        ("server", Forged { extended: Some(vec![SERVER_AUTH]), ..Forged::leaf("atlas") }),
        ("no EKU", Forged { extended: None, ..Forged::leaf("atlas") }),
        ("no keyUsage", Forged { key_usage: None, ..Forged::leaf("atlas") }),
        ("other keyUsage", Forged { key_usage: usage(KeyUsages::KeyAgreement), ..Forged::leaf("atlas") }),
        (
            "keyUsage not critical",
            Forged {
                key_usage: Some((false, KeyUsage(KeyUsages::DigitalSignature.into()))),
                ..Forged::leaf("atlas")
            },
        ),
        (
            "a CA that could also sign",
            Forged {
                basic_constraints: Some(BasicConstraints { ca: true, path_len_constraint: None }),
                key_usage: Some((
                    true,
                    KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign | KeyUsages::CRLSign),
                )),
                ..Forged::leaf("atlas")
            },
        ),
        (
            "keyCertSign without being a CA",
            Forged {
                key_usage: Some((true, KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign))),
                ..Forged::leaf("atlas")
            },
        ),
    ];
    let content = statement(&recipe("atlas/web", "hello"));
    let (key, pem) = Forged::leaf("atlas").issued_by(&ca.key, &ca.certificate_pem);
    accepted(verify_recipe(&signed_by_force(&content, &key, &pem, &[]), &store(&ca), now()));
    for (what, forged) in wrong {
        let (key, pem) = forged.issued_by(&ca.key, &ca.certificate_pem);
        let envelope = signed_by_force(&content, &key, &pem, &[]);
        let refusal = verify_recipe(&envelope, &store(&ca), now()).expect_err(what);
        assert!(
            matches!(refusal, TrustError::Chain(ChainError::NotASigningCertificate { .. })),
            "{what}: {refusal}"
        );
        assert_eq!(refusal.code(), Code::UntrustedSigner, "{what}");
        let refusal = Signer::new(Role::RecipeSigner, key, Chain::from_pem(&pem).unwrap());
        assert!(matches!(refusal, Err(SignerError::Chain(_))), "{what}: it cannot sign by accident either");
    }
    // The CA's own key and certificate.
    let envelope = signed_by_force(&content, &ca.key, &ca.certificate_pem, &[]);
    assert_eq!(code(verify_recipe(&envelope, &store(&ca), now())), Code::UntrustedSigner);
    // A critical extension that nobody knows makes the certificate unreadable.
    let forged = Forged { unknown_critical: true, ..Forged::leaf("atlas") };
    let (_, pem) = forged.issued_by(&ca.key, &ca.certificate_pem);
    let unreadable = signer::Certificate::from_pem(&pem);
    assert!(matches!(unreadable, Err(signer::CertificateError::Extension { .. })));
}

#[test]
fn a_leaf_cannot_issue_and_each_intermediate_is_on_the_path() {
    let ca = authority("atlas");
    let content = statement(&recipe("atlas/web", "hello"));
    // A recipe signer plays CA.
    let (issuing, issuing_pem) = leaf(&ca, "atlas");
    let (key, pem) = Forged::leaf("atlas").issued_by(&issuing, &issuing_pem);
    let refusal = verify_recipe(&signed_by_force(&content, &key, &pem, &[&issuing_pem]), &store(&ca), now());
    assert!(matches!(refusal, Err(TrustError::Chain(ChainError::NotAnIssuer { .. }))));
    // A certificate rides along.
    let (key, pem) = leaf(&ca, "atlas");
    let other = Forged::ca("passenger").issued_by(&ca.key, &ca.certificate_pem).1;
    let refusal = verify_recipe(&signed_by_force(&content, &key, &pem, &[&other]), &store(&ca), now());
    assert!(matches!(refusal, Err(TrustError::Chain(ChainError::NotLinked { .. }))));
    // The anchor rides along.
    let refusal =
        verify_recipe(&signed_by_force(&content, &key, &pem, &[&ca.certificate_pem]), &store(&ca), now());
    assert!(matches!(refusal, Err(TrustError::Chain(ChainError::HoldsAnchor { .. }))));
    // A leaf that only names the CA.
    let stranger = SecretKey::generate().unwrap();
    let (key, pem) = Forged::leaf("atlas").issued_by(&stranger, &ca.certificate_pem);
    let refusal = verify_recipe(&signed_by_force(&content, &key, &pem, &[]), &store(&ca), now());
    assert!(matches!(refusal, Err(TrustError::ForgedCertificate { .. })));
}

#[test]
fn every_ca_on_the_path_needs_its_crl_and_may_be_revoked() {
    let root = authority("atlas");
    let middle = SecretKey::generate().unwrap();
    let middle_pem = ca::issue_ca(
        &root.key,
        &root.certificate_pem,
        &subject("atlas", "Issuing CA"),
        &middle.public(),
        days(-50, 500),
    )
    .unwrap();
    let crl = |revoked: &[Revoked]| {
        ca::crl(&root.key, &root.certificate_pem, revoked, 2, days(-1, 0).0, days(0, 30).1).unwrap()
    };
    let middle_crl = ca::crl(&middle, &middle_pem, &[], 1, days(-50, 0).0, days(0, 30).1).unwrap();
    let key = SecretKey::generate().unwrap();
    let leaf_pem =
        ca::issue(&middle, &middle_pem, &subject("atlas", "Release"), &key.public(), days(-10, 100)).unwrap();
    let chain = Chain::from_pem(&format!("{leaf_pem}{middle_pem}")).unwrap();
    let envelope =
        signed(&recipe("atlas/web", "hello"), &Signer::new(Role::RecipeSigner, key, chain).unwrap());
    let judged = |crls: &[&str]| verify_recipe(&envelope, &store_with(&root.certificate_pem, crls), now());
    let verified = judged(&[&root.crl_pem, &middle_crl]).unwrap();
    assert_eq!((verified.signers()[0].certificates().len(), verified.signers()[0].crls().len()), (2, 2));
    assert_eq!(code(judged(&[&root.crl_pem])), Code::CrlMissing);
    assert_eq!(code(judged(&[&middle_crl])), Code::CrlMissing);
    let serial = signer::Certificate::from_pem(&middle_pem).unwrap().serial().to_vec();
    let revoked = Revoked { serial, date: days(-1, 0).0, reason: CrlReason::CaCompromise };
    assert_eq!(code(judged(&[&crl(&[revoked]), &middle_crl])), Code::CertRevoked);
    // Path length 0: below the intermediate there is no other.
    let below = SecretKey::generate().unwrap();
    let refused =
        ca::issue_ca(&middle, &middle_pem, &subject("atlas", "Third"), &below.public(), days(-1, 10));
    assert!(matches!(refused, Err(ca::CaError::PathLength { .. })));
}

#[test]
fn a_signature_rests_on_every_key_up_to_the_anchor() {
    let root = authority("atlas");
    let middle = SecretKey::generate().unwrap();
    let who = subject("atlas", "Issuing CA");
    let middle_pem =
        ca::issue_ca(&root.key, &root.certificate_pem, &who, &middle.public(), days(-50, 500)).unwrap();
    let middle_crl = ca::crl(&middle, &middle_pem, &[], 1, days(-50, 0).0, days(0, 30).1).unwrap();
    let key = SecretKey::generate().unwrap();
    let leaf_pem =
        ca::issue(&middle, &middle_pem, &subject("atlas", "Release"), &key.public(), days(-10, 100)).unwrap();
    let expected = [&key, &middle, &root.key].map(|key| key.public().spki_sha256());
    let chain = Chain::from_pem(&format!("{leaf_pem}{middle_pem}")).unwrap();
    let envelope =
        signed(&recipe("atlas/web", "hello"), &Signer::new(Role::RecipeSigner, key, chain).unwrap());
    let store = store_with(&root.certificate_pem, &[&root.crl_pem, &middle_crl]);
    let verified = verify_recipe(&envelope, &store, now()).unwrap();
    assert_eq!(verified.signers()[0].keys(), expected);
}

/// webpki's own findings count too: a path length that is exceeded is seen by it alone.
#[test]
fn a_path_length_exceeded_is_refused() {
    let root = authority("atlas");
    let middle = SecretKey::generate().unwrap();
    let middle_pem = ca::issue_ca(
        &root.key,
        &root.certificate_pem,
        &subject("atlas", "Issuing CA"),
        &middle.public(),
        days(-50, 500),
    )
    .unwrap();
    let (below, below_pem) = Forged::ca("atlas").issued_by(&middle, &middle_pem);
    let crls = [
        root.crl_pem.clone(),
        ca::crl(&middle, &middle_pem, &[], 1, days(-50, 0).0, days(0, 30).1).unwrap(),
        ca::crl(&below, &below_pem, &[], 1, days(-50, 0).0, days(0, 30).1).unwrap(),
    ];
    let (key, pem) = Forged::leaf("atlas").issued_by(&below, &below_pem);
    let envelope =
        signed_by_force(&statement(&recipe("atlas/web", "hello")), &key, &pem, &[&below_pem, &middle_pem]);
    let crls: Vec<_> = crls.iter().map(String::as_str).collect();
    let refusal = verify_recipe(&envelope, &store_with(&root.certificate_pem, &crls), now()).unwrap_err();
    assert!(matches!(&refusal, TrustError::Path { reason, .. } if reason.contains("PathLen")), "{refusal}");
}

#[test]
fn a_signer_speaks_for_its_own_vo_only() {
    let ca = authority("atlas");
    let content = recipe("cms/web", "hello");
    let atlas = signed(&content, &signer(Role::RecipeSigner, leaf(&ca, "atlas")));
    let anchor = |vos: &[&str]| {
        Anchor::new("ca", &ca.certificate_pem, &[&ca.crl_pem], vos.iter().map(|name| vo(name))).unwrap()
    };
    let one = |anchor: Anchor| TrustStore::new(vec![anchor]).unwrap();
    // An anchor for both VOs, a signer for the other one.
    let refusal = verify_signed_recipe(&atlas, &content, &one(anchor(&["atlas", "cms"])), now());
    assert!(matches!(refusal, Err(TrustError::OtherVo { .. })));
    assert_eq!(code(refusal), Code::WrongVo);
    // An anchor that may not vouch for the VO that its leaf claims.
    let cms = signed(&content, &signer(Role::RecipeSigner, leaf(&ca, "cms")));
    let refusal = verify_signed_recipe(&cms, &content, &one(anchor(&["atlas"])), now());
    assert!(matches!(&refusal, Err(TrustError::VoNotAllowed { .. })));
    assert_eq!(code(refusal), Code::WrongVo);
    accepted(verify_signed_recipe(&cms, &content, &one(anchor(&["atlas", "cms"])), now()));
    // An organisation that is no VO name, nor like one.
    let collaboration = signed(&content, &signer(Role::RecipeSigner, leaf(&ca, "CMS")));
    assert_eq!(code(verify_recipe(&collaboration, &one(anchor(&["cms"])), now())), Code::WrongVo);
    let map = VoMap::Organisations(BTreeMap::from([("CMS".to_owned(), vo("cms"))]));
    accepted(verify_signed_recipe(&collaboration, &content, &one(anchor(&["cms"]).with_map(map)), now()));
}

#[test]
fn a_map_of_keys_replaces_the_organisation() {
    let ca = authority("atlas");
    let content = recipe("cms/web", "hello");
    let (listed, other) =
        (signer(Role::RecipeSigner, leaf(&ca, "anything")), signer(Role::RecipeSigner, leaf(&ca, "cms")));
    let map = VoMap::Keys(BTreeMap::from([(listed.spki_sha256(), vo("cms"))]));
    let anchor = Anchor::new("ca", &ca.certificate_pem, &[&ca.crl_pem], [vo("cms")]).unwrap().with_map(map);
    let store = TrustStore::new(vec![anchor]).unwrap();
    accepted(verify_signed_recipe(&signed(&content, &listed), &content, &store, now()));
    assert_eq!(code(verify_recipe(&signed(&content, &other), &store, now())), Code::WrongVo);
}

#[test]
fn two_anchors_with_one_name_are_told_apart_by_key() {
    let (old, new) = (authority("atlas"), authority("atlas"));
    let anchor = |name: &str, ca: &ca::CaFiles| {
        Anchor::new(name, &ca.certificate_pem, &[&ca.crl_pem], [vo("atlas")]).unwrap()
    };
    let store = TrustStore::new(vec![anchor("old", &old), anchor("new", &new)]).unwrap();
    let content = recipe("atlas/web", "hello");
    for ca in [&old, &new] {
        let envelope = signed(&content, &signer(Role::RecipeSigner, leaf(ca, "atlas")));
        accepted(verify_recipe(&envelope, &store, now()));
        // Without an authority key identifier only the signature tells which CA it was.
        let (key, pem) = Forged::leaf("atlas").issued_by(&ca.key, &ca.certificate_pem);
        accepted(verify_recipe(&signed_by_force(&statement(&content), &key, &pem, &[]), &store, now()));
    }
    let same = TrustStore::new(vec![anchor("one", &old), anchor("two", &old)]);
    assert!(matches!(same, Err(TrustSetupError::SameAnchor { .. })));
}

#[test]
fn the_ca_refuses_what_verifiers_would() {
    let ca = authority("atlas");
    let key = SecretKey::generate().unwrap();
    let issue = |who, validity| ca::issue(&ca.key, &ca.certificate_pem, &who, &key.public(), validity);
    assert!(matches!(issue(subject("atlas", "x"), days(0, 1001)), Err(ca::CaError::OutlivesCa { .. })));
    assert!(matches!(issue(subject("atlas", "x"), (now(), now())), Err(ca::CaError::Time { .. })));
    for name in ["", " x", "a\u{202e}b", "a\nb", &"x".repeat(65)] {
        assert!(matches!(issue(subject("atlas", name), days(0, 1)), Err(ca::CaError::Name(_))), "{name:?}");
    }
    let other = ca::issue(&key, &ca.certificate_pem, &subject("atlas", "x"), &key.public(), days(0, 1));
    assert!(matches!(other, Err(ca::CaError::OtherKey { .. })));
    let (leaf_key, leaf_pem) = leaf(&ca, "atlas");
    let by_leaf = ca::issue(&leaf_key, &leaf_pem, &subject("atlas", "x"), &key.public(), days(0, 1));
    assert!(matches!(by_leaf, Err(ca::CaError::Chain(ChainError::NotAnIssuer { .. }))));
    let entry = Revoked { serial: vec![1, 2], date: now(), reason: CrlReason::Superseded };
    let twice =
        ca::crl(&ca.key, &ca.certificate_pem, &[entry.clone(), entry], 2, now(), now().plus_seconds(DAY));
    assert!(matches!(twice, Err(ca::CaError::RepeatedSerial { .. })));
}

#[test]
fn serial_numbers_are_positive_random_and_16_bytes() {
    let ca = authority("atlas");
    let serials: std::collections::BTreeSet<Vec<u8>> = (0..50)
        .map(|_| signer::Certificate::from_pem(&leaf(&ca, "atlas").1).unwrap().serial().to_vec())
        .collect();
    assert_eq!(serials.len(), 50);
    assert!(serials.iter().all(|serial| serial.len() == 16 && serial[0] & 0x80 == 0));
}
