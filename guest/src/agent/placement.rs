//! Disk mode: the agent is started by the base's initramfs, before any byte of the disk has run, and stays.
//!
//! `disk ROOT` starts the agent proper as a process of its own and waits until it has said hello, so the boot goes on only
//! under the host's eyes. The agent proper takes the ports while `/dev` and `/sys` are still the initramfs's, then enters ROOT:
//! the initramfs's init moves that mount to `/` a moment later, and being inside it keeps working.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest::control::{self, Mode};
use rustix::event::{PollFd, PollFlags, poll};

use super::cgroups::Hierarchy;
use super::entropy::Pool;
use super::exec::timespec;
use super::failure::Fatal;
use super::kmsg;
use super::port::Port;
use super::rest::Repose;
use super::root::Root;
use super::serve::{self, Machine, Place};
use super::sight::Sight;

/// How long the boot waits for the agent's hello.
const HELLO_LIMIT: Duration = Duration::from_secs(20);
/// How long the control port may take to appear.
const PORT_LIMIT: Duration = Duration::from_secs(15);
/// How long `/proc` may take to follow into the new root.
const PROC_LIMIT: Duration = Duration::from_secs(60);
/// Sent over the pipe once hello is said.
const READY: u8 = b'r';
/// systemd spares processes of root whose first argument begins with `@` from the killing at shutdown
/// (systemd.io/ROOT_STORAGE_DAEMONS), so the host hears the agent to the end.
const NAME: &str = "@countersign-agent";

/// Starts the agent proper for the disk mounted at `root` and waits until it is there.
pub(crate) fn place(root: &str) -> Result<(), Fatal> {
    kmsg::open();
    let mut child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .args(["serve-disk", root])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let said = child.stdout.take().is_some_and(|pipe| wait_ready(pipe, HELLO_LIMIT));
    if said { Ok(()) } else { Err("the agent did not reach the host; the boot ends here".into()) }
}

fn wait_ready(mut pipe: ChildStdout, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timespec(left))) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => {
                let mut said = [0];
                return pipe.read_exact(&mut said).is_ok() && said[0] == READY;
            }
        }
    }
}

/// The agent proper: takes the ports, says hello, enters `root` and serves.
pub(crate) fn serve_disk(root: &str) -> Result<(), Fatal> {
    kmsg::open();
    rustix::process::setsid()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    fs::write("/proc/self/oom_score_adj", "-1000")?;
    rustix::process::setpriority_process(None, serve::PRIORITY)?;
    let boot_id = serve::boot_id()?;
    let folder = Root::open(root)?;
    // Now: from here on the disk may mount what it likes.
    let sight = Sight::detached(&folder)?;
    let repose = Repose::among(Hierarchy::detached()?, Pool::open()?);
    let mut control = Port::open(control::PORT, PORT_LIMIT)?;
    let relay = Port::open(guest::relay::PORT, Duration::ZERO).ok();
    serve::hello(&mut control, Mode::Disk, boot_id)?;

    rustix::process::fchdir(&folder)?;
    rustix::process::chroot(".")?;
    rustix::io::write(rustix::stdio::stdout(), &[READY])?;
    let nowhere = fs::File::open(Path::new("/"))?;
    rustix::stdio::dup2_stdout(&nowhere)?;

    let deadline = Instant::now() + PROC_LIMIT;
    while !Path::new("/proc/self/exe").exists() {
        if Instant::now() >= deadline {
            return Err("/proc did not follow into the new root".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let machine = Machine::new(Root::open("/")?, sight, Place::Guest(Mode::Disk), Some(repose), relay);
    serve::serve_port(control, machine)
}
