//! Shell text to actions: a grammar reads it, a lexer where the grammar fails, and an evaluator follows the values.

mod decode;
mod effect;
mod evaluate;
mod expand;
mod files;
mod flow;
mod grammar;
mod guard;
mod interpreter;
mod lexer;
mod tree;
mod word;
mod wrapper;

pub(crate) use evaluate::Evaluator;
pub(crate) use interpreter::{is_interpreter, is_shell};

use tree::{Reading, Script};

/// Reads a script, by the grammar when it can.
fn read(text: &str) -> Script {
    match grammar::read(text) {
        Ok(nodes) => Script { nodes: nodes.into(), reading: Reading::Grammar },
        Err(refusal) => Script {
            nodes: lexer::read(text).into(),
            reading: Reading::Lexer { why: refusal.why, at: refusal.at },
        },
    }
}
