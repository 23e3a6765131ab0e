//! Initramfs archives: how the agent gets into a guest without touching its disk.
//!
//! The kernel unpacks several archives, one after the other, into the same root, each beginning on a
//! multiple of four bytes (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`). The base's
//! archive stays byte for byte as it was signed; ours follows it.

/// Where the agent lies in the initramfs of a machine with a disk.
const AGENT_PATH: &str = "countersign-agent";

/// Sourced early by initramfs-tools' `/init`, before any disk is mounted. `run_scripts` of initramfs-tools
/// runs what `ORDER` says, so one line there is enough.
const HOOK: &str = "\
echo '/scripts/init-bottom/countersign \"$@\"' >>/scripts/init-bottom/ORDER
echo '[ -e /conf/param.conf ] && . /conf/param.conf' >>/scripts/init-bottom/ORDER
";

/// Runs when the root file system is mounted and nothing of it has run yet. Only klibc and busybox-less
/// tools may be there, so the agent does everything but load its driver. Without it the boot stops here: a program of the
/// disk that opened the port instead could speak as the agent.
const START: &str = "\
#!/bin/sh
[ \"$1\" = prereqs ] && exit 0
/sbin/modprobe -q virtio_console
/countersign-agent disk \"$rootmnt\" && exit 0
while :; do sleep 60; done
";

/// The initramfs of a machine with a disk: the base's own, then the agent's injection.
#[must_use]
pub fn disk_initrd(base: &[u8], agent: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.directory("conf");
    archive.directory("conf/conf.d");
    archive.file("conf/conf.d/countersign", 0o644, HOOK.as_bytes());
    archive.directory("scripts");
    archive.directory("scripts/init-bottom");
    archive.file("scripts/init-bottom/countersign", 0o755, START.as_bytes());
    archive.file(AGENT_PATH, 0o755, agent);
    concatenate(base, &archive.finish())
}

/// The initramfs of a nano guest: kernel modules, then the agent as `/init`.
#[must_use]
pub fn nano_initrd(nano: &[u8], agent: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, agent);
    concatenate(nano, &archive.finish())
}

/// `first`, zeros up to a multiple of four, `second`.
fn concatenate(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(first.len() + ALIGNMENT + second.len());
    out.extend_from_slice(first);
    pad(&mut out);
    out.extend_from_slice(second);
    out
}

const ALIGNMENT: usize = 4;

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

/// A writer of `newc` archives (cpio(5), "New ASCII Format"): times, owners and devices are zero, so equal
/// content gives equal bytes.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder, mode 0755. Parents come first; the kernel makes none by itself.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, 0o040_755, 2, &[]);
    }

    /// Adds a regular file with these permission bits.
    ///
    /// # Panics
    /// If the content is 4 GiB or longer, which the format cannot say.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | (mode & 0o7777), 1, content);
    }

    /// Ends the archive and gives its bytes, a multiple of four long.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, content: &[u8]) {
        self.entries += 1;
        let inode = self.entries;
        let size = u32::try_from(content.len()).expect("an entry of a newc archive is below 4 GiB");
        let name_size = path.len() + 1;
        self.bytes.extend_from_slice(b"070701");
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(format!("{name_size:08X}{:08X}", 0).as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        pad(&mut self.bytes);
        self.bytes.extend_from_slice(content);
        pad(&mut self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked once against `cpio --create --format=newc`, whose times were set to zero.
    const GOLDEN: &str = concat!(
        "070701",
        "00000001",
        "000041ED",
        "00000000",
        "00000000",
        "00000002",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "00000002",
        "00000000",
        "a\0",
        "070701",
        "00000002",
        "000081A4",
        "00000000",
        "00000000",
        "00000001",
        "00000000",
        "00000005",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "00000007",
        "00000000",
        "a/file\0\0\0\0",
        "hello\0\0\0",
        "070701",
        "00000003",
        "00000000",
        "00000000",
        "00000000",
        "00000001",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "00000000",
        "0000000B",
        "00000000",
        "TRAILER!!!\0\0\0\0",
    );

    #[test]
    fn without_the_agent_the_boot_does_not_go_on() {
        let status = |agent: &str| {
            let script = START.replace("/sbin/modprobe", "true").replace("/countersign-agent", agent);
            let run =
                std::process::Command::new("timeout").args(["0.5", "sh", "-c", &script]).status().unwrap();
            run.code()
        };
        assert_eq!(status("true"), Some(0));
        assert_eq!(status("false"), Some(124), "it went on");
    }

    #[test]
    fn an_archive_has_these_bytes() {
        let mut archive = Archive::default();
        archive.directory("a");
        archive.file("a/file", 0o644, b"hello");
        assert_eq!(String::from_utf8(archive.finish()).unwrap(), GOLDEN);
    }

    #[test]
    fn a_second_archive_begins_on_a_multiple_of_four() {
        for length in 0..9 {
            let both = nano_initrd(&vec![b'x'; length], b"agent");
            let start = both.windows(6).position(|window| window == b"070701").unwrap();
            assert_eq!(start % 4, 0);
            assert!(both[length..start].iter().all(|byte| *byte == 0));
            assert_eq!(both.len() % 4, 0);
        }
    }

    #[test]
    fn the_injection_holds_hook_script_and_agent() {
        let initrd = disk_initrd(b"base", b"AGENT-BYTES");
        let text = String::from_utf8_lossy(&initrd).into_owned();
        assert!(text.starts_with("base070701"));
        for wanted in
            ["conf/conf.d/countersign\0", "scripts/init-bottom/countersign\0", HOOK, START, "AGENT-BYTES"]
        {
            assert!(text.contains(wanted), "{wanted}");
        }
    }
}
