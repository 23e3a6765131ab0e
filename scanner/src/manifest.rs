//! The manifest's steps to actions, and each file of the payload by what the manifest makes of it.
//!
//! What a manifest says, it says openly: its own actions are *declared*, and rules weigh them less where a site's
//! policy is there to judge them. What the files do when they run is not.

use std::collections::BTreeMap;
use std::ops::Range;

use recipe_spec::manifest::{FileStep, Mode, Step, StepKind};
use recipe_spec::{MANIFEST_FILE, Manifest, Recipe};

use crate::action::{
    Fetch, Kind, Limit, ModeChange, Origin, Provenance, ServiceChange, Text, UserChange, Word, WriteFile,
};
use crate::content::{self, FileKind};
use crate::finding::{FileReport, Finding};
use crate::shell::Evaluator;
use crate::source::{Place, Source, readable};
use crate::sourced::{self, Names};
use crate::{Role, Scan, limits, rules, scan_as};

/// What the steps do with one file of the payload.
#[derive(Default)]
struct Uses<'a> {
    /// Whether a `run` step runs it.
    runs: bool,
    /// Where `file` steps put it.
    targets: Vec<&'a str>,
}

impl Uses<'_> {
    /// What the file, which holds this text, is to be judged as: each once, so that a further step that names the file
    /// costs no further scan.
    fn roles(&self, text: &str) -> Vec<Role<'static>> {
        let mut roles = Vec::new();
        if self.runs {
            roles.push(Role::Script);
        }
        // Its `#!` says what a file is wherever it lies.
        let different = if text.starts_with("#!") { 1 } else { self.targets.len() };
        for target in self.targets.iter().take(different) {
            let role = Role::Installed(content::kind(target, text));
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        if roles.is_empty() {
            roles.push(Role::Data);
        }
        roles
    }
}

/// Scans the manifest and the payload, in the order of the paths.
pub(crate) fn scan(recipe: &Recipe) -> Vec<FileReport> {
    let manifest = recipe.manifest();
    let mut uses: BTreeMap<&str, Uses<'_>> = BTreeMap::new();
    for step in &manifest.steps {
        match &step.kind {
            StepKind::File(file) => {
                if let Some(source) = &file.source {
                    uses.entry(source.as_str()).or_default().targets.push(file.path.as_str());
                }
            }
            StepKind::Run(run) => uses.entry(run.script.as_str()).or_default().runs = true,
            _ => {}
        }
    }
    let mut left = limits::RECIPE_BYTES;
    let mut names = Names::default();
    // Files that no shell has read yet, by their places among the reports.
    let mut unread = Vec::new();
    let mut reports = Vec::new();
    for (path, file) in recipe.payload().iter() {
        let path = path.as_str();
        if path == MANIFEST_FILE {
            let content = |file: &FileStep| {
                let bytes = recipe.payload().file(file.source.as_ref()?)?.bytes.as_slice();
                Some(&bytes[..bytes.len().min(limits::FILE_BYTES)])
            };
            let scan = scan_manifest(path, &file.bytes, manifest, &content);
            names.extend(scan.sourced);
            reports.push(scan.report);
            continue;
        }
        let text = readable(&file.bytes[..file.bytes.len().min(limits::FILE_BYTES)]);
        let uses = uses.remove(path).unwrap_or_default();
        let roles = uses.roles(&text);
        let by_shell = |role: &Role<'_>| matches!(role, Role::Script | Role::Installed(FileKind::Shell));
        let first = text.lines().next().unwrap_or_default();
        if !roles.iter().any(by_shell) || first.starts_with("#!") && !content::is_shebang_of_shell(first) {
            unread.push((reports.len(), file.bytes.as_slice(), uses.targets));
        }
        let mut report = FileReport { path: path.to_owned(), findings: Vec::new() };
        for role in roles {
            let scan = scan_as(path, &file.bytes, role, &mut left);
            names.extend(scan.sourced);
            add_findings(&mut report, scan.report.findings);
        }
        reports.push(report);
    }
    follow_sourced(&mut reports, unread, names, &mut left);
    reports
}

/// A file that no shell has read yet: its place among the reports, its bytes, and where it is put.
type Unread<'a> = (usize, &'a [u8], Vec<&'a str>);

