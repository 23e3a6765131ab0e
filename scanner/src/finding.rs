//! What a scan says: findings of a file, and the decision that follows from all of them.

use std::ops::Range;

use serde::Serialize;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; never decides.
    Smell,
    /// To be looked at.
    Warn,
    /// Refused.
    Deny,
}

impl Severity {
    /// As in the JSON form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smell => "smell",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }
}

/// A rule: what it looks for, how much it weighs, and what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The stable code, as `EXE-001`. Once published it keeps its meaning.
    pub id: &'static str,
    /// The weight of a plain finding; what a manifest declares openly can weigh less.
    pub severity: Severity,
    /// What it finds, in a few words.
    pub title: &'static str,
    /// What to do instead.
    pub help: &'static str,
    /// The weakness, as `CWE-494`.
    pub cwe: Option<&'static str>,
    /// The ATT&CK technique, as `T1105`.
    pub technique: Option<&'static str>,
}

/// One risky directive, at its place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's code.
    pub rule: &'static str,
    /// Its weight here.
    pub severity: Severity,
    /// The file, relative to the recipe's folder.
    #[serde(skip)]
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Bytes of the file, within one line.
    #[serde(skip)]
    pub span: Range<usize>,
    /// What was found, naming its object. Safe to print.
    pub message: String,
    /// What to do instead.
    pub help: &'static str,
    /// The weakness, as `CWE-494`.
    pub cwe: Option<&'static str>,
    /// The ATT&CK technique, as `T1105`.
    pub technique: Option<&'static str>,
}

/// The findings of one file, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// The file, relative to the recipe's folder.
    pub path: String,
    /// Empty for a file with nothing to say about.
    pub findings: Vec<Finding>,
}

impl FileReport {
    /// The heaviest weight among the findings.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// What follows from a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Nothing stands against it.
    Allow,
    /// Someone must look at it first. Only a site's policy asks for this.
    Review,
    /// Refused: at least one finding denies.
    Deny,
}

/// The scan of a recipe, or of some files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// Any `deny` denies.
    pub decision: Decision,
    /// Every file that was read, the clean ones too, in the order of their paths.
    pub files: Vec<FileReport>,
}

impl Report {
    /// Decides over the findings of these files.
    pub fn new(files: Vec<FileReport>) -> Self {
        let denied = files.iter().any(|file| file.severity() == Some(Severity::Deny));
        Self { decision: if denied { Decision::Deny } else { Decision::Allow }, files }
    }

    /// All findings, file by file.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.files.iter().flat_map(|file| &file.findings)
    }
}
