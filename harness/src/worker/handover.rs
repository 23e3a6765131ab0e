//! What a worker is given, over the socket that is its standard input: one message with one byte, and with it the
//! request in memory that nobody can change any more, the pipe for the answer, and the files of the order.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::{Network, Reading};
use crate::artifact::sealed_memory;
use crate::error::HarnessError;

/// Descriptors in one message: the kernel takes 253 (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;
/// Longest request with its orders, in bytes.
const MAX_REQUEST: u64 = 1 << 20;

/// What the child restricts itself to, and what it is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) reading: Reading,
    pub(super) network: Network,
    pub(super) scratch: Option<PathBuf>,
    pub(super) request: serde_json::Value,
}

/// Both ends, before the child is started.
pub(super) struct Way {
    /// The child's standard input; everything waits in it, also once our end is closed.
    pub(super) stdin: OwnedFd,
    /// Where the answer comes out; reading it never blocks.
    pub(super) answer: OwnedFd,
}

impl Way {
    pub(super) fn prepare(orders: &Orders, files: &[File]) -> Result<Self, HarnessError> {
        let bytes = serde_json::to_vec(orders)
            .map_err(|error| HarnessError::process("write a request to a worker", error))?;
        if bytes.len() as u64 > MAX_REQUEST || files.len() + 2 > MAX_DESCRIPTORS {
            let error = std::io::Error::other("it is too long");
            return Err(HarnessError::process("write a request to a worker", error));
        }
        let request = sealed_memory("request", &[&bytes])?;
        Self::send(&request, files)
            .map_err(|source| HarnessError::process("hand descriptors to a worker", source))
    }

    fn send(request: &OwnedFd, files: &[File]) -> std::io::Result<Self> {
        let (answer, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&answer, OFlags::NONBLOCK)?;
        let (ours, stdin) = UnixStream::pair()?;
        let descriptors: Vec<BorrowedFd<'_>> =
            [request.as_fd(), theirs.as_fd()].into_iter().chain(files.iter().map(AsFd::as_fd)).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(std::io::Error::other("too many descriptors"));
        }
        sendmsg(&ours, &[IoSlice::new(b"+")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(Self { stdin: stdin.into(), answer })
    }
}

/// What the child finds.
pub(super) struct Received {
    pub(super) orders: Orders,
    pub(super) answer: File,
    pub(super) files: Vec<File>,
}

/// Takes everything from standard input; nothing where that is no such socket.
pub(super) fn receive() -> std::io::Result<Received> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let stdin = std::io::stdin();
    recvmsg(&stdin, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors.map(File::from)),
            _ => None,
        })
        .flatten();
    let (Some(mut request), Some(answer)) = (files.next(), files.next()) else {
        return Err(std::io::Error::other("no orders came"));
    };
    let files = files.collect();
    let mut bytes = Vec::new();
    // It was written through this very descriptor.
    request.rewind()?;
    request.take(MAX_REQUEST).read_to_end(&mut bytes)?;
    Ok(Received { orders: serde_json::from_slice(&bytes)?, answer, files })
}
