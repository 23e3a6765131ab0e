//! The protocol between host and agent, and the parts of the agent that both sides share.
//!
//! One idea: two virtio-serial ports, one for *control* (the host asks, the agent answers) and, on
//! building machines only, one for the *relay* (connections of the guest to the host's proxy). Both
//! carry the same small frames. Neither side trusts a length it has not checked: see [`frame`].

pub mod control;
pub mod facts;
pub mod frame;
pub mod relay;
