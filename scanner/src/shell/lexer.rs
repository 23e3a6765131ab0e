//! The fall-back: simple commands, pipes, redirections and here-documents of any text, without its structure.
//!
//! It never fails and goes over the text once. Reserved words are dropped, bodies of functions and branches become
//! plain commands, so what a broken script could still do stays in sight.

use super::tree::{Assignment, Direction, Group, Node, Raw, Redirect, Simple, Stage};
use super::word::{line_end, word_end};

/// Reads every simple command of a text.
pub(super) fn read(text: &str) -> Vec<Node> {
    let mut lexer = Lexer {
        text,
        at: 0,
        nodes: Vec::new(),
        stages: Vec::new(),
        simple: Simple::default(),
        parens: 0,
        heredocs_end: None,
    };
    lexer.run();
    lexer.nodes
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node>,
    stages: Vec<Stage>,
    simple: Simple,
    /// Open subshells; a `)` without one ends the pattern of a `case`.
    parens: usize,
    /// Where the here-documents of this line end.
    heredocs_end: Option<usize>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.byte(0) {
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.byte(1) == Some(b'\n') => self.at += 2,
                b'\n' => {
                    self.end_pipeline();
                    self.at = self.heredocs_end.take().unwrap_or(self.at + 1).max(self.at + 1);
                }
                b'#' => self.at = line_end(self.text, self.at),
                b'<' | b'>' if self.byte(1) == Some(b'(') => self.word(),
                b'<' | b'>' => self.redirect(None),
                b'&' if self.byte(1) == Some(b'>') => {
                    self.at += 1;
                    self.redirect(None);
                }
                b'|' if self.byte(1) != Some(b'|') => {
                    self.at += if self.byte(1) == Some(b'&') { 2 } else { 1 };
                    self.end_command();
                }
                b';' | b'&' | b'|' => {
                    self.at += 1;
                    self.end_pipeline();
                }
                b'(' => self.open_paren(),
                b')' => self.close_paren(),
                _ => self.word(),
            }
        }
        self.end_pipeline();
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn at_command(&self) -> bool {
        self.simple.words.is_empty() && self.simple.assignments.is_empty() && self.simple.redirects.is_empty()
    }

    fn end_command(&mut self) {
        let mut simple = std::mem::take(&mut self.simple);
        if simple.words.is_empty() && simple.assignments.is_empty() && simple.redirects.is_empty() {
            return;
        }
        simple.span.end = self.at;
        self.stages.push(Stage::Simple(simple));
    }

    fn end_pipeline(&mut self) {
        self.end_command();
        if !self.stages.is_empty() {
            self.nodes.push(Node::Pipeline(std::mem::take(&mut self.stages)));
        }
    }

    fn open_paren(&mut self) {
        if self.at_command() && self.byte(1) == Some(b'(') {
            let end = self.text[self.at..].find("))").map_or(self.text.len(), |index| self.at + index + 2);
            self.at = end;
            return;
        }
        self.at += 1;
        if self.simple.words.len() == 1 && self.text[self.at..].trim_start_matches(' ').starts_with(')') {
            // `name ()`: the body that follows is read in place.
            self.simple = Simple::default();
            self.at += self.text[self.at..].find(')').map_or(0, |index| index + 1);
            return;
        }
        self.end_pipeline();
        self.parens += 1;
    }

    fn close_paren(&mut self) {
        self.at += 1;
        if self.parens > 0 {
            self.parens -= 1;
            self.end_pipeline();
        } else {
            self.simple = Simple::default();
            self.stages.clear();
        }
    }

    /// The raw word here; at least one character of it, but at the end of the text.
    fn raw(&mut self) -> Raw {
        let start = self.at;
        self.at = self.text.ceil_char_boundary(word_end(self.text, start).max(start + 1));
        Raw { text: self.text[start..self.at].to_owned(), span: start..self.at }
    }

    fn blanks(&mut self) {
        while matches!(self.byte(0), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn word(&mut self) {
        let raw = self.raw();
        if self.at_command() {
            self.simple.span = raw.span.clone();
            match raw.text.as_str() {
                "if" | "then" | "elif" | "else" | "fi" | "do" | "done" | "while" | "until" | "time" | "!"
                | "{" | "}" | "esac" | "coproc" => return,
                "function" => {
                    self.blanks();
                    self.raw();
                    return;
                }
                "case" => {
                    self.blanks();
                    let subject = self.at;
                    self.raw();
                    self.blanks();
                    if self.text[self.at..].starts_with("in") {
                        self.at += 2;
                    } else {
                        self.at = subject;
                    }
                    return;
                }
                "for" | "select" => return self.binding(raw.span.start),
                _ => {}
            }
        }
        if raw.text.bytes().all(|byte| byte.is_ascii_digit()) && matches!(self.byte(0), Some(b'<' | b'>')) {
            return self.redirect(raw.text.parse().ok());
        }
        if self.simple.words.is_empty()
            && let Some(assignment) = assignment(&raw)
        {
            self.simple.assignments.push(assignment);
            return;
        }
        self.simple.words.push(raw);
    }

    fn binding(&mut self, start: usize) {
        self.blanks();
        let name = self.raw().text;
        self.blanks();
        let mut values = Vec::new();
        if self.text[self.at..].starts_with("in ") {
            self.at += 2;
            loop {
                self.blanks();
                match self.byte(0) {
                    None | Some(b'\n' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>') => break,
                    Some(_) => values.push(self.raw()),
                }
            }
        }
        let group = Group {
            nodes: Vec::new().into(),
            binding: Some((name, values)),
            conditional: true,
            redirects: Vec::new(),
            span: start..self.at,
        };
        self.nodes.push(Node::Pipeline(vec![Stage::Group(group)]));
    }

    fn redirect(&mut self, fd: Option<u32>) {
        if self.at_command() {
            self.simple.span = self.at..self.at;
        }
        let rest = &self.text[self.at..];
        if rest.starts_with("<<<") {
            self.at += 3;
            self.blanks();
            let raw = self.raw_target();
            self.simple.redirects.push(Redirect::HereString(raw));
            return;
        }
        if rest.starts_with("<<") {
            return self.heredoc();
        }
        let (length, direction) = match rest.as_bytes() {
            [b'>', b'>', ..] => (2, Direction::Append),
            [b'>', b'|', ..] => (2, Direction::Write),
            [b'>', b'&', ..] | [b'<', b'&' | b'>', ..] => (2, Direction::Both),
            [b'>', ..] => (1, Direction::Write),
            _ => (1, Direction::Read),
        };
        self.at += length;
        self.blanks();
        let target = self.raw_target();
        if direction != Direction::Both || !is_descriptor(&target.text) {
            self.simple.redirects.push(Redirect::File { fd, direction, target });
        }
    }

    /// A word, or nothing where the line ends.
    fn raw_target(&mut self) -> Raw {
        match self.byte(0) {
            None | Some(b'\n' | b';' | b'|' | b'&' | b')') => {
                Raw { text: String::new(), span: self.at..self.at }
            }
            Some(_) => self.raw(),
        }
    }

    fn heredoc(&mut self) {
        self.at += 2;
        let strips = self.byte(0) == Some(b'-');
        self.at += usize::from(strips);
        self.blanks();
        let tag = self.raw_target();
        let quoted = tag.text.contains(['\'', '"', '\\']);
        let wanted: String = tag.text.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect();
        let start =
            self.heredocs_end.unwrap_or_else(|| (line_end(self.text, self.at) + 1).min(self.text.len()));
        let mut line = start;
        let mut end = self.text.len();
        let mut after = self.text.len();
        while line < self.text.len() {
            let stop = line_end(self.text, line);
            let content = &self.text[line..stop];
            if (if strips { content.trim_start_matches('\t') } else { content }) == wanted {
                end = line;
                after = (stop + 1).min(self.text.len());
                break;
            }
            line = stop + 1;
        }
        self.heredocs_end = Some(after);
        let body = &self.text[start.min(end)..end];
        let text = if strips { strip_tabs(body) } else { body.to_owned() };
        self.simple.redirects.push(Redirect::Here { text, expands: !quoted, span: start.min(end)..end });
    }
}

fn strip_tabs(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

/// A target that only copies or closes a descriptor (`>&2`, `<&-`).
pub(super) fn is_descriptor(target: &str) -> bool {
    !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// `NAME=value`, `NAME+=value`, `NAME=(a b)`, `NAME[i]=value`.
pub(super) fn assignment(raw: &Raw) -> Option<Assignment> {
    let equals = raw.text.find('=')?;
    let left = &raw.text[..equals];
    let (left, append) = left.strip_suffix('+').map_or((left, false), |left| (left, true));
    let (name, indexed) = left.split_once('[').map_or((left, false), |(name, _)| (name, true));
    let mut letters = name.bytes();
    let first = letters.next()?;
    if !(first.is_ascii_alphabetic() || first == b'_')
        || !letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return None;
    }
    let start = equals + 1;
    let value = &raw.text[start..];
    let values = match value.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => words(inner, raw.span.start + start + 1),
        None => vec![Raw { text: value.to_owned(), span: raw.span.start + start..raw.span.end }],
    };
    Some(Assignment { name: name.to_owned(), values, append: append || indexed })
}

/// The raw words of a list, as in an array.
fn words(text: &str, base: usize) -> Vec<Raw> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let byte = text.as_bytes()[at];
        if byte.is_ascii_whitespace() {
            at += 1;
        } else if byte == b'#' {
            at = line_end(text, at);
        } else {
            let end = text.ceil_char_boundary(word_end(text, at).max(at + 1));
            found.push(Raw { text: text[at..end].to_owned(), span: base + at..base + end });
            at = end;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for node in read(text) {
            if let Node::Pipeline(stages) = node {
                for stage in stages {
                    if let Stage::Simple(simple) = stage {
                        all.push(simple.words.into_iter().map(|word| word.text).collect());
                    }
                }
            }
        }
        all
    }

    #[test]
    fn commands_are_found_in_text_that_no_grammar_takes() {
        let text = "if then fi )\n curl -s 'a b' | sh; do \"x $(y \")\") z\" && { rm -rf /tmp/a";
        let found = commands(text);
        assert!(found.contains(&vec!["curl".into(), "-s".into(), "'a b'".into()]), "{found:?}");
        assert!(found.contains(&vec!["sh".into()]), "{found:?}");
        assert!(found.contains(&vec!["rm".into(), "-rf".into(), "/tmp/a".into()]), "{found:?}");
    }

    #[test]
    fn case_patterns_are_no_commands() {
        assert_eq!(
            commands("case $1 in\n start|stop) run it ;;\n *) other ;;\nesac"),
            [vec!["run", "it"], vec!["other"]]
        );
    }

    #[test]
    fn here_documents_end_at_their_tags_in_order() {
        let nodes = read("cat <<A <<-'B'\none\nA\n\t\ttwo $x\n\tB\nafter\n");
        let Node::Pipeline(stages) = &nodes[0] else { panic!("no pipeline") };
        let Stage::Simple(simple) = &stages[0] else { panic!("no command") };
        let bodies: Vec<_> = simple
            .redirects
            .iter()
            .map(|redirect| match redirect {
                Redirect::Here { text, expands, .. } => (text.as_str(), *expands),
                _ => panic!("not a here-document"),
            })
            .collect();
        assert_eq!(bodies, [("one\n", true), ("two $x\n", false)]);
        assert_eq!(commands("cat <<A\nA\nafter\n"), [vec!["cat"], vec!["after"]]);
    }
}
