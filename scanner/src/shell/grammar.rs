//! The grammar: brush-parser, behind the checks of [`super::guard`], and its tree turned into ours.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use brush_parser::ast::{
    self, AssignmentName, AssignmentValue, Command, CommandPrefixOrSuffixItem, CompoundCommand, CompoundList,
    IoFileRedirectKind, IoFileRedirectTarget, IoRedirect, SourceLocation as _,
};
use brush_parser::{ParserOptions, SourceSpan};

use super::guard::{depth_of_lists, heredocs_are_plain, openers, tokens_are_safe};
use super::lexer::is_descriptor;
use super::tree::{Assignment, Direction, Group, Node, Raw, Redirect, Simple, Stage};
use super::word::trimmed;
use crate::limits;

/// Why the grammar did not read a text, and where.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) at: usize,
}

impl Refusal {
    pub(super) fn limit(why: &str) -> Self {
        Self { why: why.to_owned(), at: 0 }
    }
}

/// Reads a script by the grammar of bash.
pub(super) fn read(text: &str) -> Result<Vec<Node>, Refusal> {
    if text.len() > limits::GRAMMAR_BYTES {
        return Err(Refusal::limit("longer than the grammar is given"));
    }
    let openers = openers(text);
    if openers > limits::GRAMMAR_OPENERS {
        return Err(Refusal::limit("too many nested constructs"));
    }
    if openers.saturating_mul(text.len()) > limits::GRAMMAR_COPIES {
        return Err(Refusal::limit("too long for the number of its nested constructs"));
    }
    heredocs_are_plain(text)?;
    let program = if openers <= limits::GRAMMAR_OPENERS_INLINE {
        parse(text)?
    } else {
        parse_on_own_stack(text, openers)?
    };
    let converter = Converter { text, offsets: Offsets::new(text) };
    converter.lists(&program.complete_commands, 0)
}

fn parse_on_own_stack(text: &str, openers: usize) -> Result<ast::Program, Refusal> {
    let stack = (1 << 20) + openers * limits::GRAMMAR_STACK_PER_OPENER;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(stack)
            .spawn_scoped(scope, || {
                let program = parse(text)?;
                // What is too deep for the caller's stack must be dropped on this one.
                if depth_of_lists(&program.complete_commands, 0) > limits::TREE_DEPTH {
                    return Err(Refusal::limit("nested too deep"));
                }
                Ok(program)
            })
            .map_err(|_| Refusal::limit("no stack for a script of this size"))?
            .join()
            .unwrap_or_else(|_| Err(Refusal::limit("the grammar failed")))
    })
}

fn parse(text: &str) -> Result<ast::Program, Refusal> {
    let options = ParserOptions::default();
    // Where a text ends in the line of a here-document with an empty tag, the tokenizer takes tokens for ever. The
    // first of the line ends may be escaped.
    let ended = format!("{text}\n\n");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let tokens = brush_parser::uncached_tokenize_str(&ended, &options.tokenizer_options())
            .map_err(|error| Refusal::limit(&error.to_string()))?;
        tokens_are_safe(&tokens)?;
        brush_parser::parse_tokens(&tokens, &options).map_err(|error| {
            let at = match &error {
                brush_parser::ParseError::ParsingNear(position) => Offsets::new(text).byte(position.index),
                _ => text.len().saturating_sub(1),
            };
            Refusal { why: error.to_string(), at }
        })
    }));
    outcome.unwrap_or_else(|_| Err(Refusal::limit("the grammar failed")))
}

/// The parser counts characters; we count bytes.
struct Offsets {
    /// Of each character; none where all are of one byte.
    characters: Option<Vec<usize>>,
    end: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let characters = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self { characters, end: text.len() }
    }

    /// What the parser counts behind the end is the line ends that it was given.
    fn byte(&self, index: usize) -> usize {
        match &self.characters {
            None => index.min(self.end),
            Some(offsets) => offsets.get(index).copied().unwrap_or(self.end),
        }
    }
}

