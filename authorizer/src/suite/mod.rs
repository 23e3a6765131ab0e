//! The site's security tests: what the static agent saw of a freshly booted machine, judged against the pristine
//! base and what the recipes declare.
//!
//! Everything here is a pure function. One check is one module with its own configuration; a check passes only if
//! it has nothing to say. Facts are evidence from a hostile guest: a list that was cut never passes, and every
//! name is shown escaped.

mod checks;
mod complaints;
mod config;
mod declarations;
mod pattern;

#[cfg(test)]
mod fixture;

use std::time::Instant;

use guest::facts::Facts;
use recipe_spec::Recipe;
use serde::{Deserialize, Serialize};

pub use checks::{
    AllowedSocket, GroupsConfig, HooksConfig, KernelConfig, ListeningConfig, ModulesConfig, PathsConfig,
    SshdConfig, UnitsConfig,
};
pub use config::{SuiteConfig, SuiteConfigError};
pub use declarations::Declarations;
pub use pattern::{Pattern, PatternError};

use checks::CHECKS;
use complaints::Complaints;

/// Name of the suite in evidence.
pub const SUITE: &str = "site";

/// How a test ended. A test that did not run has no result and authorizes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TestOutcome {
    /// It ran and found nothing wrong.
    Passed,
    /// It ran and found something, or could not see enough.
    Failed,
}

/// One test of a suite and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestResult {
    /// `site` or `vo`.
    pub suite: String,
    /// Name of the test, unique in its suite.
    pub name: String,
    /// Passed or failed.
    pub result: TestOutcome,
    /// How long it took.
    pub seconds: f64,
    /// For each thing found: the object, what is wrong with it, what to do. Empty if passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
}

impl TestResult {
    /// True only if it ran and passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.result == TestOutcome::Passed
    }
}

/// Runs every check. `now` is the machine under test, freshly booted from its sealed disk; `base` the pristine base,
/// freshly booted; `vo` the recipe under test and `site` the site's recipes in the order they were applied.
///
/// The result holds every check exactly once, in a fixed order.
#[must_use]
pub fn judge(
    now: &Facts,
    base: &Facts,
    vo: &Recipe,
    site: &[&Recipe],
    config: &SuiteConfig,
) -> Vec<TestResult> {
    let declared = Declarations::of(vo, site);
    let evidence = Evidence { now, base, declared: &declared };
    CHECKS
        .iter()
        .map(|check| {
            let start = Instant::now();
            let mut complaints = Complaints::default();
            for list in check.lists {
                for (facts, whose) in [(now, "this machine"), (base, "the base")] {
                    if facts.truncated.iter().any(|cut| cut.split(':').next() == Some(list)) {
                        complaints.add(
                            list,
                            format_args!("not seen whole on {whose}"),
                            "have fewer of them, or make them readable",
                        );
                    }
                }
            }
            (check.run)(&evidence, config, &mut complaints);
            let detail = complaints.into_lines();
            TestResult {
                suite: SUITE.to_owned(),
                name: check.name.to_owned(),
                result: if detail.is_empty() { TestOutcome::Passed } else { TestOutcome::Failed },
                seconds: start.elapsed().as_secs_f64(),
                detail,
            }
        })
        .collect()
}

/// How many checks there are: every one gives a result.
#[must_use]
pub const fn count() -> usize {
    CHECKS.len()
}

/// What a check looks at.
struct Evidence<'a> {
    now: &'a Facts,
    base: &'a Facts,
    declared: &'a Declarations,
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixture::Machine;

    #[test]
    fn a_pristine_base_with_the_sites_settings_passes_every_check() {
        let machine = Machine::base();
        let results = machine.judge("", "");
        assert_eq!(results.len(), CHECKS.len());
        for result in results {
            assert!(result.passed(), "{}: {:?}", result.name, result.detail);
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn a_cut_list_passes_no_check_that_needs_it() {
        for check in CHECKS {
            for list in check.lists {
                for cut in [(*list).to_owned(), format!("{list}: /etc/x: permission denied")] {
                    let mut machine = Machine::base();
                    machine.now.truncated.push(cut.clone());
                    let results = machine.judge("", "");
                    let failed = |name| results.iter().any(|result| result.name == name && !result.passed());
                    assert!(failed(check.name), "{cut}, and {} passed", check.name);
                    assert!(failed("complete"), "{cut}, and complete passed");
                }
            }
        }
    }

    #[test]
    fn hostile_names_are_escaped_and_many_findings_are_counted() {
        let mut machine = Machine::base();
        for index in 0..500 {
            machine.now.modules.push(format!("evil\u{1b}[2J{index}"));
        }
        let results = machine.judge("", "");
        let modules = results.iter().find(|result| result.name == "modules").unwrap();
        assert!(modules.detail.len() < 100);
        assert!(modules.detail.iter().all(|line| !line.contains('\u{1b}')));
        assert!(modules.detail.last().unwrap().contains("more"), "{:?}", modules.detail.last());
    }

    #[test]
    fn the_baseline_suite_is_valid_and_strict() {
        let text = include_str!("../../../site-recipes/suites/baseline.toml");
        SuiteConfig::parse(text).unwrap();
        assert!(SuiteConfig::parse(&format!("{text}\n[surprise]\n")).is_err());
        assert!(SuiteConfig::parse("").is_err());
    }
}
