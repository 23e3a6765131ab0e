//! SIGINT and SIGTERM: the command says that it was interrupted and ends with 3.
//!
//! Nothing has to be cleaned up here: machines die with this process, files are renamed when they are whole, and
//! what a kill leaves is swept by the next start.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use recipe_spec::Code;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::arguments::Format;
use crate::outcome::{Problem, say};

/// Waits for the signals in a thread of its own, for the rest of the process's life.
pub(crate) fn watch(command: &'static str, format: Format, start: Instant) -> io::Result<()> {
    let once = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Where the answer cannot be written because nobody reads it, a second signal ends the process at once.
        let status = i32::from(Code::Interrupted.exit_status());
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&once))?;
        signal_hook::flag::register(signal, Arc::clone(&once))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
            let problem =
                Problem::coded(Code::Interrupted, format!("{name} ended `{command}` before it was done"));
            if let Some(status) = say(command, format, Err(problem), start.elapsed()) {
                std::process::exit(status.into());
            }
        }
    })?;
    Ok(())
}