struct Converter<'a> {
    text: &'a str,
    offsets: Offsets,
}

impl Converter<'_> {
    fn lists(&self, lists: &[CompoundList], depth: usize) -> Result<Vec<Node>, Refusal> {
        if depth > limits::TREE_DEPTH {
            return Err(Refusal::limit("nested too deep"));
        }
        let mut nodes = Vec::new();
        for item in lists.iter().flat_map(|list| &list.0) {
            self.pipeline(&item.0.first, depth, &mut nodes)?;
            for and_or in &item.0.additional {
                let (ast::AndOr::And(pipeline) | ast::AndOr::Or(pipeline)) = and_or;
                self.pipeline(pipeline, depth, &mut nodes)?;
            }
        }
        Ok(nodes)
    }

    fn pipeline(&self, pipeline: &ast::Pipeline, depth: usize, nodes: &mut Vec<Node>) -> Result<(), Refusal> {
        let mut stages = Vec::with_capacity(pipeline.seq.len());
        for command in &pipeline.seq {
            match command {
                Command::Simple(simple) => stages.push(Stage::Simple(self.simple(simple))),
                Command::Compound(compound, redirects) => {
                    stages.push(Stage::Group(self.group(compound, redirects.as_ref(), depth + 1)?));
                }
                Command::Function(function) => {
                    let body = self.group(&function.body.0, function.body.1.as_ref(), depth + 1)?;
                    nodes.push(Node::Function {
                        name: function.fname.value.clone(),
                        body: Rc::from(vec![Node::Pipeline(vec![Stage::Group(body)])]),
                    });
                }
                Command::ExtendedTest(test, redirects) => {
                    let mut words = Vec::new();
                    self.test(&test.expr, &mut words, 0)?;
                    let mut simple = Simple { words, ..Simple::default() };
                    simple.redirects = self.redirects(redirects.as_ref());
                    simple.span = self.span(Some(&test.loc));
                    simple.words.insert(
                        0,
                        Raw { text: "[[".to_owned(), span: simple.span.start..simple.span.start + 2 },
                    );
                    stages.push(Stage::Simple(simple));
                }
            }
        }
        if !stages.is_empty() {
            nodes.push(Node::Pipeline(stages));
        }
        Ok(())
    }

    fn test(&self, test: &ast::ExtendedTestExpr, words: &mut Vec<Raw>, depth: usize) -> Result<(), Refusal> {
        if depth > limits::TREE_DEPTH {
            return Err(Refusal::limit("nested too deep"));
        }
        match test {
            ast::ExtendedTestExpr::And(left, right) | ast::ExtendedTestExpr::Or(left, right) => {
                self.test(left, words, depth + 1)?;
                self.test(right, words, depth + 1)
            }
            ast::ExtendedTestExpr::Not(inner) | ast::ExtendedTestExpr::Parenthesized(inner) => {
                self.test(inner, words, depth + 1)
            }
            ast::ExtendedTestExpr::UnaryTest(_, word) => {
                words.push(self.raw(word));
                Ok(())
            }
            ast::ExtendedTestExpr::BinaryTest(_, left, right) => {
                words.extend([self.raw(left), self.raw(right)]);
                Ok(())
            }
        }
    }

    fn group(
        &self,
        compound: &CompoundCommand,
        redirects: Option<&ast::RedirectList>,
        depth: usize,
    ) -> Result<Group, Refusal> {
        if depth > limits::TREE_DEPTH {
            return Err(Refusal::limit("nested too deep"));
        }
        let mut nodes = Vec::new();
        let mut binding = None;
        let mut conditional = true;
        let mut add = |list: &CompoundList| -> Result<(), Refusal> {
            nodes.extend(self.lists(std::slice::from_ref(list), depth)?);
            Ok(())
        };
        match compound {
            CompoundCommand::Arithmetic(_) => {}
            CompoundCommand::ArithmeticForClause(clause) => add(&clause.body.list)?,
            CompoundCommand::BraceGroup(group) => {
                conditional = false;
                add(&group.list)?;
            }
            CompoundCommand::Subshell(group) => {
                conditional = false;
                add(&group.list)?;
            }
            CompoundCommand::ForClause(clause) => {
                let values = clause.values.iter().flatten().map(|word| self.raw(word)).collect();
                binding = Some((clause.variable_name.clone(), values));
                add(&clause.body.list)?;
            }
            CompoundCommand::CaseClause(clause) => {
                for list in clause.cases.iter().filter_map(|case| case.cmd.as_ref()) {
                    add(list)?;
                }
            }
            CompoundCommand::IfClause(clause) => {
                add(&clause.condition)?;
                add(&clause.then)?;
                for part in clause.elses.iter().flatten() {
                    part.condition.iter().try_for_each(&mut add)?;
                    add(&part.body)?;
                }
            }
            CompoundCommand::WhileClause(clause) | CompoundCommand::UntilClause(clause) => {
                add(&clause.0)?;
                add(&clause.1.list)?;
            }
            CompoundCommand::Coprocess(clause) => {
                let pipeline = ast::Pipeline { timed: None, bang: false, seq: vec![(*clause.body).clone()] };
                self.pipeline(&pipeline, depth, &mut nodes)?;
            }
        }
        let span = self.span(compound.location().as_ref());
        Ok(Group { nodes: nodes.into(), binding, conditional, redirects: self.redirects(redirects), span })
    }

    fn simple(&self, simple: &ast::SimpleCommand) -> Simple {
        let mut found = Simple { span: self.span(simple.location().as_ref()), ..Simple::default() };
        let prefix = simple.prefix.iter().flat_map(|prefix| &prefix.0);
        for item in prefix {
            match item {
                CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) => {
                    found.assignments.push(self.assignment(assignment));
                }
                CommandPrefixOrSuffixItem::IoRedirect(redirect) => {
                    self.redirect(redirect, &mut found.redirects)
                }
                CommandPrefixOrSuffixItem::Word(word) => found.words.push(self.raw(word)),
                CommandPrefixOrSuffixItem::ProcessSubstitution(_, subshell) => {
                    found.words.push(self.process(subshell));
                }
            }
        }
        found.words.extend(simple.word_or_name.as_ref().map(|word| self.raw(word)));
        for item in simple.suffix.iter().flat_map(|suffix| &suffix.0) {
            match item {
                CommandPrefixOrSuffixItem::AssignmentWord(_, word)
                | CommandPrefixOrSuffixItem::Word(word) => {
                    found.words.push(self.raw(word));
                }
                CommandPrefixOrSuffixItem::IoRedirect(redirect) => {
                    self.redirect(redirect, &mut found.redirects)
                }
                CommandPrefixOrSuffixItem::ProcessSubstitution(_, subshell) => {
                    found.words.push(self.process(subshell));
                }
            }
        }
        // The parser's own places of commands leave redirections out.
        let targets = found.redirects.iter().filter_map(|redirect| match redirect {
            Redirect::File { target, .. } | Redirect::HereString(target) => Some(target),
            Redirect::Here { .. } => None,
        });
        let pieces = found.words.iter().chain(targets).map(|raw| &raw.span);
        let pieces = pieces.filter(|piece| !piece.is_empty()).cloned().collect::<Vec<_>>();
        for piece in pieces {
            if found.span.is_empty() {
                found.span = piece;
            } else {
                found.span = found.span.start.min(piece.start)..found.span.end.max(piece.end);
            }
        }
        found
    }

    fn assignment(&self, assignment: &ast::Assignment) -> Assignment {
        let (name, indexed) = match &assignment.name {
            AssignmentName::VariableName(name) => (name.clone(), false),
            AssignmentName::ArrayElementName(name, _) => (name.clone(), true),
        };
        let whole = self.span(Some(&assignment.loc));
        let values = match &assignment.value {
            // The word of a value carries no place of its own; it is the tail of the assignment.
            AssignmentValue::Scalar(word) => {
                let start = whole.end.saturating_sub(word.value.len()).max(whole.start);
                vec![Raw { text: word.value.clone(), span: start..whole.end }]
            }
            AssignmentValue::Array(words) => {
                words.iter().map(|(_, word)| Raw { text: word.value.clone(), span: whole.clone() }).collect()
            }
        };
        Assignment { name, values, append: assignment.append || indexed }
    }

    fn redirects(&self, redirects: Option<&ast::RedirectList>) -> Vec<Redirect> {
        let mut found = Vec::new();
        for redirect in redirects.iter().flat_map(|list| &list.0) {
            self.redirect(redirect, &mut found);
        }
        found
    }

    fn redirect(&self, redirect: &IoRedirect, found: &mut Vec<Redirect>) {
        match redirect {
            IoRedirect::File(fd, kind, target) => {
                let direction = match kind {
                    IoFileRedirectKind::Read => Direction::Read,
                    IoFileRedirectKind::Write | IoFileRedirectKind::Clobber => Direction::Write,
                    IoFileRedirectKind::Append => Direction::Append,
                    IoFileRedirectKind::ReadAndWrite
                    | IoFileRedirectKind::DuplicateInput
                    | IoFileRedirectKind::DuplicateOutput => Direction::Both,
                };
                let target = match target {
                    IoFileRedirectTarget::Filename(word) => self.raw(word),
                    IoFileRedirectTarget::Fd(_) => return,
                    IoFileRedirectTarget::ProcessSubstitution(_, subshell) => self.process(subshell),
                    IoFileRedirectTarget::Duplicate(word) if is_descriptor(&word.value) => return,
                    IoFileRedirectTarget::Duplicate(word) => self.raw(word),
                };
                found.push(Redirect::File { fd: fd.and_then(|fd| fd.try_into().ok()), direction, target });
            }
            IoRedirect::HereDocument(_, document) => found.push(Redirect::Here {
                text: document.doc.value.clone(),
                expands: document.requires_expansion,
                span: self.document_span(document),
            }),
            IoRedirect::HereString(_, word) => found.push(Redirect::HereString(self.raw(word))),
            IoRedirect::OutputAndError(word, append) => found.push(Redirect::File {
                fd: None,
                direction: if *append { Direction::Append } else { Direction::Write },
                target: self.raw(word),
            }),
        }
    }

    /// The body starts on a line after its tag; the tokenizer's own places of bodies are not to be relied on.
    fn document_span(&self, document: &ast::IoHereDocument) -> Range<usize> {
        let tag = self.span(document.here_end.loc.as_ref());
        let after = self.text.get(tag.end..).unwrap_or_default();
        let body = &document.doc.value;
        let window_end = after.len().min(body.len() + (4 << 10));
        let window = after.get(..window_end).unwrap_or(after);
        match window.find(body.as_str()) {
            Some(at) if !body.is_empty() => tag.end + at..tag.end + at + body.len(),
            _ => tag,
        }
    }

    /// `<(…)` as the raw word that it is in the text.
    fn process(&self, subshell: &ast::SubshellCommand) -> Raw {
        let span = self.span(Some(&subshell.loc));
        let start = span.start.saturating_sub(1);
        let text = self.text.get(start..span.end).unwrap_or("<()").to_owned();
        Raw { text, span: start..span.end }
    }

    fn raw(&self, word: &ast::Word) -> Raw {
        Raw { text: word.value.clone(), span: self.span(word.loc.as_ref()) }
    }

    fn span(&self, span: Option<&SourceSpan>) -> Range<usize> {
        span.map_or(0..0, |span| {
            let start = self.offsets.byte(span.start.index);
            let end = self.offsets.byte(span.end.index).max(start);
            trimmed(self.text, start..end)
        })
    }
}
