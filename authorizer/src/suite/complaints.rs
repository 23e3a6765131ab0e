//! What a check found: bounded, and safe to show.

use std::fmt::Display;

/// Findings shown for one check; more are counted.
const MAX_LINES: usize = 50;
/// Longest object shown, in characters.
const MAX_OBJECT: usize = 200;

/// The findings of one check.
#[derive(Default)]
pub(super) struct Complaints {
    lines: Vec<String>,
    more: usize,
}

impl Complaints {
    /// Adds a finding: the object, what is wrong with it, and what to do.
    pub(super) fn add(&mut self, object: &str, problem: impl Display, remedy: &str) {
        let line = format!("{}: {problem}; {remedy}", shown(object));
        // Each sight of the same file says the same.
        if self.lines.contains(&line) {
            return;
        }
        if self.lines.len() == MAX_LINES {
            self.more += 1;
        } else {
            self.lines.push(line);
        }
    }

    pub(super) fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more", self.more));
        }
        self.lines
    }
}

/// Text from a guest as a terminal may show it: no control characters, not endless.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == MAX_OBJECT {
            shown.push('…');
            break;
        }
        // Format characters (bidirectional marks and the like) reorder what a person reads.
        if character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}
