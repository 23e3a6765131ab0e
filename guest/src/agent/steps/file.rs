//! `file`, `directory` and `link`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use guest::control::{AgentError, StepOutcome};
use recipe_spec::digest::Sha256Digest;
use recipe_spec::manifest::{DirectoryStep, FileStep, LinkStep};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Workshop, outcome};
use crate::agent::content::{self, Attributes, temporary_name};
use crate::agent::failure;
use crate::agent::root::{FOLDER_MODE, LastLink, stat_in};

/// A file's mode if the step names none.
const FILE_MODE: u32 = 0o644;
/// Longest target of a link (`PATH_MAX`), in bytes.
const MAX_TARGET: usize = 4096;

pub(super) fn file(workshop: &Workshop<'_>, step: &FileStep) -> Result<StepOutcome, AgentError> {
    let mode = step.mode.map_or(FILE_MODE, |mode| mode.bits());
    let attributes = workshop.attributes(mode, step.owner.as_ref(), step.group.as_ref())?;
    let path = Path::new(step.path.as_str());
    match (&step.source, &step.content) {
        (Some(source), None) => place(workshop, &workshop.in_payload(source), path, attributes, None),
        (None, Some(content)) => {
            let digest = Sha256Digest::of(content.as_bytes());
            let announced = (&digest, content.len() as u64);
            content::put(workshop.root, path, attributes, announced, &mut content.as_bytes())
        }
        _ => Err(failure::bad_request("a file step has exactly one of `source` and `content`")),
    }
}

/// Copies a file of the payload to `path`; its content must have the digest `expected`, if one is given.
pub(super) fn place(
    workshop: &Workshop<'_>,
    source: &Path,
    path: &Path,
    attributes: Attributes,
    expected: Option<&Sha256Digest>,
) -> Result<StepOutcome, AgentError> {
    let measured = workshop.root.open_regular(source, LastLink::Refused).and_then(|mut file: File| {
        let (digest, size) = content::measure(&mut file)?;
        Ok((file, digest, size))
    });
    let (mut file, digest, size) =
        measured.map_err(|error| failure::system(format_args!("read {}", source.display()), error))?;
    if let Some(expected) = expected.filter(|expected| **expected != digest) {
        return Err(failure::bad_request(format!(
            "{} has the sha256 {digest}, not {expected}",
            source.display()
        )));
    }
    content::put(workshop.root, path, attributes, (&digest, size), &mut file)
}

pub(super) fn directory(workshop: &Workshop<'_>, step: &DirectoryStep) -> Result<StepOutcome, AgentError> {
    let mode = step.mode.map_or(FOLDER_MODE, |mode| mode.bits());
    let attributes = workshop.attributes(mode, step.owner.as_ref(), step.group.as_ref())?;
    let path = Path::new(step.path.as_str());
    let made = || -> io::Result<bool> {
        let (folder, name) = workshop.root.parent_made(path)?;
        let made = match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
        Ok(attributes.settle(&open, &rustix::fs::fstat(&open)?)? || made)
    };
    made()
        .map(outcome)
        .map_err(|error| failure::system(format_args!("make the directory {}", path.display()), error))
}

pub(super) fn link(workshop: &Workshop<'_>, step: &LinkStep) -> Result<StepOutcome, AgentError> {
    let path = Path::new(step.path.as_str());
    if step.target.is_empty() || step.target.len() > MAX_TARGET || step.target.contains('\0') {
        return Err(failure::bad_request("the target of a link is empty, too long or holds a zero byte"));
    }
    let linked = || -> io::Result<bool> {
        let (folder, name) = workshop.root.parent_made(path)?;
        if points_to(&folder, name, &step.target)? {
            return Ok(false);
        }
        // A new link under another name, then a rename: whoever looks sees the old or the new, never nothing.
        let temporary = temporary_name();
        rustix::fs::symlinkat(&step.target, &folder, &temporary)?;
        if let Err(error) = rustix::fs::renameat(&folder, &temporary, &folder, name) {
            rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty())?;
            return Err(error.into());
        }
        Ok(true)
    };
    linked()
        .map(outcome)
        .map_err(|error| failure::system(format_args!("make the link {}", path.display()), error))
}

fn points_to(folder: &OwnedFd, name: &OsStr, target: &str) -> io::Result<bool> {
    match stat_in(folder, name)? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            Ok(rustix::fs::readlinkat(folder, name, Vec::new())?.as_bytes() == target.as_bytes())
        }
        _ => Ok(false),
    }
}
