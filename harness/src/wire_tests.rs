//! The wire against agents that lie, stall and shout.

use std::io::Write;
use std::thread::{self, JoinHandle};

use guest::control::{AgentErrorKind, Mode, StepOutcome};

use super::*;

const SOON: Duration = Duration::from_secs(5);
const BLINK: Duration = Duration::from_millis(50);

/// The agent's end of the wire.
struct Agent(UnixStream);

impl Agent {
    fn send(&mut self, kind: u8, id: u32, body: &[u8]) {
        // After a breach the host may have hung up already.
        let _ = Frame { kind, id, body: body.to_vec() }.write(&mut self.0);
    }

    fn hello(&mut self) {
        self.hello_of(PROTOCOL);
    }

    fn hello_of(&mut self, protocol: u32) {
        let hello = Hello { protocol, agent: "0".into(), mode: Mode::Nano, boot_id: "b".into() };
        self.send(HELLO, 0, &serde_json::to_vec(&hello).unwrap());
    }

    fn request(&mut self) -> (u32, Request) {
        let frame = Frame::read(&mut self.0).unwrap();
        assert_eq!(frame.kind, REQUEST);
        (frame.id, serde_json::from_slice(&frame.body).unwrap())
    }

    fn respond(&mut self, id: u32, response: &Response) {
        self.send(RESPONSE, id, &serde_json::to_vec(response).unwrap());
    }
}

fn wire(agent: impl FnOnce(Agent) + Send + 'static) -> (Wire, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Wire::new(ours).unwrap(), thread::spawn(move || agent(Agent(theirs))))
}

/// A wire whose agent has said hello, and then does as told.
fn ready(agent: impl FnOnce(Agent) + Send + 'static) -> Wire {
    let (mut wire, _) = wire(|mut it| {
        it.hello();
        agent(it);
    });
    wire.wait_hello(SOON).unwrap();
    wire
}

fn exec(limit: u64) -> Exec {
    let argv = vec!["true".into()];
    Exec { argv, env: Default::default(), cwd: None, user: None, timeout_ms: 1000, output_limit: limit }
}

const EXITED: Exited = Exited { status: Some(0), signal: None, timed_out: false, truncated: false };

#[test]
fn requests_are_answered() {
    let mut wire = ready(|mut agent| {
        let (id, request) = agent.request();
        assert_eq!(request, Request::Ping);
        agent.respond(id, &Response::Pong);
        let (id, _) = agent.request();
        agent.send(STDOUT, id, b"out");
        agent.send(STDERR, id, b"err");
        agent.respond(id, &Response::Exited(EXITED));
        let (id, request) = agent.request();
        let Request::WriteFile { size, .. } = request else { panic!("{request:?}") };
        let mut content = Vec::new();
        loop {
            let frame = Frame::read(&mut agent.0).unwrap();
            match frame.kind {
                DATA => content.extend(frame.body),
                END => break,
                kind => panic!("{kind}"),
            }
        }
        assert_eq!(content.len() as u64, size);
        agent.respond(id, &Response::Written { changed: true });
        let (id, _) = agent.request();
        agent.send(DATA, id, &content[..MAX_BODY]);
        agent.send(DATA, id, &content[MAX_BODY..]);
        let sha256 = Sha256Digest::of(&content).to_string();
        agent.respond(id, &Response::Sent { size, sha256 });
    });
    wire.ping().unwrap();
    let mut heard = Vec::new();
    let exited = wire
        .exec(exec(6), &mut |output| match output {
            Output::Stdout(bytes) => heard.extend([b"o", bytes].concat()),
            Output::Stderr(bytes) => heard.extend([b"e", bytes].concat()),
        })
        .unwrap();
    assert_eq!(
        (exited, heard.as_slice()),
        (EXITED, b"ooute".iter().chain(b"err").copied().collect::<Vec<_>>().as_slice())
    );
    let content = vec![7; MAX_BODY + 1];
    assert!(wire.write_file("/x", 0o644, &content).unwrap());
    assert_eq!(wire.read_file("/x", 1 << 20).unwrap(), content);
}

#[test]
fn a_refused_request_leaves_the_wire_alive() {
    let mut wire = ready(|mut agent| {
        let (id, _) = agent.request();
        let error = AgentError { kind: AgentErrorKind::System, message: "no such file".into() };
        agent.respond(id, &Response::Error(error));
        let (id, _) = agent.request();
        agent.respond(id, &Response::Pong);
    });
    assert!(matches!(wire.read_file("/x", 10), Err(WireError::Refused(_))));
    wire.ping().unwrap();
}

#[test]
fn a_late_hello_is_silence() {
    let (mut wire, _agent) = wire(|mut agent| {
        thread::sleep(4 * BLINK);
        agent.hello();
        thread::sleep(SOON);
    });
    assert!(matches!(wire.wait_hello(BLINK), Err(WireError::Silent { .. })));
    assert!(matches!(wire.ping(), Err(WireError::Dead)));
}

#[test]
fn another_protocol_is_refused() {
    let (mut wire, _agent) = wire(|mut agent| agent.hello_of(PROTOCOL + 1));
    assert!(
        matches!(wire.wait_hello(SOON), Err(WireError::WrongProtocol { theirs }) if theirs == PROTOCOL + 1)
    );
}

#[test]
fn something_else_than_hello_is_a_breach() {
    let (mut wire, _agent) = wire(|mut agent| agent.respond(1, &Response::Pong));
    assert!(matches!(wire.wait_hello(SOON), Err(WireError::Breach(_))));
}

