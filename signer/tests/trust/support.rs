//! The test PKI, minted anew in every run: no key is ever committed.

use der::asn1::ObjectIdentifier;
use der::pem::LineEnding;
use der::{Decode as _, EncodePem as _};
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use recipe_spec::statement::recipe_statement;
use recipe_spec::{Limits, Payload, Recipe, Timestamp, VoName};
use signer::ca::{self, CaFiles, Subject};
use signer::{
    Anchor, Certificate, Chain, Envelope, PAYLOAD_TYPE, Role, SecretKey, Signer, SitePins, TrustError,
    TrustStore, dsse,
};
use spki::SubjectPublicKeyInfoRef;
use x509_cert::TbsCertificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

pub(crate) const DAY: i64 = 24 * 60 * 60;
pub(crate) const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
pub(crate) const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

/// The moment at which tests judge: 2026-11-23T00:00:00Z.
pub(crate) fn now() -> Timestamp {
    "2026-11-23T00:00:00Z".parse().unwrap()
}

pub(crate) fn days(from: i64, until: i64) -> (Timestamp, Timestamp) {
    (now().plus_seconds(from * DAY), now().plus_seconds(until * DAY))
}

pub(crate) fn subject(organisation: &str, common_name: &str) -> Subject {
    Subject { organisation: organisation.to_owned(), common_name: common_name.to_owned() }
}

/// A CA valid from 100 days ago to 1000 days ahead, with an empty CRL from then to 30 days ahead.
pub(crate) fn authority(organisation: &str) -> CaFiles {
    ca::init(organisation, "Test CA", days(-100, 1000), days(0, 30).1).unwrap()
}

/// Issues a leaf valid from 10 days ago to 100 days ahead.
pub(crate) fn leaf(ca: &CaFiles, organisation: &str) -> (SecretKey, String) {
    leaf_for(ca, organisation, days(-10, 100))
}

pub(crate) fn leaf_for(
    ca: &CaFiles,
    organisation: &str,
    validity: (Timestamp, Timestamp),
) -> (SecretKey, String) {
    let key = SecretKey::generate().unwrap();
    let who = subject(organisation, "Release key");
    let pem = ca::issue(&ca.key, &ca.certificate_pem, &who, &key.public(), validity).unwrap();
    (key, pem)
}

pub(crate) fn signer(role: Role, (key, pem): (SecretKey, String)) -> Signer {
    Signer::new(role, key, Chain::from_pem(&pem).unwrap()).unwrap()
}

pub(crate) fn vo(name: &str) -> VoName {
    name.parse().unwrap()
}

/// The store of a site that takes `atlas` recipes from one CA.
pub(crate) fn store(ca: &CaFiles) -> TrustStore {
    store_with(&ca.certificate_pem, &[&ca.crl_pem])
}

pub(crate) fn store_with(certificate_pem: &str, crls: &[&str]) -> TrustStore {
    TrustStore::new(vec![Anchor::new("atlas-ca", certificate_pem, crls, [vo("atlas")]).unwrap()]).unwrap()
}

pub(crate) fn pins(ca: &CaFiles) -> SitePins {
    SitePins::new(&ca.certificate_pem, &[&ca.crl_pem]).unwrap()
}

pub(crate) fn recipe(name: &str, page: &str) -> Recipe {
    let manifest = format!(
        "[recipe]\nname = \"{name}\"\nversion = \"1.4.0\"\nsummary = \"A page\"\nbase = [\"debian-12\"]\n\n\
         [[step]]\nfile = {{ path = \"/srv/index.html\", source = \"files/index.html\", mode = \"0644\" }}\n"
    );
    let mut payload = Payload::builder(&Limits::STANDARD);
    payload.add("recipe.toml", manifest.into_bytes(), false).unwrap();
    payload.add("files/index.html", page.as_bytes().to_vec(), false).unwrap();
    Recipe::from_payload(payload.finish().unwrap(), &Limits::STANDARD).unwrap()
}

/// The envelope that lies beside a recipe.
pub(crate) fn signed(recipe: &Recipe, signer: &Signer) -> Vec<u8> {
    envelope(recipe, signer).to_bytes()
}

pub(crate) fn envelope(recipe: &Recipe, signer: &Signer) -> Envelope {
    dsse::sign(PAYLOAD_TYPE, &recipe_statement(recipe).to_bytes().unwrap(), signer).unwrap()
}

/// The code of a refusal, for comparison with `Code::…`.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, TrustError>) -> recipe_spec::Code {
    result.unwrap_err().code()
}

/// For a verification whose evidence the test does not look at.
#[track_caller]
pub(crate) fn accepted<T>(result: Result<T, TrustError>) {
    result.unwrap();
}

