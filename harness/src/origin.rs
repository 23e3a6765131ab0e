//! Origins: the only places that a building machine may fetch from, each a few URL prefixes of the site's choice.
//!
//! A prefix is compared by its parts after the URL was normalised, and a URL that two programs could read in two
//! ways (`..`, an encoded slash, a user name) is refused before anything is compared.
//!
//! A guest writes `http://` for every mirror, because the relay opens no tunnels; what it asks of a mirror that is
//! `https://` is fetched over TLS (decision 0003).

use recipe_spec::name::OriginName;
use url::Url;

/// Longest URL that is looked at, in bytes.
pub const MAX_URL: usize = 4096;

/// The origins that a machine may fetch from. Empty means none.
#[derive(Clone, Debug, Default)]
pub struct RelayPolicy {
    /// As the recipe declares them and the site maps them.
    pub origins: Vec<Origin>,
}

/// One declared origin.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its name in recipes.
    pub name: OriginName,
    /// Where it is found.
    pub prefixes: Vec<Prefix>,
}

/// A URL that ends with `/` and below which everything may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Url);

/// Why a URL is not admitted; for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// It cannot be read, or could be read in two ways.
    #[error("the URL is not plain: {0}")]
    NotPlain(String),
    /// It lies below no prefix.
    #[error("{0} is below no declared origin")]
    Undeclared(String),
}

impl Prefix {
    /// Reads `http://host[:port]/path/`; a missing slash at the end is added.
    ///
    /// # Errors
    /// [`UrlRefused::NotPlain`] with the reason.
    pub fn parse(text: &str) -> Result<Self, UrlRefused> {
        let text = if text.ends_with('/') { text.to_owned() } else { format!("{text}/") };
        let url = plain_url(&text)?;
        if url.query().is_some() {
            return Err(UrlRefused::NotPlain("a prefix has no query".into()));
        }
        Ok(Self(url))
    }

    /// The URL, ending with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    fn covers(&self, url: &Url) -> bool {
        // Both paths are normalised and free of dot segments, and the prefix ends with a slash.
        self.0.origin() == url.origin() && url.path().starts_with(self.0.path())
    }

    /// The URL below this prefix that a guest means by `asked`, if it means one.
    fn meant(&self, asked: &Url) -> Option<Url> {
        let mut url = asked.clone();
        url.set_scheme(self.0.scheme()).ok()?;
        (relay_url(&url).as_ref() == Some(asked) && self.covers(&url)).then_some(url)
    }
}

/// How a program in a guest writes a URL of a mirror: with `http://`, and with the same port unless it is the
/// default. `None` for what no guest can reach: a scheme other than `http` and `https`, and `https` on port 80,
/// which would be written as the mirror's default port.
#[must_use]
pub fn relay_url(mirror: &Url) -> Option<Url> {
    let mut url = mirror.clone();
    match (url.scheme(), url.port()) {
        ("http", _) => {}
        ("https", port) if port != Some(80) => url.set_scheme("http").ok()?,
        _ => return None,
    }
    Some(url)
}

impl Origin {
    /// Whether a URL lies below one of its prefixes.
    #[must_use]
    pub fn covers(&self, url: &Url) -> bool {
        self.prefixes.iter().any(|prefix| prefix.covers(url))
    }

    /// The URL below one of its prefixes that a guest means; over TLS if any of them allows it.
    fn meant(&self, asked: &Url) -> Option<Url> {
        self.prefixes
            .iter()
            .filter_map(|prefix| prefix.meant(asked))
            .max_by_key(|url| url.scheme() == "https")
    }
}

impl RelayPolicy {
    /// Reads the `http://` URL that a guest asks for, and finds the origin it belongs to and the URL to fetch: the
    /// same, with `https://` if the mirror has it (see [`relay_url`]).
    ///
    /// # Errors
    /// [`UrlRefused`]
    pub fn admit(&self, text: &str) -> Result<(&Origin, Url), UrlRefused> {
        let asked = plain_url(text)?;
        self.origins
            .iter()
            .find_map(|origin| Some((origin, origin.meant(&asked)?)))
            .ok_or_else(|| UrlRefused::Undeclared(asked.to_string()))
    }
}

