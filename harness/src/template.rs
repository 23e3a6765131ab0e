//! Templates: a machine that was paused once, at rest, and from which any number of clones go on.
//!
//! ```text
//! boot → agent at rest → pause → RAM, device state, overlay: one triple from one pause, each named by its digest
//! clone = RAM (copy on write) + device state + a new overlay on top of the kept one → wake
//! ```
//! The machine that was paused never runs again: its RAM is what the clones share. All three files are checked by digest before
//! QEMU sees a byte of them, through the descriptors that it gets.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use guest::control::Mode;
use recipe_spec::digest::Sha256Digest;
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use serde::{Deserialize, Serialize};

use crate::accelerator::{Accelerator, host_processor};
use crate::arguments::{MACHINE_TYPE, processor_model};
use crate::artifact::{Checked, MAX_STATE, Pinned, check_layer, no_file, open_memory, open_state};
use crate::digests::memory_digest;
use crate::error::HarnessError;
use crate::spec::{MachineSpec, Network};

/// Names of a template's files in its folder.
pub const MEMORY_FILE: &str = "memory";
/// Device state, as QEMU's migration stream.
pub const STATE_FILE: &str = "state";
/// The overlay: what the machine had written to its disk when it was paused.
pub const OVERLAY_FILE: &str = "overlay.qcow2";
/// [`Record`] as JSON.
pub const RECORD_FILE: &str = "template.json";

/// Longest record, in bytes.
const MAX_RECORD: u64 = 64 * 1024;
/// Files are copied in pieces of this size.
const PIECE: usize = 1 << 20;

/// All that a clone starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    folder: PathBuf,
    record: Record,
}

/// What a template is: everything that decides what its clones are, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// What QEMU must be told again for a clone.
    pub shape: Shape,
    /// What was booted.
    pub booted: Booted,
    /// Digest of the RAM: SHA-256 of the SHA-256 of each MiB, in order.
    pub memory: Sha256Digest,
    /// Digest of the device state.
    pub state: Sha256Digest,
    /// Digest of the overlay; absent if the machine wrote to no disk.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub overlay: Option<Sha256Digest>,
}

/// What a clone has in common with the machine that was paused, or its state would not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shape {
    /// Version of QEMU.
    pub qemu: String,
    /// The protocol that its agent speaks ([`guest::control::PROTOCOL`]); it says no hello again.
    pub protocol: u32,
    /// Machine type.
    pub machine: String,
    /// Model of the processor.
    pub cpu: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// What kind of guest it is.
    pub mode: Mode,
    /// Whether it has a network card.
    pub card: bool,
    /// Whether it has the relay's port.
    pub relay: bool,
    /// The images below the overlay, bottom up, the base first; none without a disk.
    pub images: Vec<Sha256Digest>,
}

/// What a template's machine was booted from. Its firmware is in the device state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Booted {
    /// Digest of the kernel.
    pub kernel: Sha256Digest,
    /// Digest of the initramfs with the agent in it.
    pub initrd: Sha256Digest,
    /// Kernel command line.
    pub command_line: String,
}

impl Shape {
    /// The shape of the machine that `spec` describes.
    #[must_use]
    pub fn of(spec: &MachineSpec, qemu_version: &str) -> Self {
        let images = spec.disk.iter().flat_map(|disk| std::iter::once(&disk.base).chain(&disk.layers));
        Self {
            qemu: qemu_version.to_owned(),
            protocol: guest::control::PROTOCOL,
            machine: MACHINE_TYPE.to_owned(),
            cpu: processor(spec.accelerator),
            accelerator: spec.accelerator,
            memory_mib: spec.memory_mib,
            mode: spec.start.mode(),
            card: spec.network != Network::None,
            relay: spec.relay.is_some(),
            images: images.map(|image| image.sha256).collect(),
        }
    }
}

