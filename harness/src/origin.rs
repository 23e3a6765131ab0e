//! Origins: the only places that a building machine may fetch from, each a few URL prefixes of the site's choice.
//!
//! A prefix is compared by its parts after the URL was normalised, and a URL that two programs could read in two
//! ways (`..`, an encoded slash, a user name) is refused before anything is compared.

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
}

impl Origin {
    /// Whether a URL lies below one of its prefixes.
    #[must_use]
    pub fn covers(&self, url: &Url) -> bool {
        self.prefixes.iter().any(|prefix| prefix.covers(url))
    }
}

impl RelayPolicy {
    /// Reads a URL and finds the origin it belongs to.
    ///
    /// # Errors
    /// [`UrlRefused`]
    pub fn admit(&self, text: &str) -> Result<(&Origin, Url), UrlRefused> {
        let url = plain_url(text)?;
        match self.origins.iter().find(|origin| origin.covers(&url)) {
            Some(origin) => Ok((origin, url)),
            None => Err(UrlRefused::Undeclared(url.to_string())),
        }
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
            ],
        }
    }

    #[test]
    fn what_lies_below_a_prefix_is_admitted() {
        for (url, origin) in [
            ("http://mirror.example/debian/dists/bookworm/InRelease", "debian"),
            ("http://MIRROR.example:80/debian/pool/main/g/g++-12/a%2bb_1%3a2.0~rc1.deb", "debian"),
            ("http://mirror.example/debian-security/x?arch=amd64", "debian"),
            ("https://tools.example:8443/pub/", "tools"),
        ] {
            assert_eq!(policy().admit(url).unwrap().0.name.to_string(), origin, "{url}");
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
            "https://tools.example/pub/x",
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

    proptest! {
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
