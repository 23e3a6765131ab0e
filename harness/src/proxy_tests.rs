//! The proxy against a real server on loopback, and against hostile requests.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::origin::{Prefix, RelayPolicy};

/// A server that answers by path, and remembers what it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&server.asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                thread::spawn(move || serve(stream, &asked));
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut waiting = Vec::new();
    while let Ok(Some(head)) = read_head(&mut stream, &mut waiting, Duration::from_secs(5)) {
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        asked.lock().unwrap().push(head.clone());
        let redirect =
            |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        let answer = match path.as_str() {
            "/pub/file" if head.to_lowercase().contains("range: bytes=2-") => {
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/5\r\nContent-Length: 3\r\n\r\nllo"
                    .into()
            }
            "/pub/file" if head.starts_with("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into(),
            "/pub/file" if head.to_lowercase().contains("if-modified-since") => {
                "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".into()
            }
            "/pub/file" => "HTTP/1.1 200 OK\r\nSet-Cookie: secret\r\nContent-Length: 5\r\n\r\nhello".into(),
            "/pub/chunked" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".into()
            }
            "/pub/short" => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".into(),
            "/pub/big" => format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}", "x".repeat(5000)),
            "/pub/inside" => redirect("file"),
            "/pub/outside" => redirect("/secret"),
            "/pub/dots" => redirect("/pub/../secret"),
            "/pub/loop" => redirect("/pub/loop"),
            "/pub/elsewhere" => redirect("http://localhost:1/pub/file"),
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
        };
        stream.write_all(answer.as_bytes()).unwrap();
        if path == "/pub/short" {
            return;
        }
    }
}

fn proxy_with(server: &Server, limits: RelayLimits) -> (Arc<Proxy>, Arc<Mutex<Vec<RelayEvent>>>) {
    let events: Arc<Mutex<Vec<RelayEvent>>> = Arc::default();
    let kept = Arc::clone(&events);
    let origin = Origin {
        name: "mirror".parse().unwrap(),
        prefixes: vec![Prefix::parse(&server.url("/pub/")).unwrap()],
    };
    let spec = RelaySpec {
        policy: RelayPolicy { origins: vec![origin] },
        limits,
        events: Arc::new(move |event| kept.lock().unwrap().push(event)),
    };
    (Arc::new(Proxy::new(spec)), events)
}

fn limits() -> RelayLimits {
    RelayLimits { idle: Duration::from_millis(500), ..RelayLimits::STANDARD }
}

