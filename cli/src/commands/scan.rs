//! `countersign scan`: what risky directives recipes and files hold. Nothing is run.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use recipe_spec::{Code, MANIFEST_FILE, Recipe};
use scanner::{Decision, FileReport, Report, limits};
use serde_json::{Value, json};

use crate::commands::recipe;
use crate::outcome::{Answer, Problem, printable};

pub(crate) fn run(paths: &[PathBuf], colour: bool) -> Result<Answer, Problem> {
    let mut human = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        let (text, mut reports) = if path.is_dir() { folder(path, colour)? } else { file(path, colour)? };
        human.push(text);
        files.append(&mut reports);
    }
    let report = Report::new(files);
    let mut human = human.concat();
    if paths.len() > 1 {
        human.push_str(&report.summary());
    }
    ended(&report, human.trim_end().to_owned(), json!({"files": report.files, "decision": report.decision}))
}

/// Turns a report into the answer or refusal that follows from it.
pub(crate) fn ended(report: &Report, human: String, data: Value) -> Result<Answer, Problem> {
    let refused = |code| {
        let problem = Problem::coded(code, report.summary()).details(&human);
        data.as_object()
            .into_iter()
            .flatten()
            .fold(problem, |problem, (name, value)| problem.with(name, value))
    };
    match report.decision {
        Decision::Allow => Ok(Answer::new(human, &data)),
        Decision::Review => Err(refused(Code::ReviewNeeded)),
        Decision::Deny => Err(refused(Code::ScanDenied)),
    }
}

/// A recipe's report for a person.
pub(crate) fn human_of_recipe(report: &Report, recipe: &Recipe, colour: bool) -> String {
    let source = |path: &str| {
        let path = path.parse().ok()?;
        recipe.payload().file(&path).map(|file| file.bytes.as_slice())
    };
    report.human(source, colour)
}

fn folder(dir: &Path, colour: bool) -> Result<(String, Vec<FileReport>), Problem> {
    if !dir.join(MANIFEST_FILE).exists() {
        let message = format!("{} has no {MANIFEST_FILE}: name a recipe's folder, or files", dir.display());
        return Err(Problem::usage(message));
    }
    let (recipe, _) = recipe::read(dir, colour)?;
    let report = scanner::scan_recipe(&recipe);
    let human = human_of_recipe(&report, &recipe, colour);
    let below = |file: FileReport| FileReport {
        path: printable(&dir.join(&file.path).display().to_string()),
        ..file
    };
    Ok((human, report.files.into_iter().map(below).collect()))
}

fn file(path: &Path, colour: bool) -> Result<(String, Vec<FileReport>), Problem> {
    let unreadable =
        |error: std::io::Error| Problem::usage(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    // One byte more than is read of a script, so that the scan sees that there is more.
    let limit = limits::FILE_BYTES as u64 + 1;
    File::open(path).map_err(unreadable)?.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    let report = Report::new(vec![scanner::scan_file(&printable(&path.display().to_string()), &bytes)]);
    let human = report.human(|_| Some(bytes.as_slice()), colour);
    Ok((human, report.files))
}
