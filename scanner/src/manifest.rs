//! The manifest's steps to actions, and each file of the payload by what the manifest makes of it.
//!
//! What a manifest says, it says openly: its own actions are *declared*, and rules weigh them less where a site's
//! policy is there to judge them. What the files do when they run is not.

use std::collections::BTreeMap;
use std::ops::Range;

use recipe_spec::manifest::{FileStep, Mode, Step, StepKind};
use recipe_spec::{MANIFEST_FILE, Manifest, Recipe};

use crate::action::{
    Fetch, Kind, ModeChange, Origin, Provenance, ServiceChange, UserChange, Word, WriteFile,
};
use crate::finding::FileReport;
use crate::shell::Evaluator;
use crate::source::{Place, Source, readable};
use crate::{Role, rules, scan_as};

/// Scans the manifest and the payload, in the order of the paths.
pub(crate) fn scan(recipe: &Recipe) -> Vec<FileReport> {
    let manifest = recipe.manifest();
    let mut installed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut scripts: Vec<&str> = Vec::new();
    for step in &manifest.steps {
        match &step.kind {
            StepKind::File(file) => {
                if let Some(source) = &file.source {
                    installed.entry(source.as_str()).or_default().push(file.path.as_str());
                }
            }
            StepKind::Run(run) => scripts.push(run.script.as_str()),
            _ => {}
        }
    }
    let mut reports = Vec::new();
    for (path, file) in recipe.payload().iter() {
        let path = path.as_str();
        if path == MANIFEST_FILE {
            let content = |file: &FileStep| {
                let bytes = recipe.payload().file(file.source.as_ref()?)?.bytes.as_slice();
                let read = &bytes[..bytes.len().min(crate::limits::FILE_BYTES)];
                Some(readable(read).into_owned())
            };
            reports.push(scan_manifest(path, &file.bytes, manifest, &content));
            continue;
        }
        let mut roles = Vec::new();
        if scripts.contains(&path) {
            roles.push(Role::Script);
        }
        for target in installed.get(path).into_iter().flatten() {
            roles.push(Role::Installed { path: target, follows: Origin::Declared });
        }
        if roles.is_empty() {
            roles.push(Role::Data);
        }
        let mut report = FileReport { path: path.to_owned(), findings: Vec::new() };
        for role in roles {
            for finding in scan_as(path, &file.bytes, role).findings {
                if !report.findings.contains(&finding) {
                    report.findings.push(finding);
                }
            }
        }
        report.findings.sort_by_key(|finding| finding.span.start);
        reports.push(report);
    }
    reports
}

/// Scans a manifest without its payload.
pub(crate) fn scan_alone(path: &str, bytes: &[u8], manifest: &Manifest) -> FileReport {
    scan_manifest(path, bytes, manifest, &|_| None)
}

fn scan_manifest(
    path: &str,
    bytes: &[u8],
    manifest: &Manifest,
    content: &dyn Fn(&FileStep) -> Option<String>,
) -> FileReport {
    let source = Source::new(bytes);
    let mut reader = Reader { text: source.text(), evaluator: Evaluator::new(Origin::Declared) };
    reader.evaluator.add(Kind::Text { text: source.text().to_owned() }, 0..source.text().len());
    for step in &manifest.steps {
        reader.step(step, content);
    }
    for test in &manifest.tests {
        reader.shell(&test.run, test.run_span.clone());
    }
    let setuid: Vec<String> =
        manifest.capabilities.setuid.iter().map(|path| path.as_str().to_owned()).collect();
    let findings = rules::check(path, &source, &reader.evaluator.finish(), &setuid);
    FileReport { path: path.to_owned(), findings }
}

struct Reader<'a> {
    text: &'a str,
    evaluator: Evaluator,
}

impl Reader<'_> {
    fn step(&mut self, step: &Step, content: &dyn Fn(&FileStep) -> Option<String>) {
        let span = |field: &str| step.field_span(field).unwrap_or_else(|| step.span.clone());
        match &step.kind {
            StepKind::Package(names) => {
                let options =
                    names.iter().map(|name| Word::literal_at(name.as_str(), span("package"))).collect();
                self.add(Kind::Package { options, program: "package".to_owned() }, span("package"));
            }
            StepKind::File(file) => {
                let path = span("path");
                let text = file.content.clone().or_else(|| content(file));
                self.write(file.path.as_str(), text, file.mode, path.clone());
                if let Some(inline) = &file.content {
                    let place = self.place(inline, span("content"));
                    self.evaluator.follow_file(file.path.as_str(), inline, &place);
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
                    self.evaluator.follow_file("/authorized_keys", key, &place);
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

    fn add(&mut self, kind: Kind, span: Range<usize>) {
        self.evaluator.add(kind, span);
    }

    fn write(&mut self, path: &str, content: Option<String>, mode: Option<Mode>, span: Range<usize>) {
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
