//! One chain under one CA: form, signatures, validity, revocation; then webpki's judgement of the same.
//!
//! Our checks come first because they say why, and because webpki looks neither at an anchor's validity nor at a
//! leaf's keyUsage, nor at whether a CRL has begun. webpki comes last and must agree: two readers have to be fooled.

use recipe_spec::Timestamp;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use x509_cert::ext::pkix::CrlReason;

use super::anchor::Authority;
use super::error::TrustError;
use crate::certificate::Certificate;
use crate::certificate_crl::CertificateCrl;
use crate::chain::Chain;
use crate::key::PublicKey;

/// When something is judged: certificates as they were at one moment, revocation always as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    /// The moment for which certificates must be valid.
    pub(super) at: Timestamp,
    /// The moment for which CRLs must be valid.
    pub(super) now: Timestamp,
}

impl Moments {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Result<Self, TrustError> {
        if at > now { Err(TrustError::JudgedInFuture { at, now }) } else { Ok(Moments { at, now }) }
    }
}

/// Judges `chain` under `authority` and gives the CRLs that cleared it, from the leaf's issuer upwards.
pub(super) fn verify<'a>(
    chain: &Chain,
    authority: &'a Authority,
    moments: Moments,
) -> Result<Vec<&'a CertificateCrl>, TrustError> {
    chain.check_form()?;
    let links = || chain.certificates().zip(chain.intermediates().iter().chain([&authority.certificate]));
    for (certificate, issuer) in links() {
        if !certificate.names_issuer(issuer) || !certificate.is_signed_by(issuer) {
            return Err(TrustError::ForgedCertificate {
                subject: certificate.subject().to_owned(),
                issuer: certificate.issuer().to_owned(),
            });
        }
    }
    for certificate in chain.certificates().chain([&authority.certificate]) {
        valid_at(certificate, moments.at)?;
    }
    let crls = links()
        .map(|(certificate, issuer)| not_revoked(certificate, issuer, authority, moments.now))
        .collect::<Result<Vec<_>, _>>()?;
    webpki_agrees(chain, authority, &crls, moments.at)?;
    Ok(crls)
}

fn valid_at(certificate: &Certificate, at: Timestamp) -> Result<(), TrustError> {
    let subject = || certificate.subject().to_owned();
    if at < certificate.not_before() {
        return Err(TrustError::NotYetValid { subject: subject(), not_before: certificate.not_before(), at });
    }
    if !certificate.is_valid_at(at) {
        return Err(TrustError::Expired { subject: subject(), not_after: certificate.not_after(), at });
    }
    Ok(())
}

fn not_revoked<'a>(
    certificate: &Certificate,
    issuer: &Certificate,
    authority: &'a Authority,
    now: Timestamp,
) -> Result<&'a CertificateCrl, TrustError> {
    let name = || issuer.subject().to_owned();
    let crl = authority.crls.iter().find(|crl| crl.names_issuer(issuer)).ok_or_else(|| {
        TrustError::CrlMissing { issuer: name(), subject: certificate.subject().to_owned() }
    })?;
    if !crl.is_signed_by(issuer) {
        return Err(TrustError::CrlForged { issuer: name() });
    }
    if now < crl.this_update() {
        return Err(TrustError::CrlFromFuture { issuer: name(), this_update: crl.this_update(), now });
    }
    if now >= crl.next_update() {
        return Err(TrustError::CrlExpired { issuer: name(), next_update: crl.next_update(), now });
    }
    match crl.entry(certificate.serial()) {
        None => Ok(crl),
        Some(entry) => Err(TrustError::Revoked {
            subject: certificate.subject().to_owned(),
            issuer: name(),
            serial: hex::encode(certificate.serial()),
            date: entry.date,
            reason: reason_name(entry.reason),
        }),
    }
}

fn webpki_agrees(
    chain: &Chain,
    authority: &Authority,
    crls: &[&CertificateCrl],
    at: Timestamp,
) -> Result<(), TrustError> {
    let refused = |error: webpki::Error| TrustError::Path {
        subject: chain.leaf().subject().to_owned(),
        reason: format!("{error:?}"),
    };
    let anchor_der = CertificateDer::from(authority.certificate.der());
    let anchors = [webpki::anchor_from_trusted_cert(&anchor_der).map_err(refused)?];
    let leaf_der = CertificateDer::from(chain.leaf().der());
    let leaf = webpki::EndEntityCert::try_from(&leaf_der).map_err(refused)?;
    let intermediates: Vec<_> =
        chain.intermediates().iter().map(|certificate| CertificateDer::from(certificate.der())).collect();
    let lists: Vec<_> = crls.iter().map(|crl| crl.for_webpki()).collect();
    let revocation = webpki::RevocationOptionsBuilder::new(&lists)
        .map_err(|_| refused(webpki::Error::UnknownRevocationStatus))?
        .with_depth(webpki::RevocationCheckDepth::Chain)
        .with_status_policy(webpki::UnknownStatusPolicy::Deny)
        .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
        .build();
    let seconds = u64::try_from(at.unix()).map_err(|_| refused(webpki::Error::BadDerTime))?;
    let path = leaf
        .verify_for_usage(
            &[&StrictEd25519],
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
            webpki::KeyUsage::required_if_present(CODE_SIGNING_OID),
            Some(revocation),
            None,
        )
        .map_err(refused)?;
    // Each intermediate that came must be on the path, so that nothing rides along unexamined.
    let on_path: Vec<_> = path.intermediate_certificates().map(|certificate| certificate.der()).collect();
    if on_path == intermediates { Ok(()) } else { Err(refused(webpki::Error::UnknownIssuer)) }
}

/// Value bytes of id-kp-codeSigning, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING_OID: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// Ed25519 for webpki by dalek's `verify_strict`, so that one implementation decides everywhere.
#[derive(Debug)]
struct StrictEd25519;

impl SignatureVerificationAlgorithm for StrictEd25519 {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = PublicKey::from_bytes(public_key).map_err(|_| InvalidSignature)?;
        if key.verify_strict(message, signature) { Ok(()) } else { Err(InvalidSignature) }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }
}

/// The names of RFC 5280 §5.3.1.
fn reason_name(reason: CrlReason) -> &'static str {
    match reason {
        CrlReason::Unspecified => "unspecified",
        CrlReason::KeyCompromise => "keyCompromise",
        CrlReason::CaCompromise => "cACompromise",
        CrlReason::AffiliationChanged => "affiliationChanged",
        CrlReason::Superseded => "superseded",
        CrlReason::CessationOfOperation => "cessationOfOperation",
        CrlReason::CertificateHold => "certificateHold",
        CrlReason::RemoveFromCRL => "removeFromCRL",
        CrlReason::PrivilegeWithdrawn => "privilegeWithdrawn",
        CrlReason::AaCompromise => "aACompromise",
    }
}
