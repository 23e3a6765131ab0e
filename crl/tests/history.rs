//! Histories of lists against the memory of what was seen: random ones against a simple model, and concurrent ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod site;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crl::{CrlError, Mark, Reason, RecipeCrl, Scope, Seen, Status, issue, issue_correction};
use proptest::prelude::*;
use recipe_spec::code::Code;
use site::{ISSUER, Site, WEEK, at, recipe};

/// Lists of the honest chain; list `n` is issued `n` hours after the first.
const LENGTH: i64 = 8;
const HOUR: i64 = 3600;

struct Lists {
    /// Numbers 1 to 8.
    chain: Vec<RecipeCrl>,
    /// `forks[n]` has the number of `chain[n]`, the same predecessor, and other entries.
    forks: Vec<RecipeCrl>,
}

/// Signed once: what varies in a history is the order.
fn lists() -> &'static Lists {
    static LISTS: OnceLock<Lists> = OnceLock::new();
    LISTS.get_or_init(|| {
        let site = Site::new();
        let after = |previous: Option<&RecipeCrl>, revoked: u32, hour: i64| {
            let add = [(recipe(revoked), Reason::Superseded, at(0))];
            let now = at(hour * HOUR);
            let previous = previous.map(RecipeCrl::authentic);
            let (header, body) =
                issue(previous, &add, ISSUER, Scope::Site, now.plus_seconds(WEEK), &site.issuer, now)
                    .unwrap();
            RecipeCrl::verify(&header, body, &site.pins, now).unwrap()
        };
        let (mut chain, mut forks) = (Vec::<RecipeCrl>::new(), Vec::new());
        for hour in 0..LENGTH {
            let revoked = hour as u32;
            forks.push(after(chain.last(), revoked + 1000, hour));
            chain.push(after(chain.last(), revoked, hour));
        }
        Lists { chain, forks }
    })
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A list is offered at an hour; `honest` says of which branch.
    Offer { index: usize, honest: bool, hour: i64 },
    /// The process ends and starts again.
    Restart,
    /// The process was killed while it wrote: an unfinished file lies beside the state.
    Killed,
}

fn event() -> impl Strategy<Value = Event> {
    let length = LENGTH as usize;
    prop_oneof![
        12 => (0..length, prop::bool::weighted(0.8), -1..LENGTH + 2)
            .prop_map(|(index, honest, hour)| Event::Offer { index, honest, hour }),
        1 => Just(Event::Restart),
        1 => Just(Event::Killed),
    ]
}

/// What [`Seen`] must do, in the words of the issue, over (index, honest) instead of numbers and digests.
fn expected(seen: Option<(usize, bool)>, index: usize, honest: bool, hour: i64) -> Result<(), Code> {
    let Some((last, last_honest)) = seen else { return Ok(()) };
    if hour < last as i64 {
        Err(Code::ClockBackward)
    } else if index < last {
        Err(Code::CrlRollback)
    } else if index == last && honest != last_honest {
        Err(Code::CrlEquivocation)
    } else if index == last + 1 && !last_honest {
        // Every list of either branch names an honest one as its predecessor.
        Err(Code::CrlFork)
    } else {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_history_goes_as_the_model_says(events in prop::collection::vec(event(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Seen::open(folder.path()).unwrap();
        let mut model = None;
        for event in events {
            match event {
                Event::Offer { index, honest, hour } => {
                    let list = if honest { &lists().chain[index] } else { &lists().forks[index] };
                    let verdict = seen.admit(list, at(hour * HOUR)).map_err(|error| error.code());
                    prop_assert_eq!(&verdict, &expected(model, index, honest, hour));
                    if verdict.is_ok() {
                        model = Some((index, honest));
                    }
                }
                Event::Restart => seen = Seen::open(folder.path()).unwrap(),
                Event::Killed => std::fs::write(folder.path().join("crl-seen.new"), b"half a sta").unwrap(),
            }
            let highest = seen.mark().unwrap().map(|mark| mark.number);
            prop_assert_eq!(highest, model.map(|(index, _)| index as u64 + 1));
        }
    }
}

#[test]
fn a_chain_is_admitted_in_order_and_every_step_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::open(folder.path()).unwrap();
    let chain = &lists().chain;
    let now = at(LENGTH * HOUR);
    for (index, list) in chain.iter().enumerate() {
        seen.admit(list, now).unwrap();
        seen.admit(list, now).unwrap();
        for older in &chain[..index] {
            assert_eq!(seen.admit(older, now).unwrap_err().code(), Code::CrlRollback);
        }
    }
}

#[test]
fn each_refusal_names_both_lists() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::open(folder.path()).unwrap();
    let Lists { chain, forks } = lists();
    let now = at(LENGTH * HOUR);
    seen.admit(&forks[3], now).unwrap();
    let fork = seen.admit(&chain[4], now).unwrap_err();
    assert!(
        matches!(&fork, CrlError::Fork { seen, found, .. } if seen.number == 4 && found.number == 5),
        "{fork}"
    );
    let two = seen.admit(&chain[3], now).unwrap_err();
    assert!(matches!(&two, CrlError::Equivocation { seen, found } if seen.header != found.header), "{two}");
    let old = seen.admit(&chain[0], now).unwrap_err().to_string();
    assert!(old.contains("number 1 ") && old.contains("number 4 "), "{old}");
}

#[test]
fn a_clock_that_ran_ahead_locks_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::open(folder.path()).unwrap();
    // The clock says six days later, then is set right: only the list's own time was kept.
    seen.admit(&lists().chain[0], at(6 * 24 * HOUR)).unwrap();
    seen.admit(&lists().chain[0], at(0)).unwrap();
    seen.check_clock(at(-crl::FUTURE_TOLERANCE_SECONDS)).unwrap();
    let day_back = seen.check_clock(at(-24 * HOUR)).unwrap_err();
    assert_eq!(day_back.code(), Code::ClockBackward);
}

