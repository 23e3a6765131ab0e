//! Guests that are hostile from the inside: what each ends with, and that nothing of it is left on the host.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use harness::initramfs::Archive;
use harness::{Exec, Initrd, Machine, MachineLimits, MachineSpec, Qemu, RelayLimits, RelayPolicy, RelaySpec};
use recipe_spec::Code;

use crate::base::{BOOT, PROBE, base, boot, booting, nano, pinned, probe, probe_exec, probe_program};
use crate::remains::{Watched, alone};

/// Time for what a guest under software emulation does in a moment.
const MOMENT: Duration = Duration::from_secs(5);

fn step(text: &str) -> recipe_spec::manifest::StepKind {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_guest_that_shouts_fills_its_disk_and_forks_without_end_is_borne() {
    const LOG: u64 = 64 << 10;
    let folder = tempfile::tempdir().unwrap();
    let spec = alone(nano("noisy", folder.path()), 0);
    let limits = MachineLimits { console_log_bytes: LOG, ..spec.limits.clone() };
    let mut machine = boot(MachineSpec { limits, ..spec.clone() });
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();

    // The console: its log is full, and the agent still answers.
    let (exited, said) = probe(&mut machine, &["later", "0", "shout", "/dev/console", "10"]);
    assert_eq!(exited.status, Some(0), "{said}");
    let start = Instant::now();
    let size = || std::fs::metadata(folder.path().join("noisy/console.log")).unwrap().len();
    while size() < LOG {
        assert!(start.elapsed() < BOOT, "{} bytes", size());
        machine.ping().unwrap();
    }
    machine.ping().unwrap();
    assert_eq!(size(), LOG);

    // The disk (here a tmpfs): the step fails as the tool says, and the agent still answers.
    let (exited, said) = probe(&mut machine, &["fill", "/tmp/fill", "1000"]);
    assert!(exited.status == Some(1) && said.contains("No space left"), "{said}");
    let file = step(&format!(r#"{{"file":{{"path":"/tmp/x","content":"{}"}}}}"#, "x".repeat(50_000)));
    let error = machine.apply(&file, "/run/payload", BOOT, &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::ApplyFailed);
    assert!(error.to_string().contains("No space left"), "{error}");
    machine.ping().unwrap();
    machine.write_file("/tmp/fill", 0o600, b"").unwrap();

    // Processes without end: the time limit ends the command, or the agent is too slow to say so; the host waits no longer.
    let bomb = Exec { timeout_ms: 2000, ..probe_exec(&["fork"]) };
    let start = Instant::now();
    let ended = machine.exec(bomb, &mut |_| {});
    println!("fork bomb after {:.1} s: {ended:?}", start.elapsed().as_secs_f64());
    match ended {
        Ok(exited) => {
            assert!(exited.timed_out, "{exited:?}");
            machine.ping().unwrap();
        }
        Err(error) => assert_eq!(error.code(), Code::ControlLost, "{error}"),
    }
    assert!(start.elapsed() < 6 * MOMENT);
    drop(machine);
    watched.nothing_is_left();
}

/// Stops the agent behind its back.
fn silence(machine: &mut Machine) {
    let (_, agent) = probe(machine, &["agent"]);
    probe(machine, &["later", "300", "stop", &agent]);
    let start = Instant::now();
    while !machine.console_tail().contains("stopped") {
        assert!(start.elapsed() < BOOT);
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guest_that_goes_silent_after_a_step_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let spec = alone(nano("silent", folder.path()), 9);
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();
    silence(&mut machine);
    let start = Instant::now();
    let error = machine.power_off(Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.code(), Code::ControlLost, "{error}");
    assert!(error.to_string().contains("said nothing"), "{error}");
    assert!(start.elapsed() < 4 * MOMENT);
    watched.nothing_is_left();
}

#[test]
fn who_takes_the_agents_control_port_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let spec = alone(nano("thief", folder.path()), 1);
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();
    machine.write_file(PROBE, 0o755, &probe_program()).unwrap();
    // The agent's second answer is to this command: the thief's frames are good ones, in its name, without end.
    let take = Exec { timeout_ms: 20_000, ..probe_exec(&["take", "control", "4:2:60000"]) };
    let mut heard = 0;
    let error = machine
        .exec(take, &mut |output| {
            let (harness::Output::Stdout(bytes) | harness::Output::Stderr(bytes)) = output;
            heard += bytes.len();
        })
        .unwrap_err();
    assert_eq!(error.code(), Code::ControlLost, "{error}");
    assert!(error.to_string().contains("more output than was asked for"), "{error}");
    assert!(heard > 500_000 && heard <= 1 << 20, "{heard}");
    // Whatever it says from now on answers nothing.
    assert_eq!(machine.ping().unwrap_err().code(), Code::ControlLost);
    drop(machine);
    watched.nothing_is_left();
}

#[test]
fn who_floods_the_relay_port_loses_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let relay = RelaySpec {
        policy: RelayPolicy { origins: Vec::new() },
        limits: RelayLimits::STANDARD,
        events: Arc::new(|_| {}),
    };
    let spec = MachineSpec { relay: Some(relay), ..alone(nano("relay-thief", folder.path()), 2) };
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.open_relay().unwrap();
    machine.recipe_begins();
    machine.write_file(PROBE, 0o755, &probe_program()).unwrap();
    // One stream, heads without end to it, more than its credit.
    let take = Exec { timeout_ms: 3000, ..probe_exec(&["take", "relay", "1:1:0", "2:1:200000"]) };
    // On a busy host the first time may be over before it has begun.
    let error = (0..10).find_map(|_| machine.exec(take.clone(), &mut |_| {}).err()).unwrap();
    assert_eq!(error.code(), Code::ControlLost, "{error}");
    assert!(error.to_string().contains("broke the relay's protocol"), "{error}");
    drop(machine);
    watched.nothing_is_left();
}

/// A nano guest that has the probe in its initramfs, and starts it instead of the agent.
fn probe_as_init(name: &str, folder: &Path, number: u32, word: &str) -> MachineSpec {
    let mut archive = Archive::default();
    archive.file("probe", 0o755, &probe_program());
    let mut cpio = std::fs::read(base().join("nano.cpio")).unwrap();
    cpio.resize(cpio.len().next_multiple_of(4), 0);
    cpio.extend_from_slice(&archive.finish());
    let path = folder.join(format!("{name}.cpio"));
    std::fs::write(&path, cpio).unwrap();
    let command_line = format!("rdinit=/probe console=ttyS0 panic=-1 quiet -- {word}");
    booting(alone(nano(name, folder), number), |boot| {
        boot.initrd = Initrd::Nano(pinned(&path));
        boot.command_line = command_line;
    })
}

#[test]
fn a_guest_that_goes_down_while_it_boots_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (word, reason)) in
        [("off", "ended by itself"), ("reboot", "ended by itself"), ("panic", "ended by itself")]
            .into_iter()
            .enumerate()
    {
        let spec = probe_as_init(&format!("boot-{word}"), folder.path(), 3 + number as u32, word);
        let mut machine = Machine::spawn(&Qemu::find().unwrap(), spec.clone()).unwrap();
        let watched = Watched::of(&machine, &spec);
        let error = machine.wait_hello(BOOT).unwrap_err();
        assert_eq!(error.code(), Code::MachineFailed, "{word}: {error}");
        assert!(error.to_string().contains(reason), "{word}: {error}");
        drop(machine);
        watched.nothing_is_left();
    }
}

