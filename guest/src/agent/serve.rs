//! The control port's conversation: one request at a time, each answered once, in order.
//!
//! A frame that makes no sense at its place means that the two sides no longer speak of the same thing. The agent then stops
//! for good, which the host notices; it never guesses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Component, Path};
use std::time::Duration;

use guest::control::{self, AgentError, Exec, Exited, Hello, MAX_MESSAGE, Mode, PROTOCOL, Request, Response};
use guest::frame::{Frame, FrameError, MAX_BODY};
use recipe_spec::digest::Sha256Digest;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::accounts::Accounts;
use super::child::Identity;
use super::content::{self, Attributes};
use super::exec::{Deadline, Launch};
use super::failure::{self, Fatal};
use super::output::Framed;
use super::port::Port;
use super::relay::Relay;
use super::rest::Repose;
use super::root::{LastLink, Root};
use super::sight::Sight;
use super::{facts, freeze, nano, power, steps};

/// Body of a `DATA` frame, in bytes.
const CHUNK: usize = 128 * 1024;
/// Output of the tools of one step that is sent, in bytes.
const STEP_OUTPUT: u64 = 8 * 1024 * 1024;
/// How long the relay port may take to appear when the relay is opened.
const RELAY_PORT_LIMIT: Duration = Duration::from_secs(5);
/// The agent goes before all others, so that it answers in time also where a recipe starts processes without end.
pub(crate) const PRIORITY: i32 = -20;
/// Permission bits of `writeFile`.
const MODE_BITS: u32 = 0o7777;

/// Where the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a machine of ours.
    Guest(Mode),
    /// On a developer's own system: nothing that would freeze it or turn it off.
    Bench,
}

/// What the requests act on.
pub(crate) struct Machine {
    root: Root,
    /// What the facts are read through.
    sight: Sight,
    place: Place,
    /// Rest and waking; none on a bench.
    repose: Option<Repose>,
    /// The relay port, until the relay takes it.
    relay_port: Option<Port>,
    relay: Option<Relay>,
}

impl Machine {
    pub(crate) fn new(
        root: Root,
        sight: Sight,
        place: Place,
        repose: Option<Repose>,
        relay_port: Option<Port>,
    ) -> Self {
        Self { root, sight, place, repose, relay_port, relay: None }
    }
}

/// What ended the conversation.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Port(#[from] FrameError),
    #[error("the host sent a frame of kind {kind} for {id} where it makes no sense")]
    Senseless { kind: u8, id: u32 },
}

/// `/proc/sys/kernel/random/boot_id`.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// The agent's first word.
pub(crate) fn hello(to: &mut impl Write, mode: Mode, boot_id: String) -> Result<(), Fatal> {
    let hello = Hello { protocol: PROTOCOL, agent: env!("CARGO_PKG_VERSION").to_owned(), mode, boot_id };
    Ok(Frame { kind: control::HELLO, id: 0, body: serde_json::to_vec(&hello)? }.write(to)?)
}

/// Serves a port until the host breaks the protocol.
pub(crate) fn serve_port(port: Port, machine: Machine) -> Result<(), Fatal> {
    let from = port.second()?;
    serve(from, port, machine)
}

/// Serves standard input and output, for trials on a developer's own system.
pub(crate) fn serve_stdio() -> Result<(), Fatal> {
    let mut to = io::stdout();
    hello(&mut to, Mode::Disk, boot_id()?)?;
    let machine = Machine::new(Root::open("/")?, Sight::plain()?, Place::Bench, None, None);
    serve(io::stdin().lock(), to, machine)
}

