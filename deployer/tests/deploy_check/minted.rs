//! A site as an authorization leaves it, made in a second and without a machine: base and layers are a few bytes each, keys,
//! signatures, lists, ledger and repositories are real. So each of them can be spoiled, and dated as a test wants.
#![allow(dead_code, reason = "the command line's tests include this file too, and each uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use authorizer::authorization::{
    self, Acceleration, AuthorizationPredicate, BaseEvidence, BuilderEvidence, CrlEvidence, DiskEvidence,
    LayerEvidence, LayerRole, RecipeEvidence, ScanDecision, ScanEvidence, SignerEvidence, SiteRecipeEvidence,
    TestEvidence, TestSuite, TestVerdict,
};
use authorizer::base::{self, BasePredicate};
use authorizer::intake::SourceRef;
use authorizer::ledger::Ledger;
use authorizer::publication::{self, AUTHORIZATION_FILE, Files, RECIPE_ENVELOPE_FILE, RECIPE_FOLDER};
use authorizer::site::config::Level;
use authorizer::site::{InitOptions, KeyProtection, Layout, Site, SiteLock, TrustLock, add_vo};
use crl::{AuthenticCrl, Reason, Scope, Seen, Selector};
use harness::template::{Booted, MEMORY_FILE, OVERLAY_FILE, RECORD_FILE, Record, STATE_FILE, Shape};
use harness::{Accelerator, Mode, Qemu};
use recipe_spec::payload::PayloadFile;
use recipe_spec::statement::{BASE_PREDICATE, Statement, Subject, recipe_statement};
use recipe_spec::{Limits, Payload, Recipe, Sha256Digest, Timestamp};
use signer::ca::{self, CaFiles};
use signer::{Chain, PAYLOAD_TYPE, Role, SecretKey, Signer, dsse};

/// What a template of this host would be.
pub(crate) fn template_record() -> Record {
    let digest = |text: &str| Sha256Digest::of(text.as_bytes());
    Record {
        shape: Shape {
            qemu: Qemu::find().unwrap().version,
            protocol: 3,
            machine: "q35".into(),
            cpu: "qemu64".into(),
            accelerator: Accelerator::Tcg,
            memory_mib: 1024,
            mode: Mode::Disk,
            card: true,
            relay: false,
            images: Vec::new(),
        },
        booted: Booted { kernel: digest("kernel"), initrd: digest("initrd"), command_line: "quiet".into() },
        // One piece, and shorter than a MiB.
        memory: Sha256Digest::of(digest("memory").as_bytes()),
        state: digest("state"),
        overlay: Some(digest("overlay")),
    }
}

pub(crate) const DAY: i64 = 86_400;
pub(crate) const YEAR: i64 = 365 * DAY;

/// The recipe that the site has authorized, without its version.
pub(crate) const NAME: &str = "atlas/web";
pub(crate) const VERSION: &str = "1.4.0";

pub(crate) struct Minted {
    folder: tempfile::TempDir,
    /// When everything was made.
    pub(crate) now: Timestamp,
    /// The VO's CA.
    pub(crate) vo: CaFiles,
    /// Signs for the VO.
    pub(crate) signer: Signer,
    /// Nobody authorized this one, but the site has a base and trusts the VO.
    pub(crate) recipe: Recipe,
}

impl Minted {
    /// A site made at `now`, with a base and a VO, and `atlas/web` 1.4.0 authorized.
    pub(crate) fn at(now: Timestamp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = InitOptions {
            id: "example-site".parse().unwrap(),
            protection: KeyProtection::None,
            now,
            allow_emulation: true,
            site_recipes: None,
            debian: Vec::new(),
        };
        let site = Site::init(&folder.path().join("site"), &options).unwrap();
        let vo =
            ca::init("atlas", "atlas CA", (now, now.plus_seconds(10 * YEAR)), now.plus_seconds(30 * DAY));
        let vo = vo.unwrap();
        let atlas = "atlas".parse().unwrap();
        let trust = TrustLock::acquire(site.layout(), Duration::ZERO).unwrap();
        add_vo(&trust, &atlas, &vo.certificate_pem, &vo.crl_pem, std::slice::from_ref(&atlas)).unwrap();
        drop(trust);
        let signer = issued(&vo, Role::RecipeSigner, "atlas", (now, now.plus_seconds(YEAR)));
        let minted = Self { folder, now, vo, signer, recipe: recipe(NAME, VERSION, "hello\n") };
        minted.sign_base(Role::BaseSigner, "6.1.0-1-amd64");
        for layer in [&b"the VO's layer"[..], b"the site's layer"] {
            put(&minted.layer(layer), layer);
        }
        fs::create_dir_all(minted.template()).unwrap();
        for (name, bytes) in [
            (RECORD_FILE, &template_record().to_json()[..]),
            (MEMORY_FILE, b"memory"),
            (STATE_FILE, b"state"),
            (OVERLAY_FILE, b"overlay"),
        ] {
            put(&minted.template().join(name), bytes);
        }
        minted.publish(&minted.countersigned(minted.predicate()));
        minted.note_authorized(VERSION);
        minted
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.folder.path().join("site"))
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn open(&self) -> Site {
        Site::open(self.layout().root()).unwrap()
    }

