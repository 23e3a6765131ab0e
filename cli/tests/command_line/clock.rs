//! A clock a year off. The binary reads the machine's own, so the site is made at another time instead: for every signed date
//! that is the same.

use authorizer::site::{TrustLock, renew_ca_crl};
use serde_json::json;

use crate::attack::{Attack, now};
use crate::minted::{DAY, Minted, YEAR};

const COMMANDS: [&str; 6] = [
    "authorize recipes --path web",
    "deploy atlas/web",
    "crl check atlas/web@1.4.0",
    "crl verify",
    "crl publish",
    "revoke atlas/web@1.4.0",
];

fn attack(minted: Minted) -> Attack {
    let attack = Attack::on(minted);
    attack.recipe("web", &attack.minted.recipe, &attack.minted.envelope());
    attack.commit();
    attack
}

#[test]
fn a_clock_a_year_behind_is_called_that_and_changes_nothing() {
    let minted = Minted::at(now().plus_seconds(YEAR));
    minted.see(minted.now).unwrap();
    let attack = attack(minted);
    for command in COMMANDS {
        let refused = attack.refused("CLOCK_BACKWARD", command);
        assert!(refused["hints"][0].to_string().contains("set this clock right"), "{refused}");
    }
}

#[test]
fn under_a_clock_a_year_ahead_everything_is_over_and_nothing_is_written() {
    let attack = attack(Minted::at(now().plus_seconds(-YEAR - DAY)));
    for (command, code) in [
        ("authorize recipes --path web", "CERT_EXPIRED"),
        ("deploy atlas/web", "CRL_EXPIRED"),
        ("crl check atlas/web@1.4.0", "CRL_EXPIRED"),
        ("crl verify", "CRL_EXPIRED"),
        ("crl show", "CRL_EXPIRED"),
        ("revoke atlas/web@1.4.0", "CRL_EXPIRED"),
    ] {
        attack.refused(code, command);
    }
}

/// What `crl publish` does under a clock that is ahead is done here by its own parts.
#[test]
fn a_site_that_published_ahead_of_time_comes_back_with_all_it_revoked() {
    let minted = Minted::at(now().plus_seconds(-60));
    let ahead = now().plus_seconds(YEAR);
    let lock = TrustLock::acquire(&minted.layout(), std::time::Duration::ZERO).unwrap();
    renew_ca_crl(&lock, None, ahead).unwrap();
    drop(lock);
    minted.publish_list(&["version:atlas/bad@1.0.0".parse().unwrap()], ahead);
    let attack = attack(minted);
    for command in COMMANDS {
        let refused = attack.refused("CLOCK_BACKWARD", command);
        assert!(refused["hints"][0].to_string().contains("--clock-was-ahead"), "{refused}");
    }
    let published = attack.run("crl publish --clock-was-ahead");
    assert_eq!(published.status, 0, "{}", published.stderr);
    let published = published.json();
    assert_eq!((&published["number"], &published["caCrlRenewed"]), (&json!(3), &json!(true)));
    assert_eq!(attack.run("crl verify").status, 0);
    attack.refused("REVOKED", "crl check atlas/bad@1.0.0");
    assert_eq!(attack.run("crl check atlas/web@1.4.0").status, 0);
    let again = attack.run("crl publish --clock-was-ahead");
    assert_eq!(again.status, 2, "only where it is needed: {}", again.stderr);
    assert_eq!(attack.run("crl publish").json()["number"], 4);
    std::fs::remove_file(attack.minted.layer(b"the VO's layer")).unwrap();
    attack.refused("LAYER_MISMATCH", "deploy atlas/web");
}
