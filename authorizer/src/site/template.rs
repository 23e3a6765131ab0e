//! The text of a new `site.toml`: commented, and works as it is.

use std::fmt::Write as _;

use recipe_spec::{Sha256Digest, VoName};
use url::Url;

use super::config::SiteId;

/// How long a new site's recipe CRLs are valid, in days.
pub(super) const NEXT_UPDATE_DAYS: i64 = 7;

/// What a new site's file is filled in with.
#[derive(Debug)]
pub(super) struct Filling<'a> {
    pub(super) id: &'a SiteId,
    pub(super) countersigner: Sha256Digest,
    pub(super) crl_issuer: Sha256Digest,
    pub(super) base_signer: Sha256Digest,
    pub(super) debian: &'a [Url],
    pub(super) site_recipes: &'a [String],
    pub(super) allow_emulation: bool,
}

/// The whole file. Texts are quoted by the `toml` crate, so none can break out of its string.
pub(super) fn site_toml(filling: &Filling<'_>) -> String {
    let Filling { id, countersigner, crl_issuer, base_signer, .. } = filling;
    let mirrors = list(filling.debian.iter().map(Url::as_str));
    let site_recipes = list(filling.site_recipes.iter().map(String::as_str));
    let no_mirror = if filling.debian.is_empty() {
        "# This host's apt names no Debian mirror: fill in yours, archive and security.\n"
    } else {
        ""
    };
    let emulation = if filling.allow_emulation {
        "# KVM is absent here, so machines are emulated in software. By QEMU's own word that is no security boundary:\n\
         # set this to false once the host has KVM.\n"
    } else {
        "# Software emulation is no security boundary, by QEMU's own word.\n"
    };
    let allow_emulation = filling.allow_emulation;
    let id = quoted(id.as_str());
    format!(
        r#"# A site of Countersign: what it trusts and what it allows. Unknown fields are errors.
# Paths are absolute, or relative to this folder.
layout = 1                          # version of this folder's layout

[site]
id = {id}                # authorizations carry it; another site's are refused

# The site's own keys, by the SHA-256 of their SPKI: `openssl pkey -pubout -outform DER | sha256sum`.
# Only these sign for the site, whatever any certificate says. Two while a key is replaced.
[pins]
countersigner = ["{countersigner}"]
crl_issuer = ["{crl_issuer}"]
base_signer = ["{base_signer}"]

# CAs that vouch for VOs' recipe signers, and the VOs that each may sign for.
# The CA's own CRL is required, and refused once it has expired.
#
# [[anchor]]
# name = "atlas"
# certificate = "anchors/atlas.pem"
# crl = "anchors/atlas.crl.pem"
# vos = ["atlas"]
# organisations = {{ "ATLAS Collaboration" = "atlas" }}   # where a certificate's O is not the VO's name

# What a name in a recipe's `fetch` stands for: a recipe names no mirror.
{no_mirror}[origins.debian]
mirrors = {mirrors}
# keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Base images that recipes may ask for by name.
[[base]]
name = "debian-12"
folder = "bases/debian-12"

# The site's own recipes, applied in this order after the VO's, and the tests that every recipe must pass.
[recipes]
site = {site_recipes}
suite = "suites/baseline.toml"

# The digest of this table goes into every authorization.
[policy]
{emulation}allow_emulation = {allow_emulation}
level = "recipe"                    # visitor, recipe or menu
authorization_days = 90             # an authorization is valid this long
setuid = []                         # programs for which recipes may ask to be setuid or setgid

# The list of what is revoked.
[crl]
next_update_days = {NEXT_UPDATE_DAYS}                # a list older than this is refused

# How machines run here.
[executor]
memory_mib = 1024
first_uid = 61500                   # each machine runs under a user id of its own …
uids = 64                           # … one of so many
allow_same_user = false             # true: where this command does not run as root, machines run as its user
boot_seconds = 300
step_seconds = 1800
authorize_seconds = 7200

# Every machine is cloned from a template: it gets randomness, names, an SSH host key and a network address of its own.
[clones]
renew = ["ssh"]                     # services that hold secrets in memory, restarted in each clone where they run

# Repositories to watch for new versions.
#
# [[repository]]
# source = "git://git.example.org/recipes#main"
# path = "web"
"#
    )
}

