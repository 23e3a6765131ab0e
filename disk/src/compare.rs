//! The comparison, on one screen.

use std::fs::File;

use crate::chain::{self, Chain};
use crate::error::{DiskError, Which};
use crate::ext4::Volume;
use crate::limits::Limits;
use crate::merge::Walk;
use crate::outside;
use crate::report::Comparison;

/// How a machine left its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It was powered off in order, and whoever mounts the disk next must find nothing to do.
    PoweredOff,
    /// It was paused with its file system frozen (`FIFREEZE`), and only clones of that very machine go on with the disk. Its programs
    /// may hold files open that have no name any more: orphans, of which nobody but they can read a byte.
    Frozen,
}

/// Compares a disk with its base: `layers` lie on `base`, bottom up.
///
/// The files are read through the descriptors given, at explicit offsets: nothing else is opened, and no file position moves.
///
/// # Errors
/// [`DiskError`], and no list, if anything on either disk is not understood, contradicts itself or exceeds a limit.
pub fn compare(base: &File, layers: &[File], left: Left, limits: &Limits) -> Result<Comparison, DiskError> {
    compare_and_list(base, layers, left, limits).map(|(comparison, _)| comparison)
}

/// As [`compare`], and every path of the base beside it, escaped as the paths of changes are, in no order.
///
/// # Errors
/// As [`compare`].
pub fn compare_and_list(
    base: &File,
    layers: &[File],
    left: Left,
    limits: &Limits,
) -> Result<(Comparison, Vec<String>), DiskError> {
    let images = chain::open(base, layers, limits)?;
    let mut before = Volume::open(Chain::new(&images[..1]), *limits, Left::PoweredOff, None)
        .map_err(|fault| fault.of(Which::Base))?;
    let mut after = Volume::open(Chain::new(&images), *limits, left, Some(&before))
        .map_err(|fault| fault.of(Which::Sealed))?;
    let outside = outside::compare(&before, &after)?;
    let (changes, base_paths) = Walk::new(&mut before, &mut after, *limits).changes()?;
    before.check_account().map_err(|fault| fault.of(Which::Base))?;
    after.check_account().map_err(|fault| fault.of(Which::Sealed))?;
    Ok((Comparison { files: after.paths(), changes, outside }, base_paths))
}