/// The processor as a guest sees it. By KVM it is the host's own, and a state that was saved on one does not go on on another.
fn processor(accelerator: Accelerator) -> String {
    let model = processor_model(accelerator);
    match accelerator {
        Accelerator::Tcg => model.to_owned(),
        Accelerator::Kvm => format!("{model}: {}", host_processor().unwrap_or_default()),
    }
}

impl Template {
    /// The template in this folder, if the bytes of its record have this digest. Its files are checked when a clone starts.
    ///
    /// # Errors
    /// [`HarnessError::Unusable`], [`HarnessError::LayerMismatch`] (`LAYER_MISMATCH`) if there is none, or another.
    pub fn pinned(folder: &Path, sha256: Sha256Digest) -> Result<Self, HarnessError> {
        let path = folder.join(RECORD_FILE);
        let unusable = |reason: String| HarnessError::Unusable { path: path.clone(), layer: true, reason };
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let opened = File::options().read(true).custom_flags(flags).open(&path);
        let file = opened.map_err(|source| match no_file(&source) {
            Some(reason) => unusable(reason.into()),
            None => HarnessError::system("open", &path, source),
        })?;
        let about = file.metadata().map_err(|source| HarnessError::system("look at", &path, source))?;
        if !about.is_file() || about.len() > MAX_RECORD {
            return Err(unusable("it is no record of a template".into()));
        }
        let mut bytes = Vec::new();
        file.take(MAX_RECORD)
            .read_to_end(&mut bytes)
            .map_err(|source| HarnessError::system("read", &path, source))?;
        let actual = Sha256Digest::of(&bytes);
        if actual != sha256 {
            return Err(HarnessError::LayerMismatch { path, expected: sha256, actual });
        }
        let record = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { folder: folder.to_owned(), record })
    }

    /// What it is.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What names it: the digest of its record, and so of everything in it.
    #[must_use]
    pub fn sha256(&self) -> Sha256Digest {
        Sha256Digest::of(&self.record.to_json())
    }

    /// The overlay, which lies on top of the images that the paused machine had.
    #[must_use]
    pub fn overlay(&self) -> Option<Pinned> {
        self.record.overlay.map(|sha256| Pinned::new(self.folder.join(OVERLAY_FILE), sha256))
    }

    /// Its RAM, checked.
    pub(crate) fn open_memory(&self) -> Result<Checked, HarnessError> {
        let pinned = Pinned::new(self.folder.join(MEMORY_FILE), self.record.memory);
        open_memory(&pinned, u64::from(self.record.shape.memory_mib) << 20)
    }

    /// Its device state, checked.
    pub(crate) fn open_state(&self) -> Result<Checked, HarnessError> {
        open_state(&Pinned::new(self.folder.join(STATE_FILE), self.record.state))
    }

    pub(crate) fn mode(&self) -> Mode {
        self.record.shape.mode
    }

    /// Whether clones would start from these files: owner, mode and bytes of each.
    ///
    /// # Errors
    /// `LAYER_MISMATCH`, and what the operating system says.
    pub fn check_files(&self) -> Result<(), HarnessError> {
        self.open_memory()?;
        self.open_state()?;
        self.overlay().map_or(Ok(()), |overlay| check_layer(&overlay))
    }

    /// Why a machine of this shape cannot be its clone, if so.
    pub(crate) fn misfit(&self, shape: &Shape) -> Option<String> {
        if self.record.shape == *shape {
            return None;
        }
        let fields = |shape: &Shape| serde_json::to_value(shape).unwrap_or_default();
        let (wanted, is) = (fields(&self.record.shape), fields(shape));
        let differs = |(name, wanted): (&String, &serde_json::Value)| {
            let is = &is[name];
            (is != wanted).then(|| format!("its template has {name} {wanted}, it would have {is}"))
        };
        let first = wanted.as_object().and_then(|fields| fields.iter().find_map(differs));
        Some(first.unwrap_or_else(|| "its template is of another shape".to_owned()))
    }
}

impl Record {
    /// The bytes that a template's digest is of.
    ///
    /// # Panics
    /// Never: a record is plain data.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain data")
    }
}

