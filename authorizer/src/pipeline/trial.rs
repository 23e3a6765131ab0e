//! The sealed disk, booted afresh and paused: the template. Clones of it are what is tested, as clones of it are what is deployed.
//!
//! No process of the build lives here. The site's tests judge facts of the static agent, in a clone in which no command of the
//! VO is ever run, what was seen of the disk before it ran at all, and what the boot has made of it, seen from outside. Each of
//! the VO's tests has a clone of its own, which is looked at again after it. All clones are thrown away. No machine here outlives
//! the time for one authorization.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crl::Clear;
use disk::{Comparison, Left};
use harness::{DiskSpec, Facts, HarnessError, Machine, Template};
use recipe_spec::manifest::FunctionTest;
use recipe_spec::{Code, Recipe, Sha256Digest, Timestamp};

use super::build::Sealed;
use super::inspect::{Inspected, compare, contents};
use super::revocation::{ask_at_least, selectors_of, selectors_of_site};
use super::site_recipes;
use crate::events::Stage;
use crate::interruption::Interruption;
use crate::journal::Journal;
use crate::machines::{FUNCTION_SUITE, Machines, Original, await_running, not_a_clone, run_function_test};
use crate::site::Site;
use crate::stopped::Stopped;
use crate::suite::{self, Seen, Sight, SuiteConfig, TestResult};

/// A sealed disk that passed every test.
#[derive(Debug)]
pub struct Tested {
    pub(super) sealed: Sealed,
    pub(super) disk: DiskReport,
    pub(super) tests: Vec<TestResult>,
    pub(super) template: Template,
    pub(super) facts: Vec<u8>,
    /// What was seen in the same clone after the VO's tests had run in theirs.
    pub(super) later: Vec<u8>,
    /// What the site's tests were configured by.
    pub(super) suite: Sha256Digest,
}

/// What was seen of the disk, as it goes into the evidence.
#[derive(Debug)]
pub(super) struct DiskReport {
    pub(super) changes: Vec<u8>,
    pub(super) files: Vec<u8>,
    /// What differs from the base after the boot.
    pub(super) booted: Vec<u8>,
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

/// Boots the sealed disk, keeps that boot as the template, and runs both suites in clones of it, all before `deadline`.
pub(super) fn run(
    inspected: Inspected,
    site: &Site,
    machines: &Machines<'_>,
    workspace: &Path,
    deadline: Instant,
    journal: &mut Journal<'_>,
) -> Result<Tested, Stopped> {
    let sealed = &inspected.sealed;
    let recipe = sealed.scanned.clear().verified().recipe();
    let (config, suite) = site_recipes::suite(site)?;
    let template = journal.stage(
        Stage::BootSealed,
        |template: &Template| format!("{}, template {}", machines.described(), template.sha256()),
        |journal| {
            let booted = within(deadline, "the boot of the sealed disk", |left| {
                let mut machine = machines.template_source(&sealed.base, sealed.disk(&["template"]), left)?;
                journal.cold_boot();
                await_running(&mut machine, site, journal)?;
                machine.into_template(&workspace.join("kept")).map_err(not_a_clone)
            });
            // What was seen of its disk may say why.
            booted.map_err(|stopped| match stopped.code {
                Code::ControlLost | Code::TestFailed => {
                    let results = suite::judge_sealed(
                        inspected.sight(),
                        &inspected.base_paths,
                        sealed.base.facts(),
                        recipe,
                        &sealed.site_recipes.iter().collect::<Vec<_>>(),
                        &config,
                    );
                    journal.tell_tests(&results);
                    not_booted(stopped, &results)
                }
                _ => stopped,
            })
        },
    )?;
    let trial = Trial {
        inspected: &inspected,
        machines,
        template: &template,
        recipe,
        site_recipes: sealed.site_recipes.iter().collect(),
        config: &config,
        at_once: at_once(site),
        deadline,
    };
    let (mut machine, facts, mut tests, booted) = journal.stage(
        Stage::SecurityTests,
        |(_, _, results, _): &(_, _, Vec<_>, _)| passed(results),
        |journal| {
            within(deadline, "the site's tests", |left| {
                let interruption = journal.interruption();
                let (changes, looked) = thread::scope(|scope| {
                    let compared = scope.spawn(|| compare(&trial.booted_disk(), Left::Frozen, site));
                    let looked = trial.look(left, interruption);
                    let compared = compared.join();
                    (compared.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), looked)
                });
                let Looked { machine, facts, contents } = looked?;
                let booted = Booted { changes: changes?.0, contents };
                let results = trial.judge(&facts, &booted);
                journal.tell_tests(&results);
                all_passed(&results)?;
                Ok((machine, serde_json::to_vec(&facts).map_err(Stopped::internal)?, results, booted))
            })
        },
    )?;
    let (of_vo, afterwards) = journal.stage(
        Stage::FunctionTests,
        |(results, _): &(Vec<_>, Vec<_>)| passed(results),
        |journal| {
            let ended = trial.function_tests(&booted, journal.interruption())?;
            let mut results = Vec::new();
            let mut afterwards = Vec::new();
            for FunctionTested { result, said, after } in ended {
                journal.tell_output(said);
                results.push(result);
                afterwards.push(after);
            }
            journal.tell_tests(&results);
            all_passed(&results)?;
            Ok((results, afterwards))
        },
    )?;
    tests.extend(of_vo);
    let later = journal.stage(
        Stage::LookAgain,
        |_: &Vec<u8>| "as before".to_owned(),
        |journal| {
            // What waits for a moment before it opens a port has had one; what waits for a test has had that.
            let facts = within(deadline, "the second look", |_| machine.facts().map_err(unseen))?;
            let now = trial.judge_running(&facts, &booted);
            for results in afterwards.iter().chain([&now]) {
                if results.iter().any(|result| !result.passed()) {
                    journal.tell_tests(results);
                }
                all_passed(results)?;
            }
            serde_json::to_vec(&facts).map_err(Stopped::internal)
        },
    )?;
    drop(machine);
    let Inspected { sealed, files, comparison, .. } = inspected;
    let files = serde_json::to_vec(&files).map_err(Stopped::internal)?;
    let disk =
        DiskReport { changes: comparison.to_json_lines(), files, booted: booted.changes.to_json_lines() };
    Ok(Tested { sealed, disk, tests, template, facts, later, suite })
}

