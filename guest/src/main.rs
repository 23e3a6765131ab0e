//! The agent: one static program inside every guest, root, alone with the control port.
//!
//! One idea: it is placed before any byte of the disk runs, keeps its ports for ever, and does what the
//! host asks with its own system calls wherever it can, so that what it sees does not pass through the
//! guest's programs. The modes are named by its first argument:
//!
//! ```text
//! /init                       pid 1 of a nano guest
//! countersign-agent disk ROOT       from the initramfs: place the agent in ROOT, then return to the boot
//! countersign-agent stdio           control protocol on standard input and output, for trials without a machine
//! ```
//!
//! Two further modes are its own children: `serve-disk`, `serve-nano`, and `child` (see [`agent::child`]).

mod agent;

use std::process::ExitCode;

use agent::{child, kmsg, nano, placement, serve};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let ended = if rustix::process::getpid().is_init() {
        nano::run_as_init()
    } else {
        match words.as_slice() {
            ["disk", root] => placement::place(root),
            ["serve-disk", root] => placement::serve_disk(root),
            ["serve-nano"] => nano::serve_nano(),
            ["stdio"] => serve::serve_stdio(),
            ["child", ..] => child::run(&arguments[1..]),
            _ => Err("usage: countersign-agent disk ROOT | stdio".into()),
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            kmsg::say(&format!("stopped: {error}"));
            ExitCode::FAILURE
        }
    }
}
