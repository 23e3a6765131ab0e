//! What keeps the grammar's recursion, backtracking and copying bounded: judged before it sees a text or its tokens.

use brush_parser::Token;
use brush_parser::ast::{
    self, Command, CommandPrefixOrSuffixItem, CompoundCommand, CompoundList, IoFileRedirectTarget, IoRedirect,
};

use super::grammar::Refusal;
use crate::limits;

/// Everything in a text that may open one level of recursion, closed or not, quoted or not.
pub(super) fn openers(text: &str) -> usize {
    let bytes = text.as_bytes();
    let symbols = bytes
        .iter()
        .enumerate()
        .filter(|(at, byte)| match byte {
            b'(' => true,
            b'{' => bytes.get(at + 1).is_none_or(|next| *next != b'}'),
            b'[' => *at > 0 && bytes[at - 1] == b'$',
            b'!' => bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace),
            _ => false,
        })
        .count();
    let words = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| matches!(*word, "if" | "for" | "while" | "until" | "case" | "coproc" | "select"))
        .count();
    symbols + words
}

/// The tokenizer unquotes the tag at each line of a here-document and moves its queue for each of them, so what a
/// text may cost is its longest tag times its lines.
pub(super) fn heredocs_are_plain(text: &str) -> Result<(), Refusal> {
    let lines = text.bytes().filter(|byte| *byte == b'\n').count().max(1);
    for (count, (at, _)) in text.match_indices("<<").enumerate() {
        let after = text[at + 2..].trim_start_matches(['<', '-', ' ', '\t']);
        let mut quote = None;
        let length = after
            .bytes()
            .take(limits::HEREDOC_TAG)
            .take_while(|byte| {
                match quote {
                    Some(open) if open == *byte => quote = None,
                    None if matches!(byte, b'\'' | b'"') => quote = Some(*byte),
                    None => return !byte.is_ascii_whitespace() && !b"|&;()<>".contains(byte),
                    Some(_) => {}
                }
                true
            })
            .count();
        if count >= limits::HEREDOCS || length.saturating_mul(lines) > limits::HEREDOC_COPIES {
            return Err(Refusal { why: "here-documents that are costly to read".to_owned(), at });
        }
    }
    Ok(())
}

/// Sums what the backtracking parser may visit at worst: an unfinished `case` item and a parenthesis are read twice,
/// in each level anew. Also keeps from it what it is known to stumble over.
pub(super) fn tokens_are_safe(tokens: &[Token]) -> Result<(), Refusal> {
    #[derive(PartialEq)]
    enum Open {
        Case,
        Paren,
        Test,
    }
    let mut open: Vec<Open> = Vec::new();
    let mut visits: u64 = 0;
    let mut coprocesses = 0;
    let mut bangs = 0;
    let mut before: Option<&Token> = None;
    for token in tokens {
        let separated = match before {
            None => true,
            Some(Token::Operator(operator, _)) => {
                matches!(operator.as_str(), ";" | "&" | "\n" | ";;" | ";&" | ";;&")
            }
            Some(Token::Word(..)) => false,
        };
        match token {
            Token::Operator(operator, _) if operator == "(" => open.push(Open::Paren),
            Token::Operator(operator, _) if operator == ")" => {
                if open.last() == Some(&Open::Paren) {
                    open.pop();
                }
            }
            Token::Word(word, _) => match word.as_str() {
                "case" if !plain_word(before) => open.push(Open::Case),
                "esac" if separated && open.last() == Some(&Open::Case) => {
                    open.pop();
                }
                "[[" if !plain_word(before) => open.push(Open::Test),
                "]]" if open.last() == Some(&Open::Test) => {
                    open.pop();
                }
                "coproc" => coprocesses += 1,
                // The index of an array element is parsed by a grammar of its own, without bounds.
                word if word.len() > 128 && index_of_element(word).is_some_and(|index| index.len() > 64) => {
                    return Err(Refusal::limit("an array index that is too long"));
                }
                _ => {}
            },
            // The parser unwraps the number of a descriptor, which may be too large for it.
            Token::Operator(operator, _) if operator.starts_with(['<', '>']) => {
                let number =
                    before.map(Token::to_str).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
                if number.is_some_and(|number| number.is_empty() || number.len() > 9) {
                    return Err(Refusal::limit("a number too large for a descriptor"));
                }
            }
            Token::Operator(..) => {}
        }
        bangs = if token.to_str() == "!" { bangs + 1 } else { 0 };
        visits = visits.saturating_add(1 << open.iter().filter(|open| **open != Open::Test).count().min(40));
        if visits > limits::GRAMMAR_VISITS || coprocesses > 8 || bangs > 8 {
            return Err(Refusal::limit("too costly for the grammar"));
        }
        before = Some(token);
    }
    Ok(())
}

/// What follows the `[` of a word that may be `name[index]=value`.
fn index_of_element(word: &str) -> Option<&str> {
    let (name, index) = word.split_once('[')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| index.split_once("]=").map_or(index, |(index, _)| index))
}

