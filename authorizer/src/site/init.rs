//! Making a site's folder: whole, or not at all.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use recipe_spec::{ENVELOPE_FILE, Limits, MANIFEST_FILE, RecipePath, Timestamp};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use signer::ca::{self, CaFiles, Subject};
use signer::{Chain, Passphrase, Role, SecretKey, Signer};
use tempfile::TempDir;
use url::Url;
use zeroize::Zeroizing;

use super::store::{self, Access};
use super::template::{self, Filling};
use super::{Layout, Site, SiteConfig, SiteError, SiteId, ca_crl_next_update};
use crate::intake::{self, IntakeError, RecipeFiles};
use crate::publication;

/// How long the site's CA is valid: ten years.
const CA_SECONDS: i64 = 10 * YEAR;
/// How long the certificates of the site's keys are valid: three years.
const KEY_SECONDS: i64 = 3 * YEAR;
const YEAR: i64 = 365 * 24 * 60 * 60;

/// How the site's keys are stored. There is no default: leaving keys open is said, not forgotten.
#[derive(Debug)]
pub enum KeyProtection {
    /// Encrypted with this passphrase.
    Passphrase(Passphrase),
    /// As they are; only the file's mode protects them.
    None,
}

impl KeyProtection {
    fn pem(&self, path: &Path, key: &SecretKey) -> Result<Zeroizing<String>, SiteError> {
        match self {
            Self::Passphrase(passphrase) => key.to_encrypted_pem(passphrase).map(Zeroizing::new),
            Self::None => key.to_plain_pem(),
        }
        .map_err(|source| SiteError::Key { path: path.to_owned(), source: Box::new(source) })
    }
}

/// The most bytes of a suite's configuration.
const SUITE_BYTES: u64 = 1 << 20;

/// What a new site is made of.
#[derive(Debug)]
pub struct InitOptions {
    /// The site's name.
    pub id: SiteId,
    /// How its keys are stored.
    pub protection: KeyProtection,
    /// The beginning of everything's validity.
    pub now: Timestamp,
    /// Whether machines may be emulated in software; true where KVM is absent.
    pub allow_emulation: bool,
    /// A folder whose subfolders are site recipes, copied and applied in the byte order of their names, and whose `suites` folder holds
    /// the configuration of the site's tests.
    pub site_recipes: Option<PathBuf>,
    /// Mirrors of the origin `debian`, usually [`super::apt::debian_mirrors`] of the host.
    pub debian: Vec<Url>,
}

impl Site {
    /// Makes a site in `folder`, which must be empty or not exist, and opens it: keys for each role under a CA of the
    /// site's own, an empty first recipe CRL, an empty repository of authorizations, the site recipes, `site.toml`.
    ///
    /// It is made beside `folder` and moved there when it is whole.
    ///
    /// # Errors
    /// [`SiteError::NotEmpty`], and whatever kept it from being made; `folder` is then as it was.
    pub fn init(folder: &Path, options: &InitOptions) -> Result<Self, SiteError> {
        let io = |source| SiteError::io("make", folder, source);
        match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(false) => return Err(SiteError::NotEmpty { path: folder.to_owned() }),
            Ok(true) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        // An empty folder may be named `.`, which cannot be moved onto.
        let found = fs::canonicalize(folder);
        let folder = found.as_deref().unwrap_or(folder);
        // `/` has no name to give to a new folder.
        let name = folder.file_name().ok_or_else(|| io(ErrorKind::InvalidInput.into()))?;
        let parent = match folder.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let prefix = format!(".{}.countersign-init-", name.to_string_lossy());
        sweep(parent, &prefix)?;
        let (beside, _in_use) =
            make_in(parent, &prefix).map_err(|source| SiteError::io("make a folder in", parent, source))?;
        fill(&Layout::new(beside.path()), options)?;
        fs::set_permissions(beside.path(), Permissions::from_mode(0o755)).map_err(io)?;
        match fs::rename(beside.path(), folder) {
            // The folder was moved away, there is nothing left to remove.
            Ok(()) => drop(beside.keep()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                return Err(SiteError::NotEmpty { path: folder.to_owned() });
            }
            Err(error) => return Err(io(error)),
        }
        store::sync_folder(parent)?;
        Self::open(folder)
    }
}

