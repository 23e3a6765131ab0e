//! A site: its folder, a base image from the shared cache, and the anchors of VOs.

use std::path::{Path, PathBuf};

use crate::command::{Countersign, Run};
use crate::tree::is_root;
use crate::vo::Vo;

/// A site and how to call its commands.
#[derive(Debug)]
pub struct Site {
    /// The site's folder.
    pub folder: PathBuf,
    passphrase: PathBuf,
}

/// The project's own folder.
#[must_use]
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the project")
}

/// Where built base images are kept between runs: `$COUNTERSIGN_CACHE`, else `countersign` in the user's cache folder.
///
/// # Panics
/// If neither `COUNTERSIGN_CACHE`, `XDG_CACHE_HOME` nor `HOME` is set.
#[must_use]
pub fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("COUNTERSIGN_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|folder| folder.join("countersign")))
        .or_else(|| from("HOME").map(|folder| folder.join(".cache/countersign")))
        .expect("HOME or COUNTERSIGN_CACHE is set")
}

impl Site {
    /// Makes a site's folder below `folder`, with the project's own site recipes. Without root, machines run as the caller:
    /// the recipes here are the project's own.
    #[must_use]
    pub fn found(id: &str, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for the site");
        let passphrase = folder.join("passphrase");
        std::fs::write(&passphrase, "a passphrase of the site\n").expect("the passphrase is written");
        let site = Self { folder: folder.join("site"), passphrase };
        let recipes = project().join("site-recipes");
        let _ = Countersign::new(["init".as_ref(), site.folder.as_os_str(), "--id".as_ref(), id.as_ref()])
            .and(["--site-recipes".as_ref(), recipes.as_os_str()])
            .passphrase(&site.passphrase)
            .run()
            .done();
        if !is_root() {
            site.allow_same_user();
        }
        site
    }

    fn allow_same_user(&self) {
        let path = self.folder.join("site.toml");
        let text = std::fs::read_to_string(&path).expect("site.toml is read");
        let (refused, allowed) = ("allow_same_user = false", "allow_same_user = true");
        assert!(text.contains(refused), "`init` writes {refused}");
        std::fs::write(&path, text.replacen(refused, allowed, 1)).expect("site.toml is written");
    }

    /// Calls a command of the site.
    #[must_use]
    pub fn call<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Countersign {
        Countersign::new(arguments).at(&self.folder).passphrase(&self.passphrase)
    }

    /// Runs a command of the site.
    #[must_use]
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        self.call(arguments).run()
    }

    /// Trusts a VO's CA.
    #[must_use]
    pub fn trust(&self, vo: &Vo) -> Run {
        let (certificate, crl) = (vo.ca.join("ca.cert.pem"), vo.ca.join("ca.crl.pem"));
        self.call(["anchor", "add", &vo.name, "--vo", &vo.name])
            .and(["--ca".as_ref(), certificate.as_os_str(), "--crl".as_ref(), crl.as_os_str()])
            .run()
    }

    /// Builds the base image, or takes it from the cache.
    #[must_use]
    pub fn base(&self) -> Run {
        let cache = cache();
        self.call(["base", "build", "debian-12", "--cache"]).and([cache.as_os_str()]).run()
    }
}
