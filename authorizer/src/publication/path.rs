//! Where a file lies within a version's folder.

use std::fmt;
use std::str::FromStr;

use recipe_spec::RecipePath;
use recipe_spec::text::Malformed;

use super::RECIPE_FOLDER;

/// A path within a version's folder: one of the recipe below [`RECIPE_FOLDER`], or one by the same rules beside it. That folder
/// does not count against the limits of a path, or a recipe's longest and deepest ones could not be published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPath(String);

impl PublishedPath {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublishedPath {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of_recipe = text.strip_prefix(RECIPE_FOLDER).and_then(|below| below.strip_prefix('/'));
        of_recipe.unwrap_or(text).parse::<RecipePath>()?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PublishedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
