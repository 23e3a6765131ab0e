//! Where this host gets Debian from, so that a new site's origin `debian` starts out as the host's own mirrors.
//!
//! Pure readers of the two forms of `sources.list(5)`: one line, and deb822. Neither is validated beyond what we
//! take from it; apt itself checks the archive's signature wherever the mirrors are used.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use url::Url;

/// The most bytes read of one file of apt's, and the most such files.
const FILE_BYTES: u64 = 1 << 20;
const FILES: usize = 256;

/// Debian's codenames and suite names that a source can carry.
const DEBIAN_SUITES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"];

/// What may follow a suite's name in Debian's own archives.
const SUITE_SUFFIXES: [&str; 6] =
    ["", "-updates", "-security", "/updates", "-backports", "-proposed-updates"];

/// The keyring that signs Debian's archives, as its file is named in `Signed-By`.
const DEBIAN_KEYRING: &str = "debian-archive-keyring";

/// One entry of apt's sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AptSource {
    /// `deb`, `deb-src`.
    pub types: Vec<String>,
    /// As written; not all of them are URLs of a mirror (`cdrom:`, `mirror+file:`).
    pub uris: Vec<String>,
    /// `bookworm`, `bookworm-updates`.
    pub suites: Vec<String>,
    /// `main`, `contrib`.
    pub components: Vec<String>,
    /// The path of a keyring, where the entry names one.
    pub signed_by: Option<String>,
}

impl AptSource {
    /// Whether this is Debian's own archive: its suites and `main`, and either Debian's keyring or Debian's usual
    /// path (third parties publish for Debian's suites too).
    fn is_debian(&self, uri: &Url) -> bool {
        let own_path = matches!(
            uri.path_segments().and_then(|segments| segments.rev().find(|segment| !segment.is_empty())),
            Some("debian" | "debian-security")
        );
        let own_key = self.signed_by.as_deref().is_some_and(|path| path.contains(DEBIAN_KEYRING));
        self.types.iter().any(|kind| kind == "deb")
            && self.components.iter().any(|component| component == "main")
            && self.suites.iter().any(|suite| is_debian_suite(suite))
            && (own_key || own_path)
    }
}

fn is_debian_suite(suite: &str) -> bool {
    DEBIAN_SUITES
        .iter()
        .any(|name| suite.strip_prefix(name).is_some_and(|rest| SUITE_SUFFIXES.contains(&rest)))
}

/// The mirrors of Debian's archive and security archive among `sources`, each once, in their order.
pub fn debian_mirrors(sources: &[AptSource]) -> Vec<Url> {
    let mut mirrors = Vec::new();
    for source in sources {
        for uri in &source.uris {
            let Ok(mut url) = Url::parse(uri) else { continue };
            if !matches!(url.scheme(), "http" | "https") || !source.is_debian(&url) {
                continue;
            }
            let path = url.path().trim_end_matches('/').to_owned();
            url.set_path(&path);
            if !mirrors.contains(&url) {
                mirrors.push(url);
            }
        }
    }
    mirrors
}

