//! Bytes of a hostile guest as text: what is not UTF-8 becomes `\xNN`.

use std::fmt::Write;

/// `bytes` as text, each byte that is not part of valid UTF-8 written as `\xNN`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn only_invalid_bytes_are_escaped() {
        assert_eq!(escaped("zürich\n".as_bytes()), "zürich\n");
        assert_eq!(escaped(b"a\xff\xc3b"), "a\\xff\\xc3b");
    }
}
