//! A site's folder: what it trusts, its keys, and everything it has built and published.

pub mod apt;
pub mod config;
mod init;
mod layout;
mod lock;
mod store;
mod template;
mod trusting;

use std::path::{Path, PathBuf};

use recipe_spec::text::Malformed;
use recipe_spec::{Code, Timestamp, VoName};
use signer::ca::CaError;
use signer::limits::{MAX_CERTIFICATE_BYTES, MAX_CERTIFICATE_CRL_BYTES, MAX_KEY_PEM_BYTES};
use signer::{
    Anchor, CertificateCrlError, CertificateError, Chain, ChainError, KeyError, Passphrase, Role, SecretKey,
    Signer, SignerError, SitePins, TrustSetupError, TrustStore, VoMap,
};

use crate::stopped::is_full;

pub use config::{ConfigError, SiteConfig, SiteId};
pub use init::{InitOptions, KeyProtection};
pub(crate) use layout::LAYER_SUFFIX;
pub use layout::Layout;
pub use lock::{SiteLock, TrustLock};
pub use trusting::{add_vo, renew_anchor_crl, renew_ca_crl};

/// The most bytes of `site.toml`.
const CONFIG_BYTES: u64 = 1 << 20;
/// PEM has four characters for three bytes, line ends and labels; a file may have comments and intermediates too.
const PEM_FACTOR: u64 = 2;
const CERTIFICATE_PEM_BYTES: u64 = 8 * PEM_FACTOR * MAX_CERTIFICATE_BYTES as u64;
const CRL_PEM_BYTES: u64 = PEM_FACTOR * MAX_CERTIFICATE_CRL_BYTES as u64;

/// A site, opened: its file read, its anchors and pins loaded. Holds no key and no lock.
#[derive(Debug)]
pub struct Site {
    layout: Layout,
    config: SiteConfig,
    trust: TrustStore,
    pins: SitePins,
}

impl Site {
    /// Opens the site in `folder`.
    ///
    /// # Errors
    /// [`SiteError`] when `site.toml`, an anchor or the site's CA cannot be read, or others than the owner could
    /// change what the site trusts or read its keys.
    pub fn open(folder: &Path) -> Result<Self, SiteError> {
        let layout = place(folder)?;
        let text = store::read_text(&layout.config(), CONFIG_BYTES)?;
        let config =
            SiteConfig::parse(&text).map_err(|source| SiteError::Config { path: layout.config(), source })?;
        check_modes(&layout)?;
        let pins = load_pins(&layout, &config)?;
        let trust = trust_store(&layout, load_anchors(&layout, &config)?, &pins)?;
        let site = Self { layout, config, trust, pins };
        // Nobody signs the site's recipes and tests: whoever can write them is the site.
        site.site_recipes().try_for_each(|folder| store::check_tree_unwritable(&folder))?;
        store::check_unwritable(&site.suite())?;
        Ok(site)
    }

    /// The layout of the site in `folder`, for a change of what it trusts: anchors and CRLs are not read, and may be damaged.
    ///
    /// # Errors
    /// [`SiteError`] when others than the owner could change what the site trusts or read its keys.
    pub fn guarded(folder: &Path) -> Result<Layout, SiteError> {
        let layout = place(folder)?;
        check_modes(&layout)?;
        Ok(layout)
    }

