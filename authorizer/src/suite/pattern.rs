//! Patterns of the configuration: text in which `*` stands for anything but `/`, and `/**` at the end for all that lies below.

use serde::{Deserialize, Serialize};

/// A pattern for a name or path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Why text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` allows everything or nothing that exists, or has `**` elsewhere than at the end of a plain folder"
)]
pub struct PatternError(String);

/// Most stars in a pattern: matching is quadratic at worst.
const MAX_STARS: usize = 8;

impl Pattern {
    /// True if the whole text fits.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        if let Some(folder) = self.0.strip_suffix("**") {
            return text.len() > folder.len() && text.starts_with(folder);
        }
        let mut pieces = self.0.split('*');
        let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let mut pieces = pieces.peekable();
        if pieces.peek().is_none() {
            return rest.is_empty();
        }
        // Without `/` in what a star takes, the leftmost fit of each piece leaves the most room for the next; the
        // last must end the text.
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                return rest.strip_suffix(piece).is_some_and(|star| !star.contains('/'));
            }
            match rest.find(piece) {
                Some(at) if !rest[..at].contains('/') => rest = &rest[at + piece.len()..],
                _ => return false,
            }
        }
        false
    }
}

impl Pattern {
    /// True if it is this very text.
    pub(super) fn is(&self, text: &str) -> bool {
        self.0 == text
    }

    /// True if what fits lies below this folder, as far as the text before the first star tells.
    pub(super) fn lies_below(&self, folder: &str) -> bool {
        is_below(self.0.split('*').next().unwrap_or_default(), folder)
    }
}

/// True if the path begins with this folder.
pub(super) fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// True if any pattern fits.
pub(super) fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        let useful = text.chars().any(|character| !matches!(character, '*' | '/' | '.'));
        let below =
            text.strip_suffix("/**").is_some_and(|folder| folder.starts_with('/') && !folder.contains('*'));
        if text.contains("**") && !below {
            return Err(PatternError(text));
        }
        if !useful || text.matches('*').count() > MAX_STARS || text.chars().any(char::is_control) {
            return Err(PatternError(text));
        }
        Ok(Self(text))
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        Pattern::try_from(pattern.to_owned()).unwrap().matches(text)
    }

    #[test]
    fn a_star_is_anything_within_one_folder() {
        for (pattern, text) in [
            ("nf_*", "nf_tables"),
            ("/etc/*.d/x", "/etc/a.d/x"),
            ("a*b*c", "aXbYbZc"),
            ("same", "same"),
            ("a*", "a"),
            ("/usr/**", "/usr/bin/x"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("nf_*", "xnf_tables"),
            ("/etc/*.d/x", "/etc/a/b.d/x"),
            ("a*b*c", "aXc"),
            ("same", "same2"),
            ("same", "sam"),
            ("a*a", "a"),
            ("/etc/cron.d/*", "/etc/cron.d/sub/x"),
            ("/usr/**", "/usr/"),
            ("/usr/**", "/usr2/bin"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_that_allows_all_is_none() {
        for text in ["", "*", "**", "/*", "/*/*", "*.*", "a\n", "/**", "a/**", "/**/x", "/a*/**", "/a**"] {
            assert!(Pattern::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
