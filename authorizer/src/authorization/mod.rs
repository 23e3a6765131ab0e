//! The authorization: the site's countersignature over everything that led to it.
//!
//! A file of three lines, each a DSSE envelope by the same countersigner: the authorization, SLSA's verification summary
//! and in-toto's test result. The first decides; the other two must be what it implies.
//!
//! An authorization is named by the digest of its *statement*, the bytes that are signed: the envelope around them
//! also carries certificates, which a renewal changes, and a revocation must hit it in any envelope.

mod predicate;
mod summary;

use recipe_spec::statement::{AUTHORIZATION_PREDICATE, Statement, StatementError, Subject};
use recipe_spec::{Code, Sha256Digest, Timestamp};
use signer::limits::MAX_ENVELOPE_BYTES;
use signer::{
    PAYLOAD_TYPE, Role, SignError, Signer, SitePins, TrustError, VerifiedSigner, dsse, verify_site,
};

pub use predicate::{
    Acceleration, AuthorizationPredicate, BaseEvidence, BuilderEvidence, CrlEvidence, DiskEvidence, Elapsed,
    InputsEvidence, LayerEvidence, LayerRole, RecipeEvidence, ScanDecision, ScanEvidence, SignerEvidence,
    SiteRecipeEvidence, TestEvidence, TestSuite, TestVerdict,
};

use crate::site::config::SiteId;

/// Lines of an authorization's file.
const LINES: usize = 3;

/// What an authorization must show before it counts, when it is made and whenever it is read: signed is not enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortcoming {
    /// No test of the site ran, or not all tests passed.
    #[error("{}", failed_tests(names))]
    Tests {
        /// Those that did not pass, `suite/name`; empty if there were none at all.
        names: Vec<String>,
    },
    /// Nobody looked at the disk from outside.
    #[error("the sealed disk was not looked at from outside")]
    Disk,
    /// The scan asks for a review, and nobody reviewed it.
    #[error("the scan asks for a person's review, and there is none")]
    Review,
    /// No recipe CRL was consulted.
    #[error("no recipe CRL was consulted")]
    Crl,
    /// Nothing would be deployed.
    #[error("it names no layer of the VO's recipe, or none of the site's")]
    Layers,
    /// It would never have been valid.
    #[error("it ends at {not_after}, not after its beginning at {issued_at}")]
    Validity {
        /// When it was issued.
        issued_at: Timestamp,
        /// When it ends.
        not_after: Timestamp,
    },
}

fn failed_tests(names: &[String]) -> String {
    if names.is_empty() {
        "no test of the site ran".to_owned()
    } else {
        format!("not passed: {}", names.join(", "))
    }
}

impl Shortcoming {
    /// The code of the refusal.
    pub fn code(&self) -> Code {
        match self {
            // Skipped is not passed.
            Self::Tests { .. } | Self::Disk => Code::TestFailed,
            Self::Review => Code::ReviewNeeded,
            Self::Crl => Code::CrlMissing,
            Self::Layers => Code::LayerMismatch,
            Self::Validity { .. } => Code::AuthorizationExpired,
        }
    }
}

/// Why nothing was countersigned.
#[derive(Debug, thiserror::Error)]
pub enum CountersignError {
    /// The evidence does not suffice.
    #[error("not countersigned: {0}")]
    Shortcoming(#[from] Shortcoming),
    /// The statement cannot be written.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The key does not sign it.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl CountersignError {
    /// The code of a refusal; none where the site's own set-up is at fault.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Shortcoming(shortcoming) => Some(shortcoming.code()),
            Self::Statement(_) | Self::Sign(_) => None,
        }
    }
}

