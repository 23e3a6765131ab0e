//! Downloads from a server on loopback, which is exactly what a recipe may not reach by itself.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use recipe_spec::Code;

use super::*;
use crate::origin::{Origin, Prefix};

fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let answer = match head.split(' ').nth(1).unwrap_or_default() {
                "/pub/file" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
                "/pub/short" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".to_owned(),
                "/pub/endless" => format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000)),
                "/pub/inside" => {
                    "HTTP/1.1 302 Found\r\nLocation: file\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
                "/pub/inner" => {
                    "HTTP/1.1 302 Found\r\nLocation: /private\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
                "/pub/loop" => "HTTP/1.1 302 Found\r\nLocation: loop\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn site(address: SocketAddr) -> RelayPolicy {
    let prefixes = vec![Prefix::parse(&format!("http://{address}/pub/")).unwrap()];
    RelayPolicy { origins: vec![Origin { name: "mirror".parse().unwrap(), prefixes }] }
}

fn fetch(url: &str, content: &[u8], policy: &RelayPolicy) -> Result<Vec<u8>, HarnessError> {
    let limits = DownloadLimits { bytes: 1000, time: Duration::from_secs(10), redirects: 3 };
    let mut into = Vec::new();
    fetch_download(url, &Sha256Digest::of(content), &limits, policy, &mut into).map(|_| into)
}

#[test]
fn below_an_origin_of_the_site_it_is_fetched_and_checked() {
    let address = server();
    let policy = site(address);
    let url = |path: &str| format!("http://{address}{path}");
    assert_eq!(fetch(&url("/pub/file"), b"hello", &policy).unwrap(), b"hello");
    assert_eq!(fetch(&url("/pub/inside"), b"hello", &policy).unwrap(), b"hello");
    for (path, code) in [
        ("/pub/none", Code::RemoteUnavailable),
        ("/pub/short", Code::RemoteUnavailable),
        ("/pub/loop", Code::RemoteUnavailable),
        ("/pub/endless", Code::BadRecipe),
    ] {
        assert_eq!(fetch(&url(path), b"hello", &policy).unwrap_err().code(), code, "{path}");
    }
    assert_eq!(fetch(&url("/pub/file"), b"other", &policy).unwrap_err().code(), Code::InputChanged);
}

#[test]
fn inner_addresses_are_refused_by_number_by_name_and_behind_a_redirect() {
    let address = server();
    let port = address.port();
    for url in [
        format!("http://127.0.0.1:{port}/pub/file"),
        format!("http://localhost:{port}/pub/file"),
        format!("http://[::ffff:127.0.0.1]:{port}/pub/file"),
        format!("http://2130706433:{port}/pub/file"),
        format!("http://0x7f.1:{port}/pub/file"),
        format!("http://u@127.0.0.1:{port}/pub/file"),
        "file:///etc/shadow".to_owned(),
    ] {
        let error = fetch(&url, b"hello", &RelayPolicy::default()).unwrap_err();
        assert!(matches!(error, HarnessError::DownloadRefused { .. }), "{url}: {error}");
    }
    let error = fetch(&format!("http://{address}/pub/inner"), b"hello", &site(address)).unwrap_err();
    assert!(matches!(error, HarnessError::DownloadRefused { .. }), "{error}");
}
