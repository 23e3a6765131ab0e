//! The sealed disk, booted afresh: the site's security tests, then the VO's function tests.
//!
//! No process of the build lives here. The site's tests judge facts of the static agent, before any command of the VO
//! is run, and what was seen of the disk before it ran at all.

use crl::Clear;
use harness::{HarnessError, Machine};
use recipe_spec::{Code, Sha256Digest, Timestamp};
use std::collections::BTreeMap;

use super::build::Sealed;
use super::inspect::{Inspected, contents};
use super::revocation::{ask_at_least, selectors_of, selectors_of_site};
use super::site_recipes;

use crate::events::Stage;
use crate::journal::Journal;
use crate::machines::{Machines, await_running, run_function_tests};
use crate::site::Site;
use crate::stopped::Stopped;
use crate::suite::{self, Seen, TestResult};

/// A sealed disk that passed every test.
#[derive(Debug)]
pub struct Tested {
    pub(super) sealed: Sealed,
    pub(super) disk: DiskReport,
    pub(super) tests: Vec<TestResult>,
    pub(super) facts: Vec<u8>,
    /// What was seen after the VO's tests.
    pub(super) later: Vec<u8>,
    /// What the site's tests were configured by.
    pub(super) suite: Sha256Digest,
}

/// What was seen of a sealed disk, as it goes into the evidence.
#[derive(Debug)]
pub(super) struct DiskReport {
    pub(super) changes: Vec<u8>,
    pub(super) files: Vec<u8>,
}

impl Tested {
    /// Asks again whether anything is revoked: building took minutes. The site is read anew, because the CRLs of VOs' CAs
    /// and the anchors themselves may have changed meanwhile too.
    pub(super) fn check_revocation(&self, site: &Site, now: Timestamp) -> Result<Clear, Stopped> {
        let site = &Site::open(site.layout().root())?;
        let clear = self.sealed.scanned.clear();
        clear.verified().verify_again(site, now)?;
        let mut selectors = selectors_of(clear.verified());
        selectors.extend(selectors_of_site(&self.sealed.base, &self.sealed.site_recipes));
        ask_at_least(site, &selectors, clear.number(), now)
    }
}

/// Boots the sealed disk and runs both suites in it.
pub(super) fn run(
    inspected: Inspected,
    site: &Site,
    machines: &Machines<'_>,
    journal: &mut Journal<'_>,
) -> Result<Tested, Stopped> {
    let sealed = &inspected.sealed;
    let recipe = sealed.scanned.clear().verified().recipe();
    let (config, suite) = site_recipes::suite(site)?;
    let mut machine = journal.stage(
        Stage::BootSealed,
        |_: &Machine| machines.described(),
        |journal| {
            let mut machine = machines.testing(&sealed.base, sealed.disk(&["test"]))?;
            journal.cold_boot();
            await_running(&mut machine, site, journal)?;
            Ok(machine)
        },
    )?;
    let mut live_contents = BTreeMap::new();
    let (facts, mut tests) = journal.stage(
        Stage::SecurityTests,
        |(_, results): &(_, Vec<_>)| passed(results),
        |journal| {
            let facts = machine.facts().map_err(unseen)?;
            let site_recipes: Vec<_> = sealed.site_recipes.iter().collect();
            let wanted = suite::contents_wanted(recipe, &site_recipes, &config);
            live_contents = contents(&wanted, |path, limit| machine.read_file(path, limit))?;
            let seen = Seen {
                live: &facts,
                live_contents: &live_contents,
                files: &inspected.files,
                disk: inspected.disk(),
            };
            let results = suite::judge(&seen, sealed.base.facts(), recipe, &site_recipes, &config);
            journal.tell_tests(&results);
            all_passed(&results)?;
            Ok((serde_json::to_vec(&facts).map_err(Stopped::internal)?, results))
        },
    )?;
    let of_vo = journal.stage(
        Stage::FunctionTests,
        |results: &Vec<_>| passed(results),
        |journal| {
            let results = run_function_tests(&mut machine, recipe.manifest(), journal)?;
            journal.tell_tests(&results);
            all_passed(&results)?;
            Ok(results)
        },
    )?;
    tests.extend(of_vo);
    let later = journal.stage(
        Stage::LookAgain,
        |_: &Vec<u8>| "as before".to_owned(),
        |journal| {
            // What waits for a moment before it opens a port has had one.
            let facts = machine.facts().map_err(unseen)?;
            let seen = Seen {
                live: &facts,
                live_contents: &live_contents,
                files: &inspected.files,
                disk: inspected.disk(),
            };
            let site_recipes: Vec<_> = sealed.site_recipes.iter().collect();
            let results = suite::judge_running(&seen, sealed.base.facts(), recipe, &site_recipes, &config);
            if results.iter().any(|result| !result.passed()) {
                journal.tell_tests(&results);
            }
            all_passed(&results)?;
            serde_json::to_vec(&facts).map_err(Stopped::internal)
        },
    )?;
    drop(machine);
    let Inspected { sealed, files, comparison, .. } = inspected;
    let files = serde_json::to_vec(&files).map_err(Stopped::internal)?;
    let disk = DiskReport { changes: comparison.to_json_lines(), files };
    Ok(Tested { sealed, disk, tests, facts, later, suite })
}

/// A machine of which the agent cannot tell the facts was not tested, and skipped is not passed.
fn unseen(error: HarnessError) -> Stopped {
    match &error {
        HarnessError::Agent { .. } => Stopped::new(Code::TestFailed, &error),
        _ => Stopped::from(error),
    }
}

fn passed(results: &[TestResult]) -> String {
    format!("{} passed", results.len())
}

fn all_passed(results: &[TestResult]) -> Result<(), Stopped> {
    let failed: Vec<_> = results.iter().filter(|result| !result.passed()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = failed.iter().map(|result| format!("{}/{}", result.suite, result.name)).collect();
    let mut details = String::new();
    for result in failed {
        details.push_str(&format!("{}/{}:\n", result.suite, result.name));
        for line in &result.detail {
            details.push_str(&format!("  {line}\n"));
        }
    }
    Err(Stopped::new(Code::TestFailed, format!("not passed: {}", names.join(", "))).details(details))
}

#[cfg(test)]
mod tests {
    use harness::{AgentError, AgentErrorKind};

    use super::*;

    #[test]
    fn a_machine_that_cannot_be_seen_fails_its_tests_and_a_lost_one_is_lost() {
        let (machine, console) = ("test".to_owned(), String::new());
        let error = AgentError { kind: AgentErrorKind::TooLarge, message: "too long\nby far".into() };
        let refused = HarnessError::Agent { machine: machine.clone(), request: "facts", error };
        assert_eq!(unseen(refused).code, Code::TestFailed);
        let lost = HarnessError::ControlLost { machine, reason: "a breach".into(), console };
        assert_eq!(unseen(lost).code, Code::ControlLost);
    }
}
