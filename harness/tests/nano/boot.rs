//! The base itself, with its disk: the agent comes in through the initramfs and nothing of it stays.

use std::time::{Duration, Instant};

use harness::{DISK_COMMAND_LINE, DiskSpec, Initrd, MachineSpec, Mode, Output, Qemu};

use crate::base::{BOOT, base, booting, nano, pinned, probe_exec};

#[test]
fn the_base_boots_with_the_agent_and_powers_off_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let base = base();
    let boots = booting(nano("base", folder.path()), |boot| {
        boot.initrd = Initrd::Disk(pinned(&base.join("initrd")));
        boot.command_line = DISK_COMMAND_LINE.into();
    });
    let spec = MachineSpec {
        memory_mib: 512,
        disk: Some(DiskSpec {
            base: pinned(&base.join("disk.qcow2")),
            layers: Vec::new(),
            overlays: vec!["vo".into(), "site".into()],
        }),
        ..boots
    };
    let start = Instant::now();
    let mut machine = harness::Machine::spawn(&Qemu::find().unwrap(), spec).unwrap();
    let hello = machine.wait_hello(BOOT).unwrap();
    let said = start.elapsed();
    assert_eq!(hello.mode, Mode::Disk);
    let state = machine.wait_running(3 * BOOT).unwrap();
    println!(
        "hello after {:.1} s, {state:?} after {:.1} s",
        said.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    let mut name = Vec::new();
    let exec = harness::Exec { argv: vec!["cat".into(), "/etc/debian_version".into()], ..probe_exec(&[]) };
    let exited = machine.exec(exec, &mut |output| {
        if let Output::Stdout(bytes) = output {
            name.extend_from_slice(bytes);
        }
    });
    assert!(exited.unwrap().status == Some(0) && name.starts_with(b"12"));
    let facts = machine.facts().unwrap();
    assert!(facts.users.iter().any(|user| user.name == "root"));
    machine.freeze().unwrap();
    machine.switch_overlay().unwrap();
    machine.thaw().unwrap();
    machine.write_file("/etc/by-site", 0o644, b"x").unwrap();
    let off = Instant::now();
    let sealed = machine.power_off(Duration::from_secs(120)).unwrap();
    println!("off after {:.1} s", off.elapsed().as_secs_f64());
    assert_eq!(sealed.overlays.len(), 2);
}
