//! The countersignature, with every input, layer and verdict named by digest; and its publication.

use std::time::Duration;

use crl::Clear;
use recipe_spec::statement::DigestSet;
use recipe_spec::{Code, PayloadFile, Sha256Digest, Timestamp};
use serde::Serialize;
use signer::Signer;
use signer::limits::MAX_ENVELOPE_BYTES;

use super::layers;
use super::trial::Tested;
use super::{Authorized, Made};
use crate::authorization::{
    self, Authorization, AuthorizationPredicate, BaseEvidence, CrlEvidence, DiskEvidence, LayerEvidence,
    RecipeEvidence, ScanDecision, ScanEvidence, SignerEvidence, SiteRecipeEvidence, TestEvidence, TestSuite,
    TestVerdict,
};
use crate::ledger::Ledger;
use crate::machines::Machines;
use crate::publication::{
    self, AUTHORIZATION_FILE, EVIDENCE_FOLDER, Files, RECIPE_ENVELOPE_FILE, RECIPE_FOLDER,
};
use crate::site::config::Policy;
use crate::site::{Site, SiteLock};
use crate::stopped::Stopped;
use crate::suite::{self, TestResult};

/// Kept free in a publication for the authorization itself: three envelopes.
const AUTHORIZATION_BYTES: usize = 3 * MAX_ENVELOPE_BYTES;

/// A countersigned result, not yet published.
#[derive(Debug)]
pub(super) struct Signed {
    tested: Tested,
    file: Vec<u8>,
    evidence: Evidence,
    not_after: Timestamp,
    crl_number: u64,
}

/// Documents that the authorization names by digest.
#[derive(Debug)]
struct Evidence {
    scan: Vec<u8>,
    policy: Vec<u8>,
    build: Vec<u8>,
    tests: Vec<u8>,
    facts: Vec<u8>,
    later: Vec<u8>,
    files: Vec<u8>,
    disk: Vec<u8>,
    booted: Vec<u8>,
    /// Its digest is the template's.
    template: Vec<u8>,
}

impl Evidence {
    /// Each document, by its file's name.
    fn documents(&self) -> [(&'static str, &[u8]); 10] {
        let Self { scan, policy, build, tests, facts, later, files, disk, booted, template } = self;
        [
            ("scan.jsonl", scan),
            ("policy.json", policy),
            ("build.json", build),
            ("tests.json", tests),
            ("facts.json", facts),
            ("later.json", later),
            ("files.json", files),
            ("disk.jsonl", disk),
            ("booted.jsonl", booted),
            ("template.json", template),
        ]
    }
}

/// What the site decided by: its policy and the configuration of its tests.
#[derive(Serialize)]
struct PolicyInForce<'a> {
    policy: &'a Policy,
    suite: DigestSet,
}

/// What was done while building, for people: the build machine's word proves nothing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildReport<'a> {
    base_template: DigestSet,
    steps: &'a [super::build::AppliedStep],
    fetched: &'a [crate::events::Event],
}

