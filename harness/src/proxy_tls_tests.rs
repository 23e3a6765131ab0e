//! The proxy against mirrors that are `https://`: what a guest asks with `http://` leaves the host only over TLS.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use ureq::tls::{Certificate, RootCerts};

use super::*;
use crate::origin::{Prefix, RelayPolicy};

/// The first byte of a TLS handshake record (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// A certificate for 127.0.0.1 that nobody but the test trusts, and its key.
const OPENSSL: &str = "[req]\ndistinguished_name=name\nx509_extensions=extensions\n[name]\n\
    [extensions]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";

/// A server that speaks TLS only, and answers by path.
struct TlsServer {
    address: SocketAddr,
    certificate: Vec<u8>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TlsServer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = new_certificate(folder.path());
        let chain = vec![CertificateDer::from_pem_slice(&certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let server = Self { address: listener.local_addr().unwrap(), certificate, asked: Arc::default() };
        let (asked, address) = (Arc::clone(&server.asked), server.address);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                serve(&mut StreamOwned::new(connection, stream), address, &asked);
            }
        });
        server
    }

    /// A proxy that trusts this server's certificate and has prefixes with these schemes.
    fn proxy(&self, schemes: &[&str]) -> (Proxy, Arc<Mutex<Vec<RelayEvent>>>) {
        let (spec, events) = spec(self.address, schemes);
        let root = Certificate::from_pem(&self.certificate).unwrap();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).build();
        let agent = agent(spec.limits.origin_silent, tls);
        (Proxy::with_agent(spec, agent), events)
    }
}

fn new_certificate(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    std::fs::write(folder.join("config"), OPENSSL).unwrap();
    let run = Command::new("openssl")
        .args(["req", "-x509", "-config", "config", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-subj", "/CN=mirror", "-days", "2", "-keyout", "key", "-out", "certificate"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    (std::fs::read(folder.join("certificate")).unwrap(), std::fs::read(folder.join("key")).unwrap())
}

/// One request a connection.
fn serve(stream: &mut (impl Read + Write), address: SocketAddr, asked: &Mutex<Vec<String>>) {
    let Ok(Some(head)) = read_head(stream, &mut Vec::new(), Duration::from_secs(5)) else { return };
    let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
    let answer = match path.as_str() {
        "/pub/file" => "200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "/pub/inside" => "302 Found\r\nLocation: file\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "/pub/plain" => {
            format!("302 Found\r\nLocation: http://{address}/pub/file\r\nContent-Length: 0\r\n\r\n")
        }
        _ => "404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    };
    asked.lock().unwrap().push(path);
    let _ = stream.write_all(
        format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1)).as_bytes(),
    );
    let _ = stream.flush();
}

fn spec(address: SocketAddr, schemes: &[&str]) -> (RelaySpec, Arc<Mutex<Vec<RelayEvent>>>) {
    let events: Arc<Mutex<Vec<RelayEvent>>> = Arc::default();
    let kept = Arc::clone(&events);
    let prefix = |scheme: &&str| Prefix::parse(&format!("{scheme}://{address}/pub/")).unwrap();
    let origin = Origin { name: "mirror".parse().unwrap(), prefixes: schemes.iter().map(prefix).collect() };
    let spec = RelaySpec {
        policy: RelayPolicy { origins: vec![origin] },
        limits: RelayLimits { origin_silent: Duration::from_secs(5), ..RelayLimits::STANDARD },
        events: Arc::new(move |event| kept.lock().unwrap().push(event)),
    };
    (spec, events)
}

/// What the proxy answers to one `GET http://…`.
fn get(proxy: &Proxy, address: SocketAddr, path: &str) -> String {
    let (mut program, mut stream) = std::os::unix::net::UnixStream::pair().unwrap();
    let request =
        format!("GET http://{address}{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    program.write_all(request.as_bytes()).unwrap();
    proxy.serve(&mut stream);
    drop(stream);
    let mut said = String::new();
    program.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn what_is_asked_with_http_is_fetched_over_tls() {
    let server = TlsServer::start();
    let (proxy, events) = server.proxy(&["https"]);
    for path in ["/pub/file", "/pub/inside"] {
        let said = get(&proxy, server.address, path);
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("hello"), "{path}: {said}");
    }
    assert_eq!(*server.asked.lock().unwrap(), ["/pub/file", "/pub/inside", "/pub/file"]);
    let events = events.lock().unwrap();
    assert!(events.iter().all(|event| event.status == 200 && event.problem.is_none()));
}

#[test]
fn a_redirect_never_leaves_tls() {
    let server = TlsServer::start();
    // Even to where another prefix of the same origin would allow it.
    for (schemes, reason) in [
        (["https", "https"], "not below its prefixes"),
        (["https", "http"], "not over TLS any more"),
        (["http", "https"], "not over TLS any more"),
    ] {
        let (proxy, _) = server.proxy(&schemes);
        let said = get(&proxy, server.address, "/pub/plain");
        assert!(said.starts_with("HTTP/1.1 403") && said.contains(reason), "{schemes:?}: {said}");
    }
    assert!(server.asked.lock().unwrap().iter().all(|path| path == "/pub/plain"));
}

#[test]
fn a_certificate_that_the_host_does_not_trust_ends_it() {
    let server = TlsServer::start();
    let (spec, _) = spec(server.address, &["https"]);
    let said = get(&Proxy::new(spec), server.address, "/pub/file");
    assert!(said.starts_with("HTTP/1.1 502"), "{said}");
    assert!(server.asked.lock().unwrap().is_empty());
}

#[test]
fn nothing_is_sent_in_the_clear_to_a_mirror_with_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, first) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            sender.send(byte[0]).unwrap();
        }
    });
    let (spec, _) = spec(address, &["https"]);
    let said = get(&Proxy::new(spec), address, "/pub/file");
    assert!(said.starts_with("HTTP/1.1 502"), "{said}");
    let seen: Vec<_> = first.try_iter().collect();
    assert!(!seen.is_empty() && seen.iter().all(|byte| *byte == HANDSHAKE), "{seen:?}");
}
