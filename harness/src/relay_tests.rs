//! The relay's streams against guests that keep the protocol, and against guests that do not.

use std::sync::mpsc;

use proptest::prelude::*;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn limits() -> RelayLimits {
    let short = Duration::from_millis(300);
    RelayLimits { idle: short, stalled: short, ..RelayLimits::STANDARD }
}

/// The guest's end of the port.
struct Guest(UnixStream);

impl Guest {
    fn send(&mut self, kind: u8, id: u32, body: &[u8]) {
        // After a breach the host has closed the port; that is looked at elsewhere.
        let _ = Frame { kind, id, body: body.to_vec() }.write(&mut self.0);
    }

    fn read(&mut self) -> Frame {
        Frame::read(&mut self.0).unwrap()
    }

    /// Reads until such a frame, or until the host has closed the port.
    fn read_until(&mut self, kind: u8) {
        while Frame::read(&mut self.0).is_ok_and(|frame| frame.kind != kind) {}
    }

    /// The next frame that is not credit.
    fn next(&mut self) -> Frame {
        loop {
            let frame = self.read();
            if frame.kind != CREDIT {
                return frame;
            }
        }
    }
}

fn relay(limits: RelayLimits, serve: impl Fn(Stream) + Send + Sync + 'static) -> (Relay, Guest) {
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(SOON)).unwrap();
    (Relay::serve_with(host, limits, serve).unwrap(), Guest(guest))
}

