//! `download`: the host fetched it; here its digest is checked once more and it is put in its place.

use std::path::Path;

use guest::control::{AgentError, StepOutcome};
use recipe_spec::manifest::DownloadStep;

use super::{Workshop, file};

/// A file's mode if the step names none.
const FILE_MODE: u32 = 0o644;
/// Folder in the payload where the host lays what it fetched, each by its digest.
const FETCHED: &str = ".download";

pub(super) fn place(workshop: &Workshop<'_>, step: &DownloadStep) -> Result<StepOutcome, AgentError> {
    let mode = step.mode.map_or(FILE_MODE, |mode| mode.bits());
    let attributes = workshop.attributes(mode, step.owner.as_ref(), step.group.as_ref())?;
    let source = workshop.payload.join(FETCHED).join(step.sha256.to_hex());
    file::place(workshop, &source, Path::new(step.path.as_str()), attributes, Some(&step.sha256))
}
