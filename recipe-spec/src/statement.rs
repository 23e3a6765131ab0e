//! in-toto statements: what a signature says, about which bytes.
//!
//! A statement has one encoding: compact JSON with the fields in the order of the types here. Reading refuses every
//! other, so duplicate keys, spaces, other orders and unknown fields cannot hide anything.

use semver::Version;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::limits::Limits;
use crate::name::RecipeName;
use crate::recipe::Recipe;
use crate::text::quoted;

/// Predicate of a signed recipe.
pub const RECIPE_PREDICATE: &str = "urn:countersign:recipe:v1";
/// Predicate of an authorization.
pub const AUTHORIZATION_PREDICATE: &str = "urn:countersign:authorization:v1";
/// Predicate of a recipe CRL's header.
pub const CRL_PREDICATE: &str = "urn:countersign:crl:v1";
/// Predicate of a base image.
pub const BASE_PREDICATE: &str = "urn:countersign:base:v1";

/// in-toto Statement v1 (`spec/v1/statement.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement<P> {
    /// Always the same.
    #[serde(rename = "_type")]
    statement_type: StatementType,
    /// What the statement is about; never empty.
    pub subject: Vec<Subject>,
    /// What kind of predicate this is.
    pub predicate_type: String,
    /// What is said.
    pub predicate: P,
}

/// The one type of statement that we write and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum StatementType {
    #[serde(rename = "https://in-toto.io/Statement/v1")]
    V1,
}

/// A thing that a statement is about (in-toto `ResourceDescriptor`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name; for a recipe `VO/name@version`.
    pub name: String,
    /// Its digest.
    pub digest: DigestSet,
}

/// in-toto `DigestSet` with the one algorithm that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestSet {
    /// SHA-256.
    pub sha256: Sha256Digest,
}

impl From<Sha256Digest> for DigestSet {
    fn from(sha256: Sha256Digest) -> Self {
        DigestSet { sha256 }
    }
}

impl Subject {
    /// A subject by name and digest.
    pub fn new(name: impl Into<String>, sha256: Sha256Digest) -> Self {
        Subject { name: name.into(), digest: sha256.into() }
    }
}

/// What a recipe's signer says beyond the subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipePredicate {
    /// `VO/name`.
    pub name: RecipeName,
    /// Its version.
    pub version: Version,
}

/// Why bytes are not a statement of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Longer than [`Limits::statement_bytes`].
    #[error("the statement has {size} bytes, and {most} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// [`Limits::statement_bytes`].
        most: usize,
    },
    /// Not JSON, or not of this shape.
    #[error("not a statement of this kind: {0}")]
    Json(#[from] serde_json::Error),
    /// A statement with another predicate.
    #[error("the statement says {found}, and `{expected}` is wanted")]
    WrongPredicate {
        /// The predicate type that is wanted.
        expected: String,
        /// The predicate type in the statement, quoted.
        found: String,
    },
    /// About nothing.
    #[error("the statement names no subject")]
    NoSubject,
    /// The bytes are not what we would have written.
    #[error("the statement is not in canonical form")]
    NotCanonical,
}

impl<P> Statement<P> {
    /// A statement about `subject`.
    pub fn new(subject: Vec<Subject>, predicate_type: impl Into<String>, predicate: P) -> Self {
        Statement {
            statement_type: StatementType::V1,
            subject,
            predicate_type: predicate_type.into(),
            predicate,
        }
    }
}

impl<P: Serialize> Statement<P> {
    /// The canonical encoding. Fails only if the predicate cannot be JSON, such as a map whose keys are not text.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StatementError> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl<P: Serialize + DeserializeOwned> Statement<P> {
    /// Reads a statement whose signature the caller has verified over these very bytes, or knows not to trust.
    pub fn parse_untrusted(bytes: &[u8], predicate_type: &str) -> Result<Self, StatementError> {
        let most = Limits::STANDARD.statement_bytes;
        if bytes.len() > most {
            return Err(StatementError::TooLarge { size: bytes.len(), most });
        }
        let outline: Statement<IgnoredAny> = serde_json::from_slice(bytes)?;
        if outline.predicate_type != predicate_type {
            let found = quoted(&outline.predicate_type);
            return Err(StatementError::WrongPredicate { expected: predicate_type.to_owned(), found });
        }
        if outline.subject.is_empty() {
            return Err(StatementError::NoSubject);
        }
        let statement: Self = serde_json::from_slice(bytes)?;
        if statement.to_bytes()? != bytes {
            return Err(StatementError::NotCanonical);
        }
        Ok(statement)
    }
}

/// What a signer of `recipe` signs. A signed statement belongs to a recipe exactly if it equals this.
pub fn recipe_statement(recipe: &Recipe) -> Statement<RecipePredicate> {
    let manifest = recipe.manifest();
    let predicate =
        RecipePredicate { name: manifest.recipe.name.clone(), version: manifest.recipe.version.clone() };
    let subject = Subject::new(manifest.subject_name(), recipe.digest());
    Statement::new(vec![subject], RECIPE_PREDICATE, predicate)
}