/// Reads an absolute `http` or `https` URL of which there is only one reading.
pub(crate) fn plain_url(text: &str) -> Result<Url, UrlRefused> {
    let refuse = |reason: &str| Err(UrlRefused::NotPlain(reason.to_owned()));
    if text.len() > MAX_URL {
        return refuse("it is too long");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic())
        || text.contains(['\\', '#', '"', '<', '>', '^', '`', '{', '|', '}'])
    {
        return refuse("it has characters that no URL has");
    }
    let Some((scheme, rest)) = text.split_once("://") else { return refuse("it is not absolute") };
    if scheme != "http" && scheme != "https" {
        return refuse("only http and https are fetched");
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(authority_end);
    if authority.is_empty() {
        return refuse("it has no host");
    }
    if authority.contains('@') {
        return refuse("it has a user name");
    }
    if authority.contains('%') {
        return refuse("its host is encoded");
    }
    let path = target.split('?').next().unwrap_or_default();
    if let Err(reason) = check_path(path) {
        return refuse(reason);
    }
    match Url::parse(text) {
        Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        Ok(_) => refuse("it has no host"),
        Err(error) => refuse(&error.to_string()),
    }
}

/// The path as it was written, before any normalisation.
fn check_path(path: &str) -> Result<(), &'static str> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let segment = decode(segment)?;
        if segment == b"." || segment == b".." {
            return Err("its path has . or ..");
        }
        if segment.is_empty() && segments.peek().is_some() {
            return Err("its path has an empty part");
        }
        if segment.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0..=31 | 127)) {
            return Err("its path has an encoded slash or control character");
        }
        // `%252e` would be `%2e` to a server that decodes twice.
        if segment.contains(&b'%') {
            return Err("its path has an encoded percent sign");
        }
    }
    Ok(())
}

