//! The guest's end of the relay: accepts connections on the loopback interface and carries them over the relay port.
//!
//! The thread that reads the port never writes to it and never waits for a connection, so a host and a guest that both
//! have much to send cannot wait for each other. Each connection has two threads, one for each direction.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use guest::frame::Frame;
use guest::relay::{CLOSE, CREDIT, DATA, MAX_STREAMS, OPEN, SHUT};
use rustix::event::{PollFd, PollFlags, poll};

use super::kmsg;
use super::stream::{Breach, Inbound, Rules, Stream};

/// Sent in one frame, in bytes: short, so that streams share the port fairly.
const CHUNK: usize = 32 * 1024;
/// A connection that takes no bytes for so long is given up.
const STALLED: Duration = Duration::from_secs(120);
/// How often a full relay looks whether it was closed meanwhile.
const ROOM_PAUSE: Duration = Duration::from_millis(200);

/// The relay, open or closed. Dropping it closes it.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    /// While this is held, connections are accepted.
    gate: Option<Gate>,
}

/// Accepting of connections; ends when dropped.
struct Gate {
    address: SocketAddr,
    _held: PipeWriter,
    accepting: thread::JoinHandle<()>,
}

struct Shared {
    port: Mutex<Box<dyn Write + Send>>,
    table: Mutex<Table>,
    room: Condvar,
}

#[derive(Default)]
struct Table {
    streams: HashMap<u32, Arc<Stream>>,
    /// The highest id that was ever opened; ids begin at 1 and only grow.
    last: u32,
    /// Why the port cannot be used any more.
    broken: Option<String>,
}

/// Carries the bytes of one stream one way, to its end.
type Direction = fn(&Shared, &Stream);

