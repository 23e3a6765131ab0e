//! Whatever is done to a list on its way, it is refused, and with the right code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod site;

use crl::body::{Body, BodyError};
use crl::header::HeaderError;
use crl::{AuthenticCrl, CrlError, Header, Reason, RecipeCrl, Scope, Selector, Status, issue};
use recipe_spec::code::Code;
use recipe_spec::digest::Sha256Digest;
use recipe_spec::statement::{CRL_PREDICATE, Statement, Subject};
use site::{ISSUER, Site, WEEK, at, recipe};

fn list(site: &Site) -> (Vec<u8>, Vec<u8>) {
    let add: Vec<_> = (0..5).map(|n| (recipe(n), Reason::Superseded, at(0))).collect();
    issue(None, &add, ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap()
}

fn verdict(site: &Site, header: &[u8], body: &[u8], seconds: i64) -> Result<RecipeCrl, Code> {
    RecipeCrl::verify(header, body, &site.pins, at(seconds)).map_err(|error| error.code())
}

#[test]
fn every_prefix_of_header_and_body_is_refused() {
    let site = Site::new();
    let (header, body) = list(&site);
    assert!(verdict(&site, &header, &body, 0).is_ok());
    for length in 0..header.len() {
        assert_eq!(
            verdict(&site, &header[..length], &body, 0).err(),
            Some(Code::CrlInvalid),
            "header: {length}"
        );
    }
    for length in 0..body.len() {
        assert_eq!(
            verdict(&site, &header, &body[..length], 0).err(),
            Some(Code::CrlInvalid),
            "body: {length}"
        );
    }
    let longer = |bytes: &[u8], byte: u8| [bytes, &[byte]].concat();
    for byte in [0, b'\n', b' '] {
        assert_eq!(verdict(&site, &longer(&header, byte), &body, 0).err(), Some(Code::CrlInvalid));
        assert_eq!(verdict(&site, &header, &longer(&body, byte), 0).err(), Some(Code::CrlInvalid));
    }
}

#[test]
fn every_flipped_bit_of_the_header_is_refused() {
    let site = Site::new();
    let (header, body) = list(&site);
    for bit in 0..header.len() * 8 {
        let mut flipped = header.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verdict(&site, &flipped, &body, 0).err(), Some(Code::CrlInvalid), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_the_body_is_refused() {
    let site = Site::new();
    let (header, body) = list(&site);
    for bit in 0..body.len() * 8 {
        let mut flipped = body.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = RecipeCrl::verify(&header, flipped, &site.pins, at(0)).unwrap_err();
        assert!(matches!(error, CrlError::BodyDigest { .. }), "bit {bit}: {error}");
    }
}

#[test]
fn the_body_of_another_list_is_refused() {
    let site = Site::new();
    let (header, _) = list(&site);
    let other: Vec<_> = (10..15).map(|n| (recipe(n), Reason::Superseded, at(0))).collect();
    let (_, body) = issue(None, &other, ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap();
    let error = RecipeCrl::verify(&header, &body, &site.pins, at(0)).unwrap_err();
    assert!(matches!(error, CrlError::BodyDigest { .. }), "same length, other digest: {error}");
}

#[test]
fn a_list_by_a_key_that_is_not_pinned_is_refused() {
    let (site, other) = (Site::new(), Site::new());
    let (header, body) = list(&other);
    assert!(verdict(&other, &header, &body, 0).is_ok());
    let error = RecipeCrl::verify(&header, &body, &site.pins, at(0)).unwrap_err();
    assert!(matches!(error, CrlError::Envelope(_)), "{error}");
    assert_eq!(error.code(), Code::CrlInvalid);
}

#[test]
fn a_list_by_the_countersigner_of_the_same_site_is_refused() {
    let site = Site::new();
    let error = issue(None, &[], ISSUER, Scope::Site, at(WEEK), &site.countersigner, at(0)).unwrap_err();
    assert_eq!(error.code(), Code::CrlInvalid);
    // Nor if that key says it is an issuer's: its digest is pinned for another role.
    let posing = site.posing_as_issuer();
    let (header, body) = issue(None, &[], ISSUER, Scope::Site, at(WEEK), &posing, at(0)).unwrap();
    assert_eq!(verdict(&site, &header, &body, 0).err(), Some(Code::CrlInvalid));
}

#[test]
fn a_list_counts_from_its_issue_until_its_next_update() {
    let site = Site::new();
    let (header, body) = list(&site);
    assert!(verdict(&site, &header, &body, WEEK - 1).is_ok());
    assert_eq!(verdict(&site, &header, &body, WEEK).err(), Some(Code::CrlExpired));
    let error = RecipeCrl::verify(&header, &body, &site.pins, at(WEEK + 5)).unwrap_err();
    assert!(
        matches!(error, CrlError::Expired { next_update, now } if next_update == at(WEEK) && now == at(WEEK + 5))
    );

    assert!(verdict(&site, &header, &body, -crl::FUTURE_TOLERANCE_SECONDS).is_ok());
    let early =
        RecipeCrl::verify(&header, &body, &site.pins, at(-crl::FUTURE_TOLERANCE_SECONDS - 1)).unwrap_err();
    assert!(matches!(early, CrlError::NotYetValid { .. }), "{early}");
    assert_eq!(early.code(), Code::CrlInvalid);

    let expired = AuthenticCrl::verify(&header, &body, &site.pins, at(WEEK)).unwrap();
    assert_eq!(expired.show().entries.len(), 5, "an expired list can still be shown");
}

/// What a broken issuer signs: `change` spoils an honest header, `body` is any bytes.
fn signed(site: &Site, body: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = Header {
        issuer: ISSUER.parse().unwrap(),
        scope: Scope::Site,
        epoch: 1,
        number: 1,
        this_update: at(0),
        next_update: at(WEEK),
        base: None,
        previous: None,
        entries: (body.len() / crl::record::RECORD_BYTES) as u64,
        body_length: body.len() as u64,
        body: Sha256Digest::of(body).into(),
    };
    change(&mut header);
    let subject = Subject::new("crl.body", header.body.sha256);
    let statement = Statement::new(vec![subject], CRL_PREDICATE, header);
    signer::dsse::sign(signer::PAYLOAD_TYPE, &statement.to_bytes().unwrap(), &site.issuer).unwrap().to_bytes()
}

#[test]
fn a_signature_does_not_excuse_a_malformed_body() {
    let site = Site::new();
    let (_, body) = list(&site);
    assert!(verdict(&site, &signed(&site, &body, |_| {}), &body, 0).is_ok());
    let records: Vec<&[u8]> = body.chunks(crl::record::RECORD_BYTES).collect();
    let refused = |body: Vec<u8>| {
        let header = signed(&site, &body, |_| {});
        let error = RecipeCrl::verify(&header, &body, &site.pins, at(0)).unwrap_err();
        assert_eq!(error.code(), Code::CrlInvalid);
        error
    };
    let unsorted = refused([records[1], records[0]].concat());
    assert!(matches!(unsorted, CrlError::Body(BodyError::Unsorted(1))), "{unsorted}");
    let duplicate = refused([records[0], records[0]].concat());
    assert!(matches!(duplicate, CrlError::Body(BodyError::Duplicate(1))), "{duplicate}");
    let mut unknown = body.clone();
    unknown[32] = 99;
    assert!(matches!(refused(unknown), CrlError::Body(BodyError::Record { index: 0, .. })));
    let ragged = refused(body[..50].to_vec());
    assert!(matches!(ragged, CrlError::Header(HeaderError::Lengths { .. })), "{ragged}");
}

#[test]
fn a_signature_does_not_excuse_a_header_that_lies() {
    let site = Site::new();
    let (_, body) = list(&site);
    type Lie = fn(&mut Header);
    let lies: [(&str, Lie); 9] = [
        ("entries", |h| h.entries += 1),
        ("length", |h| h.body_length = u64::MAX),
        ("both", |h| (h.entries, h.body_length) = (h.entries + 1, h.body_length + 38)),
        ("number 0", |h| h.number = 0),
        ("a number without a list before", |h| h.number = u64::MAX),
        ("epoch 0", |h| h.epoch = 0),
        ("a first list with one before", |h| h.previous = Some(Sha256Digest::of(b"x").into())),
        ("a delta", |h| h.base = Some(1)),
        ("no time", |h| h.next_update = h.this_update),
    ];
    for (lie, change) in lies {
        let header = signed(&site, &body, change);
        assert_eq!(verdict(&site, &header, &body, 0).err(), Some(Code::CrlInvalid), "{lie}");
    }
    let last = signed(&site, &body, |h| {
        (h.number, h.epoch) = (u64::MAX, u64::MAX);
        h.previous = Some(Sha256Digest::of(b"x").into());
    });
    assert_eq!(
        verdict(&site, &last, &body, 0).unwrap().number(),
        u64::MAX,
        "numbers reach to the end of u64"
    );
}

#[test]
fn another_subject_than_the_body_is_refused() {
    let site = Site::new();
    let (_, body) = list(&site);
    let header = AuthenticCrl::verify(&signed(&site, &body, |_| {}), &body, &site.pins, at(0))
        .unwrap()
        .header()
        .clone();
    let with = |subjects: Vec<Subject>| {
        let statement = Statement::new(subjects, CRL_PREDICATE, header.clone()).to_bytes().unwrap();
        let envelope = signer::dsse::sign(signer::PAYLOAD_TYPE, &statement, &site.issuer).unwrap().to_bytes();
        verdict(&site, &envelope, &body, 0).err()
    };
    let digest = header.body.sha256;
    assert_eq!(with(vec![Subject::new("crl.body", digest)]), None);
    assert_eq!(with(vec![Subject::new("other", digest)]), Some(Code::CrlInvalid));
    assert_eq!(with(vec![Subject::new("crl.body", Sha256Digest::of(b"x"))]), Some(Code::CrlInvalid));
    assert_eq!(
        with(vec![Subject::new("crl.body", digest), Subject::new("crl.body", digest)]),
        Some(Code::CrlInvalid)
    );
}

#[test]
fn a_million_entries() {
    const ENTRIES: u32 = 1_000_000;
    let site = Site::new();
    let (header, body) = {
        let add: Vec<_> = (0..ENTRIES).map(|n| (recipe(n), Reason::KeyCompromise, at(0))).collect();
        issue(None, &add, ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap()
    };
    assert_eq!(body.len(), 38_000_000);
    let list = RecipeCrl::verify(&header, body, &site.pins, at(0)).unwrap();
    assert_eq!(list.authentic().body().len(), 1_000_000);
    for n in (0..ENTRIES).step_by(997) {
        assert!(matches!(list.status(&recipe(n)), Status::Revoked { reason: Reason::KeyCompromise, .. }));
        assert!(matches!(list.status(&recipe(n + ENTRIES)), Status::NotRevoked { number: 1, .. }));
    }
    // One more list on top, by merging.
    let previous = list.authentic();
    let add = [(recipe(ENTRIES), Reason::Superseded, at(0)), (recipe(0), Reason::Superseded, at(0))];
    let (_, body) = issue(Some(previous), &add, ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap();
    let body = Body::from_bytes(body).unwrap();
    assert_eq!(body.len(), 1_000_001);
    let selector: Selector = recipe(ENTRIES);
    assert!(body.find(&selector.digest()).is_some());
}