/// Sends bytes to a proxy for this server, and gives all it says until it closes the connection.
fn exchange_with(server: &Server, limits: RelayLimits, bytes: &[u8]) -> (String, Vec<RelayEvent>) {
    let (proxy, events) = proxy_with(server, limits);
    let (mut program, mut stream) = std::os::unix::net::UnixStream::pair().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let serving = thread::spawn(move || {
        proxy.serve(&mut stream);
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    // The proxy may have hung up on the rest of a hostile request already.
    let _ = program.write_all(bytes);
    let _ = program.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    // A socket that is closed with bytes unread is reset; what was said before has arrived.
    let _ = program.read_to_end(&mut said);
    serving.join().unwrap();
    let events = events.lock().unwrap().clone();
    (String::from_utf8(said).unwrap(), events)
}

fn exchange(server: &Server, bytes: &str) -> (String, Vec<RelayEvent>) {
    exchange_with(server, limits(), bytes.as_bytes())
}

fn get(server: &Server, path: &str) -> String {
    request(server, "GET", path, "")
}

fn request(server: &Server, method: &str, path: &str, fields: &str) -> String {
    format!("{method} {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.url(path), server.address)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let (said, events) = exchange(
        &server,
        &[get(&server, "/pub/file"), get(&server, "/pub/chunked"), get(&server, "/pub/none")].concat(),
    );
    let answers: Vec<_> = said.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(answers.len(), 3, "{said}");
    assert!(
        answers[0].starts_with("200") && answers[0].ends_with("Content-Length: 5\r\n\r\nhello"),
        "{said}"
    );
    assert!(
        answers[1].contains("Transfer-Encoding: chunked") && answers[1].ends_with("\r\n0\r\n\r\n"),
        "{said}"
    );
    assert!(answers[2].starts_with("404"));
    assert!(!said.contains("secret"), "cookies stay outside");
    let seen: Vec<_> =
        events.iter().map(|event| (event.status, event.bytes, event.problem.is_none())).collect();
    assert_eq!(seen, [(200, 5, true), (200, 5, true), (404, 0, true)]);
    assert_eq!(events[0].url, server.url("/pub/file"));
    assert_eq!(events[0].origin.as_ref().unwrap().to_string(), "mirror");
}

#[test]
fn parts_conditions_and_heads_are_passed_on() {
    let server = Server::start();
    let (said, _) = exchange(&server, &request(&server, "GET", "/pub/file", "Range: bytes=2-\r\n"));
    assert!(
        said.contains("206") && said.contains("content-range: bytes 2-4/5") && said.ends_with("llo"),
        "{said}"
    );
    let since = "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n";
    let (said, _) = exchange(&server, &request(&server, "GET", "/pub/file", since));
    assert!(said.starts_with("HTTP/1.1 304") && said.ends_with("\r\n\r\n"), "{said}");
    let (said, _) = exchange(&server, &request(&server, "HEAD", "/pub/file", ""));
    assert!(said.contains("Content-Length: 5") && said.ends_with("\r\n\r\n"), "{said}");
}

#[test]
fn what_the_guest_says_of_itself_stays_inside() {
    let server = Server::start();
    exchange(
        &server,
        &request(
            &server,
            "GET",
            "/pub/file",
            "X-Secret: 1\r\nCookie: c\r\nAuthorization: a\r\nProxy-Authorization: p\r\n",
        ),
    );
    let asked = server.asked().join("").to_lowercase();
    for field in ["x-secret", "cookie", "authorization"] {
        assert!(!asked.contains(field), "{asked}");
    }
}

#[test]
fn an_undeclared_place_is_refused_with_its_reason_and_never_asked() {
    let server = Server::start();
    for path in ["/", "/secret", "/pub", "/public/x"] {
        let (said, events) = exchange(&server, &get(&server, path));
        assert_eq!(status(&said), "403", "{path}: {said}");
        assert!(said.contains("is below no declared origin"), "{said}");
        assert_eq!((events[0].status, events[0].origin.is_none()), (403, true));
    }
    let (said, _) = exchange(&server, "GET http://localhost:22/pub/x HTTP/1.1\r\nHost: localhost:22\r\n\r\n");
    assert_eq!(status(&said), "403");
    assert!(server.asked().is_empty());
}

#[test]
fn hostile_requests_never_reach_the_server() {
    let server = Server::start();
    let host = format!("Host: {}\r\n", server.address);
    let line = format!("GET {} HTTP/1.1\r\n", server.url("/pub/file"));
    let smuggled = get(&server, "/pub/smuggled");
    let long = "x".repeat(MAX_HEAD);
    for (bytes, expected) in [
        (format!("CONNECT {} HTTP/1.1\r\n{host}\r\n", server.address), "405"),
        (request(&server, "POST", "/pub/file", ""), "405"),
        (get(&server, "/pub/../secret"), "400"),
        (get(&server, "/pub/%2e%2e/secret"), "400"),
        (get(&server, "/pub/..%2fsecret"), "400"),
        (get(&server, "/pub/%252e%252e/secret"), "400"),
        (format!("GET http://u:p@{}/pub/file HTTP/1.1\r\n{host}\r\n", server.address), "400"),
        (format!("{line}{host}Content-Length: 4\r\n\r\nbody{smuggled}"), "400"),
        (format!("{line}{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"), "400"),
        (format!("{line}{host}Content-Length : 0\r\n\r\n{smuggled}"), "400"),
        (format!("{line}{host}X: a\n\n{smuggled}"), "400"),
        (format!("{line}{host}Host: other.example\r\n\r\n"), "400"),
        (format!("{line}Host: other.example\r\n\r\n"), "400"),
        (format!("GET /pub/file HTTP/1.1\r\n{host}\r\n"), "400"),
        (format!("\r\n{line}{host}\r\n"), "400"),
        (format!("{line}{host}X: {long}\r\n\r\n"), "431"),
        (long.repeat(3), "431"),
    ] {
        let (said, events) = exchange(&server, &bytes);
        let shown: String = bytes.chars().take(200).collect();
        assert_eq!(status(&said), expected, "{shown}: {said}");
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "nothing is answered after it: {shown}: {said}");
        assert_eq!(events.len(), 1);
    }
    assert!(server.asked().is_empty(), "{:?}", server.asked());
}

#[test]
fn a_request_that_never_ends_is_given_up() {
    let server = Server::start();
    let (proxy, _) = proxy_with(&server, limits());
    let (mut program, mut stream) = std::os::unix::net::UnixStream::pair().unwrap();
    let trickle = thread::spawn(move || {
        let start = Instant::now();
        while program.write_all(b"G").is_ok() && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(20));
        }
        start.elapsed()
    });
    proxy.serve(&mut stream);
    drop(stream);
    assert!(trickle.join().unwrap() < Duration::from_secs(5));
}