/// After a plain word no reserved word is recognised; after one of these it is.
fn plain_word(before: Option<&Token>) -> bool {
    match before {
        Some(Token::Word(word, _)) => !matches!(
            word.as_str(),
            "then"
                | "do"
                | "else"
                | "elif"
                | "if"
                | "while"
                | "until"
                | "{"
                | "!"
                | "time"
                | "coproc"
                | "}"
                | "fi"
                | "done"
                | "esac"
        ),
        _ => false,
    }
}

pub(super) fn depth_of_lists(lists: &[CompoundList], depth: usize) -> usize {
    if depth > limits::TREE_DEPTH {
        return depth;
    }
    let commands = lists.iter().flat_map(|list| &list.0).flat_map(|item| {
        std::iter::once(&item.0.first)
            .chain(item.0.additional.iter().map(|and_or| match and_or {
                ast::AndOr::And(pipeline) | ast::AndOr::Or(pipeline) => pipeline,
            }))
            .flat_map(|pipeline| &pipeline.seq)
    });
    commands.map(|command| depth_of(command, depth + 1)).max().unwrap_or(depth)
}

fn depth_of(command: &Command, depth: usize) -> usize {
    if depth > limits::TREE_DEPTH {
        return depth;
    }
    let lists = |lists: &[&CompoundList]| {
        lists.iter().map(|list| depth_of_lists(std::slice::from_ref(*list), depth)).max().unwrap_or(depth)
    };
    let of_redirects = |redirects: &[IoRedirect]| {
        let subshells = redirects.iter().filter_map(|redirect| match redirect {
            IoRedirect::File(_, _, IoFileRedirectTarget::ProcessSubstitution(_, subshell)) => Some(subshell),
            _ => None,
        });
        subshells.map(|subshell| lists(&[&subshell.list])).max().unwrap_or(depth)
    };
    let (compound, redirects) = match command {
        Command::Simple(simple) => {
            let items = simple.prefix.iter().flat_map(|prefix| &prefix.0);
            let items = items.chain(simple.suffix.iter().flat_map(|suffix| &suffix.0));
            return items
                .map(|item| match item {
                    CommandPrefixOrSuffixItem::ProcessSubstitution(_, subshell) => lists(&[&subshell.list]),
                    CommandPrefixOrSuffixItem::IoRedirect(redirect) => {
                        of_redirects(std::slice::from_ref(redirect))
                    }
                    _ => depth,
                })
                .max()
                .unwrap_or(depth);
        }
        Command::ExtendedTest(test, redirects) => {
            let redirects = redirects.as_ref().map_or(depth, |list| of_redirects(&list.0));
            return depth_of_test(&test.expr, depth).max(redirects);
        }
        Command::Compound(compound, redirects) => (compound, redirects),
        Command::Function(function) => (&function.body.0, &function.body.1),
    };
    let redirects = redirects.as_ref().map_or(depth, |list| of_redirects(&list.0));
    redirects.max(depth_of_compound(compound, depth, &lists))
}

fn depth_of_compound(
    compound: &CompoundCommand,
    depth: usize,
    lists: &dyn Fn(&[&CompoundList]) -> usize,
) -> usize {
    match compound {
        CompoundCommand::Arithmetic(_) => depth,
        CompoundCommand::ArithmeticForClause(clause) => lists(&[&clause.body.list]),
        CompoundCommand::BraceGroup(group) => lists(&[&group.list]),
        CompoundCommand::Subshell(group) => lists(&[&group.list]),
        CompoundCommand::ForClause(clause) => lists(&[&clause.body.list]),
        CompoundCommand::CaseClause(clause) => clause
            .cases
            .iter()
            .filter_map(|case| case.cmd.as_ref())
            .map(|list| lists(&[list]))
            .max()
            .unwrap_or(depth),
        CompoundCommand::IfClause(clause) => {
            let elses =
                clause.elses.iter().flatten().flat_map(|part| part.condition.iter().chain([&part.body]));
            elses
                .map(|list| lists(&[list]))
                .max()
                .unwrap_or(depth)
                .max(lists(&[&clause.condition, &clause.then]))
        }
        CompoundCommand::WhileClause(clause) | CompoundCommand::UntilClause(clause) => {
            lists(&[&clause.0, &clause.1.list])
        }
        CompoundCommand::Coprocess(clause) => depth_of(&clause.body, depth + 1),
    }
}

fn depth_of_test(test: &ast::ExtendedTestExpr, depth: usize) -> usize {
    if depth > limits::TREE_DEPTH {
        return depth;
    }
    match test {
        ast::ExtendedTestExpr::And(left, right) | ast::ExtendedTestExpr::Or(left, right) => {
            depth_of_test(left, depth + 1).max(depth_of_test(right, depth + 1))
        }
        ast::ExtendedTestExpr::Not(inner) | ast::ExtendedTestExpr::Parenthesized(inner) => {
            depth_of_test(inner, depth + 1)
        }
        _ => depth,
    }
}
