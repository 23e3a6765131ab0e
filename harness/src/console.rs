//! What a guest or QEMU says on a stream nobody answers: the last of it in memory, the first of it in a log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::escape;

/// Bytes kept in memory.
const TAIL: usize = 32 * 1024;

/// The end of a stream, filled by a thread of its own until the stream ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Console {
    tail: Arc<Mutex<VecDeque<u8>>>,
    end: Arc<(Mutex<bool>, Condvar)>,
}

/// A log file and how much may go into it.
pub(crate) struct Log {
    pub(crate) file: File,
    pub(crate) limit: u64,
}

impl Console {
    /// Reads `from` to its end. The log takes the first `limit` bytes; what comes later is dropped there.
    pub(crate) fn follow(
        mut from: impl Read + Send + 'static,
        mut log: Option<Log>,
    ) -> std::io::Result<Self> {
        let console = Self::default();
        let (tail, end) = (Arc::clone(&console.tail), Arc::clone(&console.end));
        thread::Builder::new().name("console".into()).spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                };
                remember(&tail, &buffer[..read]);
                // A log that cannot be written any more must not stop the guest.
                if log.as_mut().is_some_and(|log| log.write(&buffer[..read]).is_err()) {
                    log = None;
                }
            }
            *end.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            end.1.notify_all();
        })?;
        Ok(console)
    }

    /// Waits until the stream was read to its end, at most so long.
    pub(crate) fn wait_end(&self, timeout: Duration) {
        let ended = self.end.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _late = self.end.1.wait_timeout_while(ended, timeout, |ended| !*ended);
    }

    /// The last `lines` lines, escaped for a terminal.
    pub(crate) fn last_lines(&self, lines: usize) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\r', "\n");
        let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = all.len().saturating_sub(lines);
        escape(&all[from..].join("\n"))
    }
}

impl Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let room = usize::try_from(self.limit).unwrap_or(usize::MAX).min(bytes.len());
        self.limit -= room as u64;
        self.file.write_all(&bytes[..room])
    }
}

fn remember(tail: &Mutex<VecDeque<u8>>, bytes: &[u8]) {
    let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    tail.extend(bytes);
    let over = tail.len().saturating_sub(TAIL);
    tail.drain(..over);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_the_log_is_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let console = Console::follow(theirs, Some(Log { file: file.reopen().unwrap(), limit: 10 })).unwrap();
        for number in 0..20_000 {
            ours.write_all(format!("line {number}\r\n").as_bytes()).unwrap();
        }
        drop(ours);
        console.wait_end(Duration::from_secs(10));
        assert_eq!(console.last_lines(2), "line 19998\nline 19999");
        assert!(console.tail.lock().unwrap().len() <= TAIL);
        assert_eq!(std::fs::read(file.path()).unwrap().len(), 10);
    }
}
