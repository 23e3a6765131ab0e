//! An interruption: somebody outside asks the work to end, and it ends as if it had failed, so that everything is put away.
//!
//! It is looked at between stages; what a stage waits for is ended by an action that the stage left here. Once the work is
//! settled, asking comes too late.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recipe_spec::Code;

use crate::stopped::Stopped;

/// How often a wait looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(20);

/// How long a job that was asked to end may take to put its things away.
const TO_END: Duration = Duration::from_secs(2);

/// Shared by those who work and who may ask them to end.
#[derive(Clone, Default)]
pub struct Interruption {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stage: Asked,
    actions: Vec<Box<dyn FnOnce() + Send>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Asked {
    #[default]
    No,
    Yes,
    TooLate,
}

impl std::fmt::Debug for Interruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interruption").field("asked", &self.asked()).finish_non_exhaustive()
    }
}

impl Interruption {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the work to end; a second time changes nothing.
    pub fn ask(&self) {
        let mut state = self.state();
        if state.stage == Asked::No {
            state.stage = Asked::Yes;
            state.actions.drain(..).for_each(|action| action());
        }
    }

    /// Whether it was asked in time.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.state().stage == Asked::Yes
    }

    /// Does this when it is asked; at once if it was.
    pub fn when_asked(&self, action: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        match state.stage {
            Asked::No => state.actions.push(Box::new(action)),
            Asked::Yes => action(),
            Asked::TooLate => {}
        }
    }

    /// The work is settled: from now on asking changes nothing.
    ///
    /// # Errors
    /// `INTERRUPTED` if it was asked before.
    pub fn settle(&self) -> Result<(), Stopped> {
        let mut state = self.state();
        match state.stage {
            Asked::Yes => Err(interrupted()),
            Asked::No | Asked::TooLate => {
                state.stage = Asked::TooLate;
                state.actions.clear();
                Ok(())
            }
        }
    }

    /// Runs what may hang in a thread of its own, which is left alone if it does not end soon after this is interrupted.
    ///
    /// # Errors
    /// `INTERRUPTED`; what the system says if it gives no thread.
    pub(crate) fn unless_asked<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (done, result) = mpsc::sync_channel(1);
        let named = std::thread::Builder::new().name("job".into());
        named.spawn(move || done.send(job())).map_err(Stopped::internal)?;
        loop {
            match result.recv_timeout(LOOK) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) if self.asked() => {
                    let _ = result.recv_timeout(TO_END);
                    return Err(interrupted());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Stopped::internal("a thread ended before its job was done"));
                }
            }
        }
    }
}

/// How interrupted work ends.
pub(crate) fn interrupted() -> Stopped {
    Stopped::new(Code::Interrupted, "ended before it was done, because that was asked")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn counted() -> (Arc<AtomicU32>, impl Fn() -> Box<dyn FnOnce() + Send>) {
        let count = Arc::new(AtomicU32::new(0));
        let shared = Arc::clone(&count);
        (count, move || {
            let shared = Arc::clone(&shared);
            Box::new(move || {
                shared.fetch_add(1, Ordering::SeqCst);
            })
        })
    }

    #[test]
    fn actions_run_once_also_those_that_come_late() {
        let interruption = Interruption::default();
        let (count, action) = counted();
        interruption.when_asked(action());
        assert!(!interruption.asked());
        interruption.ask();
        interruption.ask();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        interruption.when_asked(action());
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert_eq!(interruption.settle().unwrap_err().code, Code::Interrupted);
    }

    #[test]
    fn what_is_settled_is_not_interrupted() {
        let interruption = Interruption::default();
        let (count, action) = counted();
        interruption.when_asked(action());
        interruption.settle().unwrap();
        interruption.ask();
        interruption.when_asked(action());
        assert!(!interruption.asked());
        assert_eq!(count.load(Ordering::SeqCst), 0);
        interruption.settle().unwrap();
    }

    #[test]
    fn a_job_that_hangs_is_left_alone() {
        let interruption = Interruption::default();
        assert_eq!(interruption.unless_asked(|| 7).unwrap(), 7);
        let other = interruption.clone();
        std::thread::spawn(move || other.ask());
        let hanging = interruption.unless_asked(|| std::thread::sleep(Duration::from_secs(60)));
        assert_eq!(hanging.unwrap_err().code, Code::Interrupted);
    }
}
