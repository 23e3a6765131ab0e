//! Risky directives in recipes.
