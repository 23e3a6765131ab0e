//! Mistakes in a recipe, each with its place in the source, shown with the line itself and a caret below it.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::text::misleads;

/// One mistake. With `line` 0 it concerns the recipe as a whole, and `span` is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Bytes of the source that it concerns.
    pub span: Range<usize>,
    /// Line of the span's start, from 1; 0 for the recipe as a whole.
    pub line: usize,
    /// Column of the span's start in characters, from 1; 0 for the recipe as a whole.
    pub column: usize,
    /// What is wrong; lower case, no full stop, hostile text quoted.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake at `span` of `source`; a span beyond the source or within a character is moved to the nearest place.
    pub fn at(source: &str, span: Range<usize>, message: impl Into<String>, help: Option<String>) -> Self {
        let start = source.floor_char_boundary(span.start);
        let end = source.ceil_char_boundary(span.end.clamp(start, source.len()));
        let (line, column) = position(source, start);
        Diagnostic { span: start..end, line, column, message: message.into(), help }
    }

    /// A mistake of the recipe as a whole.
    pub fn whole(message: impl Into<String>, help: Option<String>) -> Self {
        Diagnostic { span: 0..0, line: 0, column: 0, message: message.into(), help }
    }
}

/// Line and column, both from 1, of the byte `offset`; the column counts characters.
pub fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = &source[..source.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.bytes().filter(|&byte| byte == b'\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Shows `diagnostics` of `source`, which a person knows as `file`, each with the line where it begins. What would
/// speak to a terminal or mislead an eye is replaced in the source shown. Ends with a newline unless empty.
pub fn render(diagnostics: &[Diagnostic], source: &str, file: &str, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut shown = String::new();
    for diagnostic in diagnostics {
        let title = Level::ERROR.primary_title(diagnostic.message.as_str());
        let mut group = if diagnostic.line == 0 {
            Group::with_title(title)
        } else {
            let (line, span) = line_shown(source, &diagnostic.span);
            let snippet = Snippet::source(line).line_start(diagnostic.line).path(file);
            title.element(snippet.annotation(AnnotationKind::Primary.span(span)))
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        shown.push_str(&renderer.render(&[group]));
        shown.push('\n');
    }
    shown
}

/// The line in which `span` begins, fit to be shown, and the part of the span in it. One line is enough to find the
/// place, and keeps the work bounded by the line.
fn line_shown(source: &str, span: &Range<usize>) -> (String, Range<usize>) {
    let at = source.floor_char_boundary(span.start);
    let line_start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = source[at..].find('\n').map_or(source.len(), |length| at + length);
    let end = source.ceil_char_boundary(span.end.clamp(at, line_end));
    let harmless = |text: &str| -> String {
        text.chars().map(|c| if c != '\t' && misleads(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
    };
    let mut line = harmless(&source[line_start..at]);
    let start = line.len();
    line.push_str(&harmless(&source[at..end]));
    let shown = start..line.len();
    line.push_str(&harmless(source[end..line_end].trim_end_matches('\r')));
    (line, shown)
}

/// The one of `known` that someone who wrote `text` probably meant.
pub(crate) fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    /// Hostile text is not worth a guess; a slip of the finger is short.
    const LONGEST: usize = 40;
    if text.len() > LONGEST {
        return None;
    }
    let allowed = |candidate: &str| candidate.len().max(3) / 3;
    known
        .iter()
        .filter(|candidate| {
            candidate.len().abs_diff(text.len()) <= allowed(candidate) && candidate.len() <= 2 * LONGEST
        })
        .map(|candidate| (edits(text, candidate), *candidate))
        .filter(|(edits, candidate)| *edits <= allowed(candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one text into the other
/// (optimal string alignment).
fn edits(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut rows = vec![vec![0usize; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_under_its_line() {
        let source = "[recipe]\nnmae = \"x\"\n";
        let mistake =
            Diagnostic::at(source, 9..13, "unknown key `nmae`", Some("did you mean `name`?".into()));
        assert_eq!((mistake.line, mistake.column), (2, 1));
        assert_eq!(
            render(&[mistake, Diagnostic::whole("no step", None)], source, "recipe.toml", false),
            "error: unknown key `nmae`\n \
             --> recipe.toml:2:1\n  \
             |\n\
             2 | nmae = \"x\"\n  \
             | ^^^^\n  \
             |\n  \
             = help: did you mean `name`?\n\
             error: no step\n"
        );
    }

    #[test]
    fn spans_out_of_place_do_not_panic() {
        let source = "é\u{1b}[2J = 1\r\nx";
        for start in 0..source.len() + 3 {
            for end in start..source.len() + 3 {
                let shown = render(&[Diagnostic::at(source, start..end, "x", None)], source, "f", false);
                assert!(!shown.contains('\u{1b}'), "{shown:?}");
            }
        }
        assert_eq!(position(source, usize::MAX), (2, 2));
        render(&[Diagnostic::at("", 5..9, "x", None)], "", "f", true);
    }

    #[test]
    fn a_slip_finds_its_word_and_another_word_does_not() {
        assert_eq!(nearest("nmae", &["name", "version"]), Some("name"));
        assert_eq!(nearest("pakage", &["package", "file"]), Some("package"));
        assert_eq!(nearest("xyz", &["name", "version"]), None);
        assert_eq!(nearest(&"x".repeat(100_000), &["name"]), None);
    }
}
