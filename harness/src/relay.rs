//! The relay, host side: connections of a building guest, each carried to the proxy.
//!
//! One thread reads the port and sorts frames into streams; each stream has a thread that serves it. A guest that
//! sends without credit, opens too much or names what is not open has broken the protocol: the relay ends and says why. Only
//! the agent can hold the port, so [`crate::Machine`] then counts the agent as lost.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use guest::frame::Frame;
use guest::relay::{CLOSE, CREDIT, DATA, MAX_STREAMS, OPEN, SHUT, WINDOW};
use recipe_spec::name::OriginName;

use crate::proxy::Proxy;
use crate::spec::RelaySpec;

/// One request of the guest and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayEvent {
    /// `GET` or `HEAD`; empty if the request could not be read.
    pub method: &'static str,
    /// What was asked for, escaped and cut; empty if the request could not be read.
    pub url: String,
    /// The origin that it belongs to, if one does.
    pub origin: Option<OriginName>,
    /// Status that the guest was given.
    pub status: u16,
    /// Bytes of content that the guest was given.
    pub bytes: u64,
    /// Why it was refused, or why the content is incomplete.
    pub problem: Option<String>,
}

/// Sizes and times of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Content of one response, in bytes.
    pub response_bytes: u64,
    /// Content of all responses together, in bytes.
    pub total_bytes: u64,
    /// Requests, served and refused; those that could not be read count too.
    pub requests: u32,
    /// Frames that the guest may send: bytes alone would not bound the work that tiny ones make.
    pub frames: u64,
    /// Until a connection without a request is closed, and until a started request must be whole.
    pub idle: Duration,
    /// Until a guest that does not take its bytes is given up.
    pub stalled: Duration,
    /// Until an origin must have begun to answer, and for each read of its answer.
    pub origin_silent: Duration,
}

impl RelayLimits {
    /// Enough to install any set of packages, and no more than a host can bear.
    pub const STANDARD: Self = Self {
        response_bytes: 2 << 30,
        total_bytes: 8 << 30,
        requests: 20_000,
        // One for every 512 bytes of content.
        frames: 16 << 20,
        idle: Duration::from_secs(60),
        stalled: Duration::from_secs(180),
        origin_silent: Duration::from_secs(60),
    };
}

/// Threads that may serve at one time: some may still wait for an origin when the guest has closed their stream.
const MAX_HANDLERS: usize = 2 * MAX_STREAMS;
/// Most bytes put into one frame, so that streams take turns.
const MAX_CHUNK: usize = 64 * 1024;

/// The relay of one machine; it ends when the port is closed.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
}

impl Relay {
    /// Serves the port from threads of its own.
    pub(crate) fn serve(port: UnixStream, spec: RelaySpec) -> io::Result<Self> {
        let proxy = Arc::new(Proxy::new(spec));
        let limits = proxy.limits().clone();
        Self::serve_with(port, limits, move |mut stream| proxy.serve(&mut stream))
    }

    fn serve_with(
        port: UnixStream,
        limits: RelayLimits,
        serve: impl Fn(Stream) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        port.set_write_timeout(Some(limits.stalled))?;
        let (reader, writer) = (port.try_clone()?, Mutex::new(port.try_clone()?));
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { state, changed: Condvar::new(), writer, port, limits });
        let relay = Self { shared: Arc::clone(&shared) };
        let serve: Arc<dyn Fn(Stream) + Send + Sync> = Arc::new(serve);
        thread::Builder::new().name("relay".into()).spawn(move || read_port(reader, &shared, &serve))?;
        Ok(relay)
    }

    /// Why the relay was ended, if the guest broke the protocol.
    pub(crate) fn breach(&self) -> Option<String> {
        self.shared.lock().breach.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.end(None);
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    writer: Mutex<UnixStream>,
    /// For ending the port: a thread that is stuck in a write holds the writer's lock.
    port: UnixStream,
    limits: RelayLimits,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<u32, Flow>,
    highest: Option<u32>,
    handlers: usize,
    ended: bool,
    breach: Option<String>,
}

/// Both directions of one stream.
#[derive(Debug)]
struct Flow {
    inbound: VecDeque<u8>,
    /// The guest has sent `SHUT`.
    inbound_shut: bool,
    /// What the guest may still send.
    granted: u32,
    /// What we may still send.
    credit: u32,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all streams; everybody who waits wakes up.
    fn end(&self, breach: Option<String>) {
        let mut state = self.lock();
        state.ended = true;
        state.streams.clear();
        state.breach = state.breach.take().or(breach);
        drop(state);
        self.changed.notify_all();
        // It fails only if the other side is gone already.
        let _ = self.port.shutdown(Shutdown::Both);
    }

    fn send(&self, kind: u8, id: u32, body: Vec<u8>) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = Frame { kind, id, body }.write(&mut *writer);
        drop(writer);
        sent.map_err(|error| {
            // A frame that was written in part cannot be taken back.
            self.end(None);
            io::Error::other(error)
        })
    }
}

/// Reads frames until the port ends or the protocol is broken.
fn read_port(mut port: UnixStream, shared: &Arc<Shared>, serve: &Arc<dyn Fn(Stream) + Send + Sync>) {
    let mut frames = shared.limits.frames;
    let breach = loop {
        let frame = match Frame::read(&mut port) {
            Ok(frame) => frame,
            Err(guest::frame::FrameError::Io(_)) => break None,
            Err(error) => break Some(error.to_string()),
        };
        let Some(left) = frames.checked_sub(1) else {
            break Some(format!("more than {} frames", shared.limits.frames));
        };
        frames = left;
        // Not held in the arms: a stream that gets no thread is closed there, and closing takes the lock.
        let taken = take(&mut shared.lock(), frame);
        match taken {
            Ok(Taken::Frame) => {}
            Ok(Taken::Stream(id)) => start(shared, id, Arc::clone(serve)),
            Ok(Taken::NoRoom(id)) => {
                // If it fails, the whole relay is at its end.
                let _ = shared.send(CLOSE, id, Vec::new());
            }
            Err(reason) => break Some(reason),
        }
        shared.changed.notify_all();
    };
    shared.end(breach);
}