/// The entries of this host's apt: `sources.list` and `sources.list.d` below `apt` (usually `/etc/apt`). What is
/// missing or cannot be read counts as empty: a host without apt can still have a site.
pub fn host_sources(apt: &Path) -> Vec<AptSource> {
    let mut sources = read(&apt.join("sources.list")).map(|text| parse_one_line(&text)).unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(apt.join("sources.list.d")) else { return sources };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).take(FILES).collect();
    paths.sort();
    for path in paths {
        let parse = match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_one_line,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        sources.extend(read(&path).map(|text| parse(&text)).unwrap_or_default());
    }
    sources
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Reads the one-line form: `deb [option=value …] uri suite component…`.
pub fn parse_one_line(text: &str) -> Vec<AptSource> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<AptSource> {
    let line = line.split('#').next()?.trim();
    let (kind, mut rest) = line.split_once(char::is_whitespace)?;
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(AptSource {
        types: vec![kind.to_owned()],
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

/// Reads the deb822 form: stanzas of `Field: value`, continued by lines that begin with a blank.
pub fn parse_deb822(text: &str) -> Vec<AptSource> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            fields.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Option<AptSource> {
    let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let words = |name: &str| -> Vec<String> {
        value(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    if value("enabled").is_some_and(|enabled| matches!(enabled, "no" | "false" | "0" | "without" | "off")) {
        return None;
    }
    let uris = words("uris");
    (!uris.is_empty()).then(|| AptSource {
        types: words("types"),
        uris,
        suites: words("suites"),
        components: words("components"),
        // A key written into the stanza itself is not a path.
        signed_by: value("signed-by").filter(|path| path.starts_with('/')).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(sources: &[AptSource]) -> Vec<String> {
        debian_mirrors(sources).iter().map(Url::to_string).collect()
    }

    #[test]
    fn the_one_line_form_gives_archive_and_security_once_each() {
        let sources = parse_one_line(
            "# comment\n\
             deb http://mirror.example.org/debian bookworm main contrib # why\n\
             deb-src http://mirror.example.org/debian bookworm main\n\
             deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example.org/debian/ bookworm-updates main\n\
             deb https://security.example.org/debian-security bookworm-security main\n\
             deb cdrom:[Debian GNU/Linux]/ bookworm main\n\
             #deb http://off.example.org/debian bookworm main\n",
        );
        assert_eq!(
            mirrors(&sources),
            ["http://mirror.example.org/debian", "https://security.example.org/debian-security"]
        );
    }

    #[test]
    fn the_deb822_form_with_comments_and_continued_lines() {
        let sources = parse_deb822(
            "Types: deb\n# a comment inside\nURIs: http://mirror.example.org/debian\n https://other.example.org/debian\n\
             Suites: bookworm bookworm-updates\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb\nURIs: http://mirror.example.org/debian-security\nSuites: bookworm-security\nComponents: main\n",
        );
        assert_eq!(sources.len(), 2);
        assert_eq!(
            mirrors(&sources),
            [
                "http://mirror.example.org/debian",
                "https://other.example.org/debian",
                "http://mirror.example.org/debian-security"
            ]
        );
    }

    #[test]
    fn an_unusual_path_counts_when_debian_signs_it() {
        let sources = parse_deb822(
            "Types: deb\nURIs: https://mirror.example.org/pool/deb12\nSuites: bookworm\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
        );
        assert_eq!(mirrors(&sources), ["https://mirror.example.org/pool/deb12"]);
    }

    #[test]
    fn third_parties_and_disabled_stanzas_are_left_out() {
        let mut sources = parse_one_line(
            "deb https://packages.example.org/apt cloud-bookworm main\n\
             deb https://apt.example.org bookworm main\n\
             deb https://download.example.org/linux/debian bookworm stable\n\
             deb https://apt.example.org/debian bookworm-pgdg main\n",
        );
        sources.extend(parse_deb822(
            "Enabled: no\nTypes: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm\nComponents: main\n",
        ));
        assert!(debian_mirrors(&sources).is_empty());
    }

    #[test]
    fn a_host_has_both_forms_and_files_apt_ignores() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        std::fs::create_dir(&parts).unwrap();
        std::fs::write(apt.path().join("sources.list"), "deb http://one.example.org/debian bookworm main\n")
            .unwrap();
        std::fs::write(
            parts.join("debian.sources"),
            "Types: deb\nURIs: http://two.example.org/debian\nSuites: stable\nComponents: main\n",
        )
        .unwrap();
        std::fs::write(parts.join("old.list.save"), "deb http://three.example.org/debian bookworm main\n")
            .unwrap();
        assert_eq!(
            mirrors(&host_sources(apt.path())),
            ["http://one.example.org/debian", "http://two.example.org/debian"]
        );
    }

    #[test]
    fn a_host_without_apt_has_no_mirrors() {
        assert_eq!(host_sources(Path::new("/nonexistent")), []);
    }

    proptest::proptest! {
        #[test]
        fn no_text_upsets_the_readers(text in "(?s).{0,300}") {
            debian_mirrors(&parse_one_line(&text));
            debian_mirrors(&parse_deb822(&text));
        }
    }
}
