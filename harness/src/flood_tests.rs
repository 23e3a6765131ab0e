//! Guests that flood, against a process of its own whose memory is measured: what is bounded is seen, not claimed.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use guest::control::{DATA, Exec, HELLO, Hello, Mode, PROTOCOL, RESPONSE, Response, STDOUT};
use guest::facts::{Facts, MAX_BYTES};
use guest::frame::{Frame, MAX_BODY};
use guest::relay::{CLOSE, MAX_STREAMS, OPEN};
use recipe_spec::digest::Sha256Digest;

use crate::console::{Console, Log};
use crate::origin::RelayPolicy;
use crate::relay::{Relay, RelayEvent, RelayLimits};
use crate::spec::RelaySpec;
use crate::wire::{Wire, WireError};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn floods_cost_bounded_memory() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "flood_tests::all_floods"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    print!("{said}");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "the floods were played");
}

/// Not a test of its own: other tests in the same process would be measured too.
#[test]
#[ignore = "started by floods_cost_bounded_memory"]
fn all_floods() {
    let floods: [(&str, fn(), u64); 6] = [
        ("300 MiB on the console", console, 8),
        ("output without end", output, 8),
        ("content without end", content, 64),
        ("32 MiB of empty names as facts", || facts_of(r#""modules":["#, r#""","#), 96),
        (
            "32 MiB of members as facts",
            || facts_of(r#""groups":[{"name":"g","gid":1,"members":["#, r#""x","#),
            96,
        ),
        ("heads without end through the relay", relay, 32),
    ];
    for (name, flood, bound) in floods {
        // proc(5): 5 makes the peak what is resident now.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (before, start) = (status("VmRSS"), Instant::now());
        flood();
        let grown = status("VmHWM").saturating_sub(before) >> 10;
        println!("{name}: {grown} MiB at its peak, {:.1} s", start.elapsed().as_secs_f64());
        assert!(grown < bound, "{name}: {grown} MiB");
    }
}

/// A size from `/proc/self/status`, in KiB.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

fn console() {
    const LIMIT: u64 = 1 << 20;
    let file = tempfile::NamedTempFile::new().unwrap();
    let (mut guest, host) = UnixStream::pair().unwrap();
    let console = Console::follow(host, Some(Log { file: file.reopen().unwrap(), limit: LIMIT })).unwrap();
    // Without a line end: all of it is one line.
    let noise = vec![b'x'; 1 << 20];
    for _ in 0..300 {
        guest.write_all(&noise).unwrap();
    }
    drop(guest);
    console.wait_end(SOON);
    assert_eq!(file.path().metadata().unwrap().len(), LIMIT);
    assert!(console.last_lines(12).len() < 10_000);
}

/// A wire to an agent that has said hello, and that answers the first question so.
fn asked(answer: impl FnOnce(UnixStream) + Send + 'static) -> Wire {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let hello = Hello { protocol: PROTOCOL, agent: "0".into(), mode: Mode::Nano, boot_id: "b".into() };
        send(&mut theirs, HELLO, 0, &serde_json::to_vec(&hello).unwrap());
        Frame::read(&mut theirs).unwrap();
        answer(theirs);
    });
    let mut wire = Wire::new(ours).unwrap();
    wire.wait_hello(SOON, Mode::Nano).unwrap();
    wire
}

fn send(to: &mut UnixStream, kind: u8, id: u32, body: &[u8]) -> bool {
    Frame { kind, id, body: body.to_vec() }.write(to).is_ok()
}

fn output() {
    const LIMIT: u64 = 256 << 20;
    let mut wire = asked(|mut agent| while send(&mut agent, STDOUT, 1, &[b'x'; MAX_BODY]) {});
    let argv = vec!["true".into()];
    let exec = Exec {
        argv,
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_ms: 60_000,
        output_limit: LIMIT,
    };
    let mut heard = 0;
    let error = wire.exec(exec, &mut |_| heard += MAX_BODY as u64).unwrap_err();
    assert!(matches!(&error, WireError::Breach(what) if what.contains("more output")), "{error}");
    assert_eq!(heard, LIMIT);
}

fn content() {
    let mut wire = asked(|mut agent| while send(&mut agent, DATA, 1, &[b' '; MAX_BODY]) {});
    let error = wire.facts().unwrap_err();
    assert!(matches!(&error, WireError::Breach(what) if what.contains("more content")), "{error}");
}

/// Facts of which one list goes on as long as all facts together may be; the lying agent's own copy is measured too.
fn facts_of(before: &'static str, element: &'static str) {
    let mut wire = asked(move |mut agent| {
        let mut json = [b"{", before.as_bytes()].concat();
        while json.len() + element.len() + 2 < MAX_BYTES {
            json.extend_from_slice(element.as_bytes());
        }
        json.pop();
        let sent = Response::Sent { size: json.len() as u64, sha256: Sha256Digest::of(&json).to_string() };
        for chunk in json.chunks(MAX_BODY) {
            send(&mut agent, DATA, 1, chunk);
        }
        drop(json);
        send(&mut agent, RESPONSE, 1, &serde_json::to_vec(&sent).unwrap());
    });
    let error = wire.facts().unwrap_err();
    assert!(matches!(&error, WireError::Breach(what) if what.contains("more than 20000")), "{error}");
    assert!(matches!(wire.ping(), Err(WireError::Dead)));
}

fn relay() {
    let events: Arc<Mutex<Vec<RelayEvent>>> = Arc::default();
    let kept = Arc::clone(&events);
    let limits = RelayLimits { requests: 200, ..RelayLimits::STANDARD };
    let spec = RelaySpec {
        policy: RelayPolicy { origins: Vec::new() },
        limits: limits.clone(),
        events: Arc::new(move |event| kept.lock().unwrap().push(event)),
    };
    let (host, mut guest) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(SOON)).unwrap();
    let relay = Relay::serve(host, spec).unwrap();
    let head = vec![b'x'; MAX_BODY];
    let streams = MAX_STREAMS as u32;
    for round in 0..20 {
        for id in round * streams..(round + 1) * streams {
            send(&mut guest, OPEN, id, b"");
            send(&mut guest, guest::relay::DATA, id, &head);
        }
        let mut closed = 0;
        while closed < streams {
            closed += u32::from(Frame::read(&mut guest).unwrap().kind == CLOSE);
        }
    }
    assert_eq!(relay.breach(), None);
    assert_eq!(events.lock().unwrap().len(), 201, "each request is told, then once that they are too many");
}

