//! The whole trust decision: from bytes to a [`VerifiedEnvelope`], or a [`TrustError`] that says why not.
//!
//! ```text
//! canonical envelope → signature over its PAE → who: anchor or pin → chain, validity, revocation → VO → statement of the role
//! ```
//!
//! Every signature in an envelope must pass; none is skipped.

mod anchor;
mod error;
mod path;

use recipe_spec::{Sha256Digest, Timestamp, VoName};

pub use self::anchor::{Anchor, SitePins, TrustStore, VoMap};
pub use self::error::{TrustError, TrustSetupError};
use self::path::Moments;
use crate::certificate::Certificate;
use crate::certificate_crl::CertificateCrl;
use crate::dsse::{Envelope, EnvelopeSignature, PAYLOAD_TYPE, pae, predicate_type};
use crate::role::Role;

/// Verifies an envelope by recipe signers under the site's anchors, as of `now`.
///
/// # Errors
/// [`TrustError`] for the first rule that is broken.
pub fn verify_recipe(
    envelope: &[u8],
    store: &TrustStore,
    now: Timestamp,
) -> Result<VerifiedEnvelope, TrustError> {
    verify_recipe_at(envelope, store, now, now)
}

/// As [`verify_recipe`], with certificates judged as they were `at` an earlier moment (an authorization's `issuedAt`).
/// Revocation is judged as of `now` all the same.
///
/// # Errors
/// [`TrustError`], also [`TrustError::JudgedInFuture`] when `at` is after `now`.
pub fn verify_recipe_at(
    envelope: &[u8],
    store: &TrustStore,
    at: Timestamp,
    now: Timestamp,
) -> Result<VerifiedEnvelope, TrustError> {
    let moments = Moments::new(at, now)?;
    verify(envelope, Role::RecipeSigner, |signature| recipe_signer(signature, store, moments))
}

/// Verifies an envelope by one of the site's own keys in `role`, as of `now`: pinned, and under the site's CA.
///
/// # Errors
/// [`TrustError`] for the first rule that is broken.
pub fn verify_site(
    envelope: &[u8],
    role: Role,
    pins: &SitePins,
    now: Timestamp,
) -> Result<VerifiedEnvelope, TrustError> {
    verify_site_at(envelope, role, pins, now, now)
}

/// As [`verify_site`], with certificates judged as they were `at` an earlier moment; revocation as of `now`.
///
/// # Errors
/// [`TrustError`], also [`TrustError::JudgedInFuture`] when `at` is after `now`.
pub fn verify_site_at(
    envelope: &[u8],
    role: Role,
    pins: &SitePins,
    at: Timestamp,
    now: Timestamp,
) -> Result<VerifiedEnvelope, TrustError> {
    let moments = Moments::new(at, now)?;
    verify(envelope, role, |signature| site_key(signature, role, pins, moments))
}

/// An envelope whose every signature counts. It can only come from the functions of this module.
#[must_use]
#[derive(Clone, Debug)]
pub struct VerifiedEnvelope {
    payload: Vec<u8>,
    predicate_type: String,
    envelope_sha256: Sha256Digest,
    signers: Vec<VerifiedSigner>,
}

impl VerifiedEnvelope {
    /// The bytes that were signed; parse these.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The statement's predicate type, one of the role's.
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// SHA-256 of the envelope's bytes.
    pub fn envelope_sha256(&self) -> Sha256Digest {
        self.envelope_sha256
    }

    /// Who signed: at least one, each with another key.
    pub fn signers(&self) -> &[VerifiedSigner] {
        &self.signers
    }
}

/// One key that signed, and why it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSigner {
    spki_sha256: Sha256Digest,
    subject: String,
    vo: Option<VoName>,
    not_after: Timestamp,
    keys: Vec<Sha256Digest>,
    certificates: Vec<CertificateId>,
    crls: Vec<CheckedCrl>,
}

impl VerifiedSigner {
    /// SHA-256 of the key's SPKI.
    pub fn spki_sha256(&self) -> Sha256Digest {
        self.spki_sha256
    }

    /// Subject of its certificate, as RFC 4514 writes it.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The VO that it speaks for; `None` for a key of the site.
    pub fn vo(&self) -> Option<&VoName> {
        self.vo.as_ref()
    }

    /// Last second of the certificate's validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The certificate's serial number, big-endian, without leading zeros.
    pub fn serial(&self) -> &[u8] {
        self.certificates.first().map(|leaf| leaf.serial.as_slice()).unwrap_or_default()
    }

    /// SHA-256 of the SPKI of each key that this rests on: the leaf's, those of the CAs above it, the anchor's last. Whoever
    /// has one of them can sign as this signer, so a recipe CRL can revoke each.
    pub fn keys(&self) -> &[Sha256Digest] {
        &self.keys
    }

    /// The certificates on the path below the anchor, the leaf first: what a recipe CRL can revoke.
    pub fn certificates(&self) -> &[CertificateId] {
        &self.certificates
    }

    /// The CRLs that cleared them, in the same order.
    pub fn crls(&self) -> &[CheckedCrl] {
        &self.crls
    }
}

