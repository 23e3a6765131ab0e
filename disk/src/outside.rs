//! Bytes of the disk that no file can own: a partition table or another file system could hide there.

use crate::error::DiskError;
use crate::ext4::Volume;
use crate::report::Outside;

const SECTOR: u64 = 512;
/// Bytes that are compared at once.
const PIECE: u64 = 64 * 1024;

/// Compares them, where a layer holds any.
pub(crate) fn compare(base: &Volume<'_>, sealed: &Volume<'_>) -> Result<Outside, DiskError> {
    let mut first_sector = None;
    let mut count = 0;
    let [mut before, mut after] = [vec![0; PIECE as usize], vec![0; PIECE as usize]];
    for range in sealed.unowned() {
        let mut at = range.start;
        while at < range.end {
            // Pieces end where sectors do.
            let end = ((at / PIECE + 1) * PIECE).min(range.end);
            if sealed.chain().layers_hold(at..end) {
                let length = (end - at) as usize;
                base.chain().read(at, &mut before[..length])?;
                sealed.chain().read(at, &mut after[..length])?;
                let mut sector = at / SECTOR;
                let mut from = 0;
                while from < length {
                    let to = ((((sector + 1) * SECTOR) - at) as usize).min(length);
                    if before[from..to] != after[from..to] {
                        first_sector.get_or_insert(sector);
                        count += 1;
                    }
                    (sector, from) = (sector + 1, to);
                }
            }
            at = end;
        }
    }
    Ok(match first_sector {
        None => Outside::Equal,
        Some(first_sector) => Outside::Different { first_sector, count },
    })
}
