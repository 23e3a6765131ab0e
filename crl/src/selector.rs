//! What can be revoked, and the digest under which the list holds it.
//!
//! A selector has one text form, `<kind>:<value>`, for people and command lines:
//!
//! | kind | text | names |
//! |---|---|---|
//! | recipe | `recipe:<sha256>` | one recipe's content, by its recipe digest |
//! | recipe version | `version:<vo>/<name>@<SemVer>` | whatever content a VO signed under that version |
//! | key | `key:<sha256>` | every signature by a key, or below a CA's, by the digest of its DER SubjectPublicKeyInfo |
//! | certificate | `certificate:<sha256>:<serial>` | one certificate, by the digest of its issuer's DER name and its serial |
//! | base image | `base:<sha256>` | a base image, by the digest of its signed statement |
//! | site recipe | `site-recipe:<sha256>` | a site's own recipe, by its recipe digest |
//! | authorization | `authorization:<sha256>` | one countersigned authorization, by the digest of its signed statement |
//!
//! The list holds `SHA-256("countersign crl selector v1\n" + text + "\n")`. The first line keeps these digests apart
//! from every other digest of the project, the kind keeps a recipe's apart from a base image's, and anyone can
//! redo one: `printf 'countersign crl selector v1\nbase:…\n' | sha256sum`.

use std::fmt;
use std::str::FromStr;

use recipe_spec::digest::Sha256Digest;
use recipe_spec::name::RecipeName;
use recipe_spec::text::{Malformed, quoted};
use serde::{Deserialize, Serialize};
use signer::trust::{CertificateId, VerifiedSigner};

/// First line of what is hashed into a selector's digest.
const DOMAIN: &str = "countersign crl selector v1\n";

/// Most octets of a certificate's serial number (RFC 5280 §4.1.2.2).
pub const MAX_SERIAL_OCTETS: usize = 20;

/// Longest text that is read as a selector, in bytes.
pub const MAX_SELECTOR_BYTES: usize = 512;

/// The kind of a revoked thing. The number is the one in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Kind {
    /// A recipe's content.
    Recipe = 1,
    /// A recipe's name and version, whatever its content.
    Version = 2,
    /// A key, and with it every signature it made; of a CA, every signature below it.
    Key = 3,
    /// A certificate.
    Certificate = 4,
    /// A base image.
    Base = 5,
    /// A site recipe.
    SiteRecipe = 6,
    /// A countersigned authorization.
    Authorization = 7,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Recipe,
        Self::Version,
        Self::Key,
        Self::Certificate,
        Self::Base,
        Self::SiteRecipe,
        Self::Authorization,
    ];

    /// The word before the colon of a selector's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recipe => "recipe",
            Self::Version => "version",
            Self::Key => "key",
            Self::Certificate => "certificate",
            Self::Base => "base",
            Self::SiteRecipe => "site-recipe",
            Self::Authorization => "authorization",
        }
    }

    /// The kind with this number in a record.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Names one thing that can be revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A recipe, by its recipe digest.
    Recipe(Sha256Digest),
    /// A recipe by name and version. SemVer build metadata (`+…`) is not part of a version's identity: revoking
    /// `1.4.0` revokes `1.4.0+rebuilt` too.
    RecipeVersion {
        /// `VO/name`.
        name: RecipeName,
        /// The version; its build metadata is ignored.
        version: semver::Version,
    },
    /// A key, of a signer or of a CA above one, by the SHA-256 of its DER SubjectPublicKeyInfo.
    SignerKey(Sha256Digest),
    /// A certificate.
    Certificate {
        /// SHA-256 of the issuer's DER name.
        issuer: Sha256Digest,
        /// The serial number, big-endian; leading zeros do not count.
        serial: Vec<u8>,
    },
    /// A base image, by the digest of its signed statement.
    BaseImage(Sha256Digest),
    /// A site recipe, by its recipe digest.
    SiteRecipe(Sha256Digest),
    /// An authorization, by the digest of its signed statement.
    Authorization(Sha256Digest),
}

