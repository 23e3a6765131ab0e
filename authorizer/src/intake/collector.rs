//! What is taken into a payload, and within which limits: the same rules for a folder and for a commit's tree.

use recipe_spec::path::RecipePath;
use recipe_spec::payload::{PayloadBuilder, PayloadError};
use recipe_spec::text::quoted;
use recipe_spec::{ENVELOPE_FILE, Limits, Payload};
use serde::{Deserialize, Serialize};

use super::{IntakeError, RecipeFiles};

/// The most bytes of a recipe's envelope.
pub(super) const ENVELOPE_BYTES: u64 = signer::limits::MAX_ENVELOPE_BYTES as u64;

/// Something beyond the limits of a recipe.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Beyond {
    Large { path: String, size: u64, limit: u64 },
    Many { path: String, limit: usize },
    Deep { path: String, limit: usize },
}

impl From<Beyond> for IntakeError {
    fn from(beyond: Beyond) -> Self {
        match beyond {
            Beyond::Large { path, size, limit } => Self::TooLarge { path, size, limit },
            Beyond::Many { path, limit } => Self::TooMany { path, limit },
            Beyond::Deep { path, limit } => Self::TooDeep { path, limit },
        }
    }
}

/// Counts entries and bytes against the limits, before a byte is read.
pub(super) struct Admission<'a> {
    limits: &'a Limits,
    entries: usize,
    bytes: u64,
}

impl<'a> Admission<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, entries: 0, bytes: 0 }
    }

    /// Counts one entry of any kind, so that empty folders have a limit too.
    pub(super) fn count(&mut self, path: &str) -> Result<(), Beyond> {
        self.entries += 1;
        // A file and every folder above it is an entry of its own.
        let most = self.limits.files * self.limits.path_depth;
        if self.entries > most {
            return Err(Beyond::Many { path: path.to_owned(), limit: most });
        }
        if path.matches('/').count() >= self.limits.path_depth {
            return Err(Beyond::Deep { path: path.to_owned(), limit: self.limits.path_depth });
        }
        Ok(())
    }

    /// Judges a regular file by its size.
    pub(super) fn admit(&mut self, path: &str, size: u64) -> Result<(), Beyond> {
        let of_all = (self.limits.recipe_bytes as u64).saturating_sub(self.bytes);
        let limit =
            if path == ENVELOPE_FILE { ENVELOPE_BYTES } else { (self.limits.file_bytes as u64).min(of_all) };
        if size > limit {
            return Err(Beyond::Large { path: path.to_owned(), size, limit });
        }
        if path != ENVELOPE_FILE {
            self.bytes += size;
        }
        Ok(())
    }
}

/// Gathers a recipe's files. Every file is first [admitted](Self::admit) by name and size, then read, then added.
pub(super) struct Collector<'a> {
    admission: Admission<'a>,
    builder: PayloadBuilder,
    envelope: Option<Vec<u8>>,
}

/// A file whose name and size are within the limits.
pub(super) struct Admitted {
    path: RecipePath,
    /// The bytes that it has.
    pub(super) size: u64,
}

impl<'a> Collector<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { admission: Admission::new(limits), builder: Payload::builder(limits), envelope: None }
    }

    /// Counts one entry of any kind.
    pub(super) fn count(&mut self, path: &str) -> Result<(), IntakeError> {
        Ok(self.admission.count(path)?)
    }

    /// Judges a regular file by name and size, before a byte of it is read.
    pub(super) fn admit(&mut self, path: &str, size: u64) -> Result<Admitted, IntakeError> {
        let name: RecipePath = path.parse()?;
        self.admission.admit(path, size)?;
        Ok(Admitted { path: name, size })
    }

    /// Takes the bytes of an admitted file.
    pub(super) fn add(
        &mut self,
        file: Admitted,
        bytes: Vec<u8>,
        executable: bool,
    ) -> Result<(), IntakeError> {
        if bytes.len() as u64 != file.size {
            return Err(IntakeError::Changed { path: file.path.to_string() });
        }
        if file.path == ENVELOPE_FILE {
            if self.envelope.replace(bytes).is_some() {
                return Err(PayloadError::Duplicate { path: quoted(ENVELOPE_FILE) }.into());
            }
        } else {
            self.builder.add(file.path.as_str(), bytes, executable)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<RecipeFiles, IntakeError> {
        Ok(RecipeFiles { payload: self.builder.finish()?, envelope: self.envelope })
    }
}