/// What a certificate of the wrong kind says. [`Forged::leaf`] is a good leaf to change.
pub(crate) struct Forged {
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) key_usage: Option<(bool, KeyUsage)>,
    pub(crate) extended: Option<Vec<ObjectIdentifier>>,
    pub(crate) unknown_critical: bool,
    pub(crate) validity: (Timestamp, Timestamp),
    pub(crate) subject: Subject,
}

impl Forged {
    pub(crate) fn leaf(organisation: &str) -> Self {
        Forged {
            basic_constraints: Some(BasicConstraints { ca: false, path_len_constraint: None }),
            key_usage: Some((true, KeyUsage(KeyUsages::DigitalSignature.into()))),
            extended: Some(vec![CODE_SIGNING]),
            unknown_critical: false,
            validity: days(-10, 100),
            subject: subject(organisation, "Release key"),
        }
    }

    pub(crate) fn ca(organisation: &str) -> Self {
        Forged {
            basic_constraints: Some(BasicConstraints { ca: true, path_len_constraint: None }),
            key_usage: Some((true, KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))),
            extended: None,
            ..Forged::leaf(organisation)
        }
    }

    /// Signs it with the key of a CA, or of anything else that has a certificate.
    pub(crate) fn issued_by(self, issuer_key: &SecretKey, issuer_pem: &str) -> (SecretKey, String) {
        let issuer = x509_cert::Certificate::load_pem_chain(issuer_pem.as_bytes()).unwrap().remove(0);
        let key = SecretKey::generate().unwrap();
        // The good way to make a name, borrowed from a certificate that the CA would issue.
        let dummy =
            ca::init(&self.subject.organisation, &self.subject.common_name, days(-1, 1), days(0, 1).1)
                .unwrap();
        let named =
            x509_cert::Certificate::load_pem_chain(dummy.certificate_pem.as_bytes()).unwrap().remove(0);
        let time = |at: Timestamp| {
            let seconds = std::time::Duration::from_secs(at.unix().try_into().unwrap());
            Time::from(der::DateTime::from_unix_duration(seconds).unwrap())
        };
        let validity = Validity::new(time(self.validity.0), time(self.validity.1));
        let spki = spki::SubjectPublicKeyInfoOwned::from_der(&key.public().spki_der()).unwrap();
        let serial = SerialNumber::new(&key.public().spki_sha256().as_bytes()[..15]).unwrap();
        let profile = Profile {
            issuer: issuer.tbs_certificate().subject().clone(),
            subject: named.tbs_certificate().subject().clone(),
            forged: self,
        };
        let signing = ed25519_dalek::SigningKey::from_pkcs8_pem(&issuer_key.to_plain_pem().unwrap()).unwrap();
        let builder = CertificateBuilder::new(profile, serial, validity, spki).unwrap();
        let certificate = builder.build::<_, ed25519_dalek::Signature>(&signing).unwrap();
        (key, certificate.to_pem(LineEnding::LF).unwrap())
    }
}

struct Profile {
    issuer: Name,
    subject: Name,
    forged: Forged,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        _issuer: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let mut extensions = vec![(&SubjectKeyIdentifier::try_from(key)?).to_extension(&self.subject, &[])?];
        if let Some(constraints) = &self.forged.basic_constraints {
            extensions.push(constraints.to_extension(&self.subject, &[])?);
        }
        if let Some((critical, usage)) = &self.forged.key_usage {
            extensions.push((*critical, usage).to_extension(&self.subject, &[])?);
        }
        if let Some(usages) = &self.forged.extended {
            extensions.push((&ExtendedKeyUsage(usages.clone())).to_extension(&self.subject, &[])?);
        }
        if self.forged.unknown_critical {
            let value = der::asn1::Null;
            let oid = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.32473.1");
            extensions.push((oid, true, &value).to_extension(&self.subject, &[])?);
        }
        Ok(extensions)
    }
}

/// Signs with a chain that [`Signer::new`] would refuse, as an attacker's own program would: the canonical JSON is
/// written by hand.
pub(crate) fn signed_by_force(
    payload: &[u8],
    key: &SecretKey,
    leaf_pem: &str,
    intermediates: &[&str],
) -> Vec<u8> {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let keyid = Certificate::from_pem(leaf_pem).unwrap().public_key().spki_sha256();
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let above: Vec<_> = intermediates.iter().map(|pem| text(pem)).collect();
    format!(
        "{{\"payload\":{},\"payloadType\":\"{PAYLOAD_TYPE}\",\"signatures\":[{{\"keyid\":\"{keyid}\",\"sig\":{},\
         \"certificate\":{},\"intermediates\":[{}]}}]}}\n",
        text(&base64.encode(payload)),
        text(&base64.encode(key.sign(&dsse::pae(PAYLOAD_TYPE, payload)))),
        text(leaf_pem),
        above.join(",")
    )
    .into_bytes()
}

pub(crate) fn statement(recipe: &Recipe) -> Vec<u8> {
    recipe_statement(recipe).to_bytes().unwrap()
}