/// Most clones that test at a time, however many processors there are: each may hold as much of the host as a machine is given.
const MOST_AT_ONCE: usize = 4;

/// The security tests' clone has one of the site's users already.
fn at_once(site: &Site) -> usize {
    let users = usize::try_from(site.config().executor.uids.get()).unwrap_or(usize::MAX);
    MOST_AT_ONCE.min(users.saturating_sub(1)).max(1)
}

/// What clones are made of and judged by.
struct Trial<'a, 'm> {
    inspected: &'a Inspected,
    machines: &'a Machines<'m>,
    template: &'a Template,
    recipe: &'a Recipe,
    site_recipes: Vec<&'a Recipe>,
    config: &'a SuiteConfig,
    /// Clones at a time, beside the one of the security tests.
    at_once: usize,
    /// When the time for the authorization is over.
    deadline: Instant,
}

/// The template's disk.
struct Booted {
    /// What differs from the base.
    changes: Comparison,
    /// What a clone of it has at the paths that are judged by their content.
    contents: BTreeMap<String, Vec<u8>>,
}

/// A clone that is looked at, and what it shows.
struct Looked {
    machine: Machine,
    facts: Facts,
    contents: BTreeMap<String, Vec<u8>>,
}

/// A function test that was run in a clone of its own.
struct FunctionTested {
    result: TestResult,
    said: String,
    /// The site's tests of that clone afterwards. Its facts are not kept: they can be large, and there are many clones.
    after: Vec<TestResult>,
}

impl Trial<'_, '_> {
    fn clone_named(
        &self,
        name: &str,
        limit: Duration,
        interruption: &Interruption,
    ) -> Result<Machine, Stopped> {
        let sealed = &self.inspected.sealed;
        let original = Original {
            base: &sealed.base,
            disk: sealed.disk(&["clone"]),
            template: self.template,
            manifest: self.recipe.manifest(),
        };
        self.machines.testing(name, original, limit, interruption)
    }

