//! What an authorization says: every input, layer and verdict, by digest. Field for field as in `docs/formats.md`.

use std::collections::BTreeMap;

use recipe_spec::name::BaseName;
use recipe_spec::statement::DigestSet;
use recipe_spec::{RecipeName, Sha256Digest, Timestamp};
use semver::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::intake::SourceRef;
use crate::site::config::{Level, SiteId};

/// The predicate `urn:countersign:authorization:v1`. What is not known is absent, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPredicate {
    /// The site that authorizes; nobody else's deployments follow it.
    pub site: SiteId,
    /// The trust level of instances.
    pub level: Level,
    /// When the site signed.
    pub issued_at: Timestamp,
    /// From then on it authorizes nothing.
    pub not_after: Timestamp,
    /// The VO's recipe.
    pub recipe: RecipeEvidence,
    /// The base image.
    pub base: BaseEvidence,
    /// The site's recipes, in the order in which they were applied.
    pub site_recipes: Vec<SiteRecipeEvidence>,
    /// The policy in force.
    pub policy: DigestSet,
    /// The scan of the VO's recipe.
    pub scan: ScanEvidence,
    /// What people signed who reviewed recipe or evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reviews: Vec<DigestSet>,
    /// What was fetched while building.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<InputsEvidence>,
    /// The layers on the base, bottom first.
    pub layers: Vec<LayerEvidence>,
    /// The template that instances are cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<DigestSet>,
    /// What a look at the disk from outside found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskEvidence>,
    /// Every test that ran.
    pub tests: Vec<TestEvidence>,
    /// Other documents published with it, by the stem of their file's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evidence: BTreeMap<String, DigestSet>,
    /// The expected behaviour of an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<DigestSet>,
    /// The recipe CRLs under which nothing was revoked. A deployment requires at least these numbers.
    pub crls: Vec<CrlEvidence>,
    /// What built and tested it.
    pub builder: BuilderEvidence,
}

/// The VO's recipe and how it came here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecipeEvidence {
    /// `VO/name`.
    pub name: RecipeName,
    /// Its version.
    pub version: Version,
    /// The VO's envelope, as its bytes came.
    pub envelope: DigestSet,
    /// Repository, commit and folder.
    pub source: SourceRef,
    /// Who signed it.
    pub signer: SignerEvidence,
}

/// Who signed a recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignerEvidence {
    /// The key.
    pub spki: DigestSet,
    /// The certificate's subject.
    pub subject: String,
    /// When the chain was found valid.
    pub chain_valid_at: Timestamp,
}

/// A base image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseEvidence {
    /// Its name in the site's catalogue.
    pub name: BaseName,
    /// Its digest.
    pub sha256: Sha256Digest,
}

/// One of the site's recipes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteRecipeEvidence {
    /// `site/name`.
    pub name: RecipeName,
    /// The recipe's digest.
    pub sha256: Sha256Digest,
}

/// The report of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanEvidence {
    /// The report.
    pub sha256: Sha256Digest,
    /// What it came to.
    pub decision: ScanDecision,
}

/// What a scan can come to where an authorization follows: a recipe that is denied has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScanDecision {
    /// Nothing stands against it.
    Allow,
    /// A person has to look, and did.
    Review,
}

/// What was fetched while building.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputsEvidence {
    /// The list of everything fetched.
    pub lock: DigestSet,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerEvidence {
    /// Whose recipe made it.
    pub role: LayerRole,
    /// The digest of all that went into it: finds it.
    pub key: Sha256Digest,
    /// The digest of its bytes: a launch checks it.
    pub sha256: Sha256Digest,
}

/// Whose recipe made a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerRole {
    /// The VO's.
    Vo,
    /// The site's.
    Site,
}

/// What a look at the disk from outside found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskEvidence {
    /// The list of changes to the base.
    pub changes: DigestSet,
}

/// One test that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestEvidence {
    /// `site` or `vo`.
    pub suite: TestSuite,
    /// The test's name.
    pub name: String,
    /// How it ended.
    pub result: TestVerdict,
    /// How long it took.
    pub seconds: Elapsed,
}

/// Whose test it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestSuite {
    /// The site's security tests.
    Site,
    /// The VO's function tests.
    Vo,
}

impl TestSuite {
    /// As in the predicate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Vo => "vo",
        }
    }
}

/// How a test ended. Only what passed can be in an authorization; a test that did not run did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TestVerdict {
    /// It ran and passed.
    Passed,
    /// It ran and failed.
    Failed,
    /// It did not run.
    Skipped,
}

/// A span of time, in JSON in seconds with at most three decimals: a number that reads back as it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Elapsed {
    /// Thousandths of a second.
    pub milliseconds: u32,
}

impl From<std::time::Duration> for Elapsed {
    fn from(duration: std::time::Duration) -> Self {
        Self { milliseconds: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX) }
    }
}

impl Serialize for Elapsed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.milliseconds) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Elapsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let milliseconds = (f64::deserialize(deserializer)? * 1000.0).round();
        if (0.0..=f64::from(u32::MAX)).contains(&milliseconds) {
            // In range and whole, so nothing is lost; another spelling of the number is found by re-encoding.
            Ok(Self { milliseconds: milliseconds as u32 })
        } else {
            Err(serde::de::Error::custom("a time beyond what a test can take"))
        }
    }
}

/// A recipe CRL that was consulted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrlEvidence {
    /// Who issued it.
    pub issuer: String,
    /// Its number.
    pub number: u64,
    /// Its header.
    pub header: DigestSet,
}

/// What built and tested the layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuilderEvidence {
    /// Of this program.
    pub version: String,
    /// QEMU's version.
    pub qemu: String,
    /// QEMU's machine type.
    pub machine: String,
    /// QEMU's CPU model.
    pub cpu: String,
    /// `kvm` or `tcg`.
    pub accelerator: Acceleration,
}

/// How the machine's instructions ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acceleration {
    /// By hardware.
    Kvm,
    /// Emulated in software.
    Tcg,
}
