//! Templates and clones, of nano guests and of the base.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use harness::{
    DISK_COMMAND_LINE, DiskSpec, Exec, HarnessError, Initrd, Machine, MachineSpec, Memory, Network, Output,
    Pinned, Qemu, Start, Template, Written, identity,
};
use recipe_spec::Code;

use crate::base::{BOOT, base, boot, booting, nano, pinned, probe};
use crate::disk::{base_disk, read, with_disk, write};
use crate::qemu::imposter;

/// A nano guest that was paused, kept in `folder/template`.
fn nano_template(spec: MachineSpec, folder: &Path) -> Template {
    let mut machine = boot(booting(spec, |boot| boot.memory = Memory::Kept));
    probe(&mut machine, &["sleep", "0"]);
    machine.into_template(&folder.join("template")).unwrap()
}

fn clone_of(template: &Template, spec: MachineSpec) -> MachineSpec {
    MachineSpec { start: Start::Clone(template.clone(), Written::Below), ..spec }
}

/// Runs a command that must succeed, and gives what it said.
fn said(machine: &mut Machine, argv: &[&str]) -> String {
    let exec = Exec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_ms: 60_000,
        output_limit: 1 << 20,
    };
    let mut said = Vec::new();
    let exited = machine.exec(exec, &mut |(Output::Stdout(bytes) | Output::Stderr(bytes))| {
        said.extend_from_slice(bytes);
    });
    let text = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(exited.unwrap().status, Some(0), "{argv:?}: {text}");
    text
}

#[test]
fn clones_of_a_nano_guest_answer_and_a_changed_byte_starts_none() {
    let folder = tempfile::tempdir().unwrap();
    let template = nano_template(nano("source", folder.path()), folder.path());
    assert_eq!(template, Template::pinned(template.folder(), template.sha256()).unwrap());
    let qemu = Qemu::find().unwrap();
    let mut clones: Vec<Machine> = (0..2)
        .map(|number| {
            let spec = clone_of(&template, nano(&format!("clone-{number}"), folder.path()));
            let mut machine = Machine::spawn(&qemu, spec).unwrap();
            machine.wake(identity::fresh(&template, "nano").unwrap()).unwrap();
            machine
        })
        .collect();
    for machine in &mut clones {
        machine.ping().unwrap();
        let (exited, _) = probe(machine, &["sleep", "0"]);
        assert_eq!(exited.status, Some(0));
    }
    drop(clones);

    for name in ["memory", "state"] {
        let path = template.folder().join(name);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        replace(&path, &changed);
        let spec = clone_of(&template, nano("changed", folder.path()));
        let error = Machine::spawn(&qemu, spec).unwrap_err();
        assert_eq!(error.code(), Code::LayerMismatch, "{name}: {error}");
        assert!(!folder.path().join("changed").exists(), "nothing was started");
        replace(&path, &bytes);
    }
    let other = MachineSpec { memory_mib: 512, ..nano("larger", folder.path()) };
    let error = Machine::spawn(&qemu, clone_of(&template, other)).unwrap_err();
    assert_eq!(error.code(), Code::LayerMismatch, "{error}");
    assert!(error.to_string().contains("memoryMib"), "{error}");
}

/// What the template's machine had written is in the layer that is sealed, so the chain needs nothing of the template.
#[test]
fn a_clone_can_begin_its_own_layer_with_what_the_template_had_written() {
    let folder = tempfile::tempdir().unwrap();
    let base = base_disk(folder.path());
    let mut source = boot(booting(with_disk("source", folder.path(), &base, Vec::new(), &["own"]), |boot| {
        boot.memory = Memory::Kept;
    }));
    write(&mut source, "by the base");
    source.sync().unwrap();
    let template = source.into_template(&folder.path().join("template")).unwrap();
    let clone = |name: &str| MachineSpec {
        start: Start::Clone(template.clone(), Written::Copied),
        ..with_disk(name, folder.path(), &base, Vec::new(), &["vo", "site"])
    };
    let qemu = Qemu::find().unwrap();
    let overlay = template.overlay().unwrap();
    let mut layers = Vec::new();
    for name in ["unchanged", "changed"] {
        let mut machine = Machine::spawn(&qemu, clone(name)).unwrap();
        machine.wake(identity::fresh(&template, "nano").unwrap()).unwrap();
        assert_eq!(read(&mut machine), "by the base");
        if name == "changed" {
            write(&mut machine, "by the vo");
            machine.sync().unwrap();
        }
        machine.switch_overlay().unwrap();
        let sealed = machine.power_off(BOOT).unwrap();
        layers.push(sealed.overlays.iter().map(|path| pinned(path)).collect::<Vec<_>>());
    }
    assert_eq!(pinned(&overlay.path), overlay, "no clone writes to it");
    fs::remove_dir_all(template.folder()).unwrap();
    for (number, (layers, said)) in layers.into_iter().zip(["by the base", "by the vo"]).enumerate() {
        let spec = with_disk(&format!("sealed-{number}"), folder.path(), &base, layers, &["run"]);
        assert_eq!(read(&mut boot(spec)), said);
    }
}

fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
}

