//! What is revoked, and lists that cannot say what is.

use crl::{AuthenticCrl, Scope, Selector};
use recipe_spec::Sha256Digest;
use signer::{Role, ca};

use super::*;
use crate::minted::{DAY, put};

#[test]
fn whatever_an_authorization_rests_on_can_be_revoked() {
    let named = |minted: &Minted| {
        let authorization = minted.countersigned(minted.predicate());
        let line = authorization.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        let statement = signer::Envelope::parse_untrusted(line).unwrap();
        let certificate = minted.signer.chain().leaf();
        [
            format!("recipe:{}", minted.recipe.digest()),
            "version:atlas/web@1.4.0".to_owned(),
            format!("key:{}", minted.signer.spki_sha256()),
            format!("key:{}", minted.site_secret(Role::Countersigner).public().spki_sha256()),
            format!("key:{}", minted.site_secret(Role::BaseSigner).public().spki_sha256()),
            format!("key:{}", minted.vo.key.public().spki_sha256()),
            format!("key:{}", minted.open().pins().ca().public_key().spki_sha256()),
            format!("base:{}", minted.base_digest()),
            format!("site-recipe:{}", Sha256Digest::of(b"site recipe")),
            format!("authorization:{}", Sha256Digest::of(statement.payload_untrusted())),
            Selector::Certificate {
                issuer: certificate.issuer_sha256(),
                serial: certificate.serial().to_vec(),
            }
            .to_string(),
        ]
    };
    let minted = minted();
    for selector in named(&minted) {
        minted.put_list(&minted.next_list(None, &[selector.parse().unwrap()], at(0)));
        let _ = fs::remove_dir_all(minted.layout().crl_seen());
        assert_eq!(soon(&minted), Err(Code::Revoked), "{selector}");
    }
    let _ = fs::remove_dir_all(minted.layout().crl_seen());
    minted.put_list(&minted.next_list(None, &["version:atlas/web@1.4.1".parse().unwrap()], at(0)));
    assert_eq!(soon(&minted), Ok(()));
}

#[test]
fn what_is_revoked_while_the_machine_starts_is_not_handed_out() {
    let checked = |minted: &Minted| Deployable::check(&order(None), &minted.open(), at(60)).unwrap();
    let again = |minted: &Minted, deployable: &Deployable, now| {
        deployable.ask_again(&minted.open(), now).map(|clear| clear.number).map_err(|stopped| stopped.code)
    };
    let minted = minted();
    let first = crl::load(&minted.layout().recipe_crl()).unwrap();
    let deployable = checked(&minted);
    let number = deployable.clear().number;
    assert_eq!(again(&minted, &deployable, at(120)), Ok(number));
    minted.publish_list(&["version:atlas/web@9.9.9".parse().unwrap()], at(DAY));
    assert_eq!(again(&minted, &deployable, at(DAY)), Ok(number + 1));
    assert_eq!(again(&minted, &deployable, at(120)), Err(Code::ClockBackward));
    minted.put_list(&first);
    assert_eq!(again(&minted, &deployable, at(DAY)), Err(Code::CrlRollback));

    let minted = super::minted();
    let deployable = checked(&minted);
    minted.publish_list(&["version:atlas/web@1.4.0".parse().unwrap()], at(120));
    assert_eq!(again(&minted, &deployable, at(180)), Err(Code::Revoked));

    let minted = super::minted();
    let deployable = checked(&minted);
    let serial = minted.signer.chain().leaf().serial().to_vec();
    let revoked = ca::Revoked { serial, date: at(0), reason: ca::CrlReason::KeyCompromise };
    let until = at(30 * DAY);
    let crl = ca::crl(&minted.vo.key, &minted.vo.certificate_pem, &[revoked], 2, at(0), until).unwrap();
    put(&minted.layout().anchors().join("atlas.crl.pem"), crl.as_bytes());
    assert_eq!(again(&minted, &deployable, at(180)), Err(Code::CertRevoked));
}

