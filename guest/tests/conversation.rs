//! The conversation itself: order, files in both directions, and what ends it.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod wire;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use guest::control::{self, AgentErrorKind, Identity, Mode, PROTOCOL, Request, Response};
use recipe_spec::digest::Sha256Digest;
use wire::{Agent, Answer, kind};

fn write(agent: &mut Agent, path: &Path, announced: &[u8], sent: &[&[u8]]) -> Answer {
    let request = Request::WriteFile {
        path: path.to_str().unwrap().into(),
        mode: 0o640,
        size: announced.len() as u64,
        sha256: Sha256Digest::of(announced).to_hex(),
    };
    agent.ask_raw(&serde_json::to_vec(&request).unwrap(), Some(sent))
}

fn read(agent: &mut Agent, path: &Path, limit: u64) -> Answer {
    agent.ask(&Request::ReadFile { path: path.to_str().unwrap().into(), limit })
}

#[test]
fn the_first_word_names_protocol_and_boot() {
    let agent = Agent::start();
    assert_eq!((agent.hello.protocol, agent.hello.mode), (PROTOCOL, Mode::Disk));
    assert_eq!(agent.hello.boot_id.len(), 36);
    assert_eq!(agent.finish(), Some(0));
}

#[test]
fn what_is_no_request_is_refused_and_the_conversation_goes_on() {
    let mut agent = Agent::start();
    for text in ["", "{", "null", "\"nonsense\"", "{\"exec\":{}}", "{\"ping\":null,\"x\":1}"] {
        assert_eq!(
            kind(&agent.ask_raw(text.as_bytes(), None).response),
            AgentErrorKind::BadRequest,
            "{text}"
        );
    }
    assert_eq!(agent.ask(&Request::Ping).response, Response::Pong);
    let wake = Request::Wake(Identity { seed: String::new(), unix_time_ns: u64::MAX, names: None });
    for request in [Request::Freeze, Request::Thaw, Request::Rest, wake, Request::PowerOff] {
        assert_eq!(kind(&agent.ask(&request).response), AgentErrorKind::BadRequest);
    }
}

#[test]
fn a_frame_out_of_place_ends_the_conversation() {
    for (frame, body) in
        [(control::DATA, b"x".as_slice()), (control::END, b""), (control::HELLO, b"{}"), (99, b"")]
    {
        let mut agent = Agent::start();
        agent.send(frame, 1, body);
        assert!(agent.receive().is_err());
        assert_eq!(agent.finish(), Some(1));
    }
    // Content of another request.
    let mut agent = Agent::start();
    let request = Request::WriteFile { path: "/nowhere".into(), mode: 0, size: 1, sha256: "00".repeat(32) };
    agent.send(control::REQUEST, 1, &serde_json::to_vec(&request).unwrap());
    agent.send(control::DATA, 2, b"x");
    assert!(agent.receive().is_err());
    assert_eq!(agent.finish(), Some(1));
}

#[test]
fn a_file_is_written_once_and_then_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file");
    let mut agent = Agent::start();
    let content = vec![7; 300_000];
    let parts: Vec<&[u8]> = content.chunks(100_000).collect();
    assert_eq!(write(&mut agent, &path, &content, &parts).response, Response::Written { changed: true });
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(folder.path().join("a/b")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(write(&mut agent, &path, &content, &parts).response, Response::Written { changed: false });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(write(&mut agent, &path, &content, &parts).response, Response::Written { changed: true });
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn content_that_is_not_as_announced_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "old").unwrap();
    let mut agent = Agent::start();
    let wrong: [&[&[u8]]; 4] = [&[b"nEw!"], &[b"new"], &[b"new!", b"!"], &[]];
    for sent in wrong {
        let answer = write(&mut agent, &path, b"new!", sent);
        assert_eq!(kind(&answer.response), AgentErrorKind::BadRequest, "{sent:?}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
    // The same holds when the file already is as announced.
    fs::write(&path, "new!").unwrap();
    assert_eq!(kind(&write(&mut agent, &path, b"new!", &[b"nEw!"]).response), AgentErrorKind::BadRequest);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    for path in ["relative", "/a/../b", "/", ""] {
        let answer = write(&mut agent, Path::new(path), b"x", &[b"x"]);
        assert!(
            matches!(kind(&answer.response), AgentErrorKind::BadRequest | AgentErrorKind::System),
            "{path}"
        );
    }
    assert_eq!(agent.ask(&Request::Ping).response, Response::Pong);
}

#[test]
fn only_regular_files_within_the_limit_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let content: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    fs::write(at("file"), &content).unwrap();
    symlink(at("file"), at("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut agent = Agent::start();

    let answer = read(&mut agent, &at("file"), 300_000);
    let sha256 = Sha256Digest::of(&content).to_hex();
    assert_eq!(answer.response, Response::Sent { size: 300_000, sha256 });
    assert!(answer.data == content);

    let answer = read(&mut agent, &at("file"), 299_999);
    assert_eq!(kind(&answer.response), AgentErrorKind::TooLarge);
    assert!(answer.data.len() <= 299_999);
    // A file of no size that is longer than it says.
    let answer = read(&mut agent, Path::new("/proc/kallsyms"), 10);
    assert_eq!((kind(&answer.response), answer.data.len()), (AgentErrorKind::TooLarge, 0));

    for name in ["link", "pipe", "missing", "."] {
        assert!(matches!(kind(&read(&mut agent, &at(name), 10).response), AgentErrorKind::System), "{name}");
    }
}