#[test]
fn what_a_machine_runs_from_is_not_written_to_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let base = base_disk(folder.path());
    let layer = Pinned::new(folder.path().join("layer.qcow2"), base.sha256);
    fs::copy(&base.path, &layer.path).unwrap();
    let machine = |name: &str| with_disk(name, folder.path(), &base, vec![layer.clone()], &["own"]);
    let template = nano_template(machine("source"), folder.path());
    let clone = |name: String| clone_of(&template, machine(&name));
    let flipped = folder.path().join("template/overlay.qcow2");
    let bytes = fs::read(&flipped).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    replace(&flipped, &changed);
    for (number, written) in [Written::Below, Written::Copied].into_iter().enumerate() {
        let spec = MachineSpec {
            start: Start::Clone(template.clone(), written),
            ..machine(&format!("flipped-{number}"))
        };
        let error = Machine::spawn(&Qemu::find().unwrap(), spec).unwrap_err();
        assert_eq!(error.code(), Code::LayerMismatch, "{error}");
    }
    replace(&flipped, &bytes);
    drop(spawn_and_meanwhile(folder.path(), clone("untouched".into()), || {}).unwrap());

    let kept = ["memory", "state", "overlay.qcow2"].map(|name| template.folder().join(name));
    let layers = kept.into_iter().chain([layer.path.clone()]).map(|path| (path, Code::LayerMismatch));
    for (number, (path, code)) in layers.chain([(base.path.clone(), Code::BaseMismatch)]).enumerate() {
        let written = || write_what_it_holds(&path);
        let starting = spawn_and_meanwhile(folder.path(), clone(format!("starting-{number}")), written);
        assert_eq!(starting.unwrap_err().code(), code, "{}, once it was hashed", path.display());

        let running = Machine::spawn(&Qemu::find().unwrap(), clone(format!("running-{number}"))).unwrap();
        running.check_unchanged().unwrap();
        write_what_it_holds(&path);
        let error = running.check_unchanged().unwrap_err();
        assert_eq!(error.code(), code, "{}, under the machine: {error}", path.display());
    }
}

/// Starts a machine by a QEMU that waits until `meanwhile` has ended, which begins once all files were hashed.
fn spawn_and_meanwhile(
    folder: &Path,
    spec: MachineSpec,
    meanwhile: impl FnOnce() + Send,
) -> Result<Machine, HarnessError> {
    let (go, run_dir) = (folder.join("go"), spec.run_dir.clone());
    let real = Qemu::find().unwrap().program;
    let waiting =
        format!("while [ ! -e '{}' ]; do sleep 0.01; done; exec '{}' \"$@\"", go.display(), real.display());
    let qemu = imposter(folder, &waiting);
    let spawned = thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            // The launch makes it after the hashing and before QEMU.
            while !run_dir.exists() {
                assert!(start.elapsed() < BOOT, "the launch does not come so far");
                thread::sleep(Duration::from_millis(1));
            }
            meanwhile();
            fs::write(&go, "").unwrap();
        });
        Machine::spawn(&qemu, spec)
    });
    fs::remove_file(&go).unwrap();
    spawned
}

/// Writes a byte of a file in place, whatever its mode: the byte that is there, so that only its times tell.
fn write_what_it_holds(path: &Path) {
    let before = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&byte, 0).unwrap();
    fs::set_permissions(path, before).unwrap();
}

/// The base, with a card and a disk.
fn disk_machine(name: &str, folder: &Path) -> MachineSpec {
    let base = base();
    MachineSpec {
        memory_mib: 512,
        disk: Some(DiskSpec {
            base: pinned(&base.join("disk.qcow2")),
            layers: Vec::new(),
            overlays: vec!["own".into()],
        }),
        network: Network::Restricted { forwards: Vec::new() },
        ..booting(nano(name, folder), |boot| {
            boot.initrd = Initrd::Disk(pinned(&base.join("initrd")));
            boot.command_line = DISK_COMMAND_LINE.into();
            boot.memory = Memory::Kept;
        })
    }
}

#[test]
fn ten_clones_of_the_base_have_nothing_in_common_that_should_be_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = boot(disk_machine("source", folder.path()));
    source.wait_running(crate::base::BOOT).unwrap();
    let start = Instant::now();
    let template = source.into_template(&folder.path().join("template")).unwrap();
    println!("kept in {:.2} s", start.elapsed().as_secs_f64());
    let qemu = Qemu::find().unwrap();
    let mut seen: Vec<BTreeSet<String>> = Vec::new();
    for number in 0..10 {
        let name = format!("clone-{number}");
        let start = Instant::now();
        let mut machine =
            Machine::spawn(&qemu, clone_of(&template, disk_machine(&name, folder.path()))).unwrap();
        let spawned = start.elapsed();
        let identity = identity::fresh(&template, &name).unwrap();
        machine.wake(identity.clone()).unwrap();
        let woken = start.elapsed();
        let first = said(&mut machine, &["true"]);
        let answered = start.elapsed();
        println!("{name}: {spawned:?} {woken:?} {answered:?}");
        assert_eq!(first, "");
        assert_eq!(said(&mut machine, &["hostname"]).trim(), name);
        let names = identity.names.unwrap();
        assert_eq!(said(&mut machine, &["cat", "/sys/class/net/eth0/address"]).trim(), names.mac.unwrap());
        assert_eq!(said(&mut machine, &["cat", "/etc/machine-id"]).trim(), names.machine_id);
        let keys = said(&mut machine, &["sh", "-c", "cat /etc/ssh/ssh_host_*.pub"]);
        assert_eq!(keys, names.host_key.public);
        seen.push(
            [
                said(&mut machine, &["cat", "/etc/machine-id"]),
                keys,
                said(&mut machine, &["sh", "-c", "head -c 32 /dev/urandom | od -An -tx1"]),
                said(&mut machine, &["cat", "/sys/class/net/eth0/address"]),
            ]
            .into(),
        );
    }
    let all: BTreeSet<_> = seen.iter().flatten().collect();
    assert_eq!(all.len(), 40, "{seen:#?}");
}
