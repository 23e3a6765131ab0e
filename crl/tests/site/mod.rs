//! A site minted for a test: its CA, its keys and its pins.
#![allow(dead_code, reason = "each test binary uses its part")]

use crl::Selector;
use recipe_spec::digest::Sha256Digest;
use recipe_spec::timestamp::Timestamp;
use signer::ca::{self, CaFiles, Subject};
use signer::{Chain, Role, SecretKey, Signer, SitePins};

/// The issuer's name in the tests' lists.
pub(crate) const ISSUER: &str = "Example site";

/// One week in seconds: how long the tests' lists are good for.
pub(crate) const WEEK: i64 = 7 * 24 * 3600;

const DAY: i64 = 24 * 3600;

/// `seconds` after the tests' now.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(1_795_395_720).plus_seconds(seconds)
}

/// The `n`th recipe that could be revoked.
pub(crate) fn recipe(n: u32) -> Selector {
    Selector::Recipe(Sha256Digest::of(&n.to_be_bytes()))
}

pub(crate) struct Site {
    pub(crate) pins: SitePins,
    pub(crate) issuer: Signer,
    pub(crate) countersigner: Signer,
    ca: CaFiles,
    issuer_pem: String,
    countersigner_pem: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        let ca = ca::init("Example site", "Example site CA", (at(-30 * DAY), at(365 * DAY)), at(300 * DAY))
            .unwrap();
        let key = || SecretKey::generate().unwrap();
        let (issuer_key, countersigner_key) = (key(), key());
        let issuer_pem = issuer_key.to_plain_pem().unwrap().to_string();
        let countersigner_pem = countersigner_key.to_plain_pem().unwrap().to_string();
        let issuer = signer(&ca, Role::CrlIssuer, issuer_key);
        let countersigner = signer(&ca, Role::Countersigner, countersigner_key);
        let pins = pins(&ca, &countersigner, &issuer);
        Self { pins, issuer, countersigner, ca, issuer_pem, countersigner_pem }
    }

    /// The countersigner's key, used as if it were a CRL issuer's.
    pub(crate) fn posing_as_issuer(&self) -> Signer {
        signer(&self.ca, Role::CrlIssuer, SecretKey::from_pem(&self.countersigner_pem, None).unwrap())
    }

    /// The CRL issuer's key with a certificate of a later day.
    pub(crate) fn issuer_with_renewed_certificate(&self) -> Signer {
        signer(&self.ca, Role::CrlIssuer, SecretKey::from_pem(&self.issuer_pem, None).unwrap())
    }
}

fn signer(ca: &CaFiles, role: Role, key: SecretKey) -> Signer {
    let subject = Subject { organisation: "Example site".to_owned(), common_name: role.to_string() };
    let validity = (at(-10 * DAY), at(300 * DAY));
    let certificate = ca::issue(&ca.key, &ca.certificate_pem, &subject, &key.public(), validity).unwrap();
    Signer::new(role, key, Chain::from_pem(&certificate).unwrap()).unwrap()
}

fn pins(ca: &CaFiles, countersigner: &Signer, issuer: &Signer) -> SitePins {
    SitePins::new(&ca.certificate_pem, &[&ca.crl_pem])
        .and_then(|pins| pins.pin(Role::Countersigner, countersigner.spki_sha256()))
        .and_then(|pins| pins.pin(Role::CrlIssuer, issuer.spki_sha256()))
        .unwrap()
}
