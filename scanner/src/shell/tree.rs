//! What a script says, whoever read it: the grammar or the lexer. Words keep their raw form; expansion comes later.

use std::ops::Range;
use std::rc::Rc;

/// A script that was read.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) nodes: Rc<[Node]>,
    pub(crate) reading: Reading,
}

/// How a script was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    Grammar,
    /// The grammar did not take it: simple commands only, structure lost.
    Lexer {
        why: String,
        at: usize,
    },
}

#[derive(Debug)]
pub(crate) enum Node {
    Pipeline(Vec<Stage>),
    Function { name: String, body: Rc<[Node]> },
}

/// One side of a pipe.
#[derive(Debug)]
pub(crate) enum Stage {
    Simple(Simple),
    Group(Group),
}

/// A compound command: all its parts in the order of the text.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) nodes: Rc<[Node]>,
    /// `for` and `select`: the variable and its values.
    pub(crate) binding: Option<(String, Vec<Raw>)>,
    /// The parts may not all run, so an assignment in them does not replace what was there.
    pub(crate) conditional: bool,
    pub(crate) redirects: Vec<Redirect>,
    pub(crate) span: Range<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Simple {
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) words: Vec<Raw>,
    pub(crate) redirects: Vec<Redirect>,
    pub(crate) span: Range<usize>,
}

#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) name: String,
    /// More than one for an array.
    pub(crate) values: Vec<Raw>,
    pub(crate) append: bool,
}

/// A word as it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

#[derive(Debug)]
pub(crate) enum Redirect {
    File { fd: Option<u32>, direction: Direction, target: Raw },
    Here { text: String, expands: bool, span: Range<usize> },
    HereString(Raw),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
    Append,
    /// `<>`, and `>&` or `<&` to something that is no descriptor.
    Both,
}
