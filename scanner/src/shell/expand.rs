//! Words as a shell would expand them, as far as the values are known.

use std::ops::Range;

use super::decode;
use super::evaluate::Evaluator;
use super::flow::Flow;
use super::tree::Raw;
use super::word::substitution_end;
use crate::action::{HOLE, Provenance, Word};
use crate::limits;
use crate::source::Place;

/// How quotes and splitting count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// A command's word: split at blanks that come out of an expansion.
    Word,
    /// One value, whatever comes out: assignments, targets.
    Value,
    /// A here-document: quotes are letters.
    Document,
}

#[derive(Default)]
struct Fields {
    done: Vec<(String, Provenance)>,
    text: String,
    provenance: Provenance,
    started: bool,
}

impl Fields {
    fn push(&mut self, text: &str) {
        self.started = true;
        if self.text.len() + text.len() <= limits::WORD_BYTES {
            self.text.push_str(text);
        } else if !self.text.ends_with(HOLE) {
            self.text.push(HOLE);
        }
    }

    fn split(&mut self, text: &str) {
        for (index, piece) in text.split([' ', '\t', '\n']).enumerate() {
            if index > 0 {
                self.end();
            }
            if !piece.is_empty() {
                self.push(piece);
            }
        }
    }

    fn end(&mut self) {
        if self.started {
            self.done.push((std::mem::take(&mut self.text), self.provenance));
            self.started = false;
        }
    }
}

impl Evaluator {
    /// The words that one raw word becomes; usually one, none for an empty unquoted variable.
    pub(super) fn words(&mut self, raw: &Raw) -> Vec<Word> {
        let mut words = Vec::new();
        for piece in braces(raw) {
            let span = self.place.span(raw.span.clone());
            let fields = self.fields(&piece, &raw.span, Context::Word);
            words.extend(fields.into_iter().map(|(text, provenance)| Word {
                text,
                span: span.clone(),
                provenance,
            }));
        }
        words
    }

    /// The one value of a raw word.
    pub(super) fn value(&mut self, raw: &Raw) -> Word {
        let fields = self.fields(&raw.text, &raw.span, Context::Value);
        let (text, provenance) = fields.into_iter().next().unwrap_or_default();
        Word { text, provenance, span: self.place.span(raw.span.clone()) }
    }

    pub(super) fn document(&mut self, text: &str, span: &Range<usize>) -> (String, Provenance) {
        self.fields(text, span, Context::Document).into_iter().next().unwrap_or_default()
    }

    fn fields(&mut self, text: &str, span: &Range<usize>, context: Context) -> Vec<(String, Provenance)> {
        let mut fields = Fields::default();
        if context == Context::Document || !text.contains(['$', '`', '\\', '\'', '"', '<', '>']) {
            if context != Context::Document || !text.contains(['$', '`', '\\']) {
                fields.push(text);
            } else {
                self.expand(text, span, context, &mut fields);
            }
        } else {
            self.expand(text, span, context, &mut fields);
        }
        if context != Context::Word {
            fields.started = true;
        }
        fields.end();
        self.expanded += fields.done.iter().map(|(text, _)| text.len()).sum::<usize>();
        fields.done
    }

    fn expand(&mut self, text: &str, span: &Range<usize>, context: Context, fields: &mut Fields) {
        let bytes = text.as_bytes();
        let mut double = context == Context::Document;
        let mut at = 0;
        while at < bytes.len() {
            if self.expanded > limits::EXPANDED_BYTES {
                self.exhaust("expansion");
                fields.push("\0");
                return;
            }
            match bytes[at] {
                b'\'' if !double => {
                    let end = text[at + 1..].find('\'').map_or(text.len(), |index| at + 1 + index);
                    fields.push(&text[at + 1..end]);
                    at = end + 1;
                }
                b'"' if context != Context::Document => {
                    double = !double;
                    fields.started = true;
                    at += 1;
                }
                b'\\' => {
                    let next = text[at + 1..].chars().next();
                    match next {
                        None => at += 1,
                        Some('\n') => at += 2,
                        Some(c) => {
                            if double && !matches!(c, '$' | '`' | '\\' | '"') {
                                fields.push("\\");
                            }
                            fields.push(c.encode_utf8(&mut [0; 4]));
                            at += 1 + c.len_utf8();
                        }
                    }
                }
                b'$' if bytes.get(at + 1) == Some(&b'\'') && !double => {
                    let end = ansi_end(bytes, at + 2);
                    let decoded = decode::escapes(&text[at + 2..end]);
                    if decoded != text[at + 2..end]
                        && decoded.bytes().any(|byte| byte.is_ascii_alphanumeric())
                    {
                        fields.provenance.scrambled |= text[at + 2..end].contains("\\x");
                    }
                    fields.push(&decoded);
                    at = end + 1;
                }
                b'$' | b'`' => at = self.dollar(text, at, span, double || context == Context::Value, fields),
                b'<' | b'>' if bytes.get(at + 1) == Some(&b'(') && !double => {
                    let end = substitution_end(text, at);
                    let inner = text.get(at + 2..end.saturating_sub(1)).unwrap_or_default();
                    let flow = self.substitute(inner, span, text, at + 2);
                    fields.provenance = fields.provenance.and(flow.provenance);
                    let path = self.process_file(flow.text);
                    fields.push(&path);
                    at = end;
                }
                _ => {
                    // All of these are ASCII, so the next of them starts a character.
                    let end = bytes[at + 1..]
                        .iter()
                        .position(|byte| b"'\"\\$`<>".contains(byte))
                        .map_or(text.len(), |index| at + 1 + index);
                    fields.push(&text[at..end]);
                    at = end;
                }
            }
        }
    }