    /// The disk as the paused machine left it, which every clone goes on with.
    fn booted_disk(&self) -> DiskSpec {
        let mut disk = self.inspected.sealed.disk(&[]);
        disk.layers.extend(self.template.overlay());
        disk
    }

    /// A clone in which nothing of the VO was run but its own boot, and what it shows.
    fn look(&self, limit: Duration, interruption: &Interruption) -> Result<Looked, Stopped> {
        let mut machine = self.clone_named("test", limit, interruption)?;
        let facts = machine.facts().map_err(unseen)?;
        let wanted = suite::contents_wanted(self.recipe, &self.site_recipes, self.config);
        let contents = contents(&wanted, |path, limit| machine.read_file(path, limit))?;
        Ok(Looked { machine, facts, contents })
    }

    fn seen<'a>(&'a self, facts: &'a Facts, booted: &'a Booted) -> Seen<'a> {
        let Booted { changes, contents } = booted;
        let booted = Sight { facts, contents, changes };
        Seen { booted, sealed: self.inspected.sight(), base_paths: &self.inspected.base_paths }
    }

    /// Every test of the site.
    fn judge(&self, facts: &Facts, booted: &Booted) -> Vec<TestResult> {
        let (seen, base) = (self.seen(facts, booted), self.inspected.sealed.base.facts());
        suite::judge(&seen, base, self.recipe, &self.site_recipes, self.config)
    }

    /// The site's tests of a machine that has run for a while.
    fn judge_running(&self, facts: &Facts, booted: &Booted) -> Vec<TestResult> {
        let (seen, base) = (self.seen(facts, booted), self.inspected.sealed.base.facts());
        suite::judge_running(&seen, base, self.recipe, &self.site_recipes, self.config)
    }

    /// All function tests in the order of the manifest, run side by side: each needs a processor, a user and the machine's memory.
    fn function_tests(
        &self,
        booted: &Booted,
        interruption: &Interruption,
    ) -> Result<Vec<FunctionTested>, Stopped> {
        let tests = &self.recipe.manifest().tests;
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let at_once = processors.min(self.at_once).min(tests.len());
        let next = AtomicUsize::new(0);
        let take = || {
            let mut ended = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(test) = tests.get(number) else { return ended };
                let tested = self.function_test(number, test, booted, interruption);
                if tested.is_err() {
                    // A machine was lost, or the time is over: what was not begun need not be.
                    next.store(tests.len(), Ordering::Relaxed);
                }
                ended.push((number, tested));
            }
        };
        let mut ended: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(take)).collect();
            let joined = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.flatten().collect()
        });
        // The first test's error is told, whichever thread came first.
        ended.sort_by_key(|(number, _)| *number);
        ended.into_iter().map(|(_, tested)| tested).collect()
    }

    fn function_test(
        &self,
        number: usize,
        test: &FunctionTest,
        booted: &Booted,
        interruption: &Interruption,
    ) -> Result<FunctionTested, Stopped> {
        let name = format!("{FUNCTION_SUITE}/{}", test.name);
        within(self.deadline, &name, |limit| {
            let mut machine = self.clone_named(&format!("test-{number}"), limit, interruption)?;
            let (result, said) = run_function_test(&mut machine, test, left(self.deadline))?;
            if !result.passed() && left(self.deadline).is_zero() {
                return Err(too_late(&name).details(result.detail.join("\n")));
            }
            let facts = machine.facts().map_err(unseen)?;
            Ok(FunctionTested { result, said, after: self.judge_running(&facts, booted) })
        })
    }
}

/// What is left until then.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Does `work` with the time that is left. A machine that is lost when none is left was ended for that, and not by its guest.
fn within<T>(
    deadline: Instant,
    what: &str,
    work: impl FnOnce(Duration) -> Result<T, Stopped>,
) -> Result<T, Stopped> {
    let limit = left(deadline);
    if limit.is_zero() {
        return Err(too_late(what));
    }
    work(limit).map_err(|stopped| match stopped.code {
        Code::ControlLost | Code::MachineFailed if left(deadline).is_zero() => {
            too_late(what).details(stopped.details)
        }
        _ => stopped,
    })
}

