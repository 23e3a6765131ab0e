//! Whole commands through the binary: what it writes, what it says, and how it ends. No machine is started.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod authorizing;
mod ending;
mod publishing;
mod signing;
mod site;
mod world;
