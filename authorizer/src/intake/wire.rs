//! What goes to the worker that runs libgit2 and what comes back: a request, then a recipe's files as a stream, or a refusal.
//! What comes back is as hostile as the repository: names, counts and sizes are judged again here.

use std::io::Write;
use std::path::PathBuf;

use recipe_spec::text::quoted;
use recipe_spec::{Limits, RecipePath};
use serde::{Deserialize, Serialize};

use super::collector::{Beyond, Collector, ENVELOPE_BYTES};
use super::{FetchLimits, IntakeError, RecipeFiles, Revision};

/// What is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) place: Where,
    /// As [`Revision`] is written.
    pub(super) revision: String,
    pub(super) path: Option<RecipePath>,
    pub(super) limits: Limits,
    pub(super) fetch_limits: FetchLimits,
}

/// Where its objects are.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Where {
    /// The git folder of a repository on this host.
    Local(PathBuf),
    /// An address as [`super::Place`] takes it.
    Remote(String),
}

/// Why nothing comes back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    Entry { path: String, kind: Kind },
    Beyond(Beyond),
    NoFolder { commit: String },
    Repository { limit: u64, unit: Unit },
    Git { said: String },
    NoSpace,
    NoRevision,
    Ambiguous,
}

/// What a recipe may not hold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Kind {
    NotUtf8,
    RefusedName,
    NoBlob,
    Link,
    Submodule,
    Unusual,
}

impl Kind {
    const fn what(self) -> &'static str {
        match self {
            Self::NotUtf8 => "a name that is not UTF-8",
            Self::RefusedName => "a name that git itself refuses",
            Self::NoBlob => "a file whose object is none",
            Self::Link => "a symbolic link",
            Self::Submodule => "a submodule",
            Self::Unusual => "an entry of an unusual mode",
        }
    }
}

/// What a repository has too much of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Unit {
    Bytes,
    Objects,
    ListBytes,
    ProgressBytes,
    Memory,
    Processor,
    Disk,
    Answer,
}

impl Unit {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Objects => "objects",
            Self::ListBytes => "bytes of a folder's list",
            Self::ProgressBytes => "bytes of progress messages",
            Self::Memory => "bytes of memory to unpack it",
            Self::Processor => "seconds of processor time to unpack it",
            Self::Disk => "bytes of disk to unpack it",
            Self::Answer => "bytes of a recipe",
        }
    }
}

/// Who was asked for what: for messages, which never take these from an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) uri: &'a str,
    pub(super) path: Option<&'a RecipePath>,
    pub(super) revision: &'a Revision,
}

impl Asked<'_> {
    pub(super) fn too_large(&self, limit: u64, unit: Unit) -> IntakeError {
        IntakeError::RepositoryTooLarge { uri: self.uri.to_owned(), limit, unit: unit.name() }
    }

    pub(super) fn malformed(&self) -> IntakeError {
        let why = "the worker that reads it gave an answer of another form".to_owned();
        IntakeError::Worker { uri: self.uri.to_owned(), why }
    }

    /// A refusal in the words of an error.
    pub(super) fn refused(&self, json: &[u8]) -> IntakeError {
        let Ok(refusal) = serde_json::from_slice::<Refusal>(json) else { return self.malformed() };
        let (uri, revision) = (self.uri.to_owned(), self.revision.to_string());
        match refusal {
            Refusal::Entry { path, kind } => IntakeError::Entry { path, what: kind.what() },
            Refusal::Beyond(beyond) => beyond.into(),
            Refusal::NoFolder { commit } if is_commit(&commit) => IntakeError::NoFolder {
                path: self.path.map_or_else(|| ".".to_owned(), RecipePath::to_string),
                commit,
            },
            Refusal::NoFolder { .. } => self.malformed(),
            Refusal::Repository { limit, unit } => self.too_large(limit, unit),
            Refusal::Git { said } => IntakeError::Unavailable { uri, why: quoted(&said) },
            Refusal::NoSpace => IntakeError::NoSpace { uri },
            Refusal::NoRevision => IntakeError::NoRevision { uri, revision },
            Refusal::Ambiguous => IntakeError::Ambiguous { uri, revision },
        }
    }

    /// The files of an answer, and the commit that they are of.
    pub(super) fn answered(
        &self,
        answer: &[u8],
        limits: &Limits,
    ) -> Result<(RecipeFiles, String), IntakeError> {
        let mut rest = answer;
        let head: Head = line(&mut rest).ok_or_else(|| self.malformed())?;
        if !is_commit(&head.commit) {
            return Err(self.malformed());
        }
        let mut collector = Collector::new(limits);
        while !rest.is_empty() {
            let file: FileHead = line(&mut rest).ok_or_else(|| self.malformed())?;
            collector.count(&file.path)?;
            let admitted = collector.admit(&file.path, file.size)?;
            let size = usize::try_from(file.size).map_err(|_| self.malformed())?;
            let (bytes, after) = rest.split_at_checked(size).ok_or_else(|| self.malformed())?;
            rest = after;
            collector.add(admitted, bytes.to_vec(), file.executable)?;
        }
        Ok((collector.finish()?, head.commit))
    }
}