/// Reads as shell what other files tell a shell to read, and what those files name again.
fn follow_sourced(
    reports: &mut [FileReport],
    mut unread: Vec<Unread<'_>>,
    mut names: Names,
    left: &mut usize,
) {
    loop {
        let mut grown = false;
        unread.retain(|(at, bytes, targets)| {
            let report = &mut reports[*at];
            let named = names.hold(&report.path) || targets.iter().any(|target| names.hold(target));
            if named {
                let scan = scan_as(&report.path, bytes, Role::Sourced, left);
                add_findings(report, scan.report.findings);
                grown |= names.extend(scan.sourced);
            }
            !named
        });
        if !grown {
            return;
        }
    }
}

/// Adds what another look at the same file found.
fn add_findings(report: &mut FileReport, findings: Vec<Finding>) {
    for finding in findings {
        if !report.findings.contains(&finding) {
            report.findings.push(finding);
        }
    }
    report.findings.sort_by_key(|finding| finding.span.start);
}

/// Scans a manifest without its payload.
pub(crate) fn scan_alone(path: &str, bytes: &[u8], manifest: &Manifest) -> FileReport {
    scan_manifest(path, bytes, manifest, &|_| None).report
}

fn scan_manifest(path: &str, bytes: &[u8], manifest: &Manifest, content: &Content<'_>) -> Scan {
    let source = Source::new(bytes);
    let evaluator = Evaluator::new(Origin::Declared);
    let mut reader = Reader { text: source.text(), evaluator, left: limits::INSTALLED_BYTES };
    reader.evaluator.add(Kind::Text { text: source.text().to_owned() }, 0..source.text().len());
    for step in &manifest.steps {
        reader.step(step, content);
    }
    for test in &manifest.tests {
        reader.shell(&test.run, test.run_span.clone());
    }
    let setuid: Vec<String> =
        manifest.capabilities.setuid.iter().map(|path| path.as_str().to_owned()).collect();
    let actions = reader.evaluator.finish();
    let findings = rules::check(path, &source, &actions, &setuid);
    Scan { report: FileReport { path: path.to_owned(), findings }, sourced: sourced::names(&actions) }
}

/// Finds what a step takes from the payload, as far as it is read.
type Content<'a> = dyn Fn(&FileStep) -> Option<&'a [u8]> + 'a;

struct Reader<'a> {
    text: &'a str,
    evaluator: Evaluator,
    /// What is left of [`limits::INSTALLED_BYTES`].
    left: usize,
}

