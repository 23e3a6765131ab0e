//! Where everything of a site lies: one struct, so that no path is spelled twice.

use std::path::{Path, PathBuf};

use recipe_spec::Sha256Digest;
use recipe_spec::name::RecipeName;
use signer::Role;

/// The paths inside one site's folder. Holds no file open and promises nothing about existence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

/// Ends a layer's file name.
pub(crate) const LAYER_SUFFIX: &str = "qcow2";

impl Layout {
    /// The newest version of the folder's layout that this program reads and writes (`layout` in `site.toml`).
    pub const VERSION: u32 = 1;

    /// The layout below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The site's folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The trust store and policy.
    pub fn config(&self) -> PathBuf {
        self.root.join("site.toml")
    }

    /// Secret keys, mode 0700. A site that only deploys has none.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The secret key of a role, PKCS#8 PEM, mode 0600. `None`: recipe signers are VOs, a site has no such key.
    pub fn key(&self, role: Role) -> Option<PathBuf> {
        role_file(role).map(|name| self.keys().join(format!("{name}.pem")))
    }

    /// The secret key of the site's own CA, mode 0600.
    pub fn ca_key(&self) -> PathBuf {
        self.keys().join("ca.pem")
    }

    /// Public certificates of the site's own keys.
    pub fn certificates(&self) -> PathBuf {
        self.root.join("certificates")
    }

    /// The certificate of a role's key. `None` for recipe signers, as with [`Layout::key`].
    pub fn certificate(&self, role: Role) -> Option<PathBuf> {
        role_file(role).map(|name| self.certificates().join(format!("{name}.pem")))
    }

    /// The certificate of the site's own CA.
    pub fn ca_certificate(&self) -> PathBuf {
        self.certificates().join("ca.pem")
    }

    /// The X.509 CRL of the site's own CA.
    pub fn ca_crl(&self) -> PathBuf {
        self.certificates().join("ca.crl.pem")
    }

    /// Certificates and CRLs of the VOs that the site trusts.
    pub fn anchors(&self) -> PathBuf {
        self.root.join("anchors")
    }

    /// The published recipe CRL: header and body.
    pub fn recipe_crl(&self) -> PathBuf {
        self.root.join("crl")
    }

    /// The bare repository of authorizations.
    pub fn authorizations(&self) -> PathBuf {
        self.root.join("authorizations.git")
    }

    /// The site's recipes, one folder each.
    pub fn site_recipes(&self) -> PathBuf {
        self.root.join("site-recipes")
    }

    /// The configurations of the site's tests.
    pub fn suites(&self) -> PathBuf {
        self.root.join("suites")
    }

    /// The base images, one folder each.
    pub fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }

    /// Sealed layers, named by their digest.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The file of one sealed layer.
    pub fn layer(&self, sha256: Sha256Digest) -> PathBuf {
        self.layers().join(format!("{sha256}.{LAYER_SUFFIX}"))
    }

    /// Templates that instances are cloned from, a folder each, named by their digest.
    pub fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }

    /// The folder of one template.
    pub fn template(&self, sha256: Sha256Digest) -> PathBuf {
        self.templates().join(sha256.to_string())
    }

    /// Templates of a base's own boot, which build machines are cloned from.
    pub fn base_templates(&self, base: &str) -> PathBuf {
        self.root.join("base-templates").join(base)
    }

    /// What must survive: ledger, highest CRL seen.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The ledger of verified recipes.
    pub fn ledger(&self) -> PathBuf {
        self.state().join("ledger.jsonl")
    }

    /// The highest recipe CRL seen (`crl::Seen`).
    pub fn crl_seen(&self) -> PathBuf {
        self.state().join("crl-seen")
    }

    /// The file that a [`super::SiteLock`] locks.
    pub fn lock(&self) -> PathBuf {
        self.state().join("site.lock")
    }

    /// The file that a [`super::TrustLock`] locks.
    pub fn trust_lock(&self) -> PathBuf {
        self.state().join("trust.lock")
    }

    /// Digests of files that were hashed since the system booted ([`harness::remember_digests_in`]).
    pub fn digests(&self) -> PathBuf {
        self.state().join("digests")
    }

    /// The result of the accelerator probe.
    pub fn accelerator(&self) -> PathBuf {
        self.state().join("accelerator.json")
    }

    /// Records of deployed instances, one folder each.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// Private run directories of machines; empty when nothing runs.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Log files of authorizations.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The folder of one recipe's version within the authorizations repository: `VO/name/version`.
    pub fn publication(name: &RecipeName, version: &semver::Version) -> String {
        format!("{name}/{version}")
    }
}

fn role_file(role: Role) -> Option<&'static str> {
    match role {
        Role::RecipeSigner => None,
        Role::Countersigner => Some("countersigner"),
        Role::CrlIssuer => Some("crl-issuer"),
        Role::BaseSigner => Some("base-signer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_role_has_a_key_and_a_certificate_and_a_recipe_signer_has_none() {
        let layout = Layout::new("/site");
        for role in [Role::Countersigner, Role::CrlIssuer, Role::BaseSigner] {
            assert!(layout.key(role).unwrap().starts_with("/site/keys"));
            assert!(layout.certificate(role).unwrap().starts_with("/site/certificates"));
        }
        assert_eq!(layout.key(Role::RecipeSigner), None);
        assert_eq!(layout.certificate(Role::RecipeSigner), None);
    }
}
