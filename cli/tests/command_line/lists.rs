//! The recipe CRL spoiled in every way, under every command that reads it.

use crl::{AuthenticCrl, Scope};
use signer::Role;

use crate::attack::{Attack, now};
use crate::minted::{DAY, Minted, put};

const COMMANDS: [&str; 7] = [
    "authorize recipes --path web",
    "deploy atlas/web",
    "crl check atlas/web@1.4.0",
    "crl verify",
    "crl show",
    "crl publish",
    "revoke atlas/web@1.4.0",
];

/// A site whose second list is published and seen, and a recipe to authorize.
fn attack() -> Attack {
    let minted = Minted::at(now().plus_seconds(-60));
    minted.publish_list(&["version:atlas/web@9.9.9".parse().unwrap()], now());
    let attack = Attack::on(minted);
    attack.recipe("web", &attack.minted.recipe, &attack.minted.envelope());
    attack.commit();
    attack
}

#[test]
fn no_command_relies_on_a_list_that_is_spoiled() {
    let attack = attack();
    let minted = &attack.minted;
    let (header, body) = crl::load(&minted.layout().recipe_crl()).unwrap();
    let site = minted.open();
    let read = |(header, body): &(Vec<u8>, Vec<u8>)| {
        AuthenticCrl::verify(header, &body[..], site.pins(), now()).unwrap()
    };
    let first = minted.next_list(None, &[], minted.now);
    let beside = minted.next_list(Some(&read(&first)), &[], now());
    let fork = minted.next_list(Some(&read(&beside)), &[], now());
    let until = now().plus_seconds(7 * DAY);
    let by = |role, name: &str| {
        let issuer = minted.site_key(role, Role::CrlIssuer);
        crl::issue(None, &[], name, Scope::Site, until, &issuer, now()).unwrap()
    };
    let stranger = Minted::at(minted.now);
    for (what, list, code) in [
        ("an older one", first, "CRL_ROLLBACK"),
        ("the same number, other content", beside, "CRL_EQUIVOCATION"),
        ("a fork", fork, "CRL_FORK"),
        ("by the countersigner", by(Role::Countersigner, "example-site"), "CRL_INVALID"),
        ("for another site", by(Role::CrlIssuer, "other-site"), "CRL_INVALID"),
        ("another site's", stranger.next_list(None, &[], now()), "CRL_INVALID"),
        ("a header cut off", (header[..header.len() - 1].to_vec(), body.clone()), "CRL_INVALID"),
        ("a body cut off", (header.clone(), body[..body.len() - 1].to_vec()), "CRL_INVALID"),
        ("an empty header", (Vec::new(), body.clone()), "CRL_INVALID"),
    ] {
        minted.put_list(&list);
        for command in COMMANDS {
            let refused = attack.refused(code, command);
            assert!(refused["message"].is_string(), "{what}: {refused}");
        }
    }
    for file in [crl::HEADER_FILE, crl::BODY_FILE] {
        minted.put_list(&(header.clone(), body.clone()));
        std::fs::remove_file(minted.layout().recipe_crl().join(file)).unwrap();
        for command in COMMANDS {
            attack.refused("CRL_MISSING", command);
        }
    }
    minted.put_list(&(header, body));
    assert_eq!(attack.run("crl verify").status, 0);
}

#[test]
fn a_damaged_memory_of_lists_stops_every_command() {
    let attack = attack();
    let path = attack.minted.layout().crl_seen().join("crl-seen");
    let whole = std::fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 1], b"", b"garbage\n"] {
        put(&path, damaged);
        for command in COMMANDS {
            attack.refused("CRL_INVALID", command);
        }
    }
    put(&path, &whole);
    assert_eq!(attack.run("crl verify").status, 0);
}

#[test]
fn an_expired_list_decides_nothing_and_can_be_shown_and_renewed() {
    let minted = Minted::at(now().plus_seconds(-8 * DAY));
    let attack = Attack::on(minted);
    attack.recipe("web", &attack.minted.recipe, &attack.minted.envelope());
    attack.commit();
    for command in &COMMANDS[..4] {
        attack.refused("CRL_EXPIRED", command);
    }
    assert_eq!(attack.run("crl show").json()["expired"], true);
    assert_eq!(attack.run("crl publish").json()["number"], 2);
    assert_eq!(attack.run("crl verify").status, 0);
}
