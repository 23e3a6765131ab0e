//! What makes the kernel itself start programs: settings of procfs, and the handlers of binfmt_misc.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use guest::facts::{Helper, MAX_ENTRIES};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::super::escape::escaped;
use super::super::root;
use super::super::sight::Proc;
use super::{Absence, Notes, proc_text};

const LIST: &str = "helpers";
/// Files of `/proc/sys/kernel` that name a program (core(5), Linux `admin-guide/sysctl/kernel`).
const SETTINGS: [&str; 4] = ["core_pattern", "hotplug", "modprobe", "poweroff_cmd"];
/// How the kernel knows the file system of handlers.
const HANDLERS: &str = "binfmt_misc";
/// Files there that are no handlers.
const CONTROLS: [&str; 2] = ["register", "status"];
/// Longest text of a handler that is read, in bytes: a page.
const MAX_HANDLER: usize = 4096;

/// All of them, sorted.
pub(super) fn all(proc: &Proc, notes: &mut Notes) -> Vec<Helper> {
    let mut helpers: Vec<_> = SETTINGS
        .iter()
        .filter_map(|name| {
            // What the kernel does not have it does not start.
            let path = Path::new("sys/kernel").join(name);
            let text = proc_text(proc, LIST, &path, Absence::Normal, notes)?;
            Some(Helper { name: (*name).to_owned(), text: text.trim_end().to_owned() })
        })
        .collect();
    // Asking would load the module, and looking must not change what is seen; without it there are no handlers.
    let systems = proc_text(proc, LIST, Path::new("filesystems"), Absence::Told, notes).unwrap_or_default();
    if systems.lines().any(|line| line.split_whitespace().last() == Some(HANDLERS))
        && let Err(error) = handlers(&mut helpers, notes)
    {
        notes.add(format!("{LIST}: {HANDLERS}: {error}"));
    }
    helpers.sort();
    helpers
}

/// Adds each handler, from a mount of our own, for anything may be mounted over the guest's.
fn handlers(helpers: &mut Vec<Helper>, notes: &mut Notes) -> io::Result<()> {
    let context = fsopen(HANDLERS, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let folder = open(&mounted, OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
    for entry in root::list(folder, MAX_ENTRIES)? {
        let name = entry.name.as_os_str();
        if CONTROLS.iter().any(|control| name == *control) {
            continue;
        }
        let file = File::from(open(&mounted, name, OFlags::RDONLY)?);
        let text = escaped(&root::read_bounded(file, MAX_HANDLER)?);
        let name = format!("{HANDLERS}/{}", escaped(name.as_encoded_bytes()));
        notes.push(LIST, helpers, Helper { name, text: text.trim_end().to_owned() });
    }
    Ok(())
}

fn open(mounted: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(mounted, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_as_the_kernel_has_them() {
        let mut notes = Notes::default();
        let found = all(&Proc::at("/proc").unwrap(), &mut notes);
        for name in SETTINGS {
            let text = std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok();
            let told = found.iter().find(|helper| helper.name == name).map(|helper| helper.text.as_str());
            assert_eq!(told, text.as_deref().map(str::trim_end), "{name}");
        }
        assert!(found.is_sorted());
    }
}
