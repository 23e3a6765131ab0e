//! The proxy behind the relay: fetches what lies below a declared origin, and says no to everything else.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ureq::http::{Response, StatusCode};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};
use url::Url;

use crate::error::escape;
use crate::origin::{Origin, UrlRefused};
use crate::relay::{RelayEvent, RelayLimits};
use crate::request::{self, MAX_HEAD, Method, Refusal, Request, Version};
use crate::spec::RelaySpec;

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;
/// Longest URL in an event, in characters.
const MAX_EVENT_URL: usize = 500;
/// The whole of one request to an origin, however slowly it answers.
const WHOLE_REQUEST: Duration = Duration::from_secs(1800);

/// Fields of an origin's response that reach the guest.
const PASSED_BACK: &[&str] = &[
    "accept-ranges",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
];

/// Serves the connections of one machine.
pub(crate) struct Proxy {
    spec: RelaySpec,
    agent: Agent,
    requests: AtomicU32,
    bytes: AtomicU64,
}

/// What the guest is given, and what goes into the event.
struct Outcome {
    status: u16,
    bytes: u64,
    problem: Option<String>,
    /// Whether the connection can be used for another request.
    intact: bool,
}

/// An origin's answer, after redirects.
struct Fetched<'a> {
    origin: &'a Origin,
    response: Response<Body>,
}

impl Proxy {
    pub(crate) fn new(spec: RelaySpec) -> Self {
        let agent = agent(spec.limits.origin_silent, TlsConfig::default());
        Self::with_agent(spec, agent)
    }

    fn with_agent(spec: RelaySpec, agent: Agent) -> Self {
        Self { spec, agent, requests: AtomicU32::new(0), bytes: AtomicU64::new(0) }
    }

    pub(crate) fn limits(&self) -> &RelayLimits {
        &self.spec.limits
    }

