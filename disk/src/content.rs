//! Whether two files have the same content, without reading it where that is proven, and by hashing both where it is not.

use recipe_spec::digest::Sha256Digest;
use sha2::{Digest, Sha256};

use crate::error::Fault;
use crate::ext4::{Visited, Volume};

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// How many bytes may still be hashed.
pub(crate) struct Budget {
    allowed: u64,
    left: u64,
}

impl Budget {
    pub(crate) fn new(allowed: u64) -> Self {
        Budget { allowed, left: allowed }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Fault> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| Fault::limit("bytes of file content to hash, holes included", self.allowed))?;
        Ok(())
    }
}

/// Whether both files are sure to have the same content: the same length in the same blocks, of which no layer holds any.
pub(crate) fn is_untouched(before: &Visited, after: &Visited, sealed: &Volume<'_>) -> bool {
    before.inode.size() == after.inode.size()
        && before.runs == after.runs
        && !after.runs.iter().filter(|run| run.written).any(|run| {
            let start = run.physical * sealed.block_size();
            sealed.chain().layers_hold(start..start + run.length * sealed.block_size())
        })
}

/// The digest of a regular file's content.
pub(crate) fn digest(
    file: &Visited,
    volume: &Volume<'_>,
    budget: &mut Budget,
) -> Result<Sha256Digest, Fault> {
    let size = file.inode.size();
    budget.spend(size)?;
    let block = volume.block_size();
    let mut state = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    for run in file.runs.iter().filter(|run| run.written) {
        let start = (run.logical * block).min(size);
        let end = ((run.logical + run.length) * block).min(size);
        zeros(&mut state, start - at);
        at = start;
        while at < end {
            let piece = &mut buffer[..PIECE.min(usize::try_from(end - at).unwrap_or(PIECE))];
            volume.chain().read(run.physical * block + (at - run.logical * block), piece)?;
            state.update(&*piece);
            at += piece.len() as u64;
        }
    }
    zeros(&mut state, size - at);
    Ok(Sha256Digest::from_bytes(state.finalize().into()))
}

fn zeros(state: &mut Sha256, count: u64) {
    let mut left = count;
    while left > 0 {
        let piece = left.min(PIECE as u64);
        state.update(&ZEROS[..piece as usize]);
        left -= piece;
    }
}
