//! Authorizations of a small site of its own, whose CA and keys are made in memory.

use proptest::prelude::*;
use recipe_spec::statement::DigestSet;
use signer::ca::{self, CaFiles};
use signer::{Chain, SecretKey};

use super::*;
use crate::intake::SourceRef;
use crate::site::config::Level;

const NOW: i64 = 1_795_395_723;
const DAY: i64 = 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(NOW + seconds)
}

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

struct Site {
    ca: CaFiles,
    pins: SitePins,
    signer: Signer,
    /// Another pinned countersigner.
    second: Signer,
}

impl Site {
    fn new() -> Self {
        let ca = ca::init("example-site", "CA", (at(0), at(1000 * DAY)), at(1000 * DAY)).unwrap();
        let signer = key(&ca, Role::Countersigner);
        let second = key(&ca, Role::Countersigner);
        let crls = [ca.crl_pem.as_str()];
        let mut pins = SitePins::new(&ca.certificate_pem, &crls).unwrap();
        for signer in [&signer, &second] {
            pins = pins.pin(Role::Countersigner, signer.spki_sha256()).unwrap();
        }
        Self { ca, pins, signer, second }
    }

    fn verify(&self, file: &[u8], now: Timestamp) -> Result<VerifiedAuthorization, AuthorizationError> {
        Authorization::verify(file, &self.pins, &"example-site".parse().unwrap(), now)
    }

    fn code(&self, file: &[u8]) -> Code {
        self.verify(file, at(60)).unwrap_err().code()
    }

    /// A file of these three statements, signed as they are.
    fn sign(&self, payloads: [Vec<u8>; 3]) -> Vec<u8> {
        payloads.iter().flat_map(|payload| envelope(payload, &self.signer)).collect()
    }

    /// A file about `predicate`, without asking whether it suffices.
    fn sign_anything(&self, subject: Subject, predicate: AuthorizationPredicate) -> Vec<u8> {
        let statement = Statement::new(vec![subject], AUTHORIZATION_PREDICATE, predicate);
        let payload = statement.to_bytes().unwrap();
        let summary = summary::verification_summary(&statement, Sha256Digest::of(&payload));
        let tests = summary::test_result(&statement);
        self.sign([payload, summary.to_bytes().unwrap(), tests.to_bytes().unwrap()])
    }
}

fn key(ca: &CaFiles, role: Role) -> Signer {
    let key = SecretKey::generate().unwrap();
    let subject = ca::Subject { organisation: "example-site".into(), common_name: role.to_string() };
    let validity = (at(0), at(500 * DAY));
    let pem = ca::issue(&ca.key, &ca.certificate_pem, &subject, &key.public(), validity).unwrap();
    Signer::new(role, key, Chain::from_pem(&pem).unwrap()).unwrap()
}

fn envelope(payload: &[u8], signer: &Signer) -> Vec<u8> {
    dsse::sign(PAYLOAD_TYPE, payload, signer).unwrap().to_bytes()
}

fn predicate() -> AuthorizationPredicate {
    let test = |suite, name: &str, milliseconds| TestEvidence {
        suite,
        name: name.to_owned(),
        result: TestVerdict::Passed,
        seconds: Elapsed { milliseconds },
    };
    AuthorizationPredicate {
        site: "example-site".parse().unwrap(),
        level: Level::Recipe,
        issued_at: at(0),
        not_after: at(90 * DAY),
        recipe: RecipeEvidence {
            name: "atlas/web".parse().unwrap(),
            version: "1.4.0".parse().unwrap(),
            envelope: digest("envelope").into(),
            source: SourceRef {
                uri: "git+git://git.example.org/recipes".into(),
                commit: "0123456789012345678901234567890123456789".into(),
                path: "web".into(),
            },
            signer: SignerEvidence {
                spki: digest("key").into(),
                subject: "CN=A,O=atlas".into(),
                chain_valid_at: at(0),
            },
        },
        base: BaseEvidence { name: "debian-12".parse().unwrap(), sha256: digest("base") },
        site_recipes: vec![SiteRecipeEvidence {
            name: "site/baseline".parse().unwrap(),
            sha256: digest("site recipe"),
        }],
        policy: digest("policy").into(),
        scan: ScanEvidence { sha256: digest("scan"), decision: ScanDecision::Allow },
        reviews: Vec::new(),
        inputs: None,
        layers: vec![
            LayerEvidence { role: LayerRole::Vo, key: digest("key 1"), sha256: digest("layer 1") },
            LayerEvidence { role: LayerRole::Site, key: digest("key 2"), sha256: digest("layer 2") },
        ],
        template: None,
        disk: Some(DiskEvidence { changes: DigestSet { sha256: digest("changes") } }),
        tests: vec![
            test(TestSuite::Site, "listening sockets", 412),
            test(TestSuite::Vo, "serves the page", 1000),
        ],
        evidence: [("build".to_owned(), DigestSet { sha256: Sha256Digest::of(b"build") })].into(),
        pattern: None,
        crls: vec![CrlEvidence { issuer: "example-site".into(), number: 7, header: digest("header").into() }],
        builder: BuilderEvidence {
            version: "0.1.0".into(),
            qemu: "10.0.2".into(),
            machine: "q35".into(),
            cpu: "qemu64".into(),
            accelerator: Acceleration::Tcg,
        },
    }
}

