//! What is taken into a payload, and within which limits: the same rules for a folder and for a commit's tree.

use recipe_spec::path::RecipePath;
use recipe_spec::payload::PayloadBuilder;
use recipe_spec::{ENVELOPE_FILE, Limits, Payload};

use super::{IntakeError, RecipeFiles};

/// The most bytes of a recipe's envelope.
const ENVELOPE_BYTES: u64 = 1 << 20;

/// Gathers a recipe's files. Every file is first [admitted](Self::admit) by name and size, then read, then added.
pub(super) struct Collector<'a> {
    limits: &'a Limits,
    builder: PayloadBuilder,
    envelope: Option<Vec<u8>>,
    entries: usize,
    bytes: u64,
}

/// A file whose name and size are within the limits.
pub(super) struct Admitted {
    path: RecipePath,
    /// The most bytes that may be read of it.
    pub(super) most: u64,
}

impl<'a> Collector<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, builder: Payload::builder(limits), envelope: None, entries: 0, bytes: 0 }
    }

    /// Counts one entry of any kind, so that empty folders have a limit too.
    pub(super) fn count(&mut self, path: &str) -> Result<(), IntakeError> {
        self.entries += 1;
        // A file and every folder above it is an entry of its own.
        let most = self.limits.files * self.limits.path_depth;
        if self.entries > most {
            return Err(IntakeError::TooMany { path: path.to_owned(), limit: most });
        }
        if path.matches('/').count() >= self.limits.path_depth {
            return Err(IntakeError::TooDeep { path: path.to_owned(), limit: self.limits.path_depth });
        }
        Ok(())
    }

    /// Judges a regular file by name and size, before a byte of it is read.
    pub(super) fn admit(&mut self, path: &str, size: u64) -> Result<Admitted, IntakeError> {
        let name: RecipePath = path.parse()?;
        let of_all = (self.limits.recipe_bytes as u64).saturating_sub(self.bytes);
        let most =
            if path == ENVELOPE_FILE { ENVELOPE_BYTES } else { (self.limits.file_bytes as u64).min(of_all) };
        if size > most {
            return Err(IntakeError::TooLarge { path: path.to_owned(), size, limit: most });
        }
        if path != ENVELOPE_FILE {
            self.bytes += size;
        }
        Ok(Admitted { path: name, most: size })
    }

    /// Takes the bytes of an admitted file.
    pub(super) fn add(
        &mut self,
        file: Admitted,
        bytes: Vec<u8>,
        executable: bool,
    ) -> Result<(), IntakeError> {
        if bytes.len() as u64 != file.most {
            return Err(IntakeError::Changed { path: file.path.to_string() });
        }
        if file.path == ENVELOPE_FILE {
            self.envelope = Some(bytes);
        } else {
            self.builder.add(file.path.as_str(), bytes, executable)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<RecipeFiles, IntakeError> {
        Ok(RecipeFiles { payload: self.builder.finish()?, envelope: self.envelope })
    }
}