#[test]
fn a_list_that_cannot_be_relied_on_refuses() {
    let minted = minted();
    let first = crl::load(&minted.layout().recipe_crl()).unwrap();
    let before = minted.list();
    minted.publish_list(&["version:atlas/web@9.9.9".parse().unwrap()], at(10));
    let second = crl::load(&minted.layout().recipe_crl()).unwrap();
    assert_eq!(soon(&minted), Ok(()));
    let seen = state(&minted);
    let refused = |why: &str, list: &(Vec<u8>, Vec<u8>), code: Code| {
        minted.put_list(list);
        assert_eq!(soon(&minted), Err(code), "{why}");
        assert_eq!(state(&minted), seen, "{why}: what was seen stays");
    };
    refused("older than the last seen", &first, Code::CrlRollback);
    let same_number = minted.next_list(Some(&before), &["version:atlas/web@8.8.8".parse().unwrap()], at(10));
    refused("the same number, other content", &same_number, Code::CrlEquivocation);
    let site = minted.open();
    let read = |(header, body): &(Vec<u8>, Vec<u8>)| {
        AuthenticCrl::verify(header, &body[..], site.pins(), at(10)).unwrap()
    };
    let of_other = minted.next_list(Some(&read(&same_number)), &[], at(20));
    refused("a fork", &of_other, Code::CrlFork);
    let tomorrow = minted.next_list(Some(&read(&second)), &[], at(DAY));
    refused("of the future", &tomorrow, Code::CrlInvalid);
    for part in [first.0.len() / 2, first.0.len() - 1, 0] {
        let cut = (second.0[..part].to_vec(), second.1.clone());
        refused("a header cut off", &cut, Code::CrlInvalid);
    }
    for part in 0..second.1.len() {
        refused("a body cut off", &(second.0.clone(), second.1[..part].to_vec()), Code::CrlInvalid);
    }
    refused("a body of another list", &(second.0.clone(), first.1.clone()), Code::CrlInvalid);
    let posing = minted.site_key(Role::Countersigner, Role::CrlIssuer);
    let until = at(7 * DAY);
    let by_another = crl::issue(None, &[], "example-site", Scope::Site, until, &posing, at(0)).unwrap();
    refused("by the site's key of another role", &by_another, Code::CrlInvalid);
    let stranger = Minted::at(at(0));
    refused("another site's", &stranger.next_list(None, &[], at(0)), Code::CrlInvalid);
    let issuer = minted.site_key(Role::CrlIssuer, Role::CrlIssuer);
    let named = crl::issue(None, &[], "other-site", Scope::Site, until, &issuer, at(0)).unwrap();
    refused("for another site", &named, Code::CrlInvalid);
    for file in [crl::HEADER_FILE, crl::BODY_FILE] {
        minted.put_list(&second);
        fs::remove_file(minted.layout().recipe_crl().join(file)).unwrap();
        assert_eq!(soon(&minted), Err(Code::CrlMissing), "{file}");
    }
    minted.put_list(&second);
    assert_eq!(soon(&minted), Ok(()));
    assert_eq!(verdict(&minted, None, at(10 + 7 * DAY)), Err(Code::CrlExpired));
    assert_eq!(state(&minted), seen);
}

#[test]
fn a_damaged_memory_is_no_empty_one() {
    let minted = minted();
    assert_eq!(soon(&minted), Ok(()));
    let path = minted.layout().crl_seen().join("crl-seen");
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], b"", b"garbage\n"] {
        put(&path, damaged);
        assert_eq!(soon(&minted), Err(Code::CrlInvalid));
        assert_eq!(fs::read(&path).unwrap(), damaged, "it is not replaced either");
    }
    put(&path, &whole);
    assert_eq!(soon(&minted), Ok(()));
}

#[test]
fn revocation_of_certificates_is_asked_as_of_now() {
    let minted = minted();
    let anchor_crl = minted.layout().anchors().join("atlas.crl.pem");
    let crl = |revoked: &[ca::Revoked], until| {
        ca::crl(&minted.vo.key, &minted.vo.certificate_pem, revoked, 2, at(0), until).unwrap()
    };
    let serial = minted.signer.chain().leaf().serial().to_vec();
    let revoked = ca::Revoked { serial, date: at(0), reason: ca::CrlReason::KeyCompromise };
    let until = at(30 * DAY);
    for (why, pem, code) in [
        ("revoked", crl(&[revoked], until), Code::CertRevoked),
        ("expired", crl(&[], at(30)), Code::CrlExpired),
        ("empty", String::new(), Code::CrlMissing),
    ] {
        put(&anchor_crl, pem.as_bytes());
        assert_eq!(soon(&minted), Err(code), "{why}");
    }
    fs::remove_file(&anchor_crl).unwrap();
    assert_eq!(soon(&minted), Err(Code::CrlMissing));
    put(&anchor_crl, crl(&[], until).as_bytes());
    assert_eq!(soon(&minted), Ok(()));
    let own = minted.layout().ca_crl();
    let kept = fs::read(&own).unwrap();
    fs::remove_file(&own).unwrap();
    assert_eq!(soon(&minted), Err(Code::CrlMissing), "the site's own CA");
    put(&own, &kept);
    assert_eq!(soon(&minted), Ok(()));
}