impl Reader<'_> {
    fn step(&mut self, step: &Step, content: &Content<'_>) {
        let span = |field: &str| step.field_span(field).unwrap_or_else(|| step.span.clone());
        match &step.kind {
            StepKind::Package(names) => {
                let options =
                    names.iter().map(|name| Word::literal_at(name.as_str(), span("package"))).collect();
                self.add(Kind::Package { options, program: "package".to_owned() }, span("package"));
            }
            StepKind::File(file) => {
                let path = span("path");
                let text = self.installed(file, content, &path);
                self.write(file.path.as_str(), text, file.mode, path.clone());
                if let Some(inline) = &file.content {
                    let place = self.place(inline, span("content"));
                    let kind = content::kind(file.path.as_str(), inline);
                    self.evaluator.follow_file(kind, inline, &place);
                }
            }
            StepKind::Directory(directory) => {
                if let Some(mode) = directory.mode {
                    let path = format!("{}/", directory.path.as_str());
                    self.set_mode(&path, mode, span("mode"));
                }
            }
            StepKind::Link(link) => self.write(link.path.as_str(), None, None, span("path")),
            StepKind::User(user) => {
                let change = UserChange {
                    name: Word::literal_at(user.name.as_str(), span("name")),
                    uid: user.uid.map(|uid| Word::literal_at(uid.to_string(), span("uid"))),
                    groups: user.groups.iter().map(|group| group.as_str().to_owned()).collect(),
                    password: None,
                    authorized_keys: user.authorized_keys.len(),
                };
                self.add(Kind::User(change), step.span.clone());
                for key in &user.authorized_keys {
                    let place = self.place(key, span("authorized_keys"));
                    let kind = content::kind("/authorized_keys", key);
                    self.evaluator.follow_file(kind, key, &place);
                }
            }
            StepKind::Group(_) => {}
            StepKind::Service(service) => {
                let change = match (service.enabled, service.running) {
                    (Some(false), _) => ServiceChange::Disable,
                    (_, Some(false)) => ServiceChange::Stop,
                    _ => ServiceChange::Other,
                };
                let name = Word::literal_at(service.name.clone(), span("name"));
                self.add(Kind::Service { name, change }, step.span.clone());
            }
            StepKind::Download(download) => {
                let url = Word::literal_at(download.url.clone(), span("url"));
                // Its digest is part of what is signed, so it counts as checked.
                self.add(Kind::Fetch(Fetch { url, output: None, unchecked: false }), span("url"));
                self.write(download.path.as_str(), None, download.mode, span("path"));
            }
            StepKind::Run(run) => {
                if let Some(unless) = &run.unless {
                    self.shell(unless, span("unless"));
                }
            }
        }
    }

    /// What a `file` step puts into its file, as far as it is known. Rules look at it for each path, so all steps together
    /// have a limit, also where they name the same file.
    fn installed(&mut self, file: &FileStep, content: &Content<'_>, span: &Range<usize>) -> Option<Text> {
        let bytes = match &file.content {
            Some(inline) => inline.as_bytes(),
            None => content(file)?,
        };
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            self.add(Kind::Limit(Limit::Exhausted { what: "the bytes of all file steps" }), span.clone());
            return None;
        };
        self.left = left;
        Some(file.content.clone().map_or_else(|| readable(bytes).into(), Text::from))
    }

    fn add(&mut self, kind: Kind, span: Range<usize>) {
        self.evaluator.add(kind, span);
    }

    fn write(&mut self, path: &str, content: Option<Text>, mode: Option<Mode>, span: Range<usize>) {
        let write = WriteFile {
            path: Word::literal_at(path, span.clone()),
            content,
            provenance: Provenance::default(),
            mode: mode.map(Mode::bits),
            append: false,
        };
        self.add(Kind::WriteFile(write), span);
    }

    fn set_mode(&mut self, path: &str, mode: Mode, span: Range<usize>) {
        let path = Word::literal_at(path, span.clone());
        self.add(Kind::SetMode { path, mode: ModeChange::from_bits(mode.bits()), recursive: false }, span);
    }

    fn shell(&mut self, text: &str, span: Range<usize>) {
        let place = self.place(text, span);
        self.evaluator.hidden(|evaluator| evaluator.script(text, place));
    }

    /// Where a value of the manifest stands, if it stands there letter by letter.
    fn place(&self, value: &str, span: Range<usize>) -> Place {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        Place::Exact(0).of(raw, &span, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses<'a>(targets: &[&'a str]) -> Uses<'a> {
        Uses { runs: false, targets: targets.to_vec() }
    }

    #[test]
    fn a_file_is_scanned_once_for_each_kind_it_is_judged_as() {
        let many: Vec<String> = (0..510).map(|number| format!("/opt/{number}")).collect();
        let mut many = uses(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(many.roles("text"), [Role::Installed(FileKind::Other)]);
        many.targets.extend([
            "/etc/systemd/system/a.service",
            "/etc/systemd/system/b.service",
            "/etc/profile",
        ]);
        let kinds = [FileKind::Other, FileKind::Unit, FileKind::Shell].map(Role::Installed);
        assert_eq!(many.roles("text"), kinds);
        many.runs = true;
        assert_eq!(many.roles("text"), [&[Role::Script][..], &kinds[..]].concat());
        assert_eq!(uses(&[]).roles("#!/bin/sh"), [Role::Data]);
    }

    #[test]
    fn a_file_that_begins_with_its_interpreter_is_that_wherever_it_lies() {
        let places = uses(&["/opt/a", "/etc/cron.d/a", "/etc/systemd/system/a.service"]);
        assert_eq!(places.roles("#!/bin/sh\nx"), [Role::Installed(FileKind::Shell)]);
        assert_eq!(places.roles("#!/usr/bin/python3\nx"), [Role::Installed(FileKind::Other)]);
        assert_eq!(places.roles("x\n#!/bin/sh\n").len(), 3);
    }
}
