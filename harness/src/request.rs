//! The head of a request that a program in the guest sends to the proxy (RFC 9112 §3).
//!
//! Read strictly: what another server could read differently is refused, which leaves nothing to smuggle.

use url::Url;

/// Longest head, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// Most header fields.
const MAX_FIELDS: usize = 64;

/// What may be asked of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// A request without a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// As it was written.
    pub(crate) target: String,
    pub(crate) version: Version,
    /// Whether another request may follow on this connection.
    pub(crate) keep_alive: bool,
    /// The fields that are passed on.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// A request that is not served: status and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

/// What apt, curl and the like send to fetch a part or only what has changed. Everything else stays in the guest.
const PASSED_ON: &[&str] = &[
    "accept",
    "cache-control",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
];

/// Reads a head, from the first byte of the request line up to and with the empty line.
pub(crate) fn parse(head: &[u8]) -> Result<Request, Refusal> {
    let bad = |reason: &str| Refusal::new(400, reason);
    let text = std::str::from_utf8(head)
        .ok()
        .filter(|text| text.is_ascii())
        .ok_or_else(|| bad("the head is not ASCII"))?;
    let text = text.strip_suffix("\r\n\r\n").ok_or_else(|| bad("the head has no end"))?;
    let mut lines = text.split("\r\n");
    let (method, target, version) = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Vec::new();
    let mut host = None;
    let mut keep_alive = version == Version::Http11;
    for (count, line) in lines.enumerate() {
        if count >= MAX_FIELDS {
            return Err(Refusal::new(431, "there are too many header fields"));
        }
        let (name, value) = field(line)?;
        match name.as_str() {
            "host" if host.is_some() => return Err(bad("there are two Host fields")),
            "host" => host = Some(value.to_owned()),
            "content-length" if value == "0" => {}
            "content-length" | "transfer-encoding" => return Err(bad("a request here has no body")),
            "upgrade" | "expect" => return Err(bad("only plain requests are served")),
            "connection" | "proxy-connection" => {
                for option in value.split(',').map(str::trim) {
                    keep_alive &= !option.eq_ignore_ascii_case("close");
                }
            }
            name => {
                if let Some(known) = PASSED_ON.iter().find(|known| **known == name) {
                    fields.push((*known, value.to_owned()));
                }
            }
        }
    }
    host_agrees(host.as_deref(), target, version)?;
    Ok(Request { method, target: target.to_owned(), version, keep_alive, fields })
}

fn request_line(line: &str) -> Result<(Method, &str, Version), Refusal> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::new(400, "the request line does not have three parts"));
    };
    let version = match version {
        "HTTP/1.0" => Version::Http10,
        "HTTP/1.1" => Version::Http11,
        _ => return Err(Refusal::new(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")),
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "CONNECT" => {
            let reason =
                "there are no tunnels: a building machine fetches http:// URLs of declared origins only";
            return Err(Refusal::new(405, reason));
        }
        _ => return Err(Refusal::new(405, "only GET and HEAD are served")),
    };
    if !target.starts_with("http://") {
        return Err(Refusal::new(400, "the target is not an absolute http:// URL"));
    }
    Ok((method, target, version))
}

/// One field: its name in lower case, and its value (RFC 9110 §5.5) without the space around it.
fn field(line: &str) -> Result<(String, &str), Refusal> {
    let bad = || Refusal::new(400, "a header field is malformed");
    let (name, value) = line.split_once(':').ok_or_else(bad)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    // A name with a space before the colon, or a line that goes on with a space, ends here (RFC 9112 §5.1, §5.2).
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(bad());
    }
    if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        return Err(bad());
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])))
}

