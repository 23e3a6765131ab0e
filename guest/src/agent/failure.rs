//! How a request fails: the kinds of [`AgentErrorKind`], each made in one place.

use std::fmt::Display;

use guest::control::{AgentError, AgentErrorKind};

/// Why a mode of the agent ended; said in the kernel's log, never sent.
pub(crate) type Fatal = Box<dyn std::error::Error>;

fn failure(kind: AgentErrorKind, message: impl Into<String>) -> AgentError {
    AgentError { kind, message: message.into() }
}

/// The request makes no sense.
pub(crate) fn bad_request(message: impl Into<String>) -> AgentError {
    failure(AgentErrorKind::BadRequest, message)
}

/// The operating system refused `doing`, for example "open /etc/x".
pub(crate) fn system(doing: impl Display, error: impl Display) -> AgentError {
    failure(AgentErrorKind::System, format!("could not {doing}: {error}"))
}

/// `tool` is not in the guest.
pub(crate) fn tool_missing(tool: &str) -> AgentError {
    failure(AgentErrorKind::ToolMissing, format!("the program `{tool}` is not in the guest"))
}

/// A tool or script ended with a failure.
pub(crate) fn tool_failed(message: impl Into<String>) -> AgentError {
    failure(AgentErrorKind::ToolFailed, message)
}

/// The time limit was reached while `doing`.
pub(crate) fn timed_out(doing: impl Display) -> AgentError {
    failure(AgentErrorKind::TimedOut, format!("the time limit was reached in {doing}"))
}

/// `what` is longer than `limit` bytes.
pub(crate) fn too_large(what: impl Display, limit: u64) -> AgentError {
    failure(AgentErrorKind::TooLarge, format!("{what} is longer than {limit} bytes"))
}