/// What the bounds above rest on: facts that are all there are read.
#[test]
fn honest_facts_are_read_and_lying_forms_are_not() {
    let good = serde_json::to_string(&Facts::default()).unwrap();
    let ask = |json: String| {
        let mut wire = asked(move |mut agent| {
            let sent = Response::Sent {
                size: json.len() as u64,
                sha256: Sha256Digest::of(json.as_bytes()).to_string(),
            };
            for chunk in json.as_bytes().chunks(MAX_BODY) {
                send(&mut agent, DATA, 1, chunk);
            }
            send(&mut agent, RESPONSE, 1, &serde_json::to_vec(&sent).unwrap());
        });
        let facts = wire.facts();
        assert!(facts.is_ok() || matches!(wire.ping(), Err(WireError::Dead)));
        facts
    };
    assert_eq!(ask(good.clone()).unwrap(), Facts::default());
    let names = |count: usize| {
        good.replace(r#""modules":[]"#, &format!(r#""modules":[{}]"#, vec![r#""m""#; count].join(",")))
    };
    assert_eq!(ask(names(guest::facts::MAX_ENTRIES)).unwrap().modules.len(), guest::facts::MAX_ENTRIES);
    for lie in [
        names(guest::facts::MAX_ENTRIES + 1),
        good.replacen('{', r#"{"modules":[],"#, 1),
        good.replacen('{', r#"{"more":1,"#, 1),
        good.replace(r#""modules":[],"#, ""),
        good.replace(r#""kernelTainted":0"#, r#""kernelTainted":1e400"#),
        good.replace(r#""kernelTainted":0"#, r#""kernelTainted":-1"#),
        good.replace(r#""modules":[]"#, r#""modules":["\ud800"]"#),
        good.replace(r#""modules":[]"#, &format!(r#""modules":{}"#, "[".repeat(100_000))),
        good.replace(r#""firewall":"""#, r#""firewall":null"#),
        format!("{good}{good}"),
        good[..good.len() - 1].to_owned(),
        String::new(),
    ] {
        assert_ne!(lie, good);
        let error = ask(lie.clone()).unwrap_err();
        assert!(matches!(error, WireError::Breach(_)), "{lie:.80}: {error}");
    }
}
