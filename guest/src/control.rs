//! The control port: the host asks, the agent answers, one request at a time.
//!
//! ```text
//! agent: HELLO {protocol, agent, mode, bootId}              once, when the port opens
//! host:  REQUEST id {…}  [DATA id bytes]* [END id]          DATA and END only for `writeFile`
//! agent: [STDOUT|STDERR|DATA id bytes]*  RESPONSE id {…}    RESPONSE ends the exchange
//! ```
//!
//! A machine can be brought to rest ([`Request::Rest`]), saved, and cloned. Each clone goes on in the middle of the same
//! conversation: its first request is [`Request::Wake`], and until that is answered with [`Response::Done`] nothing runs in it but
//! the agent. There is no second hello.
//!
//! A frame with another id than the open request's, or an answer to a question not asked, is a breach
//! of protocol: the host drops the machine.

use std::collections::BTreeMap;

use recipe_spec::manifest::StepKind;
use serde::{Deserialize, Serialize};

/// Name of the control port: `/sys/class/virtio-ports/*/name` in the guest.
pub const PORT: &str = "org.countersign.control";
/// Where a nano guest mounts the disk that it looks at.
pub const DISK_MOUNT: &str = "/disk";
/// The version of this protocol; both sides must have the same.
pub const PROTOCOL: u32 = 3;

/// Length of the seed of an [`Identity`], in bytes.
pub const SEED_BYTES: usize = 64;

/// Longest message of an [`AgentError`], in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024;

/// First frame of the agent: [`Hello`] as JSON, id 0.
pub const HELLO: u8 = 1;
/// A [`Request`] as JSON.
pub const REQUEST: u8 = 2;
/// A [`Response`] as JSON; ends the exchange.
pub const RESPONSE: u8 = 3;
/// Bytes that a command wrote to its standard output.
pub const STDOUT: u8 = 4;
/// Bytes that a command wrote to its standard error.
pub const STDERR: u8 = 5;
/// Content of a file (either way) or of a large answer (agent to host).
pub const DATA: u8 = 6;
/// End of the content that the host sends with `writeFile`.
pub const END: u8 = 7;

/// What kind of guest the agent finds itself in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Started from the base's initramfs; the root file system is the machine's disk.
    Disk,
    /// The agent is `/init` and runs nothing of a disk: a nano guest.
    Nano,
}

/// The agent's first word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hello {
    /// Must equal [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the agent.
    pub agent: String,
    /// Nano or disk.
    pub mode: Mode,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// What the host asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Answers [`Response::Pong`].
    Ping,
    /// Runs a command as root in a session of its own; its whole process group is killed at the time limit.
    Exec(Exec),
    /// Writes a file atomically (temporary name, fsync, rename); content follows as `DATA` frames, then `END`.
    /// Missing parent folders are made (0755). Answers [`Response::Written`].
    WriteFile {
        /// Absolute path.
        path: String,
        /// Permission bits, for example `0o644`.
        mode: u32,
        /// Content length in bytes.
        size: u64,
        /// SHA-256 of the content, lower-case hex; a difference is an error and leaves no file.
        sha256: String,
    },
    /// Sends a regular file as `DATA` frames, then [`Response::Sent`].
    ReadFile {
        /// Absolute path; links are not followed in the last component.
        path: String,
        /// The largest size in bytes that is sent; a longer file is an error.
        limit: u64,
    },
    /// Brings one step of a recipe about. Output of the tools it calls is streamed. Answers [`Response::Applied`].
    Apply {
        /// The step as the manifest has it.
        step: StepKind,
        /// Folder in the guest where the recipe's payload was written; a `download` step's content lies in it as
        /// `.download/<sha256>`.
        payload: String,
        /// True if the relay is open and programs may use it as their proxy.
        relay: bool,
        /// Time limit in milliseconds for the whole step.
        timeout_ms: u64,
    },
    /// Looks at the machine from the static agent, never through the guest's own programs. The [`crate::facts`]
    /// are sent as JSON in `DATA` frames, then [`Response::Sent`].
    Facts,
    /// Mounts the machine's disk read-only and looks at it as at a tree of files, of which nothing runs. Answered as
    /// [`Request::Facts`]; only what the disk tells is filled in. Only in a nano guest.
    DiskFacts,
    /// Opens (binds 127.0.0.1:3128 and carries connections) or closes the relay. Answers [`Response::Done`].
    Relay {
        /// Open or close.
        open: bool,
    },
    /// Flushes and freezes the root file system (`FIFREEZE`). Until [`Request::Thaw`], nothing else that writes may be asked.
    Freeze,
    /// Undoes [`Request::Freeze`].
    Thaw,
    /// Flushes all file systems.
    Sync,
    /// Brings the machine to rest, so that it can be paused, saved and cloned: every process but the agent is frozen, all
    /// file systems are flushed, and the root's is frozen (`FIFREEZE`), so that nothing waits in its journal and its disk can be read
    /// from outside. Answers [`Response::Done`]; until [`Request::Wake`], nothing else may be asked. The relay must be
    /// closed. May take more than 30 seconds; on an error nothing stays frozen.
    Rest,
    /// The first question to a clone of a machine at rest: makes it a machine of its own, then lets its processes go on.
    /// Answers [`Response::Done`]. Only a machine at rest can be woken; on an error it stays at rest, with its
    /// processes frozen, unless thawing them was what failed.
    Wake(Identity),
    /// Starts an orderly power-off and answers [`Response::Done`] first.
    PowerOff,
}