/// The text of an `[[anchor]]` to append.
pub(super) fn anchor(name: &VoName, certificate: &str, crl: &str, vos: &[VoName]) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "\n[[anchor]]\nname = {}\ncertificate = {}\ncrl = {}\nvos = {}\n",
        quoted(name.as_str()),
        quoted(certificate),
        quoted(crl),
        list(vos.iter().map(VoName::as_str)),
    );
    text
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", texts.map(quoted).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::config::{Level, SiteConfig};
    use super::*;

    fn filled(debian: &[Url], site_recipes: &[String]) -> String {
        site_toml(&Filling {
            id: &"example-site".parse().unwrap(),
            countersigner: Sha256Digest::of(b"a"),
            crl_issuer: Sha256Digest::of(b"b"),
            base_signer: Sha256Digest::of(b"c"),
            debian,
            site_recipes,
            allow_emulation: true,
        })
    }

    #[test]
    fn the_template_is_a_site_that_works() {
        let mirror = Url::parse("http://mirror.example.org/debian").unwrap();
        let config =
            SiteConfig::parse(&filled(std::slice::from_ref(&mirror), &["site-recipes/baseline".to_owned()]))
                .unwrap();
        assert_eq!(config.site.id.as_str(), "example-site");
        assert_eq!(config.origins[&"debian".parse().unwrap()].mirrors, [mirror]);
        assert_eq!(
            config.recipes.site[0].below("/s".as_ref()),
            std::path::Path::new("/s/site-recipes/baseline")
        );
        assert!(config.policy.allow_emulation);
        assert_eq!(config.policy.level, Level::Recipe);
        assert!(config.anchors.is_empty());
    }

    #[test]
    fn a_host_without_a_mirror_gets_a_file_that_says_so() {
        let text = filled(&[], &[]);
        assert!(text.contains("names no Debian mirror"));
        SiteConfig::parse(&text).unwrap();
    }

    #[test]
    fn appended_anchors_are_read_back() {
        let mut text = filled(&[], &[]);
        for name in ["atlas", "belle2"] {
            let vo: VoName = name.parse().unwrap();
            text.push_str(&anchor(
                &vo,
                &format!("anchors/{name}.pem"),
                "anchors/x.crl.pem",
                std::slice::from_ref(&vo),
            ));
        }
        let config = SiteConfig::parse(&text).unwrap();
        assert_eq!(
            config.anchors.iter().map(|anchor| anchor.name.as_str()).collect::<Vec<_>>(),
            ["atlas", "belle2"]
        );
    }

    #[test]
    fn every_commented_example_works_when_uncommented() {
        let text: String = filled(&[], &[])
            .lines()
            .map(|line| {
                let example = line.strip_prefix("# ").filter(|rest| {
                    rest.starts_with("[[")
                        || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
                });
                format!("{}\n", example.unwrap_or(line))
            })
            .collect();
        let config = SiteConfig::parse(&text).unwrap();
        assert_eq!((config.anchors.len(), config.repositories.len()), (1, 1));
        assert!(config.origins[&"debian".parse().unwrap()].keyring.is_some());
    }

    fn refusal(change: impl Fn(String) -> String) -> String {
        SiteConfig::parse(&change(filled(&[], &[]))).unwrap_err().to_string()
    }

    #[test]
    fn faults_are_named_with_their_line_or_field() {
        let unknown = refusal(|text| text.replace("uids = 64", "uids = 64\nuidz = 1"));
        assert!(unknown.contains("unknown field `uidz`") && unknown.starts_with("line "), "{unknown}");
        assert!(
            refusal(|text| text.replace("layout = 1", "layout = 2\nnew = 1")).contains("newer countersign")
        );
        assert!(refusal(|text| text.replace("layout = 1", "layout = 0")).contains("first layout"));
        let double = anchor(&"a".parse().unwrap(), "a.pem", "a.crl", &["a".parse().unwrap()]);
        assert!(refusal(|text| text + &double + &double).contains("two entries of [[anchor]]"));
        let escaping = anchor(&"a".parse().unwrap(), "../a.pem", "a.crl", &["a".parse().unwrap()]);
        assert!(refusal(|text| text + &escaping).contains("without `..`"));
        let for_nobody = anchor(&"a".parse().unwrap(), "a.pem", "a.crl", &[]);
        assert!(refusal(|text| text + &for_nobody).contains("at least one VO"));
        assert!(
            refusal(|text| text.replace("mirrors = []", "mirrors = [\"ftp://x/debian\"]")).contains("http")
        );
        assert!(refusal(|text| text.replace("memory_mib = 1024", "memory_mib = 0")).starts_with("line "));
        assert!(refusal(|text| text.replace("example-site", "Example Site")).contains("a site's id"));
        let pins = format!("[\"{}\"]", Sha256Digest::of(b"a"));
        assert!(refusal(|text| text.replace(&pins, "[]")).contains("pins.countersigner"));
    }
}
