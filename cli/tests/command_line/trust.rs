//! Recipes that no site should take, offered to `authorize` one by one.

use authorizer::base::FILES;
use signer::{Role, ca, dsse};

use crate::attack::{Attack, now};
use crate::minted::{DAY, Minted, change_a_byte, issued, issued_for, manifest, put, recipe, signed};

/// A site of three days ago, so that something can have expired since; its list is one of today.
fn attack() -> Attack {
    let minted = Minted::at(now().plus_seconds(-3 * DAY));
    minted.publish_list(&[], now());
    Attack::on(minted)
}

#[test]
fn no_recipe_is_taken_that_is_not_what_a_trusted_signer_signed() {
    let attack = attack();
    let minted = &attack.minted;
    let web = || recipe("atlas/web", "1.5.0", "hello\n");
    let (begin, today) = (minted.now, now());
    let valid = (begin, begin.plus_seconds(300 * DAY));
    let by = |signer: &signer::Signer| signed(&web(), signer);
    let good = String::from_utf8(by(&minted.signer)).unwrap();

    // A key of the manifest mistyped, a file missing, a file too many; each of them signed as it is.
    let typo = manifest("atlas/web", "1.5.0").replace("summary", "sumary");
    for folder in ["typo", "missing", "stray", "unsigned"] {
        attack.recipe(folder, &web(), good.as_bytes());
    }
    attack.write("typo/recipe.toml", typo.as_bytes());
    std::fs::remove_file(attack.world.path("recipes/missing/files/index.html")).unwrap();
    attack.write("stray/files/stray", b"nothing refers to this");
    std::fs::remove_file(attack.world.path("recipes/unsigned/recipe.intoto.jsonl")).unwrap();

    let stranger = ca::init("atlas", "atlas CA", valid, begin.plus_seconds(30 * DAY)).unwrap();
    let leaf =
        |organisation: &str, from, until| issued(&minted.vo, Role::RecipeSigner, organisation, (from, until));
    let revoked = leaf("atlas", begin, valid.1);
    let entry = ca::Revoked {
        serial: revoked.chain().leaf().serial().to_vec(),
        date: begin,
        reason: ca::CrlReason::KeyCompromise,
    };
    let crl =
        ca::crl(&minted.vo.key, &minted.vo.certificate_pem, &[entry], 2, begin, begin.plus_seconds(30 * DAY));
    put(&minted.layout().anchors().join("atlas.crl.pem"), crl.unwrap().as_bytes());
    let site_key = |role| minted.site_key(role, Role::RecipeSigner);
    let pinned = minted.site_secret(Role::Countersigner);
    let mut cases = vec![
        ("stranger", "UNTRUSTED_SIGNER", by(&issued(&stranger, Role::RecipeSigner, "atlas", valid))),
        ("expired", "CERT_EXPIRED", by(&leaf("atlas", begin, begin.plus_seconds(DAY)))),
        ("not-yet", "CERT_EXPIRED", by(&leaf("atlas", today.plus_seconds(DAY), valid.1))),
        ("other-vo", "WRONG_VO", by(&leaf("cms", begin, valid.1))),
        ("revoked", "CERT_REVOKED", by(&revoked)),
        ("countersigner", "UNTRUSTED_SIGNER", by(&site_key(Role::Countersigner))),
        ("crl-issuer", "UNTRUSTED_SIGNER", by(&site_key(Role::CrlIssuer))),
        ("base-signer", "UNTRUSTED_SIGNER", by(&site_key(Role::BaseSigner))),
        (
            "countersigner-under-the-vo",
            "UNTRUSTED_SIGNER",
            by(&issued_for(&minted.vo, pinned, Role::RecipeSigner, "atlas", valid)),
        ),
        ("other-content", "BAD_SIGNATURE", signed(&recipe("atlas/web", "1.5.0", "hellO\n"), &minted.signer)),
        ("other-version", "BAD_SIGNATURE", signed(&recipe("atlas/web", "1.5.1", "hello\n"), &minted.signer)),
        ("other-name", "BAD_SIGNATURE", signed(&recipe("atlas/wet", "1.5.0", "hello\n"), &minted.signer)),
        ("empty", "BAD_SIGNATURE", Vec::new()),
        ("garbage", "BAD_SIGNATURE", b"-----BEGIN PGP SIGNATURE-----\n".to_vec()),
        ("huge", "BAD_RECIPE", vec![b' '; 100 << 20]),
    ];
    let two = dsse::Envelope::parse_untrusted(good.as_bytes()).unwrap();
    let two = two.with_signature(&leaf("atlas", begin, valid.1)).unwrap();
    cases.push(("two-signatures", "UNTRUSTED_SIGNER", two.to_bytes()));
    let signatures = good.find("\"signatures\":[").unwrap() + "\"signatures\":[".len();
    for (folder, envelope) in [
        ("no-signatures", format!("{}]}}\n", &good[..signatures])),
        ("payload-type", good.replace("vnd.in-toto+json", "vnd.in-toto+jsom")),
        ("white-space", good.replacen(':', ": ", 1)),
        ("trailing", format!("{good}{{}}\n")),
        ("key-twice", good.replacen("\"payloadType\"", "\"payload\":\"\",\"payloadType\"", 1)),
        ("cut", good[..good.len() / 2].to_owned()),
    ] {
        assert_ne!(envelope, good);
        cases.push((folder, "BAD_SIGNATURE", envelope.into_bytes()));
    }
    for (folder, _, envelope) in &cases {
        attack.recipe(folder, &web(), envelope);
    }
    attack.commit();

    let refused = attack.refused("BAD_RECIPE", "authorize recipes --path typo");
    assert!(refused["details"].to_string().contains("did you mean `summary`?"), "{refused}");
    attack.refused("BAD_RECIPE", "authorize recipes --path missing");
    attack.refused("BAD_RECIPE", "authorize recipes --path stray");
    attack.refused("BAD_SIGNATURE", "authorize recipes --path unsigned");
    for (folder, code, _) in cases {
        let refused = attack.refused(code, &format!("authorize recipes --path {folder}"));
        assert_eq!(refused["coldBoots"], 0, "{refused}");
    }
    let ledger = std::fs::read_to_string(minted.layout().ledger()).unwrap();
    assert!(!ledger.contains("1.5."), "what nobody signed is in no ledger: {ledger}");
}

