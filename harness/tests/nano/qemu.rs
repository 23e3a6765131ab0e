//! QEMUs that die, hang or never start: our failure in every phase, in bounded time, and nothing is left.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Forward, Machine, MachineLimits, MachineSpec, Network, Qemu};
use recipe_spec::Code;
use rustix::process::{Pid, Signal, kill_process};

use crate::base::{BOOT, boot, nano, probe, probe_exec};
use crate::remains::{Watched, alone};

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

fn signal_later(pid: u32, what: Signal) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        signal(pid, what);
    })
}

/// The tools of this host, and this program for QEMU.
fn at(program: PathBuf) -> Qemu {
    let mut qemu = Qemu::find().unwrap();
    qemu.program = program;
    qemu
}

/// A program in the place of QEMU.
pub(crate) fn imposter(folder: &Path, script: &str) -> Qemu {
    let program = folder.join("qemu-system-x86_64");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    // By another process: a program that we hold open for writing, even in a fork of another thread, cannot be started.
    let written = Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", script])
        .arg(&program)
        .status();
    assert!(written.unwrap().success());
    at(program)
}

/// Tries to have a machine and gives the code and the words of the error; it comes in time and leaves nothing.
fn cannot_start(qemu: &Qemu, spec: MachineSpec, time: Duration) -> (Code, String) {
    let (start, watched) = (Instant::now(), Watched::before(&spec));
    let error = Machine::spawn(qemu, spec).unwrap_err();
    assert!(start.elapsed() < time, "{error}");
    watched.nothing_is_left();
    (error.code(), error.to_string())
}

