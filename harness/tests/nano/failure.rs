//! Machines that fail, and what is said of them.

use std::time::{Duration, Instant};

use harness::{DiskSpec, HarnessError, Initrd, Machine, MachineLimits, MachineSpec, Qemu};
use recipe_spec::Code;

use crate::base::{BOOT, base, boot, booting, nano, pinned, probe, probe_exec};

#[test]
fn a_guest_whose_kernel_panics_fails_quickly_and_shows_its_console() {
    let folder = tempfile::tempdir().unwrap();
    let command_line = "rdinit=/nothing root=/dev/none console=ttyS0 panic=-1".into();
    let spec = booting(nano("panic", folder.path()), |boot| boot.command_line = command_line);
    let mut machine = Machine::spawn(&Qemu::find().unwrap(), spec).unwrap();
    let start = Instant::now();
    let error = machine.wait_hello(BOOT).unwrap_err();
    assert!(start.elapsed() < BOOT / 2);
    assert_eq!(error.code(), Code::MachineFailed);
    assert!(error.to_string().contains("panic"), "{error}");
    assert!(std::fs::read_to_string(machine.console_log()).unwrap().contains("panic"));
}

#[test]
fn a_guest_that_says_nothing_is_given_up_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::spawn(&Qemu::find().unwrap(), nano("silent", folder.path())).unwrap();
    let error = machine.wait_hello(Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.code(), Code::MachineFailed);
    assert!(error.to_string().contains("said nothing"), "{error}");
}

#[test]
fn a_machine_ends_at_its_time_limit() {
    let folder = tempfile::tempdir().unwrap();
    let limits = MachineLimits { wall_clock: Some(Duration::from_millis(300)), ..MachineLimits::STANDARD };
    let spec = MachineSpec { limits, ..nano("late", folder.path()) };
    let late = Machine::spawn(&Qemu::find().unwrap(), spec).and_then(|mut machine| machine.wait_hello(BOOT));
    let error = late.unwrap_err();
    assert_eq!(error.code(), Code::MachineFailed);
    assert!(error.to_string().contains("time limit"), "{error}");
}

#[test]
fn losing_qemu_is_our_failure_and_losing_the_agent_after_a_step_is_the_recipes() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = boot(nano("lost", folder.path()));
    machine.kill();
    let error = machine.ping().unwrap_err();
    assert_eq!(error.code(), Code::MachineFailed, "{error}");

    let mut machine = boot(nano("off", folder.path()));
    machine.recipe_begins();
    probe(&mut machine, &["sleep", "0"]);
    // As a recipe could: the kernel is told to power off at once.
    let error =
        machine.exec(probe_exec(&["write", "/proc/sysrq-trigger", "o"]), &mut |_| {}).and_then(|_| {
            assert!(machine.wait_exit(BOOT));
            machine.ping()
        });
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::ControlLost, "{error}");
    assert!(error.to_string().contains("ended by itself"), "{error}");
}

#[test]
fn a_machine_that_makes_no_sense_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let good = nano("x", folder.path());
    let file = pinned(&base().join("vmlinuz"));
    let disk = |overlays: &[&str]| {
        let overlays = overlays.iter().map(|name| (*name).to_owned()).collect();
        Some(DiskSpec { base: file.clone(), layers: Vec::new(), overlays })
    };
    let boots = booting(good.clone(), |boot| boot.initrd = Initrd::Disk(file.clone()));
    for spec in [
        MachineSpec { name: "a,b=c".into(), ..good.clone() },
        MachineSpec { name: String::new(), ..good.clone() },
        MachineSpec { memory_mib: 1, ..good.clone() },
        booting(good.clone(), |boot| boot.command_line = "a\nb".into()),
        MachineSpec { disk: disk(&[]), ..boots },
        MachineSpec { disk: disk(&["../x"]), ..good.clone() },
        MachineSpec { disk: disk(&["a", "a"]), ..good.clone() },
        MachineSpec { disk: disk(&["a", "b", "c"]), ..good.clone() },
    ] {
        assert!(matches!(Machine::spawn(&Qemu::find().unwrap(), spec), Err(HarnessError::BadSpec { .. })));
    }
    assert!(!folder.path().join("x").exists());
}

#[test]
fn a_command_is_ended_at_its_time_limit_and_the_machine_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = boot(nano("sleep", folder.path()));
    probe(&mut machine, &["sleep", "0"]);
    let exec = harness::Exec { timeout_ms: 500, ..probe_exec(&["sleep", "100"]) };
    let exited = machine.exec(exec, &mut |_| {}).unwrap();
    assert!(exited.timed_out, "{exited:?}");
    machine.ping().unwrap();
}