fn subject() -> Subject {
    Subject::new("atlas/web@1.4.0", digest("recipe"))
}

#[test]
fn what_was_countersigned_is_verified_from_its_bytes() {
    let site = Site::new();
    let file = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
    let verified = site.verify(&file, at(60)).unwrap();
    assert_eq!(verified.predicate(), &predicate());
    assert_eq!(verified.recipe(), digest("recipe"));
    assert_eq!(verified.signer().spki_sha256(), site.signer.spki_sha256());
}

#[test]
fn what_it_needs_of_the_store_is_its_layers_and_its_template() {
    let site = Site::new();
    let mut predicate = predicate();
    let needed = |predicate: AuthorizationPredicate| {
        needed_untrusted(&countersign(digest("recipe"), predicate, &site.signer).unwrap()).unwrap()
    };
    let layers = [digest("layer 1"), digest("layer 2")];
    assert_eq!(needed(predicate.clone()), layers);
    predicate.template = Some(digest("template").into());
    assert_eq!(needed(predicate), [layers[0], layers[1], digest("template")]);
    assert_eq!(needed_untrusted(b"no authorization"), None);
}

#[test]
fn the_predicate_is_spelled_as_in_the_formats() {
    let json = serde_json::to_string(&predicate()).unwrap();
    let digest = |text| format!(r#"{{"sha256":"{}"}}"#, digest(text));
    let hex = |text: &str| Sha256Digest::of(text.as_bytes()).to_hex();
    let expected = format!(
        concat!(
            r#"{{"site":"example-site","level":"recipe","issuedAt":"2026-11-23T01:02:03Z","notAfter":"2027-02-21T01:02:03Z","#,
            r#""recipe":{{"name":"atlas/web","version":"1.4.0","envelope":{},"#,
            r#""source":{{"uri":"git+git://git.example.org/recipes","commit":"0123456789012345678901234567890123456789","path":"web"}},"#,
            r#""signer":{{"spki":{},"subject":"CN=A,O=atlas","chainValidAt":"2026-11-23T01:02:03Z"}}}},"#,
            r#""base":{{"name":"debian-12","sha256":"{}"}},"siteRecipes":[{{"name":"site/baseline","sha256":"{}"}}],"policy":{},"#,
            r#""scan":{{"sha256":"{}","decision":"allow"}},"#,
            r#""layers":[{{"role":"vo","key":"{}","sha256":"{}"}},{{"role":"site","key":"{}","sha256":"{}"}}],"disk":{{"changes":{}}},"#,
            r#""tests":[{{"suite":"site","name":"listening sockets","result":"PASSED","seconds":0.412}},"#,
            r#"{{"suite":"vo","name":"serves the page","result":"PASSED","seconds":1.0}}],"evidence":{{"build":{}}},"#,
            r#""crls":[{{"issuer":"example-site","number":7,"header":{}}}],"#,
            r#""builder":{{"version":"0.1.0","qemu":"10.0.2","machine":"q35","cpu":"qemu64","accelerator":"tcg"}}}}"#
        ),
        digest("envelope"),
        digest("key"),
        hex("base"),
        hex("site recipe"),
        digest("policy"),
        hex("scan"),
        hex("key 1"),
        hex("layer 1"),
        hex("key 2"),
        hex("layer 2"),
        digest("changes"),
        digest("build"),
        digest("header"),
    );
    assert_eq!(json, expected);
}

#[test]
fn the_other_two_statements_say_the_verdict_in_standard_words() {
    let site = Site::new();
    let file = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
    let payloads: Vec<serde_json::Value> = file
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let envelope = signer::Envelope::parse_untrusted(line).unwrap();
            serde_json::from_slice(envelope.payload_untrusted()).unwrap()
        })
        .collect();
    let [authorization, summary, tests] = &payloads[..] else { panic!("three lines") };
    for statement in &payloads {
        assert_eq!(statement["subject"], authorization["subject"]);
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    }
    assert_eq!(summary["predicateType"], "https://slsa.dev/verification_summary/v1");
    assert_eq!(summary["predicate"]["verificationResult"], "PASSED");
    assert_eq!(summary["predicate"]["timeVerified"], "2026-11-23T01:02:03Z");
    assert_eq!(summary["predicate"]["verifier"]["id"], "urn:countersign:site:example-site");
    assert_eq!(tests["predicateType"], "https://in-toto.io/attestation/test-result/v0.1");
    assert_eq!(tests["predicate"]["result"], "PASSED");
    assert_eq!(
        tests["predicate"]["passedTests"],
        serde_json::json!(["site/listening sockets", "vo/serves the page"])
    );
    assert_eq!(tests["predicate"]["configuration"].as_array().unwrap().len(), 3);
}

