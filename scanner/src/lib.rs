//! Risky directives in recipes: found by reading, never by running anything.
//!
//! The one idea: whatever a recipe is written in, what it will do becomes a list of *actions* (run this command with
//! these words, write this file, fetch that, make this user), and rules look at actions. So `sudo sh -c 'curl x | sh'`,
//! the same in a here-document that is run later, and the same in base64 piped to a shell are one finding.
//!
//! The text is hostile. Readers bound their depth, time and output (see [`limits`]); what they cannot read as the
//! machine would is a finding itself, so that nothing is allowed because it was not understood.

mod action;
mod content;
mod finding;
pub mod limits;
mod manifest;
mod report;
mod rules;
mod shell;
mod source;
mod sourced;

pub use finding::{Decision, FileReport, Finding, Report, RuleInfo, Severity};

use std::sync::LazyLock;

use action::{Kind, Limit, Origin, Run, Word, WriteFile};
use content::FileKind;
use source::{Place, Source};

static RULES: LazyLock<Vec<RuleInfo>> = LazyLock::new(rules::all);

/// Every rule, in the order of the families. One rule's code is never given to another.
pub fn rules() -> &'static [RuleInfo] {
    &RULES
}

/// Scans a recipe: the manifest's steps, `unless` conditions and tests, and every file of the payload by what the
/// manifest makes of it.
pub fn scan_recipe(recipe: &recipe_spec::Recipe) -> Report {
    Report::new(manifest::scan(recipe))
}

/// Scans one file by itself, as `countersign scan FILE` does: a shell script, a manifest, or a configuration file
/// known by its name. `path` is only named, never opened. Other files are searched for secrets only.
pub fn scan_file(path: &str, bytes: &[u8]) -> FileReport {
    if path.rsplit('/').next() == Some(recipe_spec::MANIFEST_FILE)
        && let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(manifest) = recipe_spec::Manifest::parse(text)
    {
        return manifest::scan_alone(path, bytes, &manifest);
    }
    let role = match content::kind(path, &source::readable(&bytes[..bytes.len().min(limits::SNIFFED)])) {
        _ if is_script_name(path) => Role::Script,
        FileKind::Shell => Role::Script,
        FileKind::Other => Role::Data,
        _ => Role::Named { path },
    };
    scan_as(path, bytes, role, &mut { limits::RECIPE_BYTES }).report
}

fn is_script_name(path: &str) -> bool {
    [".sh", ".bash", ".dash", ".ksh", ".zsh", ".bashrc", ".profile"].iter().any(|end| path.ends_with(end))
}

/// What becomes of a file. The findings in it depend on this and its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role<'a> {
    /// It is run; its `#!` says by what, and without one a shell reads it.
    Script,
    /// A shell that is named elsewhere reads it, so that its `#!` says nothing.
    Sourced,
    /// A step puts it where the machine makes this of it.
    Installed(FileKind),
    /// It stands by itself, and is written as if a script did it to this path.
    Named { path: &'a str },
    /// Nothing is known about it.
    Data,
}

/// What one look at a file gives.
struct Scan {
    report: FileReport,
    /// What shells are told to read.
    sourced: sourced::Names,
}

/// `left` is what is left of [`limits::RECIPE_BYTES`].
fn scan_as(path: &str, bytes: &[u8], role: Role<'_>, left: &mut usize) -> Scan {
    let source = Source::new(&bytes[..bytes.len().min(limits::FILE_BYTES)]);
    let text = source.text();
    let mut evaluator = shell::Evaluator::new(Origin::Script);
    let first = text.lines().next().unwrap_or_default();
    let runs = first.starts_with("#!")
        || match role {
            Role::Script | Role::Sourced => true,
            Role::Installed(kind) => kind != FileKind::Other,
            Role::Named { path } => content::kind(path, "") != FileKind::Other,
            Role::Data => false,
        };
    if runs && bytes.len() > limits::FILE_BYTES {
        evaluator.add(Kind::Limit(Limit::Size { bytes: bytes.len() }), 0..first.len());
    } else if runs && bytes.contains(&0) {
        evaluator.add(Kind::Limit(Limit::Nul), 0..first.len());
    }
    evaluator.add(Kind::Text { text: text.to_owned() }, 0..text.len());
    if runs && *left == 0 {
        evaluator.add(Kind::Limit(Limit::Exhausted { what: "all files of the recipe" }), 0..first.len());
    } else if bytes.len() <= limits::FILE_BYTES {
        let interpreter = content::interpreter(first)
            .filter(|program| shell::is_interpreter(program) && role != Role::Sourced);
        match (interpreter, role) {
            (Some(program), _) => {
                let words = [program.as_str(), "-c", text].map(|word| Word::literal_at(word, 0..first.len()));
                let run = Run { argv: words.into(), input: None, redirects: Vec::new(), repeated: false };
                evaluator.add(Kind::Run(run), 0..first.len());
            }
            (None, Role::Script | Role::Sourced) => evaluator.script(text, Place::Exact(0)),
            (None, Role::Installed(kind)) => evaluator.follow_file(kind, text, &Place::Exact(0)),
            (None, Role::Named { path }) => {
                let write = WriteFile {
                    path: Word::literal_at(path, 0..0),
                    content: Some(text.into()),
                    provenance: action::Provenance::default(),
                    mode: None,
                    append: true,
                };
                evaluator.file(write, Place::Exact(0), 0..first.len());
            }
            (None, Role::Data) => {}
        }
    }
    *left = left.saturating_sub(evaluator.cost());
    let actions = evaluator.finish();
    let findings = rules::check(path, &source, &actions, &[]);
    Scan { report: FileReport { path: path.to_owned(), findings }, sourced: sourced::names(&actions) }
}
