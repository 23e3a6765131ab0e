//! A key has one role, and a role signs only its own kinds of statement.

use std::fmt;

use recipe_spec::statement::{AUTHORIZATION_PREDICATE, BASE_PREDICATE, CRL_PREDICATE, RECIPE_PREDICATE};

use crate::chain::{Chain, ChainError};
use crate::key::SecretKey;

/// SLSA's summary of a verification, which goes beside an authorization.
pub const VERIFICATION_SUMMARY_PREDICATE: &str = "https://slsa.dev/verification_summary/v1";
/// in-toto's test result, which goes beside an authorization.
pub const TEST_RESULT_PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// What a key is for. A VO's anchors vouch for [`Role::RecipeSigner`] only; the others are the site's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Signs recipes for a VO.
    RecipeSigner,
    /// Signs a site's authorizations.
    Countersigner,
    /// Signs recipe CRLs.
    CrlIssuer,
    /// Signs a site's base images.
    BaseSigner,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::RecipeSigner, Role::Countersigner, Role::CrlIssuer, Role::BaseSigner];

    /// The name people read: `recipe signer`, `countersigner`, `CRL issuer`, `base signer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::RecipeSigner => "recipe signer",
            Role::Countersigner => "countersigner",
            Role::CrlIssuer => "CRL issuer",
            Role::BaseSigner => "base signer",
        }
    }

    /// The predicate types of the statements that this role signs.
    pub fn predicates(self) -> &'static [&'static str] {
        match self {
            Role::RecipeSigner => &[RECIPE_PREDICATE],
            Role::Countersigner => {
                &[AUTHORIZATION_PREDICATE, VERIFICATION_SUMMARY_PREDICATE, TEST_RESULT_PREDICATE]
            }
            Role::CrlIssuer => &[CRL_PREDICATE],
            Role::BaseSigner => &[BASE_PREDICATE],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a key cannot sign in a role.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The certificate is for another key.
    #[error("the certificate of {subject} is for another key: it names {certificate}, the key is {key}")]
    OtherKey {
        /// Subject of the leaf.
        subject: String,
        /// SPKI digest in the certificate.
        certificate: recipe_spec::Sha256Digest,
        /// SPKI digest of the key.
        key: recipe_spec::Sha256Digest,
    },
    /// The certificate, or one above it, would be refused wherever the signature is verified.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A key with the chain that vouches for it, in one role.
#[derive(Debug)]
pub struct Signer {
    role: Role,
    key: SecretKey,
    chain: Chain,
}

impl Signer {
    /// Joins key and chain; nothing is verified but that they belong together and have the form of a signing
    /// chain: each certificate issued by the next, a leaf for code signing, CAs above it.
    ///
    /// # Errors
    /// [`SignerError`] when the leaf is for another key or not a signing certificate, or the chain is not one.
    pub fn new(role: Role, key: SecretKey, chain: Chain) -> Result<Self, SignerError> {
        let leaf = chain.leaf();
        if leaf.public_key() != key.public() {
            return Err(SignerError::OtherKey {
                subject: leaf.subject().to_owned(),
                certificate: leaf.public_key().spki_sha256(),
                key: key.public().spki_sha256(),
            });
        }
        chain.check_form()?;
        Ok(Signer { role, key, chain })
    }

    /// What this key is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The certificates that go into each signature.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// SHA-256 of the key's SPKI: what a site pins.
    pub fn spki_sha256(&self) -> recipe_spec::Sha256Digest {
        self.key.public().spki_sha256()
    }

    pub(crate) fn key(&self) -> &SecretKey {
        &self.key
    }
}
