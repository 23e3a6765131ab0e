//! The wire against agents that lie, stall and shout.

use std::io::Write;
use std::thread::{self, JoinHandle};

use guest::control::{AgentErrorKind, StepOutcome};
use proptest::prelude::*;

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

    /// Says nothing more, until the host hangs up or the test is over.
    fn hang(&mut self) {
        self.0.set_read_timeout(Some(SOON)).unwrap();
        let _ = std::io::Read::read(&mut self.0, &mut [0]);
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

fn wire_of(agent: impl FnOnce(Agent) + Send + 'static) -> (Wire, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Wire::new(ours).unwrap(), thread::spawn(move || agent(Agent(theirs))))
}

/// A wire whose agent has said hello, and then does as told.
fn ready(agent: impl FnOnce(Agent) + Send + 'static) -> Wire {
    let (mut wire, _) = wire_of(|mut it| {
        it.hello();
        agent(it);
    });
    wire.wait_hello(SOON, Mode::Nano).unwrap();
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
    let (mut wire, _agent) = wire_of(|mut agent| {
        thread::sleep(4 * BLINK);
        agent.hello();
        thread::sleep(SOON);
    });
    assert!(matches!(wire.wait_hello(BLINK, Mode::Nano), Err(WireError::Silent { .. })));
    assert!(matches!(wire.ping(), Err(WireError::Dead)));
}

#[test]
fn another_protocol_or_another_kind_of_guest_is_refused() {
    let (mut wire, _agent) = wire_of(|mut agent| agent.hello_of(PROTOCOL + 1));
    assert!(
        matches!(wire.wait_hello(SOON, Mode::Nano), Err(WireError::WrongProtocol { theirs }) if theirs == PROTOCOL + 1)
    );
    let (mut other, _agent) = wire_of(|mut agent| agent.hello());
    let error = other.wait_hello(SOON, Mode::Disk).unwrap_err();
    assert!(matches!(error, WireError::WrongMode { theirs: "nano", ours: "disk" }), "{error}");
    assert!(matches!(other.ping(), Err(WireError::Dead)));
}

#[test]
fn something_else_than_hello_is_a_breach() {
    let hello = |rest: &str| format!("{{\"protocol\":{PROTOCOL},\"agent\":\"0\",\"mode\":\"nano\"{rest}}}");
    let good = hello(",\"bootId\":\"b\"");
    let cases: Vec<(u8, u32, Vec<u8>)> = vec![
        (RESPONSE, 1, b"\"pong\"".to_vec()),
        (HELLO, 1, good.clone().into()),
        (STDOUT, 0, good.clone().into()),
        (HELLO, 0, Vec::new()),
        (HELLO, 0, hello("").into()),
        (HELLO, 0, hello(",\"bootId\":\"b\",\"bootId\":\"b\"").into()),
        (HELLO, 0, hello(",\"bootId\":\"b\",\"more\":1").into()),
        (HELLO, 0, good.replace("nano", "other").into()),
        (HELLO, 0, good.replace(&PROTOCOL.to_string(), "1e999").into()),
        (HELLO, 0, good.replace("\"b\"", "\"\\ud800\"").into()),
        (HELLO, 0, [good.as_bytes(), b"\xff"].concat()),
    ];
    for (kind, id, body) in cases {
        let text = String::from_utf8_lossy(&body).into_owned();
        let (mut wire, _agent) = wire_of(move |mut agent| agent.send(kind, id, &body));
        let error = wire.wait_hello(SOON, Mode::Nano).unwrap_err();
        assert!(matches!(error, WireError::Breach(_)), "{kind} {id} {text}: {error}");
        assert!(matches!(wire.ping(), Err(WireError::Dead)));
    }
    let (mut wire, _agent) = wire_of(move |mut agent| agent.send(HELLO, 0, good.as_bytes()));
    assert_eq!(wire.wait_hello(SOON, Mode::Nano).unwrap().boot_id, "b", "the trial itself works");
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
    let deep = |bracket: &str, start: &str| [start, &bracket.repeat(200_000 / bracket.len())].concat();
    let answers: Vec<(u8, u32, Vec<u8>)> = vec![
        (RESPONSE, 1, b"\"pong\"".to_vec()),
        (RESPONSE, u32::MAX, b"\"pong\"".to_vec()),
        (RESPONSE, 0, b"\"done\"".to_vec()),
        (RESPONSE, 0, b"{\"applied\":{\"outcome\":\"changed\"}}".to_vec()),
        (RESPONSE, 0, format!("{{\"sent\":{{\"size\":0,\"sha256\":\"{}\"}}}}", Sha256Digest::of(b"")).into()),
        (RESPONSE, 0, b"{\"pong\":null,\"more\":1}".to_vec()),
        (RESPONSE, 0, b"\"pong\" \"pong\"".to_vec()),
        (RESPONSE, 0, b"\xff".to_vec()),
        (RESPONSE, 0, b"\"po\xffng\"".to_vec()),
        (RESPONSE, 0, Vec::new()),
        (RESPONSE, 0, deep("[", "").into()),
        (RESPONSE, 0, deep("{\"a\":", "").into()),
        (RESPONSE, 0, deep("[", "{\"exited\":{\"status\":").into()),
        (RESPONSE, 0, b"{\"sent\":{\"size\":1e400,\"sha256\":\"\"}}".to_vec()),
        (RESPONSE, 0, format!("{{\"sent\":{{\"size\":{},\"sha256\":\"\"}}}}", "9".repeat(200_000)).into()),
        (RESPONSE, 0, b"{\"sent\":{\"size\":-1,\"sha256\":\"\"}}".to_vec()),
        (RESPONSE, 0, b"{\"written\":{\"changed\":true,\"changed\":true}}".to_vec()),
        (STDOUT, 0, b"x".to_vec()),
        (DATA, 0, b"x".to_vec()),
        (REQUEST, 0, b"\"ping\"".to_vec()),
        (END, 0, Vec::new()),
        (99, 0, Vec::new()),
    ];
    for (kind, other, body) in answers {
        let text: String = String::from_utf8_lossy(&body).chars().take(40).collect();
        let mut wire = ready(move |mut agent| {
            let (id, _) = agent.request();
            agent.send(kind, id.wrapping_add(other), &body);
            agent.hang();
        });
        let error = wire.ping().unwrap_err();
        assert!(matches!(error, WireError::Breach(_)), "{kind} {text}: {error}");
        assert!(error.to_string().len() < 400, "{text}: {} bytes", error.to_string().len());
        assert!(matches!(wire.ping(), Err(WireError::Dead)));
    }
}

#[test]
fn facts_are_no_answer_to_a_step_and_a_step_is_none_to_facts() {
    let step: recipe_spec::manifest::StepKind = serde_json::from_str("{\"package\": [\"hello\"]}").unwrap();
    let request = Request::Apply { step, payload: "/p".into(), relay: false, timeout_ms: 1 };
    let mut wire = ready(|mut agent| {
        let (id, _) = agent.request();
        agent.send(DATA, id, b"{}");
        agent.hang();
    });
    let error = wire.apply(&request, SOON, &mut |_| {}).unwrap_err();
    assert!(matches!(error, WireError::Breach(_)), "{error}");
    let mut wire = ready(|mut agent| {
        let (id, _) = agent.request();
        agent.respond(id, &Response::Applied { outcome: StepOutcome::Unchanged });
        agent.hang();
    });
    assert!(matches!(wire.facts(), Err(WireError::Breach(_))));
}

#[test]
fn a_second_answer_is_a_breach_before_and_after_the_next_question() {
    let mut before = ready(|mut agent| {
        let (id, _) = agent.request();
        agent.respond(id, &Response::Pong);
        agent.respond(id, &Response::Pong);
        agent.hang();
    });
    before.ping().unwrap();
    thread::sleep(2 * BLINK);
    assert!(matches!(before.ping(), Err(WireError::Breach(_))));
    let mut after = ready(|mut agent| {
        let (first, _) = agent.request();
        agent.respond(first, &Response::Pong);
        agent.request();
        agent.respond(first, &Response::Pong);
        agent.hang();
    });
    after.ping().unwrap();
    let error = after.ping().unwrap_err();
    assert!(
        matches!(&error, WireError::Breach(what) if what.contains("request 1 during request 2")),
        "{error}"
    );
}

#[test]
fn frames_that_count_for_nothing_are_a_breach() {
    for kind in [STDOUT, STDERR, DATA] {
        let mut wire = ready(move |mut agent| {
            let (id, _) = agent.request();
            // Each alone is harmless; without end they would keep the host busy until its time limit.
            while (Frame { kind, id, body: Vec::new() }).write(&mut agent.0).is_ok() {}
        });
        let error = if kind == DATA {
            wire.read_file("/x", 10).unwrap_err()
        } else {
            wire.exec(exec(10), &mut |_| panic!("no output")).unwrap_err()
        };
        assert!(matches!(&error, WireError::Breach(what) if what.contains("without a byte")), "{error}");
    }
}

#[test]
fn an_error_is_as_long_as_an_agent_makes_it() {
    for (length, refused) in [(MAX_MESSAGE, true), (MAX_MESSAGE + 1, false)] {
        let mut wire = ready(move |mut agent| {
            let (id, _) = agent.request();
            let error = AgentError { kind: AgentErrorKind::System, message: "x".repeat(length) };
            agent.respond(id, &Response::Error(error));
            agent.hang();
        });
        let error = wire.ping().unwrap_err();
        assert_eq!(matches!(error, WireError::Refused(_)), refused, "{error}");
        assert_eq!(wire.state, if refused { State::Ready } else { State::Dead });
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
fn silence_ends_at_the_deadline_wherever_it_begins() {
    let mut frame = Vec::new();
    Frame { kind: STDOUT, id: 1, body: b"output".to_vec() }.write(&mut frame).unwrap();
    // After the question, within the length, within the head, within the body, after output, within the next frame.
    for length in [0, 2, 7, 12, frame.len(), frame.len() + 3] {
        let bytes: Vec<u8> = frame.iter().chain(&frame).copied().take(length).collect();
        let mut wire = ready(move |mut agent| {
            agent.request();
            agent.0.write_all(&bytes).unwrap();
            agent.hang();
        });
        let start = Instant::now();
        let (mut heard, limit) = (0, 100);
        let expected = Expected::Output { limit, callback: &mut |_| heard += 1 };
        let error =
            wire.exchange(&Request::Exec(exec(limit)), None, "exec", 4 * BLINK, expected).unwrap_err();
        assert!(matches!(error, WireError::Silent { .. }), "{length}: {error}");
        assert!(start.elapsed() < SOON);
        assert_eq!(heard, length / frame.len());
        assert!(matches!(wire.ping(), Err(WireError::Dead)));
    }
}

#[test]
fn a_part_of_a_frame_that_answers_nothing_is_a_breach_and_soon() {
    let mut wire = ready(|mut agent| {
        agent.0.write_all(&[0, 0]).unwrap();
        agent.hang();
    });
    thread::sleep(BLINK);
    let start = Instant::now();
    let error = wire.facts().unwrap_err();
    assert!(matches!(&error, WireError::Breach(what) if what.contains("part of a frame")), "{error}");
    assert!(start.elapsed() < 2 * UNASKED, "not the time that facts may take");
}

#[test]
fn silence_ends_at_the_deadline_also_while_bytes_trickle_or_frames_flood() {
    let answers: [fn(Agent, u32); 2] = [
        // The head of a frame that never becomes whole.
        |mut agent, _| {
            agent.0.write_all(&100u32.to_be_bytes()).unwrap();
            while agent.0.write_all(b"x").is_ok() {
                thread::sleep(BLINK);
            }
        },
        // Good frames, one byte each, and never the last one.
        |mut agent, id| while (Frame { kind: STDOUT, id, body: vec![b'x'] }).write(&mut agent.0).is_ok() {},
    ];
    for answer in answers {
        let mut wire = ready(move |mut agent| {
            let (id, _) = agent.request();
            answer(agent, id);
        });
        let start = Instant::now();
        let expected = Expected::Output { limit: u64::MAX, callback: &mut |_| {} };
        let request = Request::Exec(exec(u64::MAX));
        let error = wire.exchange(&request, None, "exec", 4 * BLINK, expected).unwrap_err();
        assert!(matches!(error, WireError::Silent { .. }), "{error}");
        assert!(start.elapsed() < SOON);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the port cuts an answer into pieces, it is the same answer.
    #[test]
    fn an_answer_is_the_same_in_any_pieces(cuts in proptest::collection::vec(1usize..40, 0..40)) {
        let mut wire = ready(move |mut agent| {
            let (id, _) = agent.request();
            let mut bytes = Vec::new();
            let exited = serde_json::to_vec(&Response::Exited(EXITED)).unwrap();
            for (kind, body) in [(STDOUT, b"out".to_vec()), (STDERR, b"err".to_vec()), (RESPONSE, exited)] {
                Frame { kind, id, body }.write(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                agent.0.write_all(piece).unwrap();
                thread::yield_now();
                rest = later;
            }
            agent.0.write_all(rest).unwrap();
        });
        let mut heard: Vec<u8> = Vec::new();
        let exited = wire.exec(exec(6), &mut |(Output::Stdout(bytes) | Output::Stderr(bytes))| heard.extend(bytes));
        prop_assert_eq!(exited.unwrap(), EXITED);
        prop_assert_eq!(heard, b"outerr".to_vec());
    }

    /// Bytes of any kind, as frames or not: an error in time, a dead wire, no panic, no more output than was asked for.
    #[test]
    fn no_bytes_are_an_answer(
        frames in proptest::collection::vec((0u8..9, 0u32..3, proptest::collection::vec(any::<u8>(), 0..60)), 0..6),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut wire = ready(move |mut agent| {
            agent.request();
            for (kind, id, body) in frames {
                agent.send(kind, id, &body);
            }
            let _ = agent.0.write_all(&tail);
        });
        let mut heard = 0;
        let answer = wire.exec(exec(50), &mut |(Output::Stdout(bytes) | Output::Stderr(bytes))| heard += bytes.len());
        prop_assert!(answer.is_err() && heard <= 50);
        prop_assert!(matches!(wire.ping(), Err(WireError::Dead)));
    }
}
