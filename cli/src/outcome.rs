//! What a command ends with, and how it is said: to people and as JSON from the same value.
//!
//! Standard output carries answers and progress; standard error carries problems only, so that its first
//! line can start with the code.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use authorizer::stopped::is_full;
use comfy_table::{Table, presets};
use recipe_spec::Code;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::arguments::Format;

/// What a command that did its work says.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Lines for a person, without a last line break.
    pub(crate) human: String,
    /// Members of the JSON object.
    pub(crate) data: Map<String, Value>,
}

impl Answer {
    pub(crate) fn new(human: impl Into<String>, data: impl Serialize) -> Self {
        let data = match serde_json::to_value(data) {
            Ok(Value::Object(map)) => map,
            Ok(other) => Map::from_iter([("value".to_owned(), other)]),
            Err(_) => Map::new(),
        };
        Self { human: human.into(), data }
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A refusal or a failure, with its published code.
    Coded {
        code: Code,
        message: String,
        /// What to do next.
        hints: Vec<String>,
        /// More lines for a person: source lines, a list of failed tests.
        details: String,
        /// More members of the JSON object.
        data: Map<String, Value>,
    },
    /// The command line names something that is not there or makes no sense.
    Usage(String),
}

impl Problem {
    pub(crate) fn coded(code: Code, message: impl ToString) -> Self {
        Self::Coded {
            code,
            message: message.to_string(),
            hints: Vec::new(),
            details: String::new(),
            data: Map::new(),
        }
    }

    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::Usage(message.to_string())
    }

    pub(crate) fn hint(mut self, hint: impl ToString) -> Self {
        if let Self::Coded { hints, .. } = &mut self {
            hints.push(hint.to_string());
        }
        self
    }

    pub(crate) fn details(mut self, text: impl ToString) -> Self {
        if let Self::Coded { details, .. } = &mut self {
            *details = text.to_string();
        }
        self
    }

    pub(crate) fn with(mut self, key: &str, value: impl Serialize) -> Self {
        if let Self::Coded { data, .. } = &mut self {
            data.insert(key.to_owned(), serde_json::to_value(value).unwrap_or_default());
        }
        self
    }

    fn exit_status(&self) -> u8 {
        match self {
            Self::Coded { code, .. } => code.exit_status(),
            Self::Usage(_) => 2,
        }
    }

    /// What standard error gets: the code first; with JSON nothing more than that line.
    fn lines(&self, format: Format) -> String {
        match self {
            Self::Usage(message) => format!("error: {}", printable(message)),
            Self::Coded { code, message, hints, details, .. } => {
                let mut lines = format!("{code}: {}", printable(message));
                if format == Format::Human {
                    if !details.is_empty() {
                        lines.push('\n');
                        lines.push_str(details.trim_end());
                    }
                    for hint in hints {
                        lines.push_str("\nhint: ");
                        lines.push_str(&printable(hint));
                    }
                }
                lines
            }
        }
    }

    pub(crate) fn into_object(self, command: &str, seconds: Duration) -> String {
        let result = match self.exit_status() {
            1 => "refused",
            2 => "usage",
            _ => "failed",
        };
        match self {
            Self::Usage(message) => {
                object(command, result, seconds, Map::from_iter([("message".to_owned(), json!(message))]))
            }
            Self::Coded { code, message, hints, details, data } => {
                let mut members = Map::from_iter([
                    ("code".to_owned(), json!(code)),
                    ("message".to_owned(), json!(message)),
                    ("hints".to_owned(), json!(hints)),
                    ("details".to_owned(), json!(details.lines().collect::<Vec<_>>())),
                ]);
                members.extend(data);
                object(command, result, seconds, members)
            }
        }
    }
}

/// Set by whoever says how the command ended: its own end and a signal can come at the same moment.
static SAID: AtomicBool = AtomicBool::new(false);

