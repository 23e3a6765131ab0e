//! A small certification authority, for VOs and sites that have none.
//!
//! Ed25519 certificates as RFC 8410 and RFC 5280 want them: random positive serial numbers of 16 bytes, key
//! identifiers, critical basicConstraints and keyUsage. Each CA has a CRL from its first minute on, because a
//! verifier refuses a CA without one.

use der::asn1::{Any, BitString, OctetString, SetOfVec, Utf8StringRef};
use der::oid::AssociatedOid;
use der::pem::LineEnding;
use der::{Encode, EncodePem as _};
use recipe_spec::{Sha256Digest, Timestamp};
use spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::TbsCertificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::certificate::Version;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CrlNumber, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{Criticality, Extension, ToExtension as _};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

pub use x509_cert::ext::pkix::CrlReason;

use crate::certificate::{CODE_SIGNING, COMMON_NAME, Certificate, CertificateError, ORGANISATION};
use crate::chain::ChainError;
use crate::key::{ED25519, KeyError, PublicKey, SecretKey, fill_random};
use crate::limits::MAX_NAME_CHARACTERS;

/// Seconds that a CRL made by [`init`] is good for: 30 days.
pub const CRL_VALIDITY_SECONDS: i64 = 30 * 24 * 60 * 60;

/// Why a CA cannot issue something.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A name that is empty, too long or not what it shows.
    #[error("the name {0} is not usable: 1 to {MAX_NAME_CHARACTERS} visible characters")]
    Name(String),
    /// An end that is not after the beginning, or a time that X.509 cannot write.
    #[error("the time from {from} to {until} is not usable")]
    Time {
        /// Beginning.
        from: Timestamp,
        /// End.
        until: Timestamp,
    },
    /// The certificate would outlive the CA and be refused from then on.
    #[error("the certificate would be valid until {until}, but the CA {ca} only until {ca_until}")]
    OutlivesCa {
        /// Subject of the CA.
        ca: String,
        /// End that was asked for.
        until: Timestamp,
        /// End of the CA.
        ca_until: Timestamp,
    },
    /// The CA's key and certificate do not belong together.
    #[error("the key {key} is not that of the CA {ca}")]
    OtherKey {
        /// Subject of the CA.
        ca: String,
        /// SPKI digest of the key.
        key: Sha256Digest,
    },
    /// The CA's path length allows no CA below it.
    #[error("the CA {ca} may not have a CA below it")]
    PathLength {
        /// Subject of the CA.
        ca: String,
    },
    /// One serial number twice on a list.
    #[error("the serial number {serial} comes twice")]
    RepeatedSerial {
        /// Hexadecimal.
        serial: String,
    },
    /// The CA's certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The CA's certificate is not that of a CA.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No random bytes.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The encoder refused.
    #[error("the certificate or list cannot be encoded: {0}")]
    Encoding(String),
}

impl From<der::Error> for CaError {
    fn from(error: der::Error) -> Self {
        CaError::Encoding(error.to_string())
    }
}

impl From<builder::Error> for CaError {
    fn from(error: builder::Error) -> Self {
        CaError::Encoding(error.to_string())
    }
}

/// A new CA: what goes into its three files.
#[derive(Debug)]
pub struct CaFiles {
    /// The self-signed certificate: the anchor that sites configure.
    pub certificate_pem: String,
    /// The CA's private key; whoever stores it encrypts it.
    pub key: SecretKey,
    /// The first CRL, number 1, empty.
    pub crl_pem: String,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// O: for a recipe signer, the name of the VO.
    pub organisation: String,
    /// CN: the person, team or purpose.
    pub common_name: String,
}

/// One line of a CRL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The certificate's serial number, big-endian.
    pub serial: Vec<u8>,
    /// When it was revoked.
    pub date: Timestamp,
    /// Why (RFC 5280 §5.3.1).
    pub reason: CrlReason,
}

/// Makes a CA with a new key: a self-signed certificate for `(not_before, not_after)` and an empty CRL with number 1,
/// from `not_before` to `crl_next_update` ([`CRL_VALIDITY_SECONDS`] later, usually).
///
/// # Errors
/// [`CaError`] for a name or a time that cannot be used.
pub fn init(
    organisation: &str,
    common_name: &str,
    validity: (Timestamp, Timestamp),
    crl_next_update: Timestamp,
) -> Result<CaFiles, CaError> {
    let key = SecretKey::generate()?;
    let subject = Subject { organisation: organisation.to_owned(), common_name: common_name.to_owned() };
    let profile = CaProfile { issuer: None, subject: subject.name()?, path_length: None, authority: None };
    let certificate_pem = certificate(profile, &key.public(), validity, &key)?;
    let crl_pem = crl(&key, &certificate_pem, &[], 1, validity.0, crl_next_update)?;
    Ok(CaFiles { certificate_pem, key, crl_pem })
}