    /// The site's key of one role with its certificate, in the hands of somebody who uses it as `posing`.
    pub(crate) fn site_key(&self, role: Role, posing: Role) -> Signer {
        let chain = fs::read_to_string(self.layout().certificate(role).unwrap()).unwrap();
        Signer::new(posing, self.site_secret(role), Chain::from_pem(&chain).unwrap()).unwrap()
    }

    pub(crate) fn site_secret(&self, role: Role) -> SecretKey {
        let pem = fs::read_to_string(self.layout().key(role).unwrap()).unwrap();
        SecretKey::from_pem(&pem, None).unwrap()
    }

    /// Signs the base's statement anew over the files that are there; the first time it makes them.
    pub(crate) fn sign_base(&self, by: Role, kernel: &str) {
        let folder = self.layout().bases().join("debian-12");
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            for file in base::FILES {
                put(&folder.join(file), format!("the base's {file}").as_bytes());
            }
            let facts = serde_json::to_vec(&guest::facts::Facts::default()).unwrap();
            put(&folder.join(base::FACTS_FILE), &facts);
        }
        let subject = |file| Subject::new(file, Sha256Digest::of(&fs::read(folder.join(file)).unwrap()));
        let predicate = BasePredicate {
            name: "debian-12".to_owned(),
            created: self.now,
            kernel: kernel.to_owned(),
            releases: Vec::new(),
            packages: [].into(),
            tools: [].into(),
        };
        let payload = Statement::new(base::FILES.map(subject).to_vec(), BASE_PREDICATE, predicate);
        let envelope =
            dsse::sign(PAYLOAD_TYPE, &payload.to_bytes().unwrap(), &self.site_key(by, Role::BaseSigner));
        put(&folder.join(base::STATEMENT_FILE), &envelope.unwrap().to_bytes());
    }

    pub(crate) fn base_digest(&self) -> Sha256Digest {
        let bytes = fs::read(self.layout().bases().join("debian-12").join(base::STATEMENT_FILE)).unwrap();
        Sha256Digest::of(dsse::Envelope::parse_untrusted(&bytes).unwrap().payload_untrusted())
    }

    pub(crate) fn layer(&self, content: &[u8]) -> PathBuf {
        self.layout().layers().join(format!("{}.qcow2", Sha256Digest::of(content)))
    }

    /// The folder of the template, whose files are a few bytes each.
    pub(crate) fn template(&self) -> PathBuf {
        self.layout().template(Sha256Digest::of(&template_record().to_json()))
    }

    pub(crate) fn envelope(&self) -> Vec<u8> {
        signed(&self.recipe, &self.signer)
    }

    /// What the site says of the recipe.
    pub(crate) fn predicate(&self) -> AuthorizationPredicate {
        let digest = |text: &str| Sha256Digest::of(text.as_bytes());
        let layer = |role, content: &str| LayerEvidence {
            role,
            key: digest("a layer's key"),
            sha256: digest(content),
        };
        AuthorizationPredicate {
            site: "example-site".parse().unwrap(),
            level: Level::Recipe,
            issued_at: self.now,
            not_after: self.now.plus_seconds(90 * DAY),
            recipe: RecipeEvidence {
                name: NAME.parse().unwrap(),
                version: VERSION.parse().unwrap(),
                envelope: Sha256Digest::of(&self.envelope()).into(),
                source: SourceRef {
                    uri: "git+git://git.example.org/recipes".into(),
                    commit: "0123456789012345678901234567890123456789".into(),
                    path: "web".into(),
                },
                signer: SignerEvidence {
                    spki: self.signer.spki_sha256().into(),
                    subject: "CN=Release key,O=atlas".into(),
                    chain_valid_at: self.now,
                },
            },
            base: BaseEvidence { name: "debian-12".parse().unwrap(), sha256: self.base_digest() },
            site_recipes: vec![SiteRecipeEvidence {
                name: "site/baseline".parse().unwrap(),
                sha256: digest("site recipe"),
            }],
            policy: digest("policy").into(),
            scan: ScanEvidence { sha256: digest("scan"), decision: ScanDecision::Allow },
            reviews: Vec::new(),
            inputs: None,
            layers: vec![layer(LayerRole::Vo, "the VO's layer"), layer(LayerRole::Site, "the site's layer")],
            template: Some(Sha256Digest::of(&template_record().to_json()).into()),
            disk: Some(DiskEvidence { changes: digest("changes").into() }),
            tests: vec![TestEvidence {
                suite: TestSuite::Site,
                name: "listening".to_owned(),
                result: TestVerdict::Passed,
                seconds: Duration::from_millis(412).into(),
            }],
            evidence: [].into(),
            pattern: None,
            crls: vec![CrlEvidence {
                issuer: "example-site".into(),
                number: 1,
                header: digest("header").into(),
            }],
            builder: BuilderEvidence {
                version: "0.1.0".into(),
                qemu: "10.0.2".into(),
                machine: "q35".into(),
                cpu: "qemu64".into(),
                accelerator: Acceleration::Tcg,
            },
        }
    }

    pub(crate) fn countersigned(&self, predicate: AuthorizationPredicate) -> Vec<u8> {
        let signer = self.site_key(Role::Countersigner, Role::Countersigner);
        authorization::countersign(self.recipe.digest(), predicate, &signer).unwrap()
    }

    /// What lies beside an authorization.
    pub(crate) fn files(&self, authorization: &[u8]) -> Files {
        let mut files: Files = self
            .recipe
            .payload()
            .iter()
            .map(|(path, file)| (format!("{RECIPE_FOLDER}/{path}").parse().unwrap(), file.clone()))
            .collect();
        for (path, bytes) in
            [(AUTHORIZATION_FILE, authorization), (RECIPE_ENVELOPE_FILE, &self.envelope()[..])]
        {
            files.insert(path.parse().unwrap(), plain(bytes));
        }
        files
    }

    pub(crate) fn publish(&self, authorization: &[u8]) {
        self.publish_as(NAME, VERSION, &self.files(authorization));
    }

    pub(crate) fn publish_as(&self, name: &str, version: &str, files: &Files) {
        // A program that another test starts has our descriptors for a moment, and the lock of the publication before with them.
        let lock = SiteLock::acquire(&self.layout(), Duration::from_secs(10)).unwrap();
        let (name, version) = (name.parse().unwrap(), version.parse().unwrap());
        publication::publish(&lock, &name, &version, files, "Authorize", self.now).unwrap();
    }

    /// Writes into the ledger that a version was authorized and published.
    pub(crate) fn note_authorized(&self, version: &str) {
        let content = self.note_unpublished(version);
        let commit = publication::tip(&self.layout().authorizations()).unwrap().unwrap();
        Ledger::open(&self.layout().ledger())
            .unwrap()
            .record_published(&NAME.parse().unwrap(), &version.parse().unwrap(), content, &commit, self.now)
            .unwrap();
    }

    /// Writes into the ledger that a version was about to be authorized, as a run does that then cannot publish it.
    pub(crate) fn note_unpublished(&self, version: &str) -> Sha256Digest {
        let content =
            if version == VERSION { self.recipe.digest() } else { Sha256Digest::of(version.as_bytes()) };
        Ledger::open(&self.layout().ledger())
            .unwrap()
            .record_authorized(&NAME.parse().unwrap(), &version.parse().unwrap(), content, self.now)
            .unwrap();
        content
    }

    /// The published list.
    pub(crate) fn list(&self) -> AuthenticCrl {
        self.list_at(self.now)
    }

    fn list_at(&self, now: Timestamp) -> AuthenticCrl {
        let (header, body) = crl::load(&self.layout().recipe_crl()).unwrap();
        AuthenticCrl::verify(&header, body, self.open().pins(), now).unwrap()
    }

    /// The bytes of a list after `previous`, as of a moment, by the site's issuer.
    pub(crate) fn next_list(
        &self,
        previous: Option<&AuthenticCrl>,
        revoke: &[Selector],
        now: Timestamp,
    ) -> (Vec<u8>, Vec<u8>) {
        let add: Vec<_> = revoke.iter().map(|selector| (selector.clone(), Reason::Superseded, now)).collect();
        let issuer = self.site_key(Role::CrlIssuer, Role::CrlIssuer);
        let until = now.plus_seconds(7 * DAY);
        crl::issue(previous, &add, "example-site", Scope::Site, until, &issuer, now).unwrap()
    }

    /// Publishes a list as `countersign crl publish` and `revoke` do.
    pub(crate) fn publish_list(&self, revoke: &[Selector], now: Timestamp) {
        let (header, body) = self.next_list(Some(&self.list_at(now)), revoke, now);
        crl::store(&self.layout().recipe_crl(), &header, &body).unwrap();
        self.see(now).unwrap();
    }

    /// Puts any bytes where the list lies.
    pub(crate) fn put_list(&self, (header, body): &(Vec<u8>, Vec<u8>)) {
        put(&self.layout().recipe_crl().join(crl::HEADER_FILE), header);
        put(&self.layout().recipe_crl().join(crl::BODY_FILE), body);
    }

    /// Lets the site see the published list.
    pub(crate) fn see(&self, now: Timestamp) -> Result<(), crl::CrlError> {
        let site = self.open();
        let seen = Seen::open(self.layout().crl_seen())?;
        seen.current(&self.layout().recipe_crl(), site.pins(), now).map(drop)
    }
}