/// An issuer's clock was a year ahead for one list: the next one, dated rightly, is admitted by whoever saw it, and
/// nothing else is.
#[test]
fn an_issuers_clock_that_was_ahead_is_corrected_by_its_next_list() {
    const YEAR: i64 = 365 * 24 * HOUR;
    let site = Site::new();
    let list = |(header, body): (Vec<u8>, Vec<u8>), now| RecipeCrl::verify(&header, body, &site.pins, now);
    let add = |n| [(recipe(n), Reason::Superseded, at(YEAR / 2))];
    let first =
        list(issue(None, &[], ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap(), at(0)).unwrap();
    let ahead_of = |previous: &RecipeCrl, n| {
        let previous = Some(previous.authentic());
        let until = at(YEAR / 2 + WEEK);
        issue(previous, &add(n), ISSUER, Scope::Site, until, &site.issuer, at(YEAR / 2)).unwrap()
    };
    let ahead = list(ahead_of(&first, 1), at(YEAR / 2)).unwrap();
    let other = list(ahead_of(&first, 2), at(YEAR / 2)).unwrap();
    let right = |previous: &RecipeCrl, seconds| {
        let (now, until) = (at(seconds), at(seconds + WEEK));
        list(issue_correction(previous.authentic(), until, &site.issuer, now).unwrap(), now).unwrap()
    };
    let corrected = right(&ahead, HOUR);
    assert_eq!((corrected.number(), corrected.authentic().body().len()), (3, 1), "nothing is lost");
    assert!(
        matches!(corrected.status(&recipe(1)), Status::Revoked { date, .. } if date == at(HOUR)),
        "and nothing is revoked after the list"
    );
    let fourth = right(&corrected, 2 * HOUR);

    let folder = tempfile::tempdir().unwrap();
    let code = |seen: &Seen, list: &RecipeCrl, seconds| seen.admit(list, at(seconds)).map_err(|e| e.code());
    for later in [&corrected, &fourth] {
        let seen = Seen::open(folder.path().join(later.number().to_string())).unwrap();
        seen.admit(&ahead, at(YEAR / 2)).unwrap();
        for list in [&first, &ahead, &other] {
            assert_eq!(code(&seen, list, 3 * HOUR), Err(Code::ClockBackward), "{}", list.number());
        }
        assert_eq!(code(&seen, &right(&other, HOUR), 3 * HOUR), Err(Code::CrlFork), "of another chain");
        assert_eq!(code(&seen, later, -HOUR), Err(Code::ClockBackward), "dated after this clock too");
        assert_eq!(code(&seen, later, 3 * HOUR), Ok(()));
        assert_eq!(code(&seen, later, 3 * HOUR), Ok(()));
        assert_eq!(code(&seen, &ahead, 3 * HOUR), Err(Code::CrlRollback), "there is no way back");
    }
    // A reader whose clock has reached the date meanwhile takes the next list too.
    let seen = Seen::open(folder.path().join("late")).unwrap();
    seen.admit(&ahead, at(YEAR / 2)).unwrap();
    assert_eq!(code(&seen, &corrected, YEAR / 2), Ok(()));
    assert_eq!(seen.mark().unwrap().unwrap().number, 3);
}

#[test]
fn threads_together_never_lower_it() {
    const THREADS: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let chain = &lists().chain;
    let now = at(LENGTH * HOUR);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let seen = Seen::open(folder.path()).unwrap();
            let (mut highest, mut looks) = (0, 0u32);
            while !done.load(Ordering::Relaxed) || looks == 0 {
                let number = seen.mark().unwrap().map_or(0, |mark: Mark| mark.number);
                assert!(number >= highest, "{number} after {highest}");
                (highest, looks) = (number, looks + 1);
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let folder = folder.path();
                scope.spawn(move || {
                    let seen = Seen::open(folder).unwrap();
                    for round in 0..chain.len() {
                        // Each thread walks the lists in another order.
                        let list = &chain[(round * (2 * (thread % 2) + 3) + thread) % chain.len()];
                        match seen.admit(list, now) {
                            Ok(()) => {
                                assert!(seen.mark().unwrap().is_some_and(|mark| mark.number >= list.number()))
                            }
                            Err(error) => assert_eq!(error.code(), Code::CrlRollback, "{error}"),
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    let mark = Seen::open(folder.path()).unwrap().mark().unwrap().unwrap();
    assert_eq!(mark, chain.last().unwrap().mark());
}

#[test]
fn an_authorization_asks_for_the_number_it_was_made_under() {
    let list = &lists().chain[4];
    list.require_number(5).unwrap();
    assert_eq!(list.require_number(6).unwrap_err().code(), Code::CrlRollback);
}
