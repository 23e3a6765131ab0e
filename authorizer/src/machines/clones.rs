//! What makes a clone a machine of its own beyond what the agent gives it, and which templates this host can clone.

use std::collections::BTreeMap;
use std::time::Duration;

use guest::control::PROTOCOL;
use harness::{Exec, HarnessError, Machine, Output, Template};
use recipe_spec::{Code, RecipeName};

use super::TEST_OUTPUT;
use crate::site::Site;
use crate::stopped::Stopped;

/// Restarting the services that hold secrets may take so long.
const RENEW_TIME: Duration = Duration::from_secs(120);

/// A machine that cannot be brought to rest or woken, by what its recipe left in it, did not pass.
pub(crate) fn not_a_clone(error: HarnessError) -> Stopped {
    match &error {
        HarnessError::Agent { .. } => Stopped::new(Code::TestFailed, &error),
        _ => Stopped::from(error),
    }
}

/// `web-0123456789ab`: people read the first part, chance makes it unique. A single label (RFC 1123 §2.1).
///
/// # Errors
/// `HOST_FAILED` if the system has no randomness.
pub fn new_hostname(recipe: &RecipeName) -> Result<String, Stopped> {
    const NAME: usize = 50;
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(Stopped::internal)?;
    let name = recipe.name();
    Ok(format!("{}-{}", name.get(..NAME).unwrap_or(name), hex::encode(random)))
}

/// States of a unit that has no process (systemctl(1), `is-active`; a unit that is not there is `inactive`). In any other, such as
/// `activating`, one may hold what all clones have.
const HOLDS_NOTHING: [&str; 3] = ["inactive", "failed", "unknown"];

/// Restarts services that hold secrets of the template in memory, where they run. A unit that is not there or does not run holds
/// none, nor will one that is ending.
pub(super) fn renew(machine: &mut Machine, units: &[String]) -> Result<(), Stopped> {
    if let (Some(0), _) = systemctl(machine, &["try-restart"], units)? {
        return Ok(());
    }
    // It fails as well where one of them is not there.
    let (_, states) = systemctl(machine, &["is-active"], units)?;
    let lines: Vec<&str> = states.lines().collect();
    if lines.len() != units.len() {
        return Err(not_renewed(&states));
    }
    let running: Vec<String> = units
        .iter()
        .zip(lines)
        .filter(|(_, state)| !HOLDS_NOTHING.contains(state))
        .map(|(unit, _)| unit.clone())
        .collect();
    if running.is_empty() {
        return Ok(());
    }
    match systemctl(machine, &["restart"], &running)? {
        (Some(0), _) => Ok(()),
        (_, said) => Err(not_renewed(&said)),
    }
}

fn not_renewed(said: &str) -> Stopped {
    let message = "a service that holds secrets in memory could not be restarted in a clone";
    Stopped::new(Code::TestFailed, message).details(said).hint(
        "`renew` below `[instance]` in the recipe and below `[clones]` in site.toml names these services",
    )
}

/// Exit status and both streams.
fn systemctl(
    machine: &mut Machine,
    verb: &[&str],
    units: &[String],
) -> Result<(Option<i32>, String), Stopped> {
    let words = ["systemctl"].iter().chain(verb).chain(&["--"]).map(|word| (*word).to_owned());
    let exec = Exec {
        argv: words.chain(units.iter().cloned()).collect(),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_ms: u64::try_from(RENEW_TIME.as_millis()).unwrap_or(u64::MAX),
        output_limit: TEST_OUTPUT,
    };
    let mut said = Vec::new();
    let exited = machine.exec(exec, &mut |output| {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = output;
        said.extend_from_slice(bytes);
    })?;
    Ok((exited.status, String::from_utf8_lossy(&said).into_owned()))
}

/// Why this host would not clone a template that was once kept here, if so.
#[must_use]
pub fn outdated(template: &Template, qemu_version: &str, site: &Site) -> Option<String> {
    let shape = &template.record().shape;
    let memory = site.config().executor.memory_mib.get();
    if shape.qemu != qemu_version {
        return Some(format!("its template was made by QEMU {}, this host has {qemu_version}", shape.qemu));
    }
    if shape.protocol != PROTOCOL {
        return Some("its template's agent speaks the protocol of another version".to_owned());
    }
    (shape.memory_mib != memory)
        .then(|| format!("its template has {} MiB of memory, site.toml says {memory}", shape.memory_mib))
}