/// Signs what was tested.
pub(super) fn countersign(
    tested: Tested,
    current: &Clear,
    site: &Site,
    machines: &Machines<'_>,
    countersigner: &Signer,
    now: Timestamp,
) -> Result<Signed, Stopped> {
    let sealed = &tested.sealed;
    let verified = sealed.scanned.clear().verified();
    let recipe = verified.recipe();
    let info = &recipe.manifest().recipe;
    let evidence = Evidence {
        scan: sealed.scanned.report().json_lines().into_bytes(),
        policy: policy_in_force(site, tested.suite)?,
        build: json_line(&BuildReport {
            base_template: DigestSet { sha256: sealed.base_template },
            steps: &sealed.steps,
            fetched: &sealed.fetched,
        })?,
        tests: json_line(&tested.tests)?,
        facts: tested.facts.clone(),
        later: tested.later.clone(),
        files: tested.disk.files.clone(),
        disk: tested.disk.changes.clone(),
        booted: tested.disk.booted.clone(),
        template: tested.template.record().to_json(),
    };
    let of_recipe = recipe.payload().iter().map(|(_, file)| file.bytes.len()).sum::<usize>();
    let left = publication::BYTES - AUTHORIZATION_BYTES;
    fits(verified.envelope().len() + of_recipe, &evidence.documents(), left)?;
    let signer = verified.signer();
    let not_after = now.plus_seconds(site.config().policy.authorization_seconds());
    let predicate = AuthorizationPredicate {
        site: site.id().clone(),
        level: site.config().policy.level,
        issued_at: now,
        not_after,
        recipe: RecipeEvidence {
            name: info.name.clone(),
            version: info.version.clone(),
            envelope: digest_of(verified.envelope()),
            source: verified.source().clone(),
            signer: SignerEvidence {
                spki: DigestSet { sha256: signer.spki_sha256() },
                subject: signer.subject().to_owned(),
                chain_valid_at: verified.verified_at(),
            },
        },
        base: BaseEvidence {
            name: sealed.base.name().parse().map_err(Stopped::internal)?,
            sha256: sealed.base.sha256(),
        },
        site_recipes: sealed
            .site_recipes
            .iter()
            .map(|r| SiteRecipeEvidence { name: r.manifest().recipe.name.clone(), sha256: r.digest() })
            .collect(),
        policy: digest_of(&evidence.policy),
        scan: ScanEvidence { sha256: Sha256Digest::of(&evidence.scan), decision: ScanDecision::Allow },
        reviews: Vec::new(),
        inputs: None,
        layers: sealed
            .layers
            .iter()
            .map(|layer| LayerEvidence { role: layer.role, key: layer.key, sha256: layer.sha256 })
            .collect(),
        template: Some(DigestSet { sha256: tested.template.sha256() }),
        disk: Some(DiskEvidence { changes: digest_of(&evidence.disk) }),
        tests: tested.tests.iter().map(test_evidence).collect(),
        evidence: [
            ("build", &evidence.build),
            ("tests", &evidence.tests),
            ("facts", &evidence.facts),
            ("later", &evidence.later),
            ("files", &evidence.files),
            ("booted", &evidence.booted),
        ]
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), digest_of(bytes)))
        .collect(),
        pattern: None,
        crls: vec![CrlEvidence {
            issuer: site.id().to_string(),
            number: current.number,
            header: DigestSet { sha256: current.header },
        }],
        builder: machines.evidence(),
    };
    let file = authorization::countersign(recipe.digest(), predicate, countersigner)?;
    Ok(Signed { evidence, file, not_after, crl_number: current.number, tested })
}

/// What the site decides by, as it is published: a submission that was judged by it is not judged by it again.
pub(super) fn policy_in_force(site: &Site, suite: Sha256Digest) -> Result<Vec<u8>, Stopped> {
    json_line(&PolicyInForce { policy: &site.config().policy, suite: DigestSet { sha256: suite } })
}

/// Refuses more than one publication can hold, before anything is signed or recorded: to publish it would be tried again for ever.
fn fits(of_recipe: usize, documents: &[(&str, &[u8])], most: usize) -> Result<(), Stopped> {
    let all = of_recipe + documents.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    if all <= most {
        return Ok(());
    }
    let largest = documents.iter().max_by_key(|(_, bytes)| bytes.len());
    let (name, bytes) = largest.map_or(("", 0), |(name, bytes)| (*name, bytes.len()));
    let message = format!(
        "recipe and evidence are {all} bytes, and {most} can be published; the largest of it is {EVIDENCE_FOLDER}/{name} with {bytes}"
    );
    Err(Stopped::new(Code::TestFailed, message).hint(
        "the names and attributes of the files that a recipe brings make evidence large: bring fewer files, with shorter \
         names and fewer attributes",
    ))
}

fn digest_of(bytes: &[u8]) -> DigestSet {
    DigestSet { sha256: Sha256Digest::of(bytes) }
}