fn serve(from: impl Read, to: impl Write, machine: Machine) -> Result<(), Fatal> {
    let mut conversation = Conversation { from, to, machine };
    loop {
        match conversation.turn() {
            Ok(()) => {}
            Err(Broken::Port(FrameError::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

struct Conversation<R, W> {
    from: R,
    to: W,
    machine: Machine,
}

impl<R: Read, W: Write> Conversation<R, W> {
    /// One request and its answer.
    fn turn(&mut self) -> Result<(), Broken> {
        let Frame { kind, id, mut body } = Frame::read(&mut self.from)?;
        if kind != control::REQUEST {
            return Err(Broken::Senseless { kind, id });
        }
        let request = serde_json::from_slice(&body);
        // An identity has secrets, of which no copy shall be left in a machine that may be saved once more.
        body.zeroize();
        let answer = match request {
            Ok(request) => self.answer(id, request)?,
            Err(error) => Err(failure::bad_request(format!("not a request: {error}"))),
        };
        let power_off = matches!(answer, Ok(Answer::PowerOff));
        let response = match answer {
            Ok(Answer::Plain(response)) => response,
            Ok(Answer::PowerOff) => Response::Done,
            Err(error) => Response::Error(cut(error)),
        };
        let body = serde_json::to_vec(&response).map_err(|error| FrameError::Io(error.into()))?;
        Frame { kind: control::RESPONSE, id, body }.write(&mut self.to)?;
        if let (true, Place::Guest(mode)) = (power_off, self.machine.place) {
            power::off(mode);
        }
        Ok(())
    }

    fn answer(&mut self, id: u32, request: Request) -> Result<Result<Answer, AgentError>, Broken> {
        let plain = |result: Result<Response, AgentError>| Ok(result.map(Answer::Plain));
        if self.machine.is_at_rest() && !matches!(request, Request::Wake(_)) {
            if matches!(request, Request::WriteFile { .. }) {
                Content::new(&mut self.from, id).drain()?;
            }
            return Ok(Err(failure::bad_request("the machine rests: wake it first")));
        }
        match request {
            Request::Ping => plain(Ok(Response::Pong)),
            Request::Exec(exec) => {
                let mut output = Framed::new(&mut self.to, id, exec.output_limit);
                let ended = run(&self.machine.root, exec, &mut output);
                let truncated = output.truncated;
                output.broken.map_or(Ok(()), Err)?;
                plain(ended.map(|ended| Response::Exited(Exited { truncated, ..ended })))
            }
            Request::WriteFile { path, mode, size, sha256 } => {
                let mut content = Content::new(&mut self.from, id);
                let written = write_file(&self.machine.root, &path, (mode, size, &sha256), &mut content);
                content.drain()?;
                plain(written)
            }
            Request::ReadFile { path, limit } => {
                let opened = checked(&path).and_then(|path| {
                    let opened = self.machine.root.open_regular(path, LastLink::Refused);
                    opened.map_err(|error| failure::system(format_args!("read {}", path.display()), error))
                });
                match opened {
                    Ok(file) => {
                        let sent = send(&mut self.to, id, file, limit, &path)?;
                        plain(sent.map(|(size, sha256)| Response::Sent { size, sha256 }))
                    }
                    Err(error) => Ok(Err(error)),
                }
            }
            Request::Apply { step, payload, relay, timeout_ms } => {
                let mut output = Framed::new(&mut self.to, id, STEP_OUTPUT);
                let deadline = Deadline::after(Duration::from_millis(timeout_ms));
                let applied = checked(&payload).and_then(|payload| {
                    let workshop = steps::Workshop { root: &self.machine.root, payload, relay, deadline };
                    workshop.apply(&step, &mut output)
                });
                output.broken.map_or(Ok(()), Err)?;
                plain(applied.map(|outcome| Response::Applied { outcome }))
            }
            Request::Facts => {
                let facts = facts::gather(&self.machine.root, &self.machine.sight);
                self.send_facts(id, facts)
            }
            Request::DiskFacts => {
                let facts = self.machine.disk().and_then(|disk| facts::gather_disk(&disk));
                self.send_facts(id, facts)
            }
            Request::Relay { open } => plain(self.machine.set_relay(open).map(|()| Response::Done)),
            Request::Freeze => {
                plain(self.machine.on_root("freeze the root file system", |root| freeze::freeze(root)))
            }
            Request::Thaw => {
                plain(self.machine.on_root("thaw the root file system", |root| freeze::thaw(root)))
            }
            Request::Sync => {
                rustix::fs::sync();
                plain(Ok(Response::Done))
            }
            Request::Rest => plain(self.machine.rest().map(|()| Response::Done)),
            Request::Wake(identity) => plain(self.machine.wake(identity).map(|()| Response::Done)),
            Request::PowerOff if self.machine.place == Place::Bench => Ok(Err(not_here())),
            Request::PowerOff => Ok(Ok(Answer::PowerOff)),
        }
    }
}

impl<R: Read, W: Write> Conversation<R, W> {
    fn send_facts(
        &mut self,
        id: u32,
        facts: Result<Vec<u8>, AgentError>,
    ) -> Result<Result<Answer, AgentError>, Broken> {
        match facts {
            Ok(json) => {
                let sent = send(&mut self.to, id, json.as_slice(), u64::MAX, "facts")?;
                Ok(sent.map(|(size, sha256)| Answer::Plain(Response::Sent { size, sha256 })))
            }
            Err(error) => Ok(Err(error)),
        }
    }
}

/// An answer, and whether the machine goes off after it.
enum Answer {
    Plain(Response),
    PowerOff,
}

fn not_here() -> AgentError {
    failure::bad_request("this is no machine of ours: it is not frozen, brought to rest or turned off")
}

impl Machine {
    fn on_root(
        &self,
        doing: &str,
        action: impl FnOnce(&Root) -> io::Result<()>,
    ) -> Result<Response, AgentError> {
        if self.place == Place::Bench {
            return Err(not_here());
        }
        action(&self.root).map(|()| Response::Done).map_err(|error| failure::system(doing, error))
    }

    fn is_at_rest(&self) -> bool {
        self.repose.as_ref().is_some_and(Repose::is_at_rest)
    }

    fn rest(&mut self) -> Result<(), AgentError> {
        let repose = self.repose.as_mut().ok_or_else(not_here)?;
        // Its threads are the agent's own, which nothing freezes.
        if self.relay.as_ref().is_some_and(Relay::is_open) {
            return Err(failure::bad_request("the relay is open: close the relay first"));
        }
        repose.rest(&self.root, &self.sight.proc)
    }

    fn wake(&mut self, identity: control::Identity) -> Result<(), AgentError> {
        self.repose.as_mut().ok_or_else(not_here)?.wake(&self.root, &self.sight.proc, identity)
    }

    fn disk(&self) -> Result<Root, AgentError> {
        if self.place != Place::Guest(Mode::Nano) {
            return Err(failure::bad_request("only a nano guest looks at a disk that it does not run"));
        }
        nano::disk().map_err(|error| failure::system("mount the disk read-only", error))
    }

    fn set_relay(&mut self, open: bool) -> Result<(), AgentError> {
        let failed = |error: io::Error| failure::system("open the relay", error);
        if !open {
            if let Some(relay) = &mut self.relay {
                relay.close();
            }
            return Ok(());
        }
        let relay = match &mut self.relay {
            Some(relay) => relay,
            none => {
                let port = match self.relay_port.take() {
                    Some(port) => port,
                    None => Port::open(guest::relay::PORT, RELAY_PORT_LIMIT).map_err(failed)?,
                };
                none.insert(Relay::new(port.second().map_err(failed)?, port).map_err(failed)?)
            }
        };
        relay.open(SocketAddr::V4(guest::relay::LISTEN)).map(drop).map_err(failed)
    }
}

fn cut(mut error: AgentError) -> AgentError {
    if error.message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| error.message.is_char_boundary(*at)).unwrap_or(0);
        error.message.truncate(end);
    }
    error
}

/// An absolute path without `.`, `..` and zero bytes.
fn checked(path: &str) -> Result<&Path, AgentError> {
    let steps_back = Path::new(path).components().any(|part| part == Component::ParentDir);
    if !path.starts_with('/') || steps_back || path.contains('\0') {
        return Err(failure::bad_request(format!("{path:?} is not an absolute path without `..`")));
    }
    Ok(Path::new(path))
}

fn run(root: &Root, exec: Exec, output: &mut Framed<'_>) -> Result<Exited, AgentError> {
    let Exec { argv, env, cwd, user, timeout_ms, output_limit: _ } = exec;
    let identity = match &user {
        None => Identity::root(),
        Some(name) => Accounts::read(root)
            .map_err(|error| failure::system("read the accounts", error))?
            .identity(name)?,
    };
    let cwd = cwd.as_deref().map_or(Ok(Path::new("/")), checked)?.to_owned();
    let env: BTreeMap<String, String> = env;
    Launch { argv, env, cwd, identity }.run(Deadline::after(Duration::from_millis(timeout_ms)), output)
}

fn write_file(
    root: &Root,
    path: &str,
    (mode, size, sha256): (u32, u64, &str),
    content: &mut dyn Read,
) -> Result<Response, AgentError> {
    let path = checked(path)?;
    let digest = Sha256Digest::from_hex(sha256)
        .map_err(|_| failure::bad_request("the announced sha256 is not 64 lower-case hexadecimal digits"))?;
    if mode & !MODE_BITS != 0 {
        return Err(failure::bad_request("the mode has bits beyond 07777"));
    }
    let attributes = Attributes { mode: Some(mode), ..Attributes::default() };
    let outcome = content::put(root, path, attributes, (&digest, size), content)?;
    Ok(Response::Written { changed: outcome == control::StepOutcome::Changed })
}

/// Sends all of `content` as `DATA` frames, never more than `limit` bytes.
fn send(
    to: &mut impl Write,
    id: u32,
    mut content: impl Read,
    limit: u64,
    what: &str,
) -> Result<Result<(u64, String), AgentError>, Broken> {
    let mut hasher = Sha256::new();
    let mut size: u64 = 0;
    let mut buffer = vec![0; CHUNK.min(MAX_BODY)];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(Ok((size, hex::encode(hasher.finalize())))),
            // Not decided by the file's size: one that grows, or lies about it (as in /proc), ends at the limit too.
            Ok(count) if limit - size < count as u64 => return Ok(Err(failure::too_large(what, limit))),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
                Frame { kind: control::DATA, id, body: buffer[..count].to_vec() }.write(to)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(failure::system(format_args!("read {what}"), error))),
        }
    }
}