#[test]
fn a_guest_that_reboots_in_a_step_or_instead_of_being_sealed_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let spec = alone(nano("reboot", folder.path()), 6);
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();
    machine.write_file(PROBE, 0o755, &probe_program()).unwrap();
    let error = machine.exec(probe_exec(&["reboot"]), &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::ControlLost, "{error}");
    drop(machine);
    watched.nothing_is_left();

    let spec = alone(nano("reboot-late", folder.path()), 7);
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();
    probe(&mut machine, &["later", "8000", "reboot"]);
    silence(&mut machine);
    let error = machine.power_off(BOOT).unwrap_err();
    assert_eq!(error.code(), Code::ControlLost, "{error}");
    assert!(error.to_string().contains("ended by itself during power off"), "{error}");
    watched.nothing_is_left();
}

#[test]
fn a_guest_that_does_not_go_when_it_should_is_lost_and_not_a_qemu_that_died() {
    let folder = tempfile::tempdir().unwrap();
    let spec = alone(nano("stays", folder.path()), 8);
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();
    // As if it did all but the last: QEMU stays when the guest is off.
    machine.qmp("set-action", serde_json::json!({"shutdown": "pause"})).unwrap();
    let error = machine.power_off(MOMENT).unwrap_err();
    assert_eq!(error.code(), Code::ControlLost, "{error}");
    assert!(error.to_string().contains("time limit of 5.0 s during power off"), "{error}");
    watched.nothing_is_left();
}
