//! The relay port: connections of a building guest, carried to the proxy on the host.
//!
//! The agent listens on [`LISTEN`] inside the guest and numbers each accepted connection (ids only grow).
//! Either side may send at most the credit it was given: it starts with [`WINDOW`] bytes for each
//! direction of a stream and is topped up by `CREDIT`. Sending without credit, opening more than
//! [`MAX_STREAMS`], or naming a stream that is not open is a breach of protocol (a frame that crosses a `CLOSE`
//! on the way is not: it is dropped).
//!
//! ```text
//! agent: OPEN id            a program in the guest has connected
//! both:  DATA id bytes      at most the credit left
//! both:  CREDIT id u32-BE   the receiver has passed on so many bytes
//! both:  SHUT id            no more DATA from this side (TCP half-close)
//! both:  CLOSE id           the stream is gone, both ways
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

/// Name of the relay port.
pub const PORT: &str = "org.countersign.relay";
/// Where programs in the guest find the proxy.
pub const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3128);
/// Bytes that may be under way in one direction of one stream without being acknowledged.
pub const WINDOW: u32 = 256 * 1024;
/// Streams open at one time.
pub const MAX_STREAMS: usize = 32;

/// A new stream (agent to host only).
pub const OPEN: u8 = 1;
/// Bytes of a stream.
pub const DATA: u8 = 2;
/// More credit for the receiver of this frame: a `u32` in network byte order.
pub const CREDIT: u8 = 3;
/// End of this side's bytes.
pub const SHUT: u8 = 4;
/// End of the stream.
pub const CLOSE: u8 = 5;
