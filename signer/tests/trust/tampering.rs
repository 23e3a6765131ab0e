//! Whatever is changed in a signed recipe's envelope, it is not accepted.

use crate::support::{authority, days, leaf, now, recipe, signed, signer, store, subject, vo};
use proptest::prelude::*;
use recipe_spec::Code;
use signer::{
    Chain, Envelope, EnvelopeError, Role, SecretKey, Signer, TrustError, TrustStore, ca, verify_recipe,
    verify_signed_recipe,
};

/// A signed recipe whose chain has an intermediate CA, so that every kind of byte is in the envelope.
fn signed_under_intermediate() -> (Vec<u8>, TrustStore) {
    let root = authority("atlas");
    let middle = SecretKey::generate().unwrap();
    let who = subject("atlas", "Issuing CA");
    let middle_pem =
        ca::issue_ca(&root.key, &root.certificate_pem, &who, &middle.public(), days(-50, 500)).unwrap();
    let middle_crl = ca::crl(&middle, &middle_pem, &[], 1, days(-50, 0).0, days(0, 30).1).unwrap();
    let key = SecretKey::generate().unwrap();
    let leaf_pem =
        ca::issue(&middle, &middle_pem, &subject("atlas", "Release"), &key.public(), days(-10, 100)).unwrap();
    let chain = Chain::from_pem(&format!("{leaf_pem}{middle_pem}")).unwrap();
    let signer = Signer::new(Role::RecipeSigner, key, chain).unwrap();
    let store = crate::support::store_with(&root.certificate_pem, &[&root.crl_pem, &middle_crl]);
    (signed(&recipe("atlas/web", "hello"), &signer), store)
}

#[test]
fn each_bit_of_each_byte_flipped_is_never_accepted() {
    let (envelope, store) = signed_under_intermediate();
    assert_eq!(verify_recipe(&envelope, &store, now()).unwrap().signers().len(), 1);
    let half = envelope.len() / 2;
    let accepted = |range: std::ops::Range<usize>| {
        let mut tampered = envelope.clone();
        let mut accepted = Vec::new();
        for index in range {
            for bit in 0..8 {
                tampered[index] ^= 1 << bit;
                if verify_recipe(&tampered, &store, now()).is_ok() {
                    accepted.push((index, bit));
                }
                tampered[index] ^= 1 << bit;
            }
        }
        assert_eq!(tampered, envelope);
        accepted
    };
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| accepted(half..envelope.len()));
        (accepted(0..half), second.join().unwrap())
    });
    assert_eq!((first, second), (vec![], vec![]));
}

#[test]
fn every_prefix_and_every_byte_added_is_refused() {
    let (envelope, store) = signed_under_intermediate();
    for length in 0..envelope.len() {
        assert_eq!(
            crate::support::code(verify_recipe(&envelope[..length], &store, now())),
            Code::BadSignature,
            "{length}"
        );
    }
    for byte in 0..=255 {
        let longer = [&envelope[..], &[byte]].concat();
        assert_eq!(crate::support::code(verify_recipe(&longer, &store, now())), Code::BadSignature, "{byte}");
        let longer = [&[byte], &envelope[..]].concat();
        assert_eq!(crate::support::code(verify_recipe(&longer, &store, now())), Code::BadSignature, "{byte}");
    }
}

