//! From an authorization to a running instance: everything is verified again, from bytes, against a fresh recipe CRL.
//!
//! ```text
//! name ─lookup→ bytes ─Deployable::check→ Deployable ─supervise→ instance
//! ```
//! This crate signs nothing and holds no key.

pub mod check;
mod handover;
pub mod instance;
pub mod supervisor;

pub use check::{Deployable, Order, PortForward};
pub use handover::Launched;
pub use instance::{Instance, InstanceError, Instances, Record, State};
pub use supervisor::supervise;
