//! QEMU's argument list: a pure function of what was decided, one small function for each group of flags.

use serde_json::json;

use crate::accelerator::Accelerator;
pub use crate::descriptors::{FdSet, Inherited};
use crate::spec::{Forward, Network};

/// Name of the control port in QEMU's events.
pub(crate) const CONTROL_PORT: &str = "control";
/// The machine type. `pc` boots no faster (within the noise of four boots each); this one can be had without disk controllers
/// and other devices that nobody uses, and its virtio devices have no legacy interface.
pub const MACHINE_TYPE: &str = "q35";
/// Size of the cache of translated code, in MiB.
const TRANSLATION_CACHE_MIB: u32 = 256;

/// Everything the arguments say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name of the machine.
    pub name: String,
    /// How its processor is made.
    pub processor: Processor,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// How it begins.
    pub begin: Begin,
    /// The disk, if there is one.
    pub disk: Option<Disk>,
    /// The network card.
    pub network: Network,
    /// Socket of QEMU's monitor (QMP).
    pub monitor: Inherited,
    /// Socket of the serial console.
    pub console: Inherited,
    /// Socket of the control port.
    pub control: Inherited,
    /// Socket of the relay port, if there is one.
    pub relay: Option<Inherited>,
}

/// How a machine begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It boots.
    Boot {
        /// The kernel, as sealed memory.
        kernel: Inherited,
        /// The initramfs, as sealed memory.
        initrd: Inherited,
        /// Kernel command line.
        command_line: String,
        /// What makes it a template's source, if it is to be one.
        kept: Option<Kept>,
    },
    /// It waits for the device state of a template.
    Clone {
        /// The template's RAM, of which this machine has a copy as soon as it writes.
        memory: Inherited,
        /// The template's device state.
        state: FdSet,
    },
}

/// What a template's source leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its RAM, shared with us.
    pub memory: Inherited,
    /// Where its device state is written.
    pub state: FdSet,
}

/// How the processor of a machine is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processor {
    /// By the host's processor; the set holds `/dev/kvm`, which QEMU's user may not open itself.
    Kvm(FdSet),
    /// By software.
    Tcg,
}

/// The chain of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Read-only images, bottom up: base and layers.
    pub sealed: Vec<FdSet>,
    /// Writable overlays, bottom up: node name and file. The machine starts on the first, or read-only if there is none.
    pub overlays: Vec<(String, FdSet)>,
}

/// The argument list, without the program itself.
#[must_use]
pub fn arguments(launch: &Launch) -> Vec<String> {
    [
        identity(launch),
        isolation(),
        processor(launch),
        memory(launch),
        begin(&launch.begin),
        monitor(launch),
        ports(launch),
        randomness(),
        launch.disk.as_ref().map(disk).unwrap_or_default(),
        network(&launch.network),
    ]
    .concat()
}

fn identity(launch: &Launch) -> Vec<String> {
    strings(["-name", &format!("guest={}", launch.name)])
}

/// Nothing that was not asked for, and no way out of the process: no new programs, no other user, no old calls.
fn isolation() -> Vec<String> {
    strings([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ])
}

/// The model of processor that a guest sees.
pub(crate) fn processor_model(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "qemu64",
    }
}

fn processor(launch: &Launch) -> Vec<String> {
    let (accelerator, model, sets) = match &launch.processor {
        Processor::Kvm(device) => (
            format!("kvm,device=/dev/fdset/{}", device.number),
            processor_model(Accelerator::Kvm),
            add_fds([device]),
        ),
        Processor::Tcg => (
            format!("tcg,thread=single,tb-size={TRANSLATION_CACHE_MIB}"),
            processor_model(Accelerator::Tcg),
            Vec::new(),
        ),
    };
    let mut out = sets;
    // One core: under software emulation more of them only made the boot slower.
    let memory = if memory_file(launch).is_some() { ",memory-backend=ram" } else { "" };
    out.extend(strings([
        "-machine",
        &format!("{MACHINE_TYPE},usb=off,sata=off,smbus=off,vmport=off,hpet=off{memory}"),
        "-accel",
        &accelerator,
        "-cpu",
        model,
        "-smp",
        "1",
    ]));
    out
}