/// What is to be done after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// Nothing more.
    Frame,
    /// This stream was opened and is to be served.
    Stream(u32),
    /// This stream was opened and is to be closed at once: too many threads still wait for origins.
    NoRoom(u32),
}

/// Applies one frame of the guest.
fn take(state: &mut State, frame: Frame) -> Result<Taken, String> {
    let id = frame.id;
    if frame.body.is_empty() != matches!(frame.kind, OPEN | SHUT | CLOSE) {
        return Err(format!("a frame of kind {} with {} bytes", frame.kind, frame.body.len()));
    }
    if frame.kind == OPEN {
        return open(state, id);
    }
    if state.highest.is_none_or(|highest| id > highest) {
        return Err(format!("stream {id} was never opened"));
    }
    // It crossed our CLOSE on its way.
    let Some(flow) = state.streams.get_mut(&id) else { return Ok(Taken::Frame) };
    match frame.kind {
        DATA if flow.inbound_shut => return Err(format!("stream {id} has bytes after its end")),
        DATA => {
            let length = u32::try_from(frame.body.len()).unwrap_or(u32::MAX);
            flow.granted = flow
                .granted
                .checked_sub(length)
                .ok_or_else(|| format!("stream {id} has bytes beyond its credit"))?;
            flow.inbound.extend(frame.body);
        }
        CREDIT => {
            let more: [u8; 4] =
                frame.body.try_into().map_err(|_| format!("stream {id} has a malformed credit"))?;
            let credit = flow.credit.checked_add(u32::from_be_bytes(more)).filter(|credit| *credit <= WINDOW);
            flow.credit =
                credit.ok_or_else(|| format!("stream {id} gives credit for bytes it was never sent"))?;
        }
        SHUT if flow.inbound_shut => return Err(format!("stream {id} ends twice")),
        SHUT => flow.inbound_shut = true,
        CLOSE => {
            state.streams.remove(&id);
        }
        kind => return Err(format!("a frame of kind {kind}")),
    }
    Ok(Taken::Frame)
}

fn open(state: &mut State, id: u32) -> Result<Taken, String> {
    if state.highest.is_some_and(|highest| id <= highest) {
        return Err(format!("stream {id} was opened before"));
    }
    if state.streams.len() >= MAX_STREAMS {
        return Err("too many streams at one time".into());
    }
    state.highest = Some(id);
    if state.handlers >= MAX_HANDLERS {
        return Ok(Taken::NoRoom(id));
    }
    state.handlers += 1;
    let flow = Flow { inbound: VecDeque::new(), inbound_shut: false, granted: WINDOW, credit: WINDOW };
    state.streams.insert(id, flow);
    Ok(Taken::Stream(id))
}

fn start(shared: &Arc<Shared>, id: u32, serve: Arc<dyn Fn(Stream) + Send + Sync>) {
    let stream = Stream { shared: Arc::clone(shared), id };
    // If no thread can be had, the stream is dropped and thereby closed.
    let _ = thread::Builder::new().name("relay-stream".into()).spawn(move || serve(stream));
}

/// One connection of a program in the guest. Dropping it closes it.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    id: u32,
}

impl Stream {
    /// Waits until `ready` gives something for this stream, or the time is over, or the stream is gone (`None`).
    fn wait<T>(
        &self,
        time: Duration,
        mut ready: impl FnMut(&mut Flow) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let deadline = Instant::now() + time;
        let mut state = self.shared.lock();
        loop {
            let Some(flow) = state.streams.get_mut(&self.id) else { return Ok(None) };
            if let Some(value) = ready(flow) {
                return Ok(Some(value));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.wait(self.shared.limits.idle, |flow| {
            let count = flow.inbound.len().min(buffer.len());
            if count == 0 {
                return flow.inbound_shut.then_some(0);
            }
            for (slot, byte) in buffer.iter_mut().zip(flow.inbound.drain(..count)) {
                *slot = byte;
            }
            flow.granted += u32::try_from(count).expect("no more than the window");
            Some(count)
        })?;
        match read {
            Some(count) if count > 0 => {
                let credit = u32::try_from(count).expect("no more than the window").to_be_bytes();
                self.shared.send(CREDIT, self.id, credit.to_vec())?;
                Ok(count)
            }
            _ => Ok(0),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let wanted = bytes.len().min(MAX_CHUNK);
        let allowed = self.wait(self.shared.limits.stalled, |flow| {
            let count = wanted.min(flow.credit as usize);
            flow.credit -= u32::try_from(count).expect("no more than the credit");
            (count > 0).then_some(count)
        })?;
        let Some(count) = allowed else { return Err(io::ErrorKind::BrokenPipe.into()) };
        self.shared.send(DATA, self.id, bytes[..count].to_vec())?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.handlers = state.handlers.saturating_sub(1);
        let was_open = state.streams.remove(&self.id).is_some();
        drop(state);
        if was_open {
            // If it fails, the whole relay is at its end.
            let _ = self.shared.send(CLOSE, self.id, Vec::new());
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
