//! SIGINT, SIGTERM and SIGHUP: the command says that it was interrupted, puts its things away, and ends with 3.
//!
//! Most commands end at once: they have written nothing yet. What has begun to write, or has machines and folders, says so
//! here ([`in_order`]) and then ends by itself soon after it is asked; it gets [`PATIENCE`] for that. A second signal does
//! not wait for it, and what stays behind then is swept by the next run, as after a kill.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use authorizer::interruption::Interruption;
use recipe_spec::Code;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::arguments::Format;
use crate::outcome::{Problem, say};

/// How long a command that ends in order may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Signals are the process's, and so is what they ask for.
static INTERRUPTION: LazyLock<Interruption> = LazyLock::new(Interruption::default);
static IN_ORDER: AtomicBool = AtomicBool::new(false);

/// From now on this command ends by itself when it is asked to: it writes something that must be whole, or looks at the
/// interruption itself.
pub(crate) fn in_order() -> &'static Interruption {
    IN_ORDER.store(true, Ordering::SeqCst);
    &INTERRUPTION
}

/// The signals that ask for an end, but for those that whoever started us wants ignored (`nohup`).
pub(crate) fn signals() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect()
}

/// Waits for the signals in a thread of its own, for the rest of the process's life.
pub(crate) fn watch(command: &'static str, format: Format, start: Instant) -> io::Result<()> {
    // In their order, SIGTERM last: whoever sees that one caught may send any.
    let mut signals = Signals::new(signals())?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let said = Arc::new(AtomicBool::new(false));
        let mut asked = false;
        for signal in signals.forever() {
            INTERRUPTION.ask();
            // Where the answer cannot be written because nobody reads it, one more signal ends the process at once.
            if said.load(Ordering::SeqCst) {
                std::process::exit(Code::Interrupted.exit_status().into());
            }
            let end = End { signal, command, format, start };
            let patience = if asked || !IN_ORDER.load(Ordering::SeqCst) { Duration::ZERO } else { PATIENCE };
            asked = true;
            let saying = Arc::clone(&said);
            let ending = std::thread::Builder::new().name("ending".into()).spawn(move || {
                std::thread::sleep(patience);
                saying.store(true, Ordering::SeqCst);
                end.now();
            });
            if ending.is_err() {
                end.now();
            }
        }
    })?;
    Ok(())
}

#[derive(Clone, Copy)]
struct End {
    signal: i32,
    command: &'static str,
    format: Format,
    start: Instant,
}

impl End {
    /// Ends the process, unless the command has said how it ended: then it is about to end by itself.
    fn now(self) {
        let name = signal_name(self.signal).unwrap_or("a signal");
        let text = format!("{name} ended `{}` before it was done", self.command);
        let problem = Problem::coded(Code::Interrupted, text);
        if let Some(status) = say(self.command, self.format, Err(problem), self.start.elapsed()) {
            std::process::exit(status.into());
        }
    }
}
