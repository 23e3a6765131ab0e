//! X.509 certificates with Ed25519 keys (RFC 8410). Untrusted until [`crate::trust`] says so.
//!
//! A certificate is kept as the DER that came; what is read from it is read once, and only from DER that is the
//! one encoding of its content.

use std::fmt;

use der::asn1::ObjectIdentifier;
use der::pem::LineEnding;
use der::{Decode as _, Encode as _};
use recipe_spec::{Sha256Digest, Timestamp};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::chain::ChainError;
use crate::key::{KeyError, PublicKey, SIGNATURE_BYTES};
use crate::limits::MAX_CERTIFICATE_BYTES;

/// `SEQUENCE { OID 1.3.101.112 }` as [`x509_cert`] reads it, without parameters (RFC 8410 §3).
pub(crate) fn is_ed25519(algorithm: &spki::AlgorithmIdentifierOwned) -> bool {
    algorithm.oid == crate::key::ED25519 && algorithm.parameters.is_none()
}

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_ALTERNATIVE_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// id-kp-codeSigning (RFC 5280 §4.2.1.12).
pub(crate) const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
pub(crate) const ORGANISATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
pub(crate) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The PEM label of a certificate.
const LABEL: &str = "CERTIFICATE";

/// Why bytes are not a certificate that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a PEM block labelled `CERTIFICATE`, or not the one way to write it.
    #[error("not the PEM text of a certificate: {0}")]
    NotPem(String),
    /// More bytes than any certificate has.
    #[error("the certificate has {bytes} bytes, at most {MAX_CERTIFICATE_BYTES} are read")]
    TooLarge {
        /// Bytes of DER, or of PEM text.
        bytes: usize,
    },
    /// Not X.509, or BER where DER is required.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// Key or signature of another algorithm.
    #[error("the certificate of {subject} does not use Ed25519 throughout")]
    NotEd25519 {
        /// Its subject.
        subject: String,
    },
    /// A critical extension that nobody here understands, or any extension twice.
    #[error("the certificate of {subject} has the extension {oid} critical and unknown here, or twice")]
    Extension {
        /// Its subject.
        subject: String,
        /// The extension's object identifier.
        oid: String,
    },
    /// A name with characters that show as something else, or with two organisations.
    #[error("the name {0} is ambiguous: it hides characters or has two organisations")]
    AmbiguousName(String),
}

/// One certificate: the DER as it came and what it says. It proves nothing by itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    subject: String,
    organisation: Option<String>,
    subject_der: Vec<u8>,
    issuer: String,
    issuer_der: Vec<u8>,
    serial: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: PublicKey,
    subject_key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
    basic_constraints: Option<(bool, BasicConstraints)>,
    key_usage: Option<(bool, KeyUsage)>,
    extended_key_usage: Vec<ObjectIdentifier>,
    to_be_signed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

