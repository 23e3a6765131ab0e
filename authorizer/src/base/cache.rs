//! A cache of built bases, so that a new site of the same owner need not build what was built already.
//!
//! The cache is trusted as far as its owner is: its folders must be ours and nobody else may write to them. A base
//! from it is compared with its own statement, byte for byte, and signed anew by the site that takes it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use recipe_spec::Sha256Digest;
use signer::{Envelope, Signer};

use super::error::BaseError;
use super::workspace::Workspace;
use super::{BuildOptions, Built, FILES, Progress, STATEMENT_FILE, debian12, statement, write_new};

/// Names the program that built the cached base, in its folder.
const BUILDER_FILE: &str = "builder";
/// Longest builder's name that is read.
const MAX_BUILDER: u64 = 256;

/// A folder that keeps built bases, one folder each.
#[derive(Clone, Debug)]
pub struct BaseCache {
    folder: PathBuf,
}

impl BaseCache {
    /// The cache in `folder`, which need not exist yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Takes a base that this very program has built, if the cache has it whole; `None` if it has to be built.
    ///
    /// # Errors
    /// [`BaseError`]; a cache that others may write to is [`BaseError::Cache`].
    pub fn take(
        &self,
        options: &BuildOptions<'_>,
        signer: &Signer,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Built>, BaseError> {
        let cached = self.folder.join(options.name);
        match statement::read_bounded(&cached.join(BUILDER_FILE), MAX_BUILDER) {
            Ok(found) if found == builder().as_bytes() => {}
            Ok(_) | Err(BaseError::Mismatch { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        for folder in [&self.folder, &cached] {
            only_ours(folder)?;
        }
        let envelope = statement::read_bounded(&cached.join(STATEMENT_FILE), super::MAX_STATEMENT)?;
        let envelope = Envelope::parse_untrusted(&envelope).map_err(|error| damaged(&cached, &error))?;
        let opened = statement::open(envelope.payload_untrusted())?;
        if opened.predicate.name != options.name {
            return Err(damaged(&cached, &"it is another base"));
        }
        let workspace = Workspace::open(options.bases, options.name, progress)?;
        for (file, expected) in FILES.iter().zip(opened.digests) {
            let target = workspace.output().join(file);
            fs::copy(cached.join(file), &target)?;
            File::open(&target)?.sync_all()?;
            if statement::digest(&target)? != expected {
                return Err(damaged(&cached, &format!("{file} has changed since it was built")));
            }
        }
        let signed = statement::sign(&workspace.output(), opened.predicate, signer)?;
        write_new(&workspace.output().join(STATEMENT_FILE), &signed.envelope)?;
        let disk_bytes = fs::metadata(workspace.output().join(super::DISK_FILE))?.len();
        let folder = workspace.publish(options.existing)?;
        let name = options.name.to_owned();
        Ok(Some(Built { name, folder, sha256: signed.payload_sha256, disk_bytes, seconds: Vec::new() }))
    }

    /// Keeps a base that was just built, in place of an older one.
    ///
    /// # Errors
    /// [`BaseError::Io`]; the cache is then as before.
    pub fn keep(&self, built: &Built) -> Result<(), BaseError> {
        DirBuilder::new().recursive(true).mode(0o755).create(&self.folder)?;
        only_ours(&self.folder)?;
        let fresh = tempfile::Builder::new().prefix(".keep-").tempdir_in(&self.folder)?;
        let folder = fresh.path().join(&built.name);
        DirBuilder::new().mode(0o755).create(&folder)?;
        for file in FILES.iter().chain(&[STATEMENT_FILE]) {
            fs::copy(built.folder.join(file), folder.join(file))?;
            File::open(folder.join(file))?.sync_all()?;
        }
        write_new(&folder.join(BUILDER_FILE), builder().as_bytes())?;
        let target = self.folder.join(&built.name);
        if target.exists() {
            fs::rename(&target, fresh.path().join("old"))?;
        }
        fs::rename(&folder, &target)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(())
    }
}

/// Everything of this program that a base is made of: its data, the agent that looked at it, and a number for the rest
/// that goes up when trees come out otherwise.
fn builder() -> String {
    let mut text = format!("agent {}\n", Sha256Digest::of(harness::AGENT));
    text.push_str(debian12::PACKAGES);
    text.push_str(debian12::FINISH);
    for file in debian12::TREE {
        text.push_str(file.path);
        text.push_str(file.content);
    }
    format!("countersign base builder 2 {}\n", Sha256Digest::of(text.as_bytes()))
}

/// Refuses a folder that somebody else could have written to.
fn only_ours(folder: &Path) -> Result<(), BaseError> {
    let metadata = fs::symlink_metadata(folder)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && ours && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(BaseError::Cache {
        folder: folder.to_owned(),
        reason: "it must be a folder of yours that nobody else can write to".to_owned(),
    })
}

fn damaged(folder: &Path, reason: &dyn std::fmt::Display) -> BaseError {
    BaseError::Cache { folder: folder.to_owned(), reason: format!("{reason}; remove it to build anew") }
}
