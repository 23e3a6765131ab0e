//! Remotes that are `https://`, by a server with a certificate that only the test trusts.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// A certificate for 127.0.0.1 that is its own CA.
const OPENSSL: &str = "[req]\ndistinguished_name=name\nx509_extensions=extensions\n[name]\n\
    [extensions]\nbasicConstraints=critical,CA:TRUE\nsubjectAltName=IP:127.0.0.1\n";

/// How the server answers.
#[derive(Clone, Copy)]
enum Answer {
    Redirect,
    Slow,
}

fn start(folder: &Path, answer: Answer, elsewhere: u16) -> u16 {
    std::fs::write(folder.join("config"), OPENSSL).unwrap();
    let run = Command::new("openssl")
        .args(["req", "-x509", "-config", "config", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-subj", "/CN=git", "-days", "2", "-keyout", "key", "-out", "certificate"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let chain = vec![CertificateDer::from_pem_file(folder.join("certificate")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("key")).unwrap();
    let config =
        Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut asked = [0; 4096];
            if stream.read(&mut asked).is_err() {
                continue;
            }
            let _ = match answer {
                Answer::Redirect => write!(
                    stream,
                    "HTTP/1.1 302 Found\r\nLocation: https://localhost:{elsewhere}/repository/info/refs?service=git-upload-pack\r\n\
                     Content-Length: 0\r\n\r\n"
                ),
                Answer::Slow => {
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n"
                        .iter()
                        .try_for_each(|byte| {
                            std::thread::sleep(Duration::from_secs(1));
                            stream.write_all(&[*byte])
                        })
                }
            };
        }
    });
    port
}

/// Where the process that the tests start finds what it is to take in, and who vouches for the server.
const URI: &str = "COUNTERSIGN_TEST_URI";

/// Not a test of its own: OpenSSL learns from the environment whom it trusts.
#[test]
#[ignore = "started by the tests of https"]
fn take_from_https() {
    let Ok(uri) = std::env::var(URI) else { return };
    let limits = FetchLimits { deadline: Duration::from_secs(8), ..FetchLimits::STANDARD };
    let error = take_within(&uri, None, &Limits::STANDARD, &limits).unwrap_err();
    println!("\n{}: {error}", error.code().unwrap());
}

fn taken(folder: &Path, port: u16, trusted: bool) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", "intake::tests::tls::take_from_https"])
        .env(URI, format!("https://127.0.0.1:{port}/repository"))
        .env_remove("SSL_CERT_DIR")
        .env_remove("SSL_CERT_FILE");
    if trusted {
        command.env("SSL_CERT_FILE", folder.join("certificate"));
    }
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    said.lines().find(|line| line.contains("git+https://")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn readable() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    // A worker with a user of its own reads the certificate by name.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let folder = readable();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = start(folder.path(), Answer::Redirect, elsewhere.local_addr().unwrap().port());
    let said = taken(folder.path(), port, true);
    assert!(elsewhere.accept().is_err(), "somebody came: {said}");
    assert!(said.starts_with("REMOTE_UNAVAILABLE: ") && said.contains("redirect"), "{said}");
}

#[test]
fn an_https_remote_that_is_slow_or_not_trusted_is_unavailable() {
    let folder = readable();
    let port = start(folder.path(), Answer::Slow, 0);
    let said = taken(folder.path(), port, true);
    assert!(said.starts_with("REMOTE_UNAVAILABLE: ") && said.contains("no answer within 8 s"), "{said}");
    let said = taken(folder.path(), port, false);
    assert!(said.starts_with("REMOTE_UNAVAILABLE: ") && said.contains("certificate"), "{said}");
}