/// Issues a signing certificate (critical keyUsage digitalSignature, EKU codeSigning, not a CA) and gives its PEM.
///
/// # Errors
/// [`CaError`], also when key and CA do not belong together or the certificate would outlive the CA.
pub fn issue(
    ca_key: &SecretKey,
    ca_certificate_pem: &str,
    subject: &Subject,
    public_key: &PublicKey,
    validity: (Timestamp, Timestamp),
) -> Result<String, CaError> {
    let ca = issuer(ca_key, ca_certificate_pem)?;
    within(&ca, validity)?;
    let profile = LeafProfile { issuer: ca.name()?, subject: subject.name()?, authority: ca.key_id()? };
    certificate(profile, public_key, validity, ca_key)
}

/// Issues the certificate of a CA below this one, which can issue leaves only (path length 0), and gives its PEM.
///
/// # Errors
/// As [`issue`], and [`CaError::PathLength`] when this CA may have none below it.
pub fn issue_ca(
    ca_key: &SecretKey,
    ca_certificate_pem: &str,
    subject: &Subject,
    public_key: &PublicKey,
    validity: (Timestamp, Timestamp),
) -> Result<String, CaError> {
    let ca = issuer(ca_key, ca_certificate_pem)?;
    within(&ca, validity)?;
    if ca.0.path_length() == Some(0) {
        return Err(CaError::PathLength { ca: ca.0.subject().to_owned() });
    }
    let profile = CaProfile {
        issuer: Some(ca.name()?),
        subject: subject.name()?,
        path_length: Some(0),
        authority: Some(ca.key_id()?),
    };
    certificate(profile, public_key, validity, ca_key)
}

/// Issues a CRL with everything that is revoked, and gives its PEM. Keep entries for ever: a site judges old signatures
/// by the newest list.
///
/// # Errors
/// [`CaError`], also when key and CA do not belong together or a serial number comes twice.
pub fn crl(
    ca_key: &SecretKey,
    ca_certificate_pem: &str,
    revoked: &[Revoked],
    number: u64,
    this_update: Timestamp,
    next_update: Timestamp,
) -> Result<String, CaError> {
    let ca = issuer(ca_key, ca_certificate_pem)?;
    let (from, until) = times((this_update, next_update))?;
    let name = ca.name()?;
    let mut entries = Vec::<RevokedCert>::with_capacity(revoked.len());
    for revoked in revoked {
        let entry = revoked.entry(&name)?;
        if entries.iter().any(|earlier| earlier.serial_number == entry.serial_number) {
            return Err(CaError::RepeatedSerial { serial: hex::encode(&revoked.serial) });
        }
        entries.push(entry);
    }
    // The list's authority key identifier is the issuer's own key: with anything else a CA below another one
    // has a CRL that OpenSSL cannot find (RFC 5280 §5.2.1).
    let extensions =
        vec![extension(&authority(&ca.key_id()?), &name)?, extension(&CrlNumber::try_from(number)?, &name)?];
    let to_be_signed = TbsCertList {
        version: Version::V2,
        signature: algorithm(),
        issuer: name,
        this_update: from,
        next_update: Some(until),
        // RFC 5280 §5.1.2.6: without revoked certificates the field is absent, not empty.
        revoked_certificates: (!entries.is_empty()).then_some(entries),
        crl_extensions: Some(extensions),
    };
    let signature = BitString::from_bytes(&ca_key.sign(&to_be_signed.to_der()?))?;
    let list: CertificateList =
        CertificateList { tbs_cert_list: to_be_signed, signature_algorithm: algorithm(), signature };
    Ok(list.to_pem(LineEnding::LF)?)
}

impl Subject {
    /// `O=organisation, CN=common_name`, both UTF8String (RFC 5280 §4.1.2.4).
    fn name(&self) -> Result<Name, CaError> {
        let mut sequence = RdnSequence::default();
        for (oid, text) in [(ORGANISATION, &self.organisation), (COMMON_NAME, &self.common_name)] {
            let length = text.chars().count();
            let hidden = text.chars().any(recipe_spec::text::misleads);
            if length == 0 || length > MAX_NAME_CHARACTERS || hidden || text.trim() != text {
                return Err(CaError::Name(recipe_spec::text::quoted(text)));
            }
            let value = Any::encode_from(&Utf8StringRef::new(text)?)?;
            let attributes = SetOfVec::try_from(vec![AttributeTypeAndValue { oid, value }])?;
            sequence.push(RelativeDistinguishedName::try_from(attributes.into_vec())?);
        }
        Ok(der::Decode::from_der(&sequence.to_der()?)?)
    }
}

impl Revoked {
    fn entry(&self, issuer: &Name) -> Result<RevokedCert, CaError> {
        let at = (self.date, self.date.plus_seconds(1));
        let extensions = match self.reason {
            // RFC 5280 §5.3.1: unspecified is said by saying nothing.
            CrlReason::Unspecified => None,
            reason => Some(vec![extension(&reason, issuer)?]),
        };
        Ok(RevokedCert {
            serial_number: SerialNumber::new(&self.serial)?,
            revocation_date: times(at)?.0,
            crl_entry_extensions: extensions,
        })
    }
}

