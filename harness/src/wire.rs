//! The control port, host side: one question at a time, every answer bounded in size and time.
//!
//! Whatever the protocol does not foresee is a breach, and after a breach the wire is dead: what a guest says
//! afterwards could answer any question.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use guest::control::{
    AgentError, DATA, END, Exec, Exited, HELLO, Hello, MAX_MESSAGE, Mode, PROTOCOL, REQUEST, RESPONSE,
    Request, Response, STDERR, STDOUT,
};
use guest::facts::MAX_BYTES;
use guest::frame::{Frame, FrameError, MAX_BODY};
use recipe_spec::digest::Sha256Digest;

use crate::port::Port;

/// Bytes that a command in the guest wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// To its standard output.
    Stdout(&'a [u8]),
    /// To its standard error.
    Stderr(&'a [u8]),
}

/// Why the wire gave no answer. After all but `Refused` it is dead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the agent said nothing for {} s ({waiting_for})", .waited.as_secs())]
    Silent { waiting_for: &'static str, waited: Duration },
    #[error("the control port was closed ({waiting_for})")]
    Closed { waiting_for: &'static str },
    #[error("the agent broke the protocol: {0}")]
    Breach(String),
    #[error("the agent said hello a second time: it was restarted")]
    SecondHello,
    #[error("the agent speaks protocol {theirs}, wanted: {PROTOCOL}")]
    WrongProtocol { theirs: u32 },
    #[error("the agent says hello from a {theirs} guest, this is a {ours} guest")]
    WrongMode { theirs: &'static str, ours: &'static str },
    #[error("the wire was lost before")]
    Dead,
    #[error("{0}")]
    Refused(AgentError),
}

/// What the host adds to a time limit that the agent keeps itself, before it calls the agent silent.
const GRACE: Duration = Duration::from_secs(20);
/// Time for a request that does little.
pub(crate) const SHORT: Duration = Duration::from_secs(60);
/// Time for moving a file, or for looking at the whole machine under software emulation.
pub(crate) const LONG: Duration = Duration::from_secs(300);
/// Output of one step that is passed on; the agent keeps a limit of its own below it.
const MAX_STEP_OUTPUT: u64 = 64 << 20;
/// What came before a question was asked is read for so long, to say what it is.
const UNASKED: Duration = Duration::from_secs(2);

/// The host's end of the control port.
#[derive(Debug)]
pub(crate) struct Wire {
    port: Port,
    state: State,
    last_id: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Silent,
    Ready,
    Dead,
}

/// What may come back besides the response.
enum Expected<'a> {
    Nothing,
    Output { limit: u64, callback: &'a mut dyn FnMut(Output) },
    Content { limit: u64, into: &'a mut Vec<u8> },
}

impl Wire {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { port: Port::new(stream)?, state: State::Silent, last_id: 0 })
    }

    /// The wire to the agent of a clone, which has said hello long ago.
    pub(crate) fn resumed(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { state: State::Ready, ..Self::new(stream)? })
    }

    /// Waits for the agent's first word, in a guest of this kind.
    pub(crate) fn wait_hello(&mut self, timeout: Duration, mode: Mode) -> Result<Hello, WireError> {
        if self.state != State::Silent {
            return Err(WireError::Dead);
        }
        self.state = State::Dead;
        self.port.allow(timeout);
        let frame = self.read("its first word", timeout)?;
        if frame.kind != HELLO || frame.id != 0 {
            return Err(breach(&format!("its first frame is of kind {}", frame.kind)));
        }
        let hello: Hello = parse(&frame.body)?;
        if hello.protocol != PROTOCOL {
            return Err(WireError::WrongProtocol { theirs: hello.protocol });
        }
        if hello.mode != mode {
            return Err(WireError::WrongMode { theirs: word(hello.mode), ours: word(mode) });
        }
        self.state = State::Ready;
        Ok(hello)
    }

    pub(crate) fn ping(&mut self) -> Result<(), WireError> {
        self.expect(&Request::Ping, "ping", SHORT, |response| matches!(response, Response::Pong))
    }

    /// Runs a request that is answered with `Done`.
    pub(crate) fn done(
        &mut self,
        request: &Request,
        name: &'static str,
        timeout: Duration,
    ) -> Result<(), WireError> {
        self.expect(request, name, timeout, |response| matches!(response, Response::Done))
    }

    pub(crate) fn exec(&mut self, exec: Exec, callback: &mut dyn FnMut(Output)) -> Result<Exited, WireError> {
        let timeout = Duration::from_millis(exec.timeout_ms).saturating_add(GRACE);
        let expected = Expected::Output { limit: exec.output_limit, callback };
        match self.exchange(&Request::Exec(exec), None, "exec", timeout, expected)? {
            Response::Exited(exited) => Ok(exited),
            other => self.unexpected(&other),
        }
    }

    /// Gives whether the file changed.
    pub(crate) fn write_file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<bool, WireError> {
        let size = content.len() as u64;
        let sha256 = Sha256Digest::of(content).to_string();
        let request = Request::WriteFile { path: path.to_owned(), mode, size, sha256 };
        match self.exchange(&request, Some(content), "writeFile", LONG, Expected::Nothing)? {
            Response::Written { changed } => Ok(changed),
            other => self.unexpected(&other),
        }
    }

    pub(crate) fn read_file(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, WireError> {
        self.content(&Request::ReadFile { path: path.to_owned(), limit }, "readFile", limit)
    }

    pub(crate) fn facts(&mut self) -> Result<guest::facts::Facts, WireError> {
        self.told(&Request::Facts, "facts")
    }

    pub(crate) fn disk_facts(&mut self) -> Result<guest::facts::Facts, WireError> {
        self.told(&Request::DiskFacts, "disk facts")
    }

    fn told(&mut self, request: &Request, name: &'static str) -> Result<guest::facts::Facts, WireError> {
        let bytes = self.content(request, name, MAX_BYTES as u64)?;
        parse(&bytes).inspect_err(|_| self.state = State::Dead)
    }

    /// Gives the outcome of one step; what its tools say goes to `callback`.
    pub(crate) fn apply(
        &mut self,
        request: &Request,
        timeout: Duration,
        callback: &mut dyn FnMut(Output),
    ) -> Result<guest::control::StepOutcome, WireError> {
        let expected = Expected::Output { limit: MAX_STEP_OUTPUT, callback };
        match self.exchange(request, None, "apply", timeout.saturating_add(GRACE), expected)? {
            Response::Applied { outcome } => Ok(outcome),
            other => self.unexpected(&other),
        }
    }

    fn content(&mut self, request: &Request, name: &'static str, limit: u64) -> Result<Vec<u8>, WireError> {
        let mut content = Vec::new();
        let response =
            self.exchange(request, None, name, LONG, Expected::Content { limit, into: &mut content })?;
        let Response::Sent { size, sha256 } = response else { return self.unexpected(&response) };
        if size != content.len() as u64 || sha256 != Sha256Digest::of(&content).to_string() {
            self.state = State::Dead;
            return Err(breach("what it sent is not what it says it sent"));
        }
        Ok(content)
    }

    fn expect(
        &mut self,
        request: &Request,
        name: &'static str,
        timeout: Duration,
        is_right: fn(&Response) -> bool,
    ) -> Result<(), WireError> {
        let response = self.exchange(request, None, name, timeout, Expected::Nothing)?;
        if is_right(&response) { Ok(()) } else { self.unexpected(&response) }
    }

    fn unexpected<T>(&mut self, response: &Response) -> Result<T, WireError> {
        self.state = State::Dead;
        let text: String = format!("{response:?}").chars().take(80).collect();
        Err(breach(&format!("an answer to another question: {text}")))
    }

    /// One question and its answer. The wire is dead unless the exchange came to its end.
    fn exchange(
        &mut self,
        request: &Request,
        content: Option<&[u8]>,
        name: &'static str,
        timeout: Duration,
        expected: Expected,
    ) -> Result<Response, WireError> {
        if self.state != State::Ready {
            return Err(WireError::Dead);
        }
        self.state = State::Dead;
        if self.port.has_input() {
            return Err(self.unasked(name));
        }
        self.port.allow(timeout);
        let id = self.last_id.checked_add(1).ok_or_else(|| breach("request numbers are used up"))?;
        self.last_id = id;
        let start = Instant::now();
        let body = serde_json::to_vec(request)
            .map_err(|error| breach(&format!("the request has no JSON: {error}")))?;
        self.send(Frame { kind: REQUEST, id, body }, name, start)?;
        if let Some(content) = content {
            for chunk in content.chunks(MAX_BODY) {
                self.send(Frame { kind: DATA, id, body: chunk.to_vec() }, name, start)?;
            }
            self.send(Frame { kind: END, id, body: Vec::new() }, name, start)?;
        }
        let response = self.response(id, name, start, expected)?;
        if let Response::Error(error) = &response
            && error.message.len() > MAX_MESSAGE
        {
            return Err(breach(&format!("an error of {} bytes", error.message.len())));
        }
        self.state = State::Ready;
        match response {
            Response::Error(error) => Err(WireError::Refused(error)),
            response => Ok(response),
        }
    }

    fn response(
        &mut self,
        id: u32,
        name: &'static str,
        start: Instant,
        mut expected: Expected,
    ) -> Result<Response, WireError> {
        loop {
            let frame = self.read(name, start.elapsed()).map_err(|error| with_time(error, start))?;
            if frame.kind == HELLO {
                return Err(WireError::SecondHello);
            }
            if frame.id != id {
                return Err(breach(&format!("a frame for request {} during request {id}", frame.id)));
            }
            let length = frame.body.len() as u64;
            match (frame.kind, &mut expected) {
                (RESPONSE, _) => return parse(&frame.body),
                // They would count for nothing, and could come for ever.
                (STDOUT | STDERR | DATA, _) if length == 0 => {
                    return Err(breach(&format!("a frame of kind {} without a byte", frame.kind)));
                }
                (STDOUT | STDERR, Expected::Output { limit, callback }) => {
                    *limit =
                        limit.checked_sub(length).ok_or_else(|| breach("more output than was asked for"))?;
                    let body = &frame.body;
                    callback(if frame.kind == STDOUT { Output::Stdout(body) } else { Output::Stderr(body) });
                }
                (DATA, Expected::Content { limit, into }) => {
                    *limit =
                        limit.checked_sub(length).ok_or_else(|| breach("more content than was asked for"))?;
                    into.extend_from_slice(&frame.body);
                }
                (kind, _) => return Err(breach(&format!("a frame of kind {kind} in answer to {name}"))),
            }
        }
    }

    /// Something came although nothing was asked.
    fn unasked(&mut self, name: &'static str) -> WireError {
        self.port.allow(UNASKED);
        match self.read(name, UNASKED) {
            Ok(frame) if frame.kind == HELLO => WireError::SecondHello,
            Ok(frame) => breach(&format!("a frame of kind {} that answers nothing", frame.kind)),
            Err(WireError::Silent { .. }) => breach("a part of a frame that answers nothing"),
            Err(error) => error,
        }
    }

    fn read(&mut self, waiting_for: &'static str, waited: Duration) -> Result<Frame, WireError> {
        Frame::read(&mut self.port).map_err(|error| from_frame(error, waiting_for, waited))
    }

    fn send(&mut self, frame: Frame, name: &'static str, start: Instant) -> Result<(), WireError> {
        frame.write(&mut self.port).map_err(|error| from_frame(error, name, start.elapsed()))
    }
}

fn from_frame(error: FrameError, waiting_for: &'static str, waited: Duration) -> WireError {
    match error {
        FrameError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            WireError::Silent { waiting_for, waited }
        }
        FrameError::Io(_) => WireError::Closed { waiting_for },
        other => breach(&other.to_string()),
    }
}

fn with_time(error: WireError, start: Instant) -> WireError {
    match error {
        WireError::Silent { waiting_for, .. } => WireError::Silent { waiting_for, waited: start.elapsed() },
        other => other,
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Disk => "disk",
        Mode::Nano => "nano",
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(body).map_err(|error| breach(&format!("JSON that makes no sense: {error}")))
}

fn breach(what: &str) -> WireError {
    WireError::Breach(crate::error::escape(what))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
