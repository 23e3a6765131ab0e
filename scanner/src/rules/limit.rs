//! LIM: what the scanner could not read as the machine would. What is not read is not trusted.

use super::{Scene, Sink, rule};
use crate::action::{Kind, Limit};
use crate::finding::{RuleInfo, Severity};
use crate::limits;

const SIZE: RuleInfo = rule(
    "LIM-001",
    Severity::Deny,
    "file too large to be read",
    "split the file, or fetch what is data with a `download` step and its digest",
    "CWE-400",
    "T1027.001",
);
const GRAMMAR: RuleInfo = rule(
    "LIM-002",
    Severity::Smell,
    "script the grammar does not take",
    "make `bash -n` accept the script; its structure was not seen, only its commands",
    "",
    "",
);
const EXHAUSTED: RuleInfo = rule(
    "LIM-003",
    Severity::Deny,
    "script too involved to be followed",
    "write the steps out plainly, one command after the other",
    "CWE-400",
    "T1027",
);
const NUL: RuleInfo = rule(
    "LIM-004",
    Severity::Deny,
    "script with NUL bytes",
    "remove the bytes; a shell drops them and runs other words than a reader sees",
    "CWE-158",
    "T1027",
);

pub(super) const RULES: &[RuleInfo] = &[SIZE, GRAMMAR, EXHAUSTED, NUL];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for action in scene.actions {
        let Kind::Limit(limit) = &action.kind else { continue };
        match limit {
            Limit::Size { bytes } => sink.report(
                &SIZE,
                &action.span,
                format!("{bytes} bytes are more than the {} that are read", limits::FILE_BYTES),
            ),
            Limit::Grammar { why } => sink.report(
                &GRAMMAR,
                &action.span,
                format!("read by the lexer only: {}", crate::action::shown(why)),
            ),
            Limit::Exhausted { what } => {
                sink.report(
                    &EXHAUSTED,
                    &action.span,
                    format!("following this script exceeds the limit on {what}"),
                );
            }
            Limit::Nul => sink.report(&NUL, &action.span, "the script holds NUL bytes"),
        }
    }
}