impl Certificate {
    /// Reads one certificate in DER.
    ///
    /// # Errors
    /// [`CertificateError`] names the first rule that is broken.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge { bytes: der.len() });
        }
        let malformed = |error: der::Error| CertificateError::Malformed(error.to_string());
        let parsed = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        if parsed.to_der().map_err(malformed)? != der {
            return Err(CertificateError::Malformed("it is not DER".to_owned()));
        }
        let tbs = parsed.tbs_certificate();
        let subject = readable(tbs.subject())?;
        let not_ed25519 = || CertificateError::NotEd25519 { subject: subject.clone() };
        if !is_ed25519(parsed.signature_algorithm()) || !is_ed25519(tbs.signature()) {
            return Err(not_ed25519());
        }
        let spki = tbs.subject_public_key_info().to_der().map_err(malformed)?;
        let public_key = PublicKey::from_spki_der(&spki).map_err(|error| match error {
            KeyError::NotEd25519 { .. } => not_ed25519(),
            other => CertificateError::Malformed(other.to_string()),
        })?;
        check_extensions(tbs, &subject)?;
        let extended = tbs.get_extension::<ExtendedKeyUsage>().map_err(malformed)?;
        Ok(Certificate {
            der: der.to_vec(),
            organisation: organisation(tbs.subject())?,
            subject_der: tbs.subject().to_der().map_err(malformed)?,
            issuer: readable(tbs.issuer())?,
            issuer_der: tbs.issuer().to_der().map_err(malformed)?,
            serial: positive(tbs.serial_number().as_bytes())?,
            not_before: timestamp(tbs.validity().not_before),
            not_after: timestamp(tbs.validity().not_after),
            public_key,
            subject_key_id: tbs
                .get_extension::<SubjectKeyIdentifier>()
                .map_err(malformed)?
                .map(|(_, id)| id.0.as_bytes().to_vec()),
            authority_key_id: tbs
                .get_extension::<AuthorityKeyIdentifier>()
                .map_err(malformed)?
                .and_then(|(_, id)| id.key_identifier)
                .map(|id| id.as_bytes().to_vec()),
            basic_constraints: tbs.get_extension().map_err(malformed)?,
            key_usage: tbs.get_extension().map_err(malformed)?,
            extended_key_usage: extended.map(|(_, usages)| usages.0).unwrap_or_default(),
            to_be_signed: tbs.to_der().map_err(malformed)?,
            signature: parsed
                .signature()
                .as_bytes()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| CertificateError::Malformed("its signature is not of 64 bytes".to_owned()))?,
            subject,
        })
    }

    /// Reads the first and only certificate of a PEM text; lines outside the block are ignored.
    ///
    /// # Errors
    /// [`CertificateError::NotPem`] when there is none or more than one, else as [`Certificate::from_der`].
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let mut certificates = all_from_pem(pem, 1)?;
        certificates.pop().ok_or_else(|| CertificateError::NotPem("there is no certificate in it".to_owned()))
    }

    /// The PEM text: lines of 64 characters, ended by `\n`.
    pub fn to_pem(&self) -> String {
        // The label is a constant and the length is bounded, so encoding cannot fail; nothing equals empty text.
        der::pem::encode_string(LABEL, LineEnding::LF, &self.der).unwrap_or_default()
    }

    /// The DER as it came.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject as RFC 4514 writes it, such as `CN=Release key,O=atlas`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The subject's organisation (O).
    pub fn organisation(&self) -> Option<&str> {
        self.organisation.as_deref()
    }

    /// The issuer's name as RFC 4514 writes it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// SHA-256 of the issuer's name in DER: with the serial number, the certificate's identity.
    pub fn issuer_sha256(&self) -> Sha256Digest {
        Sha256Digest::of(&self.issuer_der)
    }

    /// The serial number, big-endian, without leading zeros.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// First second of validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Last second of validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The subject's key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// True when `at` lies within the validity, both ends included (RFC 5280 §4.1.2.5).
    #[must_use]
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    /// True when subject and issuer are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// True when the certificate was signed by `issuer`'s key.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &Certificate) -> bool {
        issuer.public_key.verify_strict(&self.to_be_signed, &self.signature)
    }

    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    pub(crate) fn subject_key_id(&self) -> Option<&[u8]> {
        self.subject_key_id.as_deref()
    }

    pub(crate) fn path_length(&self) -> Option<u8> {
        self.basic_constraints.as_ref().and_then(|(_, constraints)| constraints.path_len_constraint)
    }

    /// Whether this is a leaf that may sign: critical keyUsage with digitalSignature and without keyCertSign, EKU
    /// codeSigning, not a CA. webpki checks neither keyUsage nor that an EKU is there at all.
    ///
    /// # Errors
    /// [`ChainError::NotASigningCertificate`] with the rule that is broken.
    pub fn check_signing_leaf(&self) -> Result<(), ChainError> {
        let fault = match (&self.basic_constraints, &self.key_usage) {
            (Some((_, constraints)), _) if constraints.ca => "it is a CA",
            (_, None) => "it has no keyUsage",
            (_, Some((false, _))) => "its keyUsage is not critical",
            (_, Some((_, usage))) if !usage.digital_signature() => "its keyUsage lacks digitalSignature",
            (_, Some((_, usage))) if usage.key_cert_sign() || usage.crl_sign() => {
                "its keyUsage is that of a CA"
            }
            _ if !self.extended_key_usage.contains(&CODE_SIGNING) => {
                "its extended key usage lacks codeSigning"
            }
            _ => return Ok(()),
        };
        Err(ChainError::NotASigningCertificate { subject: self.subject.clone(), fault })
    }

    /// Whether this is a CA that may issue certificates and CRLs: critical basicConstraints with cA, critical keyUsage
    /// with keyCertSign and cRLSign, a subject key identifier, and an EKU, if any, with codeSigning.
    ///
    /// # Errors
    /// [`ChainError::NotAnIssuer`] with the rule that is broken.
    pub fn check_issuer(&self) -> Result<(), ChainError> {
        let fault = match (&self.basic_constraints, &self.key_usage) {
            (None, _) => "it is not a CA",
            (Some((_, constraints)), _) if !constraints.ca => "it is not a CA",
            (Some((false, _)), _) => "its basicConstraints are not critical",
            (_, None) => "it has no keyUsage",
            (_, Some((false, _))) => "its keyUsage is not critical",
            (_, Some((_, usage))) if !usage.key_cert_sign() => "its keyUsage lacks keyCertSign",
            (_, Some((_, usage))) if !usage.crl_sign() => "its keyUsage lacks cRLSign",
            _ if self.subject_key_id.is_none() => "it has no subject key identifier",
            _ if !self.extended_key_usage.is_empty() && !self.extended_key_usage.contains(&CODE_SIGNING) => {
                "its extended key usage lacks codeSigning"
            }
            _ => return Ok(()),
        };
        Err(ChainError::NotAnIssuer { subject: self.subject.clone(), fault })
    }

    /// Whether `issuer` is named as this certificate's issuer, by name and, where given, by key identifier. The
    /// signature is not looked at.
    pub(crate) fn names_issuer(&self, issuer: &Certificate) -> bool {
        self.issuer_der == issuer.subject_der
            && match (&self.authority_key_id, &issuer.subject_key_id) {
                (Some(authority), Some(subject)) => authority == subject,
                _ => true,
            }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, serial {})", self.subject, hex::encode(&self.serial))
    }
}