/// The first line of an answer.
#[derive(Serialize, Deserialize)]
struct Head {
    commit: String,
}

/// The line before the bytes of a file.
#[derive(Serialize, Deserialize)]
struct FileHead {
    path: String,
    size: u64,
    executable: bool,
}

/// The most bytes of an answer for a recipe within `limits`: its files, its envelope, and a line for each.
pub(super) fn most(limits: &Limits) -> u64 {
    // JSON escapes a byte with six at most.
    let lines = limits.files.saturating_add(2).saturating_mul(limits.path_bytes.saturating_mul(6) + 128);
    (limits.recipe_bytes as u64).saturating_add(ENVELOPE_BYTES).saturating_add(lines as u64)
}

/// Where an answer is written.
pub(super) struct Answer<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Answer<'a> {
    pub(super) fn begin(out: &'a mut dyn Write, commit: git2::Oid) -> std::io::Result<Self> {
        let mut answer = Self { out };
        answer.line(&Head { commit: commit.to_string() })?;
        Ok(answer)
    }

    pub(super) fn file(&mut self, path: &str, bytes: &[u8], executable: bool) -> std::io::Result<()> {
        self.line(&FileHead { path: path.to_owned(), size: bytes.len() as u64, executable })?;
        self.out.write_all(bytes)
    }

    fn line(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        serde_json::to_writer(&mut *self.out, value)?;
        self.out.write_all(b"\n")
    }
}

fn line<'de, T: Deserialize<'de>>(rest: &mut &'de [u8]) -> Option<T> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = (&rest[..end], &rest[end + 1..]);
    *rest = after;
    serde_json::from_slice(line).ok()
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use recipe_spec::Code;

    use super::*;

    const ASKED: Asked<'_> = Asked { uri: "git+git://x/y", path: None, revision: &Revision::Head };
    const COMMIT: &str = "{\"commit\":\"0123456789012345678901234567890123456789\"}\n";

    fn answered(rest: &str) -> Result<(RecipeFiles, String), IntakeError> {
        ASKED.answered(format!("{COMMIT}{rest}").as_bytes(), &Limits::STANDARD)
    }

    fn file(path: &str, size: u64) -> String {
        format!("{{\"path\":\"{path}\",\"size\":{size},\"executable\":false}}\n")
    }

    #[test]
    fn an_answer_is_judged_as_the_repository_would_be() {
        let (files, _) =
            answered(&format!("{}ab{}{{}}", file("recipe.toml", 2), file("recipe.intoto.jsonl", 2))).unwrap();
        assert_eq!((files.payload.size(), files.envelope.as_deref()), (2, Some(&b"{}"[..])));
        for wrong in [
            file("recipe.toml", 2),
            format!("{}a", file("recipe.toml", u64::MAX)),
            format!("{}a", file("../recipe.toml", 1)),
            format!("{}a{}a", file("a", 1), file("a", 1)),
            format!("{}a{}a", file("recipe.intoto.jsonl", 1), file("recipe.intoto.jsonl", 1)),
            "{\"path\":\"a\"}\n".to_owned(),
            "no line".to_owned(),
        ] {
            assert!(answered(&wrong).is_err(), "{wrong}");
        }
        assert!(ASKED.answered(b"", &Limits::STANDARD).is_err());
        assert!(ASKED.answered(b"{\"commit\":\"main\"}\n", &Limits::STANDARD).is_err());
    }

    #[test]
    fn a_refusal_is_shown_on_one_line_and_speaks_of_what_was_asked() {
        let said = ASKED.refused(br#"{"Git":{"said":"\u001b[2J\nboo"}}"#).to_string();
        assert!(said.starts_with("git+git://x/y: ") && !said.contains(['\u{1b}', '\n']), "{said}");
        assert_eq!(ASKED.refused(b"{\"NoFolder\":{\"commit\":\"\\u001b\"}}").code(), Some(Code::HostFailed));
        assert_eq!(ASKED.refused(b"{}").code(), Some(Code::HostFailed));
    }
}
