//! The files of a recipe, in memory, checked: no path leads out, none is both file and folder, all within limits.

use std::collections::BTreeMap;

use crate::is_outside_digest;
use crate::limits::Limits;
use crate::path::RecipePath;
use crate::text::{Malformed, quoted};

/// A regular file of a recipe. There are no links, devices or other kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFile {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether the owner's x bit is set; nothing else of a mode counts.
    pub executable: bool,
}

/// The files that a recipe's digest covers, in the byte order of their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    files: BTreeMap<RecipePath, PayloadFile>,
}

/// Why files do not make a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// A path that breaks the rules.
    #[error(transparent)]
    Path(#[from] Malformed),
    /// The envelope or something of `.git`, which the digest does not cover.
    #[error("{path} is not part of a recipe's payload")]
    OutsideDigest {
        /// The path, quoted.
        path: String,
    },
    /// The same path twice.
    #[error("{path} comes twice")]
    Duplicate {
        /// The path, quoted.
        path: String,
    },
    /// A path that is a file here and a folder there.
    #[error("{path} is both a file and a folder")]
    FileAndFolder {
        /// The path, quoted.
        path: String,
    },
    /// Too many files.
    #[error("more than {most} files in the recipe")]
    TooManyFiles {
        /// [`Limits::files`].
        most: usize,
    },
    /// A file that is too large.
    #[error("{path} has {size} bytes, and {most} are allowed for a file")]
    FileTooLarge {
        /// The path, quoted.
        path: String,
        /// Its size in bytes.
        size: usize,
        /// [`Limits::file_bytes`].
        most: usize,
    },
    /// All files together are too large.
    #[error("more than {most} bytes in the recipe")]
    TooLarge {
        /// [`Limits::recipe_bytes`].
        most: usize,
    },
    /// A path that these limits do not allow.
    #[error("{path} is too long or too deep: {bytes} bytes and {depth} names are allowed")]
    PathTooLong {
        /// The path, quoted and cut.
        path: String,
        /// [`Limits::path_bytes`].
        bytes: usize,
        /// [`Limits::path_depth`].
        depth: usize,
    },
}

/// Collects a payload; every file is judged as it comes, so memory stays within the limits.
#[derive(Debug)]
pub struct PayloadBuilder {
    limits: Limits,
    files: BTreeMap<RecipePath, PayloadFile>,
    bytes: usize,
}

impl Payload {
    /// Begins a payload within `limits`.
    pub fn builder(limits: &Limits) -> PayloadBuilder {
        PayloadBuilder { limits: *limits, files: BTreeMap::new(), bytes: 0 }
    }

    /// All files, in the byte order of their paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RecipePath, &PayloadFile)> {
        self.files.iter()
    }

    /// The file at `path`.
    pub fn file(&self, path: &RecipePath) -> Option<&PayloadFile> {
        self.files.get(path)
    }

    /// The file at `path`, given as text.
    pub fn file_at(&self, path: &str) -> Option<&PayloadFile> {
        self.files.get(&path.parse().ok()?)
    }

    /// Bytes of all files together.
    pub fn size(&self) -> usize {
        self.files.values().map(|file| file.bytes.len()).sum()
    }
}

impl PayloadBuilder {
    /// Adds a regular file. What [`is_outside_digest`] names must be left out by the caller.
    pub fn add(&mut self, path: &str, bytes: Vec<u8>, executable: bool) -> Result<&mut Self, PayloadError> {
        if is_outside_digest(path) {
            return Err(PayloadError::OutsideDigest { path: quoted(path) });
        }
        let path: RecipePath = path.parse()?;
        if path.as_str().len() > self.limits.path_bytes || path.folders().count() >= self.limits.path_depth {
            return Err(PayloadError::PathTooLong {
                path: quoted(path.as_str()),
                bytes: self.limits.path_bytes,
                depth: self.limits.path_depth,
            });
        }
        if self.files.len() >= self.limits.files {
            return Err(PayloadError::TooManyFiles { most: self.limits.files });
        }
        if bytes.len() > self.limits.file_bytes {
            let most = self.limits.file_bytes;
            return Err(PayloadError::FileTooLarge { path: quoted(path.as_str()), size: bytes.len(), most });
        }
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > self.limits.recipe_bytes {
            return Err(PayloadError::TooLarge { most: self.limits.recipe_bytes });
        }
        if self.files.contains_key(&path) {
            return Err(PayloadError::Duplicate { path: quoted(path.as_str()) });
        }
        self.files.insert(path, PayloadFile { bytes, executable });
        Ok(self)
    }

    /// The payload, unless a path is both file and folder.
    pub fn finish(self) -> Result<Payload, PayloadError> {
        for path in self.files.keys() {
            for folder in path.folders() {
                // A folder of a valid path is a valid path.
                if folder.parse().is_ok_and(|folder: RecipePath| self.files.contains_key(&folder)) {
                    return Err(PayloadError::FileAndFolder { path: quoted(folder) });
                }
            }
        }
        Ok(Payload { files: self.files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(limits: &Limits, files: &[(&str, usize)]) -> Result<Payload, PayloadError> {
        let mut builder = Payload::builder(limits);
        for (path, size) in files {
            builder.add(path, vec![b'x'; *size], false)?;
        }
        builder.finish()
    }

    #[test]
    fn limits_are_kept_to_the_byte() {
        let limits = Limits {
            files: 2,
            file_bytes: 4,
            recipe_bytes: 6,
            path_bytes: 5,
            path_depth: 2,
            ..Limits::STANDARD
        };
        assert_eq!(add(&limits, &[("a", 4), ("b", 2)]).unwrap().size(), 6);
        assert!(matches!(
            add(&limits, &[("a", 5)]),
            Err(PayloadError::FileTooLarge { size: 5, most: 4, .. })
        ));
        assert!(matches!(add(&limits, &[("a", 4), ("b", 3)]), Err(PayloadError::TooLarge { most: 6 })));
        assert!(matches!(
            add(&limits, &[("a", 0), ("b", 0), ("c", 0)]),
            Err(PayloadError::TooManyFiles { most: 2 })
        ));
        assert!(add(&limits, &[("a/bcd", 0)]).is_ok());
        assert!(matches!(add(&limits, &[("a/bcde", 0)]), Err(PayloadError::PathTooLong { .. })));
        assert!(matches!(add(&limits, &[("a/b/c", 0)]), Err(PayloadError::PathTooLong { .. })));
    }

    #[test]
    fn files_that_cannot_lie_in_one_folder() {
        let limits = Limits::STANDARD;
        assert!(matches!(add(&limits, &[("a", 0), ("a", 0)]), Err(PayloadError::Duplicate { .. })));
        assert!(matches!(add(&limits, &[("a/b", 0), ("a", 0)]), Err(PayloadError::FileAndFolder { .. })));
        assert!(matches!(add(&limits, &[("../a", 0)]), Err(PayloadError::Path(_))));
        for outside in ["recipe.intoto.jsonl", ".git", ".git/config"] {
            assert!(
                matches!(add(&limits, &[(outside, 0)]), Err(PayloadError::OutsideDigest { .. })),
                "{outside}"
            );
        }
        // Only the top level is outside the digest.
        assert!(add(&limits, &[("x/recipe.intoto.jsonl", 0), ("x/.gitkeep", 0), (".gitignore", 0)]).is_ok());
        assert!(matches!(add(&limits, &[("x/.git", 0)]), Err(PayloadError::Path(_))));
    }
}