/// RAM that is a file to QEMU, and how it maps it: shared with us, or as a private copy of what must never change.
fn memory_file(launch: &Launch) -> Option<(Inherited, &'static str)> {
    match &launch.begin {
        Begin::Boot { kept, .. } => kept.as_ref().map(|kept| (kept.memory, "share=on")),
        Begin::Clone { memory, .. } => Some((*memory, "share=off,readonly=on,rom=off")),
    }
}

fn memory(launch: &Launch) -> Vec<String> {
    let size = format!("size={}M", launch.memory_mib);
    let mut out = strings(["-m", &size]);
    if let Some((file, how)) = memory_file(launch) {
        let path = file.path();
        out.extend(strings(["-object", &format!("memory-backend-file,id=ram,{size},mem-path={path},{how}")]));
    }
    out
}

fn begin(begin: &Begin) -> Vec<String> {
    match begin {
        Begin::Boot { kernel, initrd, command_line, kept } => {
            let mut out = add_fds(kept.as_ref().map(|kept| &kept.state));
            let (kernel, initrd) = (kernel.path(), initrd.path());
            out.extend(strings(["-kernel", &kernel, "-initrd", &initrd, "-append", command_line]));
            out
        }
        Begin::Clone { state, .. } => {
            let mut out = add_fds([state]);
            out.extend(strings(["-S", "-incoming", "defer"]));
            out
        }
    }
}

fn monitor(launch: &Launch) -> Vec<String> {
    strings([
        "-chardev",
        &format!("socket,id=monitor,fd={}", launch.monitor),
        "-mon",
        "chardev=monitor,mode=control",
        "-chardev",
        &format!("socket,id=console,fd={}", launch.console),
        "-device",
        "isa-serial,chardev=console",
    ])
}

/// The virtio-serial ports: each has a name that the agent looks for.
fn ports(launch: &Launch) -> Vec<String> {
    let mut out = strings(["-device", "virtio-serial-pci,id=ports"]);
    let control = Some((CONTROL_PORT, guest::control::PORT, launch.control));
    let relay = launch.relay.map(|relay| ("relay", guest::relay::PORT, relay));
    for (id, name, descriptor) in control.into_iter().chain(relay) {
        out.extend(strings([
            "-chardev",
            &format!("socket,id={id},fd={descriptor}"),
            "-device",
            &format!("virtserialport,bus=ports.0,id={id},chardev={id},name={name}"),
        ]));
    }
    out
}

fn randomness() -> Vec<String> {
    strings(["-object", "rng-builtin,id=random", "-device", "virtio-rng-pci,rng=random"])
}

/// Each image is a node of its own with its backing node named, so that no header decides what is opened.
fn disk(disk: &Disk) -> Vec<String> {
    let mut out = add_fds(disk.sealed.iter().chain(disk.overlays.iter().map(|(_, set)| set)));
    let mut backing: Option<String> = None;
    for (height, set) in disk.sealed.iter().enumerate() {
        let node = format!("sealed{height}");
        // Without locks: they would let one escaped QEMU keep all others from the base.
        let file =
            json!({"driver": "file", "filename": format!("/dev/fdset/{}", set.number), "locking": "off"});
        let image = json!({"driver": "qcow2", "node-name": node, "read-only": true, "file": file, "backing": backing});
        out.extend(strings(["-blockdev", &image.to_string()]));
        backing = Some(node);
    }
    for (node, set) in &disk.overlays {
        // Without flushes: a machine that did not end in order is thrown away, one that did is flushed by the host.
        let file = json!({
            "driver": "file", "filename": format!("/dev/fdset/{}", set.number), "cache": {"no-flush": true},
        });
        // The second overlay has no backing node until the snapshot puts it on top of the first.
        let image = json!({"driver": "qcow2", "node-name": node, "file": file, "backing": backing.take()});
        out.extend(strings(["-blockdev", &image.to_string()]));
    }
    if let Some(node) = disk.overlays.first().map(|(node, _)| node).or(backing.as_ref()) {
        out.extend(strings(["-device", &format!("virtio-blk-pci,id=disk,drive={node}")]));
    }
    out
}

