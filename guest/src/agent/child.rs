//! `child UID GID GROUPS CWD -- PROGRAM ARGV0 [ARG]…`: the agent's own step between fork and exec.
//!
//! The standard library offers no safe way to begin a session or set supplementary groups in a child, so the agent
//! starts itself once more, does both in a process that is already apart, and becomes the command.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Gid, Uid, setsid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::failure::Fatal;

/// Exit status when the command could not be started, as shells have it.
const NOT_STARTED: i32 = 126;

/// Whom a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

impl Identity {
    /// Root, with no supplementary group.
    pub(crate) fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new(), home: "/root".to_owned() }
    }

    /// The first words of a `child` command line.
    pub(crate) fn arguments(&self) -> [String; 3] {
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        [self.uid.to_string(), self.gid.to_string(), groups.join(",")]
    }
}

/// Becomes the command. Its standard error is the command's, so a failure is said there.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), Fatal> {
    let error = match become_command(arguments) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // The parent reads this as the command's own words; if it is gone, nobody listens.
    let _unheard = writeln!(std::io::stderr(), "countersign-agent: could not start the command: {error}");
    std::process::exit(NOT_STARTED)
}

fn become_command(arguments: &[OsString]) -> Result<std::convert::Infallible, Fatal> {
    let [uid, gid, groups, cwd, dashes, program, name, rest @ ..] = arguments else {
        return Err("the command line of `child` is incomplete".into());
    };
    let word = |word: &OsString| word.clone().into_string().map_err(|_| "a number is not text");
    let (uid, gid): (u32, u32) = (word(uid)?.parse()?, word(gid)?.parse()?);
    let groups = word(groups)?
        .split(',')
        .filter(|group| !group.is_empty())
        .map(|group| group.parse().map(Gid::from_raw))
        .collect::<Result<Vec<_>, _>>()?;
    if dashes != "--" {
        return Err("the command line of `child` lacks `--`".into());
    }
    setsid()?;
    // The agent itself is spared when memory runs out, and goes before others; what it starts must not. Without /proc, or
    // without root, there is nothing to undo.
    let _without_proc = fs::write("/proc/self/oom_score_adj", "0");
    let _without_root = rustix::process::setpriority_process(None, 0);
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    } else if uid != rustix::process::geteuid().as_raw() && uid != 0 {
        return Err("only root can run a command as another user".into());
    }
    std::env::set_current_dir(cwd)?;
    Err(Command::new(program).arg0(name).args(rest).exec().into())
}
