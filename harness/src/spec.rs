//! What a machine is to be.

use std::fs::File;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guest::control::Mode;

use crate::accelerator::Accelerator;
use crate::artifact::{Part, Pinned, open_disk};
use crate::confinement::Confinement;
use crate::error::HarnessError;
use crate::origin::RelayPolicy;
use crate::relay::{RelayEvent, RelayLimits};
use crate::template::Template;

/// Kernel command line of a machine with a disk: the disk is `/dev/vda`, without partitions.
///
/// A panic ends the machine at once (`panic=-1` with `-no-reboot`), so that it is noticed. `no_timer_check`: the kernel measures
/// the timer against its own loops and panics where a busy host lets neither run in time; it trusts KVM's timer without asking.
pub const DISK_COMMAND_LINE: &str =
    "root=/dev/vda rootfstype=ext4 rw console=ttyS0 panic=-1 no_timer_check net.ifnames=0 quiet";
/// Kernel command line of a nano guest.
pub const NANO_COMMAND_LINE: &str = "rdinit=/init console=ttyS0 panic=-1 no_timer_check quiet";

/// Everything that decides a machine.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// For logs and the process list: `[a-z0-9-]`, at most 64 characters.
    pub name: String,
    /// How it begins.
    pub start: Start,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// The disk, if it has one.
    pub disk: Option<DiskSpec>,
    /// The network card.
    pub network: Network,
    /// The relay to declared origins; a building machine has this instead of a network.
    pub relay: Option<RelaySpec>,
    /// As found by [`crate::accelerator::probe`].
    pub accelerator: Accelerator,
    /// Users set aside for machines.
    pub confinement: Confinement,
    /// Folder for this machine alone. It is made here (0700) and must not exist before; overlays and the console's log lie in it.
    pub run_dir: PathBuf,
    /// Limits of the process.
    pub limits: MachineLimits,
}

/// How a machine begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// It boots.
    Boot(Boot),
    /// It goes on where a template was paused. Memory, processor, card, relay port and disk must be those of the template,
    /// and so must QEMU's version; the template's overlay comes on top of the layers that [`DiskSpec`] names.
    Clone(Template, Written),
}

/// Where a clone has what its template's machine had written to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// In the template's overlay, below its own.
    Below,
    /// In its own first overlay, which begins as a copy of the template's: it is sealed as one layer.
    Copied,
}

impl Start {
    /// A boot of what is thrown away afterwards.
    #[must_use]
    pub fn boot(kernel: Pinned, initrd: Initrd, command_line: &str) -> Self {
        Self::Boot(Boot { kernel, initrd, command_line: command_line.to_owned(), memory: Memory::Private })
    }

    /// What kind of guest it is.
    pub(crate) fn mode(&self) -> Mode {
        match self {
            Self::Boot(Boot { initrd: Initrd::Disk(_), .. }) => Mode::Disk,
            Self::Boot(Boot { initrd: Initrd::Nano(_), .. }) => Mode::Nano,
            Self::Clone(template, _) => template.mode(),
        }
    }
}

/// What a machine boots.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The kernel (bzImage).
    pub kernel: Pinned,
    /// The base's initramfs; the agent is added by the harness.
    pub initrd: Initrd,
    /// Kernel command line; usually [`DISK_COMMAND_LINE`] or [`NANO_COMMAND_LINE`].
    pub command_line: String,
    /// Where its memory lies.
    pub memory: Memory,
}

/// Where the memory of a machine lies that boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// In QEMU alone.
    Private,
    /// In memory that this process shares with QEMU, so that the machine can become a template
    /// ([`crate::Machine::into_template`]).
    Kept,
}

/// Which initramfs the machine starts from.
#[derive(Clone, Debug)]
pub enum Initrd {
    /// The base's own initramfs (initramfs-tools), to which the agent's injection is appended.
    Disk(Pinned),
    /// A cpio with kernel modules, to which the agent is appended as `/init`.
    Nano(Pinned),
}

/// The chain of a disk, bottom up.
#[derive(Clone, Debug)]
pub struct DiskSpec {
    /// The base image's disk (qcow2).
    pub base: Pinned,
    /// Sealed layers (qcow2), bottom up; read-only.
    pub layers: Vec<Pinned>,
    /// Names of up to two new writable overlays, bottom up: `[a-z0-9-]`. Without any, the machine cannot write to the disk, which
    /// only a nano guest can do with. It starts on the first; a second is
    /// entered by [`crate::Machine::switch_overlay`].
    pub overlays: Vec<String>,
}

