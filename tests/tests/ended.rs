//! `authorize`, killed or asked to end: nothing lives on, and the next run ends with exactly one authorization.
//!
//! A few instants are tried here. `make soak` kills at every stage's event, at many random instants, and in a burst around
//! the moment of publishing (`COUNTERSIGN_KILLS`, `COUNTERSIGN_SEED`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use end_to_end::ending::{At, Ground};
use rustix::process::Signal;
use serde_json::Value;

const STARTED: &str = "stage-started";
const FINISHED: &str = "stage-finished";
const AT_ONCE: Duration = Duration::ZERO;

/// All stages of an authorization, in their order.
const STAGES: [&str; 21] = [
    "intake",
    "verify",
    "revocation",
    "scan",
    "base",
    "standing",
    "machines",
    "base-template",
    "boot",
    "apply-vo",
    "apply-site",
    "apply-again",
    "seal",
    "inspect",
    "boot-sealed",
    "security-tests",
    "function-tests",
    "look-again",
    "revocation-again",
    "countersign",
    "publish",
];

#[test]
fn a_run_that_ends_early_leaves_nothing_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut ground = Ground::make(folder.path(), "ended");

    ground.submit();
    killed(&ground, &At::Event(STARTED, "verify", AT_ONCE));
    interrupted(&ground, Signal::INT, &At::Event(FINISHED, "base", AT_ONCE));
    killed(&ground, &At::Event(STARTED, "base-template", Duration::from_millis(100)));
    interrupted(&ground, Signal::HUP, &At::Event(STARTED, "apply-vo", AT_ONCE));
    killed(&ground, &At::Event(STARTED, "seal", AT_ONCE));
    // What those left does not stop the next run, which is killed around publishing.
    killed(&ground, &At::Event(FINISHED, "countersign", Duration::from_millis(5)));
    let _ = ground.authorize().done();
    ground.one_authorization_each("after kills");
    an_authorization_that_holds_answers(&ground);
}

fn an_authorization_that_holds_answers(ground: &Ground) {
    let start = Instant::now();
    let again = ground.authorize().done();
    assert_eq!((&again.json["made"], &again.json["coldBoots"]), (&"before".into(), &0.into()));
    assert!(start.elapsed() < Duration::from_secs(20), "nothing is built");
    ground.one_authorization_each("after the same submission again");
}

fn killed(ground: &Ground, at: &At) {
    let ended = ground.start().end(Signal::KILL, at);
    assert!(!ended.too_late, "{at:?} came too late: {}", ended.stdout);
    ground.nothing_is_held(&format!("killed at {at:?}"));
}

/// Ended by a signal that can be handled: it says so, and leaves nothing for the next run to sweep.
fn interrupted(ground: &Ground, signal: Signal, at: &At) {
    let ended = ground.start().end(signal, at);
    assert_eq!(ended.status.code(), Some(3), "{at:?}: {} {}", ended.stdout, ended.stderr);
    assert!(ended.stderr.starts_with("INTERRUPTED: "), "{at:?}: {}", ended.stderr);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&json["code"], &json["result"]), (&"INTERRUPTED".into(), &"failed".into()), "{json}");
    let run = ground.site.folder.join("run");
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 0, "{at:?}: the run's folder is gone");
    assert!(ended.gone_after < Duration::from_secs(10), "{at:?}: {:?}", ended.gone_after);
    ground.nothing_is_held(&format!("interrupted at {at:?}"));
}

