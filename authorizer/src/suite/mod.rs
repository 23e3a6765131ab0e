//! The site's security tests: what the static agent saw of a clone of its fresh boot, what a clean guest saw of its disk, and
//! what the host found changed on it, judged against the pristine base and what the recipes declare.
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

use std::collections::BTreeMap;
use std::time::Instant;

use disk::{Change, Comparison, Kind};
use guest::facts::Facts;
use recipe_spec::Recipe;
use serde::{Deserialize, Serialize};

pub use checks::{
    AllowedSocket, AttributesConfig, ConfigurationConfig, FirewallConfig, GroupsConfig, HelpersConfig,
    HooksConfig, KernelConfig, ListeningConfig, ModulesConfig, OwnershipConfig, PathsConfig, ProgramsConfig,
    Rendered, SshdConfig, UnitsConfig,
};
pub use config::{SuiteConfig, SuiteConfigError};
pub use declarations::Declarations;
pub use pattern::{Pattern, PatternError};

use checks::{CHECKS, Check, Sees};

use complaints::Complaints;
use declarations::{By, Standing};

/// Longest content that is read of a file which the site's recipes make, in bytes.
const MAX_CONTENT: u64 = 1 << 20;

/// The files of a sealed disk that are judged by their content, and the longest that is read of each, in bytes.
#[must_use]
pub fn contents_wanted(vo: &Recipe, site: &[&Recipe], config: &SuiteConfig) -> BTreeMap<String, u64> {
    let declared = Declarations::of(vo, site);
    let made = declared.site_files().map(|(path, _)| path);
    let rendered = config.rendered.iter().map(|rendered| rendered.path.as_str());
    let mut wanted: BTreeMap<_, _> =
        made.chain(rendered).map(|path| (path.to_owned(), MAX_CONTENT)).collect();
    wanted.extend(checks::users::SUBORDINATE.map(|path| (path.to_owned(), MAX_CONTENT)));
    wanted.insert(checks::loader_cache::PATH.to_owned(), checks::loader_cache::MAX_BYTES);
    wanted
}

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

/// What was seen of a machine under test: twice its files, for a boot writes some.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// After its boot: a clone of it, as the agent in it sees itself, and the disk that the paused machine left.
    pub booted: Sight<'a>,
    /// Before anything of it ran: the sealed disk, as a nano guest sees it.
    pub sealed: Sight<'a>,
    /// Every path of the base.
    pub base_paths: &'a [String],
}

/// One sight of a machine and its disk.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// What an agent of ours tells.
    pub facts: &'a Facts,
    /// What lies at the paths of [`contents_wanted`], as far as it could be read.
    pub contents: &'a BTreeMap<String, Vec<u8>>,
    /// What differs on its disk from the base, as the host sees it without mounting it.
    pub changes: &'a Comparison,
}

/// Runs every check. `base` is the pristine base, freshly booted; `vo` the recipe under test and `site` the site's recipes in
/// the order they were applied.
///
/// The result holds every check exactly once, in a fixed order. A check of files passes only if it passes on each sight of them.
#[must_use]
pub fn judge(
    seen: &Seen<'_>,
    base: &Facts,
    vo: &Recipe,
    site: &[&Recipe],
    config: &SuiteConfig,
) -> Vec<TestResult> {
    let sights = [(When::Booted, seen.booted), (When::Sealed, seen.sealed)];
    results(CHECKS.iter(), &sights, seen.base_paths, base, &Declarations::of(vo, site), config)
}

/// Runs the checks of files on the sealed disk alone, of a machine that nothing else is seen of.
#[must_use]
pub fn judge_sealed(
    sealed: Sight<'_>,
    base_paths: &[String],
    base: &Facts,
    vo: &Recipe,
    site: &[&Recipe],
    config: &SuiteConfig,
) -> Vec<TestResult> {
    let checks = CHECKS.iter().filter(|check| check.sees == Sees::Files);
    results(checks, &[(When::Sealed, sealed)], base_paths, base, &Declarations::of(vo, site), config)
}

/// Runs the checks of the running machine once more, on what was seen of it later: what it opened or loaded meanwhile.
#[must_use]
pub fn judge_running(
    seen: &Seen<'_>,
    base: &Facts,
    vo: &Recipe,
    site: &[&Recipe],
    config: &SuiteConfig,
) -> Vec<TestResult> {
    let checks = CHECKS.iter().filter(|check| check.sees == Sees::Machine);
    let sights = [(When::Booted, seen.booted)];
    results(checks, &sights, seen.base_paths, base, &Declarations::of(vo, site), config)
}

