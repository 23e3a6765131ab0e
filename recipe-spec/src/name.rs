//! Names: short, lower case, and safe wherever they end up, be it a path, an argument or a message.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::{Malformed, checked_text};

/// Characters of a name at most: those of a DNS label (RFC 1035 §2.3.4).
const NAME_CHARACTERS: usize = 63;
/// Characters of a user's or group's name at most (`useradd(8)`).
const USER_CHARACTERS: usize = 32;

const NAME_RULE: &str = "use 1 to 63 of a-z, 0-9 and `-`, beginning with a letter or digit";

fn is_name(text: &str) -> bool {
    begins(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && text.len() <= NAME_CHARACTERS
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn begins(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().next().is_some_and(allowed)
}

checked_text! {
    /// A virtual organisation: `[a-z0-9]([a-z0-9-]{0,62})`.
    VoName, |text| {
        if is_name(text) { Ok(()) } else { Err(Malformed::new("a VO name", text, NAME_RULE)) }
    }
}

checked_text! {
    /// An origin that a machine may fetch from while it is built; the site maps it to its mirror.
    OriginName, |text| {
        if is_name(text) { Ok(()) } else { Err(Malformed::new("an origin name", text, NAME_RULE)) }
    }
}

checked_text! {
    /// A secret that an instance gets.
    SecretName, |text| {
        if is_name(text) { Ok(()) } else { Err(Malformed::new("a secret's name", text, NAME_RULE)) }
    }
}

checked_text! {
    /// A base image in a site's catalogue: a name in which `.` is allowed too (`debian-12`, `almalinux-9.4`).
    BaseName, |text| {
        let fits = begins(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && text.len() <= NAME_CHARACTERS
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte));
        if fits {
            Ok(())
        } else {
            Err(Malformed::new(
                "a base image's name",
                text,
                "use 1 to 63 of a-z, 0-9, `.` and `-`, beginning with a letter or digit",
            ))
        }
    }
}

checked_text! {
    /// A user or group in the machine: `[a-z_][a-z0-9_-]{0,31}`, Debian's own rule (`useradd(8)`).
    UserName, |text| {
        let fits = begins(text, |byte| byte.is_ascii_lowercase() || byte == b'_')
            && text.len() <= USER_CHARACTERS
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
        if fits {
            Ok(())
        } else {
            Err(Malformed::new(
                "a user or group name",
                text,
                "use 1 to 32 of a-z, 0-9, `_` and `-`, beginning with a letter or `_`",
            ))
        }
    }
}

/// A recipe's name, `VO/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecipeName {
    text: String,
    slash: usize,
}

impl RecipeName {
    /// The VO's part.
    pub fn vo(&self) -> &str {
        &self.text[..self.slash]
    }

    /// The VO's part as a name of its own.
    pub fn vo_name(&self) -> VoName {
        self.vo().parse().unwrap_or_else(|_| unreachable!("checked when the recipe's name was read"))
    }

    /// The part that the VO chose.
    pub fn name(&self) -> &str {
        &self.text[self.slash + 1..]
    }

    /// The whole, `VO/name`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for RecipeName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.split_once('/') {
            Some((vo, name)) if is_name(vo) && is_name(name) => {
                Ok(RecipeName { text: text.to_owned(), slash: vo.len() })
            }
            _ => Err(Malformed::new(
                "a recipe name",
                text,
                "write `VO/name`, each part 1 to 63 of a-z, 0-9 and `-`, beginning with a letter or digit",
            )),
        }
    }
}

impl TryFrom<String> for RecipeName {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<RecipeName> for String {
    fn from(name: RecipeName) -> String {
        name.text
    }
}

impl fmt::Display for RecipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_name_has_two_parts() {
        let name: RecipeName = "atlas/web-2".parse().unwrap();
        assert_eq!((name.vo(), name.name(), name.to_string().as_str()), ("atlas", "web-2", "atlas/web-2"));
        assert_eq!(name.vo_name(), "atlas");
        for wrong in [
            "web",
            "/web",
            "atlas/",
            "atlas/web/x",
            "Atlas/web",
            "atlas/-web",
            "../x",
            "a/..",
            "a /b",
            "a/b\n",
            "ä/b",
        ] {
            assert!(wrong.parse::<RecipeName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_end_at_63_characters_and_users_at_32() {
        assert!("a".repeat(63).parse::<VoName>().is_ok());
        assert!("a".repeat(64).parse::<VoName>().is_err());
        assert!("a".repeat(32).parse::<UserName>().is_ok());
        assert!("a".repeat(33).parse::<UserName>().is_err());
    }

    #[test]
    fn users_are_those_of_debian() {
        for right in ["root", "www-data", "_apt", "systemd-network"] {
            assert!(right.parse::<UserName>().is_ok(), "{right}");
        }
        for wrong in ["", "-x", "0day", "a:b", "a b", "Root", "a/b", "a\0"] {
            assert!(wrong.parse::<UserName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_malformed_name_says_the_rule() {
        let error = "ATLAS".parse::<VoName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`ATLAS` is not a VO name: use 1 to 63 of a-z, 0-9 and `-`, beginning with a letter or digit"
        );
    }
}