    /// From now on this process does not hash again what this site's processes have hashed since the system booted.
    pub fn remember_digests(&self) {
        harness::remember_digests_in(&self.layout.digests());
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What `site.toml` says.
    pub fn config(&self) -> &SiteConfig {
        &self.config
    }

    /// The site's name.
    pub fn id(&self) -> &SiteId {
        &self.config.site.id
    }

    /// The anchors of VOs.
    pub fn trust(&self) -> &TrustStore {
        &self.trust
    }

    /// The site's own keys.
    pub fn pins(&self) -> &SitePins {
        &self.pins
    }

    /// The folders of the site's recipes, in the order in which they are applied.
    pub fn site_recipes(&self) -> impl Iterator<Item = PathBuf> {
        self.config.recipes.site.iter().map(|path| path.below(self.layout.root()))
    }

    /// The configuration of the site's tests.
    pub fn suite(&self) -> PathBuf {
        self.config.recipes.suite.below(self.layout.root())
    }

    /// The folder of a base image of the catalogue.
    pub fn base(&self, name: &recipe_spec::name::BaseName) -> Option<PathBuf> {
        let base = self.config.bases.iter().find(|base| base.name == *name)?;
        Some(base.folder.below(self.layout.root()))
    }

    /// Loads the site's signing key of a role, which must be one that is pinned.
    ///
    /// # Errors
    /// [`SiteError::NoKey`] for [`Role::RecipeSigner`], [`SiteError::NotPinned`], and where key or certificate cannot
    /// be read.
    pub fn signer(&self, role: Role, passphrase: Option<&Passphrase>) -> Result<Signer, SiteError> {
        let (Some(key), Some(certificate)) = (self.layout.key(role), self.layout.certificate(role)) else {
            return Err(SiteError::NoKey { role });
        };
        let secret = read_key(&key, passphrase)?;
        if !self.pins.pinned(role).any(|pinned| pinned == secret.public().spki_sha256()) {
            return Err(SiteError::NotPinned { role, path: key });
        }
        let pem = store::read_text(&certificate, CERTIFICATE_PEM_BYTES)?;
        let chain = Chain::from_pem(&pem)
            .map_err(|source| SiteError::Chain { path: certificate, source: Box::new(source) })?;
        Signer::new(role, secret, chain)
            .map_err(|source| SiteError::Signer { path: key, source: Box::new(source) })
    }
}

/// Absolute, so that a change of the working directory cannot make it another site.
fn place(folder: &Path) -> Result<Layout, SiteError> {
    std::fs::canonicalize(folder).map(Layout::new).map_err(|source| SiteError::io("open", folder, source))
}

/// Reads a secret key, which nobody but its owner may read.
fn read_key(path: &Path, passphrase: Option<&Passphrase>) -> Result<SecretKey, SiteError> {
    store::check_private(path)?;
    let pem = zeroize::Zeroizing::new(store::read_text(path, MAX_KEY_PEM_BYTES as u64)?);
    SecretKey::from_pem(&pem, passphrase)
        .map_err(|source| SiteError::Key { path: path.to_owned(), source: Box::new(source) })
}

/// Others than the owner must neither read the keys nor change what is trusted.
fn check_modes(layout: &Layout) -> Result<(), SiteError> {
    // A site that only deploys has no keys.
    if layout.keys().exists() {
        store::check_private(&layout.keys())?;
    }
    let trusted = [
        layout.root().to_owned(),
        layout.config(),
        layout.certificates(),
        layout.ca_certificate(),
        layout.ca_crl(),
        layout.anchors(),
        layout.site_recipes(),
        layout.suites(),
        layout.state(),
        layout.crl_seen(),
        layout.bases(),
        layout.layers(),
    ];
    trusted.iter().try_for_each(|path| store::check_unwritable(path))?;
    // What is signed can still be taken away, or put back to what it was.
    store::check_tree_unwritable(&layout.recipe_crl())?;
    let repository = layout.authorizations();
    let moves = ["", "HEAD", "config", "packed-refs", "objects", "refs", "refs/heads", "refs/heads/main"];
    moves.iter().try_for_each(|name| store::check_unwritable(&repository.join(name)))
}

fn load_pins(layout: &Layout, config: &SiteConfig) -> Result<SitePins, SiteError> {
    let certificate = store::read_text(&layout.ca_certificate(), CERTIFICATE_PEM_BYTES)?;
    // Without it nothing that the site signed counts, and whoever asks is told so (`CRL_MISSING`).
    let crl = store::read_text_if_present(&layout.ca_crl(), CRL_PEM_BYTES)?;
    let trust = |source| SiteError::Trust { path: layout.ca_certificate(), source: Box::new(source) };
    let mut pins = SitePins::new(&certificate, &pem_blocks(&crl)).map_err(trust)?;
    for (role, digests) in [
        (Role::Countersigner, &config.pins.countersigner),
        (Role::CrlIssuer, &config.pins.crl_issuer),
        (Role::BaseSigner, &config.pins.base_signer),
    ] {
        for digest in digests {
            pins = pins
                .pin(role, *digest)
                .map_err(|source| SiteError::Trust { path: layout.config(), source: Box::new(source) })?;
        }
    }
    Ok(pins)
}

fn load_anchors(layout: &Layout, config: &SiteConfig) -> Result<Vec<Anchor>, SiteError> {
    let mut anchors = Vec::with_capacity(config.anchors.len());
    for anchor in &config.anchors {
        let path = anchor.certificate.below(layout.root());
        let crl_path = anchor.crl.below(layout.root());
        store::check_unwritable(&path)?;
        store::check_unwritable(&crl_path)?;
        let certificate = store::read_text(&path, CERTIFICATE_PEM_BYTES)?;
        // Only this anchor's signers are refused then.
        let crls = store::read_text_if_present(&crl_path, CRL_PEM_BYTES)?;
        let loaded =
            Anchor::new(anchor.name.as_str(), &certificate, &pem_blocks(&crls), anchor.vos.iter().cloned())
                .map_err(|source| SiteError::Trust { path, source: Box::new(source) })?;
        anchors.push(match (&anchor.organisations, &anchor.keys) {
            (Some(organisations), _) => loaded.with_map(VoMap::Organisations(organisations.clone())),
            (None, Some(keys)) => loaded.with_map(VoMap::Keys(keys.clone())),
            (None, None) => loaded,
        });
    }
    Ok(anchors)
}

/// The store of these anchors, from which the site's own keys are shut out.
fn trust_store(layout: &Layout, anchors: Vec<Anchor>, pins: &SitePins) -> Result<TrustStore, SiteError> {
    TrustStore::new(anchors)
        .and_then(|store| store.without_site(pins))
        .map_err(|source| SiteError::Trust { path: layout.config(), source: Box::new(source) })
}

/// The PEM blocks of a text, each with its label lines.
pub fn pem_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            block.clear();
        }
        block.push_str(line);
        block.push('\n');
        if line.starts_with("-----END ") {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks
}

