//! Sites made in temporary folders.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use signer::ca;
use url::Url;

use super::*;
use crate::publication;

mod renewals;

const NOW: i64 = 1_795_395_723;
const DAY: i64 = 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(NOW + seconds)
}

fn options(site_recipes: Option<PathBuf>) -> InitOptions {
    InitOptions {
        id: "example-site".parse().unwrap(),
        protection: KeyProtection::None,
        now: at(0),
        allow_emulation: true,
        site_recipes,
        debian: vec![Url::parse("http://mirror.example.org/debian").unwrap()],
    }
}

/// A folder for a site, and the place of the site in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn site(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    fn init(&self) -> Site {
        Site::init(&self.site(), &options(None)).unwrap()
    }

    fn entries(&self) -> BTreeSet<String> {
        names(self.folder.path())
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn lock(site: &Site) -> TrustLock {
    TrustLock::acquire(site.layout(), Duration::ZERO).unwrap()
}

/// The text of a refusal to open.
fn refusal(folder: &Path) -> String {
    Site::open(folder).unwrap_err().to_string()
}

#[test]
fn a_new_site_is_whole_and_its_keys_are_private() {
    let place = Place::new();
    let site = place.init();
    assert_eq!(place.entries(), BTreeSet::from(["site".to_owned()]), "nothing is left beside it");
    assert_eq!(site.id().as_str(), "example-site");
    assert_eq!(
        site.config().origins[&"debian".parse().unwrap()].mirrors[0].as_str(),
        "http://mirror.example.org/debian"
    );
    let layout = site.layout();
    assert_eq!(fs::metadata(layout.keys()).unwrap().mode() & 0o7777, 0o700);
    for key in fs::read_dir(layout.keys()).unwrap() {
        assert_eq!(key.unwrap().metadata().unwrap().mode() & 0o7777, 0o600);
    }
    assert_eq!(fs::read_dir(layout.keys()).unwrap().count(), 4);
    assert_eq!(site.trust().anchors().len(), 0);
    assert_eq!(publication::list(&layout.authorizations()).unwrap(), []);
    assert!(site.base(&"debian-12".parse().unwrap()).unwrap().ends_with("site/bases/debian-12"));
    assert_eq!(site.base(&"debian-13".parse().unwrap()), None);
}

#[test]
fn its_first_recipe_crl_has_number_1_is_empty_and_expires() {
    let place = Place::new();
    let site = place.init();
    let (header, body) = crl::load(&site.layout().recipe_crl()).unwrap();
    let list = crl::RecipeCrl::verify(&header, &body, site.pins(), at(1)).unwrap();
    assert_eq!((list.number(), list.header().entries), (1, 0));
    assert_eq!(list.next_update(), at(7 * DAY));
    assert!(crl::RecipeCrl::verify(&header, &body, site.pins(), at(7 * DAY)).is_err());
}

#[test]
fn each_role_signs_with_its_own_pinned_key() {
    let place = Place::new();
    let site = place.init();
    let mut keys = BTreeSet::new();
    for role in [Role::Countersigner, Role::CrlIssuer, Role::BaseSigner] {
        let signer = site.signer(role, None).unwrap();
        assert_eq!(signer.role(), role);
        assert!(keys.insert(signer.spki_sha256()), "{role} shares a key");
        assert!(site.pins().pinned(role).eq([signer.spki_sha256()]));
    }
    assert!(matches!(site.signer(Role::RecipeSigner, None), Err(SiteError::NoKey { .. })));

    let layout = site.layout().clone();
    let (one, other) = (layout.key(Role::Countersigner).unwrap(), layout.key(Role::BaseSigner).unwrap());
    fs::copy(&other, &one).unwrap();
    assert!(matches!(site.signer(Role::Countersigner, None), Err(SiteError::NotPinned { .. })));
    chmod(&other, 0o640);
    assert!(matches!(site.signer(Role::BaseSigner, None), Err(SiteError::Mode { .. })));
}

#[test]
fn keys_under_a_passphrase_open_with_it_alone() {
    let place = Place::new();
    let passphrase = || Passphrase::new("correct horse".to_owned()).unwrap();
    let protection = KeyProtection::Passphrase(passphrase());
    let site = Site::init(&place.site(), &InitOptions { protection, ..options(None) }).unwrap();
    for key in fs::read_dir(site.layout().keys()).unwrap() {
        let text = fs::read_to_string(key.unwrap().path()).unwrap();
        assert!(text.contains("BEGIN ENCRYPTED PRIVATE KEY"), "{text}");
    }
    site.signer(Role::Countersigner, Some(&passphrase())).unwrap();
    let wrong = Passphrase::new("wrong".to_owned()).unwrap();
    for passphrase in [None, Some(&wrong)] {
        assert!(matches!(site.signer(Role::Countersigner, passphrase), Err(SiteError::Key { .. })));
    }
}

#[test]
fn a_folder_that_holds_anything_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.site()).unwrap();
    fs::write(place.site().join("precious"), "x").unwrap();
    assert!(matches!(Site::init(&place.site(), &options(None)), Err(SiteError::NotEmpty { .. })));
    assert_eq!(names(&place.site()), BTreeSet::from(["precious".to_owned()]));
    assert_eq!(place.entries(), BTreeSet::from(["site".to_owned()]));
    let again = place.folder.path().join("again");
    fs::create_dir(&again).unwrap();
    Site::init(&again, &options(None)).unwrap();
    assert!(matches!(Site::init(&again, &options(None)), Err(SiteError::NotEmpty { .. })));
}