/// Each way in which evidence can fall short, and the code it is refused with.
fn shortcomings() -> Vec<(Code, AuthorizationPredicate)> {
    let short = |code, change: &dyn Fn(&mut AuthorizationPredicate)| {
        let mut predicate = predicate();
        change(&mut predicate);
        (code, predicate)
    };
    vec![
        short(Code::TestFailed, &|predicate| predicate.tests.clear()),
        short(Code::TestFailed, &|predicate| predicate.tests[0].result = TestVerdict::Failed),
        short(Code::TestFailed, &|predicate| predicate.tests[1].result = TestVerdict::Skipped),
        short(Code::TestFailed, &|predicate| predicate.disk = None),
        short(Code::ReviewNeeded, &|predicate| predicate.scan.decision = ScanDecision::Review),
        short(Code::CrlMissing, &|predicate| predicate.crls.clear()),
        short(Code::LayerMismatch, &|predicate| predicate.layers.clear()),
        short(Code::AuthorizationExpired, &|predicate| predicate.not_after = predicate.issued_at),
    ]
}

#[test]
fn evidence_that_falls_short_is_neither_signed_nor_believed_when_signed() {
    let site = Site::new();
    for (code, predicate) in shortcomings() {
        let refused = countersign(digest("recipe"), predicate.clone(), &site.signer).unwrap_err();
        assert_eq!(refused.code(), Some(code), "{refused}");
        assert_eq!(site.code(&site.sign_anything(subject(), predicate)), code);
    }
    let mut reviewed = predicate();
    reviewed.scan.decision = ScanDecision::Review;
    reviewed.reviews.push(digest("review").into());
    let _ = site.verify(&countersign(digest("recipe"), reviewed, &site.signer).unwrap(), at(60)).unwrap();
}

#[test]
fn only_a_countersigner_countersigns() {
    let site = Site::new();
    let base_signer = key(&site.ca, Role::BaseSigner);
    let refused = countersign(digest("recipe"), predicate(), &base_signer).unwrap_err();
    assert!(matches!(refused, CountersignError::Sign(_)), "{refused}");
    // Under the site's own CA, but not pinned.
    let unpinned = key(&site.ca, Role::Countersigner);
    let file = countersign(digest("recipe"), predicate(), &unpinned).unwrap();
    assert_eq!(site.code(&file), Code::UntrustedSigner);
    let other = Site::new();
    let file = countersign(digest("recipe"), predicate(), &other.signer).unwrap();
    assert_eq!(site.code(&file), Code::UntrustedSigner);
}

#[test]
fn the_moments_at_which_it_counts() {
    let site = Site::new();
    let file = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
    let _ = site.verify(&file, at(0)).unwrap();
    let _ = site.verify(&file, at(90 * DAY - 1)).unwrap();
    assert_eq!(site.verify(&file, at(90 * DAY)).unwrap_err().code(), Code::AuthorizationExpired);
    let mut future = predicate();
    future.issued_at = at(10 * DAY);
    let file = countersign(digest("recipe"), future, &site.signer).unwrap();
    assert_eq!(site.verify(&file, at(10 * DAY - 1)).unwrap_err().code(), Code::ClockBackward);
    // The countersigner's own certificate must be valid now, however long the authorization says.
    let mut long = predicate();
    long.not_after = at(900 * DAY);
    let file = countersign(digest("recipe"), long, &site.signer).unwrap();
    assert_eq!(site.verify(&file, at(501 * DAY)).unwrap_err().code(), Code::CertExpired);
}

#[test]
fn another_sites_authorization_is_refused() {
    let site = Site::new();
    let mut other = predicate();
    other.site = "other-site".parse().unwrap();
    let file = countersign(digest("recipe"), other, &site.signer).unwrap();
    assert_eq!(site.code(&file), Code::WrongSite);
}

#[test]
fn a_statement_about_something_else_than_its_own_recipe_is_refused() {
    let site = Site::new();
    for name in ["atlas/web@1.4.1", "atlas/web", "other/web@1.4.0"] {
        let file = site.sign_anything(Subject::new(name, digest("recipe")), predicate());
        assert_eq!(site.code(&file), Code::BadSignature, "{name}");
    }
    let _ = site.verify(&site.sign_anything(subject(), predicate()), at(60)).unwrap();
}

