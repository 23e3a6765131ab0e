//! Recipes that the scan does not deny, and that choose at run time what they leave behind: ports, paths, names. The site's
//! tests find each thing by what it is.
//!
//! Each variant is a script below `tests/sneaky`, which prints `left VARIANT OBJECT` for each thing that a test must name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use end_to_end::command::Run;
use end_to_end::git::Daemon;
use end_to_end::site::{Site, project};
use end_to_end::vo::Vo;
use serde_json::Value;

/// A way to leave something behind.
struct Variant {
    name: &'static str,
    /// Files below `tests/sneaky`; the first is the script that does it.
    files: &'static [&'static str],
    /// Steps of the manifest; without any, the script is run once.
    steps: &'static str,
    /// The site's tests that must name what it left; none is a gap that the threat model tells.
    refused_by: &'static [&'static str],
    /// What they must name beyond what the script says: the part that is known before.
    named: &'static [&'static str],
}

const fn script(
    name: &'static str,
    files: &'static [&'static str],
    refused_by: &'static [&'static str],
) -> Variant {
    Variant { name, files, steps: "", refused_by, named: &[] }
}

/// All that it starts is declared; the port is chosen at every boot.
const PORT: &str = r#"
[[step]]
file = { path = "/usr/local/lib/sneaky/port.sh", source = "port.sh" }
[[step]]
file = { path = "/usr/local/lib/sneaky/answer.pl", source = "answer.pl" }
[[step]]
file = { path = "/etc/systemd/system/declared.service", source = "port.service" }
[[step]]
service = { name = "declared", enabled = true }
"#;

/// The sealed disk is as the base has it; what the boot makes of it is not.
const BOOT: &str = r#"
[[step]]
file = { path = "/usr/local/lib/sneaky/boot.sh", source = "boot.sh" }
[[step]]
file = { path = "/etc/systemd/system/declared-too.service", source = "boot.service" }
[[step]]
service = { name = "declared-too", enabled = true }
"#;

const VARIANTS: [Variant; 16] = [
    Variant {
        name: "port",
        files: &["port.sh", "answer.pl", "port.service"],
        steps: PORT,
        refused_by: &["site/listening"],
        named: &["/var/lib/port-"],
    },
    script("unit", &["unit.sh"], &["site/units"]),
    script("cron", &["cron.sh"], &["site/cron"]),
    script("user", &["user.sh"], &["site/users"]),
    script("key", &["key.sh"], &["site/authorized-keys"]),
    script("setuid", &["setuid.sh"], &["site/setuid"]),
    script("module", &["module.sh"], &["site/modules", "site/hooks"]),
    script("capability", &["capability.pl"], &["site/capabilities"]),
    script("package", &["package.sh"], &["site/units"]),
    script("path", &["path.sh"], &["site/programs"]),
    script("undo", &["undo.sh"], &["site/site-files"]),
    script("link", &["link.sh"], &["site/programs"]),
    script("helper", &["helper.sh"], &["site/configuration"]),
    script("sshd", &["sshd.sh"], &["site/sshd", "site/configuration"]),
    script("wide", &["wide.sh"], &["site/units"]),
    Variant {
        name: "boot",
        files: &["boot.sh", "boot.service"],
        steps: BOOT,
        refused_by: &["site/programs"],
        named: &["/usr/sbin/e2"],
    },
];

#[test]
fn all_at_once_are_refused_each_by_its_test() {
    let world = World::new();
    let all: Vec<&Variant> = VARIANTS.iter().collect();
    let refused = world.refused("all", &all);
    every_object_is_named(&all, &refused);
}

/// Each by itself: nothing that another one left helps to refuse it.
#[test]
#[ignore = "an authorization for each takes a quarter of an hour: make soak"]
fn each_alone_is_refused() {
    let world = World::new();
    let mut table = String::new();
    for variant in &VARIANTS {
        let refused = world.refused(variant.name, &[variant]);
        every_object_is_named(&[variant], &refused);
        let tests: Vec<_> = refused.failed_tests().into_keys().collect();
        let _ = writeln!(table, "| {} | {} | {:.0} s |", variant.name, tests.join(", "), refused.seconds());
    }
    println!("{table}");
}

