//! Why a machine could not be had or was lost.

use std::io;
use std::path::{Path, PathBuf};

use guest::control::AgentError;
use recipe_spec::Code;
use recipe_spec::digest::Sha256Digest;
use rustix::io::Errno;

/// Anything that goes wrong around a machine; [`HarnessError::code`] says how it is to be judged.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// QEMU or a tool beside it is missing or too old.
    #[error("no usable {program} (wanted: {wanted}): {reason}")]
    NoQemu {
        /// The program that was looked for.
        program: &'static str,
        /// Version or package wanted.
        wanted: &'static str,
        /// What was found instead.
        reason: String,
    },
    /// QEMU or a worker would have run as the caller's own user, which nobody allowed.
    #[error(
        "nothing can run as a user of its own because this process is not root, and allow_same_user in site.toml does not let it run as this one"
    )]
    NotConfined,
    /// All users set aside for machines are taken.
    #[error("all {count} user ids from {first} on are taken by other machines and workers")]
    NoFreeUser {
        /// The first user id of the range.
        first: u32,
        /// How many there are.
        count: u32,
    },
    /// The description of the machine makes no sense.
    #[error("machine {machine}: {reason}")]
    BadSpec {
        /// The machine's name.
        machine: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Silent before the first step, or QEMU died.
    #[error("machine {machine} failed: {reason}{}", tail(.console))]
    MachineFailed {
        /// The machine's name.
        machine: String,
        /// What happened.
        reason: String,
        /// The last lines of its console, escaped; may be empty.
        console: String,
    },
    /// The agent went silent or broke the protocol after a recipe had run.
    #[error("machine {machine}: the agent is lost: {reason}{}", tail(.console))]
    ControlLost {
        /// The machine's name.
        machine: String,
        /// What happened.
        reason: String,
        /// The last lines of its console, escaped; may be empty.
        console: String,
    },
    /// The agent answered that the request failed; the wire is still good.
    #[error("machine {machine}: {request}: {}", escape(&.error.message))]
    Agent {
        /// The machine's name.
        machine: String,
        /// What was asked for.
        request: &'static str,
        /// The agent's own words: hostile text.
        error: AgentError,
    },
    /// A file of the base image is not the one that was authorized.
    #[error("{} is not the trusted file: expected sha256 {expected}, found {actual}", .path.display())]
    BaseMismatch {
        /// The file.
        path: PathBuf,
        /// As the caller demands it.
        expected: Sha256Digest,
        /// Of the bytes found.
        actual: Sha256Digest,
    },
    /// A layer is not the one that was authorized.
    #[error("layer {} is not the authorized one: expected sha256 {expected}, found {actual}", .path.display())]
    LayerMismatch {
        /// The file.
        path: PathBuf,
        /// As the caller demands it.
        expected: Sha256Digest,
        /// Of the bytes found.
        actual: Sha256Digest,
    },
    /// A file has the right digest but cannot be a disk of ours, or others may write to it.
    #[error("{} cannot be used: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Base files and layers are judged differently.
        layer: bool,
        /// What is wrong with it.
        reason: String,
    },
    /// The host has no room left: disk or memory.
    #[error("the host is full: {what}")]
    HostFull {
        /// Where it was noticed.
        what: String,
    },
    /// A server could not be reached or did not give the file.
    #[error("{url} cannot be fetched: {reason}")]
    RemoteUnavailable {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A `download` step names a place that is never fetched from.
    #[error("{url} is refused: {reason}")]
    DownloadRefused {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// The file is not the one that the recipe names.
    #[error("{url} has changed: expected sha256 {expected}, found {actual}")]
    DownloadChanged {
        /// What was asked for.
        url: String,
        /// As the recipe demands it.
        expected: Sha256Digest,
        /// Of the bytes found.
        actual: Sha256Digest,
    },
    /// The operating system refused something.
    #[error("cannot {what}{}: {source}", .path.as_deref().map(at).unwrap_or_default())]
    System {
        /// What was tried, as a verb and its object.
        what: &'static str,
        /// The file, if there is one.
        path: Option<PathBuf>,
        /// The system's answer.
        source: io::Error,
    },
}

impl HarnessError {
    /// The published code of this error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoQemu { .. } => Code::NoQemu,
            Self::NotConfined | Self::BadSpec { .. } => Code::HostFailed,
            Self::MachineFailed { .. } => Code::MachineFailed,
            Self::ControlLost { .. } => Code::ControlLost,
            Self::Agent { .. } => Code::ApplyFailed,
            Self::BaseMismatch { .. } | Self::Unusable { layer: false, .. } => Code::BaseMismatch,
            Self::LayerMismatch { .. } | Self::Unusable { layer: true, .. } => Code::LayerMismatch,
            Self::HostFull { .. } | Self::NoFreeUser { .. } => Code::HostFull,
            Self::RemoteUnavailable { .. } => Code::RemoteUnavailable,
            Self::DownloadRefused { .. } => Code::BadRecipe,
            Self::DownloadChanged { .. } => Code::InputChanged,
            Self::System { source, .. } if is_full(source) => Code::HostFull,
            Self::System { .. } => Code::HostFailed,
        }
    }

    pub(crate) fn system(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::System { what, path: Some(path.to_owned()), source }
    }

    pub(crate) fn process(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System { what, path: None, source: source.into() }
    }
}