#[test]
fn lines_of_different_authorizations_cannot_be_mixed() {
    let site = Site::new();
    let one = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
    let mut later = predicate();
    later.issued_at = at(1);
    let two = countersign(digest("recipe"), later, &site.signer).unwrap();
    let lines =
        |file: &[u8]| file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (one_lines, two_lines) = (lines(&one), lines(&two));
    for line in 0..3 {
        let mut mixed = one_lines.clone();
        mixed[line] = two_lines[line].clone();
        // The two test results are the same: nothing in them depends on the time.
        let expected = (one_lines[line] == two_lines[line]).then_some(());
        assert_eq!(site.verify(&mixed.concat(), at(60)).ok().map(|_| ()), expected, "line {line}");
    }
    let mut swapped = one_lines.clone();
    swapped.swap(1, 2);
    assert_eq!(site.code(&swapped.concat()), Code::BadSignature);
    for shape in [&one_lines[..2], &[&one_lines[..], &one_lines[2..]].concat()[..], &[]] {
        assert!(matches!(site.verify(&shape.concat(), at(60)), Err(AuthorizationError::Form)));
    }
}

#[test]
fn lines_signed_by_two_countersigners_are_refused() {
    let site = Site::new();
    let one = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
    let two = countersign(digest("recipe"), predicate(), &site.second).unwrap();
    let _ = site.verify(&two, at(60)).unwrap();
    let first_line = one.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let second_line = two.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mixed = [&one[..first_line], &two[second_line..]].concat();
    assert!(matches!(site.verify(&mixed, at(60)), Err(AuthorizationError::OtherSigner)));
}

#[test]
fn it_keeps_its_name_under_a_renewed_certificate() {
    let site = Site::new();
    let one = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
    let two = countersign(digest("recipe"), predicate(), &site.second).unwrap();
    assert_ne!(one, two);
    let name = |file| site.verify(file, at(60)).unwrap().digest();
    assert_eq!(name(&one), name(&two));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_flipped_bit_is_accepted(position in any::<prop::sample::Index>(), bit in 0u8..8) {
        let site = Site::new();
        let mut file = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
        let position = position.index(file.len());
        file[position] ^= 1 << bit;
        prop_assert!(site.verify(&file, at(60)).is_err());
    }

    #[test]
    fn times_read_back_as_they_were_written(milliseconds: u32) {
        let json = serde_json::to_string(&Elapsed { milliseconds }).unwrap();
        let read: Elapsed = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read.milliseconds, milliseconds);
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }
}

#[test]
fn a_time_that_no_test_can_take_is_refused() {
    for wrong in ["-1.0", "1e300", "5000000.0", "null", "\"1\""] {
        assert!(serde_json::from_str::<Elapsed>(wrong).is_err(), "{wrong}");
    }
}

/// OpenSSL alone, given the file's own certificate and the DSSE v1 §PAE written out by hand.
#[test]
fn openssl_verifies_each_signature_and_the_chain() {
    let site = Site::new();
    let file = countersign(digest("recipe"), predicate(), &site.signer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
    let openssl = |arguments: &[&str]| {
        let run = std::process::Command::new("openssl").args(arguments).current_dir(folder.path()).output();
        run.expect("openssl is needed for this test").status.success()
    };
    write("ca.pem", site.ca.certificate_pem.as_bytes());
    let verify = [
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "key.pem",
        "-sigfile",
        "signature",
        "-in",
        "pae",
    ];
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        let envelope = signer::Envelope::parse_untrusted(line).unwrap();
        let [signature] = envelope.signatures() else { panic!("one signature") };
        let payload = envelope.payload_untrusted();
        let mut pae = format!("DSSEv1 28 application/vnd.in-toto+json {} ", payload.len()).into_bytes();
        pae.extend(payload);
        write("pae", &pae);
        write("signature", signature.signature());
        write("leaf.pem", signature.chain().leaf().to_pem().as_bytes());
        assert!(openssl(&["x509", "-in", "leaf.pem", "-noout", "-pubkey", "-out", "key.pem"]));
        assert!(openssl(&verify));
        *pae.last_mut().unwrap() ^= 1;
        write("pae", &pae);
        assert!(!openssl(&verify));
    }
    let chain = |time: Timestamp| {
        let time = time.unix().to_string();
        openssl(&["verify", "-x509_strict", "-attime", &time, "-CAfile", "ca.pem", "leaf.pem"])
    };
    assert!(chain(at(60)));
    assert!(!chain(at(501 * DAY)), "past the leaf's validity");
    write("ca.pem", Site::new().ca.certificate_pem.as_bytes());
    assert!(!chain(at(60)), "under another site's CA");
}