#[test]
fn the_crl_of_a_vos_ca_missing_expired_or_damaged_and_renewed() {
    let attack = attack();
    let minted = &attack.minted;
    attack.recipe("web", &minted.recipe, &minted.envelope());
    attack.commit();
    change_a_byte(&minted.layout().bases().join("debian-12/vmlinuz"));
    let path = minted.layout().anchors().join("atlas.crl.pem");
    let crl = |number, until| {
        ca::crl(&minted.vo.key, &minted.vo.certificate_pem, &[], number, minted.now, until).unwrap()
    };
    put(&path, crl(2, now().plus_seconds(-60)).as_bytes());
    attack.refused("CRL_EXPIRED", "authorize recipes --path web");
    attack.refused("CRL_EXPIRED", "deploy atlas/web");
    std::fs::write(attack.world.path("new.pem"), crl(3, now().plus_seconds(DAY))).unwrap();
    let renew = "anchor renew atlas --crl new.pem";
    for (what, code) in
        [(None, "CRL_MISSING"), (Some(&b"garbage"[..]), "CRL_MISSING"), (Some(b"cut"), "CRL_INVALID")]
    {
        let whole = crl(2, now().plus_seconds(DAY));
        match what {
            None => std::fs::remove_file(&path).unwrap(),
            Some(b"cut") => put(&path, whole.replacen("\nMI", "\nMIM", 1).as_bytes()),
            Some(bytes) => put(&path, bytes),
        }
        attack.refused(code, "authorize recipes --path web");
        attack.refused(code, "deploy atlas/web");
        assert_eq!(attack.run(renew).status, 0, "{code}: a renewal mends it");
        attack.refused("BASE_MISMATCH", "authorize recipes --path web");
    }
}

