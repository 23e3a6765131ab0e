//! The relay from inside a guest: the declared origin answers, and nothing else does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use harness::origin::Prefix;
use harness::{MachineSpec, Origin, RelayEvent, RelayLimits, RelayPolicy, RelaySpec};

use crate::base::{boot, nano, probe};

/// Bytes of the page that the origin serves: several windows of the relay.
const PAGE: usize = 1_500_000;

/// Answers every request with the same page.
fn server(page: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let _ = stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len()).as_bytes());
            let _ = stream.write_all(&page);
        }
    });
    address
}

#[test]
fn only_the_declared_origin_is_reached_from_the_guest() {
    let page: Vec<u8> = (0..PAGE).map(|number| b'a' + (number % 26) as u8).collect();
    let (mirror, other) = (server(page.clone()), server(b"not yours".to_vec()));
    let events: Arc<Mutex<Vec<RelayEvent>>> = Arc::default();
    let kept = Arc::clone(&events);
    let prefixes = vec![Prefix::parse(&format!("http://{mirror}/debian/")).unwrap()];
    let relay = RelaySpec {
        policy: RelayPolicy { origins: vec![Origin { name: "debian".parse().unwrap(), prefixes }] },
        limits: RelayLimits::STANDARD,
        events: Arc::new(move |event| kept.lock().unwrap().push(event)),
    };
    let folder = tempfile::tempdir().unwrap();
    let mut machine = boot(MachineSpec { relay: Some(relay), ..nano("relay", folder.path()) });
    let (exited, said) = probe(&mut machine, &["connect", "127.0.0.1:3128"]);
    assert_ne!(exited.status, Some(0), "the relay is closed until it is opened: {said}");
    machine.open_relay().unwrap();

    let mut fetch = |url: &str, host: &str| {
        let request = format!("GET {url} HTTP/1.1|Host: {host}|Connection: close||");
        probe(&mut machine, &["fetch", "127.0.0.1:3128", &request]).1
    };
    let said = fetch(&format!("http://{mirror}/debian/page"), &mirror.to_string());
    // The page is longer than the output that is passed on: its beginning is compared.
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains(&format!("Content-Length: {PAGE}")), "{head}");
    assert!(body.len() > 1_000_000 && page.starts_with(body.as_bytes()));

    // The declared server outside its prefix, the host's loopback, another host, an undeclared origin.
    for (url, host) in [
        (format!("http://{mirror}/other/page"), mirror.to_string()),
        (format!("http://{other}/debian/page"), other.to_string()),
        (format!("http://localhost:{}/debian/page", mirror.port()), format!("localhost:{}", mirror.port())),
        ("http://192.0.2.1/debian/page".into(), "192.0.2.1".into()),
        ("http://undeclared.example/debian/page".into(), "undeclared.example".into()),
    ] {
        let said = fetch(&url, &host);
        assert!(
            said.starts_with("HTTP/1.1 403") && said.contains("below no declared origin"),
            "{url}: {said}"
        );
    }
    let tunnel = format!("CONNECT {mirror} HTTP/1.1|Host: {mirror}||");
    let (_, said) = probe(&mut machine, &["fetch", "127.0.0.1:3128", &tunnel]);
    assert!(said.starts_with("HTTP/1.1 405"), "{said}");

    // Without the relay there is no way at all: no card, no route.
    for address in [&mirror.to_string(), &other.to_string(), "10.0.2.2:80", "192.0.2.1:80"] {
        let (exited, said) = probe(&mut machine, &["connect", address]);
        assert_ne!(exited.status, Some(0), "{address}: {said}");
    }
    machine.close_relay().unwrap();
    let (exited, _) = probe(&mut machine, &["connect", "127.0.0.1:3128"]);
    assert_ne!(exited.status, Some(0));
    machine.ping().expect("the relay's protocol was kept");

    let events = events.lock().unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.status, event.bytes)).collect();
    assert_eq!(seen, [(200, PAGE as u64), (403, 0), (403, 0), (403, 0), (403, 0), (403, 0), (405, 0)]);
}
