//! How much faster a clone of a template answers than a machine that boots.
//!
//! `make bench`. `COUNTERSIGN_TEST_BASE` names the folder of a base. Both are the same machine of the same base; cold boots and
//! clones take turns, and medians are compared. A cold boot ends when systemd says that the system is up, a clone when its first
//! command has been answered, after it got randomness, names, host key, address and time of its own.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on may panic")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::{
    Accelerator, Boot, Confinement, DISK_COMMAND_LINE, DiskSpec, Exec, Initrd, Machine, MachineLimits,
    MachineSpec, Memory, Network, Pinned, Qemu, SameUser, Start, Template, UserRange, Written, identity,
};
use recipe_spec::digest::Sha256Digest;
use serde_json::{Value, json};

/// Cold boots, and clones for each of them.
const ROUNDS: (usize, usize) = (3, 10);
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let Some(folder) = std::env::var_os("COUNTERSIGN_TEST_BASE") else {
        eprintln!("COUNTERSIGN_TEST_BASE must name the folder of a base image (`make bench` does that)");
        return ExitCode::from(2);
    };
    let bench = Bench {
        qemu: Qemu::find().unwrap(),
        base: PathBuf::from(folder),
        scratch: tempfile::tempdir().unwrap(),
    };
    let mut template = None;
    let [mut boots, mut clones, mut starts, mut wakes] = [const { Vec::new() }; 4];
    for round in 0..ROUNDS.0 {
        let start = Instant::now();
        let mut machine = bench.boot(&format!("boot-{round}"));
        machine.wait_hello(PATIENCE).unwrap();
        machine.wait_running(PATIENCE).unwrap();
        boots.push(start.elapsed());
        if template.is_none() {
            template = Some(machine.into_template(&bench.scratch.path().join("template")).unwrap());
            // Digests of files that changed a moment ago are not remembered.
            std::thread::sleep(Duration::from_secs(3));
        }
        let template = template.as_ref().unwrap();
        for number in 0..ROUNDS.1 {
            let [started, woken, answered] = bench.clone(&format!("clone-{round}-{number}"), template);
            starts.push(started);
            wakes.push(woken - started);
            clones.push(answered);
        }
    }
    let (boot, clone) = (median(&mut boots), median(&mut clones));
    let (start, wake) = (median(&mut starts), median(&mut wakes));
    println!("{:44}{:9.3} s", "cold boot until systemd says running", boot.as_secs_f64());
    println!("{:44}{:9.3} s", "clone until its first command is answered", clone.as_secs_f64());
    println!("{:44}{:9.3} s", "  of which: QEMU is up, the state is loaded", start.as_secs_f64());
    println!("{:44}{:9.3} s", "  of which: it is a machine of its own", wake.as_secs_f64());
    let ratio = boot.as_secs_f64() / clone.as_secs_f64();
    println!("clone_vs_cold_boot {ratio:.1}");
    record("clone_vs_cold_boot", clone, "cold boot of the same base", ratio);
    ExitCode::SUCCESS
}

struct Bench {
    qemu: Qemu,
    base: PathBuf,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn spec(&self, name: &str, start: Start) -> MachineSpec {
        MachineSpec {
            name: name.to_owned(),
            start,
            memory_mib: 1024,
            disk: Some(DiskSpec {
                base: pinned(&self.base.join("disk.qcow2")),
                layers: Vec::new(),
                overlays: vec!["own".to_owned()],
            }),
            network: Network::Restricted { forwards: Vec::new() },
            relay: None,
            accelerator: Accelerator::Tcg,
            confinement: Confinement { users: UserRange::standard(), same_user: SameUser::Allowed },
            run_dir: self.scratch.path().join(name),
            limits: MachineLimits::STANDARD,
        }
    }

    fn boot(&self, name: &str) -> Machine {
        let start = Start::Boot(Boot {
            kernel: pinned(&self.base.join("vmlinuz")),
            initrd: Initrd::Disk(pinned(&self.base.join("initrd"))),
            command_line: DISK_COMMAND_LINE.to_owned(),
            memory: Memory::Kept,
        });
        Machine::spawn(&self.qemu, self.spec(name, start)).unwrap()
    }

    /// From nothing to: loaded, awake, answered.
    fn clone(&self, name: &str, template: &Template) -> [Duration; 3] {
        let spec = self.spec(name, Start::Clone(template.clone(), Written::Below));
        let start = Instant::now();
        let mut machine = Machine::spawn(&self.qemu, spec).unwrap();
        let loaded = start.elapsed();
        machine.wake(identity::fresh(template, name).unwrap()).unwrap();
        let woken = start.elapsed();
        let exec = Exec {
            argv: vec!["true".to_owned()],
            env: Default::default(),
            cwd: None,
            user: None,
            timeout_ms: 60_000,
            output_limit: 0,
        };
        assert_eq!(machine.exec(exec, &mut |_| {}).unwrap().status, Some(0));
        [loaded, woken, start.elapsed()]
    }
}

fn pinned(path: &Path) -> Pinned {
    Pinned::new(path, Sha256Digest::of_reader(&mut std::fs::File::open(path).unwrap()).unwrap().0)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Puts a figure into `bench.json` of the target folder, in the place of the one it had.
fn record(name: &str, value: Duration, against: &str, ratio: f64) {
    let path = Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench.json"));
    let known = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut figures: Vec<Value> = known.unwrap_or_default();
    figures.retain(|figure| figure["name"] != name);
    let (value, ratio) = (value.as_secs_f64(), (ratio * 10.0).round() / 10.0);
    figures.push(json!({"name": name, "value": value, "unit": "s", "against": against, "ratio": ratio}));
    std::fs::write(path, serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
}
