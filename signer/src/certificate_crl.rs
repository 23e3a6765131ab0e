//! The X.509 CRL of a CA (RFC 5280 §5): which of its certificates are revoked.
//!
//! What is read is what `ca crl` writes: a complete list with a number and a next update, signed with Ed25519.
//! Deltas, indirect and partitioned lists are marked by critical extensions, and every critical one is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use der::asn1::ObjectIdentifier;
use der::{Decode as _, Encode as _};
use recipe_spec::{Sha256Digest, Timestamp};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber, CrlReason};

use crate::certificate::{Certificate, is_ed25519, positive, readable, timestamp};
use crate::key::SIGNATURE_BYTES;
use crate::limits::MAX_CERTIFICATE_CRL_BYTES;

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const LABEL: &str = "X509 CRL";

/// Why bytes are not a CA's CRL that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateCrlError {
    /// Not a PEM block labelled `X509 CRL`.
    #[error("not the PEM text of an X.509 CRL: {0}")]
    NotPem(String),
    /// More bytes than are read.
    #[error("the X.509 CRL has {bytes} bytes, at most {MAX_CERTIFICATE_CRL_BYTES} are read")]
    TooLarge {
        /// Bytes of DER, or of PEM text.
        bytes: usize,
    },
    /// Not a CRL, not DER, or without a field that is required here.
    #[error("the X.509 CRL is malformed: {0}")]
    Malformed(String),
    /// A critical extension: a delta, an indirect or a partitioned list.
    #[error("the X.509 CRL of {issuer} is of a kind that is not read here (critical extension {oid})")]
    CriticalExtension {
        /// Its issuer.
        issuer: String,
        /// The extension's object identifier.
        oid: String,
    },
}

/// One revoked certificate of a CRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationEntry {
    /// When it was revoked.
    pub date: Timestamp,
    /// Why (RFC 5280 §5.3.1), `unspecified` when the list does not say.
    pub reason: CrlReason,
}

/// The CRL of one CA: form checked, signature not yet.
#[derive(Clone)]
pub struct CertificateCrl {
    sha256: Sha256Digest,
    issuer: String,
    issuer_der: Vec<u8>,
    authority_key_id: Option<Vec<u8>>,
    number: String,
    this_update: Timestamp,
    next_update: Timestamp,
    entries: BTreeMap<Vec<u8>, RevocationEntry>,
    to_be_signed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
    for_webpki: Arc<webpki::CertRevocationList<'static>>,
}