/// Why a site cannot be opened, made or changed. Nothing was decided about any recipe.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// `site.toml`.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// Others could change or read it.
    #[error(
        "{}: mode {mode:04o} lets others {access} it, run `chmod {} {}`", path.display(), fix, path.display()
    )]
    Mode {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// `read` or `change`.
        access: &'static str,
        /// What to give to `chmod`.
        fix: &'static str,
    },
    /// It belongs to somebody else, who could change it.
    #[error(
        "{}: it belongs to user {owner}, who could change what this site trusts: run countersign as that user, or give it to the one that runs it", path.display()
    )]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// An anchor, CRL or pin.
    #[error("{}: {source}", path.display())]
    Trust {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<TrustSetupError>,
    },
    /// A secret key.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KeyError>,
    },
    /// A certificate chain.
    #[error("{}: {source}", path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ChainError>,
    },
    /// A certificate.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<CertificateError>,
    },
    /// A CA's CRL.
    #[error("{}: {source}", path.display())]
    CertificateCrl {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<CertificateCrlError>,
    },
    /// Key and certificate.
    #[error("{}: {source}", path.display())]
    Signer {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with them.
        source: Box<SignerError>,
    },
    /// A CRL that is not the anchor's, is not in force, or is older than the one it would replace.
    #[error("the CRL {what}")]
    OtherCrl {
        /// How it does not fit.
        what: String,
    },
    /// A site has no key of this role.
    #[error("a site has no key of a {role}")]
    NoKey {
        /// The role.
        role: Role,
    },
    /// The key is not the one that `site.toml` names.
    #[error("{}: this key is not pinned for a {role} in site.toml", path.display())]
    NotPinned {
        /// The role.
        role: Role,
        /// The key's file.
        path: PathBuf,
    },
    /// Another process is at work on the site.
    #[error("{}: another countersign is at work on this site, {seconds} s were waited for it", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// How long.
        seconds: u64,
    },
    /// Something is there already.
    #[error("{}: not empty, a site is made in a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The file of a new anchor is one that another anchor uses.
    #[error("{}: the anchor {anchor} keeps its file there, choose another name", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        anchor: VoName,
    },
    /// An anchor that is not there.
    #[error("no anchor is named {name}")]
    NoAnchor {
        /// The name.
        name: VoName,
    },
    /// A file beyond the limit.
    #[error("{}: larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes.
        limit: u64,
    },
    /// A site recipe that cannot be copied.
    #[error("{}: {source}", path.display())]
    SiteRecipe {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<crate::intake::IntakeError>,
    },
    /// A site recipe's name that a path cannot have.
    #[error(transparent)]
    Name(#[from] Malformed),
    /// The CA.
    #[error("the site's CA: {0}")]
    Ca(#[from] CaError),
    /// The recipe CRL.
    #[error("the recipe CRL: {0}")]
    Crl(#[from] crl::CrlError),
    /// The repository of authorizations.
    #[error(transparent)]
    Publication(#[from] crate::publication::PublicationError),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl SiteError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// The code; none where a person has to set the site right first.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Locked { .. } => Some(Code::HostFailed),
            Self::Io { source, .. } if is_full(source) => Some(Code::HostFull),
            Self::Crl(error) => Some(error.code()),
            Self::Trust { source, .. } if source.code() == Code::CrlInvalid => Some(Code::CrlInvalid),
            Self::Publication(error) => error.code(),
            _ => None,
        }
    }
}

/// When a CRL that the site's CA issues now is due again.
fn ca_crl_next_update(now: Timestamp) -> Timestamp {
    now.plus_seconds(signer::ca::CRL_VALIDITY_SECONDS)
}

#[cfg(test)]
mod tests;