#[test]
fn a_qemu_that_does_not_start_is_said_to() {
    const TIME: Duration = Duration::from_secs(20);
    for (script, words) in [
        ("exit 0", "the guest ended by itself"),
        ("echo 'qemu: -device: no such thing' >&2; exit 1", "no such thing"),
        (
            "echo 'qemu: cannot set up guest memory: Cannot allocate memory' >&2; exit 1",
            "no memory for machine",
        ),
        ("kill -SEGV $$", "signal: 11"),
        ("kill -KILL $$", "signal: 9"),
        ("exec sleep 600", "time limit of 1.5 s"),
        ("kill -STOP $$", "time limit of 1.5 s"),
        ("exec yes >&2", "time limit of 1.5 s"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let spec = alone(nano("imposter", folder.path()), 20);
        let limits = MachineLimits { wall_clock: Some(Duration::from_millis(1500)), ..spec.limits.clone() };
        let (code, said) =
            cannot_start(&imposter(folder.path(), script), MachineSpec { limits, ..spec }, TIME);
        let full = script.contains("memory");
        assert_eq!(code, if full { Code::HostFull } else { Code::MachineFailed }, "{script}: {said}");
        assert!(said.contains(words) && said.len() < 5000, "{script}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let real = Qemu::find().unwrap();
    let missing = at(PathBuf::from("/nonexistent/qemu"));
    let (code, said) = cannot_start(&missing, alone(nano("missing", folder.path()), 20), TIME);
    assert_eq!(code, Code::MachineFailed);
    assert!(said.contains("/nonexistent/qemu"), "{said}");

    // An argument that QEMU itself refuses: somebody has the port.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, taken.local_addr().unwrap().port());
    let network = Network::Restricted { forwards: vec![Forward { host, guest: 80 }] };
    let spec = MachineSpec { network, ..alone(nano("taken", folder.path()), 20) };
    let (code, said) = cannot_start(&real, spec, TIME);
    assert_eq!(code, Code::MachineFailed);
    assert!(said.contains("forwarding"), "{said}");
}

#[test]
fn a_host_that_cannot_give_the_memory_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let real = Qemu::find().unwrap();
    // The limit on address space is the host that has no more: first the guest finds no place, then QEMU itself.
    for (name, memory_mib, overhead_mib) in [("no-guest", 2048, 0), ("no-qemu", 64, 0)] {
        let spec = alone(nano(name, folder.path()), 21);
        let limits = MachineLimits { overhead_mib, ..spec.limits.clone() };
        let spec = MachineSpec { memory_mib, limits, ..spec };
        let (code, said) = cannot_start(&real, spec, Duration::from_secs(20));
        assert_eq!(code, Code::HostFull, "{name}: {said}");
        assert!(said.contains("no memory for machine"), "{name}: {said}");
    }
}

#[test]
fn a_qemu_that_dies_or_hangs_before_the_hello_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    for (name, what, words) in [
        ("killed", Signal::KILL, "signal: 9"),
        ("aborts", Signal::ABORT, "signal: 6"),
        ("hangs", Signal::STOP, "said nothing"),
    ] {
        let spec = alone(nano(name, folder.path()), 22);
        let mut machine = Machine::spawn(&Qemu::find().unwrap(), spec.clone()).unwrap();
        let watched = Watched::of(&machine, &spec);
        signal(machine.pid(), what);
        let start = Instant::now();
        let error = machine.wait_hello(Duration::from_secs(1)).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(15));
        assert_eq!(error.code(), Code::MachineFailed, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        drop(machine);
        watched.nothing_is_left();
    }
}

#[test]
fn a_qemu_that_dies_after_the_first_step_is_still_our_failure() {
    let folder = tempfile::tempdir().unwrap();
    let spec = alone(nano("in-a-step", folder.path()), 23);
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();
    probe(&mut machine, &["sleep", "0"]);
    // As the kernel's OOM killer does it.
    let killing = signal_later(machine.pid(), Signal::KILL);
    let error = machine.exec(probe_exec(&["sleep", "100"]), &mut |_| {}).unwrap_err();
    killing.join().unwrap();
    assert_eq!(error.code(), Code::MachineFailed, "{error}");
    assert!(error.to_string().contains("signal: 9 (SIGKILL) during exec"), "{error}");
    drop(machine);
    watched.nothing_is_left();

    let spec = alone(nano("powering-off", folder.path()), 24);
    let mut machine = boot(spec.clone());
    let watched = Watched::of(&machine, &spec);
    machine.recipe_begins();
    signal(machine.pid(), Signal::STOP);
    let killing = signal_later(machine.pid(), Signal::KILL);
    let error = machine.power_off(BOOT).unwrap_err();
    killing.join().unwrap();
    assert_eq!(error.code(), Code::MachineFailed, "{error}");
    assert!(error.to_string().contains("during power off"), "{error}");
    watched.nothing_is_left();
}

/// Where the process without memory puts its machine.
const FOLDER: &str = "COUNTERSIGN_TEST_POOR_FOLDER";

/// Not a test of its own: the process that has too little memory.
#[test]
#[ignore = "started by a_process_without_memory_leaves_no_machine"]
fn try_to_have_a_machine() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let spec = alone(nano("poor", Path::new(&folder)), 25);
    match Qemu::find().and_then(|qemu| Machine::spawn(&qemu, spec)) {
        Ok(machine) => println!("\nGOT {}", machine.pid()),
        Err(error) => println!("\nCODE {}", error.code()),
    }
}

#[test]
fn a_process_without_memory_leaves_no_machine() {
    let mut ends = Vec::new();
    for mebibytes in [16, 48, 64, 96, 160] {
        let folder = tempfile::tempdir().unwrap();
        let watched = Watched::before(&alone(nano("poor", folder.path()), 25));
        let ended = Command::new("prlimit")
            .arg(format!("--as={}", mebibytes << 20))
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "qemu::try_to_have_a_machine"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        let line = said.lines().find(|line| line.starts_with("GOT ") || line.starts_with("CODE "));
        println!(
            "{mebibytes} MiB: {line:?}, {}, {}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr).trim()
        );
        watched.nothing_is_left();
        ends.push(line.map(str::to_owned));
    }
    // Said, where the operating system refuses, by whichever program it refuses first; where the allocator is refused it ends the
    // process, and the kernel tidies up. It is never a decision.
    let undecided = ["CODE HOST_FULL", "CODE NO_QEMU", "CODE MACHINE_FAILED"];
    let good = |line: &str| line.starts_with("GOT ") || undecided.contains(&line);
    assert!(ends.iter().flatten().all(|line| good(line)), "{ends:?}");
    assert!(ends.iter().any(|line| line.as_deref().is_none_or(|line| !line.starts_with("GOT "))), "{ends:?}");
}
