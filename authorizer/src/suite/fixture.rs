//! Machines and recipes for the checks' tests.

use std::collections::BTreeMap;

use disk::{Change, Comparison, Kind, Node, Outside};
use guest::facts::{Facts, FileMode, Group, Password, SmallFile, Socket, UnitFile, User};
use recipe_spec::{Limits, Payload, Recipe, Sha256Digest};

use super::{Seen, Sight, SuiteConfig, TestResult, judge, judge_running, judge_sealed};

/// A machine under test and the base it came from.
pub(super) struct Machine {
    pub(super) base: Facts,
    pub(super) now: Facts,
    /// Its disk as a clean guest sees it, if that is anything else.
    pub(super) files: Option<Facts>,
    /// What is changed on its sealed disk.
    pub(super) disk: Comparison,
    /// What is changed on its disk after the boot, if that is anything else.
    pub(super) booted: Option<Comparison>,
    pub(super) base_paths: Vec<String>,
    /// What was read of it.
    pub(super) contents: BTreeMap<String, Vec<u8>>,
    /// What was read in the machine, if that is anything else.
    pub(super) live_contents: Option<BTreeMap<String, Vec<u8>>>,
}

impl Machine {
    /// A small base, and a machine that only has the site's settings for sshd and what the site makes of no declared port.
    pub(super) fn base() -> Self {
        let base = Facts {
            users: vec![User { home: "/root".to_owned(), shell: "/bin/bash".to_owned(), ..user("root", 0) }],
            groups: vec![group("root", 0, &[])],
            units: vec![unit("/usr/lib/systemd/system/cron.service", "[Service]\n")],
            modules: vec!["virtio_blk".to_owned()],
            ..Facts::default()
        };
        let sshd = "PermitRootLogin no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitEmptyPasswords no\n";
        let firewall = Self::config().firewall.listing.replace("{listen}", "");
        let now = Facts { sshd: vec![small_file("/etc/ssh/sshd_config", sshd)], firewall, ..base.clone() };
        let made = Self::config().rendered.into_iter().map(|rendered| {
            change(&rendered.path, Some(node("")), Some(node(&rendered.text.replace("{listen}", ""))))
        });
        let disk = Comparison { files: 1, changes: made.collect(), outside: Outside::Equal };
        Self {
            base,
            now,
            files: None,
            disk,
            booted: None,
            base_paths: Vec::new(),
            contents: BTreeMap::new(),
            live_contents: None,
        }
    }

    /// The baseline suite.
    pub(super) fn config() -> SuiteConfig {
        SuiteConfig::parse(include_str!("../../../site-recipes/suites/baseline.toml")).unwrap()
    }

    /// Judges with the baseline suite; the recipes are given as what follows `[recipe]`.
    pub(super) fn judge(&self, vo: &str, site: &str) -> Vec<TestResult> {
        let config = Self::config();
        judge(&self.seen(), &self.base, &recipe("vo/x", vo), &[&recipe("site/x", site)], &config)
    }

    /// As [`Machine::judge`], at a later look at the running machine; nothing is declared.
    pub(super) fn judge_running(&self) -> Vec<TestResult> {
        let config = Self::config();
        judge_running(&self.seen(), &self.base, &recipe("vo/x", ""), &[&recipe("site/x", "")], &config)
    }

    /// What its sealed disk shows by itself; nothing is declared.
    pub(super) fn judge_sealed(&self) -> Vec<TestResult> {
        let seen = self.seen();
        let recipes = (recipe("vo/x", ""), recipe("site/x", ""));
        judge_sealed(seen.sealed, seen.base_paths, &self.base, &recipes.0, &[&recipes.1], &Self::config())
    }

