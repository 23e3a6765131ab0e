//! The supervisor of one instance: it checks, launches, waits until the function tests pass, asks for revocations again, and
//! holds the machine until it is asked to stop. QEMU lives exactly as long as this process.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use authorizer::events::Stage;
use authorizer::journal::Journal;
use authorizer::machines::{Machines, Original, new_hostname, run_function_tests};
use authorizer::site::Site;
use authorizer::stopped::Stopped;
use harness::{DiskSpec, Forward, Machine};
use recipe_spec::{Code, Timestamp};

use crate::check::{Deployable, Order};
use crate::handover::{Launched, StillHolds};
use crate::instance::{Held, InstanceError, Instances, Record, clear};

/// Between two rounds of tests.
const PAUSE: Duration = Duration::from_secs(2);
/// How often a running instance is looked at, and whether it was asked to stop.
const LOOK: Duration = Duration::from_millis(200);
/// An instance that does not shut down within this time is killed.
const SHUT_DOWN: Duration = Duration::from_secs(120);

impl From<InstanceError> for Stopped {
    fn from(error: InstanceError) -> Self {
        match error {
            InstanceError::Io { path, source } => Self::io("use", &path, &source),
            other => Self::internal(other),
        }
    }
}

/// Holds one instance from its check to its end. `ready` hears of it when its function tests have passed; before that the
/// journal's interruption ends it at once, after it `stop` shuts it down in order. Who asks over the instance's socket does
/// either.
///
/// # Errors
/// [`Stopped`], before `ready` was called: no machine is left then. After it, only if the machine is lost.
pub fn supervise(
    order: &Order,
    site: &Site,
    clock: &dyn Fn() -> Timestamp,
    stop: &AtomicBool,
    journal: &mut Journal<'_>,
    ready: &mut dyn FnMut(&Launched, &Journal<'_>),
) -> Result<(), Stopped> {
    let deployable = journal
        .stage(Stage::VerifyAuthorization, verified_detail, |_| Deployable::check(order, site, clock()))?;
    ports_are_free(order)?;
    let held = Instances::new(site.layout().instances()).begin(&new_hostname(&order.name)?)?;
    let run = RunFolder(held.folder().to_owned());
    let interruption = journal.interruption().clone();
    let listening = held.listen(move || interruption.ask())?;
    let machines =
        Machines::prepare(site, deployable.base(), deployable.qemu().clone(), held.folder(), journal)?;
    let mut machine = journal.stage(
        Stage::Launch,
        |_: &Machine| machines.described(),
        |journal| {
            let original = Original {
                base: deployable.base(),
                disk: DiskSpec {
                    base: deployable.base().pinned(authorizer::base::DISK_FILE),
                    layers: deployable.layers().to_vec(),
                    overlays: vec!["instance".to_owned()],
                },
                template: deployable.template(),
                manifest: deployable.recipe().manifest(),
            };
            let forwards = order.forwards.iter().map(|forward| Forward {
                host: SocketAddrV4::new(Ipv4Addr::LOCALHOST, forward.host),
                guest: forward.guest,
            });
            let interruption = journal.interruption();
            let launched = machines.instance(original, forwards.collect(), held.id(), interruption);
            // What it could not bind is free again now, unless another program has it.
            launched.map_err(|stopped| match ports_are_free(order) {
                Err(taken) if stopped.code == Code::MachineFailed => taken,
                _ if stopped.code == Code::LayerMismatch => stopped.hint("authorize the recipe again"),
                _ => stopped,
            })
        },
    )?;
    journal.stage(
        Stage::FunctionTests,
        |count| format!("{count} passed"),
        |journal| {
            let patience = Duration::from_secs(site.config().executor.boot_seconds.get().into());
            until_tests_pass(&mut machine, &deployable, patience, journal)
        },
    )?;
    let holds =
        StillHolds::check(|| machine.check_unchanged(), || deployable.ask_again(site, clock()), journal)?;
    // From now on the instance is shut down in order, and no more killed.
    journal.interruption().settle()?;
    let record = record(order, &deployable, &held, &machine, &machines, clock());
    held.running(&record)?;
    ready(&Launched::of(record, holds), journal);

    while !listening.asked_to_stop() && !stop.load(Ordering::Relaxed) {
        if machine.wait_exit(LOOK) {
            return Err(Stopped::new(Code::MachineFailed, "the machine ended by itself")
                .details(machine.console_tail()));
        }
    }
    // What an instance wrote is not kept, so it does not matter whether it shut down in time or was killed.
    let _ = machine.power_off(SHUT_DOWN);
    drop(run);
    Ok(())
}

/// Says at once what QEMU would say after a boot's worth of checks. Another program can still be faster.
fn ports_are_free(order: &Order) -> Result<(), Stopped> {
    let mut taken = Vec::new();
    for forward in &order.forwards {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, forward.host)).map_err(|error| {
            Stopped::new(
                Code::HostFailed,
                format!("port {} of the host cannot be had: {error}", forward.host),
            )
            .hint("choose another port for --forward")
        })?;
        taken.push(listener);
    }
    Ok(())
}