/// Removes what killed runs left beside the site's folder: it holds keys that nobody knows of. Who makes one holds its lock.
fn sweep(parent: &Path, prefix: &str) -> Result<(), SiteError> {
    let io = |source| SiteError::io("read", parent, source);
    for entry in fs::read_dir(parent).map_err(io)? {
        let entry = entry.map_err(io)?;
        let ours = entry.file_name().to_string_lossy().starts_with(prefix)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && entry.metadata().is_ok_and(|about| about.uid() == rustix::process::geteuid().as_raw());
        let path = entry.path();
        // Held until it is gone: who makes one asks for it as well.
        if ours && let Ok(Some(_lock)) = lock(&path) {
            match fs::remove_dir_all(&path) {
                // Who made it removes it too, after an error.
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(SiteError::io("remove", &path, error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// How often a folder is made that another run takes for one left over, before it is locked.
const TRIES: usize = 100;

/// A new folder, and its lock.
fn make_in(parent: &Path, prefix: &str) -> std::io::Result<(TempDir, File)> {
    for _ in 0..TRIES {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        match lock(made.path()) {
            // Who swept it before had the lock, and has let go of it.
            Ok(Some(lock)) if made.path().exists() => return Ok((made, lock)),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Err(std::io::Error::other("other runs remove it each time"))
}

/// The lock of a folder, unless somebody has it.
fn lock(folder: &Path) -> std::io::Result<Option<File>> {
    let file = File::open(folder)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn fill(layout: &Layout, options: &InitOptions) -> Result<(), SiteError> {
    for folder in
        [layout.certificates(), layout.anchors(), layout.site_recipes(), layout.bases(), layout.layers()]
    {
        store::make_folder(&folder, Access::Public)?;
    }
    for folder in [layout.keys(), layout.state(), layout.run(), layout.logs(), layout.instances()] {
        store::make_folder(&folder, Access::Private)?;
    }
    let keys = make_keys(layout, options)?;
    first_crl(layout, options, &keys.crl_issuer)?;
    store::write_new(&layout.ledger(), b"", Access::Private)?;
    publication::init(&layout.authorizations())?;
    fs::set_permissions(layout.authorizations(), Permissions::from_mode(0o755))
        .map_err(|source| SiteError::io("make", &layout.authorizations(), source))?;
    let site_recipes = match &options.site_recipes {
        Some(folder) => {
            copy_suites(layout, folder)?;
            copy_site_recipes(layout, folder)?
        }
        None => Vec::new(),
    };
    let text = template::site_toml(&Filling {
        id: &options.id,
        countersigner: keys.countersigner.spki_sha256(),
        crl_issuer: keys.crl_issuer.spki_sha256(),
        base_signer: keys.base_signer.spki_sha256(),
        debian: &options.debian,
        site_recipes: &site_recipes,
        allow_emulation: options.allow_emulation,
    });
    SiteConfig::parse(&text).map_err(|source| SiteError::Config { path: layout.config(), source })?;
    store::write_new(&layout.config(), text.as_bytes(), Access::Public)?;
    for folder in [
        layout.keys(),
        layout.certificates(),
        layout.state(),
        layout.site_recipes(),
        layout.root().to_owned(),
    ] {
        store::sync_folder(&folder)?;
    }
    Ok(())
}

/// The site's keys, in memory while the folder is made.
struct Keys {
    countersigner: Signer,
    crl_issuer: Signer,
    base_signer: Signer,
}

fn make_keys(layout: &Layout, options: &InitOptions) -> Result<Keys, SiteError> {
    let InitOptions { id, now, protection, .. } = options;
    let files = ca::init(
        id.as_str(),
        "Countersign site CA",
        (*now, now.plus_seconds(CA_SECONDS)),
        ca_crl_next_update(*now),
    )?;
    let pem = protection.pem(&layout.ca_key(), &files.key)?;
    store::write_new(&layout.ca_key(), pem.as_bytes(), Access::Private)?;
    store::write_new(&layout.ca_certificate(), files.certificate_pem.as_bytes(), Access::Public)?;
    store::write_new(&layout.ca_crl(), files.crl_pem.as_bytes(), Access::Public)?;
    Ok(Keys {
        countersigner: make_key(layout, options, &files, Role::Countersigner)?,
        crl_issuer: make_key(layout, options, &files, Role::CrlIssuer)?,
        base_signer: make_key(layout, options, &files, Role::BaseSigner)?,
    })
}

fn make_key(layout: &Layout, options: &InitOptions, ca: &CaFiles, role: Role) -> Result<Signer, SiteError> {
    let (Some(path), Some(certificate_path)) = (layout.key(role), layout.certificate(role)) else {
        return Err(SiteError::NoKey { role });
    };
    let key = SecretKey::generate()
        .map_err(|source| SiteError::Key { path: path.clone(), source: Box::new(source) })?;
    let subject =
        Subject { organisation: options.id.as_str().to_owned(), common_name: role.as_str().to_owned() };
    let validity = (options.now, options.now.plus_seconds(KEY_SECONDS));
    let certificate = ca::issue(&ca.key, &ca.certificate_pem, &subject, &key.public(), validity)?;
    let pem = options.protection.pem(&path, &key)?;
    store::write_new(&path, pem.as_bytes(), Access::Private)?;
    store::write_new(&certificate_path, certificate.as_bytes(), Access::Public)?;
    let chain = Chain::from_pem(&certificate)
        .map_err(|source| SiteError::Chain { path: certificate_path, source: Box::new(source) })?;
    Signer::new(role, key, chain).map_err(|source| SiteError::Signer { path, source: Box::new(source) })
}

/// The empty list with number 1: without a list, nothing is allowed.
fn first_crl(layout: &Layout, options: &InitOptions, issuer: &Signer) -> Result<(), SiteError> {
    let next_update = options.now.plus_seconds(template::NEXT_UPDATE_DAYS * 86_400);
    let (header, body) =
        crl::issue(None, &[], options.id.as_str(), crl::Scope::Site, next_update, issuer, options.now)?;
    store::make_folder(&layout.recipe_crl(), Access::Public)?;
    Ok(crl::store(&layout.recipe_crl(), &header, &body)?)
}

/// Copies the configurations of the site's tests.
fn copy_suites(layout: &Layout, from: &Path) -> Result<(), SiteError> {
    let from = from.join("suites");
    let io = |source| SiteError::io("read", &from, source);
    store::make_folder(&layout.suites(), Access::Public)?;
    for entry in fs::read_dir(&from).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if let (Some("toml"), Some(name)) = (path.extension().and_then(|e| e.to_str()), path.file_name()) {
            let text = store::read_text(&path, SUITE_BYTES)?;
            store::write_new(&layout.suites().join(name), text.as_bytes(), Access::Public)?;
        }
    }
    Ok(())
}

/// Copies each subfolder of `from` that holds a manifest, by the rules of intake; gives their paths for `site.toml`.
fn copy_site_recipes(layout: &Layout, from: &Path) -> Result<Vec<String>, SiteError> {
    let io = |source| SiteError::io("read", from, source);
    let mut folders = Vec::new();
    for entry in fs::read_dir(from).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.join(MANIFEST_FILE).is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    let mut copied = Vec::new();
    for folder in folders {
        let name: RecipePath = folder.file_name().unwrap_or_default().to_string_lossy().parse()?;
        let refused =
            |source: IntakeError| SiteError::SiteRecipe { path: folder.clone(), source: Box::new(source) };
        let files = intake::read_folder(&folder, &Limits::STANDARD).map_err(refused)?;
        write_recipe(&layout.site_recipes().join(name.as_str()), &files)?;
        copied.push(format!("site-recipes/{name}"));
    }
    Ok(copied)
}

fn write_recipe(folder: &Path, files: &RecipeFiles) -> Result<(), SiteError> {
    store::make_folder(folder, Access::Public)?;
    for (path, file) in files.payload.iter() {
        for above in path.folders().map(|above| folder.join(above)) {
            if !above.is_dir() {
                store::make_folder(&above, Access::Public)?;
            }
        }
        let path = folder.join(path.as_str());
        if file.executable {
            store::write_new_program(&path, &file.bytes)?;
        } else {
            store::write_new(&path, &file.bytes, Access::Public)?;
        }
    }
    match &files.envelope {
        Some(envelope) => store::write_new(&folder.join(ENVELOPE_FILE), envelope, Access::Public),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_a_run_makes_no_other_sweeps() {
        let parent = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // A folder may be gone before it is looked at.
                    let _ = sweep(parent.path(), "x-");
                }
            });
            let made = (0..300).try_for_each(|_| {
                let (made, _lock) = make_in(parent.path(), "x-")?;
                fs::write(made.path().join("key"), "x")
            });
            done.store(true, Ordering::Relaxed);
            made.unwrap();
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
