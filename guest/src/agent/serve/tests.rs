//! The conversation with a machine at rest; a nano guest's, which nothing else runs in.

use std::io::Cursor;
use std::os::unix::net::UnixStream;

use guest::control::AgentErrorKind;

use super::super::entropy::Pool;
use super::super::identity::tests::identity;
use super::*;

/// What the host asks, one after the other, and what it gets.
fn talk(machine: Machine, frames: &[(u8, u32, Vec<u8>)]) -> (Vec<Response>, Machine) {
    let mut asked = Vec::new();
    for (kind, id, body) in frames {
        Frame { kind: *kind, id: *id, body: body.clone() }.write(&mut asked).unwrap();
    }
    let mut conversation = Conversation { from: Cursor::new(asked), to: Vec::new(), machine };
    let ended = loop {
        if let Err(error) = conversation.turn() {
            break error;
        }
    };
    assert!(matches!(ended, Broken::Port(FrameError::Io(_))), "{ended}");
    let mut heard = conversation.to.as_slice();
    let mut answers = Vec::new();
    while let Ok(Frame { kind, body, .. }) = Frame::read(&mut heard) {
        assert_eq!(kind, control::RESPONSE);
        answers.push(serde_json::from_slice(&body).unwrap());
    }
    (answers, conversation.machine)
}

fn request(id: u32, request: &Request) -> (u8, u32, Vec<u8>) {
    (control::REQUEST, id, serde_json::to_vec(request).unwrap())
}

fn machine() -> Machine {
    let repose = Repose::alone(Pool::open().unwrap());
    let (root, sight) = (Root::open("/").unwrap(), Sight::plain().unwrap());
    Machine::new(root, sight, Place::Guest(Mode::Nano), Some(repose), None)
}

fn refusal(answer: &Response) -> &str {
    match answer {
        Response::Error(AgentError { kind: AgentErrorKind::BadRequest, message }) => message,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn a_machine_at_rest_does_nothing_but_wake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let write = Request::WriteFile {
        path: path.to_str().unwrap().to_owned(),
        mode: 0o600,
        size: 1,
        sha256: Sha256Digest::of(b"x").to_hex(),
    };
    let misshapen = control::Identity { seed: String::new(), names: None, ..identity() };
    let (answers, machine) = talk(
        machine(),
        &[
            request(1, &Request::Wake(control::Identity { names: None, ..identity() })),
            request(2, &Request::Rest),
            request(3, &Request::Ping),
            // Its content is passed over, so that the next frame is a request again.
            request(4, &write),
            (control::DATA, 4, b"x".to_vec()),
            (control::END, 4, Vec::new()),
            request(5, &Request::Rest),
            request(6, &Request::PowerOff),
            request(7, &Request::Wake(misshapen)),
            request(8, &Request::Sync),
        ],
    );
    assert_eq!(answers.len(), 8);
    assert_eq!(refusal(&answers[0]), "the machine does not rest: only one at rest can be woken");
    assert_eq!(answers[1], Response::Done);
    for answer in [2, 3, 4, 5, 7] {
        assert_eq!(refusal(&answers[answer]), "the machine rests: wake it first");
    }
    assert!(refusal(&answers[6]).contains("seed"));
    assert!(machine.is_at_rest() && !path.exists());
}

#[test]
fn no_machine_rests_while_its_relay_is_open() {
    let (_host, port) = UnixStream::pair().unwrap();
    let mut relay = Relay::new(port.try_clone().unwrap(), port).unwrap();
    relay.open("127.0.0.1:0".parse().unwrap()).unwrap();
    let machine = Machine { relay: Some(relay), ..machine() };
    let close = Request::Relay { open: false };
    let (answers, machine) =
        talk(machine, &[request(1, &Request::Rest), request(2, &close), request(3, &Request::Rest)]);
    assert_eq!(refusal(&answers[0]), "the relay is open: close the relay first");
    assert_eq!(answers[1..], [Response::Done, Response::Done]);
    assert!(machine.is_at_rest());
}