fn too_late(what: &str) -> Stopped {
    let message = format!(
        "{what}: not done, and the time for one authorization (authorize_seconds in site.toml) is over"
    );
    Stopped::new(Code::TestFailed, message)
        .hint("have fewer or quicker steps and function tests, or ask the site for more time")
}

/// A machine of which the agent cannot tell the facts was not tested, and skipped is not passed.
fn unseen(error: HarnessError) -> Stopped {
    match &error {
        HarnessError::Agent { .. } => Stopped::new(Code::TestFailed, &error),
        _ => Stopped::from(error),
    }
}

/// A machine did not boot from a sealed disk that these tests judged.
fn not_booted(stopped: Stopped, results: &[TestResult]) -> Stopped {
    match all_passed(results) {
        Ok(()) => stopped,
        Err(failed) => {
            let details =
                format!("{}and it did not boot: {}\n{}", failed.details, stopped.message, stopped.details);
            failed.details(details)
        }
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
    use crate::suite::TestOutcome;

    #[test]
    fn a_machine_that_cannot_be_seen_fails_its_tests_and_a_lost_one_is_lost() {
        let (machine, console) = ("test".to_owned(), String::new());
        let error = AgentError { kind: AgentErrorKind::TooLarge, message: "too long\nby far".into() };
        let refused = HarnessError::Agent { machine: machine.clone(), request: "facts", error };
        assert_eq!(unseen(refused).code, Code::TestFailed);
        let lost = HarnessError::ControlLost { machine, reason: "a breach".into(), console };
        assert_eq!(unseen(lost).code, Code::ControlLost);
    }

    #[test]
    fn a_disk_that_does_not_boot_and_fails_its_tests_is_refused_by_them() {
        let lost = || Stopped::new(Code::ControlLost, "the guest ended by itself").details("its console");
        let result = |name: &str, detail: &[&str]| TestResult {
            suite: suite::SUITE.to_owned(),
            name: name.to_owned(),
            result: if detail.is_empty() { TestOutcome::Passed } else { TestOutcome::Failed },
            seconds: 0.0,
            detail: detail.iter().map(|line| (*line).to_owned()).collect(),
        };
        let passed = not_booted(lost(), &[result("programs", &[])]);
        assert_eq!((passed.code, passed.details.as_str()), (Code::ControlLost, "its console"));
        let failed = not_booted(lost(), &[result("configuration", &["/usr/sbin/tomoyo-init: is new"])]);
        assert_eq!(failed.code, Code::TestFailed);
        for said in
            ["/usr/sbin/tomoyo-init: is new\n", "did not boot: the guest ended by itself\nits console"]
        {
            assert!(failed.details.contains(said), "{}", failed.details);
        }
    }

    #[test]
    fn a_test_that_the_time_is_over_for_has_failed_and_no_machine_was_lost() {
        let lost = || Stopped::new(Code::ControlLost, "it reached its time limit").details("last line");
        let is_too_late = |stopped: &Stopped| {
            assert_eq!(stopped.code, Code::TestFailed);
            assert!(stopped.message.starts_with("vo/slow: "), "{stopped:?}");
            assert!(stopped.message.contains("authorize_seconds"), "{stopped:?}");
        };
        let not_begun = within(Instant::now(), "vo/slow", |_| -> Result<(), _> { unreachable!() });
        is_too_late(&not_begun.unwrap_err());

        let ended = within(Instant::now() + Duration::from_millis(50), "vo/slow", |limit| {
            thread::sleep(limit);
            Err::<(), _>(lost())
        });
        let ended = ended.unwrap_err();
        is_too_late(&ended);
        assert_eq!(ended.details, "last line");

        let later = Instant::now() + Duration::from_secs(3600);
        assert_eq!(within(later, "vo/slow", |_| Err::<(), _>(lost())).unwrap_err().code, Code::ControlLost);
        assert!(within(later, "vo/slow", |limit| Ok(limit > Duration::ZERO)).unwrap());
    }
}
