//! Where a command's output goes: to the host in frames, into memory, or nowhere, always bounded.

use std::io::Write;

use guest::control;
use guest::frame::{Frame, FrameError};

/// Which of a command's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Takes output as it comes. It cannot fail: a sink that breaks remembers it and drops the rest.
pub(crate) trait Output {
    /// Takes some bytes.
    fn take(&mut self, stream: Stream, bytes: &[u8]);
}

/// Sends output as frames of one request, up to a limit.
pub(crate) struct Framed<'a> {
    port: &'a mut dyn Write,
    id: u32,
    left: u64,
    /// Output was dropped beyond the limit.
    pub(crate) truncated: bool,
    /// The port failed: nothing can be said any more.
    pub(crate) broken: Option<FrameError>,
}

impl<'a> Framed<'a> {
    /// At most `limit` bytes of both streams together are sent.
    pub(crate) fn new(port: &'a mut dyn Write, id: u32, limit: u64) -> Self {
        Self { port, id, left: limit, truncated: false, broken: None }
    }
}

impl Output for Framed<'_> {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let fitting = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.truncated |= fitting < bytes.len();
        if fitting == 0 || self.broken.is_some() {
            return;
        }
        self.left -= fitting as u64;
        let kind = match stream {
            Stream::Stdout => control::STDOUT,
            Stream::Stderr => control::STDERR,
        };
        self.broken =
            Frame { kind, id: self.id, body: bytes[..fitting].to_vec() }.write(&mut self.port).err();
    }
}

/// Keeps the standard output in memory, up to a limit, and drops the rest.
pub(crate) struct Captured {
    limit: usize,
    /// What came, at most `limit` bytes.
    pub(crate) bytes: Vec<u8>,
    /// More came than was kept.
    pub(crate) truncated: bool,
}

impl Captured {
    /// Keeps at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: Vec::new(), truncated: false }
    }

    /// What was kept, as text.
    pub(crate) fn text(&self) -> String {
        super::escape::escaped(&self.bytes)
    }
}

impl Output for Captured {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stdout {
            let fitting = (self.limit - self.bytes.len()).min(bytes.len());
            self.truncated |= fitting < bytes.len();
            self.bytes.extend_from_slice(&bytes[..fitting]);
        }
    }
}

/// Passes everything on and remembers the end of it, to look for a cause of failure.
pub(crate) struct Remembered<'a> {
    /// Where it goes on to.
    pub(crate) output: &'a mut dyn Output,
    /// The last bytes of both streams, at most twice [`Remembered::TAIL`].
    pub(crate) tail: Vec<u8>,
}

impl<'a> Remembered<'a> {
    /// At least so many of the last bytes are remembered.
    const TAIL: usize = 16 * 1024;

    pub(crate) fn new(output: &'a mut dyn Output) -> Self {
        Self { output, tail: Vec::new() }
    }
}

impl Output for Remembered<'_> {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        self.output.take(stream, bytes);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(Self::TAIL)..]);
        if self.tail.len() > 2 * Self::TAIL {
            self.tail.drain(..self.tail.len() - Self::TAIL);
        }
    }
}
