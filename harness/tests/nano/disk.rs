//! Overlays and layers, with a small disk that a nano guest writes to directly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::{DiskSpec, HarnessError, Initrd, Machine, MachineLimits, MachineSpec, Pinned, Qemu};
use recipe_spec::{Code, Sha256Digest};

use crate::base::{self, BOOT, PROBE, boot, booting, nano, pinned, probe, probe_exec, probe_program};

const DISK: &str = "/dev/vda";
const WIDTH: &str = "64M";

/// An empty disk that serves as base.
pub(crate) fn base_disk(folder: &Path) -> Pinned {
    let path = folder.join("base.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&path)
        .arg(WIDTH)
        .status()
        .unwrap();
    assert!(made.success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    pinned(&path)
}

pub(crate) fn with_disk(
    name: &str,
    folder: &Path,
    base: &Pinned,
    layers: Vec<Pinned>,
    overlays: &[&str],
) -> MachineSpec {
    let overlays = overlays.iter().map(|name| (*name).to_owned()).collect();
    MachineSpec { disk: Some(DiskSpec { base: base.clone(), layers, overlays }), ..nano(name, folder) }
}

pub(crate) fn read(machine: &mut Machine) -> String {
    let (exited, said) = probe(machine, &["read", DISK, "16"]);
    assert_eq!(exited.status, Some(0), "{said}");
    said.trim_end_matches('\0').to_owned()
}

pub(crate) fn write(machine: &mut Machine, text: &str) {
    let (exited, said) = probe(machine, &["write", DISK, text]);
    assert_eq!(exited.status, Some(0), "{said}");
}

#[test]
fn each_recipe_leaves_a_layer_of_its_own_and_the_chain_boots_again() {
    let folder = tempfile::tempdir().unwrap();
    let base = base_disk(folder.path());
    let mut machine = boot(with_disk("build", folder.path(), &base, Vec::new(), &["vo", "site"]));
    assert_eq!(read(&mut machine), "");
    write(&mut machine, "by the vo");
    machine.sync().unwrap();
    machine.switch_overlay().unwrap();
    assert_eq!(read(&mut machine), "by the vo");
    write(&mut machine, "by the site");
    assert!(matches!(machine.switch_overlay(), Err(HarnessError::BadSpec { .. })));
    let sealed = machine.power_off(BOOT).unwrap();
    assert_eq!(sealed.overlays.len(), 2);
    let layers: Vec<Pinned> = sealed.overlays.iter().map(|path| pinned(path)).collect();
    for path in &sealed.overlays {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o400);
    }
    assert_eq!(base, base_after(&base), "the base never changes");

    let mut on_both = boot(with_disk("both", folder.path(), &base, layers.clone(), &["run"]));
    assert_eq!(read(&mut on_both), "by the site");
    write(&mut on_both, "by an instance");
    drop(on_both);
    let mut on_first = boot(with_disk("first", folder.path(), &base, layers[..1].to_vec(), &["run"]));
    assert_eq!(read(&mut on_first), "by the vo");
    let again: Vec<Pinned> = sealed.overlays.iter().map(|path| pinned(path)).collect();
    assert_eq!(again, layers, "what was sealed never changes");
}

fn base_after(base: &Pinned) -> Pinned {
    pinned(&base.path)
}

#[test]
fn a_changed_file_is_not_launched() {
    let folder = tempfile::tempdir().unwrap();
    let base = base_disk(folder.path());
    let qemu = Qemu::find().unwrap();
    let wrong = |pinned: &Pinned| Pinned::new(&pinned.path, Sha256Digest::of(b"something else"));
    let good = nano("x", folder.path());
    let path = |name: &str| base::base().join(name);
    let (kernel, cpio) = (pinned(&path("vmlinuz")), pinned(&path("nano.cpio")));
    let cases = [
        (booting(good.clone(), |boot| boot.kernel = wrong(&kernel)), Code::BaseMismatch),
        (booting(good.clone(), |boot| boot.initrd = Initrd::Nano(wrong(&cpio))), Code::BaseMismatch),
        (booting(good.clone(), |boot| boot.initrd = Initrd::Disk(wrong(&cpio))), Code::BaseMismatch),
        (with_disk("a", folder.path(), &wrong(&base), Vec::new(), &["run"]), Code::BaseMismatch),
        (with_disk("b", folder.path(), &base, vec![wrong(&base)], &["run"]), Code::LayerMismatch),
    ];
    for (spec, code) in cases {
        let error = Machine::spawn(&qemu, spec).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn a_layer_whose_header_names_a_file_of_the_host_is_not_launched() {
    let folder = tempfile::tempdir().unwrap();
    let base = base_disk(folder.path());
    let secret = folder.path().join("secret.raw");
    fs::write(&secret, vec![b's'; 1 << 20]).unwrap();
    let layer = folder.path().join("layer.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&secret, &layer])
        .arg(WIDTH)
        .status()
        .unwrap();
    assert!(made.success());
    let spec = with_disk("trojan", folder.path(), &base, vec![pinned(&layer)], &["run"]);
    let error = Machine::spawn(&Qemu::find().unwrap(), spec).unwrap_err();
    assert_eq!(error.code(), Code::LayerMismatch);
    assert!(error.to_string().contains("backing file"), "{error}");
}

#[test]
fn an_overlay_never_grows_beyond_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let base = base_disk(folder.path());
    let limits = MachineLimits { file_bytes: 8 << 20, ..nano("x", folder.path()).limits };
    let greedy = with_disk("greedy", folder.path(), &base, Vec::new(), &["run"]);
    let mut machine = boot(MachineSpec { limits, ..greedy });
    let (exited, said) = probe(&mut machine, &["fill", DISK, "32"]);
    assert!(
        exited.status == Some(1) && said.contains("Input/output error"),
        "the guest sees an I/O error: {said}"
    );
    assert!(fs::metadata(folder.path().join("greedy/run.qcow2")).unwrap().len() <= 8 << 20);
    machine.ping().unwrap();
}

/// A small file system of its own, as long as it is held.
struct SmallHost<'a>(&'a Path);

impl Drop for SmallHost<'_> {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_host_is_told_as_such() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: it mounts a small file system");
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    rustix::mount::mount("tmpfs", &small, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=8m"))
        .unwrap();
    let _held = SmallHost(&small);
    let base = base_disk(folder.path());
    let mut machine = boot(with_disk("full", &small, &base, Vec::new(), &["run"]));
    machine.write_file(PROBE, 0o755, &probe_program()).unwrap();
    machine.recipe_begins();
    let error = machine.exec(probe_exec(&["fill", DISK, "32"]), &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::HostFull, "{error}");
}