    fn seen(&self) -> Seen<'_> {
        let booted = Sight {
            facts: &self.now,
            contents: self.live_contents.as_ref().unwrap_or(&self.contents),
            changes: self.booted.as_ref().unwrap_or(&self.disk),
        };
        let facts = self.files.as_ref().unwrap_or(&self.now);
        let sealed = Sight { facts, contents: &self.contents, changes: &self.disk };
        Seen { booted, sealed, base_paths: &self.base_paths }
    }

    fn result(&self, check: &str, vo: &str, site: &str) -> TestResult {
        self.judge(vo, site).into_iter().find(|result| result.name == check).expect(check)
    }

    #[track_caller]
    pub(super) fn passes(&self, check: &str, vo: &str, site: &str) {
        let result = self.result(check, vo, site);
        assert!(result.passed(), "{check}: {:?}", result.detail);
    }

    #[track_caller]
    pub(super) fn fails(&self, check: &str, vo: &str, site: &str, with: &str) {
        let result = self.result(check, vo, site);
        assert!(!result.passed(), "{check} passed, and should say {with}");
        assert!(result.detail.iter().any(|line| line.contains(with)), "{check}: {:?}", result.detail);
    }
}

/// A recipe with this text after its `[recipe]`.
fn recipe(name: &str, rest: &str) -> Recipe {
    let step = if rest.contains("[[step]]") { "" } else { "[[step]]\ndirectory = { path = \"/srv/x\" }\n" };
    let manifest = format!(
        "[recipe]\nname = \"{name}\"\nversion = \"1.0.0\"\nsummary = \"x\"\nbase = [\"debian-12\"]\n\n{rest}\n{step}"
    );
    let mut payload = Payload::builder(&Limits::STANDARD);
    payload.add("recipe.toml", manifest.into_bytes(), false).unwrap();
    match Recipe::from_payload(payload.finish().unwrap(), &Limits::STANDARD) {
        Ok(recipe) => recipe,
        Err(error) => panic!("{}", error.report(false)),
    }
}

pub(super) fn socket(protocol: &str, address: &str, port: u16) -> Socket {
    Socket { protocol: protocol.to_owned(), address: address.to_owned(), port, uid: 0, program: None }
}

pub(super) fn file_mode(path: &str, mode: u32, kind: &str) -> FileMode {
    FileMode { path: path.to_owned(), mode, uid: 0, gid: 0, kind: kind.to_owned() }
}

/// A regular file with this content.
pub(super) fn node(text: &str) -> Node {
    Node {
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: text.len() as u64,
        sha256: Some(Sha256Digest::of(text.as_bytes())),
        target: None,
        device: None,
        links: 1,
        flags: 0,
        attributes: Default::default(),
    }
}

pub(super) fn change(path: &str, before: Option<Node>, after: Option<Node>) -> Change {
    Change { path: path.to_owned(), before, after }
}

pub(super) fn user(name: &str, uid: u32) -> User {
    User {
        name: name.to_owned(),
        uid,
        gid: uid,
        home: format!("/home/{name}"),
        shell: "/usr/sbin/nologin".to_owned(),
        password: Password::Locked,
    }
}

pub(super) fn group(name: &str, gid: u32, members: &[&str]) -> Group {
    Group {
        name: name.to_owned(),
        gid,
        members: members.iter().map(|&member| member.to_owned()).collect(),
        password: Password::Locked,
        administrators: Vec::new(),
    }
}

pub(super) fn small_file(path: &str, text: &str) -> SmallFile {
    SmallFile {
        path: path.to_owned(),
        mode: 0o644,
        uid: 0,
        sha256: Sha256Digest::of(text.as_bytes()).to_hex(),
        link: None,
        text: Some(text.to_owned()),
    }
}

pub(super) fn unit(path: &str, text: &str) -> UnitFile {
    UnitFile { path: path.to_owned(), sha256: Some(Sha256Digest::of(text.as_bytes()).to_hex()), link: None }
}

pub(super) fn link(path: &str, target: &str) -> UnitFile {
    UnitFile { path: path.to_owned(), sha256: None, link: Some(target.to_owned()) }
}