#[test]
fn a_frame_of_four_gigabytes_is_a_breach_and_costs_no_memory() {
    let mut wire = ready(|mut agent| {
        agent.request();
        agent.0.write_all(&u32::MAX.to_be_bytes()).unwrap();
        thread::sleep(SOON);
    });
    let error = wire.ping().unwrap_err();
    assert!(matches!(&error, WireError::Breach(what) if what.contains("4294967295")), "{error}");
}

#[test]
fn an_answer_to_no_question_is_a_breach() {
    let mut wire = ready(|mut agent| {
        agent.respond(1, &Response::Pong);
        thread::sleep(SOON);
    });
    thread::sleep(2 * BLINK);
    assert!(matches!(wire.ping(), Err(WireError::Breach(_))));
    assert!(matches!(wire.ping(), Err(WireError::Dead)));
}

#[test]
fn a_second_hello_is_told_apart_whether_asked_or_not() {
    let mut idle = ready(|mut agent| {
        agent.hello();
        thread::sleep(SOON);
    });
    thread::sleep(2 * BLINK);
    assert!(matches!(idle.ping(), Err(WireError::SecondHello)));
    let mut asked = ready(|mut agent| {
        agent.request();
        agent.hello();
    });
    assert!(matches!(asked.ping(), Err(WireError::SecondHello)));
}

#[test]
fn wrong_answers_are_breaches() {
    let cases: [fn(&mut Agent, u32); 7] = [
        |agent, id| agent.respond(id + 1, &Response::Pong),
        |agent, id| agent.respond(id, &Response::Done),
        |agent, id| agent.send(STDOUT, id, b"x"),
        |agent, id| agent.send(DATA, id, b"x"),
        |agent, id| agent.send(RESPONSE, id, b"{\"pong\":null,\"more\":1}"),
        |agent, id| agent.send(RESPONSE, id, b"\xff"),
        |agent, id| agent.send(99, id, b""),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let mut wire = ready(move |mut agent| {
            let (id, _) = agent.request();
            case(&mut agent, id);
            thread::sleep(SOON);
        });
        let error = wire.ping().unwrap_err();
        assert!(matches!(error, WireError::Breach(_)), "{number}: {error}");
        assert!(matches!(wire.ping(), Err(WireError::Dead)));
    }
}

#[test]
fn more_output_than_asked_for_is_a_breach() {
    let mut wire = ready(|mut agent| {
        let (id, _) = agent.request();
        agent.send(STDOUT, id, b"1234");
        agent.send(STDERR, id, b"5");
        thread::sleep(SOON);
    });
    let mut heard = 0;
    let error = wire.exec(exec(4), &mut |_| heard += 1).unwrap_err();
    assert!(matches!(error, WireError::Breach(_)) && heard == 1, "{error}");
}

#[test]
fn content_must_be_what_the_agent_says_it_is() {
    for (size, text) in [(3, "abc"), (4, "abd")] {
        let mut wire = ready(move |mut agent| {
            let (id, _) = agent.request();
            agent.send(DATA, id, b"abcd");
            agent
                .respond(id, &Response::Sent { size, sha256: Sha256Digest::of(text.as_bytes()).to_string() });
        });
        assert!(matches!(wire.read_file("/x", 10), Err(WireError::Breach(_))));
    }
    let mut wire = ready(|mut agent| {
        let (id, _) = agent.request();
        agent.send(DATA, id, b"abcd");
        thread::sleep(SOON);
    });
    assert!(matches!(wire.read_file("/x", 3), Err(WireError::Breach(_))));
}

#[test]
fn silence_ends_at_the_deadline_also_while_bytes_trickle() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut wire = Wire::new(ours).unwrap();
    thread::spawn(move || {
        let mut agent = Agent(theirs.try_clone().unwrap());
        agent.hello();
        agent.request();
        // The head of a frame that never becomes whole.
        theirs.write_all(&100u32.to_be_bytes()).unwrap();
        while theirs.write_all(b"x").is_ok() {
            thread::sleep(BLINK);
        }
    });
    wire.wait_hello(SOON).unwrap();
    let start = Instant::now();
    let step: recipe_spec::manifest::StepKind = serde_json::from_str("{\"package\": [\"hello\"]}").unwrap();
    let request = Request::Apply { step, payload: "/p".into(), relay: false, timeout_ms: 1 };
    wire.state = State::Ready;
    wire.port.allow(BLINK);
    let result: Result<StepOutcome, _> = with_short_grace(&mut wire, &request);
    assert!(matches!(result, Err(WireError::Silent { .. })), "{result:?}");
    assert!(start.elapsed() < SOON);
}

/// As [`Wire::apply`], without the grace that a real agent is given.
fn with_short_grace(wire: &mut Wire, request: &Request) -> Result<StepOutcome, WireError> {
    match wire.exchange(request, None, "apply", 4 * BLINK, Expected::Nothing)? {
        Response::Applied { outcome } => Ok(outcome),
        other => wire.unexpected(&other),
    }
}

#[test]
fn an_agent_that_takes_nothing_is_silent_too() {
    let mut wire = ready(|_agent| thread::sleep(SOON));
    let content = vec![0; 8 << 20];
    let sha256 = Sha256Digest::of(&content).to_string();
    let request = Request::WriteFile { path: "/x".into(), mode: 0o644, size: content.len() as u64, sha256 };
    let error =
        wire.exchange(&request, Some(&content), "writeFile", 4 * BLINK, Expected::Nothing).unwrap_err();
    assert!(matches!(error, WireError::Silent { .. }), "{error}");
}
