//! Bytes of a hostile disk as text that reads back to the same bytes.

use std::fmt::Write;

/// `bytes` as one line of text: what is not UTF-8, control characters (U+0000–U+001F, U+007F–U+009F) and the backslash are
/// written as `\xNN`, byte for byte.
///
/// Because the backslash itself is escaped, no two names have the same text.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |text: &mut String, byte: u8| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "\\x{byte:02x}");
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    escape(&mut text, byte);
                }
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            escape(&mut text, *byte);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::escaped;

    #[test]
    fn what_could_mislead_is_escaped() {
        assert_eq!(escaped("/zürich".as_bytes()), "/zürich");
        assert_eq!(escaped(b"a\n\x7f\xff\xc3b"), "a\\x0a\\x7f\\xff\\xc3b");
        assert_eq!(escaped("\u{85}".as_bytes()), "\\xc2\\x85");
        assert_eq!(escaped(br"dev-\x2d"), r"dev-\x5cx2d");
    }

    /// The bytes that `text` stands for.
    fn unescaped(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("\\x") {
            bytes.extend(&rest.as_bytes()[..at]);
            bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
            rest = &rest[at + 4..];
        }
        bytes.extend(rest.as_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn no_two_names_have_the_same_text(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unescaped(&escaped(&name)), name);
        }

        #[test]
        fn names_of_escapes_too(name in r"[\\xf0-3a]{0,12}") {
            prop_assert_eq!(unescaped(&escaped(name.as_bytes())), name.as_bytes());
        }
    }
}
