//! The listing: the text that a recipe's digest is the SHA-256 of. Anyone can redo it with `sha256sum`.

use std::fmt::Write as _;

use crate::digest::Sha256Digest;
use crate::payload::Payload;

/// The listing's first line.
pub const LISTING_HEADER: &str = "countersign recipe v1\n";

/// [`LISTING_HEADER`], then for each file in byte order of its path `<sha256 hex> <0644|0755> <path>\n`.
pub fn listing(payload: &Payload) -> String {
    let mut listing = LISTING_HEADER.to_owned();
    for (path, file) in payload.iter() {
        let mode = if file.executable { "0755" } else { "0644" };
        let _ = writeln!(listing, "{} {mode} {path}", Sha256Digest::of(&file.bytes));
    }
    listing
}