impl Selector {
    /// The kind of what is named.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Recipe(_) => Kind::Recipe,
            Self::RecipeVersion { .. } => Kind::Version,
            Self::SignerKey(_) => Kind::Key,
            Self::Certificate { .. } => Kind::Certificate,
            Self::BaseImage(_) => Kind::Base,
            Self::SiteRecipe(_) => Kind::SiteRecipe,
            Self::Authorization(_) => Kind::Authorization,
        }
    }

    /// All that stands for a signer whose envelope was verified: its key first, the keys of the CAs above it up to the
    /// anchor, and each certificate that vouches for it.
    pub fn of_signer(signer: &VerifiedSigner) -> Vec<Self> {
        let certificate =
            |id: &CertificateId| Self::Certificate { issuer: id.issuer_sha256, serial: id.serial.clone() };
        let keys = signer.keys().iter().copied().map(Self::SignerKey);
        keys.chain(signer.certificates().iter().map(certificate)).collect()
    }

    /// The 32 bytes under which a list holds this selector (see the module's head).
    pub fn digest(&self) -> [u8; 32] {
        *Sha256Digest::of(format!("{DOMAIN}{self}\n").as_bytes()).as_bytes()
    }
}

/// The serial without its leading zeros: DER adds one where the first bit is set, and tools differ on showing it.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|octet| **octet == 0).count();
    &serial[zeros..]
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind())?;
        match self {
            Self::Recipe(digest)
            | Self::SignerKey(digest)
            | Self::BaseImage(digest)
            | Self::SiteRecipe(digest)
            | Self::Authorization(digest) => write!(f, "{digest}"),
            Self::RecipeVersion { name, version } => {
                write!(f, "{name}@{}.{}.{}", version.major, version.minor, version.patch)?;
                if version.pre.is_empty() { Ok(()) } else { write!(f, "-{}", version.pre) }
            }
            Self::Certificate { issuer, serial } => {
                write!(f, "{issuer}:{}", hex::encode(significant(serial)))
            }
        }
    }
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No known kind before the first colon. Holds the text, quoted.
    #[error(
        "{0} does not begin with recipe:, version:, key:, certificate:, base:, site-recipe: or authorization:"
    )]
    Kind(String),
    /// The text is longer than [`MAX_SELECTOR_BYTES`].
    #[error("a selector has at most {MAX_SELECTOR_BYTES} bytes, this one {0}")]
    TooLong(usize),
    /// The value of this kind is not a digest.
    #[error("`{kind}:` needs a SHA-256 digest of 64 lower-case hex digits")]
    Digest {
        /// The kind given.
        kind: Kind,
    },
    /// The value is no `VO/name@version`.
    #[error("`version:` needs vo/name@version: {0}")]
    Version(String),
    /// The version carries build metadata, which names nothing here.
    #[error("leave out the build metadata `+{0}`: a revoked version is revoked with any")]
    BuildMetadata(String),
    /// The serial is not hex, is empty, begins with a zero octet, or is too long.
    #[error(
        "a certificate's serial is 1 to {MAX_SERIAL_OCTETS} octets in lower-case hex, without leading zero octets"
    )]
    Serial,
}

/// Reads the canonical text only: one selector has one text.
impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError::TooLong(text.len()));
        }
        let no_kind = || SelectorError::Kind(quoted(text));
        let (word, value) = text.split_once(':').ok_or_else(no_kind)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(no_kind)?;
        let digest = |hex| parse_digest(kind, hex);
        match kind {
            Kind::Recipe => digest(value).map(Self::Recipe),
            Kind::Version => parse_version(value),
            Kind::Key => digest(value).map(Self::SignerKey),
            Kind::Certificate => {
                let (issuer, serial) = value.split_once(':').ok_or(SelectorError::Serial)?;
                Ok(Self::Certificate { issuer: digest(issuer)?, serial: parse_serial(serial)? })
            }
            Kind::Base => digest(value).map(Self::BaseImage),
            Kind::SiteRecipe => digest(value).map(Self::SiteRecipe),
            Kind::Authorization => digest(value).map(Self::Authorization),
        }
    }
}

fn parse_digest(kind: Kind, text: &str) -> Result<Sha256Digest, SelectorError> {
    Sha256Digest::from_hex(text).map_err(|_| SelectorError::Digest { kind })
}

fn parse_version(text: &str) -> Result<Selector, SelectorError> {
    let (name, version) =
        text.split_once('@').ok_or_else(|| SelectorError::Version(format!("{} has no `@`", quoted(text))))?;
    let name: RecipeName =
        name.parse().map_err(|error: Malformed| SelectorError::Version(error.to_string()))?;
    let version: semver::Version =
        version.parse().map_err(|error: semver::Error| SelectorError::Version(error.to_string()))?;
    if !version.build.is_empty() {
        return Err(SelectorError::BuildMetadata(version.build.to_string()));
    }
    Ok(Selector::RecipeVersion { name, version })
}

