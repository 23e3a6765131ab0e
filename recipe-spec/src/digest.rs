//! SHA-256 digests: 32 bytes that only ever look like 64 lower-case hexadecimal digits.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::text::Malformed;

/// A SHA-256 digest; as text and in JSON 64 lower-case hexadecimal digits, and no other form is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Sha256Digest(Sha256::digest(bytes).into())
    }

    /// The digest of all that `reader` gives, and how many bytes that was.
    pub fn of_reader(reader: &mut impl Read) -> io::Result<(Self, u64)> {
        let mut state = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut length = 0u64;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((Sha256Digest(state.finalize().into()), length)),
                Ok(read) => {
                    state.update(&buffer[..read]);
                    length += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A digest that was computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Sha256Digest(bytes)
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("a SHA-256 digest", text, "use 64 lower-case hexadecimal digits");
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| malformed())?;
        Ok(Sha256Digest(bytes))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Sha256Digest {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Sha256Digest::from_hex(text)
    }
}

impl TryFrom<String> for Sha256Digest {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        Sha256Digest::from_hex(&text)
    }
}

impl From<Sha256Digest> for String {
    fn from(digest: Sha256Digest) -> String {
        digest.to_hex()
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_hex())
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_standards_example() {
        assert_eq!(Sha256Digest::of(b"abc").to_hex(), ABC);
        assert_eq!(Sha256Digest::of_reader(&mut &b"abc"[..]).unwrap(), (Sha256Digest::of(b"abc"), 3));
    }

    #[test]
    fn only_one_text_form_is_read() {
        assert_eq!(Sha256Digest::from_hex(ABC).unwrap(), Sha256Digest::of(b"abc"));
        for wrong in [&ABC[1..], &ABC.to_uppercase(), &format!("{ABC}0"), &format!(" {}", &ABC[1..]), ""] {
            assert!(Sha256Digest::from_hex(wrong).is_err(), "{wrong}");
        }
        let json = serde_json::to_string(&Sha256Digest::of(b"abc")).unwrap();
        assert_eq!(json, format!("\"{ABC}\""));
        assert_eq!(serde_json::from_str::<Sha256Digest>(&json).unwrap(), Sha256Digest::of(b"abc"));
    }
}
