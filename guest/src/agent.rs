//! The parts of the agent; the protocol it speaks is in the library of this crate.

pub(crate) mod accounts;
pub(crate) mod child;
pub(crate) mod content;
pub(crate) mod escape;
pub(crate) mod exec;
pub(crate) mod facts;
pub(crate) mod failure;
pub(crate) mod freeze;
pub(crate) mod kmsg;
pub(crate) mod nano;
pub(crate) mod output;
pub(crate) mod placement;
pub(crate) mod port;
pub(crate) mod power;
pub(crate) mod relay;
pub(crate) mod root;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod sight;
pub(crate) mod steps;
pub(crate) mod stream;
