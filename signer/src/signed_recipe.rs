//! A recipe and the envelope beside it: the signature counts here, it is about this content, and its signers speak
//! for the recipe's VO.

use recipe_spec::statement::{RECIPE_PREDICATE, RecipePredicate, Statement, recipe_statement};
use recipe_spec::{Recipe, Sha256Digest, Timestamp, VoName};

use crate::trust::{TrustError, TrustStore, VerifiedEnvelope, VerifiedSigner, verify_recipe_at};

/// Evidence that a recipe was signed for its VO. It can only come from [`verify_signed_recipe`].
#[must_use]
#[derive(Clone, Debug)]
pub struct VerifiedRecipeSignature {
    envelope: VerifiedEnvelope,
    statement: Statement<RecipePredicate>,
    recipe_sha256: Sha256Digest,
    vo: VoName,
}

impl VerifiedRecipeSignature {
    /// The verified envelope.
    pub fn envelope(&self) -> &VerifiedEnvelope {
        &self.envelope
    }

    /// What was signed: the recipe's name, version and digest.
    pub fn statement(&self) -> &Statement<RecipePredicate> {
        &self.statement
    }

    /// The recipe's digest, in the statement and of the content.
    pub fn recipe_sha256(&self) -> Sha256Digest {
        self.recipe_sha256
    }

    /// The VO, in the recipe's name and of every signer.
    pub fn vo(&self) -> &VoName {
        &self.vo
    }

    /// Who signed: at least one.
    pub fn signers(&self) -> &[VerifiedSigner] {
        self.envelope.signers()
    }
}

/// Verifies the envelope that lies beside `recipe`, as of `now`.
///
/// # Errors
/// As [`crate::trust::verify_recipe`]; [`TrustError::Content`] (`BAD_SIGNATURE`) when name, version or digest are not
/// those that were signed; [`TrustError::OtherVo`] (`WRONG_VO`).
pub fn verify_signed_recipe(
    envelope: &[u8],
    recipe: &Recipe,
    store: &TrustStore,
    now: Timestamp,
) -> Result<VerifiedRecipeSignature, TrustError> {
    verify_signed_recipe_at(envelope, recipe, store, now, now)
}

/// As [`verify_signed_recipe`], with certificates judged as they were `at` an earlier moment; revocation as of `now`.
///
/// # Errors
/// As [`verify_signed_recipe`], also [`TrustError::JudgedInFuture`].
pub fn verify_signed_recipe_at(
    envelope: &[u8],
    recipe: &Recipe,
    store: &TrustStore,
    at: Timestamp,
    now: Timestamp,
) -> Result<VerifiedRecipeSignature, TrustError> {
    let envelope = verify_recipe_at(envelope, store, at, now)?;
    let statement = Statement::<RecipePredicate>::parse_untrusted(envelope.payload(), RECIPE_PREDICATE)
        .map_err(|error| TrustError::Statement { reason: error.to_string() })?;
    let wanted = recipe_statement(recipe);
    if statement != wanted {
        return Err(TrustError::Content { signed: about(&statement), found: about(&wanted) });
    }
    let name = &recipe.manifest().recipe.name;
    let vo = name.vo_name();
    for signer in envelope.signers() {
        match signer.vo() {
            Some(speaks_for) if *speaks_for == vo => {}
            Some(other) => {
                return Err(TrustError::OtherVo {
                    subject: signer.subject().to_owned(),
                    vo: other.clone(),
                    recipe: name.clone(),
                });
            }
            None => return Err(TrustError::SiteKey { subject: signer.subject().to_owned() }),
        }
    }
    Ok(VerifiedRecipeSignature { envelope, statement, recipe_sha256: recipe.digest(), vo })
}

fn about(statement: &Statement<RecipePredicate>) -> String {
    let subjects: Vec<_> = statement
        .subject
        .iter()
        .map(|subject| {
            format!("{} sha256:{}", recipe_spec::text::quoted(&subject.name), subject.digest.sha256)
        })
        .collect();
    subjects.join(", ")
}