/// Says how `command` ended after `seconds` and gives the process's exit status; nothing if that was said already.
pub(crate) fn say(
    command: &str,
    format: Format,
    ended: Result<Answer, Problem>,
    seconds: Duration,
) -> Option<u8> {
    if SAID.swap(true, Ordering::SeqCst) {
        return None;
    }
    Some(match ended {
        Ok(answer) => {
            let text = match format {
                Format::Human => answer.human,
                Format::Json => object(command, "done", seconds, answer.data),
            };
            match written(&text) {
                Ok(()) => 0,
                Err(problem) => {
                    let _ = writeln!(std::io::stderr().lock(), "{}", problem.lines(format));
                    problem.exit_status()
                }
            }
        }
        Err(problem) => {
            let status = problem.exit_status();
            let _ = writeln!(std::io::stderr().lock(), "{}", problem.lines(format));
            if format == Format::Json {
                let _ = writeln!(std::io::stdout().lock(), "{}", problem.into_object(command, seconds));
            }
            status
        }
    })
}

/// Writes an answer. A reader that went away (`countersign … | head`) is no reason to fail; an answer that was lost is.
fn written(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let code = if is_full(&error) { Code::HostFull } else { Code::HostFailed };
            Err(Problem::coded(code, format!("it is done, but the answer cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// The one JSON object of an answer or problem.
fn object(command: &str, result: &str, seconds: Duration, data: Map<String, Value>) -> String {
    let mut object = data;
    // These mean the same in every answer, whatever a command's own data has.
    object.insert("command".to_owned(), json!(command));
    object.insert("result".to_owned(), json!(result));
    object.insert("seconds".to_owned(), json!(seconds.as_secs_f64()));
    Value::Object(object).to_string()
}

/// One line for a terminal: text from a guest, a repository or a certificate cannot move the cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let (one, escaped) = if plain { (Some(c), None) } else { (None, Some(c.escape_unicode())) };
            one.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// As [`printable`], line by line: for text of several lines from outside.
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// A table for a terminal; what stands in its cells is escaped.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| printable_lines(&cell)));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Problem {
        Problem::coded(Code::ScanDenied, "no\x1b[2J")
            .details("one\ntwo\n")
            .hint("do better")
            .with("stage", "scan")
    }

    #[test]
    fn a_refusal_begins_with_its_code_and_says_what_to_do() {
        assert_eq!(refusal().lines(Format::Human), "SCAN_DENIED: no\\u{1b}[2J\none\ntwo\nhint: do better");
        assert_eq!(refusal().lines(Format::Json), "SCAN_DENIED: no\\u{1b}[2J");
        assert_eq!(Problem::usage("no such folder").lines(Format::Human), "error: no such folder");
    }

    #[test]
    fn json_carries_the_same_and_the_seconds() {
        let text = refusal().into_object("scan", Duration::from_millis(1500));
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({"command": "scan", "result": "refused", "seconds": 1.5, "code": "SCAN_DENIED",
            "message": "no\u{1b}[2J", "hints": ["do better"], "details": ["one", "two"], "stage": "scan"});
        assert_eq!(value, expected);
        let failure = Problem::coded(Code::NoQemu, "none").into_object("scan", Duration::ZERO);
        assert!(failure.contains(r#""result":"failed""#), "{failure}");
        let data = Map::from_iter([("seconds".to_owned(), json!([])), ("own".to_owned(), json!(1))]);
        let answer: Value = serde_json::from_str(&object("scan", "done", Duration::ZERO, data)).unwrap();
        assert_eq!((&answer["seconds"], &answer["own"]), (&json!(0.0), &json!(1)));
        let usage = Problem::usage("what").into_object("scan", Duration::ZERO);
        assert!(usage.contains(r#""result":"usage""#), "{usage}");
    }

    #[test]
    fn control_and_bidi_characters_are_escaped() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}d");
        assert_eq!(printable("Zürich ✓"), "Zürich ✓");
    }
}