#[test]
fn a_revoked_key_of_a_ca_refuses_all_below_it() {
    let attack = attack();
    let minted = &attack.minted;
    attack.recipe("web", &minted.recipe, &minted.envelope());
    attack.commit();
    change_a_byte(&minted.layout().bases().join("debian-12/vmlinuz"));
    attack.refused("BASE_MISMATCH", "authorize recipes --path web");
    let key = format!("key:{}", minted.vo.key.public().spki_sha256());
    assert_eq!(attack.run(&format!("revoke {key} --reason cACompromise")).status, 0);
    let refused = attack.refused("REVOKED", "authorize recipes --path web");
    assert!(refused["message"].to_string().contains(&key), "{refused}");
    // On the site's own CA its lists rest as well.
    let pem = std::fs::read_to_string(minted.layout().ca_certificate()).unwrap();
    let own = signer::Certificate::from_pem(&pem).unwrap().public_key().spki_sha256();
    assert_eq!(attack.run(&format!("revoke key:{own}")).status, 2);
}

#[test]
fn a_version_keeps_its_content_and_does_not_go_back() {
    let attack = attack();
    let minted = &attack.minted;
    let at = |folder: &str, version: &str, page: &str| {
        let recipe = recipe("atlas/web", version, page);
        attack.recipe(folder, &recipe, &signed(&recipe, &minted.signer));
    };
    at("first", "1.5.0", "hello\n");
    at("second", "1.5.0", "hellO\n");
    at("other-build", "1.5.0+b", "hellO\n");
    attack.commit();
    // Verified, then refused for another reason: the version is taken all the same.
    change_a_byte(&minted.layout().bases().join("debian-12/disk.qcow2"));
    attack.refused("BASE_MISMATCH", "authorize recipes --path first");
    attack.refused("VERSION_REUSED", "authorize recipes --path second");
    attack.refused("VERSION_REUSED", "authorize recipes --path other-build");
    attack.refused("VERSION_REUSED", "authorize recipes --path second --version 1.5.0");
    attack.refused("BASE_MISMATCH", "authorize recipes --path first");
    minted.note_authorized("2.0.0");
    attack.refused("VERSION_ROLLBACK", "authorize recipes --path first");
    attack.refused("BASE_MISMATCH", "authorize recipes --path first --version 1.5.0");
    attack.refused("NOT_AUTHORIZED", "authorize recipes --path first --version 1.4.0");
    attack.refused("VERSION_ROLLBACK", "deploy atlas/web");
}

#[test]
fn one_byte_changed_in_the_base_or_a_layer_gone() {
    let attack = attack();
    let minted = &attack.minted;
    attack.recipe("web", &minted.recipe, &minted.envelope());
    attack.commit();
    for file in FILES {
        let path = minted.layout().bases().join("debian-12").join(file);
        let before = std::fs::read(&path).unwrap();
        change_a_byte(&path);
        for command in ["authorize recipes --path web", "deploy atlas/web", "base verify debian-12"] {
            let refused = attack.refused("BASE_MISMATCH", command);
            assert!(refused["message"].to_string().contains(file), "{refused}");
        }
        put(&path, &before);
    }
    minted.sign_base(Role::BaseSigner, "6.1.0-2-amd64");
    attack.refused("BASE_MISMATCH", "deploy atlas/web");
    minted.sign_base(Role::BaseSigner, "6.1.0-1-amd64");
    std::fs::remove_file(minted.layer(b"the VO's layer")).unwrap();
    attack.refused("LAYER_MISMATCH", "deploy atlas/web");
}

#[test]
fn an_authorization_that_is_another() {
    let attack = attack();
    let minted = &attack.minted;
    let refused = |code: &str, change: &dyn Fn(&mut authorizer::authorization::AuthorizationPredicate)| {
        let mut predicate = minted.predicate();
        change(&mut predicate);
        minted.publish(&minted.countersigned(predicate));
        attack.refused(code, "deploy atlas/web");
        let catalog = attack.run("catalog").json();
        assert_eq!(catalog["authorizations"][0]["code"], code, "{catalog}");
    };
    refused("WRONG_SITE", &|predicate| predicate.site = "other-site".parse().unwrap());
    refused("AUTHORIZATION_EXPIRED", &|predicate| predicate.not_after = now().plus_seconds(-1));
    refused("CLOCK_BACKWARD", &|predicate| predicate.issued_at = now().plus_seconds(DAY));
    refused("CRL_ROLLBACK", &|predicate| predicate.crls[0].number = 99);
}
