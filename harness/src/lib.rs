//! QEMU through `std::process`: machines that are confined from their first instruction, spoken to over
//! a bounded wire, and gone when the process that made them is gone.
//!
//! ```text
//! MachineSpec ─digests checked→ descriptors ─arguments→ prlimit → setpriv → qemu ─hello→ Machine
//! ```
//!
//! QEMU is assumed to be escaped one day. It runs as a user of its own, sees no folder of ours, and
//! every file it works on reaches it as an open descriptor, read-only where it must not write. What a
//! guest says is bounded in size and time, and a breach of protocol ends the machine.
//!
//! Work of our own on hostile bytes is done in the same confinement, by a [`worker`].

pub mod accelerator;
mod address;
pub mod arguments;
pub mod artifact;
pub mod confinement;
mod console;
mod descriptors;
mod digests;
pub mod download;
mod error;
#[cfg(test)]
mod flood_tests;
pub mod identity;
pub mod initramfs;
mod left_over;
pub mod machine;
pub mod origin;
mod overlay;
mod port;
mod process;
mod proxy;
pub mod qemu;
mod qmp;
pub mod relay;
mod request;
pub mod spec;
pub mod template;
mod wire;
pub mod worker;

pub use accelerator::{Accelerator, Probe};
pub use artifact::Pinned;
pub use confinement::{Confinement, SameUser, UserRange};
pub use digests::{file_digest, remember_in as remember_digests_in};
pub use download::{DownloadLimits, fetch_download};
pub use error::HarnessError;
pub use guest::control::{AgentError, AgentErrorKind, Exec, Exited, Hello, Identity, Mode, StepOutcome};
pub use guest::facts::Facts;
pub use machine::{Machine, Sealed, SystemState};
pub use origin::{Origin, Prefix, RelayPolicy, relay_url};
pub use process::Killer;
pub use qemu::Qemu;
pub use relay::{RelayEvent, RelayLimits};
pub use spec::{
    Boot, DISK_COMMAND_LINE, DiskSpec, Forward, Initrd, MachineLimits, MachineSpec, Memory,
    NANO_COMMAND_LINE, Network, RelaySpec, Start, Written,
};
pub use template::{Shape, Template};
pub use wire::Output;

/// The static agent, as the build made it: an ELF program for x86-64.
pub const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/countersign-agent"));