/// Gives back what it is sent.
fn echo(mut stream: Stream) {
    let mut buffer = [0; 1000];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// Holds its stream until the test is over.
fn hold(limits: RelayLimits) -> (Relay, Guest, mpsc::Sender<()>) {
    let (sender, receiver) = mpsc::channel::<()>();
    let receiver = Mutex::new(receiver);
    let (relay, guest) = relay(limits, move |stream| {
        let _ = receiver.lock().unwrap().recv();
        drop(stream);
    });
    (relay, guest, sender)
}

fn breach(relay: &Relay) -> String {
    let start = Instant::now();
    while start.elapsed() < SOON {
        if let Some(breach) = relay.breach() {
            return breach;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("no breach");
}

#[test]
fn streams_are_carried_side_by_side_and_credit_comes_back() {
    let (_relay, mut guest) = relay(limits(), echo);
    guest.send(OPEN, 1, b"");
    guest.send(OPEN, 5, b"");
    guest.send(DATA, 5, b"five");
    let (mut credit, mut data) = (0, Vec::new());
    while credit < 4 || data.len() < 4 {
        let frame = guest.read();
        assert_eq!(frame.id, 5);
        match frame.kind {
            CREDIT => credit += u32::from_be_bytes(frame.body.try_into().unwrap()),
            DATA => data.extend(frame.body),
            kind => panic!("{kind}"),
        }
    }
    assert_eq!((credit, data.as_slice()), (4, b"five".as_slice()));
    guest.send(DATA, 1, b"one");
    assert_eq!(guest.next(), Frame { kind: DATA, id: 1, body: b"one".to_vec() });
    guest.send(SHUT, 1, b"");
    assert_eq!(guest.next(), Frame { kind: CLOSE, id: 1, body: Vec::new() });
}

#[test]
fn the_host_never_sends_beyond_its_credit() {
    let (_relay, mut guest) = relay(limits(), |mut stream| {
        let _ = stream.write_all(&vec![b'x'; WINDOW as usize + 10]);
    });
    guest.send(OPEN, 1, b"");
    let mut got = 0;
    while got < WINDOW as usize {
        got += guest.read().body.len();
    }
    assert_eq!(got, WINDOW as usize);
    guest.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(Frame::read(&mut guest.0).is_err());
    guest.0.set_read_timeout(Some(SOON)).unwrap();
    guest.send(CREDIT, 1, &10u32.to_be_bytes());
    assert_eq!(guest.read().body.len(), 10);
}

#[test]
fn a_guest_that_takes_nothing_is_given_up() {
    let (_relay, mut guest) = relay(limits(), |mut stream| {
        let all = stream.write_all(&vec![b'x'; 4 * WINDOW as usize]);
        assert_eq!(all.unwrap_err().kind(), io::ErrorKind::TimedOut);
    });
    guest.send(OPEN, 1, b"");
    while guest.read().kind != CLOSE {}
}

#[test]
fn a_stream_without_a_word_is_closed() {
    let (_relay, mut guest) = relay(limits(), echo);
    guest.send(OPEN, 1, b"");
    assert_eq!(guest.next().kind, CLOSE);
}

#[test]
fn frames_that_cross_a_close_are_dropped() {
    let (relay, mut guest) = relay(limits(), |stream| {
        if stream.id == 2 {
            echo(stream)
        }
    });
    guest.send(OPEN, 1, b"");
    assert_eq!(guest.next(), Frame { kind: CLOSE, id: 1, body: Vec::new() });
    guest.send(DATA, 1, b"late");
    guest.send(CREDIT, 1, &1u32.to_be_bytes());
    guest.send(SHUT, 1, b"");
    guest.send(CLOSE, 1, b"");
    guest.send(OPEN, 2, b"");
    guest.send(DATA, 2, b"x");
    assert_eq!(guest.next(), Frame { kind: DATA, id: 2, body: b"x".to_vec() });
    assert_eq!(relay.breach(), None);
}

#[test]
fn every_breach_ends_the_relay_and_says_why() {
    type Breach = (&'static str, fn(&mut Guest));
    let cases: [Breach; 16] = [
        ("never opened", |guest| guest.send(DATA, 2, b"x")),
        ("opened before", |guest| guest.send(OPEN, 1, b"")),
        ("beyond its credit", |guest| {
            guest.send(DATA, 1, &vec![0; WINDOW as usize]);
            guest.send(DATA, 1, b"x");
        }),
        ("never sent", |guest| guest.send(CREDIT, 1, &1u32.to_be_bytes())),
        ("never sent", |guest| guest.send(CREDIT, 1, &u32::MAX.to_be_bytes())),
        ("malformed credit", |guest| guest.send(CREDIT, 1, b"123")),
        ("after its end", |guest| {
            guest.send(SHUT, 1, b"");
            guest.send(DATA, 1, b"x");
        }),
        ("never opened", |guest| guest.send(SHUT, u32::MAX, b"")),
        ("ends twice", |guest| {
            guest.send(SHUT, 1, b"");
            guest.send(SHUT, 1, b"");
        }),
        ("kind 2 with 0 bytes", |guest| guest.send(DATA, 1, b"")),
        ("kind 3 with 0 bytes", |guest| guest.send(CREDIT, 1, b"")),
        ("kind 1 with 1 bytes", |guest| guest.send(OPEN, 2, b"x")),
        ("kind 4 with 1 bytes", |guest| guest.send(SHUT, 1, b"x")),
        ("kind 5 with 1 bytes", |guest| guest.send(CLOSE, 1, b"x")),
        ("kind 77", |guest| guest.send(77, 1, b"")),
        ("was announced", |guest| guest.0.write_all(&u32::MAX.to_be_bytes()).unwrap()),
    ];
    for (reason, case) in cases {
        let (relay, mut guest, _hold) = hold(RelayLimits::STANDARD);
        guest.send(OPEN, 1, b"");
        case(&mut guest);
        let said = breach(&relay);
        assert!(said.contains(reason), "{said}");
        // The port is closed: nothing more is heard of this guest.
        while Frame::read(&mut guest.0).is_ok() {}
    }
}

#[test]
fn too_many_streams_are_a_breach_and_closed_ones_do_not_count() {
    let (relay, mut guest) = relay(limits(), echo);
    for id in 0..(MAX_STREAMS as u32 * 3) {
        guest.send(OPEN, id, b"");
        guest.send(SHUT, id, b"");
        assert_eq!(guest.next().kind, CLOSE);
    }
    assert_eq!(relay.breach(), None);
    let (relay, mut guest, _hold) = hold(RelayLimits::STANDARD);
    for id in 0..=(MAX_STREAMS as u32) {
        guest.send(OPEN, id, b"");
    }
    assert!(breach(&relay).contains("too many"));
}

#[test]
fn streams_that_the_guest_closes_while_they_are_served_do_not_pile_up() {
    let (relay, mut guest, hold) = hold(RelayLimits::STANDARD);
    let full = MAX_HANDLERS as u32;
    for id in 0..full {
        guest.send(OPEN, id, b"");
        guest.send(CLOSE, id, b"");
    }
    // As many threads as may be still wait for their origins: a program may do that, so it is told no.
    for id in full..full + 3 {
        guest.send(OPEN, id, b"");
        assert_eq!(guest.next(), Frame { kind: CLOSE, id, body: Vec::new() });
        guest.send(DATA, id, b"late");
    }
    assert_eq!((relay.breach(), relay.shared.lock().handlers), (None, MAX_HANDLERS));
    drop(hold);
    let start = Instant::now();
    while relay.shared.lock().handlers > 0 {
        assert!(start.elapsed() < SOON);
        thread::sleep(Duration::from_millis(5));
    }
    guest.send(OPEN, full + 3, b"");
    assert_eq!(guest.next().kind, CLOSE, "served again, by a thread that ends at once");
    assert_eq!(relay.breach(), None);
}

#[test]
fn frames_without_end_end_the_relay() {
    let few = RelayLimits { frames: 1000, ..RelayLimits::STANDARD };
    let floods: [fn(&mut Guest, u32); 4] = [
        |guest, id| {
            guest.send(OPEN, id, b"");
            guest.send(CLOSE, id, b"");
        },
        |guest, id| {
            guest.send(OPEN, id, b"");
            guest.send(SHUT, id, b"");
            guest.read_until(CLOSE);
        },
        // One byte at a time, each with its credit.
        |guest, _| {
            guest.send(DATA, 0, b"x");
            guest.read_until(CREDIT);
        },
        // To a stream that was closed.
        |guest, _| guest.send(DATA, 1, b"late"),
    ];
    for (number, flood) in floods.into_iter().enumerate() {
        let (relay, mut guest) =
            relay(few.clone(), |mut stream| while let Ok(1..) = stream.read(&mut [0; 1000]) {});
        guest.send(OPEN, 0, b"");
        guest.send(OPEN, 1, b"");
        guest.send(CLOSE, 1, b"");
        for id in 2..600 {
            if relay.breach().is_some() {
                break;
            }
            flood(&mut guest, id);
        }
        for _ in 0..1000 {
            guest.send(DATA, 1, b"late");
        }
        assert!(breach(&relay).contains("more than 1000 frames"), "{number}");
    }
}

#[test]
fn dropping_the_relay_wakes_everybody() {
    let (sender, receiver) = mpsc::channel();
    let (relay, mut guest) = relay(RelayLimits::STANDARD, move |mut stream| {
        sender.send(()).unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0)));
        sender.send(()).unwrap();
    });
    guest.send(OPEN, 1, b"");
    receiver.recv_timeout(SOON).unwrap();
    drop(relay);
    receiver.recv_timeout(SOON).unwrap();
}

proptest! {
    /// Whatever frames come: no panic, bounded streams, and never more buffered than was granted.
    #[test]
    fn no_sequence_of_frames_breaks_the_bounds(
        frames in proptest::collection::vec((0u8..8, 0u32..40, 0usize..5), 0..400)
    ) {
        let mut state = State::default();
        for (kind, id, size) in frames {
            let body = vec![0; [0, 4, 4, 1000, 200_000][size]];
            if take(&mut state, Frame { kind, id, body }).is_err() {
                break;
            }
            prop_assert!(state.streams.len() <= MAX_STREAMS);
            for flow in state.streams.values() {
                prop_assert!(flow.inbound.len() + flow.granted as usize == WINDOW as usize);
                prop_assert!(flow.credit <= WINDOW);
            }
        }
    }
}