/// A key and a certificate by `ca`.
pub(crate) fn issued(
    ca: &CaFiles,
    role: Role,
    organisation: &str,
    validity: (Timestamp, Timestamp),
) -> Signer {
    issued_for(ca, SecretKey::generate().unwrap(), role, organisation, validity)
}

/// As [`issued`], for a key that is there already.
pub(crate) fn issued_for(
    ca: &CaFiles,
    key: SecretKey,
    role: Role,
    organisation: &str,
    validity: (Timestamp, Timestamp),
) -> Signer {
    let subject =
        ca::Subject { organisation: organisation.to_owned(), common_name: "Release key".to_owned() };
    let pem = ca::issue(&ca.key, &ca.certificate_pem, &subject, &key.public(), validity).unwrap();
    Signer::new(role, key, Chain::from_pem(&pem).unwrap()).unwrap()
}

/// The manifest of a recipe that the scan allows.
pub(crate) fn manifest(name: &str, version: &str) -> String {
    format!(
        "[recipe]\nname = \"{name}\"\nversion = \"{version}\"\nsummary = \"A page\"\nbase = [\"debian-12\"]\n\n\
         [[step]]\nfile = {{ path = \"/srv/index.html\", source = \"files/index.html\", mode = \"0644\" }}\n"
    )
}

pub(crate) fn recipe(name: &str, version: &str, page: &str) -> Recipe {
    let mut payload = Payload::builder(&Limits::STANDARD);
    payload.add("recipe.toml", manifest(name, version).into_bytes(), false).unwrap();
    payload.add("files/index.html", page.as_bytes().to_vec(), false).unwrap();
    Recipe::from_payload(payload.finish().unwrap(), &Limits::STANDARD).unwrap()
}

/// The envelope beside a recipe.
pub(crate) fn signed(recipe: &Recipe, signer: &Signer) -> Vec<u8> {
    dsse::sign(PAYLOAD_TYPE, &recipe_statement(recipe).to_bytes().unwrap(), signer).unwrap().to_bytes()
}

pub(crate) fn plain(bytes: &[u8]) -> PayloadFile {
    PayloadFile { bytes: bytes.to_vec(), executable: false }
}

/// Writes a file, whatever is there.
pub(crate) fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Flips one bit in the middle of a file.
pub(crate) fn change_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    put(path, &bytes);
}