    /// One `$…` or backtick at `at`; the offset after it.
    fn dollar(
        &mut self,
        text: &str,
        at: usize,
        span: &Range<usize>,
        quoted: bool,
        fields: &mut Fields,
    ) -> usize {
        let bytes = text.as_bytes();
        let add = |fields: &mut Fields, value: &str| {
            if quoted { fields.push(value) } else { fields.split(value) }
        };
        if bytes[at] == b'`' {
            let end = substitution_end(text, at);
            let inner = text.get(at + 1..end.saturating_sub(1)).unwrap_or_default().replace("\\`", "`");
            let flow = self.substitute(&inner, span, text, at + 1);
            fields.provenance = fields.provenance.and(flow.provenance);
            add(fields, output(&flow).as_str());
            return end;
        }
        match bytes.get(at + 1) {
            Some(b'(') => {
                let end = substitution_end(text, at);
                if text[at..].starts_with("$((") && text[..end].ends_with("))") {
                    fields.push("\0");
                    return end;
                }
                let inner = text.get(at + 2..end.saturating_sub(1)).unwrap_or_default();
                let flow = self.substitute(inner, span, text, at + 2);
                fields.provenance = fields.provenance.and(flow.provenance);
                add(fields, output(&flow).as_str());
                end
            }
            Some(b'{') => {
                let end = substitution_end(text, at);
                let inner = text.get(at + 2..end.saturating_sub(1)).unwrap_or_default();
                let value = self.parameter(inner, span, fields);
                add(fields, &value);
                end
            }
            Some(byte) if byte.is_ascii_alphabetic() || *byte == b'_' => {
                let name: String =
                    text[at + 1..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let value = self.lookup(&name);
                fields.provenance = fields.provenance.and(value.provenance);
                add(fields, &value.text);
                at + 1 + name.len()
            }
            Some(byte) if byte.is_ascii_digit() => {
                let value = self.positional(usize::from(byte - b'0'));
                fields.provenance = fields.provenance.and(value.provenance);
                add(fields, &value.text);
                at + 2
            }
            Some(b'@' | b'*') => {
                let all = self.all_positional();
                if context_splits(quoted, bytes[at + 1]) {
                    fields.split(&all)
                } else {
                    fields.push(&all)
                }
                at + 2
            }
            Some(b'#' | b'?' | b'$' | b'!' | b'-') => {
                fields.push("\0");
                at + 2
            }
            _ => {
                fields.push("$");
                at + 1
            }
        }
    }

    /// What `${inner}` becomes.
    fn parameter(&mut self, inner: &str, span: &Range<usize>, fields: &mut Fields) -> String {
        let hole = HOLE.to_string();
        let length = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        let (name, rest) = inner.split_at(length);
        if name.is_empty() {
            return match inner {
                "@" | "*" => self.all_positional(),
                _ => hole,
            };
        }
        let value = match name.parse::<usize>() {
            Ok(index) => self.positional(index),
            Err(_) => self.lookup(name),
        };
        fields.provenance = fields.provenance.and(value.provenance);
        let known = value.is_known() && !value.text.is_empty();
        let (operator, argument) = match rest.as_bytes() {
            [] | [b'[', ..] => return value.text,
            [b':', b'-' | b'=' | b'+' | b'?', ..] => (rest.as_bytes()[1], &rest[2..]),
            [b':', ..] => (b':', &rest[1..]),
            [first, ..] if first.is_ascii() => (*first, &rest[1..]),
            _ => return hole,
        };
        match operator {
            b'-' | b'=' if known => value.text,
            b'-' | b'=' | b'+' => {
                let fallback = Raw { text: argument.to_owned(), span: span.clone() };
                if self.nested >= limits::NESTED_TEXTS {
                    return hole;
                }
                self.nested += 1;
                let value = self.value(&fallback);
                self.nested -= 1;
                fields.provenance = fields.provenance.and(value.provenance);
                value.text
            }
            b'?' => value.text,
            b'%' | b'#' if value.is_known() => strip(&value.text, operator, argument).unwrap_or(hole),
            b'^' => value.text.to_uppercase(),
            b',' => value.text.to_lowercase(),
            b':' if value.is_known() => {
                fields.provenance.scrambled |= known && value.text.len() > 4;
                substring(&value.text, argument).unwrap_or(hole)
            }
            b'/' if value.is_known() => {
                let argument = argument.strip_prefix('/').unwrap_or(argument);
                let (pattern, replacement) = argument.split_once('/').unwrap_or((argument, ""));
                if pattern.is_empty()
                    || pattern.contains(['*', '?', '[', '$', '\\'])
                    || replacement.contains('$')
                {
                    return hole;
                }
                value.text.replace(pattern, replacement)
            }
            _ => hole,
        }
    }

    /// Runs the text of a substitution and gives what it prints.
    fn substitute(&mut self, inner: &str, span: &Range<usize>, raw: &str, at: usize) -> Flow {
        let place = match &self.place {
            // The raw word is a piece of the text, so its substitution is one too.
            Place::Exact(base) if raw.len() == span.len() && raw.get(at..at + inner.len()) == Some(inner) => {
                Place::Exact(base + span.start + at)
            }
            place => Place::Whole(place.span(span.clone())),
        };
        let trimmed = inner.trim_start();
        if let Some(path) = trimmed.strip_prefix('<').filter(|rest| !rest.starts_with(['<', '('])) {
            let path = self.value(&Raw { text: path.trim().to_owned(), span: span.clone() });
            return self.read_file(&path, "$(<)");
        }
        self.text(inner, place)
    }
}

fn context_splits(quoted: bool, byte: u8) -> bool {
    !quoted || byte == b'@'
}

fn output(flow: &Flow) -> String {
    match &flow.text {
        Some(text) => text.trim_end_matches('\n').to_owned(),
        None => HOLE.to_string(),
    }
}

fn ansi_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'\'' => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// `${x%suffix}` and `${x#prefix}` for patterns that are literal but for one `*` at the outer end.
fn strip(value: &str, operator: u8, argument: &str) -> Option<String> {
    let longest = argument.as_bytes().first() == Some(&operator);
    let pattern = if longest { &argument[1..] } else { argument };
    let special = |text: &str| text.contains(['?', '[', '$', '\\', '"', '\'', '*']);
    let found = match operator {
        b'#' => match pattern.strip_prefix('*') {
            Some(mark) if !special(mark) && !mark.is_empty() => {
                if longest { value.rfind(mark) } else { value.find(mark) }
                    .map_or(value, |at| &value[at + mark.len()..])
            }
            None if !special(pattern) => value.strip_prefix(pattern).unwrap_or(value),
            _ => return None,
        },
        _ => match pattern.strip_suffix('*') {
            Some(mark) if !special(mark) && !mark.is_empty() => {
                if longest { value.find(mark) } else { value.rfind(mark) }.map_or(value, |at| &value[..at])
            }
            None if !special(pattern) => value.strip_suffix(pattern).unwrap_or(value),
            _ => return None,
        },
    };
    Some(found.to_owned())
}

fn substring(value: &str, argument: &str) -> Option<String> {
    let (offset, length) = argument.split_once(':').unwrap_or((argument, ""));
    let offset: usize = offset.trim().parse().ok()?;
    let characters = value.chars().skip(offset);
    if length.is_empty() {
        return Some(characters.collect());
    }
    Some(characters.take(length.trim().parse().ok()?).collect())
}

/// `a{b,c}d` as `abd` and `acd`: one group of plain text, eight of its pieces.
fn braces(raw: &Raw) -> Vec<String> {
    let text = &raw.text;
    let plain = || vec![text.clone()];
    let Some(open) = text.find('{') else { return plain() };
    if open > 0 && text.as_bytes()[open - 1] == b'$' || text.contains(['\'', '"', '`', '\\', '(']) {
        return plain();
    }
    let Some(close) = text[open..].find('}').map(|index| open + index) else { return plain() };
    let inner = &text[open + 1..close];
    if !inner.contains(',') || inner.contains(['{', '$']) {
        return plain();
    }
    inner.split(',').take(8).map(|piece| format!("{}{piece}{}", &text[..open], &text[close + 1..])).collect()
}
