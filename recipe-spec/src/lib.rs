//! What a recipe is.
