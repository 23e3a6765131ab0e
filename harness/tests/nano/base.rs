//! The base that these tests boot, and the machines they make of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use harness::{
    Accelerator, Boot, Confinement, Exec, Exited, Initrd, Machine, MachineLimits, MachineSpec,
    NANO_COMMAND_LINE, Network, Output, Pinned, Qemu, SameUser, Start, UserRange,
};
use recipe_spec::Sha256Digest;

/// A nano guest says hello within this time, even when several boot side by side under software emulation.
pub(crate) const BOOT: Duration = Duration::from_secs(120);
/// Where the probe lies in the guest.
pub(crate) const PROBE: &str = "/run/probe";

/// A folder as `countersign base build` makes it.
pub(crate) fn base() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-base/debian-12");
    let base =
        std::env::var_os("COUNTERSIGN_TEST_BASE").map_or_else(|| PathBuf::from(default), PathBuf::from);
    assert!(
        base.join("nano.cpio").is_file(),
        "these tests boot real guests and need a base image in {} (run `make base`, or set COUNTERSIGN_TEST_BASE)",
        base.display()
    );
    base
}

/// A file of the base, pinned by the digest that it has now.
pub(crate) fn pinned(path: &Path) -> Pinned {
    let mut file = std::fs::File::open(path).unwrap();
    Pinned::new(path, Sha256Digest::of_reader(&mut file).unwrap().0)
}

/// As root each machine has a user of its own; a person without root gets the weaker form.
pub(crate) fn confinement() -> Confinement {
    Confinement { users: UserRange::standard(), same_user: SameUser::Allowed }
}

/// A nano guest whose run folder lies in `folder`.
pub(crate) fn nano(name: &str, folder: &Path) -> MachineSpec {
    let base = base();
    MachineSpec {
        name: name.into(),
        start: Start::boot(
            pinned(&base.join("vmlinuz")),
            Initrd::Nano(pinned(&base.join("nano.cpio"))),
            NANO_COMMAND_LINE,
        ),
        memory_mib: 256,
        disk: None,
        network: Network::None,
        relay: None,
        accelerator: Accelerator::Tcg,
        confinement: confinement(),
        run_dir: folder.join(name),
        limits: MachineLimits { wall_clock: Some(Duration::from_secs(600)), ..MachineLimits::STANDARD },
    }
}

/// The same machine, but for what it boots.
pub(crate) fn booting(mut spec: MachineSpec, change: impl FnOnce(&mut Boot)) -> MachineSpec {
    match &mut spec.start {
        Start::Boot(boot) => change(boot),
        Start::Clone(..) => panic!("a clone does not boot"),
    }
    spec
}

/// Boots a machine and waits for its agent.
pub(crate) fn boot(spec: MachineSpec) -> Machine {
    let mut machine = Machine::spawn(&Qemu::find().unwrap(), spec).unwrap();
    machine.wait_hello(BOOT).unwrap();
    machine
}

/// Runs the probe in the guest and gives how it ended and all it said.
pub(crate) fn probe(machine: &mut Machine, arguments: &[&str]) -> (Exited, String) {
    machine.write_file(PROBE, 0o755, &PROBE_PROGRAM).unwrap();
    let mut said = Vec::new();
    let exited =
        machine.exec(probe_exec(arguments), &mut |(Output::Stdout(bytes) | Output::Stderr(bytes))| {
            said.extend_from_slice(bytes);
        });
    (exited.unwrap(), String::from_utf8_lossy(&said).into_owned())
}

pub(crate) fn probe_exec(arguments: &[&str]) -> Exec {
    Exec {
        argv: std::iter::once(&PROBE).chain(arguments).map(|word| (*word).to_owned()).collect(),
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_ms: 60_000,
        output_limit: 1 << 20,
    }
}

/// The probe, built once for all tests.
pub(crate) fn probe_program() -> Vec<u8> {
    PROBE_PROGRAM.clone()
}

static PROBE_PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("probe");
    let built = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "--target",
            "x86_64-unknown-linux-gnu",
        ])
        .args(["-C", "strip=symbols", "-o"])
        .args([&program, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nano/probe.rs"))])
        .status()
        .unwrap();
    assert!(built.success());
    std::fs::read(program).unwrap()
});
