//! Base images: the disk, kernel and initrd that a site trusts to start from.
//!
//! [`build`] makes one from the distribution's signed archive; the site signs a statement over its files.
//! [`verify`] checks that statement and every file before anything boots. A base lies in a folder of its own:
//!
//! ```text
//! bases/debian-12/disk.qcow2  vmlinuz  initrd  nano.cpio  facts.json  base.intoto.jsonl
//! ```
//!
//! A build happens in a hidden folder beside it and is renamed when complete, so a killed build leaves no
//! half base; the next one sweeps what it left.

mod cache;
mod debian12;
mod error;
mod first_boot;
mod image;
mod kernel;
mod owners;
mod packages;
mod sources;
mod statement;
mod tools;
mod workspace;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use guest::facts::Facts;
use harness::Pinned;
use recipe_spec::{Sha256Digest, Timestamp};
use serde::Serialize;
use signer::trust::SitePins;
use signer::{Role, Signer, VerifiedSigner};

pub use cache::BaseCache;
pub use error::BaseError;
pub use first_boot::FirstBoot;
pub use statement::{BasePredicate, Release};

use owners::Owners;
use workspace::Workspace;

/// The disk.
pub const DISK_FILE: &str = "disk.qcow2";
/// The kernel.
pub const KERNEL_FILE: &str = "vmlinuz";
/// The initial file system of machines with a disk.
pub const INITRD_FILE: &str = "initrd";
/// Kernel modules of a nano guest, a newc cpio; `/modules.list` names them in load order.
pub const NANO_FILE: &str = "nano.cpio";
/// What the agent sees of the base freshly booted ([`Facts`] as JSON).
pub const FACTS_FILE: &str = "facts.json";
/// The signed statement over all other files.
pub const STATEMENT_FILE: &str = "base.intoto.jsonl";
/// Every file that the statement names, in the order it names them.
pub const FILES: [&str; 5] = [DISK_FILE, FACTS_FILE, INITRD_FILE, KERNEL_FILE, NANO_FILE];

/// Size of a base's disk if nobody says otherwise, in bytes: what a recipe installs must fit.
pub const DISK_BYTES: u64 = 4 << 30;
/// Largest base statement that is read, in bytes.
const MAX_STATEMENT: u64 = 4 << 20;
/// Largest `facts.json` that is read, in bytes.
const MAX_FACTS: u64 = 64 << 20;

/// What to build and where.
#[derive(Clone, Debug)]
pub struct BuildOptions<'a> {
    /// The site's folder of bases; made if it is missing.
    pub bases: &'a Path,
    /// Name of the base: `debian-12`.
    pub name: &'a str,
    /// Size of the disk in bytes, usually [`DISK_BYTES`].
    pub disk_bytes: u64,
    /// What to do with a base of this name that is there already.
    pub existing: Existing,
    /// The moment that the statement carries.
    pub now: Timestamp,
}

/// What to do with a base that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse: authorizations name it.
    Keep,
    /// Put the new one in its place, at once and whole.
    Replace,
}

/// The parts of a build, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Packages from the archive into a tree.
    Packages,
    /// The tree into a disk image.
    Disk,
    /// Kernel, initrd and the nano guest's modules.
    Kernel,
    /// A first boot, to see what the pristine base looks like from inside.
    Facts,
    /// Digests and the signed statement.
    Statement,
}

impl Phase {
    /// What a person reads while it runs.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Packages => "install packages from the signed archive",
            Self::Disk => "write the disk image",
            Self::Kernel => "take out kernel, initrd and modules",
            Self::Facts => "boot the base and look at it",
            Self::Statement => "hash and sign",
        }
    }
}

/// One thing that happened during a build.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Progress {
    /// What a killed build left was removed.
    Swept {
        /// The folder.
        folder: PathBuf,
    },
    /// A phase began.
    Started {
        /// Which.
        phase: Phase,
    },
    /// A line that a tool wrote.
    Output {
        /// The line, lossily decoded.
        line: String,
    },
    /// A phase ended well.
    Finished {
        /// Which.
        phase: Phase,
        /// How long it took.
        seconds: f64,
    },
}