/// What makes a clone a machine of its own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// [`SEED_BYTES`] fresh random bytes of the host, base64: credited to the kernel's generator, which is then reseeded.
    pub seed: String,
    /// Nanoseconds since 1970-01-01 UTC, for the clock. A time after the year 2232, which the kernel does not take, is
    /// an error.
    pub unix_time_ns: u64,
    /// What names it to others; none in a nano guest, where nobody asks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub names: Option<Names>,
}

impl std::fmt::Debug for Identity {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed: _, unix_time_ns, names } = self;
        f.debug_struct("Identity")
            .field("unix_time_ns", unix_time_ns)
            .field("names", names)
            .finish_non_exhaustive()
    }
}

/// What names a machine to others.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Names {
    /// 32 lower-case hexadecimal digits, not all 0, for `/etc/machine-id` (machine-id(5)).
    pub machine_id: String,
    /// For the kernel and `/etc/hostname`; a single label of at most 63 letters, digits and hyphens (RFC 1123 §2.1).
    pub hostname: String,
    /// Address of the network card `eth0`, `xx:xx:xx:xx:xx:xx` in lower case, of one station; absent if there is no card.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<String>,
    /// The only SSH host key it shall have, Ed25519: secret. Without a folder `/etc/ssh` it is not written.
    pub host_key: HostKey,
}

impl std::fmt::Debug for Names {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { machine_id, hostname, mac, host_key } = self;
        f.debug_struct("Names")
            .field("machine_id", machine_id)
            .field("hostname", hostname)
            .field("mac", mac)
            .field("host_key", &host_key.public)
            .finish()
    }
}

/// An SSH host key, as `ssh-keygen` writes it; each file ends with a line end and has at most 4 KiB.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostKey {
    /// Content of `ssh_host_ed25519_key`, in the form `OPENSSH PRIVATE KEY`.
    pub private: String,
    /// Content of `ssh_host_ed25519_key.pub`: one line.
    pub public: String,
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exec {
    /// Program (absolute, or looked up in the agent's fixed PATH) and arguments.
    pub argv: Vec<String>,
    /// Added to the agent's minimal environment (`PATH`, `HOME`, `LANG=C.UTF-8`).
    pub env: BTreeMap<String, String>,
    /// Working directory; `/` if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cwd: Option<String>,
    /// User to run as (from the guest's `/etc/passwd`); root if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// Time limit in milliseconds.
    pub timeout_ms: u64,
    /// At most this many bytes of output (both streams together) are sent; the rest is read and dropped.
    pub output_limit: u64,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Response {
    /// To `ping`.
    Pong,
    /// To what has no other answer.
    Done,
    /// To `exec`.
    Exited(Exited),
    /// To `writeFile`: whether the file differed in content or mode.
    Written {
        /// False if it was already so.
        changed: bool,
    },
    /// To `readFile`, `facts` and `diskFacts`: the content is complete.
    Sent {
        /// Bytes sent.
        size: u64,
        /// SHA-256 of what was sent, lower-case hex.
        sha256: String,
    },
    /// To `apply`.
    Applied {
        /// Changed or unchanged.
        outcome: StepOutcome,
    },
    /// The request failed; the machine is as it was, or as far as the step came.
    Error(AgentError),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exited {
    /// Exit status, if it exited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<i32>,
    /// Signal, if one ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<i32>,
    /// The time limit was reached and the process group was killed.
    pub timed_out: bool,
    /// Output was dropped beyond the limit.
    pub truncated: bool,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepOutcome {
    /// The machine was changed to be as the step says.
    Changed,
    /// The machine already was as the step says.
    Unchanged,
}

/// A request that failed in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[error("{message}")]
pub struct AgentError {
    /// What kind of failure.
    pub kind: AgentErrorKind,
    /// For a person; lower case, no full stop; at most [`MAX_MESSAGE`] bytes. Hostile text: shown escaped and cut.
    pub message: String,
}

/// Kinds of failure in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AgentErrorKind {
    /// The request made no sense to the agent.
    BadRequest,
    /// The operating system refused.
    System,
    /// A tool that the step needs is not in the guest.
    ToolMissing,
    /// A tool or script ended with a failure.
    ToolFailed,
    /// The time limit was reached.
    TimedOut,
    /// A limit on size was reached.
    TooLarge,
}
