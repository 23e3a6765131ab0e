//! The rules: one module a family of the taxonomy, each looking at actions and nothing else.

mod credentials;
mod defence;
mod execution;
mod fetched;
mod impact;
mod known;
mod limit;
mod network;
mod permissions;
mod persistence;
mod privilege;
mod protection;
mod supply;

use std::collections::HashSet;
use std::ops::Range;

use crate::action::{Action, Fetch, Kind, Run, UserChange};
use crate::finding::{Finding, RuleInfo, Severity};
use crate::limits;
use crate::source::Source;

type Check = fn(&Scene<'_>, &mut Sink<'_>);

/// Every family: its rules and its check.
const FAMILIES: &[(&[RuleInfo], Check)] = &[
    (execution::RULES, execution::check),
    (persistence::RULES, persistence::check),
    (privilege::RULES, privilege::check),
    (defence::RULES, defence::check),
    (protection::RULES, protection::check),
    (credentials::RULES, credentials::check),
    (network::RULES, network::check),
    (supply::RULES, supply::check),
    (impact::RULES, impact::check),
    (permissions::RULES, permissions::check),
    (limit::RULES, limit::check),
];

/// Every rule, in the order of the families.
pub(crate) fn all() -> Vec<RuleInfo> {
    FAMILIES.iter().flat_map(|(rules, _)| rules.iter().copied()).collect()
}

/// Runs every rule over the actions of one file.
pub(crate) fn check(path: &str, source: &Source<'_>, actions: &[Action], setuid: &[String]) -> Vec<Finding> {
    let scene = Scene { actions, setuid };
    let mut sink = Sink { path, source, findings: Vec::new(), seen: HashSet::new() };
    for (_, check) in FAMILIES {
        check(&scene, &mut sink);
    }
    let mut findings = sink.findings;
    // A rule says a thing once for each line, and the heaviest it has to say.
    findings.sort_by_key(|finding| {
        (finding.line, finding.rule, std::cmp::Reverse(finding.severity), finding.column)
    });
    findings.dedup_by(|later, first| later.rule == first.rule && later.line == first.line);
    // If something must go, the heavy ones stay.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings.truncate(limits::FINDINGS);
    findings.sort_by_key(|finding| (finding.span.start, finding.rule));
    findings
}

/// All that a file does.
struct Scene<'a> {
    actions: &'a [Action],
    /// Programs that the manifest asks setuid for, openly.
    setuid: &'a [String],
}

impl<'a> Scene<'a> {
    fn runs(&self) -> impl Iterator<Item = (&'a Action, &'a Run)> {
        self.actions.iter().filter_map(|action| match &action.kind {
            Kind::Run(run) => Some((action, run)),
            _ => None,
        })
    }

    fn fetches(&self) -> impl Iterator<Item = (&'a Action, &'a Fetch)> {
        self.actions.iter().filter_map(|action| match &action.kind {
            Kind::Fetch(fetch) => Some((action, fetch)),
            _ => None,
        })
    }

    fn users(&self) -> impl Iterator<Item = (&'a Action, &'a UserChange)> {
        self.actions.iter().filter_map(|action| match &action.kind {
            Kind::User(user) => Some((action, user)),
            _ => None,
        })
    }

    /// Whether something checks anything at all.
    fn verifies(&self) -> bool {
        self.runs().any(|(_, run)| checks(run))
    }
}

/// Whether a command checks files in any way.
fn checks(run: &Run) -> bool {
    checks_digests(run) || checks_signature(run)
}

/// Whether a command checks files against a list of their digests.
fn checks_digests(run: &Run) -> bool {
    matches!(run.program(), "sha256sum" | "sha512sum" | "shasum" | "sha384sum" | "b2sum")
        && (run.flag('c', "--check") || run.arguments().iter().any(|word| word.text.starts_with("-c")))
}

/// Whether a command checks the signature of a file that it names.
fn checks_signature(run: &Run) -> bool {
    match run.program() {
        "gpgv" => true,
        "gpg" | "gpg2" => run.has("--verify"),
        "minisign" | "signify" => run.flag('V', ""),
        "cosign" => run.has("verify-blob"),
        "openssl" => run.has("dgst") && run.has("-verify"),
        "rpm" => run.has("--checksig") || run.has("-K"),
        _ => false,
    }
}

/// Where findings go.
struct Sink<'a> {
    path: &'a str,
    source: &'a Source<'a>,
    findings: Vec<Finding>,
    seen: HashSet<(&'static str, usize, String)>,
}

impl Sink<'_> {
    /// Reports with the rule's own weight.
    fn report(&mut self, rule: &RuleInfo, span: &Range<usize>, message: impl Into<String>) {
        self.report_as(rule, rule.severity, span, message);
    }

    /// Reports with another weight.
    fn report_as(
        &mut self,
        rule: &RuleInfo,
        severity: Severity,
        span: &Range<usize>,
        message: impl Into<String>,
    ) {
        // A flood of light findings leaves room for the heavy ones.
        let room = if severity == Severity::Deny { 16 } else { 8 };
        if self.findings.len() >= limits::FINDINGS * room {
            return;
        }
        let message = message.into();
        let span = self.source.clamp(span.clone());
        if !self.seen.insert((rule.id, span.start, message.clone())) {
            return;
        }
        let (line, column) = self.source.line_column(span.start);
        self.findings.push(Finding {
            rule: rule.id,
            severity,
            path: self.path.to_owned(),
            line,
            column,
            span,
            message,
            help: rule.help,
            cwe: rule.cwe,
            technique: rule.technique,
        });
    }
}

/// Shorthand of the families' tables.
const fn rule(
    id: &'static str,
    severity: Severity,
    title: &'static str,
    help: &'static str,
    cwe: &'static str,
    technique: &'static str,
) -> RuleInfo {
    RuleInfo {
        id,
        severity,
        title,
        help,
        cwe: if cwe.is_empty() { None } else { Some(cwe) },
        technique: if technique.is_empty() { None } else { Some(technique) },
    }
}

/// Whether a path is, or lies in, one of these places.
fn under(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        path.strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || place.ends_with('/'))
    })
}
