//! Freezing a file system: the two ioctls that no crate wraps.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{IntegerSetter, Opcode, ioctl};

/// `_IOWR('X', 119, int)` of `linux/fs.h`.
const FIFREEZE: Opcode = rustix::ioctl::opcode::read_write::<i32>(b'X', 119);
/// `_IOWR('X', 120, int)` of `linux/fs.h`.
const FITHAW: Opcode = rustix::ioctl::opcode::read_write::<i32>(b'X', 120);

/// Flushes and freezes the file system that `inside` lies on; whoever writes to it then waits.
///
/// # Errors
/// From the system: it cannot freeze, or is frozen (`EBUSY`).
pub(crate) fn freeze(inside: impl AsFd) -> io::Result<()> {
    // SAFETY: the kernel ignores the argument of FIFREEZE (fs/ioctl.c, ioctl_fsfreeze): no memory is read or
    // written, so any integer is a valid argument and nothing is produced.
    #[allow(unsafe_code, reason = "rustix has no wrapper of FIFREEZE")]
    let ended = unsafe { ioctl(inside, IntegerSetter::<FIFREEZE>::new_usize(0)) };
    ended.map_err(io::Error::from)
}

/// Undoes [`freeze`].
///
/// # Errors
/// From the system: it is not frozen (`EINVAL`).
pub(crate) fn thaw(inside: impl AsFd) -> io::Result<()> {
    // SAFETY: as for FIFREEZE, the kernel ignores the argument of FITHAW.
    #[allow(unsafe_code, reason = "rustix has no wrapper of FITHAW")]
    let ended = unsafe { ioctl(inside, IntegerSetter::<FITHAW>::new_usize(0)) };
    ended.map_err(io::Error::from)
}
