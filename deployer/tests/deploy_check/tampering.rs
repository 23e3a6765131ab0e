//! Files exchanged under the site's hands: each is refused with the code of what it is.

use authorizer::authorization;
use authorizer::base::{FILES, STATEMENT_FILE};
use authorizer::publication::{AUTHORIZATION_FILE, RECIPE_ENVELOPE_FILE};
use harness::template::RECORD_FILE;
use recipe_spec::Sha256Digest;
use signer::Role;

use super::*;
use crate::minted::{DAY, change_a_byte, issued, plain, put, recipe, signed, template_record};

#[test]
fn one_byte_changed_in_any_file_of_the_base() {
    let minted = minted();
    let folder = minted.layout().bases().join("debian-12");
    for file in FILES {
        let path = folder.join(file);
        let before = fs::read(&path).unwrap();
        change_a_byte(&path);
        assert_eq!(soon(&minted), Err(Code::BaseMismatch), "{file}");
        put(&path, &[&before[..], b"\0"].concat());
        assert_eq!(soon(&minted), Err(Code::BaseMismatch), "{file}, longer");
        fs::remove_file(&path).unwrap();
        assert_eq!(soon(&minted), Err(Code::BaseMismatch), "{file}, missing");
        put(&path, &before);
    }
    let statement = folder.join(STATEMENT_FILE);
    let before = fs::read(&statement).unwrap();
    change_a_byte(&statement);
    assert_eq!(soon(&minted), Err(Code::BadSignature));
    fs::remove_file(&statement).unwrap();
    assert_eq!(soon(&minted), Err(Code::BaseMismatch));
    put(&statement, &before);
    assert_eq!(soon(&minted), Ok(()));
}

#[test]
fn the_statement_of_another_base_of_the_same_site() {
    let minted = minted();
    // As good as the one that was authorized, and another.
    minted.sign_base(Role::BaseSigner, "6.1.0-2-amd64");
    assert_eq!(soon(&minted), Err(Code::BaseMismatch));
    minted.sign_base(Role::Countersigner, "6.1.0-1-amd64");
    assert_eq!(soon(&minted), Err(Code::UntrustedSigner), "by the site's key of another role");
    minted.sign_base(Role::BaseSigner, "6.1.0-1-amd64");
    assert_eq!(soon(&minted), Ok(()), "what names a base is its statement, and this is the same again");
}

#[test]
fn what_lies_in_place_of_a_file_of_the_base_is_not_waited_for() {
    let minted = minted();
    let folder = minted.layout().bases().join("debian-12");
    for file in FILES.into_iter().chain([STATEMENT_FILE]) {
        let (path, kept) = (folder.join(file), folder.join("kept"));
        fs::rename(&path, &kept).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(soon(&minted), Err(Code::BaseMismatch), "{file}, a FIFO");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&kept, &path).unwrap();
        assert_eq!(soon(&minted), Err(Code::BaseMismatch), "{file}, a link");
        fs::remove_file(&path).unwrap();
        // Nobody hashes a terabyte to say no.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(soon(&minted), Err(Code::BaseMismatch), "{file}, a terabyte");
        fs::rename(&kept, &path).unwrap();
    }
    assert_eq!(soon(&minted), Ok(()));
}

/// That a layer's bytes are those that are named is checked through the descriptor which QEMU gets, see the harness.
#[test]
fn a_layer_that_is_not_there() {
    let minted = minted();
    let layer = minted.layer(b"the site's layer");
    fs::rename(&layer, layer.with_extension("moved")).unwrap();
    assert_eq!(soon(&minted), Err(Code::LayerMismatch));
    fs::create_dir(&layer).unwrap();
    assert_eq!(soon(&minted), Err(Code::LayerMismatch));
}

/// As for layers, its files are checked through the descriptors that QEMU gets.
#[test]
fn a_template_that_is_not_there_not_the_one_or_of_another_qemu() {
    let minted = minted();
    let record = minted.template().join(RECORD_FILE);
    let good = fs::read(&record).unwrap();
    let other = String::from_utf8(good.clone()).unwrap().replace("\"relay\":false", "\"relay\":true");
    let longer = [&good[..], b"\n"].concat();
    for bytes in [other.as_bytes(), b"", b"{}", &good[..good.len() - 1], &longer] {
        put(&record, bytes);
        assert_eq!(soon(&minted), Err(Code::LayerMismatch), "{}", String::from_utf8_lossy(bytes));
    }
    put(&record, &good);
    assert_eq!(soon(&minted), Ok(()));
    let kept = record.with_extension("kept");
    fs::rename(&record, &kept).unwrap();
    assert_eq!(soon(&minted), Err(Code::LayerMismatch), "missing");
    std::os::unix::fs::symlink(&kept, &record).unwrap();
    assert_eq!(soon(&minted), Err(Code::LayerMismatch), "a link");
    fs::remove_file(&record).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &record, rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(soon(&minted), Err(Code::LayerMismatch), "a pipe, for which nobody waits");

    let mut older = template_record();
    older.shape.qemu = "9.0.0".into();
    let mut smaller = template_record();
    smaller.shape.memory_mib = 512;
    let mut deaf = template_record();
    deaf.shape.protocol = 1;
    for record in [older, smaller, deaf] {
        let bytes = record.to_json();
        let digest = Sha256Digest::of(&bytes);
        let folder = minted.layout().template(digest);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(RECORD_FILE), bytes).unwrap();
        let mut predicate = minted.predicate();
        predicate.template = Some(digest.into());
        minted.publish(&minted.countersigned(predicate));
        assert_eq!(soon(&minted), Err(Code::LayerMismatch), "{:?}", record.shape);
    }
    let mut predicate = minted.predicate();
    predicate.template = None;
    minted.publish(&minted.countersigned(predicate));
    assert_eq!(soon(&minted), Err(Code::NotAuthorized), "an older version's");
}

