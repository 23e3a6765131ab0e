//! Descriptors that QEMU inherits, and the numbers by which its arguments name them.

use std::os::fd::OwnedFd;

use command_fds::FdMapping;

/// The first number used; 0 to 2 are the standard streams.
const FIRST: i32 = 10;

/// A descriptor by its number in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited(pub(crate) i32);

impl Inherited {
    /// As a file name that QEMU can open without any permission on our folders.
    #[must_use]
    pub fn path(self) -> String {
        format!("/proc/self/fd/{}", self.0)
    }
}

impl std::fmt::Display for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of descriptors of one file, from which QEMU takes the one with the access it wants; by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdSet {
    /// `/dev/fdset/N`.
    pub number: u32,
    /// One descriptor for each kind of access.
    pub members: Vec<Inherited>,
}

/// Collects what a machine inherits.
#[derive(Default)]
pub(crate) struct Descriptors {
    mappings: Vec<FdMapping>,
    sets: u32,
}

impl Descriptors {
    pub(crate) fn inherit(&mut self, descriptor: impl Into<OwnedFd>) -> Inherited {
        let child_fd = FIRST + i32::try_from(self.mappings.len()).expect("a handful of descriptors");
        self.mappings.push(FdMapping { parent_fd: descriptor.into(), child_fd });
        Inherited(child_fd)
    }

    pub(crate) fn set<D: Into<OwnedFd>>(&mut self, descriptors: impl IntoIterator<Item = D>) -> FdSet {
        let members = descriptors.into_iter().map(|descriptor| self.inherit(descriptor)).collect();
        self.sets += 1;
        FdSet { number: self.sets, members }
    }

    pub(crate) fn into_mappings(self) -> Vec<FdMapping> {
        self.mappings
    }
}
