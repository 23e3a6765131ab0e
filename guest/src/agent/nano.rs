//! Nano mode: the agent is `/init` of a machine that runs nothing of a disk. A disk that it has is looked at, never entered.
//!
//! Process 1 only prepares the machine and reaps what is orphaned; the agent proper is its child, so that waiting for any
//! child here never takes the end of a command away from who started it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use guest::control::{self, DISK_MOUNT, Mode};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, WaitOptions};
use rustix::system::finit_module;

use super::entropy::Pool;
use super::failure::Fatal;
use super::port::Port;
use super::rest::Repose;
use super::root::Root;
use super::serve::{self, Machine, Place};
use super::sight::Sight;
use super::{kmsg, link, power};

/// Modules to load, one path a line, in this order.
const MODULES: &str = "/modules.list";
/// The disk to look at.
const DISK: &str = "/dev/vda";
/// How long the control port may take to appear.
const PORT_LIMIT: Duration = Duration::from_secs(30);

/// Process 1: does not return while the machine lives.
pub(crate) fn run_as_init() -> Result<(), Fatal> {
    prepare();
    match start_and_reap() {
        Ok(()) => kmsg::say("the agent ended, turning the machine off"),
        Err(error) => kmsg::say(&format!("cannot go on: {error}")),
    }
    power::at_once();
    // Only reached if the machine cannot be turned off; an end of process 1 would be a panic of the kernel.
    loop {
        std::thread::park();
    }
}

fn start_and_reap() -> Result<(), Fatal> {
    let child = Command::new("/proc/self/exe").arg("serve-nano").env_clear().stdin(Stdio::null()).spawn()?;
    let agent = Pid::from_child(&child);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == agent => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The agent proper.
pub(crate) fn serve_nano() -> Result<(), Fatal> {
    kmsg::open();
    rustix::process::setsid()?;
    fs::write("/proc/self/oom_score_adj", "-1000")?;
    rustix::process::setpriority_process(None, serve::PRIORITY)?;
    let repose = Repose::alone(Pool::open()?);
    let mut control = Port::open(control::PORT, PORT_LIMIT)?;
    let relay = Port::open(guest::relay::PORT, Duration::ZERO).ok();
    serve::hello(&mut control, Mode::Nano, serve::boot_id()?)?;
    serve::serve_port(
        control,
        Machine::new(Root::open("/")?, Sight::plain()?, Place::Guest(Mode::Nano), Some(repose), relay),
    )
}

/// Mounts what the agent needs, loads the modules, brings the loopback interface up. What fails is said and passed over: the
/// host sees from the hello, or its absence, whether enough is there.
fn prepare() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounts = [
        ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755"),
        ("proc", "/proc", quiet, ""),
        ("sysfs", "/sys", quiet, ""),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755"),
        ("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777"),
    ];
    let mut troubles = Vec::new();
    for (kind, folder, flags, options) in mounts {
        if let Err(error) = mount_on(kind, folder, flags, options) {
            troubles.push(format!("cannot mount {folder}: {error}"));
        }
    }
    kmsg::open();
    for trouble in troubles {
        kmsg::say(&trouble);
    }
    for module in fs::read_to_string(MODULES).unwrap_or_default().lines().filter(|line| !line.is_empty()) {
        if let Err(error) = load(module) {
            kmsg::say(&format!("cannot load {module}: {error}"));
        }
    }
    if let Err(error) = link::loopback_up() {
        kmsg::say(&format!("cannot bring lo up: {error}"));
    }
}

fn mount_on(kind: &str, folder: &str, flags: MountFlags, options: &str) -> Result<(), Fatal> {
    if !Path::new(folder).is_dir() {
        fs::create_dir(folder)?;
    }
    Ok(mount(kind, folder, kind, flags, &*CString::new(options)?)?)
}

/// The disk, mounted read-only. A journal that would have to be replayed is an error: the device cannot be written, and what a
/// later boot makes of it would be another disk than the one that was looked at.
pub(crate) fn disk() -> io::Result<Root> {
    if !Path::new(DISK_MOUNT).is_dir() {
        fs::create_dir(DISK_MOUNT)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(DISK, DISK_MOUNT, "ext4", flags, None)?;
    }
    Root::open(DISK_MOUNT)
}

fn load(module: &str) -> Result<(), Fatal> {
    match finit_module(File::open(module)?, c"", 0) {
        // Built in, or loaded as another's dependency.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
