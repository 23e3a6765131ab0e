//! The published folder: `crl.intoto.jsonl` (header) and `crl.body`.
//!
//! Two files cannot be replaced at once, so the header is the list: whoever reads takes the body that the header names.
//! A writer puts the new body beside the old one as `crl.next.body`, then replaces the header (the list is published
//! in that instant), then renames the body. A reader that finds `crl.body` to be another than the header says looks at
//! `crl.next.body`, and if that is gone meanwhile, begins again. So a reader needs no lock, and a writer killed at any
//! instant leaves the old list or the new one.
//!
//! Nothing is trusted here; the digest in a header only says which file belongs to it, and [`RecipeCrl::verify`] judges.
//!
//! [`RecipeCrl::verify`]: crate::RecipeCrl::verify

use std::borrow::Cow;
use std::path::Path;

use recipe_spec::digest::Sha256Digest;
use signer::dsse::Envelope;

use crate::body::MAX_BODY_BYTES;
use crate::error::CrlError;
use crate::file;
use crate::header::Header;
use crate::list::{BODY_NAME, check_body, parse_header};
use crate::mark::{Advance, Mark};

/// The header's file.
pub const HEADER_FILE: &str = "crl.intoto.jsonl";

/// The body's file.
pub const BODY_FILE: &str = BODY_NAME;

/// The next body's file, there only while a list is being published or when that was cut short.
pub const NEXT_BODY_FILE: &str = "crl.next.body";

/// Held by whoever publishes. The folder itself is for all to read, and so for all to lock: it is none.
const LOCK_FILE: &str = "crl.lock";

/// Most bytes of a header's file. A header has some 700; the certificates around it take the rest.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// How often a reader begins again when lists are published under its hands.
const READ_TRIES: usize = 5;

/// Reads the published list: the header's bytes and those of the body that it names. Unverified.
///
/// # Errors
/// `CRL_MISSING` if there is no header or no body, `CRL_INVALID` if one is larger than any list.
pub fn load(folder: &Path) -> Result<(Vec<u8>, Vec<u8>), CrlError> {
    for _ in 0..READ_TRIES {
        let header_bytes = read_header(folder)?;
        let Ok((header, _)) = parse_untrusted(&header_bytes) else { break };
        for name in [BODY_FILE, NEXT_BODY_FILE] {
            match file::read_if_present(&folder.join(name), MAX_BODY_BYTES as u64)? {
                Some(body) if is_body_of(&header, &body) => return Ok((header_bytes, body)),
                _ => {}
            }
        }
    }
    // No pair fits. Verification will say in which way.
    Ok((read_header(folder)?, file::read(&folder.join(BODY_FILE), MAX_BODY_BYTES as u64)?))
}

/// Publishes a list in `folder`, which is made if it does not exist. The list must follow the one that lies there as it
/// would for a reader, so of two publishers who extended the same list the second is refused, and a restored backup
/// does not publish a number twice. To store the list that lies there again changes nothing.
///
/// # Errors
/// `CRL_ROLLBACK`, `CRL_EQUIVOCATION`, `CRL_FORK` against the list that lies there; `CRL_INVALID` if header and body do not
/// belong together, or what lies there is no list; `HOST_FULL` or `CRL_MISSING` if it cannot be written.
pub fn store(folder: &Path, header: &[u8], body: &[u8]) -> Result<(), CrlError> {
    if header.len() > MAX_HEADER_BYTES {
        return Err(CrlError::TooLarge { path: folder.join(HEADER_FILE), limit: MAX_HEADER_BYTES as u64 });
    }
    let (parsed, next) = parse_untrusted(header)?;
    check_body(&parsed, Cow::Borrowed(body))?;

    file::make_folder(folder)?;
    let _lock = file::lock(&folder.join(LOCK_FILE))?;
    finish_interrupted(folder)?;
    if let Some(present) = file::read_if_present(&folder.join(HEADER_FILE), MAX_HEADER_BYTES as u64)? {
        let (_, present) = parse_untrusted(&present)?;
        if present.admits(&next, parsed.previous())? == Advance::Same {
            return Ok(());
        }
    }
    file::replace(folder, NEXT_BODY_FILE, body)?;
    file::replace(folder, HEADER_FILE, header)?;
    file::rename(folder, &folder.join(NEXT_BODY_FILE), BODY_FILE)
}

/// Ends what a killed publisher began: the body that its header names takes its place. Otherwise the next body would be
/// overwritten while the header in force still needs it.
fn finish_interrupted(folder: &Path) -> Result<(), CrlError> {
    let next = folder.join(NEXT_BODY_FILE);
    let Some(body) = file::read_if_present(&next, MAX_BODY_BYTES as u64)? else { return Ok(()) };
    let Some(header) = file::read_if_present(&folder.join(HEADER_FILE), MAX_HEADER_BYTES as u64)? else {
        return Ok(());
    };
    let (header, _) = parse_untrusted(&header)?;
    if is_body_of(&header, &body) { file::rename(folder, &next, BODY_FILE) } else { Ok(()) }
}

fn read_header(folder: &Path) -> Result<Vec<u8>, CrlError> {
    file::read(&folder.join(HEADER_FILE), MAX_HEADER_BYTES as u64)
}

fn is_body_of(header: &Header, body: &[u8]) -> bool {
    header.body_length == body.len() as u64 && header.body.sha256 == Sha256Digest::of(body)
}

/// What a header's file says, without knowing who says it.
fn parse_untrusted(header_envelope: &[u8]) -> Result<(Header, Mark), CrlError> {
    let envelope =
        Envelope::parse_untrusted(header_envelope).map_err(|error| CrlError::Statement(error.to_string()))?;
    let payload = envelope.payload_untrusted();
    let header = parse_header(payload)?;
    let mark = Mark::of(&header, Sha256Digest::of(payload));
    Ok((header, mark))
}
