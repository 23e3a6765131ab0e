//! Frames: `length: u32 BE | kind: u8 | id: u32 BE | body`, where `length` counts everything after itself.
//!
//! A reader refuses a length above [`MAX_BODY`] before it allocates, so a hostile peer can cost at most
//! one buffer of that size.

use std::io::{self, Read, Write};

/// The longest body of one frame, in bytes. Larger content is split over several frames.
pub const MAX_BODY: usize = 256 * 1024;

/// Bytes of `kind` and `id`, which `length` also counts.
const OVERHEAD: usize = 1 + 4;

/// One frame. `kind` is not interpreted here: each port has its own kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; see [`crate::control`] and [`crate::relay`].
    pub kind: u8,
    /// The request (control) or stream (relay) it belongs to.
    pub id: u32,
    /// At most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
}

/// Why no frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the port, or reading or writing failed.
    #[error("the port failed: {0}")]
    Io(#[from] io::Error),
    /// The peer announced a frame longer than allowed; nothing of it was read.
    #[error("a frame of {length} bytes was announced, the limit is {limit}")]
    TooLong {
        /// As announced, in bytes.
        length: usize,
        /// The largest length accepted, in bytes.
        limit: usize,
    },
    /// The announced length does not even hold kind and id.
    #[error("a frame of {length} bytes is shorter than its own head")]
    TooShort {
        /// As announced, in bytes.
        length: usize,
    },
}

impl Frame {
    /// Reads one frame, blocking until it is whole.
    ///
    /// # Errors
    /// [`FrameError`]; after any of them the port cannot be used any more.
    pub fn read(from: &mut impl Read) -> Result<Self, FrameError> {
        let mut head = [0; 4];
        from.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head) as usize;
        let limit = MAX_BODY + OVERHEAD;
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        if length < OVERHEAD {
            return Err(FrameError::TooShort { length });
        }
        let mut kind = [0; 1];
        from.read_exact(&mut kind)?;
        let mut id = [0; 4];
        from.read_exact(&mut id)?;
        let mut body = vec![0; length - OVERHEAD];
        from.read_exact(&mut body)?;
        Ok(Self { kind: kind[0], id: u32::from_be_bytes(id), body })
    }

    /// Writes the frame in one call of `write_all`, so that frames of several threads behind a lock
    /// never mix.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if the body is above [`MAX_BODY`]; [`FrameError::Io`].
    pub fn write(&self, to: &mut impl Write) -> Result<(), FrameError> {
        let length = self.body.len() + OVERHEAD;
        let limit = MAX_BODY + OVERHEAD;
        let (Ok(announced), true) = (u32::try_from(length), length <= limit) else {
            return Err(FrameError::TooLong { length, limit });
        };
        let mut bytes = Vec::with_capacity(4 + length);
        bytes.extend_from_slice(&announced.to_be_bytes());
        bytes.push(self.kind);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        to.write_all(&bytes)?;
        to.flush()?;
        Ok(())
    }
}