impl Relay {
    /// Begins to read the port; nothing is accepted before [`Relay::open`].
    pub(crate) fn new(from: impl Read + Send + 'static, to: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            port: Mutex::new(Box::new(to)),
            table: Mutex::new(Table::default()),
            room: Condvar::new(),
        });
        let reading = Arc::clone(&shared);
        thread::Builder::new().name("relay-port".into()).spawn(move || reading.read_port(from))?;
        Ok(Self { shared, gate: None })
    }

    /// Accepts connections on `listen` from now on; gives the address bound. Open already is no error.
    ///
    /// # Errors
    /// The port broke, or the address is taken.
    pub(crate) fn open(&mut self, listen: SocketAddr) -> io::Result<SocketAddr> {
        if let Some(broken) = &self.shared.table().broken {
            return Err(io::Error::other(broken.clone()));
        }
        if let Some(gate) = &self.gate {
            return Ok(gate.address);
        }
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (closed, held) = io::pipe()?;
        let shared = Arc::clone(&self.shared);
        let accepting = thread::Builder::new()
            .name("relay-accept".into())
            .spawn(move || shared.accept(&listener, &closed))?;
        self.gate = Some(Gate { address, _held: held, accepting });
        Ok(address)
    }

    /// Whether connections are accepted.
    pub(crate) fn is_open(&self) -> bool {
        self.gate.is_some()
    }

    /// Accepts nothing more and ends all streams.
    pub(crate) fn close(&mut self) {
        if let Some(Gate { _held: held, accepting, .. }) = self.gate.take() {
            drop(held);
            if accepting.join().is_err() {
                kmsg::say("the relay's accepting thread ended badly");
            }
        }
        for stream in self.shared.all() {
            self.shared.close(&stream);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Stream>> {
        self.table().streams.values().cloned().collect()
    }

    /// Reads the port until it fails or the host breaks the rules; then no stream can go on.
    fn read_port(&self, mut from: impl Read) {
        let reason = loop {
            match Frame::read(&mut from) {
                Ok(frame) => {
                    if let Err(breach) = self.receive(frame) {
                        break breach.to_string();
                    }
                }
                Err(error) => break error.to_string(),
            }
        };
        kmsg::say(&format!("the relay ends: {reason}"));
        self.table().broken = Some(reason);
        for stream in self.all() {
            self.forget(&stream);
        }
    }

    /// One frame of the host.
    fn receive(&self, Frame { kind, id, body }: Frame) -> Result<(), Breach> {
        let stream = {
            let table = self.table();
            if id == 0 || id > table.last {
                return Err(Breach::NeverOpened(id));
            }
            // A frame that crossed our CLOSE on the way is dropped, also while the stream is still being taken down.
            let open = table.streams.get(&id).filter(|stream| !stream.silent.load(Ordering::SeqCst));
            let Some(stream) = open else { return Ok(()) };
            Arc::clone(stream)
        };
        match (kind, body.len()) {
            (DATA, _) => stream.change(|rules| rules.receive(id, body)),
            (CREDIT, 4) => {
                let count = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
                stream.change(|rules| rules.grant(id, count))
            }
            (SHUT, 0) => stream.change(|rules| rules.host_ends(id)),
            (CLOSE, 0) => {
                self.forget(&stream);
                Ok(())
            }
            (kind, length) => Err(Breach::Senseless { kind, length }),
        }
    }

    /// Sends a frame of `stream`, unless it is over.
    fn send(&self, stream: &Stream, kind: u8, body: Vec<u8>) {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        if kind == CLOSE {
            if stream.silent.swap(true, Ordering::SeqCst) {
                return;
            }
        } else if stream.silent.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = (Frame { kind, id: stream.id, body }).write(&mut *port) {
            kmsg::say(&format!("the relay port cannot be written: {error}"));
        }
    }

    /// Ends a stream from our side.
    fn close(&self, stream: &Stream) {
        self.send(stream, CLOSE, Vec::new());
        self.forget(stream);
    }

    /// The stream is gone; its threads notice.
    fn forget(&self, stream: &Stream) {
        stream.silent.store(true, Ordering::SeqCst);
        stream.change(Rules::vanish);
        // The reading half only: bytes that came before the end are still passed on by `inward`.
        let _gone_already = stream.socket.shutdown(Shutdown::Read);
        self.table().streams.remove(&stream.id);
        self.room.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, closed: &PipeReader) {
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN), PollFd::new(closed, PollFlags::IN)];
            match poll(&mut events, None) {
                Ok(_) if !events[1].revents().is_empty() => return,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return kmsg::say(&format!("the relay cannot wait for connections: {error}")),
            }
            if !self.wait_for_room(closed) {
                return;
            }
            if let Ok((socket, _)) = listener.accept()
                && let Err(error) = self.start(socket)
            {
                kmsg::say(&format!("the relay refuses a connection: {error}"));
            }
        }
    }

    /// Waits until a stream may be opened; false if the relay was closed meanwhile.
    fn wait_for_room(&self, closed: &PipeReader) -> bool {
        loop {
            let mut events = [PollFd::new(closed, PollFlags::IN)];
            if !matches!(poll(&mut events, Some(&super::exec::timespec(Duration::ZERO))), Ok(0)) {
                return false;
            }
            let table = self.table();
            if table.streams.len() < MAX_STREAMS {
                return true;
            }
            drop(self.room.wait_timeout(table, ROOM_PAUSE).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn start(self: &Arc<Self>, socket: TcpStream) -> io::Result<()> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(STALLED))?;
        socket.set_nodelay(true)?;
        let stream = {
            let mut table = self.table();
            if let Some(broken) = &table.broken {
                return Err(io::Error::other(broken.clone()));
            }
            table.last =
                table.last.checked_add(1).ok_or_else(|| io::Error::other("no more stream numbers"))?;
            let stream = Arc::new(Stream::new(table.last, socket));
            table.streams.insert(stream.id, Arc::clone(&stream));
            stream
        };
        self.send(&stream, OPEN, Vec::new());
        let directions: [(&str, Direction); 2] = [("relay-out", Self::outward), ("relay-in", Self::inward)];
        for (name, carry) in directions {
            let (shared, carried) = (Arc::clone(self), Arc::clone(&stream));
            let started = thread::Builder::new().name(name.into()).spawn(move || carry(&shared, &carried));
            if let Err(error) = started {
                self.close(&stream);
                return Err(error);
            }
        }
        Ok(())
    }

    /// From the connection to the host.
    fn outward(&self, stream: &Stream) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let allowance = stream.wait(|rules| match rules.allowance() {
                None => Some(None),
                Some(0) => None,
                Some(count) => Some(Some(count as usize)),
            });
            let Some(allowance) = allowance else { return };
            match (&stream.socket).read(&mut buffer[..allowance.min(CHUNK)]) {
                Ok(0) => {
                    self.send(stream, SHUT, Vec::new());
                    if stream.change(Rules::sent_end) {
                        self.close(stream);
                    }
                    return;
                }
                Ok(count) => {
                    // At most CHUNK, which fits.
                    stream.change(|rules| rules.spend(count as u32));
                    self.send(stream, DATA, buffer[..count].to_vec());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(stream),
            }
        }
    }

    /// From the host to the connection.
    fn inward(&self, stream: &Stream) {
        loop {
            match stream.wait(Rules::next_inbound) {
                Inbound::Bytes(bytes) => {
                    if (&stream.socket).write_all(&bytes).is_err() {
                        return self.close(stream);
                    }
                    // At most the window, which fits.
                    let count = bytes.len() as u32;
                    stream.change(|rules| rules.acknowledge(count));
                    self.send(stream, CREDIT, count.to_be_bytes().to_vec());
                }
                Inbound::End => {
                    // If the program is gone, the other direction notices.
                    let _gone = stream.socket.shutdown(Shutdown::Write);
                    if stream.change(Rules::passed_end) {
                        self.close(stream);
                    }
                    return;
                }
                Inbound::Gone => {
                    let _gone = stream.socket.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use guest::relay::WINDOW;

    use super::*;

    /// The host's side of a relay over a socket pair.
    struct Host {
        relay: Relay,
        port: UnixStream,
        address: SocketAddr,
    }

    impl Host {
        fn open() -> Self {
            let (port, agents) = UnixStream::pair().unwrap();
            port.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut relay = Relay::new(agents.try_clone().unwrap(), agents).unwrap();
            let address = relay.open("127.0.0.1:0".parse().unwrap()).unwrap();
            Self { relay, port, address }
        }

        fn connect(&self) -> TcpStream {
            let socket = TcpStream::connect(self.address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        }

        fn send(&mut self, kind: u8, id: u32, body: &[u8]) {
            Frame { kind, id, body: body.to_vec() }.write(&mut self.port).unwrap();
        }

        fn next(&mut self) -> (u8, u32, Vec<u8>) {
            let Frame { kind, id, body } = Frame::read(&mut self.port).unwrap();
            (kind, id, body)
        }

        /// No frame comes for a while.
        fn silent(&mut self) -> bool {
            self.port.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let silent = Frame::read(&mut self.port).is_err();
            self.port.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            silent
        }
    }

    #[test]
    fn bytes_go_both_ways_and_both_ends_end_it() {
        let mut host = Host::open();
        let mut program = host.connect();
        program.write_all(b"GET").unwrap();
        assert_eq!(host.next(), (OPEN, 1, vec![]));
        assert_eq!(host.next(), (DATA, 1, b"GET".to_vec()));
        host.send(CREDIT, 1, &3_u32.to_be_bytes());
        host.send(DATA, 1, b"answer");
        assert_eq!(host.next(), (CREDIT, 1, 6_u32.to_be_bytes().to_vec()));
        host.send(SHUT, 1, b"");
        let mut answer = String::new();
        program.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        drop(program);
        assert_eq!(host.next(), (SHUT, 1, vec![]));
        assert_eq!(host.next(), (CLOSE, 1, vec![]));
        // What crosses that CLOSE is dropped, and the next stream has the next number.
        host.send(DATA, 1, b"late");
        host.send(CLOSE, 1, b"");
        let _program = host.connect();
        assert_eq!(host.next(), (OPEN, 2, vec![]));
    }

    #[test]
    fn no_more_is_sent_than_the_host_gave_credit_for() {
        let mut host = Host::open();
        let mut program = host.connect();
        let writer =
            thread::spawn(move || program.write_all(&vec![1; WINDOW as usize + 10]).map(|()| program));
        assert_eq!(host.next().0, OPEN);
        let mut received = 0;
        while received < WINDOW as usize {
            let (kind, _, body) = host.next();
            assert_eq!(kind, DATA);
            received += body.len();
        }
        assert_eq!(received, WINDOW as usize);
        assert!(host.silent());
        host.send(CREDIT, 1, &10_u32.to_be_bytes());
        assert_eq!(host.next(), (DATA, 1, vec![1; 10]));
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_close_of_the_host_still_delivers_what_came_before() {
        let mut host = Host::open();
        let mut program = host.connect();
        assert_eq!(host.next().0, OPEN);
        host.send(DATA, 1, b"last words");
        host.send(CLOSE, 1, b"");
        let mut heard = String::new();
        program.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "last words");
    }

    #[test]
    fn streams_beyond_the_limit_wait_for_room() {
        let mut host = Host::open();
        let programs: Vec<TcpStream> = (0..=MAX_STREAMS).map(|_| host.connect()).collect();
        for id in 1..=MAX_STREAMS as u32 {
            assert_eq!(host.next(), (OPEN, id, vec![]));
        }
        assert!(host.silent());
        host.send(CLOSE, 5, b"");
        assert_eq!(host.next(), (OPEN, MAX_STREAMS as u32 + 1, vec![]));
        drop(programs);
    }

    #[test]
    fn closed_means_that_nothing_listens_and_nothing_is_open() {
        let mut host = Host::open();
        let mut program = host.connect();
        assert_eq!(host.next().0, OPEN);
        host.relay.close();
        assert_eq!(host.next(), (CLOSE, 1, vec![]));
        assert_eq!(program.read(&mut [0]).unwrap(), 0);
        assert!(TcpStream::connect(host.address).is_err());
        host.address = host.relay.open("127.0.0.1:0".parse().unwrap()).unwrap();
        let _program = host.connect();
        assert_eq!(host.next(), (OPEN, 2, vec![]), "numbers go on");
    }

    #[test]
    fn a_host_that_breaks_the_rules_ends_the_relay() {
        let too_much = vec![0; WINDOW as usize];
        let breaches: [&[(u8, u32, &[u8])]; 8] = [
            &[(DATA, 7, b"x")],
            &[(DATA, 0, b"x")],
            &[(OPEN, 1, b"")],
            &[(OPEN, 2, b"")],
            &[(CREDIT, 1, &[0, 0, 1])],
            &[(CREDIT, 1, &[0, 0, 0, 1])],
            &[(SHUT, 1, b""), (DATA, 1, b"x")],
            &[(99, 1, b"")],
        ];
        for frames in breaches {
            let mut host = Host::open();
            let mut program = host.connect();
            assert_eq!(host.next().0, OPEN);
            for (kind, id, body) in frames {
                host.send(*kind, *id, body);
            }
            assert_eq!(program.read(&mut [0]).unwrap_or(0), 0, "{frames:?}");
            let deadline = Instant::now() + Duration::from_secs(10);
            while host.relay.shared.table().broken.is_none() {
                assert!(Instant::now() < deadline);
            }
            assert!(host.relay.open(host.address).is_err(), "{frames:?}");
        }
        // More than the window, to a program that reads nothing.
        let mut host = Host::open();
        let _program = host.connect();
        assert_eq!(host.next().0, OPEN);
        // Once the relay has ended, nothing takes what is written.
        host.port.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        for _ in 0..64 {
            let frame = Frame { kind: DATA, id: 1, body: too_much.clone() };
            if frame.write(&mut host.port).is_err() {
                break;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while host.relay.shared.table().broken.is_none() {
            assert!(Instant::now() < deadline);
        }
    }
}