/// A folder for site recipes, with the configuration of a suite.
fn recipes_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("suites")).unwrap();
    fs::write(folder.path().join("suites/baseline.toml"), "# a suite").unwrap();
    fs::write(folder.path().join("suites/README.md"), "not a suite").unwrap();
    folder
}

#[test]
fn a_site_that_cannot_be_finished_is_not_begun() {
    let place = Place::new();
    let recipes = recipes_folder();
    fs::create_dir(recipes.path().join("baseline")).unwrap();
    fs::write(recipes.path().join("baseline/recipe.toml"), "x").unwrap();
    symlink("/etc/passwd", recipes.path().join("baseline/link")).unwrap();
    let refused = Site::init(&place.site(), &options(Some(recipes.path().to_owned()))).unwrap_err();
    assert!(matches!(refused, SiteError::SiteRecipe { .. }), "{refused}");
    assert_eq!(place.entries(), BTreeSet::new());
    assert!(Site::init(&place.folder.path().join("none/site"), &options(None)).is_err());
    assert!(Site::init(Path::new("/"), &options(None)).is_err());
}

#[test]
fn an_empty_folder_becomes_a_site_whatever_way_it_is_named() {
    let place = Place::new();
    fs::create_dir(place.site()).unwrap();
    let _ = Site::init(&place.site().join("../site/.."), &options(None)).unwrap_err();
    let _ = Site::init(&place.site().join("../site"), &options(None)).unwrap();
    assert_eq!(place.entries(), BTreeSet::from(["site".to_owned()]));
    let other = Place::new();
    let inside = other.folder.path().join("x/..");
    let _ = Site::init(&inside, &options(None)).unwrap_err();
    fs::create_dir(other.site()).unwrap();
    fs::create_dir(other.folder.path().join("x")).unwrap();
    let _ = Site::init(&other.folder.path().join("x/../site/./../site"), &options(None)).unwrap();
}

