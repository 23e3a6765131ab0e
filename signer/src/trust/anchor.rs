//! Whom a site trusts, and for what: anchors for VOs, pins for its own keys. The two never mix.

use std::collections::{BTreeMap, BTreeSet};

use recipe_spec::{Sha256Digest, VoName};

use super::error::{TrustError, TrustSetupError};
use crate::certificate::Certificate;
use crate::certificate_crl::CertificateCrl;
use crate::chain::ChainError;
use crate::role::Role;

/// A CA with the CRLs of itself and of the CAs below it.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    pub(super) certificate: Certificate,
    pub(super) crls: Vec<CertificateCrl>,
}

impl Authority {
    fn new<S: AsRef<str>>(certificate_pem: &str, crls_pem: &[S]) -> Result<Self, TrustSetupError> {
        let certificate = Certificate::from_pem(certificate_pem).map_err(ChainError::from)?;
        certificate.check_issuer()?;
        let mut crls = Vec::<CertificateCrl>::with_capacity(crls_pem.len());
        for pem in crls_pem {
            let crl = CertificateCrl::from_pem(pem.as_ref())?;
            if crls.iter().any(|earlier| earlier.issuer_der() == crl.issuer_der()) {
                return Err(TrustSetupError::TwoCrls { issuer: crl.issuer().to_owned() });
            }
            crls.push(crl);
        }
        Ok(Authority { certificate, crls })
    }
}

/// How an anchor's leaves get their VO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoMap {
    /// The subject's organisation (O) is the VO's name, letter by letter.
    Organisation,
    /// The subject's organisation is one of these, letter by letter; others have no VO.
    Organisations(BTreeMap<String, VoName>),
    /// The key is one of these, by SPKI digest; others have no VO.
    Keys(BTreeMap<Sha256Digest, VoName>),
}

/// A CA that may vouch for the recipe signers of certain VOs.
#[derive(Clone, Debug)]
pub struct Anchor {
    name: String,
    authority: Authority,
    vos: BTreeSet<VoName>,
    map: VoMap,
}

impl Anchor {
    /// An anchor from its certificate and the CRLs of itself and of the CAs below it, all PEM, one CRL a text. Without a
    /// CRL everything it vouches for is refused (`CRL_MISSING`). Signers get their VO by [`VoMap::Organisation`].
    ///
    /// # Errors
    /// [`TrustSetupError`] when the certificate is not that of a CA, a CRL cannot be read, or `vos` is empty.
    pub fn new<S: AsRef<str>>(
        name: impl Into<String>,
        certificate_pem: &str,
        crls_pem: &[S],
        vos: impl IntoIterator<Item = VoName>,
    ) -> Result<Self, TrustSetupError> {
        let name = name.into();
        let vos: BTreeSet<_> = vos.into_iter().collect();
        if vos.is_empty() {
            return Err(TrustSetupError::NoVos { anchor: name });
        }
        let authority = Authority::new(certificate_pem, crls_pem)?;
        Ok(Anchor { name, authority, vos, map: VoMap::Organisation })
    }

    /// The same anchor with another map from signer to VO.
    #[must_use]
    pub fn with_map(mut self, map: VoMap) -> Self {
        self.map = map;
        self
    }

    /// The name that the site gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.authority.certificate
    }

    /// The CRLs of itself and of the CAs below it; signatures are checked when they are used.
    pub fn crls(&self) -> &[CertificateCrl] {
        &self.authority.crls
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The VO that a leaf under this anchor speaks for.
    pub(super) fn vo_of(&self, leaf: &Certificate) -> Result<VoName, TrustError> {
        let subject = || leaf.subject().to_owned();
        let not_allowed = |vo: &str| TrustError::VoNotAllowed {
            subject: subject(),
            vo: recipe_spec::text::quoted(vo),
            anchor: self.name.clone(),
            allowed: self.vos.iter().map(VoName::as_str).collect::<Vec<_>>().join(", "),
        };
        let nobody = || TrustError::NoVo { subject: subject(), anchor: self.name.clone() };
        let vo = match &self.map {
            VoMap::Organisation => {
                let organisation = leaf.organisation().ok_or_else(nobody)?;
                organisation.parse::<VoName>().map_err(|_| not_allowed(organisation))?
            }
            VoMap::Organisations(map) => {
                leaf.organisation().and_then(|organisation| map.get(organisation)).ok_or_else(nobody)?.clone()
            }
            VoMap::Keys(map) => map.get(&leaf.public_key().spki_sha256()).ok_or_else(nobody)?.clone(),
        };
        if self.vos.contains(&vo) { Ok(vo) } else { Err(not_allowed(vo.as_str())) }
    }
}