/// Countersigns: the bytes of the authorization's file, about the recipe with this digest.
///
/// # Errors
/// [`CountersignError`] when the evidence does not suffice or the signer is not a countersigner.
pub fn countersign(
    recipe: Sha256Digest,
    predicate: AuthorizationPredicate,
    signer: &Signer,
) -> Result<Vec<u8>, CountersignError> {
    suffices(&predicate)?;
    let subject = Subject::new(subject_name(&predicate), recipe);
    let statement = Statement::new(vec![subject], AUTHORIZATION_PREDICATE, predicate);
    let payload = statement.to_bytes()?;
    let summary = summary::verification_summary(&statement, Sha256Digest::of(&payload)).to_bytes()?;
    let tests = summary::test_result(&statement).to_bytes()?;
    let mut file = Vec::new();
    for payload in [payload, summary, tests] {
        file.extend(dsse::sign(PAYLOAD_TYPE, &payload, signer)?.to_bytes());
    }
    Ok(file)
}

fn subject_name(predicate: &AuthorizationPredicate) -> String {
    format!("{}@{}", predicate.recipe.name, predicate.recipe.version)
}

fn suffices(predicate: &AuthorizationPredicate) -> Result<(), Shortcoming> {
    let AuthorizationPredicate { issued_at, not_after, .. } = *predicate;
    let names: Vec<_> = predicate
        .tests
        .iter()
        .filter(|test| test.result != TestVerdict::Passed)
        .map(|test| format!("{}/{}", test.suite.as_str(), test.name))
        .collect();
    let of_the_site = predicate.tests.iter().any(|test| test.suite == TestSuite::Site);
    if !of_the_site || !names.is_empty() {
        return Err(Shortcoming::Tests { names });
    }
    if predicate.scan.decision == ScanDecision::Review && predicate.reviews.is_empty() {
        return Err(Shortcoming::Review);
    }
    if predicate.disk.is_none() {
        return Err(Shortcoming::Disk);
    }
    if predicate.crls.is_empty() {
        return Err(Shortcoming::Crl);
    }
    let has_layer = |role| predicate.layers.iter().any(|layer| layer.role == role);
    if !has_layer(LayerRole::Vo) || !has_layer(LayerRole::Site) {
        return Err(Shortcoming::Layers);
    }
    if not_after <= issued_at {
        return Err(Shortcoming::Validity { issued_at, not_after });
    }
    Ok(())
}

/// Why an authorization authorizes nothing.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationError {
    /// Not three lines of at most the allowed length.
    #[error("not an authorization's file: {LINES} lines of at most {MAX_ENVELOPE_BYTES} bytes are wanted")]
    Form,
    /// A signature, certificate or pin.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Signed, but not a statement of ours.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The lines were signed by different keys.
    #[error("its lines were signed by different keys")]
    OtherSigner,
    /// It does not say what its own fields imply.
    #[error("line {line} is not what the authorization implies")]
    Inconsistent {
        /// From 1.
        line: usize,
    },
    /// Another site's.
    #[error("authorized by site {found}, this is {expected}")]
    WrongSite {
        /// Who authorized.
        found: SiteId,
        /// Who we are.
        expected: SiteId,
    },
    /// Its time is over.
    #[error("the authorization ended at {not_after}, it is {now}: authorize the recipe again")]
    Expired {
        /// When it ended.
        not_after: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// It is from the future, so the clock is wrong.
    #[error("the authorization was issued at {issued_at}, the clock says {now}")]
    Future {
        /// When it was issued.
        issued_at: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// Signed, but on evidence that does not suffice.
    #[error("the authorization does not suffice: {0}")]
    Shortcoming(#[from] Shortcoming),
}

impl AuthorizationError {
    /// The code of the refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::Form | Self::Statement(_) | Self::OtherSigner | Self::Inconsistent { .. } => {
                Code::BadSignature
            }
            Self::Trust(error) => error.code(),
            Self::WrongSite { .. } => Code::WrongSite,
            Self::Expired { .. } => Code::AuthorizationExpired,
            Self::Future { .. } => Code::ClockBackward,
            Self::Shortcoming(shortcoming) => shortcoming.code(),
        }
    }
}

/// An authorization of this site, in force when it was verified. Whether anything it names is revoked is asked
/// afterwards, every time.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedAuthorization {
    statement: Statement<AuthorizationPredicate>,
    recipe: Sha256Digest,
    digest: Sha256Digest,
    signer: VerifiedSigner,
}