#[test]
fn an_authorization_that_is_another() {
    let minted = minted();
    let refused = |why: &str, file: &[u8], code: Code| {
        minted.publish(file);
        assert_eq!(soon(&minted), Err(code), "{why}");
    };
    let with = |change: &dyn Fn(&mut authorization::AuthorizationPredicate)| {
        let mut predicate = minted.predicate();
        change(&mut predicate);
        minted.countersigned(predicate)
    };
    let good = minted.countersigned(minted.predicate());
    refused("of another site", &with(&|p| p.site = "other-site".parse().unwrap()), Code::WrongSite);
    refused("past its date", &with(&|p| p.not_after = at(30)), Code::AuthorizationExpired);
    refused("of the future", &with(&|p| p.issued_at = at(DAY)), Code::ClockBackward);
    refused(
        "of another version",
        &with(&|p| p.recipe.version = "1.3.0".parse().unwrap()),
        Code::BadSignature,
    );
    refused(
        "on another base",
        &with(&|p| p.base.sha256 = recipe_spec::Sha256Digest::of(b"x")),
        Code::BaseMismatch,
    );
    refused("under a list not seen here", &with(&|p| p.crls[0].number = 2), Code::CrlRollback);
    refused("under no list", &with(&|p| p.crls[0].number = u64::MAX), Code::CrlRollback);
    let posing = minted.site_key(Role::BaseSigner, Role::Countersigner);
    let by_another = authorization::countersign(minted.recipe.digest(), minted.predicate(), &posing).unwrap();
    refused("by the site's key of another role", &by_another, Code::UntrustedSigner);
    let other = recipe(NAME, "1.4.0", "another page\n");
    let signer = minted.site_key(Role::Countersigner, Role::Countersigner);
    let of_another = authorization::countersign(other.digest(), minted.predicate(), &signer).unwrap();
    refused("of another recipe", &of_another, Code::BadSignature);
    let line = |file: &[u8], n: usize| file.split_inclusive(|byte| *byte == b'\n').nth(n).unwrap().to_vec();
    let later = with(&|p| p.issued_at = at(1));
    let mixed = [line(&good, 0), line(&later, 1), line(&good, 2)].concat();
    refused("of lines of two", &mixed, Code::BadSignature);
    refused("of one line", &line(&good, 0), Code::BadSignature);
    refused("that is empty", b"", Code::BadSignature);
    minted.publish(&good);
    assert_eq!(soon(&minted), Ok(()));
}

#[test]
fn what_lies_beside_the_authorization_is_another() {
    let minted = minted();
    let good = minted.files(&minted.countersigned(minted.predicate()));
    let with = |path: &str, bytes: Option<&[u8]>| {
        let mut files = good.clone();
        match bytes {
            Some(bytes) => files.insert(path.parse().unwrap(), plain(bytes)),
            None => files.remove(&path.parse().unwrap()),
        };
        minted.publish_as(NAME, "1.4.0", &files);
        soon(&minted)
    };
    assert_eq!(with("recipe/files/index.html", Some(b"hellO\n")), Err(Code::BadSignature));
    assert_eq!(with("recipe/files/index.html", None), Err(Code::BadRecipe));
    assert_eq!(with("recipe/stray", Some(b"x")), Err(Code::BadRecipe));
    assert_eq!(with(AUTHORIZATION_FILE, None), Err(Code::NotAuthorized));
    assert_eq!(with(RECIPE_ENVELOPE_FILE, None), Err(Code::NotAuthorized));
    let (from, until) = (at(0), at(DAY));
    let colleague = signed(&minted.recipe, &issued(&minted.vo, Role::RecipeSigner, "atlas", (from, until)));
    assert_eq!(with(RECIPE_ENVELOPE_FILE, Some(&colleague)), Err(Code::BadSignature), "as good, and another");
    minted.publish_as("atlas/other", "1.4.0", &good);
    let order = Order { name: "atlas/other".parse().unwrap(), version: None, forwards: Vec::new() };
    let moved = Deployable::check(&order, &minted.open(), at(60)).unwrap_err();
    assert_eq!(moved.code, Code::BadSignature, "under another name");
}
