//! The forms of a report: for a person, and one line of JSON a file.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::action::is_direction;
use crate::finding::{Decision, FileReport, Finding, Report, Severity};
use crate::source::readable;

/// Bytes of a line shown around a finding; a longer line is cut.
const LINE: usize = 160;

impl Report {
    /// For a person: each finding with its line, a caret and what to do instead, then the decision. `source` gives a
    /// file's bytes by its path; a finding whose file it does not know is shown without its line.
    pub fn human<'s>(&self, source: impl Fn(&str) -> Option<&'s [u8]>, colour: bool) -> String {
        let mut out = String::new();
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        for file in &self.files {
            let bytes = source(&file.path);
            let text = bytes
                .map(|bytes| readable(&bytes[..bytes.len().min(crate::limits::FILE_BYTES)]).into_owned());
            for finding in &file.findings {
                let line = text.as_deref().and_then(|text| excerpt(text, finding));
                let _ = writeln!(out, "{}\n", render(finding, line.as_ref(), &renderer));
            }
        }
        let _ = writeln!(out, "{}", self.summary());
        out
    }

    /// One line: the decision, and how many of what.
    pub fn summary(&self) -> String {
        let count = |severity| self.findings().filter(|finding| finding.severity == severity).count();
        let rules: BTreeSet<_> = self
            .findings()
            .filter(|finding| finding.severity == Severity::Deny)
            .map(|finding| finding.rule)
            .collect();
        let decision = match self.decision {
            Decision::Allow => "allow",
            Decision::Review => "review",
            Decision::Deny => "deny",
        };
        let mut line = format!(
            "{decision}: {} read, {} deny, {} warn, {} smell",
            counted(self.files.len(), "file"),
            count(Severity::Deny),
            count(Severity::Warn),
            count(Severity::Smell)
        );
        if !rules.is_empty() {
            let _ = write!(line, " ({})", rules.into_iter().collect::<Vec<_>>().join(", "));
        }
        line
    }

    /// One JSON object a line and file, clean files too.
    pub fn json_lines(&self) -> String {
        self.files.iter().map(|file| file.json_line() + "\n").collect()
    }
}

impl FileReport {
    /// One JSON object, without a newline.
    pub fn json_line(&self) -> String {
        // Strings and numbers in structs cannot fail to serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The finding's line, cut and made safe for a terminal, and the caret's place in it.
fn excerpt(text: &str, finding: &Finding) -> Option<(String, std::ops::Range<usize>)> {
    let span = finding.span.clone();
    text.get(span.clone())?;
    let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[span.start..].find('\n').map_or(text.len(), |at| span.start + at);
    let floor = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let from = if span.start - start > LINE / 2 { floor(span.start - LINE / 2).max(start) } else { start };
    let to = floor(end.min(from + LINE));
    let caret_end = span.end.clamp(span.start, to.max(span.start));
    let clean = |text: &str| -> String {
        text.chars()
            .map(|c| {
                if c == '\t' {
                    ' '
                } else if c.is_control() || is_direction(c) {
                    '?'
                } else {
                    c
                }
            })
            .collect()
    };
    let before = clean(&text[from..span.start]);
    let marked = clean(&text[span.start..caret_end]);
    let after = clean(&text[caret_end..to.max(caret_end)]);
    let caret = before.len()..before.len() + marked.len();
    Some((before + &marked + &after, caret))
}

fn render(finding: &Finding, line: Option<&(String, std::ops::Range<usize>)>, renderer: &Renderer) -> String {
    let level = match finding.severity {
        Severity::Deny => Level::ERROR.with_name("deny"),
        Severity::Warn => Level::WARNING.with_name("warn"),
        Severity::Smell => Level::INFO.with_name("smell"),
    };
    let references: Vec<&str> = finding.cwe.into_iter().chain(finding.technique).collect();
    let help = Level::HELP.message(finding.help);
    let title = level.primary_title(&finding.message).id(finding.rule);
    let mut group = match line {
        Some((text, caret)) => {
            let label = references.join(", ");
            let caret = AnnotationKind::Primary.span(caret.clone());
            let snippet = Snippet::source(text)
                .path(&finding.path)
                .line_start(finding.line)
                .annotation(if label.is_empty() { caret } else { caret.label(label) });
            title.element(snippet)
        }
        None => {
            let place = format!("{}:{}:{}", finding.path, finding.line, finding.column);
            Group::with_title(title).element(Level::NOTE.message(place))
        }
    };
    group = group.element(help);
    renderer.render(&[group])
}