impl VerifiedAuthorization {
    /// All that it says.
    pub fn predicate(&self) -> &AuthorizationPredicate {
        &self.statement.predicate
    }

    /// The digest of the recipe that it authorizes.
    pub fn recipe(&self) -> Sha256Digest {
        self.recipe
    }

    /// The digest of its statement: what a revocation names it by.
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// The countersigner.
    pub fn signer(&self) -> &VerifiedSigner {
        &self.signer
    }
}

/// The door to [`VerifiedAuthorization`].
#[derive(Debug)]
pub enum Authorization {}

impl Authorization {
    /// Verifies an authorization from the bytes of its file: signatures by one pinned countersigner, valid now; this
    /// site; in force; on evidence that suffices.
    ///
    /// # Errors
    /// [`AuthorizationError`], always a refusal.
    pub fn verify(
        file: &[u8],
        pins: &SitePins,
        site: &SiteId,
        now: Timestamp,
    ) -> Result<VerifiedAuthorization, AuthorizationError> {
        let lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').take(LINES + 1).collect();
        let [first, summary, tests] = lines[..] else { return Err(AuthorizationError::Form) };
        if lines.iter().any(|line| line.len() > MAX_ENVELOPE_BYTES) {
            return Err(AuthorizationError::Form);
        }
        let verified = verify_site(first, Role::Countersigner, pins, now)?;
        let statement = Statement::parse_untrusted(verified.payload(), AUTHORIZATION_PREDICATE)?;
        let digest = Sha256Digest::of(verified.payload());
        let [signer] = verified.signers() else { return Err(AuthorizationError::OtherSigner) };
        let recipe = one_subject(&statement).ok_or(AuthorizationError::Inconsistent { line: 1 })?;
        let implied = [
            (2, summary, summary::verification_summary(&statement, digest).to_bytes()?),
            (3, tests, summary::test_result(&statement).to_bytes()?),
        ];
        for (line, envelope, implied) in implied {
            let verified = verify_site(envelope, Role::Countersigner, pins, now)?;
            if verified.signers().iter().any(|other| other.spki_sha256() != signer.spki_sha256()) {
                return Err(AuthorizationError::OtherSigner);
            }
            if verified.payload() != implied {
                return Err(AuthorizationError::Inconsistent { line });
            }
        }
        let predicate = &statement.predicate;
        if predicate.site != *site {
            let (found, expected) = (predicate.site.clone(), site.clone());
            return Err(AuthorizationError::WrongSite { found, expected });
        }
        suffices(predicate)?;
        if now < predicate.issued_at {
            return Err(AuthorizationError::Future { issued_at: predicate.issued_at, now });
        }
        if now >= predicate.not_after {
            return Err(AuthorizationError::Expired { not_after: predicate.not_after, now });
        }
        let signer = signer.clone();
        Ok(VerifiedAuthorization { statement, recipe, digest, signer })
    }
}

/// The layers and the template that an authorization's file names; none if it cannot be read. Unverified: it tells what to keep,
/// never what to trust.
pub(crate) fn needed_untrusted(file: &[u8]) -> Option<Vec<Sha256Digest>> {
    let first = file.split_inclusive(|byte| *byte == b'\n').next()?;
    let envelope = dsse::Envelope::parse_untrusted(first).ok()?;
    let payload = envelope.payload_untrusted();
    let statement: Statement<AuthorizationPredicate> =
        Statement::parse_untrusted(payload, AUTHORIZATION_PREDICATE).ok()?;
    let predicate = statement.predicate;
    let layers = predicate.layers.iter().map(|layer| layer.sha256);
    Some(layers.chain(predicate.template.map(|template| template.sha256)).collect())
}

/// The digest of the one subject, if its name is the recipe's.
fn one_subject(statement: &Statement<AuthorizationPredicate>) -> Option<Sha256Digest> {
    match &statement.subject[..] {
        [subject] if subject.name == subject_name(&statement.predicate) => Some(subject.digest.sha256),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
