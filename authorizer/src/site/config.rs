//! `site.toml`: what a site trusts and allows. Every field is known or refused.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use recipe_spec::name::BaseName;
use recipe_spec::text::Malformed;
use recipe_spec::{GuestPath, OriginName, Sha256Digest, VoName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::Layout;

/// The whole of `site.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    /// The version of the folder's layout.
    pub layout: u32,
    /// Who this site is.
    pub site: Identity,
    /// SPKI digests of the site's own keys, by role.
    pub pins: Pins,
    /// CAs of VOs.
    #[serde(default, rename = "anchor")]
    pub anchors: Vec<AnchorConfig>,
    /// What a name in a recipe's `fetch` stands for here.
    #[serde(default)]
    pub origins: BTreeMap<OriginName, Origin>,
    /// The catalogue of base images.
    #[serde(default, rename = "base")]
    pub bases: Vec<BaseConfig>,
    /// The site's own recipes and tests.
    pub recipes: SiteRecipes,
    /// What is allowed.
    pub policy: Policy,
    /// The recipe CRL that this site issues.
    pub crl: CrlConfig,
    /// How machines run here.
    pub executor: Executor,
    /// What every clone gets of its own.
    #[serde(default)]
    pub clones: Clones,
    /// Repositories to watch.
    #[serde(default, rename = "repository")]
    pub repositories: Vec<RepositoryConfig>,
}

/// `[site]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The name that authorizations carry.
    pub id: SiteId,
}

/// A site's name: `[a-z0-9]([a-z0-9.-]{0,62})`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteId(String);

/// Characters of a site's name at most.
const SITE_ID_CHARACTERS: usize = 63;

impl SiteId {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SiteId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.len() <= SITE_ID_CHARACTERS
            && text.bytes().next().is_some_and(allowed)
            && text.bytes().all(|byte| allowed(byte) || b".-".contains(&byte));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "a site's id",
                text,
                "use 1 to 63 of a-z, 0-9, `.` and `-`, beginning with a letter or digit",
            ))
        }
    }
}

impl TryFrom<String> for SiteId {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<SiteId> for String {
    fn from(id: SiteId) -> String {
        id.0
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// `[pins]`: the SHA-256 of the SPKI of each key that may sign for the site, by role. Two while a key is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Keys that sign authorizations.
    pub countersigner: Vec<Sha256Digest>,
    /// Keys that sign the recipe CRL.
    pub crl_issuer: Vec<Sha256Digest>,
    /// Keys that sign base images.
    pub base_signer: Vec<Sha256Digest>,
}

/// `[[anchor]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorConfig {
    /// A name for people and messages.
    pub name: VoName,
    /// The CA's certificate, PEM.
    pub certificate: SitePath,
    /// The X.509 CRLs of the CA and of those below it, PEM.
    pub crl: SitePath,
    /// The VOs that signers below this anchor may speak for.
    pub vos: Vec<VoName>,
    /// The VO of a signer by its certificate's organisation (O), where the two are not the same text.
    pub organisations: Option<BTreeMap<String, VoName>>,
    /// The VO of a signer by the SPKI digest of its key. Then the certificate's subject does not count.
    pub keys: Option<BTreeMap<Sha256Digest, VoName>>,
}

/// `[origins.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// URLs below which a machine may fetch, in order of preference.
    #[serde(deserialize_with = "mirrors")]
    pub mirrors: Vec<Url>,
    /// The keyring that signs what the mirrors hold, where it is not the distribution's default.
    pub keyring: Option<PathBuf>,
}

/// `[[base]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseConfig {
    /// The name that recipes ask for.
    pub name: BaseName,
    /// The folder with disk, kernel, initrd and their signed statement.
    pub folder: SitePath,
}

/// `[recipes]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteRecipes {
    /// Folders of site recipes, applied in this order after the VO's recipe.
    pub site: Vec<SitePath>,
    /// The configuration of the site's security tests, which every recipe must pass.
    pub suite: SitePath,
}

/// `[policy]`. Its digest goes into every authorization made under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether machines may run under software emulation, which is no security boundary by QEMU's own word.
    pub allow_emulation: bool,
    /// The trust level that authorizations carry.
    pub level: Level,
    /// How long an authorization is valid, in days.
    pub authorization_days: NonZeroU32,
    /// Programs for which a recipe may ask to be setuid or setgid (`[capabilities] setuid`).
    pub setuid: Vec<GuestPath>,
}

impl Policy {
    /// How long an authorization is valid, in seconds.
    pub fn authorization_seconds(&self) -> i64 {
        days(self.authorization_days)
    }
}

/// What an instance may reach: set by where its recipe comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// An unexamined image.
    Visitor,
    /// An authorized recipe.
    Recipe,
    /// The site's own.
    Menu,
}

/// `[crl]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrlConfig {
    /// How long a recipe CRL is valid after it was issued, in days.
    pub next_update_days: NonZeroU32,
}

impl CrlConfig {
    /// How long a recipe CRL is valid, in seconds.
    pub fn next_update_seconds(&self) -> i64 {
        days(self.next_update_days)
    }
}

