//! The site's layers and templates: exactly those that a published authorization names. What else lies there is of a run that
//! was killed or failed between keeping them and publishing, or of an authorization that was replaced.
//!
//! A machine that runs on them holds them open, and does not notice that their names are gone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use harness::Template;
use recipe_spec::{Code, Sha256Digest, Timestamp};

use super::build::Layer;
use crate::ledger::Ledger;
use crate::publication;
use crate::site::{LAYER_SUFFIX, Site, SiteLock};
use crate::stopped::Stopped;

/// Moves layers and a template into the site's store. They stay only if an authorization that names them is published before
/// the lock is let go of.
pub(super) fn keep(
    layers: &[Layer],
    template: &Template,
    site: &Site,
    _lock: &SiteLock,
) -> Result<(), Stopped> {
    let layout = site.layout();
    let layers = layers.iter().map(|layer| (layer.path.as_path(), layout.layer(layer.sha256)));
    move_into(&layout.layers(), layers)?;
    let template = (template.folder(), layout.template(template.sha256()));
    move_into(&layout.templates(), [template])
}

fn move_into<'a>(store: &Path, things: impl IntoIterator<Item = (&'a Path, PathBuf)>) -> Result<(), Stopped> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| Stopped::io(what, &path, &error)
    };
    fs::create_dir_all(store).map_err(io("make", store))?;
    for (from, to) in things {
        fs::rename(from, &to).map_err(io("keep it as", &to))?;
    }
    fs::File::open(store).and_then(|folder| folder.sync_all()).map_err(io("flush", store))
}

