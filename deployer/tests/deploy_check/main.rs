//! The deploy-time check against everything it reads: authorization, recipe, base, layers, recipe CRL, ledger, clock. Each of them
//! missing, changed, exchanged or at another time has its code, and no machine is needed to say so.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod clock;
mod minted;
mod revocation;
mod tampering;

use std::fs;

use deployer::{Deployable, Order};
use minted::{Minted, NAME};
use recipe_spec::{Code, Timestamp};

/// When the tests' sites were made: 2026-11-23T01:02:03Z.
const NOW: i64 = 1_795_395_723;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(NOW + seconds)
}

fn minted() -> Minted {
    Minted::at(at(0))
}

/// `atlas/web`, or one version of it.
fn order(version: Option<&str>) -> Order {
    Order {
        name: NAME.parse().unwrap(),
        version: version.map(|version| version.parse().unwrap()),
        forwards: Vec::new(),
    }
}

/// The check's verdict on `atlas/web`, or on one version of it.
fn verdict(minted: &Minted, version: Option<&str>, now: Timestamp) -> Result<(), Code> {
    Deployable::check(&order(version), &minted.open(), now).map(drop).map_err(|stopped| stopped.code)
}

/// The verdict a minute after everything was made.
fn soon(minted: &Minted) -> Result<(), Code> {
    verdict(minted, None, at(60))
}

/// Ledger and memory of lists, as bytes.
fn state(minted: &Minted) -> [Option<Vec<u8>>; 2] {
    let layout = minted.layout();
    [fs::read(layout.ledger()).ok(), fs::read(layout.crl_seen().join("crl-seen")).ok()]
}

#[test]
fn what_was_authorized_is_deployable_and_asking_changes_nothing() {
    let minted = minted();
    assert_eq!(soon(&minted), Ok(()));
    let before = state(&minted);
    assert_eq!(verdict(&minted, Some("1.4.0"), at(120)), Ok(()));
    assert_eq!(verdict(&minted, Some("1.4.1"), at(120)), Err(Code::NotAuthorized));
    assert_eq!(state(&minted), before);
}

#[test]
fn a_name_does_not_lead_below_the_highest_authorized_version_but_a_version_does() {
    let minted = minted();
    minted.note_unpublished("3.0.0");
    assert_eq!(soon(&minted), Ok(()), "what was never published replaces nothing");
    minted.note_authorized("2.0.0");
    assert_eq!(soon(&minted), Err(Code::VersionRollback));
    assert_eq!(verdict(&minted, Some("1.4.0"), at(60)), Ok(()));
}
