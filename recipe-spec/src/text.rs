//! Text with rules: one shape for every type that is a string with a rule, and for saying what broke it.

use std::fmt::Write as _;

/// Text that breaks the rule of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not {what}: {rule}")]
pub struct Malformed {
    /// What was expected, with its article: "a VO name".
    pub what: &'static str,
    /// What was found: quoted, control characters escaped, cut.
    pub text: String,
    /// The rule it broke.
    pub rule: &'static str,
}

impl Malformed {
    /// `text` is quoted here; `rule` says what is allowed.
    pub fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Malformed { what, text: quoted(text), rule }
    }
}

/// Characters of hostile text that a message shows at most.
const QUOTED_CHARACTERS: usize = 80;

/// Hostile text for a message: in backticks, on one line, what a terminal or an eye would misread escaped, and cut.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("`");
    for (index, character) in text.chars().enumerate() {
        if index == QUOTED_CHARACTERS {
            quoted.push('…');
            break;
        }
        if misleads(character) {
            let _ = write!(quoted, "{}", character.escape_unicode());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('`');
    quoted
}

/// True for control characters, line and paragraph separators, invisible characters and those that turn the
/// direction of text: a reader would not see what is there (CWE-1007).
pub fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Declares a string type whose only door is a check: `FromStr`, `Display`, serde as text, byte order.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::text::Malformed;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> Result<(), $crate::text::Malformed> = $check;
                check(text)?;
                Ok($name(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::text::Malformed;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
    };
}
pub(crate) use checked_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_shown_on_one_line_and_cut() {
        assert_eq!(quoted("a\n\u{1b}[2Jb\u{202e}é"), "`a\\u{a}\\u{1b}[2Jb\\u{202e}é`");
        assert_eq!(quoted(&"x".repeat(1000)).chars().count(), QUOTED_CHARACTERS + 3);
    }
}
