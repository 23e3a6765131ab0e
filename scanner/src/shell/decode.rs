//! Text out of base64, hex and shell escapes, where all of it is known.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::limits;
use crate::source::readable;

/// Padding may lack and bits may trail, as the tools themselves allow.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn base64(text: &str) -> Option<String> {
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    if compact.is_empty() || compact.len() > limits::FILE_BYTES {
        return None;
    }
    LENIENT.decode(compact).ok().map(|bytes| readable(&bytes).into_owned())
}

pub(super) fn hex(text: &str) -> Option<String> {
    let digits: Vec<u8> = text
        .replace("0x", "")
        .replace("\\x", "")
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap_or(b'?'))
        .collect();
    Some(readable(&bytes).into_owned())
}

/// The escapes of `$'…'`, `echo -e` and `printf`.
pub(super) fn escapes(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let Some((escape, after)) = rest.split_first() else {
            bytes.push(b'\\');
            break;
        };
        rest = after;
        let simple = match escape {
            b'n' => Some(b'\n'),
            b't' => Some(b'\t'),
            b'r' => Some(b'\r'),
            b'a' | b'b' | b'f' | b'v' => Some(b' '),
            b'e' | b'E' => Some(0x1b),
            b'\\' | b'\'' | b'"' | b'?' => Some(*escape),
            _ => None,
        };
        if let Some(byte) = simple {
            bytes.push(byte);
            continue;
        }
        let (radix, most, skip) = match escape {
            b'x' => (16, 2, 0),
            b'u' => (16, 4, 0),
            b'U' => (16, 8, 0),
            b'0' => (8, 3, 0),
            b'1'..=b'7' => (8, 2, u32::from(escape - b'0')),
            _ => {
                bytes.extend([b'\\', *escape]);
                continue;
            }
        };
        let mut value = skip;
        let mut count = 0;
        while count < most
            && let Some(digit) = rest.first().and_then(|byte| char::from(*byte).to_digit(radix))
        {
            value = value.wrapping_mul(radix).wrapping_add(digit);
            rest = &rest[1..];
            count += 1;
        }
        if matches!(escape, b'u' | b'U') {
            let c = char::from_u32(value).unwrap_or('?');
            bytes.extend(c.to_string().as_bytes());
        } else {
            bytes.push(u8::try_from(value & 0xff).unwrap_or(b'?'));
        }
    }
    readable(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_read_what_the_tools_read() {
        assert_eq!(base64("Y3VybCB4\nfHNo").as_deref(), Some("curl x|sh"));
        assert_eq!(base64("aGk"), Some("hi".to_owned()));
        assert_eq!(base64("!!"), None);
        assert_eq!(hex("6869"), Some("hi".to_owned()));
        assert_eq!(escapes(r"\x68\151\n\u0041\q"), "hi\nA\\q");
        assert_eq!(escapes("a\\"), "a\\");
    }
}