#[test]
fn redirects_are_followed_only_inside_the_origin() {
    let server = Server::start();
    let (said, _) = exchange(&server, &get(&server, "/pub/inside"));
    assert!(said.ends_with("hello"), "{said}");
    for path in ["/pub/outside", "/pub/dots", "/pub/elsewhere"] {
        let (said, events) = exchange(&server, &get(&server, path));
        assert_eq!(status(&said), "403", "{said}");
        assert!(events[0].problem.as_ref().unwrap().contains("redirects to"));
    }
    assert_eq!(status(&exchange(&server, &get(&server, "/pub/loop")).0), "502");
    assert!(!server.asked().iter().any(|head| head.contains("/secret")));
}

#[test]
fn content_that_is_cut_ends_the_connection_and_is_told() {
    let server = Server::start();
    let both = [get(&server, "/pub/short"), get(&server, "/pub/file")].concat();
    let (said, events) = exchange(&server, &both);
    assert!(said.ends_with("\r\n\r\nhello"), "{said}");
    assert_eq!(events.len(), 1);
    assert!(events[0].problem.as_ref().unwrap().contains("incomplete"));
}

#[test]
fn sizes_and_numbers_are_limited() {
    let server = Server::start();
    let small = RelayLimits { response_bytes: 4999, ..limits() };
    let (said, events) = exchange_with(&server, small, get(&server, "/pub/big").as_bytes());
    assert!(said.len() < 5000 && events[0].problem.is_some());
    let total = RelayLimits { total_bytes: 12, ..limits() };
    let (_, events) = exchange_with(&server, total, get(&server, "/pub/file").repeat(3).as_bytes());
    assert_eq!(events.iter().filter(|event| event.problem.is_none()).count(), 2);
    let few = RelayLimits { requests: 2, ..limits() };
    let (said, _) = exchange_with(&server, few, get(&server, "/pub/file").repeat(4).as_bytes());
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2);
    assert_eq!(said.matches("HTTP/1.1 429").count(), 1);
}

#[test]
fn requests_without_end_are_told_once_and_then_only_counted() {
    let server = Server::start();
    let limits = RelayLimits { requests: 5, ..limits() };
    let bombs = [
        "\r\n\r\n".to_owned(),
        "CONNECT x:443 HTTP/1.1\r\n\r\n".into(),
        get(&server, "/undeclared"),
        format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD)),
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n{}\r\n",
            server.url("/pub/"),
            server.address,
            "X: y\r\n".repeat(1000)
        ),
    ];
    for bomb in bombs {
        let (proxy, events) = proxy_with(&server, limits.clone());
        for _ in 0..50 {
            let (mut program, mut stream) = std::os::unix::net::UnixStream::pair().unwrap();
            program.write_all(bomb.as_bytes()).unwrap();
            program.shutdown(std::net::Shutdown::Write).unwrap();
            proxy.serve(&mut stream);
        }
        let statuses: Vec<_> = events.lock().unwrap().iter().map(|event| event.status).collect();
        assert_eq!(statuses.len(), 6, "{bomb:.40}");
        assert_eq!(statuses[5], 429);
        assert!(statuses[..5].iter().all(|status| [400, 403, 405, 431].contains(status)), "{statuses:?}");
    }
}

#[test]
fn an_origin_that_is_down_is_a_bad_gateway() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server { address: gone, asked: Arc::default() };
    let (said, events) = exchange(&server, &get(&server, "/pub/file"));
    assert_eq!(status(&said), "502", "{said}");
    assert_eq!(events[0].status, 502);
}

#[test]
fn old_clients_get_content_until_the_end() {
    let server = Server::start();
    let (said, _) = exchange(&server, &format!("GET {} HTTP/1.0\r\n\r\n", server.url("/pub/chunked")));
    assert!(said.contains("Connection: close") && said.ends_with("\r\n\r\nabcde"), "{said}");
}
