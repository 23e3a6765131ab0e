//! Why a signature does not count here.

use recipe_spec::{Code, RecipeName, Sha256Digest, Timestamp, VoName};

use crate::certificate_crl::CertificateCrlError;
use crate::chain::ChainError;
use crate::dsse::EnvelopeError;
use crate::role::Role;

/// A refusal, with what a person needs to act on it. Every one is final for these bytes and this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The bytes are not an envelope of ours.
    #[error("the signature file is damaged: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The payload type is another one.
    #[error("the envelope holds {found}, not an in-toto statement")]
    PayloadType {
        /// What it says, quoted.
        found: String,
    },
    /// The signature does not fit payload and key.
    #[error("the signature by {subject} is not one over this content")]
    Signature {
        /// Subject of the certificate that came along.
        subject: String,
        /// The key that it names.
        keyid: Sha256Digest,
    },
    /// The payload is not a statement that this role signs.
    #[error("the envelope says {found}, which a {role} does not sign")]
    Predicate {
        /// The role that was asked for.
        role: Role,
        /// The predicate type found, quoted.
        found: String,
    },
    /// The statement is not the one about this recipe.
    #[error("the content is not what was signed: the signature is for {signed}, this is {found}")]
    Content {
        /// Name and digest in the statement.
        signed: String,
        /// Name and digest of what is here.
        found: String,
    },
    /// The statement cannot be read.
    #[error("the signed statement cannot be read: {reason}")]
    Statement {
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates are not a chain for signing.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No anchor of this site issued the chain.
    #[error(
        "nobody here vouches for {subject}: its issuer {issuer} is not an anchor of this site (anchors: {anchors})"
    )]
    UnknownIssuer {
        /// Subject of the leaf.
        subject: String,
        /// Issuer that an anchor would have to be.
        issuer: String,
        /// Names of the anchors that were looked at.
        anchors: String,
    },
    /// A certificate names an issuer that did not sign it.
    #[error("the certificate of {subject} was not signed by {issuer}, which it names")]
    ForgedCertificate {
        /// Its subject.
        subject: String,
        /// The issuer that it names.
        issuer: String,
    },
    /// webpki refuses the path for a reason that the checks before it did not name.
    #[error("the chain of {subject} is refused: {reason}")]
    Path {
        /// Subject of the leaf.
        subject: String,
        /// webpki's reason.
        reason: String,
    },
    /// A certificate has expired.
    #[error("the certificate of {subject} expired at {not_after}; it is judged at {at}")]
    Expired {
        /// Its subject.
        subject: String,
        /// Last second of its validity.
        not_after: Timestamp,
        /// The moment that it was judged for.
        at: Timestamp,
    },
    /// A certificate is not valid yet.
    #[error("the certificate of {subject} is not valid before {not_before}; it is judged at {at}")]
    NotYetValid {
        /// Its subject.
        subject: String,
        /// First second of its validity.
        not_before: Timestamp,
        /// The moment that it was judged for.
        at: Timestamp,
    },
    /// A certificate on the path is revoked.
    #[error("the certificate of {subject} was revoked at {date} by {issuer} ({reason}), serial {serial}")]
    Revoked {
        /// Its subject.
        subject: String,
        /// The CA.
        issuer: String,
        /// Serial number, hexadecimal.
        serial: String,
        /// When.
        date: Timestamp,
        /// Why, as RFC 5280 §5.3.1 calls it.
        reason: &'static str,
    },
    /// There is no CRL of a CA on the path.
    #[error("there is no CRL of the CA {issuer}, so nobody knows whether {subject} is revoked")]
    CrlMissing {
        /// The CA.
        issuer: String,
        /// Whose status is unknown.
        subject: String,
    },
    /// The CRL of a CA on the path has expired.
    #[error(
        "the CRL of the CA {issuer} expired at {next_update}, it is now {now}; `countersign ca crl` renews it"
    )]
    CrlExpired {
        /// The CA.
        issuer: String,
        /// From when on it is expired.
        next_update: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// The CRL of a CA on the path was issued after now.
    #[error("the CRL of the CA {issuer} begins at {this_update}, but it is only {now}")]
    CrlFromFuture {
        /// The CA.
        issuer: String,
        /// When it begins.
        this_update: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// The CRL was not signed by the CA.
    #[error("the CRL of the CA {issuer} was not signed by that CA")]
    CrlForged {
        /// The CA.
        issuer: String,
    },
    /// The signature is to be judged as of a moment that has not come.
    #[error("it is to be judged as of {at}, but it is only {now}: the clock went back")]
    JudgedInFuture {
        /// The moment asked for.
        at: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// The site does not know which VO the signer speaks for.
    #[error("the site's map gives no VO to {subject} under the anchor {anchor}")]
    NoVo {
        /// Subject of the leaf.
        subject: String,
        /// Name of the anchor.
        anchor: String,
    },
    /// The anchor may not vouch for that VO.
    #[error("the anchor {anchor} cannot vouch for the VO {vo} of {subject}, only for {allowed}")]
    VoNotAllowed {
        /// Subject of the leaf.
        subject: String,
        /// The VO that it would speak for.
        vo: String,
        /// Name of the anchor.
        anchor: String,
        /// The VOs that it may vouch for.
        allowed: String,
    },
    /// The signer speaks for another VO than the recipe's.
    #[error("{subject} signs for the VO {vo}, not for {recipe}")]
    OtherVo {
        /// Subject of the leaf.
        subject: String,
        /// The VO that it speaks for.
        vo: VoName,
        /// The recipe that was signed.
        recipe: RecipeName,
    },
    /// The key is not pinned for the role.
    #[error("the key {spki} of {subject} is not pinned as a {role} of this site")]
    NotPinned {
        /// The role that was asked for.
        role: Role,
        /// SPKI digest of the key.
        spki: Sha256Digest,
        /// Subject of its certificate.
        subject: String,
    },
    /// A key of the site signed as a VO.
    #[error("the key of {subject} is a key of the site itself and cannot sign for a VO")]
    SiteKey {
        /// Subject of its certificate.
        subject: String,
    },
}

impl TrustError {
    /// The code that people and machines know this refusal by.
    pub fn code(&self) -> Code {
        match self {
            TrustError::Envelope(_)
            | TrustError::PayloadType { .. }
            | TrustError::Signature { .. }
            | TrustError::Predicate { .. }
            | TrustError::Content { .. }
            | TrustError::Statement { .. } => Code::BadSignature,
            TrustError::Chain(_)
            | TrustError::UnknownIssuer { .. }
            | TrustError::ForgedCertificate { .. }
            | TrustError::Path { .. }
            | TrustError::NotPinned { .. }
            | TrustError::SiteKey { .. } => Code::UntrustedSigner,
            TrustError::Expired { .. } | TrustError::NotYetValid { .. } => Code::CertExpired,
            TrustError::Revoked { .. } => Code::CertRevoked,
            TrustError::CrlMissing { .. } => Code::CrlMissing,
            TrustError::CrlExpired { .. } => Code::CrlExpired,
            TrustError::CrlFromFuture { .. } | TrustError::CrlForged { .. } => Code::CrlInvalid,
            TrustError::JudgedInFuture { .. } => Code::ClockBackward,
            TrustError::NoVo { .. } | TrustError::VoNotAllowed { .. } | TrustError::OtherVo { .. } => {
                Code::WrongVo
            }
        }
    }
}

/// Why a site's trust configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustSetupError {
    /// An anchor's certificate is not that of a CA.
    #[error(transparent)]
    Anchor(#[from] ChainError),
    /// A CRL cannot be read.
    #[error(transparent)]
    Crl(#[from] CertificateCrlError),
    /// Two CRLs of one CA: which one counts would be a guess.
    #[error("there are two CRLs of the CA {issuer}")]
    TwoCrls {
        /// The CA.
        issuer: String,
    },
    /// Two anchors with one key or one name: whose VOs count would be a guess.
    #[error("the anchors {first} and {second} have the same name or key")]
    SameAnchor {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// An anchor that may vouch for nobody.
    #[error("the anchor {anchor} may vouch for no VO")]
    NoVos {
        /// Name of the anchor.
        anchor: String,
    },
    /// The site's own CA as an anchor for VOs.
    #[error("the anchor {anchor} is the site's own CA, which vouches for the site's keys only")]
    SiteCa {
        /// Name of the anchor.
        anchor: String,
    },
    /// A key pinned for something a VO does.
    #[error("a site pins its own keys, not recipe signers")]
    PinnedRecipeSigner,
    /// One key in two roles.
    #[error("the key {spki} is pinned as {first} and as {second}; each role has a key of its own")]
    TwoRoles {
        /// SPKI digest of the key.
        spki: Sha256Digest,
        /// One role.
        first: Role,
        /// The other.
        second: Role,
    },
}

impl TrustSetupError {
    /// `CRL_INVALID` for a CRL that cannot be used, `UNTRUSTED_SIGNER` for the rest.
    pub fn code(&self) -> Code {
        match self {
            TrustSetupError::Crl(_) | TrustSetupError::TwoCrls { .. } => Code::CrlInvalid,
            _ => Code::UntrustedSigner,
        }
    }
}
