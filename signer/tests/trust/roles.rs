//! A site's own keys: pinned, each for one role, and never mixed with what a VO's anchor vouches for.

use crate::support::{
    accepted, authority, code, leaf, now, pins, recipe, signed, signed_by_force, signer, store, vo,
};
use recipe_spec::statement::{
    AUTHORIZATION_PREDICATE, BASE_PREDICATE, CRL_PREDICATE, RECIPE_PREDICATE, Statement, Subject,
};
use recipe_spec::{Code, Sha256Digest};
use signer::{
    Anchor, Envelope, PAYLOAD_TYPE, Role, SignError, Signer, TrustError, TrustSetupError, TrustStore, dsse,
    verify_recipe, verify_site,
};

fn about(predicate: &str) -> Vec<u8> {
    let subject = Subject::new("atlas/web@1.4.0", Sha256Digest::of(b"recipe"));
    Statement::new(vec![subject], predicate, serde_json::json!({"site": "example"})).to_bytes().unwrap()
}

fn sign(predicate: &str, signer: &Signer) -> Result<Envelope, SignError> {
    dsse::sign(PAYLOAD_TYPE, &about(predicate), signer)
}

const SITE_ROLES: [(Role, &str); 3] = [
    (Role::Countersigner, AUTHORIZATION_PREDICATE),
    (Role::CrlIssuer, CRL_PREDICATE),
    (Role::BaseSigner, BASE_PREDICATE),
];

#[test]
fn a_pinned_key_counts_in_its_role_only() {
    let ca = authority("example.org");
    for (role, predicate) in SITE_ROLES {
        let signer = signer(role, leaf(&ca, "example.org"));
        let envelope = sign(predicate, &signer).unwrap().to_bytes();
        let pinned = pins(&ca).pin(role, signer.spki_sha256()).unwrap();
        let verified = verify_site(&envelope, role, &pinned, now()).unwrap();
        assert_eq!((verified.predicate_type(), verified.signers()[0].vo()), (predicate, None));
        for (other, _) in SITE_ROLES.into_iter().filter(|(other, _)| *other != role) {
            assert_eq!(code(verify_site(&envelope, other, &pinned, now())), Code::UntrustedSigner);
            let elsewhere = pins(&ca).pin(other, signer.spki_sha256()).unwrap();
            let refusal = verify_site(&envelope, other, &elsewhere, now());
            assert!(matches!(refusal, Err(TrustError::Predicate { .. })), "a statement of another role");
        }
        assert_eq!(
            code(verify_site(&envelope, role, &pins(&ca), now())),
            Code::UntrustedSigner,
            "not pinned"
        );
        assert_eq!(code(verify_site(&envelope, Role::RecipeSigner, &pinned, now())), Code::UntrustedSigner);
    }
}

#[test]
fn a_role_signs_its_own_statements_only() {
    let ca = authority("example.org");
    let all = [RECIPE_PREDICATE, AUTHORIZATION_PREDICATE, CRL_PREDICATE, BASE_PREDICATE];
    for role in Role::ALL {
        let signer = signer(role, leaf(&ca, "example.org"));
        for predicate in all {
            let allowed = role.predicates().contains(&predicate);
            assert_eq!(sign(predicate, &signer).is_ok(), allowed, "{role} and {predicate}");
        }
        assert!(matches!(dsse::sign(PAYLOAD_TYPE, b"{}", &signer), Err(SignError::NotAStatement(_))));
        assert!(matches!(dsse::sign("text/plain", b"{}", &signer), Err(SignError::OtherPayloadType(_))));
    }
    assert!(
        all.iter().all(|predicate| Role::ALL
            .iter()
            .filter(|role| role.predicates().contains(predicate))
            .count()
            == 1)
    );
}

/// The pin is not enough: the chain must be the site's, and the chain is not enough without the pin.
#[test]
fn a_vo_anchor_cannot_vouch_for_a_site_role() {
    let (site, atlas) = (authority("example.org"), authority("atlas"));
    let by_vo = signer(Role::Countersigner, leaf(&atlas, "example.org"));
    let envelope = sign(AUTHORIZATION_PREDICATE, &by_vo).unwrap().to_bytes();
    let pinned = pins(&site).pin(Role::Countersigner, by_vo.spki_sha256()).unwrap();
    assert!(matches!(
        verify_site(&envelope, Role::Countersigner, &pinned, now()),
        Err(TrustError::UnknownIssuer { .. })
    ));
}

#[test]
fn a_site_certificate_cannot_sign_a_vo_recipe() {
    let (site, atlas) = (authority("example.org"), authority("atlas"));
    let content = recipe("atlas/web", "hello");
    // Under the site's CA, with the VO's name in it.
    let by_site = signed(&content, &signer(Role::RecipeSigner, leaf(&site, "atlas")));
    assert_eq!(code(verify_recipe(&by_site, &store(&atlas), now())), Code::UntrustedSigner);
    // The site's CA among the anchors.
    let anchor = Anchor::new("site", &site.certificate_pem, &[&site.crl_pem], [vo("atlas")]).unwrap();
    let refused = TrustStore::new(vec![anchor]).unwrap().without_site(&pins(&site));
    assert!(matches!(refused, Err(TrustSetupError::SiteCa { .. })));
    // A key pinned by the site, with a certificate from the VO's CA.
    let both = signer(Role::RecipeSigner, leaf(&atlas, "atlas"));
    let pinned = pins(&site).pin(Role::Countersigner, both.spki_sha256()).unwrap();
    let envelope = signed(&content, &both);
    accepted(verify_recipe(&envelope, &store(&atlas), now()));
    let store = store(&atlas).without_site(&pinned).unwrap();
    assert!(matches!(verify_recipe(&envelope, &store, now()), Err(TrustError::SiteKey { .. })));
}

#[test]
fn pins_are_for_the_site_and_for_one_role() {
    let ca = authority("example.org");
    let spki = Sha256Digest::of(b"key");
    assert!(matches!(pins(&ca).pin(Role::RecipeSigner, spki), Err(TrustSetupError::PinnedRecipeSigner)));
    let once = pins(&ca).pin(Role::CrlIssuer, spki).unwrap();
    assert_eq!(once.pinned(Role::CrlIssuer).collect::<Vec<_>>(), [spki]);
    assert!(matches!(once.pin(Role::Countersigner, spki), Err(TrustSetupError::TwoRoles { .. })));
}

/// A statement that was signed for one purpose, offered for another.
#[test]
fn a_valid_signature_over_another_predicate_is_refused() {
    let ca = authority("atlas");
    let (key, pem) = leaf(&ca, "atlas");
    let envelope = signed_by_force(&about(CRL_PREDICATE), &key, &pem, &[]);
    let refusal = verify_recipe(&envelope, &store(&ca), now());
    assert!(matches!(refusal, Err(TrustError::Predicate { .. })));
    assert_eq!(code(refusal), Code::BadSignature);
}