fn network(network: &Network) -> Vec<String> {
    match network {
        Network::None => strings(["-nic", "none"]),
        Network::Restricted { forwards } => {
            let mut user = "user,id=network,restrict=on".to_owned();
            for Forward { host, guest } in forwards {
                user.push_str(&format!(",hostfwd=tcp:{}:{}-:{guest}", host.ip(), host.port()));
            }
            strings(["-netdev", &user, "-device", "virtio-net-pci,netdev=network,romfile="])
        }
    }
}

fn add_fds<'a>(sets: impl IntoIterator<Item = &'a FdSet>) -> Vec<String> {
    sets.into_iter()
        .flat_map(|set| set.members.iter().map(move |member| format!("fd={member},set={}", set.number)))
        .flat_map(|argument| ["-add-fd".to_owned(), argument])
        .collect()
}

fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano() -> Launch {
        Launch {
            name: "nano".into(),
            processor: Processor::Tcg,
            memory_mib: 256,
            begin: Begin::Boot {
                kernel: Inherited(10),
                initrd: Inherited(11),
                command_line: "rdinit=/init console=ttyS0".into(),
                kept: None,
            },
            disk: None,
            network: Network::None,
            monitor: Inherited(12),
            console: Inherited(13),
            control: Inherited(14),
            relay: None,
        }
    }

    fn set(number: u32, members: &[i32]) -> FdSet {
        FdSet { number, members: members.iter().copied().map(Inherited).collect() }
    }

    fn assert_golden(launch: &Launch, golden: &str) {
        let lines = arguments(launch).join("\n");
        assert_eq!(lines.trim(), golden.trim(), "\n{lines}");
    }

    #[test]
    fn a_nano_guest() {
        assert_golden(&nano(), include_str!("../tests/golden/nano.txt"));
    }

    #[test]
    fn a_building_machine_with_layers_relay_and_two_overlays() {
        let launch = Launch {
            relay: Some(Inherited(15)),
            disk: Some(Disk {
                sealed: vec![set(1, &[16]), set(2, &[17])],
                overlays: vec![
                    ("overlay-vo".into(), set(3, &[18, 19])),
                    ("overlay-site".into(), set(4, &[20, 21])),
                ],
            }),
            ..nano()
        };
        assert_golden(&launch, include_str!("../tests/golden/build.txt"));
    }

    #[test]
    fn a_nano_guest_that_looks_at_a_sealed_disk() {
        let disk = Disk { sealed: vec![set(1, &[16]), set(2, &[17])], overlays: Vec::new() };
        assert_golden(&Launch { disk: Some(disk), ..nano() }, include_str!("../tests/golden/inspect.txt"));
    }

    #[test]
    fn a_templates_source_and_its_clone_differ_in_their_memory_and_their_beginning() {
        let boot = nano().begin;
        let Begin::Boot { kernel, initrd, command_line, .. } = boot else { panic!("a nano guest boots") };
        let kept = Some(Kept { memory: Inherited(16), state: set(1, &[17]) });
        let source = Launch { begin: Begin::Boot { kernel, initrd, command_line, kept }, ..nano() };
        assert_golden(&source, include_str!("../tests/golden/source.txt"));
        let begin = Begin::Clone { memory: Inherited(10), state: set(1, &[11]) };
        assert_golden(&Launch { begin, ..nano() }, include_str!("../tests/golden/clone.txt"));
    }

    #[test]
    fn an_instance_with_forwards_under_kvm() {
        let forwards = vec![
            Forward { host: "127.0.0.1:8080".parse().unwrap(), guest: 80 },
            Forward { host: "192.0.2.7:443".parse().unwrap(), guest: 443 },
        ];
        let launch = Launch {
            processor: Processor::Kvm(set(1, &[15])),
            network: Network::Restricted { forwards },
            ..nano()
        };
        assert_golden(&launch, include_str!("../tests/golden/instance.txt"));
    }

    #[test]
    fn every_machine_is_sandboxed_and_has_no_way_to_an_open_network() {
        for network in [Network::None, Network::Restricted { forwards: Vec::new() }] {
            let all = arguments(&Launch { network, ..nano() }).join(" ");
            assert!(all.contains(
                "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
            ));
            assert!(all.contains("-nodefaults") && all.contains("-no-user-config"));
            assert!(all.contains("-nic none") || all.contains("restrict=on"));
        }
    }
}
