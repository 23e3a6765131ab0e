//! The command line of a worker.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use command_fds::CommandFdExt;
use rustix::thread::CapabilitySet;

use super::handover::Orders;
use super::{Entry, Network, Reading, WorkLimits};
use crate::artifact::sealed_memory;
use crate::confinement::{Bounds, UserLease, confined};
use crate::descriptors::Descriptors;
use crate::error::HarnessError;
use crate::qemu::look_up;

/// Address space for what is only read: the program, its libraries, and windows on files.
const MAPPED_BYTES: u64 = 4 << 30;
/// Descriptors that the child has beside those of its order: standard streams, the program, the request, the answer, and
/// what the test's harness holds.
const OWN_FILES: u32 = 16;

/// Everything that decides how a child is started.
pub(super) struct Start<'a> {
    pub(super) entry: &'a Entry,
    pub(super) job: &'static str,
    pub(super) lease: &'a UserLease,
    pub(super) orders: &'a Orders,
    pub(super) environment: &'a [(&'static str, String)],
    pub(super) limits: &'a WorkLimits,
}

impl Start<'_> {
    /// Starts the child; it ends when the thread that calls this ends.
    pub(super) fn spawn(&self, stdin: OwnedFd) -> Result<Child, HarnessError> {
        let (prlimit, setpriv) =
            (look_up("prlimit", "util-linux")?, look_up("setpriv", "util-linux 2.33 or later")?);
        let mut descriptors = Descriptors::default();
        // By descriptor: the child's user may not reach the folder that the program lies in.
        let program = descriptors.inherit(program()?);
        let bounds = self.bounds()?;
        let mut command = confined(&prlimit, &setpriv, self.lease, &bounds, Path::new(&program.path()));
        command.args(&self.entry.arguments).arg(self.job);
        // One arena: others reserve address space that nobody uses.
        command.env("MALLOC_ARENA_MAX", "1").envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C ends us, and our end ends it, so that nobody takes its end for a failure.
        command.process_group(0);
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        start(command, descriptors).map_err(|source| HarnessError::process("start a worker", source))
    }

    fn bounds(&self) -> Result<Bounds, HarnessError> {
        let limits = self.limits;
        let as_caller = matches!(self.orders.reading, Reading::AsCaller(_));
        Ok(Bounds {
            address_space: limits.memory_bytes.saturating_add(MAPPED_BYTES),
            data: Some(limits.memory_bytes),
            cpu_seconds: Some(limits.cpu_seconds),
            file_bytes: limits.file_bytes,
            open_files: limits.open_files.saturating_add(OWN_FILES),
            threads: self.entry.threads.saturating_add(limits.threads),
            capability: as_caller.then_some("dac_read_search"),
            unshare: self.unshare()?,
        })
    }

    /// Only who may make namespaces can take the network away like this; a container's root often may not.
    fn unshare(&self) -> Result<Option<PathBuf>, HarnessError> {
        let may = rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        if self.orders.network == Network::Host || !may {
            return Ok(None);
        }
        look_up("unshare", "util-linux").map(Some)
    }
}

fn start(mut command: Command, descriptors: Descriptors) -> io::Result<Child> {
    command.fd_mappings(descriptors.into_mappings()).map_err(io::Error::other)?;
    command.spawn()
}

/// This program itself, open; a copy in memory where others may not execute it.
fn program() -> Result<OwnedFd, HarnessError> {
    let path = Path::new("/proc/self/exe");
    let open = || -> io::Result<(File, Permissions)> {
        let file = File::open(path)?;
        let permissions = file.metadata()?.permissions();
        Ok((file, permissions))
    };
    let (file, permissions) = open().map_err(|source| HarnessError::system("open", path, source))?;
    if permissions.mode() & 0o001 != 0 {
        return Ok(file.into());
    }
    let bytes = std::fs::read(path).map_err(|source| HarnessError::system("read", path, source))?;
    sealed_memory("program", &[&bytes])
}