/// Every stage's event, random instants over a whole run, and a burst around the moment of publishing; two sites at a time.
#[test]
#[ignore = "takes about an hour: make soak"]
fn a_kill_at_any_instant_costs_one_run() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let kills = number("COUNTERSIGN_KILLS", 50);
    let seed = number("COUNTERSIGN_SEED", u64::from_le_bytes(random_bytes()));
    // So many kills, then a run to the end. More than one saves time: what a kill leaves meets the next run either way.
    let chain = number("COUNTERSIGN_CHAIN", 1);
    println!("COUNTERSIGN_SEED={seed} COUNTERSIGN_KILLS={kills} COUNTERSIGN_CHAIN={chain}");
    let folder = tempfile::tempdir().unwrap();
    let mut grounds: Vec<_> =
        ["soak-one", "soak-two"].map(|id| Ground::make(&folder.path().join(id), id)).into();
    let whole = measured(&mut grounds);
    println!("a whole run of two at a time takes {:.1} s", whole.as_secs_f64());

    let mut random = Random(seed);
    let mut instants: Vec<At> = STAGES.iter().map(|stage| At::Event(STARTED, stage, AT_ONCE)).collect();
    instants.push(At::Event(FINISHED, "publish", AT_ONCE));
    instants.extend(
        (0..kills / 5).map(|_| At::Event(FINISHED, "countersign", random.below(Duration::from_millis(50)))),
    );
    instants.extend((0..kills).map(|_| At::After(random.below(whole))));
    let (next, slowest) = (AtomicUsize::new(0), Mutex::new(Duration::ZERO));
    std::thread::scope(|scope| {
        for ground in &mut grounds {
            let (instants, next, slowest) = (&instants, &next, &slowest);
            scope.spawn(move || {
                let mut before = 0;
                while let Some(at) = instants.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if before == 0 {
                        ground.submit();
                    }
                    let (gone, published) = kill(ground, at);
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = gone.max(*slowest);
                    drop(slowest);
                    before = if published || before + 1 >= chain { 0 } else { before + 1 };
                    if before == 0 {
                        ends_with_one_authorization(ground, at);
                    }
                }
                if before > 0 {
                    ends_with_one_authorization(ground, &At::After(AT_ONCE));
                }
            });
        }
    });
    println!("{} kills; the slowest end of everything took {:?}", instants.len(), slowest.lock().unwrap());
}

/// Kills a run there; gives how long it took until nothing lived any more, and whether it may have published.
fn kill(ground: &Ground, at: &At) -> (Duration, bool) {
    let ended = ground.start().end(Signal::KILL, at);
    let how = format!("{} killed at {at:?}", site_name(&ground.site.folder));
    ground.nothing_is_held(&how);
    // A run that ended before the instant must have ended well.
    assert!(!ended.too_late || ended.status.success(), "{how}: {} {}", ended.stdout, ended.stderr);
    let note = if ended.too_late { ", which came too late" } else { "" };
    println!("{how}{note}: all gone after {:?}", ended.gone_after);
    let published = ended.too_late || matches!(at, At::Event(_, "countersign" | "publish", _));
    (ended.gone_after, published)
}

fn ends_with_one_authorization(ground: &Ground, at: &At) {
    let done = ground.authorize().done();
    let how = format!("{} after {at:?}", site_name(&ground.site.folder));
    ground.one_authorization_each(&how);
    println!("{how}: authorized {} in {:.1} s, one authorization", done.json["made"], done.seconds());
}

fn site_name(folder: &Path) -> String {
    let name = folder.parent().and_then(Path::file_name);
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// One whole run on each site at the same time; the longer of them.
fn measured(grounds: &mut [Ground]) -> Duration {
    let longest = Mutex::new(Duration::ZERO);
    std::thread::scope(|scope| {
        for ground in grounds {
            let longest = &longest;
            scope.spawn(move || {
                ground.submit();
                let start = Instant::now();
                let _ = ground.authorize().done();
                let mut longest = longest.lock().unwrap();
                *longest = start.elapsed().max(*longest);
            });
        }
    });
    longest.into_inner().unwrap()
}

fn random_bytes() -> [u8; 8] {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// SplitMix64: all that is wanted is that a printed seed gives the same instants again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        limit.mul_f64((z >> 11) as f64 / (1u64 << 53) as f64)
    }
}