impl CertificateCrl {
    /// Reads one CRL in PEM.
    ///
    /// # Errors
    /// [`CertificateCrlError`] names the first rule that is broken.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateCrlError> {
        if pem.len() > 2 * MAX_CERTIFICATE_CRL_BYTES {
            return Err(CertificateCrlError::TooLarge { bytes: pem.len() });
        }
        let (label, der) = der::pem::decode_vec(pem.trim().as_bytes())
            .map_err(|error| CertificateCrlError::NotPem(error.to_string()))?;
        if label != LABEL {
            let label = recipe_spec::text::quoted(label);
            return Err(CertificateCrlError::NotPem(format!("it is labelled {label}")));
        }
        CertificateCrl::from_der(&der)
    }

    /// Reads one CRL in DER.
    ///
    /// # Errors
    /// As [`CertificateCrl::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateCrlError> {
        if der.len() > MAX_CERTIFICATE_CRL_BYTES {
            return Err(CertificateCrlError::TooLarge { bytes: der.len() });
        }
        let list = CertificateList::<Rfc5280>::from_der(der).map_err(malformed)?;
        if list.to_der().map_err(malformed)? != der {
            return Err(missing("it is not DER"));
        }
        let tbs = &list.tbs_cert_list;
        if !is_ed25519(&list.signature_algorithm) || !is_ed25519(&tbs.signature) {
            return Err(missing("it is not signed with Ed25519"));
        }
        let issuer = readable(&tbs.issuer).map_err(|error| missing(&error.to_string()))?;
        let extensions = tbs.crl_extensions.as_deref().unwrap_or_default();
        refuse_critical(extensions, &issuer)?;
        let number =
            extension::<CrlNumber>(extensions, CRL_NUMBER)?.ok_or_else(|| missing("it has no CRL number"))?;
        let authority = extension::<AuthorityKeyIdentifier>(extensions, AUTHORITY_KEY_ID)?;
        let next_update = tbs.next_update.ok_or_else(|| missing("it has no next update"))?;
        let mut entries = BTreeMap::new();
        for revoked in tbs.revoked_certificates.iter().flatten() {
            let (serial, entry) = read_entry(revoked, &issuer)?;
            entries.insert(serial, entry);
        }
        let signature = list.signature.as_bytes().and_then(|bytes| bytes.try_into().ok());
        let for_webpki = webpki::OwnedCertRevocationList::from_der(der)
            .map_err(|error| missing(&format!("webpki refuses it: {error:?}")))?;
        Ok(CertificateCrl {
            sha256: Sha256Digest::of(der),
            issuer_der: tbs.issuer.to_der().map_err(malformed)?,
            authority_key_id: authority.and_then(|id| id.key_identifier).map(|id| id.as_bytes().to_vec()),
            number: decimal(number.0.as_bytes()),
            this_update: timestamp(tbs.this_update),
            next_update: timestamp(next_update),
            entries,
            to_be_signed: tbs.to_der().map_err(malformed)?,
            signature: signature.ok_or_else(|| missing("its signature is not of 64 bytes"))?,
            for_webpki: Arc::new(for_webpki.into()),
            issuer,
        })
    }

    /// SHA-256 of its DER.
    pub fn sha256(&self) -> Sha256Digest {
        self.sha256
    }

    /// The CA's name as RFC 4514 writes it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// SHA-256 of the issuer's name in DER, as [`Certificate::issuer_sha256`].
    pub fn issuer_sha256(&self) -> Sha256Digest {
        Sha256Digest::of(&self.issuer_der)
    }

    /// The CRL number in decimal (RFC 5280 §5.2.3: up to 20 octets).
    pub fn number(&self) -> &str {
        &self.number
    }

    /// When it was issued.
    pub fn this_update(&self) -> Timestamp {
        self.this_update
    }

    /// From this second on it is expired.
    pub fn next_update(&self) -> Timestamp {
        self.next_update
    }

    /// What the list says about a serial number (big-endian, without leading zeros).
    pub fn entry(&self, serial: &[u8]) -> Option<RevocationEntry> {
        self.entries.get(serial).copied()
    }

    /// The serial numbers on the list, with their entries.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], RevocationEntry)> {
        self.entries.iter().map(|(serial, entry)| (serial.as_slice(), *entry))
    }

    /// Whether `issuer` is named as this list's issuer, by name and key identifier.
    pub(crate) fn names_issuer(&self, issuer: &Certificate) -> bool {
        self.issuer_der == issuer.subject_der()
            && self.authority_key_id.as_deref().is_none_or(|id| issuer.subject_key_id() == Some(id))
    }

    pub(crate) fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    /// True when the list was signed by `issuer`'s key.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &Certificate) -> bool {
        issuer.public_key().verify_strict(&self.to_be_signed, &self.signature)
    }

    pub(crate) fn for_webpki(&self) -> &webpki::CertRevocationList<'static> {
        &self.for_webpki
    }
}

impl fmt::Debug for CertificateCrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateCrl({} number {}, {} entries)", self.issuer, self.number, self.entries.len())
    }
}

fn read_entry(
    revoked: &RevokedCert,
    issuer: &str,
) -> Result<(Vec<u8>, RevocationEntry), CertificateCrlError> {
    let extensions = revoked.crl_entry_extensions.as_deref().unwrap_or_default();
    refuse_critical(extensions, issuer)?;
    let reason = extension::<CrlReason>(extensions, REASON_CODE)?.unwrap_or(CrlReason::Unspecified);
    if reason == CrlReason::RemoveFromCRL {
        return Err(missing("it takes an entry back, which only a delta can"));
    }
    let serial = positive(revoked.serial_number.as_bytes())
        .map_err(|_| missing("it names a serial number that is not positive"))?;
    Ok((serial, RevocationEntry { date: timestamp(revoked.revocation_date), reason }))
}

/// RFC 5280 §5.2: a list with a critical extension that is not understood must not be used.
fn refuse_critical(extensions: &[Extension], issuer: &str) -> Result<(), CertificateCrlError> {
    match extensions.iter().find(|extension| extension.critical) {
        None => Ok(()),
        Some(extension) => Err(CertificateCrlError::CriticalExtension {
            issuer: issuer.to_owned(),
            oid: extension.extn_id.to_string(),
        }),
    }
}

fn extension<'a, T: der::Decode<'a, Error = der::Error>>(
    extensions: &'a [Extension],
    oid: ObjectIdentifier,
) -> Result<Option<T>, CertificateCrlError> {
    let mut found = extensions.iter().filter(|extension| extension.extn_id == oid);
    let Some(first) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(missing("an extension comes twice"));
    }
    T::from_der(first.extn_value.as_bytes()).map(Some).map_err(malformed)
}

/// A big-endian number of up to 20 octets in decimal.
fn decimal(bytes: &[u8]) -> String {
    let mut digits = vec![0u8];
    for byte in bytes {
        let mut carry = u16::from(*byte);
        for digit in &mut digits {
            let value = u16::from(*digit) * 256 + carry;
            *digit = (value % 10) as u8;
            carry = value / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

fn malformed(error: der::Error) -> CertificateCrlError {
    CertificateCrlError::Malformed(error.to_string())
}

fn missing(what: &str) -> CertificateCrlError {
    CertificateCrlError::Malformed(what.to_owned())
}