/// `Host` must name the server of the target (RFC 9112 §3.2.2 would let us ignore it; another server might not).
fn host_agrees(host: Option<&str>, target: &str, version: Version) -> Result<(), Refusal> {
    let Some(host) = host else {
        return match version {
            Version::Http10 => Ok(()),
            Version::Http11 => Err(Refusal::new(400, "there is no Host field")),
        };
    };
    let named = Url::parse(&format!("http://{host}/"))
        .ok()
        .filter(|url| url.path() == "/" && url.username().is_empty());
    let asked = Url::parse(target).ok();
    if named.is_none() || named.map(|url| url.origin()) != asked.map(|url| url.origin()) {
        return Err(Refusal::new(400, "the Host field names another server than the URL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(head: &str) -> u16 {
        parse(head.replace('\n', "\r\n").as_bytes()).map_or_else(|refusal| refusal.status, |_| 200)
    }

    #[test]
    fn what_apt_sends_is_read() {
        let head = "GET http://mirror.example/debian/x HTTP/1.1\r\nHost: mirror.example\r\nCache-Control: max-age=0\r\n\
                    Range: bytes=100-\r\nIf-Range: Sat, 01 Jan 2000 00:00:00 GMT\r\nUser-Agent: Debian APT-HTTP/1.3\r\n\r\n";
        let request = parse(head.as_bytes()).unwrap();
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.target, "http://mirror.example/debian/x");
        assert!(request.keep_alive);
        let names: Vec<_> = request.fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["cache-control", "range", "if-range"]);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let get = "GET http://m.example/ HTTP/1.1\nHost: m.example\n";
        for (head, expected) in [
            (format!("{get}\n"), 200),
            (format!("{get}Content-Length: 0\n\n"), 200),
            (format!("{get}Content-Length: 5\n\n"), 400),
            (format!("{get}Content-Length: 00\n\n"), 400),
            (format!("{get}Transfer-Encoding: chunked\n\n"), 400),
            (format!("{get}Transfer-Encoding : chunked\n\n"), 400),
            (format!("{get} folded\n\n"), 400),
            (format!("{get}X: a\rb\n\n"), 400),
            (format!("{get}X: a\0b\n\n"), 400),
            (format!("{get}no colon\n\n"), 400),
            (format!("{get}: empty\n\n"), 400),
            (format!("{get}Host: m.example\n\n"), 400),
            (format!("{get}Upgrade: websocket\n\n"), 400),
            (format!("{get}Expect: 100-continue\n\n"), 400),
            ("GET http://m.example/ HTTP/1.1\n\n".into(), 400),
            ("GET http://m.example/ HTTP/1.1\nHost: other.example\n\n".into(), 400),
            ("GET http://m.example/ HTTP/1.1\nHost: m.example:81\n\n".into(), 400),
            ("GET http://m.example/ HTTP/1.1\nHost: m.example/x\n\n".into(), 400),
            ("GET http://m.example:80/ HTTP/1.1\nHost: m.example\n\n".into(), 200),
            ("GET http://m.example/ HTTP/1.0\n\n".into(), 200),
            ("GET  http://m.example/ HTTP/1.1\nHost: m.example\n\n".into(), 400),
            ("GET http://m.example/ HTTP/2.0\nHost: m.example\n\n".into(), 505),
            ("GET http://m.example/\n\n".into(), 400),
            ("GET / HTTP/1.1\nHost: m.example\n\n".into(), 400),
            ("GET https://m.example/ HTTP/1.1\nHost: m.example\n\n".into(), 400),
            ("CONNECT m.example:443 HTTP/1.1\nHost: m.example\n\n".into(), 405),
            ("POST http://m.example/ HTTP/1.1\nHost: m.example\n\n".into(), 405),
            ("get http://m.example/ HTTP/1.1\nHost: m.example\n\n".into(), 405),
        ] {
            assert_eq!(status(&head), expected, "{head:?}");
        }
        let many = format!("{get}{}\n", "X: y\n".repeat(MAX_FIELDS));
        assert_eq!(status(&many), 431);
        assert_eq!(parse(b"GET http://m.example/ HTTP/1.1\nHost: m.example\n\n").unwrap_err().status, 400);
    }

    #[test]
    fn a_tunnel_is_refused_aloud() {
        let refusal = parse(b"CONNECT m.example:443 HTTP/1.1\r\nHost: m.example:443\r\n\r\n").unwrap_err();
        assert!(refusal.reason.contains("no tunnels"));
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&head);
            let _ = parse(&[b"GET http://m.example/ HTTP/1.1\r\n".as_slice(), &head, b"\r\n\r\n"].concat());
        }
    }
}
