//! Which mirrors a base is built from, and by which keyring apt checks them: the host's own, never the project's.

use std::path::Path;

use harness::relay_url;
use url::Url;

use super::error::BaseError;
use crate::site::apt::{self, AptSource};

/// The host's own sources.
const APT: &str = "/etc/apt";
/// The only component of Debian that a base takes.
const COMPONENT: &str = "main";
/// The keyring in the built tree.
const GUEST_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Says in the built tree why its mirrors are not written as the host writes them.
const GUEST_COMMENT: &str = "# The site's mirrors. All are written with http:// because a building machine reaches them only through the\n\
     # relay, which fetches over TLS where the mirror is https://. apt checks the archive's signature in any case.\n";

/// The suites of one release, each at a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources(Vec<Suite>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Suite {
    /// As the host reaches it.
    mirror: Url,
    /// As a guest writes it.
    in_guest: Url,
    name: String,
    /// Keyring on the host; apt's trusted keys if absent.
    signed_by: Option<String>,
}

impl Sources {
    /// The suites of a release (`bookworm`, its updates and its security suite) among the host's sources.
    pub(super) fn of_host(codename: &str) -> Result<Self, BaseError> {
        Self::pick(&apt::host_sources(Path::new(APT)), codename)
    }

    /// Lines for the build: the keyrings are the host's. Whatever options the host's own entries have, these lines
    /// have none that would let an unsigned archive pass.
    pub(super) fn build_lines(&self) -> Vec<String> {
        self.0.iter().map(|suite| suite.line(&suite.mirror, suite.signed_by.as_deref())).collect()
    }

    /// `/etc/apt/sources.list` of the built tree: the mirrors are written as the relay knows them, and the keyring is
    /// the distribution's own package's. apt names its lists by host and path, so those of the build stay valid.
    pub(super) fn guest_list(&self) -> String {
        let lines = self.0.iter().map(|suite| suite.line(&suite.in_guest, Some(GUEST_KEYRING)) + "\n");
        std::iter::once(GUEST_COMMENT.to_owned()).chain(lines).collect()
    }

    fn pick(sources: &[AptSource], codename: &str) -> Result<Self, BaseError> {
        let wanted = |suffix: &str| {
            let name = format!("{codename}{suffix}");
            sources
                .iter()
                .filter(|source| source.types.iter().any(|kind| kind == "deb"))
                .filter(|source| source.components.iter().any(|component| component == COMPONENT))
                .filter(|source| source.signed_by.as_deref().is_none_or(is_one_file))
                .filter(|source| source.suites.contains(&name))
                .flat_map(|source| source.uris.iter().map(move |uri| (uri, source)))
                .find_map(|(uri, source)| {
                    let mirror = Url::parse(uri).ok()?;
                    // Guests reach the same mirror through the relay.
                    let in_guest = relay_url(&mirror)?;
                    Some(Suite { mirror, in_guest, name: name.clone(), signed_by: source.signed_by.clone() })
                })
        };
        let missing = |suffix: &str| BaseError::NoSource { suite: format!("{codename}{suffix}") };
        let mut suites = vec![wanted("").ok_or_else(|| missing(""))?];
        suites.extend(wanted("-updates"));
        suites.push(wanted("-security").ok_or_else(|| missing("-security"))?);
        Ok(Self(suites))
    }
}

/// A keyring is one file; apt also takes lists of them and fingerprints, which a line of ours would not carry over.
fn is_one_file(keyring: &str) -> bool {
    keyring.starts_with('/') && !keyring.contains(|c: char| c.is_whitespace() || matches!(c, ',' | ']'))
}

impl Suite {
    fn line(&self, mirror: &Url, signed_by: Option<&str>) -> String {
        let options = signed_by.map(|keyring| format!("[signed-by={keyring}] ")).unwrap_or_default();
        format!("deb {options}{mirror} {} {COMPONENT}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &str = "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: https://mirror.example/security\n\
        Suites: bookworm-security\nComponents: main\nSigned-By: /k.gpg\n";

    fn pick(text: &str) -> Result<Sources, BaseError> {
        Sources::pick(&apt::parse_deb822(text), "bookworm")
    }

    #[test]
    fn a_release_is_picked_with_its_security_suite() {
        let sources = pick(SOURCES).unwrap();
        assert_eq!(
            sources.build_lines(),
            [
                "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main",
                "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm-updates main",
                "deb [signed-by=/k.gpg] https://mirror.example/security bookworm-security main",
            ]
        );
    }

    #[test]
    fn a_guest_is_given_every_mirror_with_http_and_the_reason() {
        let list = pick(&SOURCES.replace("https://mirror.example", "https://mirror.example:8443"))
            .unwrap()
            .guest_list();
        let (comment, lines): (Vec<_>, Vec<_>) = list.lines().partition(|line| line.starts_with('#'));
        assert!(comment.join(" ").contains("through the"), "{list}");
        let line =
            |mirror: &str, suite: &str| format!("deb [signed-by={GUEST_KEYRING}] {mirror} {suite} main");
        assert_eq!(
            lines,
            [
                line("http://mirror.example/debian", "bookworm"),
                line("http://mirror.example/debian", "bookworm-updates"),
                line("http://mirror.example:8443/security", "bookworm-security"),
            ]
        );
    }

    #[test]
    fn updates_may_be_missing_and_security_may_not() {
        assert_eq!(pick(&SOURCES.replace(" bookworm-updates", "")).unwrap().build_lines().len(), 2);
        let error = pick(&SOURCES.replace("bookworm-security", "other")).unwrap_err();
        assert_eq!(error.to_string(), "no signed apt source of this host offers bookworm-security");
    }

    #[test]
    fn an_option_that_turns_checking_off_is_not_carried_over() {
        let lines = "deb [trusted=yes] http://mirror.example/debian bookworm main\n\
            deb [trusted=yes] http://mirror.example/debian bookworm-security main\n";
        let sources = Sources::pick(&apt::parse_one_line(lines), "bookworm").unwrap();
        assert!(sources.build_lines().iter().all(|line| !line.contains("trusted")));
    }

    #[test]
    fn what_a_guest_could_not_use_is_no_source() {
        for (from, to) in [
            ("http://", "ftp://"),
            ("deb deb-src", "deb-src"),
            ("/k.gpg", "/k.gpg,/l.gpg"),
            (": main", ": contrib"),
        ] {
            assert!(pick(&SOURCES.replace(from, to)).is_err(), "{to}");
        }
    }
}