    /// Serves one connection to its end: requests one after the other, as apt pipelines them.
    pub(crate) fn serve(&self, stream: &mut (impl Read + Write)) {
        let mut waiting = Vec::new();
        loop {
            let head = match read_head(stream, &mut waiting, self.limits().idle) {
                Ok(None) => return,
                Ok(Some(head)) => Ok(head),
                Err(refusal) => Err(refusal),
            };
            // Counted before it is understood: what makes no sense costs work and an event as well.
            let before = self.requests.fetch_add(1, Ordering::Relaxed);
            if before >= self.limits().requests {
                // Said once; from then on there is no answer and no event.
                if before == self.limits().requests {
                    self.refuse(stream, None, &Refusal::new(429, "this machine has asked too often"));
                }
                return;
            }
            let goes_on = match head.and_then(|head| request::parse(&head)) {
                Ok(request) => self.answer(stream, &request),
                // Where this request ends is not certain, so nothing after it is read.
                Err(refusal) => {
                    self.refuse(stream, None, &refusal);
                    false
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Answers one request; false if the connection ends with it.
    fn answer(&self, stream: &mut impl Write, request: &Request) -> bool {
        match self.fetch(request) {
            Ok(fetched) => {
                let origin = fetched.origin.name.clone();
                let outcome = self.pass_on(stream, request, fetched.response);
                let event = RelayEvent {
                    method: request.method.as_str(),
                    url: shown(&request.target),
                    origin: Some(origin),
                    status: outcome.status,
                    bytes: outcome.bytes,
                    problem: outcome.problem,
                };
                (self.spec.events)(event);
                outcome.intact
            }
            Err(refusal) => self.refuse(stream, Some(request), &refusal) && request.keep_alive,
        }
    }

    /// Says no, with the reason as text; false if even that did not arrive.
    fn refuse(&self, stream: &mut impl Write, request: Option<&Request>, refusal: &Refusal) -> bool {
        let body = format!("countersign relay: {}\n", refusal.reason);
        let keep = request.is_some_and(|request| request.keep_alive);
        let mut head = status_line(refusal.status);
        head.push_str(&format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", body.len()));
        if refusal.status == 405 {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head.push_str(if keep { "\r\n" } else { "Connection: close\r\n\r\n" });
        if request.is_none_or(|request| request.method == Method::Get) {
            head.push_str(&body);
        }
        let written = stream.write_all(head.as_bytes()).is_ok();
        (self.spec.events)(RelayEvent {
            method: request.map_or("", |request| request.method.as_str()),
            url: request.map(|request| shown(&request.target)).unwrap_or_default(),
            origin: None,
            status: refusal.status,
            bytes: 0,
            problem: Some(refusal.reason.clone()),
        });
        written
    }

    /// Fetches from the origin, over TLS where its mirror has it, following redirects that stay below its prefixes
    /// and do not leave TLS.
    fn fetch(&self, request: &Request) -> Result<Fetched<'_>, Refusal> {
        let (origin, mut url) = self.spec.policy.admit(&request.target).map_err(|error| match error {
            UrlRefused::NotPlain(_) => Refusal::new(400, error.to_string()),
            UrlRefused::Undeclared(_) => Refusal::new(403, escape(&error.to_string())),
        })?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.call(request, &url)?;
            let Some(location) = redirect(&response) else { return Ok(Fetched { origin, response }) };
            url = follow(origin, &url, &location)?;
        }
        Err(Refusal::new(502, "the origin redirects in circles"))
    }

    fn call(&self, request: &Request, url: &Url) -> Result<Response<Body>, Refusal> {
        let mut call = match request.method {
            Method::Get => self.agent.get(url.as_str()),
            Method::Head => self.agent.head(url.as_str()),
        };
        for (name, value) in &request.fields {
            call = call.header(*name, value);
        }
        call.call().map_err(|error| match error {
            ureq::Error::Timeout(_) => Refusal::new(504, "the origin does not answer in time"),
            error => Refusal::new(502, escape(&format!("the origin cannot be reached: {error}"))),
        })
    }

    /// Passes the origin's answer on to the guest.
    fn pass_on(&self, stream: &mut impl Write, request: &Request, response: Response<Body>) -> Outcome {
        let status = response.status().as_u16();
        let mut head = status_line(status);
        for name in PASSED_BACK {
            if let Some(value) = response.headers().get(*name).and_then(|value| value.to_str().ok()) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let length = content_length(&response);
        let framing = framing(request, status, length);
        let mut keep = request.keep_alive;
        match framing {
            Framing::None => {
                if let Some(length) = length.filter(|_| request.method == Method::Head) {
                    head.push_str(&format!("Content-Length: {length}\r\n"));
                }
            }
            Framing::Length(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::UntilClose => keep = false,
        }
        head.push_str(if keep { "\r\n" } else { "Connection: close\r\n\r\n" });
        let mut bytes = 0;
        let passed = stream.write_all(head.as_bytes()).and_then(|()| match framing {
            Framing::None => Ok(()),
            framing => self.pass_body(stream, response.into_body(), framing, &mut bytes),
        });
        let problem = passed.err().map(|error| escape(&format!("the content is incomplete: {error}")));
        Outcome { status, bytes, intact: keep && problem.is_none(), problem }
    }

    fn pass_body(
        &self,
        out: &mut impl Write,
        body: Body,
        framing: Framing,
        passed: &mut u64,
    ) -> io::Result<()> {
        let mut from = body.into_reader();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            let total = self.bytes.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
            *passed += read as u64;
            if *passed > self.limits().response_bytes || total > self.limits().total_bytes {
                return Err(io::Error::other("more content than a machine may fetch"));
            }
            if framing == Framing::Chunked {
                out.write_all(format!("{read:x}\r\n").as_bytes())?;
                out.write_all(&buffer[..read])?;
                out.write_all(b"\r\n")?;
            } else {
                out.write_all(&buffer[..read])?;
            }
        }
        match framing {
            Framing::Chunked => out.write_all(b"0\r\n\r\n"),
            Framing::Length(length) if length != *passed => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// How the guest learns where the content ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

fn framing(request: &Request, status: u16, length: Option<u64>) -> Framing {
    if request.method == Method::Head || matches!(status, 100..=199 | 204 | 304) {
        return Framing::None;
    }
    match (length, request.version) {
        (Some(length), _) => Framing::Length(length),
        (None, Version::Http11) => Framing::Chunked,
        (None, Version::Http10) => Framing::UntilClose,
    }
}

/// The agent for declared origins. Redirects are ours to judge, and every status is an answer.
fn agent(origin_silent: Duration, tls: TlsConfig) -> Agent {
    Agent::config_builder()
        .tls_config(tls)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent("countersign")
        .timeout_global(Some(WHOLE_REQUEST))
        .timeout_resolve(Some(origin_silent))
        .timeout_connect(Some(origin_silent))
        .timeout_recv_response(Some(origin_silent))
        .timeout_per_read(Some(origin_silent))
        .build()
        .new_agent()
}

pub(crate) fn content_length<T>(response: &Response<T>) -> Option<u64> {
    response.headers().get("content-length")?.to_str().ok()?.parse().ok()
}

/// Where a response redirects to, if it does.
pub(crate) fn redirect<T>(response: &Response<T>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    Some(response.headers().get("location")?.to_str().ok()?.to_owned())
}

fn follow(origin: &Origin, from: &Url, location: &str) -> Result<Url, Refusal> {
    let target = from.join(location).map_err(|_| Refusal::new(502, "the origin redirects to no URL"))?;
    let refuse = |problem: &str| {
        Refusal::new(403, escape(&format!("origin {} redirects to {target}, {problem}", origin.name)))
    };
    let plain = crate::origin::plain_url(target.as_str()).ok().filter(|url| origin.covers(url));
    let plain = plain.ok_or_else(|| refuse("which is not below its prefixes"))?;
    if from.scheme() == "https" && plain.scheme() != "https" {
        return Err(refuse("which is not over TLS any more"));
    }
    Ok(plain)
}

fn status_line(status: u16) -> String {
    let reason =
        StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown");
    format!("HTTP/1.1 {status} {reason}\r\n")
}

fn shown(target: &str) -> String {
    let mut out: String = escape(target).chars().take(MAX_EVENT_URL).collect();
    if target.len() > out.len() {
        out.push('…');
    }
    out
}

/// Reads one head; `waiting` keeps what came after it. `None` is the orderly end of the connection.
fn read_head(
    from: &mut impl Read,
    waiting: &mut Vec<u8>,
    time: Duration,
) -> Result<Option<Vec<u8>>, Refusal> {
    const END: &[u8] = b"\r\n\r\n";
    let mut started = (!waiting.is_empty()).then(Instant::now);
    let mut searched = 0;
    loop {
        let found = waiting[searched..].windows(END.len()).position(|window| window == END);
        let length = found.map_or(waiting.len(), |at| searched + at + END.len());
        if length > MAX_HEAD {
            return Err(Refusal::new(431, "the request head is too long"));
        }
        if found.is_some() {
            let rest = waiting.split_off(length);
            return Ok(Some(std::mem::replace(waiting, rest)));
        }
        searched = waiting.len().saturating_sub(END.len() - 1);
        let late = || Refusal::new(408, "the request was not complete in time");
        if started.is_some_and(|started| started.elapsed() > time) {
            return Err(late());
        }
        let mut buffer = [0; 4096];
        match from.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(read) => waiting.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if waiting.is_empty() => return Ok(None),
            Err(_) => return Err(late()),
        }
        started = started.or_else(|| Some(Instant::now()));
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "proxy_tls_tests.rs"]
mod tls_tests;