/// No room: on the disk, in memory, for another process or thread (fork(2)), for another descriptor.
pub(crate) fn is_full(error: &io::Error) -> bool {
    const FULL: [Errno; 6] =
        [Errno::NOSPC, Errno::DQUOT, Errno::NOMEM, Errno::AGAIN, Errno::MFILE, Errno::NFILE];
    match Errno::from_io_error(error) {
        Some(errno) => FULL.contains(&errno),
        None => matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory
        ),
    }
}

fn at(path: &Path) -> String {
    format!(" {}", path.display())
}

fn tail(console: &str) -> String {
    if console.is_empty() { String::new() } else { format!("\nlast lines of its console:\n{console}") }
}

/// The longest text of a guest that goes into a message, in characters.
const MAX_GUEST_TEXT: usize = 2000;

/// Text from a guest, safe for a terminal: control characters escaped, cut.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().take(MAX_GUEST_TEXT) {
        if character == '\n' || !is_unsafe(character) {
            out.push(character);
        } else {
            out.extend(character.escape_default());
        }
    }
    if text.chars().nth(MAX_GUEST_TEXT).is_some() {
        out.push('…');
    }
    out
}

/// Control characters, and those that reorder or hide the text around them (Unicode bidi controls,
/// zero-width characters): "Trojan Source", CVE-2021-42574.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_is_escaped_and_cut() {
        assert_eq!(escape("a\u{1b}[31m\u{202e}b\nc"), "a\\u{1b}[31m\\u{202e}b\nc");
        assert_eq!(escape(&"x".repeat(5000)).chars().count(), MAX_GUEST_TEXT + 1);
    }

    #[test]
    fn a_full_host_is_told_apart() {
        let code = |error: io::Error| HarnessError::process("write", error).code();
        assert_eq!(code(io::ErrorKind::StorageFull.into()), Code::HostFull);
        assert_eq!(code(io::ErrorKind::OutOfMemory.into()), Code::HostFull);
        for errno in [Errno::NOSPC, Errno::NOMEM, Errno::AGAIN, Errno::MFILE] {
            assert_eq!(code(errno.into()), Code::HostFull, "{errno}");
        }
        assert_eq!(code(io::ErrorKind::PermissionDenied.into()), Code::HostFailed);
        assert_eq!(code(Errno::IO.into()), Code::HostFailed);
    }

    /// What an authorization ends with, for each way in which a machine can be lost.
    #[test]
    fn every_end_of_a_machine_has_its_code() {
        let (machine, console, reason) = ("build", String::new(), String::from("x"));
        let machine = || machine.to_owned();
        let error = AgentError { kind: guest::control::AgentErrorKind::ToolFailed, message: "x".into() };
        let ends = [
            (HarnessError::NoQemu { program: "q", wanted: "w", reason: reason.clone() }, "NO_QEMU", 3),
            (
                HarnessError::MachineFailed {
                    machine: machine(),
                    reason: reason.clone(),
                    console: console.clone(),
                },
                "MACHINE_FAILED",
                3,
            ),
            (
                HarnessError::ControlLost { machine: machine(), reason: reason.clone(), console },
                "CONTROL_LOST",
                1,
            ),
            (HarnessError::Agent { machine: machine(), request: "apply", error }, "APPLY_FAILED", 1),
            (HarnessError::HostFull { what: reason.clone() }, "HOST_FULL", 3),
            (HarnessError::NoFreeUser { first: 1, count: 1 }, "HOST_FULL", 3),
            (HarnessError::BadSpec { machine: machine(), reason }, "HOST_FAILED", 3),
        ];
        for (error, code, status) in ends {
            assert_eq!((error.code().as_str(), error.code().exit_status()), (code, status), "{error}");
        }
    }
}
