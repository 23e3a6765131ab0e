//! The harness on real machines: nano guests, each a few seconds of software emulation.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod base;
mod boot;
mod confinement;
mod disk;
mod failure;
mod hostile;
mod inspect;
mod qemu;
mod relay;
mod remains;
mod template;

use harness::{Accelerator, Mode, Qemu};

use crate::base::{boot, confinement, nano, pinned, probe};

#[test]
fn a_nano_guest_says_hello_answers_and_powers_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = harness::Machine::spawn(&Qemu::find().unwrap(), nano("hello", folder.path())).unwrap();
    let start = std::time::Instant::now();
    let hello = machine.wait_hello(base::BOOT).unwrap();
    println!("hello after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(hello.mode, Mode::Nano);
    machine.ping().unwrap();
    let content: Vec<u8> = (0..700_000u32).map(|number| (number % 251) as u8).collect();
    assert!(machine.write_file("/run/deep/content", 0o640, &content).unwrap());
    assert!(!machine.write_file("/run/deep/content", 0o640, &content).unwrap());
    assert_eq!(machine.read_file("/run/deep/content", 1 << 20).unwrap(), content);
    assert!(machine.read_file("/run/deep/content", 1000).is_err());
    machine.ping().unwrap();
    let (exited, said) = probe(&mut machine, &["read", "/run/deep/content", "3"]);
    assert_eq!((exited.status, said.as_str()), (Some(0), "\u{0}\u{1}\u{2}"));
    let facts = machine.facts().unwrap();
    assert!(facts.listening.is_empty(), "{:?}", facts.listening);
    let sealed = machine.power_off(base::BOOT).unwrap();
    assert!(sealed.overlays.is_empty());
}

#[test]
fn the_probe_of_kvm_gives_an_answer_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let base = base::base();
    let guest = harness::accelerator::ProbeGuest {
        kernel: pinned(&base.join("vmlinuz")),
        nano: pinned(&base.join("nano.cpio")),
        confinement: confinement(),
        scratch: folder.path().to_owned(),
    };
    let cache = folder.path().join("cache/accelerator.json");
    let qemu = Qemu::find().unwrap();
    let first = harness::accelerator::probe(&qemu, &guest, &cache).unwrap();
    println!("{}", first.reason);
    assert!(!first.cached && !first.reason.is_empty());
    let second = harness::accelerator::probe(&qemu, &guest, &cache).unwrap();
    assert!(second.cached);
    assert_eq!((second.accelerator, second.reason), (first.accelerator, first.reason));
    if first.accelerator == Accelerator::Kvm {
        let mut machine =
            boot(harness::MachineSpec { accelerator: Accelerator::Kvm, ..nano("kvm", folder.path()) });
        machine.ping().unwrap();
    }
}