fn decode(segment: &str) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err("its path has a broken % code") };
        out.push(u8::try_from(high * 16 + low).expect("two hex digits are a byte"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> RelayPolicy {
        let origin = |name: &str, prefixes: &[&str]| Origin {
            name: name.parse().unwrap(),
            prefixes: prefixes.iter().map(|prefix| Prefix::parse(prefix).unwrap()).collect(),
        };
        RelayPolicy {
            origins: vec![
                origin("debian", &["http://mirror.example/debian/", "http://mirror.example/debian-security"]),
                origin("tools", &["https://tools.example:8443/pub/"]),
                origin("safe", &["https://safe.example:443/debian"]),
                origin("both", &["http://both.example/", "https://both.example/tls/"]),
                origin("odd", &["https://odd.example:80/", "http://odd.example:443/"]),
            ],
        }
    }

    fn fetched(url: &str) -> Option<String> {
        policy().admit(url).ok().map(|(_, url)| url.to_string())
    }

    #[test]
    fn what_lies_below_a_prefix_is_admitted() {
        for (url, origin) in [
            ("http://mirror.example/debian/dists/bookworm/InRelease", "debian"),
            ("http://MIRROR.example:80/debian/pool/main/g/g++-12/a%2bb_1%3a2.0~rc1.deb", "debian"),
            ("http://mirror.example/debian-security/x?arch=amd64", "debian"),
            ("http://tools.example:8443/pub/", "tools"),
            ("http://safe.example/debian/x", "safe"),
        ] {
            assert_eq!(policy().admit(url).unwrap().0.name.to_string(), origin, "{url}");
        }
    }

    #[test]
    fn a_mirror_with_tls_is_fetched_with_tls_from_its_own_port() {
        for (asked, fetched_from) in [
            ("http://safe.example/debian/x?y", Some("https://safe.example/debian/x?y")),
            ("http://safe.example:80/debian/x", Some("https://safe.example/debian/x")),
            ("http://SAFE.example/debian/%7Ex", Some("https://safe.example/debian/%7Ex")),
            ("http://tools.example:8443/pub/x", Some("https://tools.example:8443/pub/x")),
            ("http://mirror.example/debian/x", Some("http://mirror.example/debian/x")),
            ("http://both.example/x", Some("http://both.example/x")),
            ("http://both.example/tls/x", Some("https://both.example/tls/x")),
            ("http://odd.example:443/x", Some("http://odd.example:443/x")),
            ("http://odd.example/x", None),
            ("http://odd.example:80/x", None),
            ("http://safe.example:443/debian/x", None),
            ("http://safe.example:8443/debian/x", None),
            ("http://safe.example/other", None),
            ("http://tools.example/pub/x", None),
            ("http://tools.example:443/pub/x", None),
            ("https://safe.example/debian/x", None),
            ("https://mirror.example:80/debian/x", None),
        ] {
            assert_eq!(fetched(asked).as_deref(), fetched_from, "{asked}");
        }
    }

    #[test]
    fn a_guest_writes_every_mirror_with_http() {
        for (mirror, written) in [
            ("http://m.example/debian", Some("http://m.example/debian")),
            ("http://m.example:8080/", Some("http://m.example:8080/")),
            ("https://m.example/debian", Some("http://m.example/debian")),
            ("https://m.example:443/", Some("http://m.example/")),
            ("https://m.example:8443/", Some("http://m.example:8443/")),
            ("https://m.example:80/", None),
            ("ftp://m.example/", None),
        ] {
            let url = relay_url(&Url::parse(mirror).unwrap());
            assert_eq!(url.as_ref().map(Url::as_str), written, "{mirror}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for url in [
            "http://mirror.example/",
            "http://mirror.example/debian",
            "http://mirror.example/debian-other/x",
            "http://mirror.example/Debian/x",
            "https://mirror.example/debian/x",
            "http://mirror.example:8080/debian/x",
            "http://mirror.example.evil.example/debian/x",
            "http://mirror.example@evil.example/debian/x",
            "http://evil.example/http://mirror.example/debian/x",
            "http://127.0.0.1/debian/x",
            "http://[::1]/debian/x",
            "https://tools.example:8443/pub/x",
            "ftp://mirror.example/debian/x",
            "file:///debian/x",
            "",
        ] {
            assert!(policy().admit(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_url_with_two_readings_is_refused_though_one_of_them_is_below_a_prefix() {
        for path in [
            "..",
            "../x",
            "./x",
            "x/../../etc",
            "%2e%2e/x",
            ".%2E/x",
            "x%2f..%2f..",
            "..%2fx",
            "x%5c..",
            "x\\..\\y",
            "%252e%252e/x",
            "x%00",
            "x%0d%0aHost:y",
            "a//b",
            "%zz",
            "%2",
            "x#y",
            "x y",
            "ü",
            "{x}",
        ] {
            let url = format!("http://mirror.example/debian/{path}");
            assert!(matches!(policy().admit(&url), Err(UrlRefused::NotPlain(_))), "{url}");
        }
    }

    #[test]
    fn a_prefix_is_plain_itself() {
        for prefix in [
            "http://mirror.example/a/../b/",
            "http://u:p@mirror.example/",
            "mirror.example/",
            "http:///x/",
            "http://h/?q=",
        ] {
            assert!(Prefix::parse(prefix).is_err(), "{prefix}");
        }
    }

    fn origin_of(tls: bool, port: Option<u16>) -> (Origin, String) {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let mirror = format!("{}://m.example{port}/debian/", if tls { "https" } else { "http" });
        let prefixes = vec![Prefix::parse(&mirror).unwrap()];
        (Origin { name: "debian".parse().unwrap(), prefixes }, mirror)
    }

    fn port() -> impl Strategy<Value = Option<u16>> {
        proptest::option::of(prop_oneof![Just(80), Just(443), Just(8443), 1_u16..])
    }

    proptest! {
        /// Scheme and port are the mirror's own, whatever the guest writes, and only one URL means each.
        #[test]
        fn what_is_fetched_has_the_mirrors_scheme_and_port(tls: bool, own in port(), asked in port()) {
            let (origin, mirror) = origin_of(tls, own);
            let mirror = Url::parse(&mirror).unwrap();
            let asked_port = asked.map(|port| format!(":{port}")).unwrap_or_default();
            let asked_url = Url::parse(&format!("http://m.example{asked_port}/debian/x")).unwrap();
            let fetched = origin.meant(&asked_url);
            if let Some(url) = &fetched {
                prop_assert_eq!(url.origin(), mirror.origin());
                prop_assert_eq!(url.path(), "/debian/x");
            }
            let (own, asked) = (mirror.port_or_known_default().unwrap(), asked.unwrap_or(80));
            let same = match (tls, own) {
                (true, 443) => asked == 80,
                (true, 80) => false,
                _ => asked == own,
            };
            prop_assert_eq!(fetched.is_some(), same);
        }

        /// What the base's sources say is what the relay admits.
        #[test]
        fn what_a_guest_writes_means_the_mirror(tls: bool, own in port()) {
            let (origin, mirror) = origin_of(tls, own);
            let mirror = Url::parse(&mirror).unwrap();
            if let Some(written) = relay_url(&mirror) {
                prop_assert_eq!(written.scheme(), "http");
                prop_assert_eq!(origin.meant(&written), Some(mirror));
            }
        }

        /// Whatever is admitted goes to the declared host and below the declared path, as `url` reads it again.
        #[test]
        fn what_is_admitted_stays_inside(tail in "[ -~]{0,40}", host in "(mirror\\.example|[a-z@:.%\\[\\]0-9]{1,20})") {
            let text = format!("http://{host}/debian/{tail}");
            if let Ok((_, url)) = policy().admit(&text) {
                let again = Url::parse(url.as_str()).unwrap();
                prop_assert_eq!(again.host_str(), Some("mirror.example"));
                prop_assert!(again.path().starts_with("/debian/"));
                prop_assert!(again.path().split('/').all(|segment| segment != "." && segment != ".."));
            }
        }
    }
}
