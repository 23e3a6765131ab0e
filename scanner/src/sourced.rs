//! Files without a `#!` that a shell reads all the same, because another file says so: `. lib.sh`, `sh README`.
//!
//! Where a file will lie when it is read is mostly unknown (`. "$(dirname "$0")/lib.sh"`), so the last part of its path
//! counts: a file that only might be read is judged as if it were.

use std::collections::BTreeSet;

use crate::action::{Action, HOLE, Kind, Run};
use crate::shell::is_shell;

/// Names that are known only in part. More than these are as good as any name.
const PATTERNS: usize = 100;

/// Names of files that a shell is told to read.
#[derive(Default)]
pub(crate) struct Names {
    whole: BTreeSet<String>,
    /// What stands before and after the unknown part.
    patterns: BTreeSet<(String, String)>,
}

/// The names in what a file does.
pub(crate) fn names(actions: &[Action]) -> Names {
    let mut names = Names::default();
    for action in actions {
        if let Kind::Run(run) = &action.kind
            && let Some(path) = read_by(run)
        {
            names.add(path);
        }
    }
    names
}

impl Names {
    fn add(&mut self, path: &str) {
        let base = path.rsplit('/').next().unwrap_or_default();
        let unknown = |c: char| matches!(c, HOLE | '*' | '?' | '[');
        match (base.find(unknown), base.rfind(|c: char| unknown(c) || c == ']')) {
            (Some(from), Some(to)) if self.patterns.len() < PATTERNS => {
                self.patterns.insert((base[..from].to_owned(), base[to + 1..].to_owned()));
            }
            (Some(_), _) => {
                self.patterns.insert((String::new(), String::new()));
            }
            _ if base.is_empty() => {}
            _ => {
                self.whole.insert(base.to_owned());
            }
        }
    }

    /// Takes in what another file says, and tells whether that was new.
    pub(crate) fn extend(&mut self, other: Self) -> bool {
        let before = (self.whole.len(), self.patterns.len());
        self.whole.extend(other.whole);
        for pattern in other.patterns {
            let any = (String::new(), String::new());
            self.patterns.insert(if self.patterns.len() < PATTERNS { pattern } else { any });
        }
        before != (self.whole.len(), self.patterns.len())
    }

    /// Whether a file of this path is among them.
    pub(crate) fn hold(&self, path: &str) -> bool {
        let base = path.rsplit('/').next().unwrap_or_default();
        // Nothing is known of the name: what is named for another kind of file is not meant.
        let plain = !base.contains('.') || [".sh", ".bash", ".env"].iter().any(|end| base.ends_with(end));
        self.whole.contains(base)
            || self.patterns.iter().any(|(start, end)| {
                (plain || !(start.is_empty() && end.is_empty()))
                    && base.len() >= start.len() + end.len()
                    && base.starts_with(start.as_str())
                    && base.ends_with(end.as_str())
            })
    }
}

/// The file that a command makes a shell read: also a program by its path, which without a `#!` is left to the shell.
fn read_by(run: &Run) -> Option<&str> {
    let program = run.argv.first()?.text.as_str();
    if !is_shell(run.program()) && !matches!(run.program(), "source" | ".") {
        return program.contains('/').then_some(program);
    }
    let mut words = run.arguments().iter().map(|word| word.text.as_str());
    while let Some(word) = words.next() {
        match word {
            "-o" | "-O" | "+o" => {
                words.next();
            }
            "--rcfile" | "--init-file" => return words.next(),
            _ if word.starts_with("--") || word.starts_with('+') => {}
            // What follows is the text itself.
            _ if word.starts_with('-') && word.contains('c') => return None,
            _ if word.starts_with('-') => {}
            _ => return Some(word),
        }
    }
    None
}