fn results<'c>(
    checks: impl Iterator<Item = &'c Check>,
    sights: &[(When, Sight<'_>)],
    base_paths: &[String],
    base: &Facts,
    declared: &Declarations,
    config: &SuiteConfig,
) -> Vec<TestResult> {
    checks
        .map(|check| {
            let start = Instant::now();
            let mut complaints = Complaints::default();
            let given =
                || sights.iter().filter(|(when, _)| check.sees == Sees::Files || *when == When::Booted);
            for list in check.lists {
                let all = given().map(|(when, sight)| (sight.facts, when.whose()));
                for (facts, whose) in all.chain([(base, "the base")]) {
                    if facts.truncated.iter().any(|cut| cut.split(':').next() == Some(list)) {
                        complaints.add(
                            list,
                            format_args!("not seen whole on {whose}"),
                            "have fewer of them, or make them readable",
                        );
                    }
                }
            }
            for (when, sight) in given() {
                let (when, Sight { facts: now, contents, changes }) = (*when, *sight);
                let evidence = Evidence { when, now, contents, changes, base, base_paths, declared };
                (check.run)(&evidence, config, &mut complaints);
            }
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

/// When a machine was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Before it ran.
    Sealed,
    /// After its boot.
    Booted,
}

impl When {
    /// What was seen, for people.
    fn whose(self) -> &'static str {
        match self {
            Self::Sealed => "its disk",
            Self::Booted => "this machine",
        }
    }
}

/// What a check looks at: one sight of the machine, the base, and what is declared.
struct Evidence<'a> {
    when: When,
    now: &'a Facts,
    /// What lies there at the paths of [`contents_wanted`].
    contents: &'a BTreeMap<String, Vec<u8>>,
    changes: &'a Comparison,
    base: &'a Facts,
    base_paths: &'a [String],
    declared: &'a Declarations,
}

impl Evidence<'_> {
    /// How a file with this digest (or this link's target) stands to what is declared. A link is as good as what it leads to.
    fn standing(&self, path: &str, sha256: Option<&str>, link: Option<&str>) -> Standing {
        match (self.declared.standing(path, sha256, link), link) {
            (Standing::Declared(By::Vo), Some(target)) if !self.leads_to_known(path, target) => {
                Standing::Unseen
            }
            (standing, _) => standing,
        }
    }

    /// Whether a link at `path` leads to what the base has there, or to a file that the recipes hold.
    fn leads_to_known(&self, path: &str, target: &str) -> bool {
        let Some(target) = resolved(path, target) else { return false };
        let changes = &self.changes.changes;
        match changes.iter().find(|change| change.path == target) {
            _ if target == "/dev/null" => true,
            None => {
                self.base_paths.contains(&target)
                    && !changes.iter().any(|change| pattern::is_below(&change.path, &target))
            }
            Some(Change { after: Some(after), .. }) if after.kind == Kind::File => {
                let digest = after.sha256.map(|digest| digest.to_hex());
                let standing = self.declared.standing(&target, digest.as_deref(), None);
                matches!(standing, Standing::Declared(_))
            }
            Some(_) => false,
        }
    }
}