fn parse_serial(text: &str) -> Result<Vec<u8>, SelectorError> {
    let serial = hex::decode(text).map_err(|_| SelectorError::Serial)?;
    let canonical = !serial.is_empty()
        && serial.len() <= MAX_SERIAL_OCTETS
        && serial[0] != 0
        && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    canonical.then_some(serial).ok_or(SelectorError::Serial)
}

impl Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn hex64(byte: u8) -> String {
        hex::encode([byte; 32])
    }

    #[test]
    fn each_kind_has_one_text() {
        let digest = hex64(0xab);
        for text in [
            format!("recipe:{digest}"),
            "version:atlas/web@1.4.0".to_owned(),
            "version:atlas/web@1.4.0-rc.1".to_owned(),
            format!("key:{digest}"),
            format!("certificate:{digest}:01ff"),
            format!("base:{digest}"),
            format!("site-recipe:{digest}"),
            format!("authorization:{digest}"),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
            assert!(text.starts_with(selector.kind().as_str()));
            let json = serde_json::to_string(&selector).unwrap();
            assert_eq!(serde_json::from_str::<Selector>(&json).unwrap(), selector);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let digest = hex64(0xab);
        for text in [
            String::new(),
            "recipe".to_owned(),
            "recipe:".to_owned(),
            format!("Recipe:{digest}"),
            format!("image:{digest}"),
            format!("recipe:{}", digest.to_uppercase()),
            format!("recipe:{digest}0"),
            format!("recipe:{}", &digest[1..]),
            format!("recipe: {digest}"),
            format!("recipe:{digest}\n"),
            "version:atlas/web".to_owned(),
            "version:web@1.0.0".to_owned(),
            "version:atlas/web@1.0".to_owned(),
            "version:atlas/web@1.0.0+x".to_owned(),
            "version:atlas/web@^1.0.0".to_owned(),
            format!("certificate:{digest}"),
            format!("certificate:{digest}:"),
            format!("certificate:{digest}:0"),
            format!("certificate:{digest}:00ff"),
            format!("certificate:{digest}:FF"),
            format!("certificate:{digest}:{}", "11".repeat(21)),
            format!("version:{}/web@1.0.0", "a".repeat(600)),
        ] {
            assert!(text.parse::<Selector>().is_err(), "{text:?} was read");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_documented_text() {
        // printf 'countersign crl selector v1\nversion:atlas/web@1.4.0\n' | sha256sum
        let selector: Selector = "version:atlas/web@1.4.0".parse().unwrap();
        assert_eq!(
            hex::encode(selector.digest()),
            "b153cb2267babd91b1c426861be2edd5ed4af0c11c43d1ebdc8f4bc86d4454a2"
        );
    }

    #[test]
    fn kinds_with_one_digest_stay_apart() {
        let digest = hex64(7);
        let kinds = ["recipe", "key", "base", "site-recipe", "authorization"];
        let digests: HashSet<_> = kinds
            .iter()
            .map(|kind| format!("{kind}:{digest}").parse::<Selector>().unwrap().digest())
            .collect();
        assert_eq!(digests.len(), kinds.len());
        assert!(!digests.contains(&[7; 32]));
    }

    #[test]
    fn a_revoked_version_is_revoked_with_any_build_metadata() {
        let name: RecipeName = "atlas/web".parse().unwrap();
        let of = |version: &str| {
            Selector::RecipeVersion { name: name.clone(), version: version.parse().unwrap() }.digest()
        };
        assert_eq!(of("1.4.0"), of("1.4.0+evade"));
        assert_ne!(of("1.4.0"), of("1.4.0-evade"));
    }

    #[test]
    fn a_serial_counts_without_its_sign_octet() {
        let issuer = Sha256Digest::of(b"issuer");
        let of = |serial: &[u8]| Selector::Certificate { issuer, serial: serial.to_vec() }.digest();
        assert_eq!(of(&[0, 0xff]), of(&[0xff]));
        assert_ne!(of(&[0xff, 0]), of(&[0xff]));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_is_its_own_canonical_form(text in "\\PC{0,90}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string(), text);
            }
        }

        #[test]
        fn near_misses_are_refused_or_canonical(
            text in "(recipe|version|key|certificate|base):([0-9a-fA-F]{63,65}|[a-z]{1,3}/[a-z]{1,3}@[0-9]\\.[0-9]\\.[0-9](-[a-z0-9.]{0,4})?)(:[0-9a-f]{0,6})?"
        ) {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string(), text);
            }
        }
    }
}
