//! QEMU's monitor: JSON lines over a socket (QEMU `docs/interop/qmp-spec.rst`).
//!
//! QEMU may have been taken over by its guest, so its lines are bounded and its answers are waited for only so long.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// Longest line accepted, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Answers that may wait to be read; QEMU gives one for each command.
const MAX_WAITING: usize = 4;

/// Why a command of the monitor did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("the monitor is gone")]
    Gone,
    #[error("the monitor did not answer {command} within {seconds} s")]
    Silent { command: String, seconds: u64 },
    #[error("the monitor refused {command}: {reason}")]
    Refused { command: String, reason: String },
}

/// The monitor of one QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    answers: Receiver<Map<String, Value>>,
    next_id: u64,
}

impl Qmp {
    /// Starts to listen; each event goes to `on_event` (name, data) on a thread of its own.
    pub(crate) fn new(
        stream: UnixStream,
        on_event: impl FnMut(&str, &Value) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, answers) = mpsc::sync_channel(MAX_WAITING);
        let reader = stream.try_clone()?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        thread::Builder::new().name("qmp".into()).spawn(move || listen(reader, &sender, on_event))?;
        Ok(Self { stream, answers, next_id: 0 })
    }

    /// Ends the monitor's negotiation mode; nothing else works before it.
    pub(crate) fn negotiate(&mut self, timeout: Duration) -> Result<(), QmpError> {
        self.execute("qmp_capabilities", json!({}), timeout).map(drop)
    }

    /// Runs one command and gives its return value.
    pub(crate) fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, QmpError> {
        self.next_id += 1;
        let id = json!(self.next_id);
        let line = json!({"execute": command, "arguments": arguments, "id": id}).to_string() + "\n";
        let start = Instant::now();
        self.stream.write_all(line.as_bytes()).map_err(|_| QmpError::Gone)?;
        loop {
            // What is left of the time, so that answers nobody asked for prolong nothing.
            let left = timeout.saturating_sub(start.elapsed());
            let mut answer = self.answers.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Disconnected => QmpError::Gone,
                RecvTimeoutError::Timeout => {
                    QmpError::Silent { command: command.to_owned(), seconds: timeout.as_secs() }
                }
            })?;
            // The late answer to a command that was given up.
            if answer.get("id") != Some(&id) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                let reason = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    reason: crate::error::escape(reason),
                });
            }
            return Ok(answer.remove("return").unwrap_or(Value::Null));
        }
    }
}

fn listen(
    stream: UnixStream,
    answers: &SyncSender<Map<String, Value>>,
    mut on_event: impl FnMut(&str, &Value),
) {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 && line.ends_with(b"\n") => {}
            // Closed, failed, or longer than any line of an honest QEMU.
            _ => return,
        }
        let Ok(Value::Object(message)) = serde_json::from_slice(&line) else { return };
        if let Some(event) = message.get("event").and_then(Value::as_str) {
            on_event(event, message.get("data").unwrap_or(&Value::Null));
        } else if (message.contains_key("return") || message.contains_key("error"))
            && answers.try_send(message).is_err()
        {
            // Nobody asked for so many answers.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn monitor(answer: impl FnOnce(BufReader<UnixStream>, UnixStream) + Send + 'static) -> Qmp {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reader = BufReader::new(theirs.try_clone().unwrap());
        thread::spawn(move || answer(reader, theirs));
        Qmp::new(ours, |_, _| {}).unwrap()
    }

    #[test]
    fn answers_are_matched_by_id_and_events_are_told_apart() {
        let mut qmp = monitor(|mut reader, mut writer| {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            writer.write_all(b"{\"QMP\":{}}\n{\"event\":\"STOP\"}\n{\"return\":0,\"id\":99}\n").unwrap();
            writer.write_all(b"{\"return\":{\"a\":1},\"id\":1}\n").unwrap();
            line.clear();
            reader.read_line(&mut line).unwrap();
            writer
                .write_all(b"{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such node\"},\"id\":2}\n")
                .unwrap();
        });
        assert_eq!(qmp.execute("one", json!({}), SOON).unwrap(), json!({"a": 1}));
        let refused = qmp.execute("two", json!({}), SOON).unwrap_err();
        assert_eq!(refused.to_string(), "the monitor refused two: no such node");
        assert!(matches!(qmp.execute("three", json!({}), SOON), Err(QmpError::Gone)));
    }

    #[test]
    fn an_endless_line_or_no_answer_ends_the_wait() {
        let mut qmp = monitor(|_, mut writer| while writer.write_all(&[b'x'; 4096]).is_ok() {});
        assert!(matches!(qmp.execute("one", json!({}), SOON), Err(QmpError::Gone)));
        // Answers to nothing, again and again, prolong nothing.
        let mut qmp = monitor(|_reader, mut writer| {
            while writer.write_all(b"{\"return\":{},\"id\":99}\n").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let start = Instant::now();
        let silent = qmp.execute("one", json!({}), Duration::from_millis(100));
        assert!(matches!(silent, Err(QmpError::Silent { .. })) && start.elapsed() < SOON);
        let mut qmp = monitor(|_reader, _writer| thread::sleep(SOON));
        let silent = qmp.execute("one", json!({}), Duration::from_millis(20));
        assert!(matches!(silent, Err(QmpError::Silent { .. })));
    }
}