/// The files of a base that is being built: enough to boot it.
#[derive(Clone, Debug)]
pub struct BootFiles {
    /// qcow2, no backing file, read-only.
    pub disk: PathBuf,
    /// bzImage.
    pub kernel: PathBuf,
    /// initramfs-tools' cpio.
    pub initrd: PathBuf,
    /// newc cpio.
    pub nano: PathBuf,
    /// A folder for what the boot needs; it goes with the build.
    pub scratch: PathBuf,
}

impl BootFiles {
    fn of(folder: &Path, scratch: PathBuf) -> Self {
        Self {
            scratch,
            disk: folder.join(DISK_FILE),
            kernel: folder.join(KERNEL_FILE),
            initrd: folder.join(INITRD_FILE),
            nano: folder.join(NANO_FILE),
        }
    }
}

/// A finished base.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Digest of the base: of the statement's payload, which names every file.
    pub sha256: Sha256Digest,
    /// Size of the disk file in bytes.
    pub disk_bytes: u64,
    /// Seconds by phase, in order.
    pub seconds: Vec<(Phase, f64)>,
}

/// Builds a base from the host's own apt sources and signs it.
///
/// Root is not needed where a user namespace can be had. All that the host lacks, for the build and for the boot, is said
/// at once and before anything is made. `first_boot` boots the finished files once, to see what they look like.
/// `progress` hears of every phase and of every line that a tool writes.
///
/// # Errors
/// [`BaseError`]; the folder of bases is then as before.
pub fn build(
    options: &BuildOptions<'_>,
    signer: &Signer,
    first_boot: &FirstBoot<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, BaseError> {
    if options.name != debian12::NAME {
        return Err(BaseError::UnknownBase { name: options.name.to_owned() });
    }
    if options.existing == Existing::Keep && options.bases.join(options.name).exists() {
        return Err(BaseError::Exists { folder: options.bases.join(options.name) });
    }
    let owners = Owners::ours();
    let tools = tools::Tools::find(debian12::TOOLS, owners, first_boot)?;
    let sources = sources::Sources::of_host(debian12::CODENAME)?;
    let workspace = Workspace::open(options.bases, options.name, progress)?;
    let mut clock = Clock { seconds: Vec::new(), progress };

    let tree = clock.phase(Phase::Packages, |progress| {
        packages::install(&workspace, owners, &sources, &mut |line| progress(Progress::Output { line }))
    })?;
    clock.phase(Phase::Disk, |_| image::write(&tree.root, owners, &workspace, options.disk_bytes))?;
    let kernel = clock.phase(Phase::Kernel, |_| kernel::extract(&tree.root, &workspace.output()))?;
    let files = BootFiles::of(&workspace.output(), workspace.folder("boot")?);
    let facts = clock.phase(Phase::Facts, |progress| first_boot.facts(&files, progress))?;
    let sha256 = clock.phase(Phase::Statement, |_| {
        write_new(&workspace.output().join(FACTS_FILE), &statement::facts_bytes(&facts)?)?;
        let predicate = BasePredicate {
            name: options.name.to_owned(),
            created: options.now,
            kernel,
            releases: tree.releases.clone(),
            packages: tree.packages.clone(),
            tools: tools.versions().clone(),
        };
        let signed = statement::sign(&workspace.output(), predicate, signer)?;
        write_new(&workspace.output().join(STATEMENT_FILE), &signed.envelope)?;
        Ok(signed.payload_sha256)
    })?;
    let seconds = clock.seconds;

    let disk_bytes = std::fs::metadata(&files.disk)?.len();
    let folder = workspace.publish(options.existing)?;
    Ok(Built { name: options.name.to_owned(), folder, sha256, disk_bytes, seconds })
}

struct Clock<'a> {
    seconds: Vec<(Phase, f64)>,
    progress: &'a mut dyn FnMut(Progress),
}

