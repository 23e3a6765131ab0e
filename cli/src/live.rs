//! The live view of a run: a line for each stage that ended, and below it what is happening now.
//!
//! On a terminal the current stage spins; elsewhere each stage is one plain line. All of it goes to standard
//! output, so that standard error holds problems only; with `--format json` there is no live view. A supervisor
//! hands its view on to the command that started it, line by line.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use authorizer::events::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::Format;
use crate::outcome::printable;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Something to show; already escaped for a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    /// Something ended; stays.
    Line(&'a str),
    /// What is happening; the next one takes its place.
    Now(&'a str),
}

enum View<'a> {
    Spinner(ProgressBar),
    Plain,
    Nothing,
    Elsewhere(Box<dyn FnMut(Shown<'_>) + 'a>),
}

/// Shows events as they come.
pub(crate) struct Live<'a> {
    view: View<'a>,
    stage: String,
}

impl<'a> Live<'a> {
    /// The view of this process's own caller.
    pub(crate) fn new(format: Format) -> Self {
        let view = match format {
            Format::Json => View::Nothing,
            Format::Human if std::io::stdout().is_terminal() => View::Spinner(spinner()),
            Format::Human => View::Plain,
        };
        Self { view, stage: String::new() }
    }

    /// A view that is shown by somebody else.
    pub(crate) fn elsewhere(show: impl FnMut(Shown<'_>) + 'a) -> Self {
        Self { view: View::Elsewhere(Box::new(show)), stage: String::new() }
    }

    pub(crate) fn show(&mut self, event: &Event) {
        match event {
            Event::StageStarted { stage } => {
                stage.title().clone_into(&mut self.stage);
                self.put(Shown::Now(stage.title()));
            }
            Event::StageFinished { stage, seconds, detail } => {
                self.line(&format!("{seconds:>6.1} s  {}: {}", stage.title(), printable(detail)));
            }
            Event::StepStarted { number, of, step, .. } => {
                let now = format!("{} {number}/{of}: {}", self.stage, printable(step));
                self.put(Shown::Now(&now));
            }
            Event::StepFinished { recipe, number, changed, seconds } => {
                let outcome = if *changed { "changed" } else { "unchanged" };
                self.line(&format!("{seconds:>6.1} s    {} step {number}: {outcome}", printable(recipe)));
            }
            Event::TestFinished { suite, name, passed, seconds, detail } => {
                let result = if *passed { "passed" } else { "FAILED" };
                self.line(&format!(
                    "{seconds:>6.1} s    {} test {}: {result}",
                    printable(suite),
                    printable(name)
                ));
                for line in detail {
                    self.line(&format!("            {}", printable(line)));
                }
            }
            Event::Fetched { url, status, .. } if *status == 403 => {
                self.line(&format!("            refused to fetch {}: no declared origin", printable(url)));
            }
            Event::Note { text } => self.line(&format!("note: {}", printable(text))),
            Event::Output { .. } | Event::Fetched { .. } | Event::Console { .. } | Event::Ended { .. } => {}
        }
    }

    /// Shows one line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        self.put(Shown::Line(text));
    }

    pub(crate) fn put(&mut self, shown: Shown<'_>) {
        match (&mut self.view, shown) {
            (View::Spinner(bar), Shown::Line(text)) => bar.println(text),
            (View::Spinner(bar), Shown::Now(text)) => bar.set_message(text.to_owned()),
            (View::Plain, Shown::Line(text)) => {
                let _ = writeln!(std::io::stdout().lock(), "{text}");
            }
            (View::Plain, Shown::Now(_)) | (View::Nothing, _) => {}
            (View::Elsewhere(show), shown) => show(shown),
        }
    }

    pub(crate) fn end(&self) {
        if let View::Spinner(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use authorizer::events::Stage;

    use super::*;

    fn shown(events: &[Event]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut live = Live::elsewhere(|shown| {
            lines.push(match shown {
                Shown::Line(text) => format!("line {text}"),
                Shown::Now(text) => format!("now {text}"),
            });
        });
        events.iter().for_each(|event| live.show(event));
        drop(live);
        lines
    }

    #[test]
    fn stages_steps_and_tests_become_lines_and_their_text_is_escaped() {
        let events = [
            Event::StageStarted { stage: Stage::ApplyVo },
            Event::StepStarted { recipe: "r".into(), number: 1, of: 2, step: "file \x1b[2J".into() },
            Event::StepFinished { recipe: "atlas/web".into(), number: 1, changed: true, seconds: 0.25 },
            Event::StageFinished { stage: Stage::ApplyVo, seconds: 12.0, detail: "2 steps".into() },
            Event::TestFinished {
                suite: "vo".into(),
                name: "page".into(),
                passed: false,
                seconds: 1.0,
                detail: vec!["exit\nstatus".into()],
            },
            Event::Output { text: "not shown".into() },
            Event::Fetched { url: "http://x/".into(), status: 403, bytes: 0 },
        ];
        assert_eq!(
            shown(&events),
            [
                "now apply the VO's recipe",
                "now apply the VO's recipe 1/2: file \\u{1b}[2J",
                "line    0.2 s    atlas/web step 1: changed",
                "line   12.0 s  apply the VO's recipe: 2 steps",
                "line    1.0 s    vo test page: FAILED",
                "line             exit\\u{a}status",
                "line             refused to fetch http://x/: no declared origin",
            ]
        );
    }
}
