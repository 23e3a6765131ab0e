//! The child's side: it takes its orders, gives up what it does not need, and does one job.
//!
//! An answer is whole only with its trailer: the refusal if there is one, its length, and a byte that says which end it is.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Job, handover, restrict};

/// The last byte of what a child says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum End {
    Answered = b'A',
    Refused = b'R',
    OutOfMemory = b'M',
}

/// Length of a refusal, and [`End`].
const TRAILER: usize = 9;
/// Longest refusal, in bytes.
const MAX_REFUSAL: usize = 64 << 10;

/// One job as its function sees it.
#[derive(Debug)]
pub struct Task {
    request: serde_json::Value,
    scratch: Option<PathBuf>,
    files: Vec<File>,
    answer: BufWriter<File>,
}

/// Why a job does not answer.
#[derive(Debug)]
pub enum Stop {
    /// It says no; the JSON reaches whoever asked.
    Refused(Vec<u8>),
    /// It noticed by itself that it has no memory left.
    OutOfMemory,
    /// It could not be done, for a reason that says nothing of the bytes that it read.
    Failed(String),
}

impl Stop {
    /// A no.
    #[must_use]
    pub fn refused(refusal: &impl Serialize) -> Self {
        match serde_json::to_vec(refusal) {
            Ok(json) if json.len() <= MAX_REFUSAL => Self::Refused(json),
            Ok(json) => Self::Failed(format!("a refusal of {} bytes", json.len())),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl Task {
    /// What is asked.
    ///
    /// # Errors
    /// [`Stop::Failed`] where it is not of this type: then both sides are not of one program.
    pub fn request<T: DeserializeOwned>(&mut self) -> Result<T, Stop> {
        serde_json::from_value(self.request.take()).map_err(|error| Stop::Failed(error.to_string()))
    }

    /// The files of the order, in its order.
    pub fn files(&mut self) -> Vec<File> {
        std::mem::take(&mut self.files)
    }

    /// The folder to write in, if the order has one.
    #[must_use]
    pub fn scratch(&self) -> Option<&Path> {
        self.scratch.as_deref()
    }

    /// Where the answer goes.
    pub fn answer(&mut self) -> &mut impl Write {
        &mut self.answer
    }

    fn end(mut self, end: End, refusal: &[u8]) -> std::io::Result<()> {
        self.answer.write_all(refusal)?;
        self.answer.write_all(&(refusal.len() as u64).to_le_bytes())?;
        self.answer.write_all(&[end as u8])?;
        self.answer.flush()
    }
}

/// What a child said, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answered(Vec<u8>),
    Refused(Vec<u8>),
    OutOfMemory,
}

/// Takes the trailer off; nothing if the bytes are not whole.
pub(super) fn read_trailer(mut bytes: Vec<u8>) -> Option<Said> {
    let trailer = bytes.split_off(bytes.len().checked_sub(TRAILER)?);
    let (length, end) = trailer.split_at(TRAILER - 1);
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let refusal = bytes.split_off(bytes.len().checked_sub(length)?);
    match end[0] {
        end if end == End::Answered as u8 && length == 0 => Some(Said::Answered(bytes)),
        end if end == End::Refused as u8 && length <= MAX_REFUSAL => Some(Said::Refused(refusal)),
        end if end == End::OutOfMemory as u8 && length == 0 => Some(Said::OutOfMemory),
        _ => None,
    }
}

/// Most bytes that a child may say for an answer of so many.
pub(super) fn most(answer_bytes: u64) -> u64 {
    answer_bytes.saturating_add((TRAILER + MAX_REFUSAL) as u64)
}

/// Does the job of this name as a worker, and gives the exit status of the process: 0 where whoever asked gets an answer or
/// a refusal. What goes wrong is said on standard error.
#[must_use]
pub fn serve(jobs: &[Job], name: &str) -> u8 {
    match work(jobs, name) {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("{message}");
            1
        }
    }
}

fn work(jobs: &[Job], name: &str) -> Result<(), String> {
    let job = jobs.iter().find(|job| job.name == name).ok_or("no such job")?;
    let received =
        handover::receive().map_err(|error| format!("a worker is started by countersign itself: {error}"))?;
    restrict::restrict(&received.orders)
        .map_err(|error| format!("cannot give up access to files: {error}"))?;
    let mut task = Task {
        request: received.orders.request,
        scratch: received.orders.scratch,
        files: received.files,
        answer: BufWriter::new(received.answer),
    };
    let said = match (job.run)(&mut task) {
        Ok(()) => task.end(End::Answered, &[]),
        Err(Stop::Refused(refusal)) => task.end(End::Refused, &refusal),
        Err(Stop::OutOfMemory) => task.end(End::OutOfMemory, &[]),
        Err(Stop::Failed(message)) => return Err(message),
    };
    said.map_err(|error| format!("the answer cannot be given: {error}"))
}

/// The body of the `#[ignore]`d test that [`super::Entry::libtest`] names. Ends the process; started by hand it does nothing.
pub fn serve_in_test(jobs: &[Job]) {
    let last = std::env::args().next_back().unwrap_or_default();
    if jobs.iter().any(|job| job.name == last) {
        std::process::exit(serve(jobs, &last).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answer: &[u8], end: u8, refusal: &[u8], length: u64) -> Option<Said> {
        read_trailer([answer, refusal, &length.to_le_bytes(), &[end]].concat())
    }

    #[test]
    fn only_a_whole_trailer_is_an_end() {
        assert_eq!(said(b"yes", b'A', b"", 0), Some(Said::Answered(b"yes".to_vec())));
        assert_eq!(said(b"half", b'R', b"no", 2), Some(Said::Refused(b"no".to_vec())));
        assert_eq!(said(b"", b'M', b"", 0), Some(Said::OutOfMemory));
        for wrong in [
            said(b"yes", b'A', b"", 1),
            said(b"", b'R', b"no", 3),
            said(b"", b'R', b"no", u64::MAX),
            said(b"", 0, b"", 0),
        ] {
            assert_eq!(wrong, None);
        }
        assert_eq!(read_trailer(b"A".to_vec()), None);
        assert_eq!(read_trailer(Vec::new()), None);
    }
}
