//! Whole commands through the binary: what it writes, what it says, and how it ends. No machine is started.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod attack;
mod authorizing;
mod clock;
mod ending;
mod host;
mod hostile_files;
mod lists;
#[path = "../../../deployer/tests/deploy_check/minted.rs"]
mod minted;
mod publishing;
mod signing;
mod site;
mod standing;
mod trust;
mod world;
