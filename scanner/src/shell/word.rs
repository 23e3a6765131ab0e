//! Where raw words and substitutions end: quotes and nesting are stepped over without recursion.

use std::ops::Range;

#[derive(PartialEq, Eq, Clone, Copy)]
enum Inside {
    Double,
    Paren,
    Brace,
    Backtick,
}

/// The end of the raw word that starts at `from`: quotes and substitutions are stepped over without recursion.
pub(super) fn word_end(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut inside: Vec<Inside> = Vec::new();
    let mut at = from;
    if matches!(bytes.get(at), Some(b'<' | b'>')) && bytes.get(at + 1) == Some(&b'(') {
        inside.push(Inside::Paren);
        at += 2;
    }
    while let Some(byte) = bytes.get(at) {
        let top = inside.last().copied();
        let quoted = top == Some(Inside::Double);
        match byte {
            b'\\' => at += 1,
            b'\'' if !quoted => {
                let ansi = at > from && bytes[at - 1] == b'$';
                at = single_quote_end(bytes, at + 1, ansi);
            }
            b'"' if quoted => {
                inside.pop();
            }
            b'"' => inside.push(Inside::Double),
            b'$' if bytes.get(at + 1) == Some(&b'(') => {
                inside.push(Inside::Paren);
                at += 1;
            }
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                inside.push(Inside::Brace);
                at += 1;
            }
            b'`' if top == Some(Inside::Backtick) => {
                inside.pop();
            }
            b'`' => inside.push(Inside::Backtick),
            b'(' if top == Some(Inside::Paren) => inside.push(Inside::Paren),
            b')' if top == Some(Inside::Paren) => {
                inside.pop();
            }
            b'}' if top == Some(Inside::Brace) => {
                inside.pop();
            }
            b'#' if top == Some(Inside::Paren) && bytes[at - 1].is_ascii_whitespace() => {
                at = line_end(text, at);
                continue;
            }
            b'(' if top.is_none()
                && at > from
                && matches!(bytes[at - 1], b'=' | b'@' | b'?' | b'+' | b'*') =>
            {
                inside.push(Inside::Paren);
            }
            b' ' | b'\t' | b'\n' | b'\r' | b'|' | b'&' | b';' | b'(' | b')' | b'<' | b'>'
                if top.is_none() =>
            {
                return at;
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}

fn single_quote_end(bytes: &[u8], from: usize, escapes: bool) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if escapes => at += 1,
            b'\'' => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The end of what a `$(`, `${` or backtick at `from` opens: the offset after its closer.
pub(super) fn substitution_end(text: &str, from: usize) -> usize {
    // A substitution at the start of a word ends where the word would, if nothing else joined it.
    let bytes = text.as_bytes();
    let mut inside = vec![match bytes.get(from + 1) {
        _ if bytes.get(from) == Some(&b'`') => Inside::Backtick,
        Some(b'{') => Inside::Brace,
        _ => Inside::Paren,
    }];
    let mut at = from + if inside[0] == Inside::Backtick { 1 } else { 2 };
    while let (Some(byte), Some(top)) = (bytes.get(at), inside.last().copied()) {
        match byte {
            b'\\' => at += 1,
            b'\'' if top == Inside::Paren || top == Inside::Backtick => {
                at = single_quote_end(bytes, at + 1, bytes[at - 1] == b'$');
            }
            b'"' if top == Inside::Double => {
                inside.pop();
            }
            b'"' => inside.push(Inside::Double),
            b'$' if bytes.get(at + 1) == Some(&b'(') => {
                inside.push(Inside::Paren);
                at += 1;
            }
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                inside.push(Inside::Brace);
                at += 1;
            }
            b'`' if top == Inside::Backtick => {
                inside.pop();
            }
            b'`' => inside.push(Inside::Backtick),
            b'(' if top == Inside::Paren => inside.push(Inside::Paren),
            b')' if top == Inside::Paren => {
                inside.pop();
            }
            b'}' if top == Inside::Brace => {
                inside.pop();
            }
            b'#' if top == Inside::Paren && bytes[at - 1].is_ascii_whitespace() => {
                at = line_end(text, at);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    at.min(text.len())
}

/// The span of a word without the blanks and line joins that a tokenizer may have counted in.
pub(super) fn trimmed(text: &str, span: Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    let end = span.end.min(text.len());
    while start < end {
        match &text.as_bytes()[start..end] {
            [b' ' | b'\t' | b'\n', ..] => start += 1,
            [b'\\', b'\n', ..] => start += 2,
            _ => break,
        }
    }
    start..end
}

/// The end of the line that holds this offset.
pub(super) fn line_end(text: &str, from: usize) -> usize {
    text[from..].find('\n').map_or(text.len(), |index| from + index)
}