/// Removes every layer and template that no published authorization names, and says how many. Where one of those cannot be read, or the
/// repository lacks what was published, nothing is removed: it may come back from a copy. Who holds the site's lock is the only one
/// who keeps layers.
pub(super) fn sweep(site: &Site, lock: &SiteLock) -> Result<usize, Stopped> {
    let mut found = entries(&site.layout().layers())?;
    found.extend(entries(&site.layout().templates())?);
    if found.is_empty() {
        return Ok(0);
    }
    not_behind_the_ledger(site, lock)?;
    let named = publication::needed_untrusted(&lock.authorizations())?;
    let mut swept = 0;
    for path in found {
        if digest(&path).is_some_and(|found| !named.contains(&found)) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| Stopped::io("remove", &path, &error))?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// What lies in a store; nothing in one that was never made.
fn entries(store: &Path) -> Result<Vec<PathBuf>, Stopped> {
    let failed = |error: io::Error| Stopped::io("read", store, &error);
    match fs::read_dir(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(found) => found.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
    }
}

/// Refuses a repository that was lost, or put back to an earlier state: its authorizations are not all there are.
fn not_behind_the_ledger(site: &Site, lock: &SiteLock) -> Result<(), Stopped> {
    let repository = lock.authorizations();
    let ledger = Ledger::open(&site.layout().ledger())?;
    let behind = |what: String| {
        let message =
            format!("the repository of authorizations lacks {what}, which the ledger says was published");
        Err(Stopped::new(Code::HostFailed, message).hint("restore it from a copy"))
    };
    if let Some(commit) = ledger.last_commit()
        && !publication::holds_commit(&repository, commit)?
    {
        return behind(format!("commit {commit}"));
    }
    let listed: BTreeSet<_> = publication::list(&repository)?.into_iter().collect();
    match ledger.published().difference(&listed).next() {
        Some((name, version)) => behind(format!("{name}@{version}")),
        None => Ok(()),
    }
}

/// Records what a kill between the commit and the ledger left unrecorded: a version that was about to be authorized and is there.
pub(super) fn record_published(site: &Site, lock: &SiteLock, now: Timestamp) -> Result<(), Stopped> {
    let repository = lock.authorizations();
    let mut ledger = Ledger::open(&site.layout().ledger())?;
    let unpublished: Vec<_> = ledger.unpublished().cloned().collect();
    if unpublished.is_empty() {
        return Ok(());
    }
    let Some(commit) = publication::tip(&repository)? else { return Ok(()) };
    let listed: BTreeSet<_> = publication::list(&repository)?.into_iter().collect();
    for (name, version) in unpublished.iter().filter(|version| listed.contains(version)) {
        if let Some(entry) = ledger.entry(name, version) {
            ledger.record_published(name, version, entry.recipe, &commit, now)?;
        }
    }
    Ok(())
}

/// The digest in the name of a layer or template; none of what is neither.
fn digest(path: &Path) -> Option<Sha256Digest> {
    let name = path.file_name()?.to_str()?;
    let layer = name.strip_suffix(LAYER_SUFFIX).and_then(|name| name.strip_suffix('.'));
    layer.unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use recipe_spec::payload::PayloadFile;
    use recipe_spec::{RecipeName, Timestamp};
    use semver::Version;

    use super::*;
    use crate::site::{InitOptions, KeyProtection};

    fn now() -> Timestamp {
        Timestamp::from_unix(1_795_395_723)
    }

    struct Fixture {
        _folder: tempfile::TempDir,
        site: Site,
        lock: SiteLock,
        name: RecipeName,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let options = InitOptions {
                id: "example-site".parse().unwrap(),
                protection: KeyProtection::None,
                now: now(),
                allow_emulation: true,
                site_recipes: None,
                debian: Vec::new(),
            };
            let site = Site::init(&folder.path().join("site"), &options).unwrap();
            let lock = SiteLock::acquire(site.layout(), Duration::ZERO).unwrap();
            Self { _folder: folder, site, lock, name: "atlas/web".parse().unwrap() }
        }

        fn ledger(&self) -> Ledger {
            Ledger::open(&self.site.layout().ledger()).unwrap()
        }

        fn commit(&self, version: &Version) -> String {
            let about = PayloadFile { bytes: b"x".to_vec(), executable: false };
            let files = [("README".parse().unwrap(), about)].into();
            publication::publish(&self.lock, &self.name, version, &files, "Authorize", now()).unwrap()
        }

        fn authorize(&self, version: &Version) {
            self.ledger().record_authorized(&self.name, version, Sha256Digest::of(b"r"), now()).unwrap();
        }
    }

    #[test]
    fn a_commit_that_a_kill_left_unrecorded_is_recorded_by_the_next_run() {
        let fixture = Fixture::new();
        let (one, two) = (Version::new(1, 0, 0), Version::new(2, 0, 0));
        fixture.authorize(&one);
        fixture.commit(&one);
        fixture.authorize(&two);
        assert_eq!(fixture.ledger().highest_published(&fixture.name), None);
        record_published(&fixture.site, &fixture.lock, now()).unwrap();
        assert_eq!(fixture.ledger().highest_published(&fixture.name), Some(&one), "2.0.0 has no commit");
        let before = std::fs::read(fixture.site.layout().ledger()).unwrap();
        record_published(&fixture.site, &fixture.lock, now()).unwrap();
        assert_eq!(std::fs::read(fixture.site.layout().ledger()).unwrap(), before);
    }

    #[test]
    fn what_no_authorization_names_is_swept_and_what_is_neither_layer_nor_template_stays() {
        let fixture = Fixture::new();
        let layout = fixture.site.layout();
        let digest = Sha256Digest::of(b"x");
        std::fs::create_dir_all(layout.layers()).unwrap();
        std::fs::write(layout.layer(digest), b"x").unwrap();
        let foreign = layout.templates().join("lost+found");
        for folder in [&layout.template(digest), &foreign] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("memory"), b"x").unwrap();
        }
        assert_eq!(sweep(&fixture.site, &fixture.lock).unwrap(), 2);
        assert!(!layout.layer(digest).exists() && !layout.template(digest).exists());
        assert!(foreign.join("memory").exists());
        assert_eq!(sweep(&fixture.site, &fixture.lock).unwrap(), 0);
    }

    #[test]
    fn no_layer_is_removed_where_the_repository_lacks_what_was_published() {
        let fixture = Fixture::new();
        let (one, two) = (Version::new(1, 0, 0), Version::new(2, 0, 0));
        let branch: PathBuf = fixture.lock.authorizations().join("refs/heads/main");
        let check = || not_behind_the_ledger(&fixture.site, &fixture.lock);
        check().unwrap();
        fixture.authorize(&one);
        check().unwrap();
        let mut before = String::new();
        for version in [&one, &one, &two] {
            fixture.authorize(version);
            before = std::fs::read_to_string(&branch).unwrap_or_default();
            let commit = fixture.commit(version);
            let content = Sha256Digest::of(b"r");
            fixture.ledger().record_published(&fixture.name, version, content, &commit, now()).unwrap();
            check().unwrap();
            // Put back to the commit before, where the same version can lie with other layers.
            if !before.is_empty() {
                let after = std::fs::read(&branch).unwrap();
                std::fs::write(&branch, &before).unwrap();
                assert_eq!(check().unwrap_err().code, Code::HostFailed);
                std::fs::write(&branch, after).unwrap();
            }
        }
        let layer = fixture.site.layout().layer(Sha256Digest::of(b"layer"));
        std::fs::create_dir_all(fixture.site.layout().layers()).unwrap();
        std::fs::write(&layer, b"layer").unwrap();
        std::fs::remove_file(&branch).unwrap();
        let refused = sweep(&fixture.site, &fixture.lock).unwrap_err();
        assert!(refused.message.contains("lacks commit") && layer.exists(), "{refused}");
        // A repository that goes on from an earlier state has other commits, and still not all versions.
        std::fs::write(&branch, &before).unwrap();
        let commit = fixture.commit(&one);
        let content = Sha256Digest::of(b"r");
        fixture.ledger().record_published(&fixture.name, &one, content, &commit, now()).unwrap();
        let refused = sweep(&fixture.site, &fixture.lock).unwrap_err();
        assert!(refused.message.contains("lacks atlas/web@2.0.0") && layer.exists(), "{refused}");
    }
}