/// Where a link leads by its text, with the folders that the base has as links into `/usr`.
fn resolved(path: &str, target: &str) -> Option<String> {
    let folder = if target.starts_with('/') { "" } else { path.rsplit_once('/')?.0 };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let merged = matches!(parts.first(), Some(&"bin" | &"sbin" | &"lib" | &"lib64"));
    Some(format!("{}/{}", if merged { "/usr" } else { "" }, parts.join("/")))
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
                    machine.files = Some(machine.now.clone());
                    let results = machine.judge("", "");
                    let failed = |name| results.iter().any(|result| result.name == name && !result.passed());
                    assert!(failed(check.name), "{cut}, and {} passed", check.name);
                    assert!(failed("complete"), "{cut}, and complete passed");
                }
            }
        }
    }

    #[test]
    fn what_a_machine_opens_later_is_seen_later() {
        let mut machine = Machine::base();
        assert!(machine.judge_running().iter().all(TestResult::passed));
        machine.now.listening.push(fixture::socket("tcp", "0.0.0.0", 4444));
        machine.now.setuid.push(fixture::file_mode("/run/x", 0o4755, "file"));
        let failed: Vec<_> = machine.judge_running().into_iter().filter(|result| !result.passed()).collect();
        let names: Vec<_> = failed.iter().map(|result| result.name.as_str()).collect();
        assert_eq!(names, ["listening"], "files were judged before");
    }

    #[test]
    fn what_only_one_sight_of_the_files_shows_fails_too() {
        let mut machine = Machine::base();
        machine.files = Some(machine.now.clone());
        machine.passes("setuid", "", "");
        machine.files.as_mut().unwrap().setuid.push(fixture::file_mode("/opt/x", 0o4755, "file"));
        machine.fails("setuid", "", "", "/opt/x");
        std::mem::swap(&mut machine.now, machine.files.as_mut().unwrap());
        machine.fails("setuid", "", "", "/opt/x");
        let lines = machine.judge("", "");
        let setuid = lines.iter().find(|result| result.name == "setuid").unwrap();
        assert_eq!(setuid.detail.len(), 1, "told once: {:?}", setuid.detail);
    }

    #[test]
    fn what_the_boot_makes_of_the_disk_is_judged_as_the_sealed_disk_is() {
        use fixture::{change, node};
        let mut machine = Machine::base();
        let with = |changes: &[disk::Change]| {
            let sealed = Machine::base().disk;
            let all = sealed.changes.iter().chain(changes).cloned().collect();
            Some(Comparison { changes: all, ..sealed })
        };
        machine.booted = with(&[change("/usr/bin/ls", Some(node("a")), Some(node("b")))]);
        machine.fails("programs", "", "", "/usr/bin/ls");
        assert!(machine.judge_sealed().iter().all(TestResult::passed));
        machine.booted = with(&[change("/usr/sbin/request-key", None, Some(node("a")))]);
        machine.fails("configuration", "", "", "/usr/sbin/request-key");
        machine.booted = Some(Comparison { changes: Vec::new(), ..Machine::base().disk });
        machine.fails("site-files", "", "", "/etc/nftables.conf");
        machine.booted = with(&[]).map(|booted| Comparison {
            outside: disk::Outside::Different { first_sector: 1, count: 1 },
            ..booted
        });
        machine.fails("outside", "", "", "sector 1");
    }

    #[test]
    fn a_disk_that_does_not_boot_is_judged_by_itself() {
        let mut machine = Machine::base();
        let sealed = machine.judge_sealed();
        assert!(sealed.iter().all(TestResult::passed), "{sealed:?}");
        assert!(
            sealed.len() < machine.judge("", "").len(),
            "what only a running machine shows is not judged"
        );
        let helper = fixture::change("/usr/sbin/tomoyo-init", None, Some(fixture::node("x")));
        machine.disk.changes.push(helper);
        machine.files = Some(machine.now.clone());
        machine.files.as_mut().unwrap().truncated.push("units".to_owned());
        let failed: Vec<_> = machine.judge_sealed().into_iter().filter(|result| !result.passed()).collect();
        let names: Vec<_> = failed.iter().map(|result| result.name.as_str()).collect();
        assert!(names.contains(&"configuration") && names.contains(&"units"), "{names:?}");
    }

    #[test]
    fn what_names_a_machine_is_written_by_its_boot_and_by_nobody_before() {
        use disk::{Kind, Node};
        use fixture::{change, node};
        const PATH: &str = "/etc/machine-id";
        const JUDGES: [&str; 3] = ["configuration", "ownership", "site-files"];
        let step = "[[step]]\nfile = { path = \"/etc/machine-id\", content = \"\" }\n";
        let with = |after: Node| {
            let mut disk = Machine::base().disk;
            disk.changes.push(change(PATH, Some(node("uninitialized")), Some(after)));
            disk
        };
        let named = || Node { mode: 0o444, ..node("1") };
        let mut machine = Machine { disk: with(node("")), booted: Some(with(named())), ..Machine::base() };
        for judge in JUDGES {
            machine.passes(judge, "", step);
        }
        for other in [
            Node { mode: 0o466, ..node("1") },
            Node { uid: 1, ..node("1") },
            Node { kind: Kind::Link, sha256: None, target: Some("/x".to_owned()), ..node("") },
        ] {
            machine.booted = Some(with(other));
            machine.fails("site-files", "", step, PATH);
        }
        machine = Machine { disk: with(named()), ..Machine::base() };
        for judge in ["configuration", "ownership"] {
            machine.fails(judge, "", "", PATH);
        }
        machine.fails("site-files", "", step, PATH);
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