impl DiskSpec {
    /// Base and layers, bottom up: opened read-only, and each checked through the descriptor that is given.
    ///
    /// # Errors
    /// [`HarnessError::BaseMismatch`], [`HarnessError::LayerMismatch`]; what cannot be opened.
    pub fn open(&self) -> Result<Vec<File>, HarnessError> {
        let layers = self.layers.iter().map(|layer| (layer, Part::Layer));
        std::iter::once((&self.base, Part::Base))
            .chain(layers)
            .map(|(pinned, part)| Ok(open_disk(pinned, part)?.file))
            .collect()
    }
}

/// The network card of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// No card at all.
    #[default]
    None,
    /// User-mode network that reaches nothing (`restrict=on`); only the forwards come in.
    Restricted {
        /// Ports of the host that lead into the guest.
        forwards: Vec<Forward>,
    },
}

/// A TCP port of the host that leads into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens.
    pub host: SocketAddrV4,
    /// Port in the guest.
    pub guest: u16,
}

/// What the relay admits, and who hears of it.
#[derive(Clone)]
pub struct RelaySpec {
    /// The declared origins.
    pub policy: RelayPolicy,
    /// Sizes and times.
    pub limits: RelayLimits,
    /// Called once for each request, from the relay's own threads.
    pub events: Arc<dyn Fn(RelayEvent) + Send + Sync>,
}

impl std::fmt::Debug for RelaySpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelaySpec").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Limits of the QEMU process.
#[derive(Clone, Debug)]
pub struct MachineLimits {
    /// The machine is killed after this time; `None` only for an instance that is to stay.
    pub wall_clock: Option<Duration>,
    /// Largest file QEMU may write, in bytes: the size an overlay may reach.
    pub file_bytes: u64,
    /// Address space on top of the guest's memory, in MiB: QEMU itself, its translation cache, its stacks.
    pub overhead_mib: u32,
    /// Open descriptors.
    pub open_files: u32,
    /// Threads of the machine's user.
    pub threads: u32,
    /// Bytes of console output kept in the log file; what comes later is only kept in the tail.
    pub console_log_bytes: u64,
}

impl MachineLimits {
    /// For building and testing: an hour, 16 GiB of overlay.
    pub const STANDARD: Self = Self {
        wall_clock: Some(Duration::from_secs(3600)),
        file_bytes: 16 << 30,
        overhead_mib: 3072,
        open_files: 512,
        threads: 256,
        console_log_bytes: 16 << 20,
    };
}

/// Longest name of a machine or overlay.
const MAX_NAME: usize = 64;
/// Guest memory that is accepted, in MiB.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 64..=65_536;
/// The kernel's own limit (`COMMAND_LINE_SIZE` of x86).
const MAX_COMMAND_LINE: usize = 2047;

impl MachineSpec {
    /// Refuses what cannot be a machine, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), HarnessError> {
        let bad = |reason: String| {
            Err(HarnessError::BadSpec { machine: self.name.escape_default().to_string(), reason })
        };
        if !is_name(&self.name) {
            return bad("a name has 1 to 64 characters of a-z, 0-9 and -".into());
        }
        if !MEMORY_MIB.contains(&self.memory_mib) {
            return bad(format!("{} MiB of memory is outside {MEMORY_MIB:?}", self.memory_mib));
        }
        if let Start::Boot(Boot { command_line, .. }) = &self.start
            && (command_line.len() > MAX_COMMAND_LINE || command_line.chars().any(char::is_control))
        {
            return bad("the kernel command line is too long or has control characters".into());
        }
        if let Some(disk) = &self.disk {
            if disk.overlays.len() > 2 || !disk.overlays.iter().all(|name| is_name(name)) {
                return bad("a disk has at most two overlays with names of a-z, 0-9 and -".into());
            }
            if disk.overlays.is_empty() && self.start.mode() == Mode::Disk {
                return bad("a machine that boots from its disk needs an overlay to write to".into());
            }
            if disk.overlays.len() == 2 && disk.overlays[0] == disk.overlays[1] {
                return bad("the two overlays have the same name".into());
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
