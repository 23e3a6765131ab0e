//! What the crate promises, through its public functions: one binary, so that it links once.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod chains;
mod dsse_vectors;
mod keys;
mod openssl;
mod roles;
mod support;
mod tampering;
