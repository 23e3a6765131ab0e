//! Whether KVM really boots a guest here.
//!
//! That `/dev/kvm` opens proves nothing: nested or restricted hosts make a machine of which the kernel then hangs.
//! So a nano guest is booted, and only its hello counts. The answer is kept for as long as host, kernel, boot, processor and QEMU
//! stay the same, and is always said: [`Probe::reason`] is for a person.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use recipe_spec::digest::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::artifact::Pinned;
use crate::confinement::Confinement;
use crate::error::HarnessError;
use crate::machine::Machine;
use crate::qemu::Qemu;
use crate::spec::{Initrd, MachineLimits, MachineSpec, NANO_COMMAND_LINE, Network, Start};

pub(crate) const KVM_DEVICE: &str = "/dev/kvm";
/// A nano guest says hello within a second or two under KVM; software emulation needs longer than some hosts that hang.
const PROBE_TIME: Duration = Duration::from_secs(15);

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// Software emulation: many times slower, and by QEMU's own word no security boundary.
    Tcg,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What machines here run on.
    pub accelerator: Accelerator,
    /// Why, for a person; one line.
    pub reason: String,
    /// True if it was known from before.
    pub cached: bool,
}

/// What the probe boots.
#[derive(Clone, Debug)]
pub struct ProbeGuest {
    /// The base's kernel.
    pub kernel: Pinned,
    /// The base's `nano.cpio`.
    pub nano: Pinned,
    /// How QEMU is confined.
    pub confinement: Confinement,
    /// A folder of ours, in which a run folder is made and removed again.
    pub scratch: std::path::PathBuf,
}

/// The kept answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    key: Sha256Digest,
    accelerator: Accelerator,
    reason: String,
}

/// Longest kept answer, in bytes.
const MAX_KEPT: u64 = 64 * 1024;

/// Finds out whether KVM boots a guest, by booting one, unless `cache` knows it.
///
/// # Errors
/// Only what has nothing to do with KVM: a base that does not match, no user for QEMU, a cache file that cannot be written.
pub fn probe(qemu: &Qemu, guest: &ProbeGuest, cache: &Path) -> Result<Probe, HarnessError> {
    let key = key(qemu)?;
    if let Some(kept) = read(cache).filter(|kept| kept.key == key) {
        return Ok(Probe { accelerator: kept.accelerator, reason: kept.reason, cached: true });
    }
    let (accelerator, reason) = try_kvm(qemu, guest)?;
    let kept = Kept { key, accelerator, reason };
    write(cache, &kept).map_err(|source| HarnessError::system("keep", cache, source))?;
    Ok(Probe { accelerator: kept.accelerator, reason: kept.reason, cached: false })
}

fn try_kvm(qemu: &Qemu, guest: &ProbeGuest) -> Result<(Accelerator, String), HarnessError> {
    if let Err(error) = fs::File::options().read(true).write(true).open(KVM_DEVICE) {
        return Ok((
            Accelerator::Tcg,
            format!("software emulation, because {KVM_DEVICE} cannot be opened: {error}"),
        ));
    }
    let folder = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(&guest.scratch)
        .map_err(|source| HarnessError::system("make a folder in", &guest.scratch, source))?;
    let spec = MachineSpec {
        name: "kvm-probe".into(),
        start: Start::boot(guest.kernel.clone(), Initrd::Nano(guest.nano.clone()), NANO_COMMAND_LINE),
        memory_mib: 256,
        disk: None,
        network: Network::None,
        relay: None,
        accelerator: Accelerator::Kvm,
        confinement: guest.confinement.clone(),
        run_dir: folder.path().join("run"),
        limits: MachineLimits { wall_clock: Some(2 * PROBE_TIME), ..MachineLimits::STANDARD },
    };
    match Machine::spawn(qemu, spec).and_then(|mut machine| machine.wait_hello(PROBE_TIME)) {
        Ok(_) => Ok((Accelerator::Kvm, "KVM boots a guest here".into())),
        Err(HarnessError::MachineFailed { reason, .. }) => Ok((
            Accelerator::Tcg,
            format!("software emulation, because KVM does not boot a guest here: {reason}"),
        )),
        Err(other) => Err(other),
    }
}

/// Everything on which the answer depends.
fn key(qemu: &Qemu) -> Result<Sha256Digest, HarnessError> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| HarnessError::system("read", Path::new(path), source))
    };
    let boot = read("/proc/sys/kernel/random/boot_id")?;
    let model = host_processor()?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let user = rustix::process::geteuid().as_raw();
    let all = [&qemu.version, release.trim(), boot.trim(), &model, &user.to_string()].join("\n");
    Ok(Sha256Digest::of(all.as_bytes()))
}

/// What the kernel calls the host's processor.
pub(crate) fn host_processor() -> Result<String, HarnessError> {
    let path = Path::new("/proc/cpuinfo");
    let processors = fs::read_to_string(path).map_err(|source| HarnessError::system("read", path, source))?;
    Ok(processors.lines().find(|line| line.starts_with("model name")).unwrap_or_default().to_owned())
}

/// An answer that cannot be read is no answer.
fn read(cache: &Path) -> Option<Kept> {
    let about = fs::symlink_metadata(cache).ok()?;
    if !about.is_file() || about.len() > MAX_KEPT {
        return None;
    }
    serde_json::from_slice(&fs::read(cache).ok()?).ok()
}

fn write(cache: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = cache.parent().ok_or_else(|| std::io::Error::other("it has no folder"))?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(serde_json::to_string(kept)?.as_bytes())?;
    file.persist(cache)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_answer_comes_back_and_a_broken_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("deep/accelerator.json");
        assert!(read(&cache).is_none());
        let kept =
            Kept { key: Sha256Digest::of(b"host"), accelerator: Accelerator::Tcg, reason: "no KVM".into() };
        write(&cache, &kept).unwrap();
        let again = read(&cache).unwrap();
        assert_eq!((again.key, again.accelerator, again.reason), (kept.key, kept.accelerator, kept.reason));
        fs::write(&cache, "{\"key\": 1}").unwrap();
        assert!(read(&cache).is_none());
    }
}