/// What a machine keeps so that it can become a template.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its RAM, which QEMU has mapped.
    pub(crate) memory: File,
    /// What QEMU writes the device state to.
    pub(crate) state: File,
    /// How QEMU knows the latter.
    pub(crate) state_set: u32,
    pub(crate) shape: Shape,
    pub(crate) booted: Booted,
}

/// Memory without a name that QEMU's user can open as well, of this size for ever, or growing.
pub(crate) fn nameless(name: &str, bytes: Option<u64>) -> Result<File, HarnessError> {
    let make = || -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(name, flags)?);
        if let Some(bytes) = bytes {
            file.set_len(bytes)?;
            // An escaped QEMU must not have the host hold more than the machine was given.
            rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        }
        Ok(file)
    };
    make().map_err(|source| HarnessError::process("make memory to be kept", source))
}

impl Kept {
    /// Writes the template of a machine that is paused and whose QEMU has ended. `folder` is made; its files are flushed and
    /// read-only, the record last.
    pub(crate) fn write(self, overlay: Option<&Path>, folder: &Path) -> Result<Template, HarnessError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| HarnessError::system(what, &path, source)
        };
        DirBuilder::new().mode(0o700).create(folder).map_err(failed("make", folder))?;
        let at = |name: &str| folder.join(name);
        let memory = at(MEMORY_FILE);
        let copied = copy_sparse(&self.memory, &memory).map_err(failed("write", &memory))?;
        let memory_digest = memory_digest(&copied).map_err(failed("read", &memory))?;
        let state = at(STATE_FILE);
        let state_bytes = self.state.metadata().map_err(failed("look at", &state))?.len();
        if !(1..=MAX_STATE).contains(&state_bytes) {
            let error = io::Error::other(format!("QEMU wrote a device state of {state_bytes} bytes"));
            return Err(HarnessError::system("keep", &state, error));
        }
        let mut copied = copy_sparse(&self.state, &state).map_err(failed("write", &state))?;
        let state_digest = Sha256Digest::of_reader(&mut copied).map_err(failed("read", &state))?.0;
        let overlay = overlay
            .map(|from| {
                let path = at(OVERLAY_FILE);
                std::fs::rename(from, &path).map_err(failed("move an overlay to", &path))?;
                let mut file = File::open(&path).map_err(failed("open", &path))?;
                Ok::<_, HarnessError>(Sha256Digest::of_reader(&mut file).map_err(failed("read", &path))?.0)
            })
            .transpose()?;
        let record = Record {
            shape: self.shape,
            booted: self.booted,
            memory: memory_digest,
            state: state_digest,
            overlay,
        };
        let path = at(RECORD_FILE);
        let write = || -> io::Result<()> {
            let mut file = sealed_new(&path, 0o400)?;
            file.write_all(&record.to_json())?;
            file.sync_all()?;
            File::open(folder)?.sync_all()
        };
        write().map_err(failed("write", &path))?;
        Ok(Template { folder: folder.to_owned(), record })
    }
}

/// Copies a file to a new one that nobody may write, with holes for what is zero.
fn copy_sparse(from: &File, to: &Path) -> io::Result<File> {
    let size = from.metadata()?.len();
    // QEMU maps the RAM of a clone under its own user: it must be able to open it, and may never write it.
    let out = sealed_new(to, 0o444)?;
    out.set_len(size)?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        let bytes = &mut piece[..length];
        from.read_exact_at(bytes, at)?;
        write_unless_zero(&out, bytes, at)?;
        at += length as u64;
    }
    out.sync_all()?;
    Ok(out)
}

/// Pages of zeros are left out: they are read as zeros anyhow, and need no room.
fn write_unless_zero(out: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    const PAGE: usize = 4096;
    let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
    let mut offset = at;
    for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let whole = run.concat();
        if !is_zero(run[0]) {
            out.write_all_at(&whole, offset)?;
        }
        offset += whole.len() as u64;
    }
    Ok(())
}

fn sealed_new(path: &Path, mode: u32) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(file)
}