impl Clock<'_> {
    fn phase<T>(
        &mut self,
        phase: Phase,
        work: impl FnOnce(&mut dyn FnMut(Progress)) -> Result<T, BaseError>,
    ) -> Result<T, BaseError> {
        (self.progress)(Progress::Started { phase });
        let start = Instant::now();
        let value = work(self.progress)?;
        let seconds = start.elapsed().as_secs_f64();
        self.seconds.push((phase, seconds));
        (self.progress)(Progress::Finished { phase, seconds });
        Ok(value)
    }
}

/// Writes a file that must not exist yet, read-only for everyone, and flushes it.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), BaseError> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

/// A base whose statement and files were checked. Only [`verify`] makes one.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifiedBase {
    folder: PathBuf,
    sha256: Sha256Digest,
    digests: [Sha256Digest; FILES.len()],
    predicate: BasePredicate,
    facts: Facts,
    signers: Vec<VerifiedSigner>,
}

impl VerifiedBase {
    /// Name in the site's catalogue.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.predicate.name
    }

    /// The name of the machine in its files.
    pub(crate) fn hostname(&self) -> &'static str {
        debian12::HOSTNAME.trim_end()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Digest of the base: of the statement's payload, which names every file. Authorizations and the recipe
    /// CRL (`base:<hex>`) name a base by it.
    #[must_use]
    pub fn sha256(&self) -> Sha256Digest {
        self.sha256
    }

    /// One of [`FILES`], with the digest that a launch checks.
    ///
    /// # Panics
    /// If the name is none of [`FILES`].
    #[must_use]
    pub fn pinned(&self, file: &str) -> Pinned {
        let index = FILES.iter().position(|name| *name == file).expect("the name of a base's file");
        Pinned::new(self.folder.join(file), self.digests[index])
    }

    /// What it was made from.
    #[must_use]
    pub fn predicate(&self) -> &BasePredicate {
        &self.predicate
    }

    /// Who signed the statement.
    pub fn signers(&self) -> &[VerifiedSigner] {
        &self.signers
    }

    /// The pristine base as the agent sees it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// Checks a base: the site's signature over the statement, and each file against it.
///
/// # Errors
/// [`BaseError::Mismatch`] or [`BaseError::Untrusted`] (both `BASE_MISMATCH` or the trust code); a file that cannot be read.
pub fn verify(folder: &Path, pins: &SitePins, now: Timestamp) -> Result<VerifiedBase, BaseError> {
    let envelope = statement::read_bounded(&folder.join(STATEMENT_FILE), MAX_STATEMENT)?;
    let verified = signer::trust::verify_site(&envelope, Role::BaseSigner, pins, now)?;
    let opened = statement::open(verified.payload())?;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name != opened.predicate.name {
        return Err(BaseError::Mismatch {
            file: STATEMENT_FILE.to_owned(),
            reason: format!("it is about the base `{}`", opened.predicate.name),
        });
    }
    for (file, expected) in FILES.iter().zip(opened.digests) {
        let actual = statement::digest(&folder.join(file))?;
        if actual != expected {
            return Err(BaseError::Mismatch {
                file: (*file).to_owned(),
                reason: format!("its sha-256 is {actual}, the site signed {expected}"),
            });
        }
    }
    let facts = statement::read_bounded(&folder.join(FACTS_FILE), MAX_FACTS)?;
    let [_, facts_digest, ..] = opened.digests;
    if Sha256Digest::of(&facts) != facts_digest {
        return Err(BaseError::Mismatch {
            file: FACTS_FILE.to_owned(),
            reason: "it changed just now".to_owned(),
        });
    }
    let facts = serde_json::from_slice(&facts).map_err(|error| BaseError::Mismatch {
        file: FACTS_FILE.to_owned(),
        reason: format!("it cannot be read: {error}"),
    })?;
    Ok(VerifiedBase {
        folder: folder.to_owned(),
        sha256: Sha256Digest::of(verified.payload()),
        digests: opened.digests,
        predicate: opened.predicate,
        facts,
        signers: verified.signers().to_vec(),
    })
}

/// Names of the bases in a folder, sorted; nothing is verified. An absent folder holds none.
///
/// # Errors
/// As the file system says.
pub fn list(bases: &Path) -> Result<Vec<String>, BaseError> {
    let entries = match std::fs::read_dir(bases) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && entry.file_type()?.is_dir()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
