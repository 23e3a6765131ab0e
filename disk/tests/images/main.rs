//! Sealed disks made by `mke2fs`, `debugfs`, QEMU and the kernel, compared with their bases; and disks that nobody should trust.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod account;
mod changes;
mod crafted;
mod directories;
mod fuzz;
mod image;
mod mounted;
mod qcow2;
mod superblock;
mod walked;