/// The certificates of a PEM text, at most `limit`; other lines are ignored, as in the output of `openssl x509 -text`.
pub(crate) fn all_from_pem(pem: &str, limit: usize) -> Result<Vec<Certificate>, CertificateError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let most = limit * 4 * MAX_CERTIFICATE_BYTES;
    if pem.len() > most {
        return Err(CertificateError::TooLarge { bytes: pem.len() });
    }
    let mut certificates = Vec::new();
    let mut rest = pem;
    while let Some(begin) = rest.find(BEGIN) {
        let from = &rest[begin..];
        let end = from.find(END).ok_or_else(|| CertificateError::NotPem("a block has no end".to_owned()))?;
        let (block, after) = from.split_at(end + END.len());
        if certificates.len() == limit {
            return Err(CertificateError::NotPem(format!("there are more than {limit} certificates in it")));
        }
        certificates.push(one_from_pem(block)?);
        rest = after;
    }
    Ok(certificates)
}

fn one_from_pem(pem: &str) -> Result<Certificate, CertificateError> {
    if pem.len() > 2 * MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::TooLarge { bytes: pem.len() });
    }
    let (label, der) =
        der::pem::decode_vec(pem.as_bytes()).map_err(|error| CertificateError::NotPem(error.to_string()))?;
    if label != LABEL {
        return Err(CertificateError::NotPem(format!("it is labelled {}", recipe_spec::text::quoted(label))));
    }
    Certificate::from_der(&der)
}

/// RFC 5280 §4.2: no extension twice, and an unknown critical one refuses the certificate. Name constraints are
/// unknown here on purpose: webpki does not apply them to organisations, which is what matters to us.
fn check_extensions(tbs: &TbsCertificate, subject: &str) -> Result<(), CertificateError> {
    const KNOWN: [ObjectIdentifier; 4] =
        [BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE, SUBJECT_ALTERNATIVE_NAME];
    let extensions = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
    for (index, extension) in extensions.iter().enumerate() {
        let twice = extensions[..index].iter().any(|earlier| earlier.extn_id == extension.extn_id);
        if twice || extension.critical && !KNOWN.contains(&extension.extn_id) {
            return Err(CertificateError::Extension {
                subject: subject.to_owned(),
                oid: extension.extn_id.to_string(),
            });
        }
    }
    Ok(())
}

/// A name for people, refused when it would not show what it is.
pub(crate) fn readable(name: &Name) -> Result<String, CertificateError> {
    let text = name.to_string();
    if text.chars().any(recipe_spec::text::misleads) {
        return Err(CertificateError::AmbiguousName(recipe_spec::text::quoted(&text)));
    }
    Ok(text)
}

fn organisation(name: &Name) -> Result<Option<String>, CertificateError> {
    if name.iter().filter(|attribute| attribute.oid == ORGANISATION).count() > 1 {
        return Err(CertificateError::AmbiguousName(recipe_spec::text::quoted(&name.to_string())));
    }
    let organisation = name.organization().map_err(|error| CertificateError::Malformed(error.to_string()))?;
    let organisation = organisation.map(|text| text.value().into_owned());
    match organisation {
        Some(text) if text.chars().any(recipe_spec::text::misleads) => {
            Err(CertificateError::AmbiguousName(recipe_spec::text::quoted(&text)))
        }
        organisation => Ok(organisation),
    }
}

/// RFC 5280 §4.1.2.2: positive, at most 20 octets.
pub(crate) fn positive(integer: &[u8]) -> Result<Vec<u8>, CertificateError> {
    let digits: Vec<u8> = integer.iter().copied().skip_while(|byte| *byte == 0).collect();
    let negative = integer.first().is_some_and(|byte| byte & 0x80 != 0);
    if negative || digits.is_empty() || digits.len() > 20 {
        return Err(CertificateError::Malformed(
            "its serial number is not positive and of 20 bytes at most".to_owned(),
        ));
    }
    Ok(digits)
}

pub(crate) fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_unix(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}