/// All anchors that a site has for VOs.
#[derive(Clone, Debug)]
pub struct TrustStore {
    anchors: Vec<Anchor>,
    site_keys: BTreeSet<Sha256Digest>,
}

impl TrustStore {
    /// A store of anchors. An empty one trusts nobody.
    ///
    /// # Errors
    /// [`TrustSetupError::SameAnchor`] when two have the same name or key.
    pub fn new(anchors: Vec<Anchor>) -> Result<Self, TrustSetupError> {
        for (index, anchor) in anchors.iter().enumerate() {
            let key = anchor.certificate().public_key();
            let same =
                |earlier: &&Anchor| earlier.name == anchor.name || earlier.certificate().public_key() == key;
            if let Some(earlier) = anchors[..index].iter().find(same) {
                return Err(TrustSetupError::SameAnchor {
                    first: earlier.name.clone(),
                    second: anchor.name.clone(),
                });
            }
        }
        Ok(TrustStore { anchors, site_keys: BTreeSet::new() })
    }

    /// The same store, from which the site's own keys are shut out: neither its CA nor a pinned key can speak for a VO.
    ///
    /// # Errors
    /// [`TrustSetupError::SiteCa`] when the site's CA is among the anchors.
    pub fn without_site(mut self, pins: &SitePins) -> Result<Self, TrustSetupError> {
        let ca = pins.authority.certificate.public_key();
        if let Some(anchor) = self.anchors.iter().find(|anchor| anchor.certificate().public_key() == ca) {
            return Err(TrustSetupError::SiteCa { anchor: anchor.name.clone() });
        }
        self.site_keys.insert(ca.spki_sha256());
        self.site_keys.extend(pins.roles.keys());
        Ok(self)
    }

    /// The anchors.
    pub fn anchors(&self) -> &[Anchor] {
        &self.anchors
    }

    pub(super) fn is_site_key(&self, spki: Sha256Digest) -> bool {
        self.site_keys.contains(&spki)
    }
}

/// The site's own keys: each pinned by SPKI digest for one role, and under the site's own CA.
#[derive(Clone, Debug)]
pub struct SitePins {
    authority: Authority,
    roles: BTreeMap<Sha256Digest, Role>,
}

impl SitePins {
    /// The site's CA and the CRLs of itself and of CAs below it, all PEM. No key is pinned yet, so none is trusted.
    ///
    /// # Errors
    /// [`TrustSetupError`] when the certificate is not that of a CA or a CRL cannot be read.
    pub fn new<S: AsRef<str>>(ca_certificate_pem: &str, crls_pem: &[S]) -> Result<Self, TrustSetupError> {
        Ok(SitePins { authority: Authority::new(ca_certificate_pem, crls_pem)?, roles: BTreeMap::new() })
    }

    /// Pins a key for one role; several keys may have the same role.
    ///
    /// # Errors
    /// [`TrustSetupError::PinnedRecipeSigner`], [`TrustSetupError::TwoRoles`].
    pub fn pin(mut self, role: Role, spki: Sha256Digest) -> Result<Self, TrustSetupError> {
        if role == Role::RecipeSigner {
            return Err(TrustSetupError::PinnedRecipeSigner);
        }
        match self.roles.insert(spki, role) {
            Some(first) if first != role => Err(TrustSetupError::TwoRoles { spki, first, second: role }),
            _ => Ok(self),
        }
    }

    /// The keys pinned for a role, by SPKI digest.
    pub fn pinned(&self, role: Role) -> impl Iterator<Item = Sha256Digest> {
        self.roles.iter().filter(move |(_, pinned)| **pinned == role).map(|(spki, _)| *spki)
    }

    /// The certificate of the site's CA.
    pub fn ca(&self) -> &Certificate {
        &self.authority.certificate
    }

    /// The CRLs of the site's CAs; signatures are checked when they are used.
    pub fn crls(&self) -> &[CertificateCrl] {
        &self.authority.crls
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn is_pinned(&self, role: Role, spki: Sha256Digest) -> bool {
        self.roles.get(&spki) == Some(&role)
    }
}
