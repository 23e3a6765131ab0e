//! What a recipe is: its manifest, the files beside it, their digest, and the statement that is signed.
//!
//! Bytes come in, values go out: nothing here reads a disk, a network or a clock. Whoever fetched the files
//! puts them into a [`Payload`], [`Recipe::from_payload`] judges them, and every later stage takes a [`Recipe`].
//! Everything that comes in is hostile until then: sizes are [`limits::Limits`], paths cannot leave the folder,
//! and a field that nobody knows is an error.

pub mod code;
pub mod diagnostic;
pub mod digest;
pub mod limits;
pub mod listing;
pub mod manifest;
pub mod name;
mod nesting;
pub mod path;
pub mod payload;
pub mod recipe;
pub mod statement;
pub mod text;
pub mod timestamp;

pub use code::Code;
pub use digest::Sha256Digest;
pub use limits::Limits;
pub use manifest::Manifest;
pub use name::{OriginName, RecipeName, UserName, VoName};
pub use path::{GuestPath, RecipePath};
pub use payload::{Payload, PayloadFile};
pub use recipe::{Recipe, RecipeError};
pub use timestamp::Timestamp;

/// The manifest's place in a recipe's folder.
pub const MANIFEST_FILE: &str = "recipe.toml";
/// The signature's place in a recipe's folder; not part of the digest.
pub const ENVELOPE_FILE: &str = "recipe.intoto.jsonl";

/// True for what lies in a recipe's folder and is not part of its digest: the top-level envelope and `.git`.
/// `path` is relative to the folder, with `/` between names.
pub fn is_outside_digest(path: &str) -> bool {
    path == ENVELOPE_FILE || path == ".git" || path.starts_with(".git/")
}