/// The `DATA` frames of one `writeFile`, read as a stream that ends with `END`.
struct Content<'a, R> {
    from: &'a mut R,
    id: u32,
    rest: Vec<u8>,
    at: usize,
    ended: bool,
    broken: Option<Broken>,
}

impl<'a, R: Read> Content<'a, R> {
    fn new(from: &'a mut R, id: u32) -> Self {
        Self { from, id, rest: Vec::new(), at: 0, ended: false, broken: None }
    }

    /// Reads what is left, so that the next frame is a request again.
    fn drain(mut self) -> Result<(), Broken> {
        while !self.ended && self.broken.is_none() {
            self.next_frame();
        }
        self.broken.map_or(Ok(()), Err)
    }

    fn next_frame(&mut self) {
        match Frame::read(self.from) {
            Ok(Frame { kind: control::DATA, id, body }) if id == self.id => (self.rest, self.at) = (body, 0),
            Ok(Frame { kind: control::END, id, body }) if id == self.id && body.is_empty() => {
                self.ended = true
            }
            Ok(Frame { kind, id, .. }) => self.broken = Some(Broken::Senseless { kind, id }),
            Err(error) => self.broken = Some(error.into()),
        }
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() {
            if self.ended {
                return Ok(0);
            }
            if self.broken.is_some() {
                return Err(io::Error::other("the host broke off"));
            }
            self.next_frame();
        }
        let count = buffer.len().min(self.rest.len() - self.at);
        buffer[..count].copy_from_slice(&self.rest[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
