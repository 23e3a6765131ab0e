//! One relayed connection: what may still be sent, what must still be passed on, and when it is over.
//!
//! The state is plain data behind one lock, so the rules of [`guest::relay`] can be tested without a connection.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use guest::relay::WINDOW;

/// A frame of the host that the protocol forbids.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    #[error("stream {0} was never opened")]
    NeverOpened(u32),
    #[error("stream {0} got bytes beyond the window")]
    BeyondWindow(u32),
    #[error("stream {0} was given more credit than the window")]
    TooMuchCredit(u32),
    #[error("stream {0} got bytes or an end after its end")]
    AfterEnd(u32),
    #[error("a frame of kind {kind} with {length} bytes makes no sense here")]
    Senseless { kind: u8, length: usize },
}

/// What goes on to the connection next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    Bytes(Vec<u8>),
    /// The host sends no more.
    End,
    /// The stream is gone.
    Gone,
}

/// The rules of one stream, without any I/O.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Bytes that may still be sent to the host.
    credit: u32,
    /// What the host sent and the connection has not taken yet.
    inbound: VecDeque<Vec<u8>>,
    /// Bytes received and not yet acknowledged with credit.
    unacknowledged: u32,
    /// The host sends no more.
    host_ended: bool,
    /// All of the host's bytes, and their end, are passed on.
    passed_on: bool,
    /// The connection's own end was sent to the host.
    ended: bool,
    /// No frame goes either way any more.
    gone: bool,
}

impl Rules {
    pub(crate) fn new() -> Self {
        Self {
            credit: WINDOW,
            inbound: VecDeque::new(),
            unacknowledged: 0,
            host_ended: false,
            passed_on: false,
            ended: false,
            gone: false,
        }
    }

    /// `DATA` of the host.
    pub(crate) fn receive(&mut self, id: u32, bytes: Vec<u8>) -> Result<(), Breach> {
        if self.host_ended {
            return Err(Breach::AfterEnd(id));
        }
        let sum = u32::try_from(bytes.len()).ok().and_then(|count| self.unacknowledged.checked_add(count));
        let sum = sum.filter(|sum| *sum <= WINDOW).ok_or(Breach::BeyondWindow(id))?;
        self.unacknowledged = sum;
        if !bytes.is_empty() {
            self.inbound.push_back(bytes);
        }
        Ok(())
    }

    /// `CREDIT` of the host.
    pub(crate) fn grant(&mut self, id: u32, count: u32) -> Result<(), Breach> {
        let sum = self.credit.checked_add(count).filter(|sum| *sum <= WINDOW);
        self.credit = sum.ok_or(Breach::TooMuchCredit(id))?;
        Ok(())
    }

    /// `SHUT` of the host.
    pub(crate) fn host_ends(&mut self, id: u32) -> Result<(), Breach> {
        if std::mem::replace(&mut self.host_ended, true) { Err(Breach::AfterEnd(id)) } else { Ok(()) }
    }

    /// The next thing to pass on, if there is one. After `Gone`, bytes that came before are still passed on.
    pub(crate) fn next_inbound(&mut self) -> Option<Inbound> {
        match self.inbound.pop_front() {
            Some(bytes) => Some(Inbound::Bytes(bytes)),
            None if self.gone => Some(Inbound::Gone),
            None if self.host_ended => Some(Inbound::End),
            None => None,
        }
    }

    /// `count` bytes were passed on; the caller sends the credit back.
    pub(crate) fn acknowledge(&mut self, count: u32) {
        self.unacknowledged = self.unacknowledged.saturating_sub(count);
    }

    /// Bytes that may be sent now; `None` if the stream is gone.
    pub(crate) fn allowance(&self) -> Option<u32> {
        (!self.gone).then_some(self.credit)
    }

    /// `count` bytes are about to be sent; at most the allowance.
    pub(crate) fn spend(&mut self, count: u32) {
        self.credit = self.credit.saturating_sub(count);
    }

    /// The connection's end was sent; true if the stream is now complete.
    pub(crate) fn sent_end(&mut self) -> bool {
        self.ended = true;
        self.passed_on
    }

    /// The host's end was passed on; true if the stream is now complete.
    pub(crate) fn passed_end(&mut self) -> bool {
        self.passed_on = true;
        self.ended
    }

    /// No frame goes either way any more.
    pub(crate) fn vanish(&mut self) {
        self.gone = true;
    }
}

/// A stream with its connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) socket: TcpStream,
    rules: Mutex<Rules>,
    changed: Condvar,
    /// Set under the port's lock before `CLOSE` is sent, or when `CLOSE` came: nothing more is sent for it.
    pub(crate) silent: AtomicBool,
}

impl Stream {
    pub(crate) fn new(id: u32, socket: TcpStream) -> Self {
        let rules = Mutex::new(Rules::new());
        Self { id, socket, rules, changed: Condvar::new(), silent: AtomicBool::new(false) }
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(crate) fn change<T>(&self, by: impl FnOnce(&mut Rules) -> T) -> T {
        let result = by(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `look` sees something in the state.
    pub(crate) fn wait<T>(&self, mut look: impl FnMut(&mut Rules) -> Option<T>) -> T {
        let mut rules = self.lock();
        loop {
            if let Some(seen) = look(&mut rules) {
                return seen;
            }
            rules = self.changed.wait(rules).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_kept_in_both_directions() {
        let mut rules = Rules::new();
        assert_eq!(rules.receive(1, vec![0; WINDOW as usize]), Ok(()));
        assert_eq!(rules.receive(1, vec![0]), Err(Breach::BeyondWindow(1)));
        rules.acknowledge(1);
        assert_eq!(rules.receive(1, vec![0]), Ok(()));

        assert_eq!(rules.grant(1, 1), Err(Breach::TooMuchCredit(1)));
        rules.spend(WINDOW);
        assert_eq!(rules.allowance(), Some(0));
        assert_eq!(rules.grant(1, u32::MAX), Err(Breach::TooMuchCredit(1)));
        assert_eq!(rules.grant(1, 7), Ok(()));
        assert_eq!(rules.allowance(), Some(7));
    }

    #[test]
    fn bytes_before_an_end_are_passed_on_before_it() {
        let mut rules = Rules::new();
        assert_eq!(rules.next_inbound(), None);
        rules.receive(1, b"last".to_vec()).unwrap();
        rules.host_ends(1).unwrap();
        assert_eq!(rules.receive(1, b"late".to_vec()), Err(Breach::AfterEnd(1)));
        assert_eq!(rules.host_ends(1), Err(Breach::AfterEnd(1)));
        assert_eq!(rules.next_inbound(), Some(Inbound::Bytes(b"last".to_vec())));
        assert_eq!(rules.next_inbound(), Some(Inbound::End));
        rules.vanish();
        assert_eq!(rules.next_inbound(), Some(Inbound::Gone));
        assert_eq!(rules.allowance(), None);
    }

    #[test]
    fn a_stream_is_complete_when_both_ends_are_through() {
        let mut rules = Rules::new();
        assert!(!rules.sent_end());
        assert!(rules.passed_end());
        let mut rules = Rules::new();
        assert!(!rules.passed_end());
        assert!(rules.sent_end());
    }
}