/// `[executor]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executor {
    /// Memory of a machine.
    pub memory_mib: NonZeroU32,
    /// The first of the user ids that machines run under, one for each machine.
    pub first_uid: NonZeroU32,
    /// How many there are.
    pub uids: NonZeroU32,
    /// Whether a machine may run as the user who runs this command, where that is not root.
    pub allow_same_user: bool,
    /// From start to a system that is up.
    pub boot_seconds: NonZeroU32,
    /// One step of a recipe.
    pub step_seconds: NonZeroU32,
    /// All of one authorization.
    pub authorize_seconds: NonZeroU32,
}

/// `[clones]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clones {
    /// Services that hold secrets in memory: each is restarted in every clone, where it runs.
    pub renew: Vec<UnitName>,
}

impl Default for Clones {
    fn default() -> Self {
        Self { renew: vec![UnitName("ssh.service".to_owned())] }
    }
}

/// A unit of systemd, with its suffix; `.service` where a name has none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct UnitName(String);

impl UnitName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UnitName {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.@".contains(&byte);
        let fits = (1..=UNIT_CHARACTERS).contains(&text.len())
            && text.bytes().all(plain)
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        match fits {
            true if text.contains('.') => Ok(Self(text)),
            true => Ok(Self(text + ".service")),
            false => Err(Malformed::new("a unit's name", &text, "use letters, digits and `:-_.@`")),
        }
    }
}

/// Characters of a unit's name at most, suffix included (systemd.unit(5)).
const UNIT_CHARACTERS: usize = 247;

/// `[[repository]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// As for `authorize`: `git://…`, `https://…` or a local path, with an optional `#ref`.
    pub source: String,
    /// The recipe's folder within it.
    pub path: Option<String>,
}

fn mirrors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
    let rule = "use http or https URLs without user, query or fragment";
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    let url = |text: &String| {
        let malformed = || D::Error::custom(Malformed::new("a mirror", text, rule));
        Url::parse(text).ok().filter(plain).ok_or_else(malformed)
    };
    texts.iter().map(url).collect()
}

fn days(days: NonZeroU32) -> i64 {
    i64::from(days.get()) * 86_400
}

/// A path in `site.toml`: absolute, or relative to the site's folder without `..`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct SitePath(PathBuf);

impl SitePath {
    /// The place of the file for a site at `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }

    /// The path as it is written.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for SitePath {
    type Error = Malformed;

    fn try_from(path: PathBuf) -> Result<Self, Malformed> {
        let plain = |component: Component<'_>| matches!(component, Component::Normal(_) | Component::RootDir);
        if !path.as_os_str().is_empty() && path.components().all(plain) {
            Ok(Self(path))
        } else {
            let rule = "write it absolute, or relative to the site's folder and without `..`";
            Err(Malformed::new("a path of the site", &path.to_string_lossy(), rule))
        }
    }
}

/// A fault in `site.toml`: one line that says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, or not these fields.
    #[error("line {line}: {message}")]
    Malformed {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Written by a newer program.
    #[error(
        "the folder has layout {found}, this program knows up to {}: use a newer countersign",
        Layout::VERSION
    )]
    NewerLayout {
        /// What the file says.
        found: u32,
    },
    /// Two entries of one name.
    #[error("two entries of [[{table}]] are named `{name}`")]
    Twice {
        /// `anchor` or `base`.
        table: &'static str,
        /// The name.
        name: String,
    },
    /// A value that cannot work.
    #[error("{field}: {rule}")]
    Unusable {
        /// The field, with its table.
        field: String,
        /// What is allowed.
        rule: &'static str,
    },
}

/// The only field read before the version of the layout is known.
#[derive(Deserialize)]
struct LayoutOnly {
    layout: u32,
}

impl SiteConfig {
    /// Reads `site.toml`. The layout's version is looked at first, so that a newer file is called newer and not
    /// malformed.
    ///
    /// # Errors
    /// [`ConfigError`], which names line or field.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let malformed = |error: toml::de::Error| ConfigError::Malformed {
            line: error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
            message: error.message().to_owned(),
        };
        let LayoutOnly { layout } = toml::from_str(text).map_err(malformed)?;
        if layout > Layout::VERSION {
            return Err(ConfigError::NewerLayout { found: layout });
        }
        let config: Self = toml::from_str(text).map_err(malformed)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let unusable = |field: String, rule| Err(ConfigError::Unusable { field, rule });
        if self.layout == 0 {
            return unusable("layout".into(), "the first layout is 1");
        }
        twice("anchor", self.anchors.iter().map(|anchor| anchor.name.as_str()))?;
        twice("base", self.bases.iter().map(|base| base.name.as_str()))?;
        for (role, pins) in [
            ("countersigner", &self.pins.countersigner),
            ("crl_issuer", &self.pins.crl_issuer),
            ("base_signer", &self.pins.base_signer),
        ] {
            if pins.is_empty() {
                return unusable(format!("pins.{role}"), "name the SPKI digest of at least one key");
            }
        }
        for anchor in &self.anchors {
            if anchor.vos.is_empty() {
                return unusable(format!("anchor `{}`: vos", anchor.name), "name at least one VO");
            }
            if anchor.organisations.is_some() && anchor.keys.is_some() {
                return unusable(format!("anchor `{}`", anchor.name), "use either organisations or keys");
            }
        }
        if self.executor.first_uid.checked_add(self.executor.uids.get()).is_none() {
            return unusable("executor.uids".into(), "the range of user ids ends beyond 4294967295");
        }
        Ok(())
    }
}

fn twice<'a>(table: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), ConfigError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(ConfigError::Twice { table, name: name.to_owned() });
        }
    }
    Ok(())
}