/// A VO and a site that trusts it.
struct World {
    _folder: tempfile::TempDir,
    vo: Vo,
    site: Site,
    daemon: Daemon,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vo = Vo::found("atlas", &folder.path().join("vo"));
        let site = Site::found("test-site", folder.path());
        let _ = site.trust(&vo).done();
        let _ = site.base().done();
        let daemon = Daemon::serve(&folder.path().join("vo"));
        Self { _folder: folder, vo, site, daemon }
    }

    /// A recipe of these variants gets past the scan and is refused by tests.
    fn refused(&self, name: &str, variants: &[&Variant]) -> Run {
        self.write(name, variants);
        let _ = self.vo.sign(name).done();
        self.vo.recipes.commit(name);
        let run = self.site.run(["authorize", &self.daemon.url("recipes"), "--path", name]);
        let run = run.refused("TEST_FAILED");
        assert_eq!(run.json["stage"], "security-tests", "{:#}", run.json);
        run
    }

    fn write(&self, name: &str, variants: &[&Variant]) {
        let folder = self.vo.recipe(name);
        fs::create_dir_all(&folder).unwrap();
        let mut manifest = format!(
            "[recipe]\nname = \"atlas/{name}\"\nversion = \"1.0.0\"\nsummary = \"Sneaky\"\nbase = [\"debian-12\"]\n"
        );
        for variant in variants {
            for file in variant.files {
                fs::copy(project().join("tests/sneaky").join(file), folder.join(file)).unwrap();
            }
            if variant.steps.is_empty() {
                let (script, name) = (variant.files[0], variant.name);
                let step = format!(
                    "[[step]]\nrun = {{ script = \"{script}\", creates = \"/var/lib/sneaky/{name}\" }}\n"
                );
                manifest.push_str(&step);
            }
            manifest.push_str(variant.steps);
        }
        manifest.push_str("[[test]]\nname = \"never run\"\nrun = \"true\"\n");
        fs::write(folder.join("recipe.toml"), manifest).unwrap();
    }
}

/// What the scripts of a run say they left, and what is known before, stands in what the tests found.
fn every_object_is_named(variants: &[&Variant], refused: &Run) {
    let failed = refused.failed_tests();
    let left = left(refused);
    for variant in variants {
        let said = left.get(variant.name).map(Vec::as_slice).unwrap_or_default();
        let known = variant.named.iter().map(ToString::to_string);
        let objects: Vec<String> = said.iter().cloned().chain(known).collect();
        assert!(!objects.is_empty(), "{} left nothing", variant.name);
        for test in variant.refused_by {
            assert!(failed.contains_key(*test), "{}: {test} passed: {failed:#?}", variant.name);
        }
        let found: Vec<&String> = variant.refused_by.iter().flat_map(|test| &failed[*test]).collect();
        for object in objects {
            let named = found.iter().any(|line| line.contains(&object));
            assert!(named, "{}: {object} is not named: {failed:#?}", variant.name);
        }
    }
}

/// What the scripts of a run say they left, by variant, from the site's log.
fn left(run: &Run) -> BTreeMap<String, Vec<String>> {
    let log = fs::read_to_string(run.json["log"].as_str().expect("the log's path")).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let output: String = events
        .filter(|event| event["event"] == "output")
        .map(|event| event["text"].as_str().unwrap().to_owned())
        .collect();
    let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in output.lines() {
        if let [_, variant, object] = line.splitn(3, ' ').collect::<Vec<_>>()[..]
            && line.starts_with("left ")
        {
            left.entry(variant.to_owned()).or_default().push(object.to_owned());
        }
    }
    left
}