fn verified_detail(deployable: &Deployable) -> String {
    let clear = deployable.clear();
    format!(
        "{}, recipe CRL number {}, {} questions, not revoked",
        deployable.recipe().manifest().subject_name(),
        clear.number,
        clear.checked
    )
}

/// Runs the function tests until all pass in one round. None runs longer than what is left of the patience, whatever the recipe
/// says.
fn until_tests_pass(
    machine: &mut Machine,
    deployable: &Deployable,
    patience: Duration,
    journal: &mut Journal<'_>,
) -> Result<usize, Stopped> {
    let start = Instant::now();
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let results = run_function_tests(machine, deployable.recipe().manifest(), left, journal)?;
        let done = results.iter().all(authorizer::suite::TestResult::passed);
        let last = start.elapsed() + PAUSE >= patience;
        if done || last {
            journal.tell_tests(&results);
        }
        if done {
            return Ok(results.len());
        }
        if last {
            let failed: Vec<_> = results.iter().filter(|result| !result.passed()).collect();
            let names: Vec<_> = failed.iter().map(|result| result.name.as_str()).collect();
            let details: Vec<_> = failed.iter().flat_map(|result| result.detail.iter().cloned()).collect();
            return Err(Stopped::new(Code::TestFailed, format!("not passed: {}", names.join(", ")))
                .details(details.join("\n")));
        }
        std::thread::sleep(PAUSE);
    }
}

fn record(
    order: &Order,
    deployable: &Deployable,
    held: &Held,
    machine: &Machine,
    machines: &Machines<'_>,
    now: Timestamp,
) -> Record {
    let predicate = deployable.authorization().predicate();
    Record {
        id: held.id().to_owned(),
        name: predicate.recipe.name.clone(),
        version: predicate.recipe.version.clone(),
        authorization: deployable.authorization().digest(),
        level: predicate.level,
        forwards: order
            .forwards
            .iter()
            .map(|forward| (SocketAddrV4::new(Ipv4Addr::LOCALHOST, forward.host), forward.guest))
            .collect(),
        started_at: now,
        supervisor: std::process::id(),
        qemu: machine.pid(),
        uid: machine.uid().unwrap_or_else(|| rustix::process::geteuid().as_raw()),
        accelerator: machines.accelerator().to_string(),
    }
}

/// The machine's folder inside the instance's: gone at the end, but for the console's log.
struct RunFolder(std::path::PathBuf);

impl Drop for RunFolder {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_full_host_is_called_that() {
        let code = |kind: ErrorKind| {
            Stopped::from(InstanceError::Io { path: "/site/instances".into(), source: kind.into() }).code
        };
        assert_eq!(code(ErrorKind::StorageFull), Code::HostFull);
        assert_eq!(code(ErrorKind::PermissionDenied), Code::HostFailed);
    }
}