#[test]
fn site_recipes_are_copied_in_the_order_of_their_names() {
    let place = Place::new();
    let recipes = recipes_folder();
    for name in ["20-second", "10-first"] {
        fs::create_dir_all(recipes.path().join(name).join("files/deep")).unwrap();
        fs::write(recipes.path().join(name).join("recipe.toml"), name).unwrap();
        fs::write(recipes.path().join(name).join("files/deep/x"), "x").unwrap();
        fs::write(recipes.path().join(name).join("run.sh"), "#!/bin/sh").unwrap();
        chmod(&recipes.path().join(name).join("run.sh"), 0o775);
    }
    fs::write(recipes.path().join("README.md"), "not a recipe").unwrap();
    fs::create_dir(recipes.path().join("notes")).unwrap();
    let site = Site::init(&place.site(), &options(Some(recipes.path().to_owned()))).unwrap();
    let copied: Vec<_> = site.site_recipes().collect();
    assert_eq!(copied.len(), 2);
    assert_eq!(fs::read_to_string(site.suite()).unwrap(), "# a suite");
    assert_eq!(names(&site.layout().suites()), BTreeSet::from(["baseline.toml".to_owned()]));
    assert!(copied[0].ends_with("site-recipes/10-first") && copied[1].ends_with("site-recipes/20-second"));
    assert_eq!(fs::read_to_string(copied[0].join("recipe.toml")).unwrap(), "10-first");
    assert_eq!(fs::read_to_string(copied[1].join("files/deep/x")).unwrap(), "x");
    assert_eq!(fs::metadata(copied[0].join("run.sh")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(copied[0].join("recipe.toml")).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn a_folder_that_others_could_use_is_not_opened() {
    let place = Place::new();
    let recipes = recipes_folder();
    fs::create_dir_all(recipes.path().join("baseline/files")).unwrap();
    fs::write(recipes.path().join("baseline/recipe.toml"), "x").unwrap();
    fs::write(recipes.path().join("baseline/files/x"), "x").unwrap();
    let site = Site::init(&place.site(), &options(Some(recipes.path().to_owned()))).unwrap();
    let layout = site.layout().clone();
    let recipe = site.site_recipes().next().unwrap();
    for (path, bad, good) in [
        (layout.keys(), 0o750, 0o700),
        (layout.keys(), 0o701, 0o700),
        (layout.config(), 0o664, 0o644),
        (layout.root().to_owned(), 0o775, 0o755),
        (layout.root().to_owned(), 0o1777, 0o755),
        (layout.anchors(), 0o757, 0o755),
        (layout.ca_certificate(), 0o646, 0o644),
        (layout.authorizations(), 0o775, 0o755),
        (layout.authorizations().join("objects"), 0o777, 0o755),
        (layout.authorizations().join("refs/heads"), 0o775, 0o755),
        (layout.recipe_crl(), 0o777, 0o755),
        (fs::read_dir(layout.recipe_crl()).unwrap().next().unwrap().unwrap().path(), 0o666, 0o644),
        (layout.suites(), 0o775, 0o755),
        (site.suite(), 0o664, 0o644),
        (recipe.clone(), 0o775, 0o755),
        (recipe.join("recipe.toml"), 0o646, 0o644),
        (recipe.join("files"), 0o777, 0o755),
    ] {
        chmod(&path, bad);
        let refused = refusal(&place.site());
        assert!(refused.contains("chmod") && refused.contains(&path.display().to_string()), "{refused}");
        chmod(&path, good);
        Site::open(&place.site()).unwrap();
    }
    // A copy that only deploys has no keys.
    fs::remove_dir_all(layout.keys()).unwrap();
    let site = Site::open(&place.site()).unwrap();
    assert!(matches!(site.signer(Role::Countersigner, None), Err(SiteError::Io { .. })));
}

#[test]
fn what_is_wrong_in_the_file_is_said_with_the_file() {
    let place = Place::new();
    let config = place.init().layout().config();
    let text = fs::read_to_string(&config).unwrap();
    for (change, said) in [
        (text.replace("layout = 1", "layout = 2"), "use a newer countersign"),
        (text.replace("[policy]", "[policy]\nallow_anything = true"), "unknown field"),
        (String::new(), "layout"),
        ("\u{0}".to_owned(), "line 1"),
        ("x".repeat(CONFIG_BYTES as usize + 1), "larger than"),
    ] {
        fs::write(&config, change).unwrap();
        let refused = refusal(&place.site());
        assert!(refused.contains("site.toml") && refused.contains(said), "{said}: {refused}");
    }
    fs::remove_file(&config).unwrap();
    assert!(refusal(&place.site()).contains("site.toml"));
    assert!(Site::open(Path::new("/nonexistent")).is_err());
}

fn vo_ca(organisation: &str) -> ca::CaFiles {
    ca::init(organisation, "CA", (at(0), at(1000 * DAY)), at(30 * DAY)).unwrap()
}

fn vo(name: &str) -> VoName {
    name.parse().unwrap()
}

#[test]
fn a_trusted_vo_is_there_at_the_next_opening() {
    let place = Place::new();
    let site = place.init();
    let (atlas, belle) = (vo_ca("atlas"), vo_ca("belle2"));
    add_vo(&lock(&site), &vo("atlas"), &atlas.certificate_pem, &atlas.crl_pem, &[vo("atlas")]).unwrap();
    add_vo(&lock(&site), &vo("belle2"), &belle.certificate_pem, &belle.crl_pem, &[vo("belle2")]).unwrap();
    let site = Site::open(&place.site()).unwrap();
    assert_eq!(site.trust().anchors().iter().map(Anchor::name).collect::<Vec<_>>(), ["atlas", "belle2"]);
    assert_eq!(site.config().anchors[0].vos, [vo("atlas")]);
}

#[test]
fn a_vo_that_cannot_be_trusted_changes_nothing() {
    let place = Place::new();
    let site = place.init();
    let lock = lock(&site);
    let (atlas, other) = (vo_ca("atlas"), vo_ca("other"));
    add_vo(&lock, &vo("atlas"), &atlas.certificate_pem, &atlas.crl_pem, &[vo("atlas")]).unwrap();
    let before = fs::read_to_string(site.layout().config()).unwrap();
    let own_ca = fs::read_to_string(site.layout().ca_certificate()).unwrap();
    let own_crl = fs::read_to_string(site.layout().ca_crl()).unwrap();
    let new = [vo("new")];
    for (name, certificate, crl, vos) in [
        ("atlas", &other.certificate_pem, &other.crl_pem, &new[..]),
        ("new", &other.certificate_pem, &atlas.crl_pem, &new),
        ("new", &other.certificate_pem, &String::new(), &new),
        ("new", &other.crl_pem, &other.crl_pem, &new),
        ("new", &other.certificate_pem, &other.crl_pem, &[]),
        ("new", &own_ca, &own_crl, &new),
        ("new", &atlas.certificate_pem, &atlas.crl_pem, &new),
    ] {
        let refused = add_vo(&lock, &vo(name), certificate, crl, vos);
        assert!(refused.is_err(), "{name} {certificate}");
        assert_eq!(fs::read_to_string(site.layout().config()).unwrap(), before);
        Site::open(&place.site()).unwrap();
    }
    assert_eq!(names(&site.layout().anchors()).len(), 2, "only the files of the first anchor");
    // The anchor whose name was tried again is still its own.
    let kept = fs::read_to_string(site.layout().anchors().join("atlas.pem")).unwrap();
    assert_eq!(kept, atlas.certificate_pem);
    add_vo(&lock, &vo("new"), &other.certificate_pem, &other.crl_pem, &new).unwrap();
}

#[test]
fn a_new_vo_does_not_take_the_files_of_another_anchor() {
    let place = Place::new();
    let site = place.init();
    let lock = lock(&site);
    let (atlas, other) = (vo_ca("atlas"), vo_ca("other"));
    add_vo(&lock, &vo("atlas"), &atlas.certificate_pem, &atlas.crl_pem, &[vo("atlas")]).unwrap();
    // Whoever wrote this by hand keeps the anchor's files under a name that the next anchor would take.
    let text = fs::read_to_string(site.layout().config()).unwrap();
    fs::write(site.layout().config(), text.replace("anchors/atlas.", "anchors/other.")).unwrap();
    for name in ["pem", "crl.pem"] {
        let path = |anchor: &str| site.layout().anchors().join(format!("{anchor}.{name}"));
        fs::rename(path("atlas"), path("other")).unwrap();
    }
    let refused = add_vo(&lock, &vo("other"), &other.certificate_pem, &other.crl_pem, &[vo("other")]);
    assert!(refused.unwrap_err().to_string().contains("atlas"));
    let kept = fs::read_to_string(site.layout().anchors().join("other.pem")).unwrap();
    assert_eq!(kept, atlas.certificate_pem);
}

#[test]
fn a_new_sites_policy_grants_nothing() {
    let place = Place::new();
    let policy = place.init().config().policy.clone();
    assert!(policy.setuid.is_empty());
    assert_eq!(policy.authorization_seconds(), 90 * DAY);
}