fn json_line(value: &impl Serialize) -> Result<Vec<u8>, Stopped> {
    let mut bytes = serde_json::to_vec(value).map_err(Stopped::internal)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn test_evidence(test: &TestResult) -> TestEvidence {
    TestEvidence {
        suite: if test.suite == suite::SUITE { TestSuite::Site } else { TestSuite::Vo },
        name: test.name.clone(),
        result: if test.passed() { TestVerdict::Passed } else { TestVerdict::Failed },
        seconds: Duration::try_from_secs_f64(test.seconds).unwrap_or_default().into(),
    }
}

impl Signed {
    pub(super) fn detail(&self) -> String {
        format!("valid until {}", self.not_after)
    }

    /// Writes everything into the site's repository, moves the layers into its store, notes the version as authorized, and
    /// commits. The commit is the moment from which the authorization exists.
    pub(super) fn publish(self, site: &Site, lock: &SiteLock, now: Timestamp) -> Result<Authorized, Stopped> {
        // What no deployment would accept (an expired countersigner, say) is not published.
        let statement = Authorization::verify(&self.file, site.pins(), site.id(), now)?;
        let verified = self.tested.sealed.scanned.clear().verified();
        let recipe = verified.recipe();
        let info = &recipe.manifest().recipe;
        let commit = self.commit(site, lock, now);
        // The layers of what was not published, or of what it replaces: no authorization names them any more.
        let swept = layers::sweep(site, lock);
        let commit = commit?;
        // It is published, whatever becomes of files that nothing needs: the next run sweeps again.
        drop(swept);
        Ok(Authorized {
            name: info.name.clone(),
            version: info.version.clone(),
            recipe: recipe.digest(),
            authorization: statement.digest(),
            commit,
            source_commit: verified.source().commit.clone(),
            not_after: self.not_after,
            crl_number: self.crl_number,
            made: Made::Now,
        })
    }

    fn commit(&self, site: &Site, lock: &SiteLock, now: Timestamp) -> Result<String, Stopped> {
        let recipe = self.tested.sealed.scanned.recipe();
        let info = &recipe.manifest().recipe;
        // What cannot be published leaves no trace: once the ledger has it, lower versions are refused for ever.
        let staged = publication::stage(lock, &self.files()?)?;
        layers::keep(&self.tested.sealed.layers, &self.tested.template, site, lock)?;
        let mut ledger = Ledger::open(&site.layout().ledger())?;
        // The ledger before the commit: a crash in between leaves the stricter state.
        ledger.record_authorized(&info.name, &info.version, recipe.digest(), now)?;
        let commit = staged.publish(lock, &info.name, &info.version, &self.message(), now)?;
        // It is published: what cannot be recorded now, the next run finds in the repository.
        let _ = ledger.record_published(&info.name, &info.version, recipe.digest(), &commit, now);
        Ok(commit)
    }

    fn message(&self) -> String {
        format!(
            "Authorize {}",
            self.tested.sealed.scanned.clear().verified().recipe().manifest().subject_name()
        )
    }

    fn files(&self) -> Result<Files, Stopped> {
        let verified = self.tested.sealed.scanned.clear().verified();
        let mut files = Files::new();
        let mut add = |path: String, bytes: &[u8], executable: bool| -> Result<(), Stopped> {
            let path = path.parse().map_err(Stopped::internal)?;
            files.insert(path, PayloadFile { bytes: bytes.to_vec(), executable });
            Ok(())
        };
        add(AUTHORIZATION_FILE.to_owned(), &self.file, false)?;
        add(RECIPE_ENVELOPE_FILE.to_owned(), verified.envelope(), false)?;
        for (path, file) in verified.recipe().payload().iter() {
            add(format!("{RECIPE_FOLDER}/{path}"), &file.bytes, file.executable)?;
        }
        for (name, bytes) in self.evidence.documents() {
            add(format!("{EVIDENCE_FOLDER}/{name}"), bytes, false)?;
        }
        Ok(files)
    }
}

impl Authorized {
    pub(super) fn detail(&self) -> String {
        format!("commit {}", self.commit.get(..12).unwrap_or(&self.commit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_that_cannot_be_published_is_the_recipes_and_the_largest_is_named() {
        let documents: [(&str, &[u8]); 3] =
            [("scan.jsonl", b"s"), ("facts.json", b"facts"), ("disk.jsonl", b"di")];
        fits(2, &documents, 10).unwrap();
        let stopped = fits(3, &documents, 10).unwrap_err();
        assert_eq!(stopped.code, Code::TestFailed);
        assert!(stopped.message.contains("11 bytes, and 10 can"), "{stopped:?}");
        assert!(stopped.message.ends_with("evidence/facts.json with 5"), "{stopped:?}");
        assert!(stopped.hints[0].contains("names and attributes"), "{stopped:?}");
    }
}
