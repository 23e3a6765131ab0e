//! Where a recipe comes from: a git repository on this host, or one reached by `git://` or `https://`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use recipe_spec::text::quoted;
use serde::{Deserialize, Serialize};
use url::Url;

/// A git repository and the revision wanted of it. Written `PLACE` or `PLACE#REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where the repository is.
    pub place: Place,
    /// What is wanted of it.
    pub revision: Revision,
}

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder on this host: a repository, or a folder within one.
    Local(PathBuf),
    /// `git://…` or `https://…`, without user, query or fragment.
    Remote(Url),
}

/// What is wanted of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// What its `HEAD` names.
    Head,
    /// A branch or tag, or the full name of a reference (`refs/…`).
    Reference(String),
    /// A commit, by its id.
    Commit(git2::Oid),
}

/// Text that is not a source. The command line is wrong, nothing was decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A transport that anybody on the way can change and read, or that we do not speak.
    #[error("{scheme}:// is not fetched: use git://, https:// or a path")]
    Scheme {
        /// The URL's scheme.
        scheme: String,
    },
    /// Not a URL that we take.
    #[error("{url} is not the address of a repository: {rule}")]
    Url {
        /// The text, quoted, without what may be a password.
        url: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// Not the name of a branch, tag or commit.
    #[error("{revision} is no branch, tag or commit id")]
    Revision {
        /// The text, quoted.
        revision: String,
    },
    /// Nothing before the `#`.
    #[error("name a repository: git://…, https://… or a path")]
    Empty,
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let (place, revision) = match text.rsplit_once('#') {
            Some((place, revision)) => (place, revision.parse()?),
            None => (text, Revision::Head),
        };
        if place.is_empty() {
            return Err(SourceError::Empty);
        }
        if !place.contains("://") {
            return Ok(Self { place: Place::Local(place.into()), revision });
        }
        let wrong =
            |rule| SourceError::Url { url: quoted(place.split('@').next_back().unwrap_or_default()), rule };
        let url = Url::parse(place).map_err(|_| wrong("it does not parse as a URL"))?;
        if !matches!(url.scheme(), "git" | "https") {
            return Err(SourceError::Scheme { scheme: url.scheme().to_owned() });
        }
        // The address goes into every authorization, where a password must not be.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("leave user and password out"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("leave the query out"));
        }
        if url.host_str().is_none_or(str::is_empty) || matches!(url.path(), "" | "/") {
            return Err(wrong("it needs a host and a path"));
        }
        Ok(Self { place: Place::Remote(url), revision })
    }
}

/// Digits of a commit's id (SHA-1, as libgit2 reads it).
const COMMIT_DIGITS: usize = 40;

impl FromStr for Revision {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.len() == COMMIT_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return git2::Oid::from_str(text)
                .map(Self::Commit)
                .map_err(|_| SourceError::Revision { revision: quoted(text) });
        }
        let full = if text.starts_with("refs/") { text.to_owned() } else { format!("refs/heads/{text}") };
        if text != "HEAD" && !text.is_empty() && git2::Reference::is_valid_name(&full) {
            Ok(Self::Reference(text.to_owned()))
        } else if text == "HEAD" {
            Ok(Self::Head)
        } else {
            Err(SourceError::Revision { revision: quoted(text) })
        }
    }
}

impl Revision {
    /// The full names of references that it may mean.
    pub(super) fn candidates(&self) -> Vec<String> {
        match self {
            Self::Head => vec!["HEAD".to_owned()],
            Self::Commit(_) => Vec::new(),
            Self::Reference(name) if name.starts_with("refs/") => vec![name.clone()],
            Self::Reference(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.pad("HEAD"),
            Self::Reference(name) => f.pad(name),
            Self::Commit(id) => f.pad(&id.to_string()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As a URL, so that no character of the path can be taken for something else.
            Self::Local(path) => match Url::from_file_path(path) {
                Ok(url) => write!(f, "git+{url}"),
                Err(()) => write!(f, "git+file:{}", path.display()),
            },
            Self::Remote(url) => write!(f, "git+{url}"),
        }
    }
}

/// Where a recipe came from, pinned: goes into its authorization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRef {
    /// `git+https://…`, `git+git://…` or `git+file://…`.
    pub uri: String,
    /// The commit's id, 40 hexadecimal digits.
    pub commit: String,
    /// The recipe's folder within the repository; `.` for all of it.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_can_be() {
        let source: Source = "git://git.example.org/recipes#v1.4.0".parse().unwrap();
        assert_eq!(source.place.to_string(), "git+git://git.example.org/recipes");
        assert_eq!(source.revision, Revision::Reference("v1.4.0".into()));
        let source: Source = "https://git.example.org:8443/a/recipes.git".parse().unwrap();
        assert_eq!(
            (source.place.to_string().as_str(), source.revision),
            ("git+https://git.example.org:8443/a/recipes.git", Revision::Head)
        );
        let source: Source = "../recipes#0123456789012345678901234567890123456789".parse().unwrap();
        assert_eq!(source.place, Place::Local("../recipes".into()));
        assert!(matches!(source.revision, Revision::Commit(_)));
        let source: Source = "/srv/with#hash#refs/pull/1/head".parse().unwrap();
        assert_eq!(source.place, Place::Local("/srv/with#hash".into()));
        assert_eq!(source.revision.candidates(), ["refs/pull/1/head"]);
        assert_eq!(Place::Local("/srv/a b\n%#".into()).to_string(), "git+file:///srv/a%20b%0A%25%23");
        assert_eq!("a#HEAD".parse::<Source>().unwrap().revision, Revision::Head);
    }

    #[test]
    fn what_it_cannot_be() {
        for plain in ["http://git.example.org/a", "ssh://git.example.org/a", "file:///srv/a", "ext::x://y"] {
            assert!(
                matches!(plain.parse::<Source>(), Err(SourceError::Scheme { .. } | SourceError::Url { .. })),
                "{plain}"
            );
        }
        for wrong in [
            "https://user:secret@git.example.org/a",
            "git://git.example.org",
            "git://git.example.org/a?x=y",
            "git:///a",
        ] {
            let error = wrong.parse::<Source>().unwrap_err();
            assert!(matches!(error, SourceError::Url { .. }), "{wrong}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        for wrong in
            ["/srv/a#", "/srv/a#-..x", "/srv/a#a..b", "/srv/a#a b", "/srv/a#refs/", "/srv/a#a:b", "/srv/a#+a"]
        {
            let parsed = wrong.parse::<Source>();
            assert!(
                matches!(parsed, Err(SourceError::Revision { .. })) || wrong.ends_with("+a"),
                "{wrong} {parsed:?}"
            );
        }
        assert_eq!("#main".parse::<Source>(), Err(SourceError::Empty));
        assert_eq!("".parse::<Source>(), Err(SourceError::Empty));
    }
}