/// The same content in the other encodings that DSSE and JSON allow.
#[test]
fn every_other_encoding_is_refused() {
    let ca = authority("atlas");
    let envelope = signed(&recipe("atlas/web", "hello"), &signer(Role::RecipeSigner, leaf(&ca, "atlas")));
    let text = String::from_utf8(envelope.clone()).unwrap();
    let payload_end = text.find("\",\"payloadType").unwrap();
    let (payload, rest) = (&text[12..payload_end], &text[payload_end..]);
    let signatures = text.find("\"signatures\":[").unwrap() + "\"signatures\":[".len();
    let object = &text[signatures..text.len() - 3];
    let keyid = &object[10..74];
    let variants = [
        ("no line end", text.trim_end().to_owned()),
        ("two line ends", format!("{text}\n")),
        ("a carriage return", text.replace('\n', "\r\n")),
        ("white space", text.replacen(':', ": ", 1)),
        (
            "fields in another order",
            format!(
                "{{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"{payload}\",{}",
                &text[signatures - 14..]
            ),
        ),
        ("an unknown field", text.replacen('{', "{\"extra\":1,", 1)),
        ("an unknown field in the signature", text.replacen("{\"keyid\"", "{\"extra\":1,\"keyid\"", 1)),
        (
            "a duplicate field",
            text.replacen("\"payloadType\"", &format!("\"payload\":\"{payload}\",\"payloadType\""), 1),
        ),
        (
            "a duplicate payload type",
            text.replacen(
                "\"payloadType\"",
                "\"payloadType\":\"application/vnd.in-toto+json\",\"payloadType\"",
                1,
            ),
        ),
        ("an escaped character", text.replacen("\"payload\":\"e", "\"payload\":\"\\u0065", 1)),
        ("an escaped slash", text.replacen("application/vnd", "application\\/vnd", 1)),
        ("base64 without padding", text.replacen("==\"", "\"", 1)),
        ("base64 with less padding", text.replacen("==\"", "=\"", 1)),
        ("base64 with more padding", text.replacen("==\"", "===\"", 1)),
        ("base64 with a line end", format!("{{\"payload\":\"{}\\n{}{rest}", &payload[..4], &payload[4..])),
        ("keyid in capitals", text.replacen(keyid, &keyid.to_uppercase(), 1)),
        ("the same signature twice", format!("{}{object},{object}]}}\n", &text[..signatures])),
        ("no signature", format!("{}]}}\n", &text[..signatures])),
        ("a byte order mark", format!("\u{feff}{text}")),
        ("PEM with other line ends", text.replacen("CERTIFICATE-----\\n", "CERTIFICATE-----\\r\\n", 1)),
        ("PEM with text before it", text.replacen("\"certificate\":\"", "\"certificate\":\"hello\\n", 1)),
        ("two documents", format!("{text}{text}")),
    ];
    let store = store(&ca);
    crate::support::accepted(verify_recipe(&envelope, &store, now()));
    for (what, variant) in variants {
        assert!(variant.as_bytes() != envelope, "{what}: the test must change something");
        let refusal = verify_recipe(variant.as_bytes(), &store, now());
        assert_eq!(refusal.expect_err(what).code(), Code::BadSignature, "{what}");
    }
}

/// Base64 whose last character has spare bits set decodes to the same bytes in lenient decoders.
#[test]
fn spare_bits_of_base64_are_refused() {
    let ca = authority("atlas");
    let signer = signer(Role::RecipeSigner, leaf(&ca, "atlas"));
    let envelope = String::from_utf8(signed(&recipe("atlas/web", "hello"), &signer)).unwrap();
    let sig = envelope.find("\"sig\":\"").unwrap() + 7;
    let end = sig + envelope[sig..].find('"').unwrap();
    assert_eq!(&envelope[end - 2..end], "==", "64 bytes are padded with two characters");
    let last = envelope.as_bytes()[end - 3];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = alphabet.iter().position(|character| *character == last).unwrap();
    for spare in 1..16 {
        let mut tampered = envelope.clone().into_bytes();
        tampered[end - 3] = alphabet[value ^ spare];
        assert_eq!(crate::support::code(verify_recipe(&tampered, &store(&ca), now())), Code::BadSignature);
    }
}

/// RFC 8032 §5.1.7: S + L verifies with a lenient verifier.
#[test]
fn a_signature_with_its_order_added_is_refused() {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let key = SecretKey::generate().unwrap();
    let mut signature = key.sign(b"message");
    assert!(key.public().verify_strict(b"message", &signature));
    let mut carry = 0;
    for (digit, add) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*digit) + u16::from(add) + carry;
        *digit = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(!key.public().verify_strict(b"message", &signature));
}

/// A signature by one key proves nothing about another one's certificate.
#[test]
fn keyid_never_selects_a_key() {
    let ca = authority("atlas");
    let (mine, theirs) = (leaf(&ca, "atlas"), leaf(&ca, "atlas"));
    let content = recipe("atlas/web", "hello");
    let forged =
        crate::support::signed_by_force(&crate::support::statement(&content), &mine.0, &theirs.1, &[]);
    assert_eq!(crate::support::code(verify_recipe(&forged, &store(&ca), now())), Code::BadSignature);
    let envelope = String::from_utf8(signed(&content, &signer(Role::RecipeSigner, mine))).unwrap();
    let keyid = envelope[envelope.find("\"keyid\":\"").unwrap() + 9..][..64].to_owned();
    let other = signer::Certificate::from_pem(&theirs.1).unwrap().public_key().spki_sha256().to_hex();
    let swapped = envelope.replace(&keyid, &other);
    let refusal = verify_recipe(swapped.as_bytes(), &store(&ca), now()).unwrap_err();
    assert!(matches!(refusal, TrustError::Envelope(EnvelopeError::KeyIdMismatch { .. })), "{refusal}");
    assert_eq!(refusal.code(), Code::BadSignature);
}

