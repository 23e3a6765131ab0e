//! The verdict in words that other tools read: SLSA's verification summary and in-toto's test result. Both say
//! nothing new: they are derived from the authorization, and whoever verifies it derives them again and compares.

use recipe_spec::statement::{DigestSet, Statement, Subject};
use recipe_spec::{Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};
use signer::role::{TEST_RESULT_PREDICATE, VERIFICATION_SUMMARY_PREDICATE};

use super::predicate::{AuthorizationPredicate, TestEvidence, TestVerdict};
use crate::site::config::Level;

/// `https://slsa.dev/verification_summary/v1` (slsa.dev/spec/v1.1/verification_summary).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct VerificationSummary {
    verifier: Verifier,
    time_verified: Timestamp,
    resource_uri: String,
    policy: Resource,
    input_attestations: Vec<Resource>,
    verification_result: TestVerdict,
    verified_levels: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verifier {
    id: String,
    version: VerifierVersion,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifierVersion {
    countersign: String,
}

/// in-toto `ResourceDescriptor` with the two fields used here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    uri: String,
    digest: DigestSet,
}

/// `https://in-toto.io/attestation/test-result/v0.1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TestResult {
    result: TestVerdict,
    configuration: Vec<Subject>,
    passed_tests: Vec<String>,
    failed_tests: Vec<String>,
}

fn resource(uri: impl Into<String>, digest: Sha256Digest) -> Resource {
    Resource { uri: uri.into(), digest: digest.into() }
}

/// The summary of an authorization: `statement` is the digest of its bytes.
pub(super) fn verification_summary(
    authorization: &Statement<AuthorizationPredicate>,
    statement: Sha256Digest,
) -> Statement<VerificationSummary> {
    let predicate = &authorization.predicate;
    let recipe = &predicate.recipe;
    let summary = VerificationSummary {
        verifier: Verifier {
            id: format!("urn:countersign:site:{}", predicate.site),
            version: VerifierVersion { countersign: predicate.builder.version.clone() },
        },
        time_verified: predicate.issued_at,
        resource_uri: format!("urn:countersign:recipe:{}@{}", recipe.name, recipe.version),
        policy: resource(format!("urn:countersign:site:{}:policy", predicate.site), predicate.policy.sha256),
        input_attestations: vec![
            resource("urn:countersign:recipe:v1", recipe.envelope.sha256),
            resource("urn:countersign:authorization:v1", statement),
        ],
        verification_result: TestVerdict::Passed,
        verified_levels: vec![verified_level(predicate.level).to_owned()],
    };
    Statement::new(authorization.subject.clone(), VERIFICATION_SUMMARY_PREDICATE, summary)
}

/// Not one of SLSA's own levels: nothing here says how the recipe's inputs were built.
fn verified_level(level: Level) -> &'static str {
    match level {
        Level::Visitor => "COUNTERSIGN_VISITOR",
        Level::Recipe => "COUNTERSIGN_RECIPE",
        Level::Menu => "COUNTERSIGN_MENU",
    }
}

/// The test result of an authorization, about the same recipe on this base and these layers.
pub(super) fn test_result(authorization: &Statement<AuthorizationPredicate>) -> Statement<TestResult> {
    let predicate = &authorization.predicate;
    let base = Subject::new(format!("base/{}", predicate.base.name), predicate.base.sha256);
    let layers = predicate.layers.iter().enumerate();
    let configuration = std::iter::once(base)
        .chain(layers.map(|(number, layer)| Subject::new(format!("layer/{number}"), layer.sha256)))
        .collect();
    let (passed, failed): (Vec<_>, Vec<_>) =
        predicate.tests.iter().partition(|test| test.result == TestVerdict::Passed);
    let names = |tests: Vec<&TestEvidence>| {
        tests.iter().map(|test| format!("{}/{}", test.suite.as_str(), test.name)).collect()
    };
    let result = if failed.is_empty() { TestVerdict::Passed } else { TestVerdict::Failed };
    let result =
        TestResult { result, configuration, passed_tests: names(passed), failed_tests: names(failed) };
    Statement::new(authorization.subject.clone(), TEST_RESULT_PREDICATE, result)
}