/// A CA's certificate, once its key is known to be at hand.
struct Issuer(Certificate);

impl Issuer {
    fn name(&self) -> Result<Name, CaError> {
        Ok(der::Decode::from_der(self.0.subject_der())?)
    }

    fn key_id(&self) -> Result<OctetString, CaError> {
        Ok(OctetString::new(self.0.subject_key_id().unwrap_or_default())?)
    }
}

fn issuer(key: &SecretKey, certificate_pem: &str) -> Result<Issuer, CaError> {
    let certificate = Certificate::from_pem(certificate_pem)?;
    certificate.check_issuer()?;
    if certificate.public_key() != key.public() {
        return Err(CaError::OtherKey {
            ca: certificate.subject().to_owned(),
            key: key.public().spki_sha256(),
        });
    }
    Ok(Issuer(certificate))
}

fn within(ca: &Issuer, validity: (Timestamp, Timestamp)) -> Result<(), CaError> {
    if validity.1 <= ca.0.not_after() {
        return Ok(());
    }
    Err(CaError::OutlivesCa { ca: ca.0.subject().to_owned(), until: validity.1, ca_until: ca.0.not_after() })
}

struct CaProfile {
    /// `None`: self-signed.
    issuer: Option<Name>,
    subject: Name,
    path_length: Option<u8>,
    authority: Option<OctetString>,
}

impl BuilderProfile for CaProfile {
    fn get_issuer(&self, subject: &Name) -> Name {
        self.issuer.clone().unwrap_or_else(|| subject.clone())
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        _issuer: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let own = key_id(key)?;
        let issuer = self.authority.as_ref().unwrap_or(&own);
        Ok(vec![
            extension(&BasicConstraints { ca: true, path_len_constraint: self.path_length }, &self.subject)?,
            extension(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign), &self.subject)?,
            extension(&authority(issuer), &self.subject)?,
            extension(&SubjectKeyIdentifier(own), &self.subject)?,
        ])
    }
}

struct LeafProfile {
    issuer: Name,
    subject: Name,
    authority: OctetString,
}

impl BuilderProfile for LeafProfile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        _issuer: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(vec![
            extension(&BasicConstraints { ca: false, path_len_constraint: None }, &self.subject)?,
            extension(&KeyUsage(KeyUsages::DigitalSignature.into()), &self.subject)?,
            extension(&ExtendedKeyUsage(vec![CODE_SIGNING]), &self.subject)?,
            extension(&authority(&self.authority), &self.subject)?,
            extension(&SubjectKeyIdentifier(key_id(key)?), &self.subject)?,
        ])
    }
}

fn certificate(
    profile: impl BuilderProfile,
    public_key: &PublicKey,
    validity: (Timestamp, Timestamp),
    ca_key: &SecretKey,
) -> Result<String, CaError> {
    let (not_before, not_after) = times(validity)?;
    let spki: SubjectPublicKeyInfoOwned = der::Decode::from_der(&public_key.spki_der())?;
    let builder = CertificateBuilder::new(profile, serial()?, Validity::new(not_before, not_after), spki)?;
    let certificate = builder.build::<_, ed25519_dalek::Signature>(ca_key.dalek())?;
    Ok(certificate.to_pem(LineEnding::LF)?)
}

/// 126 random bits in 16 bytes: positive, and never shorter (RFC 5280 §4.1.2.2; CA/B Forum ballot 164 asks for 64).
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::new(&bytes)?)
}

/// The first 160 bits of the SHA-256 of the key (RFC 7093 §2 method 1).
fn key_id(key: SubjectPublicKeyInfoRef<'_>) -> Result<OctetString, der::Error> {
    let digest = Sha256Digest::of(key.subject_public_key.raw_bytes());
    OctetString::new(&digest.as_bytes()[..20])
}

fn authority(key_id: &OctetString) -> AuthorityKeyIdentifier {
    AuthorityKeyIdentifier { key_identifier: Some(key_id.clone()), ..Default::default() }
}

fn extension<T: Criticality + AssociatedOid + Encode>(
    value: &T,
    name: &Name,
) -> Result<Extension, der::Error> {
    value.to_extension(name, &[])
}

fn algorithm() -> spki::AlgorithmIdentifierOwned {
    spki::AlgorithmIdentifierOwned { oid: ED25519, parameters: None }
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280 §4.1.2.5).
fn times((from, until): (Timestamp, Timestamp)) -> Result<(Time, Time), CaError> {
    let time = |timestamp: Timestamp| -> Option<Time> {
        let seconds = u64::try_from(timestamp.unix()).ok()?;
        let date = der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)).ok()?;
        Some(Time::from(date))
    };
    match (time(from), time(until)) {
        (Some(first), Some(last)) if from < until => Ok((first, last)),
        _ => Err(CaError::Time { from, until }),
    }
}
