//! How deep brackets lie within each other, told before any parser recurses into them.

/// Finds the first byte at which `source`, read as TOML, nests deeper than `limit`: brackets, braces and the dots
/// of a key count. Strings and comments do not. `None` if it stays within; text that is no TOML is for the parser
/// to refuse.
pub(crate) fn first_too_deep(source: &str, limit: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut at = 0;
    let mut open = 0usize;
    let mut dots = 0usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'#' => at = end_of_line(bytes, at),
            b'"' | b'\'' => {
                at = end_of_string(bytes, at);
                continue;
            }
            b'[' | b'{' => {
                open += 1;
                dots = 0;
            }
            b']' | b'}' => {
                open = open.saturating_sub(1);
                dots = 0;
            }
            b'.' => dots += 1,
            b'\n' | b',' | b'=' => dots = 0,
            _ => {}
        }
        if open + dots > limit {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn end_of_line(bytes: &[u8], start: usize) -> usize {
    bytes[start..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |length| start + length)
}

/// The byte after the string that begins at `start`; the end of the line if a single-line string is not closed.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let triple = [quote; 3];
    let multi_line = bytes[start..].starts_with(&triple);
    let mut at = start + if multi_line { 3 } else { 1 };
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\n' if !multi_line => return at,
            b'\\' if quote == b'"' && (multi_line || bytes.get(at + 1) != Some(&b'\n')) => at += 2,
            _ if multi_line && bytes[at..].starts_with(&triple) => {
                // Up to two quotes more belong to the string: `""""` ends one that ends in a quote.
                let more = bytes[at + 3..].iter().take(2).take_while(|&&byte| byte == quote).count();
                return at + 3 + more;
            }
            _ if !multi_line && byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::*;
    use proptest::sample::select;
    use toml::de::{DeTable, DeValue};

    use super::*;

    #[test]
    fn brackets_and_dots_count_where_toml_sees_them() {
        assert_eq!(first_too_deep("a = [[[1]]]", 3), None);
        assert_eq!(first_too_deep("a = [[[1]]]", 2), Some(6));
        assert_eq!(first_too_deep("a.b.c.d = 1", 2), Some(5));
        assert_eq!(first_too_deep("a = [1]\nb = [1]\nc = [{}]", 2), None);
        assert_eq!(first_too_deep(&"[".repeat(100_000), 16), Some(16));
    }

    #[test]
    fn strings_and_comments_do_not_count() {
        for source in [
            "a = '[[[['",
            "a = \"\\\"[[[[\"",
            "# [[[[",
            "a = '''\n[[[['\n'''",
            "a = \"\"\"[[[[\\\"\"\"\"",
            "a = \"....\"",
        ] {
            assert_eq!(first_too_deep(source, 2), None, "{source}");
        }
    }

    #[test]
    fn an_open_string_ends_the_line_and_hides_no_more() {
        assert_eq!(first_too_deep("a = '\n[[[", 2), Some(8));
        assert_eq!(first_too_deep("a = \"\\", 2), None);
        assert_eq!(first_too_deep("a = \"\\\n[[[", 2), Some(9));
        assert_eq!(first_too_deep("a = \"\"\"b\"\"\"\" [[[", 2), Some(15));
        assert_eq!(first_too_deep("a = '\\' [[[", 2), Some(10));
    }

    /// How deep tables and arrays lie within each other.
    fn depth(value: &DeValue<'_>) -> usize {
        match value {
            DeValue::Array(array) => 1 + array.iter().map(|value| depth(value.get_ref())).max().unwrap_or(0),
            DeValue::Table(table) => {
                1 + table.iter().map(|(_, value)| depth(value.get_ref())).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    const PARTS: [&str; 29] = [
        "a",
        "b",
        ".",
        "=",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "'",
        "\"",
        "'''",
        "\"\"\"",
        "\\",
        "\n",
        "#",
        ",",
        "1",
        " ",
        "a=",
        "\na=[",
        "\n[a.b]\n",
        "={a=",
        "\na='''",
        "\nb=\"\"\"",
        "\nc=\"\\",
        "\n[[b.c]]\n",
        "]\nb.c=",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever the real parser accepts, it does not nest deeper than was told: a header and a value each count
        /// from nothing, an array of tables is two levels, and the document is one.
        #[test]
        fn the_parser_never_sees_more_than_was_told(parts in collection::vec(select(&PARTS[..]), 0..40)) {
            let source = parts.concat();
            if let Ok(document) = DeTable::parse(&source) {
                let told = (0..).find(|&limit| first_too_deep(&source, limit).is_none()).unwrap();
                let found = 1 + document.get_ref().iter().map(|(_, value)| depth(value.get_ref())).max().unwrap_or(0);
                prop_assert!(found <= 1 + 2 * (told + 1), "{source:?}: {found} found, {told} told");
            }
        }
    }
}
