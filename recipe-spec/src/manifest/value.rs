//! Small values of a manifest: modes, times and packages.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::{Malformed, checked_text};

/// Permission bits with setuid, setgid and sticky, at most `0o7777`; as text four octal digits, `"0644"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(u32);

impl Mode {
    /// The bits as `chmod(2)` takes them.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// True if setuid or setgid is among them.
    pub fn is_setid(self) -> bool {
        self.0 & 0o6000 != 0
    }
}

impl FromStr for Mode {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        if text.len() != 4 || !is_octal {
            return Err(Malformed::new("a mode", text, "use four octal digits, like \"0644\""));
        }
        Ok(Mode(text.bytes().fold(0, |bits, digit| bits * 8 + u32::from(digit - b'0'))))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// A span of time in whole seconds, at least one; as text a number with `s`, `m` or `h`: `"90s"`, `"5m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Seconds(u32);

impl Seconds {
    /// Time that a test has unless it says otherwise.
    pub const TEST: Seconds = Seconds(30);
    /// Time that a `run` step has unless it says otherwise.
    pub const RUN: Seconds = Seconds(600);
    /// The longest time that a manifest can ask for.
    pub const LONGEST: Seconds = Seconds(6 * 3600);

    /// As a number of seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// As the standard library's type.
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Duration {
        seconds.duration()
    }
}

impl FromStr for Seconds {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || {
            Malformed::new("a span of time", text, "write it as \"90s\", \"5m\" or \"1h\", 6 hours at most")
        };
        let unit = match text.bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            _ => return Err(malformed()),
        };
        let number = &text[..text.len() - 1];
        if number.starts_with('0') || number.len() > 5 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let seconds = number.parse::<u32>().map_err(|_| malformed())?.saturating_mul(unit);
        if seconds > Seconds::LONGEST.0 { Err(malformed()) } else { Ok(Seconds(seconds)) }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
            seconds if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ident)*) => { $(
        impl TryFrom<String> for $name {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )* };
}
serde_as_text!(Mode Seconds);

/// Characters of a package's name, architecture and version together at most.
const PACKAGE_CHARACTERS: usize = 200;

checked_text! {
    /// A package as its manager names it: `name`, `name:architecture`, `name=version`. Never an option, a file, a
    /// pattern, or a name that a manager would read as a removal (`name-`).
    PackageName, |text| {
        let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
        let (name, architecture) = name.split_once(':').map_or((name, None), |(name, arch)| (name, Some(arch)));
        let fits = text.len() <= PACKAGE_CHARACTERS
            && name.len() >= 2
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && !name.ends_with('-')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
            && architecture.is_none_or(|arch| !arch.is_empty() && arch.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            && version.is_none_or(|version| {
                version.starts_with(|first: char| first.is_ascii_alphanumeric())
                    && version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+:~-".contains(&byte))
            });
        if fits {
            Ok(())
        } else {
            Err(Malformed::new("a package", text, "write `name`, `name:architecture` or `name=version`; no options, files or patterns"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_four_octal_digits() {
        let mode: Mode = "4755".parse().unwrap();
        assert_eq!((mode.bits(), mode.is_setid(), mode.to_string().as_str()), (0o4755, true, "4755"));
        assert!(!"1777".parse::<Mode>().unwrap().is_setid());
        for wrong in ["644", "0o644", "0888", "00644", "-644", "", "06 4", "٠٦٤٤"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_of_time_have_a_unit() {
        for (text, seconds, shown) in
            [("10s", 10, "10s"), ("120s", 120, "2m"), ("5m", 300, "5m"), ("6h", 21600, "6h")]
        {
            let time: Seconds = text.parse().unwrap();
            assert_eq!((time.seconds(), time.to_string().as_str()), (seconds, shown));
        }
        for wrong in ["", "s", "10", "0s", "-1s", "+1s", "1.5s", "7h", "99999h", "10 s", "10S", "1d", "010s"]
        {
            assert!(wrong.parse::<Seconds>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn packages_are_names_and_nothing_else() {
        for right in
            ["nginx-light", "g++", "python3.11", "libc6:amd64", "nginx=1.22.1-9+deb12u1", "NetworkManager"]
        {
            assert!(right.parse::<PackageName>().is_ok(), "{right}");
        }
        for wrong in [
            "",
            "x",
            "-y",
            "--allow-unauthenticated",
            "./x.deb",
            "/tmp/x.deb",
            "nginx-",
            "ngin*",
            "a b",
            "nginx/sid",
            "a=",
            "a:",
            "nginx=-o",
            "nginx;id",
            "$(id)",
            "näh",
        ] {
            assert!(wrong.parse::<PackageName>().is_err(), "{wrong}");
        }
    }
}
