//! An authorization answers for the same submission again only where a deployment would take it. No machine works here: the base
//! is a few bytes, so what does not stand is said, and the new decision then ends.

use authorizer::authorization::AuthorizationPredicate;
use authorizer::intake::read_folder;
use authorizer::site::Site;
use recipe_spec::{Limits, Recipe, Sha256Digest};
use signer::ca;

use crate::attack::{Attack, now};
use crate::minted::{DAY, Minted, YEAR, put};

/// A site of three days ago whose authorization is one of today's inputs.
fn authorized() -> Attack {
    let minted = Minted::at(now().plus_seconds(-3 * DAY));
    minted.publish_list(&[], now());
    let suite = minted.open().suite();
    std::fs::create_dir_all(suite.parent().unwrap()).unwrap();
    let baseline = concat!(env!("CARGO_MANIFEST_DIR"), "/../site-recipes/suites/baseline.toml");
    put(&suite, &std::fs::read(baseline).unwrap());
    minted.publish(&minted.countersigned(of_today(&minted, harness::AGENT)));
    let attack = Attack::on(minted);
    attack.recipe("web", &attack.minted.recipe, &attack.minted.envelope());
    attack.commit();
    attack
}

/// What the site would say now, with layers made by this agent.
fn of_today(minted: &Minted, agent: &[u8]) -> AuthorizationPredicate {
    let site = minted.open();
    let mut predicate = minted.predicate();
    let site_recipes = site_recipes(&site);
    let one = &mut predicate.site_recipes[0].clone();
    predicate.site_recipes = site_recipes
        .iter()
        .map(|recipe| {
            one.name = recipe.manifest().recipe.name.clone();
            one.sha256 = recipe.digest();
            one.clone()
        })
        .collect();
    let suite = Sha256Digest::of(&std::fs::read(site.suite()).unwrap());
    let policy = serde_json::to_string(&site.config().policy).unwrap();
    let in_force = format!("{{\"policy\":{policy},\"suite\":{{\"sha256\":\"{suite}\"}}}}\n");
    predicate.policy = Sha256Digest::of(in_force.as_bytes()).into();
    let (base, recipe, agent) = (predicate.base.sha256, minted.recipe.digest(), Sha256Digest::of(agent));
    let vo = format!("countersign layer v1\nbase {base}\nrecipe {recipe}\nagent {agent}\nqemu 10.0.2\n");
    predicate.layers[0].key = Sha256Digest::of(vo.as_bytes());
    let mut after = format!("countersign layer v1\nparent {}\n", predicate.layers[0].key);
    for site_recipe in &site_recipes {
        after.push_str(&format!("recipe {}\n", site_recipe.digest()));
    }
    predicate.layers[1].key = Sha256Digest::of(after.as_bytes());
    predicate
}

fn site_recipes(site: &Site) -> Vec<Recipe> {
    site.site_recipes()
        .map(|folder| {
            let files = read_folder(&folder, &Limits::STANDARD).unwrap();
            Recipe::from_payload(files.payload, &Limits::STANDARD).unwrap()
        })
        .collect()
}

/// What `authorize` says until it needs a machine.
fn said(attack: &Attack) -> String {
    let site = attack.minted.layout().root().display().to_string();
    let run = attack.world.run(&format!("--site {site} authorize recipes --path web"));
    run.stdout + &run.stderr
}

#[track_caller]
fn is_decided_anew(attack: &Attack, why: &str) {
    let said = said(attack);
    assert!(said.contains("it is decided anew") && said.contains(why), "{said}");
    assert!(!said.contains("already authorized"), "{said}");
}

#[test]
fn an_authorization_stands_only_where_it_can_be_deployed() {
    let attack = authorized();
    let minted = &attack.minted;
    assert!(said(&attack).contains("already authorized"), "{}", said(&attack));

    let layer = minted.layer(b"the site's layer");
    std::fs::remove_file(&layer).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &layer).unwrap();
    is_decided_anew(&attack, "it is a symbolic link");
    put(&layer, b"the site's layer");

    let memory = minted.template().join("memory");
    put(&memory, b"memorx");
    is_decided_anew(&attack, "memory");
    put(&memory, b"memory");

    // The same key and name under another certificate, which says nothing of the day on which the site judged the signature.
    let anchor = minted.layout().anchors().join("atlas.pem");
    let before = std::fs::read(&anchor).unwrap();
    let valid = (now().plus_seconds(-DAY), now().plus_seconds(YEAR));
    let subject = ca::Subject { organisation: "atlas".into(), common_name: "atlas CA".into() };
    let renewed =
        ca::issue_ca(&minted.vo.key, &minted.vo.certificate_pem, &subject, &minted.vo.key.public(), valid);
    put(&anchor, renewed.unwrap().as_bytes());
    attack.refused("CERT_EXPIRED", "deploy atlas/web");
    is_decided_anew(&attack, "valid");
    put(&anchor, &before);
    assert!(said(&attack).contains("already authorized"));

    minted.publish(&minted.countersigned(of_today(minted, b"another agent")));
    is_decided_anew(&attack, "the agent that applies recipes is another one now");
}
