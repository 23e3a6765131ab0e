//! The comparison, on one screen.

use std::fs::File;

use crate::chain::{self, Chain};
use crate::error::{DiskError, Which};
use crate::ext4::Volume;
use crate::limits::Limits;
use crate::merge::Walk;
use crate::outside;
use crate::report::Comparison;

/// Compares the sealed disk with its base: `sealed` are the layers on `base`, bottom up.
///
/// The files are read through the descriptors given, at explicit offsets: nothing else is opened, and no file position moves.
///
/// # Errors
/// [`DiskError`], and no list, if anything on either disk is not understood, contradicts itself or exceeds a limit.
pub fn compare(base: &File, sealed: &[File], limits: &Limits) -> Result<Comparison, DiskError> {
    compare_and_list(base, sealed, limits).map(|(comparison, _)| comparison)
}

/// As [`compare`], and every path of the base beside it, escaped as the paths of changes are, in no order.
///
/// # Errors
/// As [`compare`].
pub fn compare_and_list(
    base: &File,
    sealed: &[File],
    limits: &Limits,
) -> Result<(Comparison, Vec<String>), DiskError> {
    let images = chain::open(base, sealed, limits)?;
    let mut before =
        Volume::open(Chain::new(&images[..1]), *limits, None).map_err(|fault| fault.of(Which::Base))?;
    let mut after =
        Volume::open(Chain::new(&images), *limits, Some(&before)).map_err(|fault| fault.of(Which::Sealed))?;
    let outside = outside::compare(&before, &after)?;
    let (changes, base_paths) = Walk::new(&mut before, &mut after, *limits).changes()?;
    before.check_account().map_err(|fault| fault.of(Which::Base))?;
    after.check_account().map_err(|fault| fault.of(Which::Sealed))?;
    Ok((Comparison { files: after.paths(), changes, outside }, base_paths))
}
