//! The journal: nothing in it may wait to be written back, for the kernel would do so before it reads anything.

use crate::error::Fault;

const MAGIC: u32 = 0xc03b_3998;

/// Checks the journal's first block.
pub(super) fn check_empty(block: &[u8]) -> Result<(), Fault> {
    let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    // A superblock of version 2; `s_start` and `s_errno`.
    if word(0) != MAGIC || word(4) != 4 {
        return Err(Fault::unsupported("its journal is of no kind that is read"));
    }
    if word(0x1c) != 0 || word(0x20) != 0 {
        return Err(Fault::unsupported("its journal is not empty, or says that there were errors"));
    }
    Ok(())
}