#[test]
fn content_that_is_not_what_was_signed() {
    let ca = authority("atlas");
    let signer = signer(Role::RecipeSigner, leaf(&ca, "atlas"));
    let envelope = signed(&recipe("atlas/web", "hello"), &signer);
    let verified =
        verify_signed_recipe(&envelope, &recipe("atlas/web", "hello"), &store(&ca), now()).unwrap();
    assert_eq!((verified.vo(), verified.signers().len()), (&vo("atlas"), 1));
    for other in [recipe("atlas/web", "hellp"), recipe("atlas/web2", "hello")] {
        let refusal = verify_signed_recipe(&envelope, &other, &store(&ca), now()).unwrap_err();
        assert_eq!(refusal.code(), Code::BadSignature);
        assert!(refusal.to_string().contains(&other.digest().to_hex()), "{refusal}");
    }
}

/// A trusted signer signs a statement that is not the one which follows from the content.
#[test]
fn a_signature_over_another_statement() {
    let ca = authority("atlas");
    let (key, pem) = leaf(&ca, "atlas");
    let content = recipe("atlas/web", "hello");
    let statement = String::from_utf8(crate::support::statement(&content)).unwrap();
    let judged = |payload: &str| {
        let envelope = crate::support::signed_by_force(payload.as_bytes(), &key, &pem, &[]);
        verify_signed_recipe(&envelope, &content, &store(&ca), now())
    };
    assert!(judged(&statement).is_ok());
    let subject =
        &statement[statement.find("{\"name\"").unwrap()..statement.find("],\"predicateType").unwrap()];
    let digest = content.digest().to_hex();
    for (what, other) in [
        ("type", statement.replace("in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1")),
        ("predicate type", statement.replace("urn:countersign:recipe:v1", "urn:countersign:recipe:v2")),
        (
            "an authorization",
            statement.replace("urn:countersign:recipe:v1", "urn:countersign:authorization:v1"),
        ),
        ("predicate", statement.replace("\"version\":\"1.4.0\"", "\"version\":\"1.4.1\"")),
        ("more predicate", statement.replace("\"version\":\"1.4.0\"", "\"version\":\"1.4.0\",\"also\":1")),
        ("subject's name", statement.replace("atlas/web@1.4.0", "atlas/web@1.4.1")),
        ("subject's digest", statement.replace(&digest, &"0".repeat(64))),
        ("no digest", statement.replace("sha256", "sha1")),
        ("two subjects", statement.replace(subject, &format!("{subject},{subject}"))),
        ("no subject", statement.replace(subject, "")),
        ("white space", statement.replacen(':', ": ", 1)),
        ("a line end", format!("{statement}\n")),
        ("nothing", String::new()),
        ("no object", "[]".to_owned()),
    ] {
        assert_ne!(other, statement, "{what}");
        assert_eq!(judged(&other).expect_err(what).code(), Code::BadSignature, "{what}");
    }
}

#[test]
fn an_envelope_larger_than_any_is_not_parsed() {
    let ca = authority("atlas");
    let signer = signer(Role::RecipeSigner, leaf(&ca, "atlas"));
    let mut envelope = signed(&recipe("atlas/web", "hello"), &signer);
    envelope.resize(100 << 20, b' ');
    let refusal = verify_recipe(&envelope, &store(&ca), now()).unwrap_err();
    assert!(matches!(refusal, TrustError::Envelope(EnvelopeError::TooLarge { .. })), "{refusal}");
    assert_eq!(refusal.code(), Code::BadSignature);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Envelope::parse_untrusted(&bytes).is_err());
        prop_assert!(signer::Certificate::from_der(&bytes).is_err());
        prop_assert!(signer::CertificateCrl::from_der(&bytes).is_err());
        prop_assert!(signer::PublicKey::from_spki_der(&bytes).is_err());
    }

    /// Each byte of a certificate and of a CRL set to any value: never a panic, and never the same meaning.
    #[test]
    fn a_damaged_certificate_is_not_signed_by_its_ca(at in any::<proptest::sample::Index>(), to in any::<u8>()) {
        let ca = authority("atlas");
        let anchor = signer::Certificate::from_pem(&ca.certificate_pem).unwrap();
        let mut der = anchor.der().to_vec();
        let at = at.index(der.len());
        prop_assume!(der[at] != to);
        der[at] = to;
        if let Ok(damaged) = signer::Certificate::from_der(&der) {
            prop_assert!(!damaged.is_signed_by(&anchor));
        }
    }
}
