//! How large anything may be. Every limit has a name, and no input is read without one.

use serde::{Deserialize, Serialize};

/// What a recipe may use. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Files in a recipe, `recipe.toml` included.
    pub files: usize,
    /// Content of one file.
    pub file_bytes: usize,
    /// Content of all files together.
    pub recipe_bytes: usize,
    /// A path within the recipe.
    pub path_bytes: usize,
    /// Names in a path within the recipe: `a/b` has two.
    pub path_depth: usize,
    /// `recipe.toml`.
    pub manifest_bytes: usize,
    /// Brackets, braces and dotted keys within each other in `recipe.toml`, counted before it is parsed.
    pub manifest_nesting: usize,
    /// `[[step]]` tables.
    pub steps: usize,
    /// `[[test]]` tables.
    pub tests: usize,
    /// Elements of any other list in the manifest.
    pub list_elements: usize,
    /// A shell command in the manifest.
    pub command_bytes: usize,
    /// Any other single line of text in the manifest.
    pub line_bytes: usize,
    /// Mistakes that one report tells.
    pub diagnostics: usize,
    /// A statement's JSON.
    pub statement_bytes: usize,
}

impl Limits {
    /// What every command uses unless told otherwise: a recipe is a few KB of text, so these are generous.
    pub const STANDARD: Limits = Limits {
        files: 512,
        file_bytes: 4 * MIB,
        recipe_bytes: 16 * MIB,
        path_bytes: 512,
        path_depth: 16,
        manifest_bytes: 256 * KIB,
        manifest_nesting: 16,
        steps: 512,
        tests: 128,
        list_elements: 256,
        command_bytes: 16 * KIB,
        line_bytes: 2 * KIB,
        diagnostics: 64,
        statement_bytes: MIB,
    };
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
