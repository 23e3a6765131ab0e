//! A recipe: its manifest, its files and their digest. Having one means that the format's rules are kept; it does not
//! mean that anybody signed it.

use std::collections::BTreeSet;
use std::fmt;

use crate::code::Code;
use crate::diagnostic::{self, Diagnostic};
use crate::digest::Sha256Digest;
use crate::limits::Limits;
use crate::listing::listing;
use crate::manifest::Manifest;
use crate::path::RecipePath;
use crate::payload::{Payload, PayloadError};
use crate::text::quoted;
use crate::{ENVELOPE_FILE, MANIFEST_FILE};

/// A recipe that keeps the rules of the format.
#[derive(Clone, Debug)]
pub struct Recipe {
    manifest: Manifest,
    manifest_source: String,
    payload: Payload,
    digest: Sha256Digest,
}

impl Recipe {
    /// Reads the manifest in `payload` and checks that manifest and files belong together.
    pub fn from_payload(payload: Payload, limits: &Limits) -> Result<Recipe, RecipeError> {
        let manifest_file = payload.file_at(MANIFEST_FILE).ok_or(RecipeError::ManifestMissing)?;
        let source = match std::str::from_utf8(&manifest_file.bytes) {
            Ok(source) => source.to_owned(),
            Err(error) => {
                let (line, _) = line_of(&manifest_file.bytes, error.valid_up_to());
                return Err(RecipeError::ManifestNotUtf8 { offset: error.valid_up_to(), line });
            }
        };
        let mistakes = match Manifest::parse_within(&source, limits) {
            Ok(manifest) => {
                let mistakes = mismatches(&manifest, &source, &payload, limits);
                if mistakes.is_empty() {
                    let digest = Sha256Digest::of(listing(&payload).as_bytes());
                    return Ok(Recipe { manifest, manifest_source: source, payload, digest });
                }
                mistakes
            }
            Err(mistakes) => mistakes,
        };
        Err(RecipeError::Mistakes(Mistakes { diagnostics: mistakes, source }))
    }

    /// What `recipe.toml` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// `recipe.toml` itself; spans of the manifest are bytes of it.
    pub fn manifest_source(&self) -> &str {
        &self.manifest_source
    }

    /// Its files.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// SHA-256 of its listing.
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }
}

/// True for files that may lie in a recipe although nothing refers to them: `README*` and `LICENSE*` at the top level.
fn needs_no_reference(path: &RecipePath) -> bool {
    let text = path.as_str();
    text == MANIFEST_FILE
        || (!text.contains('/') && (text.starts_with("README") || text.starts_with("LICENSE")))
}

/// Files that the manifest names and that are missing, and files that nothing names.
fn mismatches(manifest: &Manifest, source: &str, payload: &Payload, limits: &Limits) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    let mut named = BTreeSet::new();
    let paths: Vec<&str> = payload.iter().map(|(path, _)| path.as_str()).collect();
    for reference in manifest.references() {
        named.insert(&reference.path);
        if mistakes.len() >= limits.diagnostics {
            continue;
        }
        let path = reference.path.as_str();
        if path == ENVELOPE_FILE {
            let message = "the envelope is not part of the recipe";
            mistakes.push(Diagnostic::at(source, reference.span.clone(), message, None));
        } else if payload.file(&reference.path).is_none() {
            let help = match diagnostic::nearest(path, &paths) {
                Some(meant) => format!("did you mean {}?", quoted(meant)),
                None => "paths are relative to the recipe's folder".to_owned(),
            };
            let message = format!("the recipe has no file {}", quoted(path));
            mistakes.push(Diagnostic::at(source, reference.span.clone(), message, Some(help)));
        }
    }
    for (path, _) in payload.iter().filter(|(path, _)| !named.contains(path) && !needs_no_reference(path)) {
        let message = format!("nothing refers to the file {}", quoted(path.as_str()));
        let help = "remove it, or name it in a step; only `README*` and `LICENSE*` need no step".to_owned();
        mistakes.push(Diagnostic::whole(message, Some(help)));
    }
    mistakes.truncate(limits.diagnostics);
    mistakes
}

fn line_of(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = &bytes[..offset];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    (before.iter().filter(|&&byte| byte == b'\n').count() + 1, offset - line_start + 1)
}

/// Why files are not a recipe: always `BAD_RECIPE`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The files do not make a payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// There is no `recipe.toml`.
    #[error("the folder has no `recipe.toml`")]
    ManifestMissing,
    /// `recipe.toml` is not text.
    #[error("`recipe.toml` is not UTF-8 on line {line}, byte {offset}")]
    ManifestNotUtf8 {
        /// The first byte that is not UTF-8, from 0.
        offset: usize,
        /// Its line, from 1.
        line: usize,
    },
    /// Mistakes in the manifest, or between it and the files.
    #[error("{0}")]
    Mistakes(Mistakes),
}

/// Mistakes with the source that they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    diagnostics: Vec<Diagnostic>,
    source: String,
}

/// The first mistake, on one line.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.diagnostics.split_first() else {
            return f.write_str("the recipe cannot be read");
        };
        if first.line > 0 {
            write!(f, "{MANIFEST_FILE}:{}:{}: ", first.line, first.column)?;
        }
        f.write_str(&first.message)?;
        match others.len() {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more mistake)"),
            more => write!(f, " (and {more} more mistakes)"),
        }
    }
}

impl RecipeError {
    /// `BAD_RECIPE`.
    pub fn code(&self) -> Code {
        Code::BadRecipe
    }

    /// The mistakes one by one, in order; those without a place have line 0.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            RecipeError::Mistakes(mistakes) => mistakes.diagnostics.clone(),
            other => vec![Diagnostic::whole(other.to_string(), None)],
        }
    }

    /// All mistakes with their source lines, for a person; `colour` adds terminal escapes.
    pub fn report(&self, colour: bool) -> String {
        let source = match self {
            RecipeError::Mistakes(mistakes) => mistakes.source.as_str(),
            _ => "",
        };
        diagnostic::render(&self.diagnostics(), source, MANIFEST_FILE, colour)
    }
}