/// What names one certificate (RFC 5280 §4.1.2.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateId {
    /// SHA-256 of the issuer's name in DER.
    pub issuer_sha256: Sha256Digest,
    /// Serial number, big-endian, without leading zeros.
    pub serial: Vec<u8>,
}

/// A CA's CRL that a verification relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedCrl {
    /// The CA's name as RFC 4514 writes it.
    pub issuer: String,
    /// Its CRL number in decimal.
    pub number: String,
    /// SHA-256 of its DER.
    pub sha256: Sha256Digest,
}

fn verify(
    bytes: &[u8],
    role: Role,
    judge: impl Fn(&EnvelopeSignature) -> Result<VerifiedSigner, TrustError>,
) -> Result<VerifiedEnvelope, TrustError> {
    let envelope = Envelope::parse_untrusted(bytes)?;
    if envelope.payload_type() != PAYLOAD_TYPE {
        return Err(TrustError::PayloadType { found: recipe_spec::text::quoted(envelope.payload_type()) });
    }
    let signed = pae(envelope.payload_type(), envelope.payload_untrusted());
    let mut signers = Vec::with_capacity(envelope.signatures().len());
    for signature in envelope.signatures() {
        let leaf = signature.chain().leaf();
        if !leaf.public_key().verify_strict(&signed, signature.signature()) {
            return Err(TrustError::Signature {
                subject: leaf.subject().to_owned(),
                keyid: signature.keyid(),
            });
        }
        signers.push(judge(signature)?);
    }
    let predicate_type = predicate_type(envelope.payload_untrusted())
        .map_err(|error| TrustError::Statement { reason: error.to_string() })?;
    if !role.predicates().contains(&predicate_type.as_str()) {
        return Err(TrustError::Predicate { role, found: recipe_spec::text::quoted(&predicate_type) });
    }
    Ok(VerifiedEnvelope {
        payload: envelope.into_payload(),
        predicate_type,
        envelope_sha256: Sha256Digest::of(bytes),
        signers,
    })
}

fn recipe_signer(
    signature: &EnvelopeSignature,
    store: &TrustStore,
    moments: Moments,
) -> Result<VerifiedSigner, TrustError> {
    let chain = signature.chain();
    let leaf = chain.leaf();
    if chain.certificates().any(|certificate| store.is_site_key(certificate.public_key().spki_sha256())) {
        return Err(TrustError::SiteKey { subject: leaf.subject().to_owned() });
    }
    let named = || store.anchors().iter().filter(|anchor| chain.top().names_issuer(anchor.certificate()));
    // Names can repeat, keys cannot: the anchor is the one that signed. If none did, the first one named says why not.
    let anchor = named()
        .find(|anchor| chain.top().is_signed_by(anchor.certificate()))
        .or_else(|| named().next())
        .ok_or_else(|| TrustError::UnknownIssuer {
            subject: leaf.subject().to_owned(),
            issuer: chain.top().issuer().to_owned(),
            anchors: list(store.anchors().iter().map(Anchor::name)),
        })?;
    let crls = path::verify(chain, anchor.authority(), moments)?;
    let vo = anchor.vo_of(leaf)?;
    Ok(verified_signer(signature, anchor.certificate(), Some(vo), &crls))
}

fn site_key(
    signature: &EnvelopeSignature,
    role: Role,
    pins: &SitePins,
    moments: Moments,
) -> Result<VerifiedSigner, TrustError> {
    let chain = signature.chain();
    let leaf = chain.leaf();
    if !pins.is_pinned(role, signature.keyid()) {
        return Err(TrustError::NotPinned {
            role,
            spki: signature.keyid(),
            subject: leaf.subject().to_owned(),
        });
    }
    if !chain.top().names_issuer(pins.ca()) {
        return Err(TrustError::UnknownIssuer {
            subject: leaf.subject().to_owned(),
            issuer: chain.top().issuer().to_owned(),
            anchors: pins.ca().subject().to_owned(),
        });
    }
    let crls = path::verify(chain, pins.authority(), moments)?;
    Ok(verified_signer(signature, pins.ca(), None, &crls))
}

fn verified_signer(
    signature: &EnvelopeSignature,
    anchor: &Certificate,
    vo: Option<VoName>,
    crls: &[&CertificateCrl],
) -> VerifiedSigner {
    let chain = signature.chain();
    let leaf = chain.leaf();
    let key = |certificate: &Certificate| certificate.public_key().spki_sha256();
    let id = |certificate: &Certificate| CertificateId {
        issuer_sha256: certificate.issuer_sha256(),
        serial: certificate.serial().to_vec(),
    };
    let checked = |crl: &&CertificateCrl| CheckedCrl {
        issuer: crl.issuer().to_owned(),
        number: crl.number().to_owned(),
        sha256: crl.sha256(),
    };
    VerifiedSigner {
        spki_sha256: signature.keyid(),
        subject: leaf.subject().to_owned(),
        vo,
        not_after: leaf.not_after(),
        keys: chain.certificates().chain([anchor]).map(key).collect(),
        certificates: chain.certificates().map(id).collect(),
        crls: crls.iter().map(checked).collect(),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
