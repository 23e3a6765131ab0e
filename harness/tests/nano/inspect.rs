//! A nano guest that looks at a disk of which nothing runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::{DiskSpec, HarnessError, Machine, MachineSpec, Pinned, Qemu};
use recipe_spec::Code;
use rustix::fs::XattrFlags;

use crate::base::{boot, booting, nano, pinned, probe};

/// A disk with the few files that facts are made of.
fn disk(folder: &Path) -> Pinned {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: it gives files owners and capabilities"
    );
    let tree = folder.join("tree");
    let file = |path: &str, text: &str, mode: u32| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    file("etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644);
    file("etc/shadow", "root:*:1:0:99999:7:::\n", 0o640);
    file("etc/group", "root:x:0:\n", 0o644);
    file("etc/systemd/system/own.service", "[Service]\nExecStart=/usr/bin/own\n", 0o644);
    file("usr/bin/own", "x", 0o4755);
    file("usr/bin/anyone", "x", 0o777);
    let ping = file("usr/bin/ping", "x", 0o755);
    let mut capability = [0; 20];
    (capability[0], capability[3], capability[5]) = (1, 2, 0x20);
    rustix::fs::setxattr(&ping, "security.capability", &capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&ping, "user.note", b"x", XattrFlags::empty()).unwrap();
    let (raw, image) = (folder.join("disk.raw"), folder.join("disk.qcow2"));
    fs::File::create(&raw).unwrap().set_len(64 << 20).unwrap();
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).args([&tree, &raw]));
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &image]));
    fs::set_permissions(&image, Permissions::from_mode(0o444)).unwrap();
    pinned(&image)
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

#[test]
fn a_disk_is_looked_at_without_running_or_changing_anything_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let base = disk(folder.path());
    let disk = DiskSpec { base: base.clone(), layers: Vec::new(), overlays: Vec::new() };
    let mut machine = boot(MachineSpec { disk: Some(disk), ..nano("inspect", folder.path()) });
    let facts = machine.disk_facts().unwrap();
    let modes: Vec<_> =
        facts.setuid.iter().chain(&facts.world_writable).map(|file| file.path.as_str()).collect();
    assert_eq!(modes, ["/usr/bin/own", "/usr/bin/anyone"]);
    assert_eq!(facts.capabilities[0].path, "/usr/bin/ping");
    assert_eq!(facts.attributes[0].name, "user.note");
    assert_eq!(facts.units[0].path, "/etc/systemd/system/own.service");
    assert_eq!(facts.users[0].name, "root");
    assert!(facts.truncated.is_empty(), "{:?}", facts.truncated);
    assert!(
        facts.processes.is_empty() && facts.modules.is_empty() && facts.mounts.is_empty(),
        "nothing of the guest itself"
    );
    assert_eq!(machine.disk_facts().unwrap(), facts, "asked again, the same is told");
    let (exited, said) = probe(&mut machine, &["write", "/dev/vda", "x"]);
    assert!(exited.status == Some(1), "the disk cannot be written to: {said}");
    drop(machine);
    assert_eq!(pinned(&base.path), base);
}

#[test]
fn a_disk_whose_journal_is_not_clean_is_not_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let clean = disk(folder.path());
    // `needs_recovery` (EXT4_FEATURE_INCOMPAT_RECOVER), as a file system has it that was not unmounted.
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("unclean.qcow2"));
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).args([&clean.path, &raw]));
    run(Command::new("debugfs").args(["-w", "-R", "feature needs_recovery"]).arg(&raw));
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &image]));
    fs::set_permissions(&image, Permissions::from_mode(0o444)).unwrap();
    let disk = DiskSpec { base: pinned(&image), layers: Vec::new(), overlays: Vec::new() };
    let mut machine = boot(MachineSpec { disk: Some(disk), ..nano("unclean", folder.path()) });
    let error = machine.disk_facts().unwrap_err();
    assert!(
        matches!(&error, HarnessError::Agent { error, .. } if error.message.contains("mount the disk")),
        "{error}"
    );
}

#[test]
fn only_a_nano_guest_does_without_an_overlay_and_only_it_looks_at_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let image = disk(folder.path());
    let boots = booting(nano("readonly", folder.path()), |boot| {
        boot.initrd = harness::Initrd::Disk(image.clone());
    });
    let disk = DiskSpec { base: image, layers: Vec::new(), overlays: Vec::new() };
    let spec = MachineSpec { disk: Some(disk), ..boots };
    let error = Machine::spawn(&Qemu::find().unwrap(), spec).unwrap_err();
    assert_eq!(error.code(), Code::HostFailed, "{error}");
    let mut machine = boot(nano("diskless", folder.path()));
    let error = machine.disk_facts().unwrap_err();
    assert!(matches!(&error, HarnessError::Agent { .. }), "{error}");
}
