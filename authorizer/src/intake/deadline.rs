//! A deadline that holds whatever libgit2 does. A silent peer keeps it in a read, and a loose object that ends too
//! early keeps it in a loop (libgit2 1.9, `git_zstream_get_output`); in neither is a callback of ours called.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// What a job can look at to learn that nobody waits for it any more.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    at: Instant,
    abandoned: Arc<AtomicBool>,
}

impl Deadline {
    /// True once the result will not be used.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.at
    }
}

/// Runs `job` in a thread of its own and waits for it until the deadline; `None` if it is not done by then. The thread
/// is not waited for: it ends with the job, or with the process.
pub(super) fn within<T: Send + 'static>(
    span: Duration,
    job: impl FnOnce(&Deadline) -> T + Send + 'static,
) -> Option<T> {
    let deadline = Deadline { at: Instant::now() + span, abandoned: Arc::default() };
    let (done, result) = mpsc::sync_channel(1);
    let seen = deadline.clone();
    std::thread::spawn(move || done.send(job(&seen)));
    let result = result.recv_timeout(span).ok();
    deadline.abandoned.store(true, Ordering::Relaxed);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_in_time_is_given_back() {
        assert_eq!(within(Duration::from_secs(20), |deadline| deadline.is_over()), Some(false));
    }

    #[test]
    fn a_job_that_hangs_is_left_behind_and_learns_it() {
        let (said, heard) = mpsc::channel();
        let hanging = within(Duration::from_millis(20), move |deadline| {
            while !deadline.is_over() {
                std::thread::yield_now();
            }
            said.send(()).unwrap();
            std::thread::sleep(Duration::from_secs(60));
        });
        assert_eq!(hanging, None);
        heard.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
