//! The site's machines: one place that turns `site.toml`, a base and a disk into what the harness starts, for
//! building, testing and deploying alike.

mod base_template;
mod clones;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::accelerator::{ProbeGuest, probe};
use harness::arguments::MACHINE_TYPE;
use harness::worker::{Entry, Workers};
use harness::{
    Accelerator, Confinement, DISK_COMMAND_LINE, DiskSpec, DownloadLimits, Exec, Exited, Forward,
    HarnessError, Initrd, Machine, MachineLimits, MachineSpec, Memory, NANO_COMMAND_LINE, Network, Origin,
    Output, Prefix, Probe, Qemu, RelayEvent, RelayLimits, RelayPolicy, RelaySpec, SameUser, Start,
    SystemState, Template, UserRange, Written, fetch_download,
};
use recipe_spec::manifest::{FunctionTest, Manifest};
use recipe_spec::{Code, OriginName, Sha256Digest};

use crate::authorization::{Acceleration, BuilderEvidence};
use crate::base::{INITRD_FILE, KERNEL_FILE, NANO_FILE, VerifiedBase};
use crate::events::Event;
use crate::interruption::Interruption;
use crate::journal::Journal;
use crate::site::Site;
use crate::site::config;
use crate::stopped::Stopped;
use crate::suite::{TestOutcome, TestResult};

pub(crate) use base_template::RestingBase;
pub(crate) use clones::not_a_clone;
pub use clones::{new_hostname, outdated};

use clones::renew;

/// Suite name of a VO's function tests in evidence.
pub const FUNCTION_SUITE: &str = "vo";
/// A guest that does not power off within this time is killed, and nothing of it is kept.
const POWER_OFF: Duration = Duration::from_secs(180);
/// Output of one test that is read.
const TEST_OUTPUT: u64 = 256 * 1024;
/// Lines of a failed test's output that are shown.
const TEST_LINES: usize = 20;
/// Largest `download`: it passes through this process's memory.
const DOWNLOAD_BYTES: u64 = 256 << 20;

/// How machines run at this site, found out once for each run.
#[derive(Debug)]
pub struct Machines<'a> {
    site: &'a Site,
    qemu: Qemu,
    probe: Probe,
    folder: PathBuf,
    fetched: Arc<Mutex<Vec<RelayEvent>>>,
}

/// What a machine is a clone of.
#[derive(Debug)]
pub struct Original<'a> {
    /// The base image.
    pub base: &'a VerifiedBase,
    /// Base and layers, and the name of the clone's own overlay.
    pub disk: DiskSpec,
    /// Their boot, paused.
    pub template: &'a Template,
    /// The VO's recipe, which says what must not be shared.
    pub manifest: &'a Manifest,
}

impl<'a> Machines<'a> {
    /// Finds out what QEMU can run on, says it aloud, and asks the site's policy. Machines live below `folder`.
    ///
    /// # Errors
    /// `NO_QEMU` where only emulation works and the policy refuses it; what the probe says.
    pub fn prepare(
        site: &'a Site,
        base: &VerifiedBase,
        qemu: Qemu,
        folder: &Path,
        journal: &mut Journal<'_>,
    ) -> Result<Self, Stopped> {
        let guest = ProbeGuest {
            kernel: base.pinned(KERNEL_FILE),
            nano: base.pinned(NANO_FILE),
            confinement: confinement(site),
            scratch: folder.to_owned(),
        };
        let probe = probe(&qemu, &guest, &site.layout().accelerator())?;
        if probe.accelerator == Accelerator::Tcg {
            if !site.config().policy.allow_emulation {
                return Err(Stopped::new(Code::NoQemu, format!("{}, and the site's policy refuses it", probe.reason))
                    .hint("use a host with KVM, or set allow_emulation = true in site.toml: software emulation is no security boundary"));
            }
            journal.tell(Event::Note { text: format!("{}; this is no security boundary", probe.reason) });
        }
        if !rustix::process::geteuid().is_root() && site.config().executor.allow_same_user {
            let text = "QEMU runs as this user, because this process is not root: an escaped QEMU could do what you can";
            journal.tell(Event::Note { text: text.to_owned() });
        }
        Ok(Self { site, qemu, probe, folder: folder.to_owned(), fetched: Arc::default() })
    }

    /// A few words on how machines run.
    #[must_use]
    pub fn described(&self) -> String {
        format!("QEMU {}, {}", self.qemu.version, self.probe.accelerator)
    }

    /// The version of QEMU.
    #[must_use]
    pub fn qemu_version(&self) -> &str {
        &self.qemu.version
    }

    /// What machines run on.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.probe.accelerator
    }

    /// What an authorization says of what built it.
    #[must_use]
    pub fn evidence(&self) -> BuilderEvidence {
        let (cpu, accelerator) = match self.probe.accelerator {
            Accelerator::Kvm => ("host", Acceleration::Kvm),
            Accelerator::Tcg => ("qemu64", Acceleration::Tcg),
        };
        BuilderEvidence {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            qemu: self.qemu.version.clone(),
            machine: MACHINE_TYPE.to_owned(),
            cpu: cpu.to_owned(),
            accelerator,
        }
    }

    /// A relay to these of the site's origins; what it is asked for is told by [`Machines::drain_fetched`].
    fn relay(&self, origins: &[OriginName]) -> Result<RelaySpec, Stopped> {
        let fetched = Arc::clone(&self.fetched);
        Ok(RelaySpec {
            policy: RelayPolicy { origins: self.declared_origins(origins)? },
            limits: RelayLimits::STANDARD,
            events: Arc::new(move |event| fetched.lock().unwrap_or_else(PoisonError::into_inner).push(event)),
        })
    }

    /// A machine that boots a sealed disk, to be paused and kept: as it will be deployed, with nothing forwarded. It ends after
    /// `limit`.
    pub(crate) fn template_source(
        &self,
        base: &VerifiedBase,
        disk: DiskSpec,
        limit: Duration,
    ) -> Result<Machine, Stopped> {
        let network = Network::Restricted { forwards: Vec::new() };
        let mut spec = self.spec(base, "template", disk, network, None, Some(limit));
        if let Start::Boot(boot) = &mut spec.start {
            boot.memory = Memory::Kept;
        }
        Ok(self.start(spec)?)
    }

    /// A clone to test in, awake; `interruption` ends it, and so does `limit`.
    pub(crate) fn testing(
        &self,
        name: &str,
        original: Original<'_>,
        limit: Duration,
        interruption: &Interruption,
    ) -> Result<Machine, Stopped> {
        let network = Network::Restricted { forwards: Vec::new() };
        // Nothing in the guest shall tell a test from a deployment by its name.
        let hostname = new_hostname(&original.manifest.recipe.name)?;
        self.clone_of(original, name, &hostname, network, Some(limit), interruption)
    }

    /// A nano guest that has a sealed disk to look at, and cannot write to it.
    pub(crate) fn inspecting(&self, base: &VerifiedBase, disk: DiskSpec) -> Result<Machine, Stopped> {
        let limit = Duration::from_secs(self.site.config().executor.authorize_seconds.get().into());
        let spec = MachineSpec {
            start: Start::boot(
                base.pinned(KERNEL_FILE),
                Initrd::Nano(base.pinned(NANO_FILE)),
                NANO_COMMAND_LINE,
            ),
            ..self.spec(base, "inspect", disk, Network::None, None, Some(limit))
        };
        Ok(self.start(spec)?)
    }

    /// A machine that stays: a clone, awake, with this name. `interruption` ends it.
    ///
    /// # Errors
    /// As the harness says: digests, QEMU, users; `TEST_FAILED` if a service cannot get secrets of its own.
    pub fn instance(
        &self,
        original: Original<'_>,
        forwards: Vec<Forward>,
        hostname: &str,
        interruption: &Interruption,
    ) -> Result<Machine, Stopped> {
        self.clone_of(original, "instance", hostname, Network::Restricted { forwards }, None, interruption)
    }

    /// Makes a clone, and makes it a machine of its own: what the agent gives it, then its services that hold secrets in memory.
    fn clone_of(
        &self,
        original: Original<'_>,
        name: &str,
        hostname: &str,
        network: Network,
        wall_clock: Option<Duration>,
        interruption: &Interruption,
    ) -> Result<Machine, Stopped> {
        let Original { base, disk, template, manifest } = original;
        let spec = MachineSpec {
            start: Start::Clone(template.clone(), Written::Below),
            ..self.spec(base, name, disk, network, None, wall_clock)
        };
        let mut machine = self.start(spec)?;
        let killer = machine.killer();
        interruption.when_asked(move || killer.kill());
        machine.wake(harness::identity::fresh(template, hostname)?).map_err(not_a_clone)?;
        let of_site = self.site.config().clones.renew.iter().map(|unit| unit.as_str().to_owned());
        let units: Vec<_> = manifest.instance.renew.iter().cloned().chain(of_site).collect();
        if !units.is_empty() {
            renew(&mut machine, &units)?;
        }
        Ok(machine)
    }

    fn start(&self, spec: MachineSpec) -> Result<Machine, HarnessError> {
        Machine::spawn(&self.qemu, spec)
    }

    fn spec(
        &self,
        base: &VerifiedBase,
        name: &str,
        disk: DiskSpec,
        network: Network,
        relay: Option<RelaySpec>,
        wall_clock: Option<Duration>,
    ) -> MachineSpec {
        MachineSpec {
            name: name.to_owned(),
            start: Start::boot(
                base.pinned(KERNEL_FILE),
                Initrd::Disk(base.pinned(INITRD_FILE)),
                DISK_COMMAND_LINE,
            ),
            memory_mib: self.site.config().executor.memory_mib.get(),
            disk: Some(disk),
            network,
            relay,
            accelerator: self.probe.accelerator,
            confinement: confinement(self.site),
            run_dir: self.folder.join(name),
            limits: MachineLimits { wall_clock, ..MachineLimits::STANDARD },
        }
    }

    fn declared_origins(&self, declared: &[OriginName]) -> Result<Vec<Origin>, Stopped> {
        declared.iter().map(|name| self.origin(name)).collect()
    }

    fn origin(&self, name: &OriginName) -> Result<Origin, Stopped> {
        let configured = self.site.config().origins.get(name).filter(|origin| !origin.mirrors.is_empty());
        let configured = configured.ok_or_else(|| {
            Stopped::new(
                Code::BadRecipe,
                format!("the recipe fetches from `{name}`, which this site does not know"),
            )
            .hint(format!("the site's security officer can add [origins.{name}] to site.toml"))
        })?;
        to_origin(name, configured)
    }

    /// Fetches the content of a `download` step on the host.
    pub(crate) fn download(
        &self,
        url: &str,
        sha256: Sha256Digest,
        journal: &Journal<'_>,
    ) -> Result<Vec<u8>, Stopped> {
        let origins = self.site.config().origins.iter().map(|(name, origin)| to_origin(name, origin));
        let policy = RelayPolicy { origins: origins.collect::<Result<_, _>>()? };
        let url = url.to_owned();
        let fetched = journal.interruption().unless_asked(move || {
            let mut content = Vec::new();
            let limits = DownloadLimits { bytes: DOWNLOAD_BYTES, ..DownloadLimits::STANDARD };
            fetch_download(&url, &sha256, &limits, &policy, &mut content).map(|_| content)
        });
        Ok(fetched??)
    }

    /// Tells of what the relay was asked for since the last call, and gives it for the evidence.
    pub(crate) fn drain_fetched(&self, journal: &mut Journal<'_>) -> Vec<Event> {
        let events = std::mem::take(&mut *self.fetched.lock().unwrap_or_else(PoisonError::into_inner));
        let events: Vec<_> = events
            .into_iter()
            .map(|event| Event::Fetched { url: event.url, status: event.status, bytes: event.bytes })
            .collect();
        for event in &events {
            journal.tell(event.clone());
        }
        events
    }

    /// How long a machine may take to power off.
    pub(crate) fn power_off_limit(&self) -> Duration {
        POWER_OFF
    }
}

fn to_origin(name: &OriginName, configured: &config::Origin) -> Result<Origin, Stopped> {
    let prefixes = configured.mirrors.iter().map(|mirror| Prefix::parse(mirror.as_str()));
    let prefixes = prefixes
        .collect::<Result<_, _>>()
        .map_err(|error| Stopped::new(Code::HostFailed, format!("site.toml, origins.{name}: {error}")))?;
    Ok(Origin { name: name.clone(), prefixes })
}

/// How the site's QEMUs are confined.
#[must_use]
pub fn confinement(site: &Site) -> Confinement {
    let executor = &site.config().executor;
    let same_user = if executor.allow_same_user { SameUser::Allowed } else { SameUser::Refused };
    let (first, count) = (executor.first_uid.get(), executor.uids.get());
    Confinement { users: UserRange { first, count, ..UserRange::standard() }, same_user }
}

/// How the site's workers are started and confined: as its QEMUs are.
#[must_use]
pub fn workers(site: &Site) -> Workers {
    Workers { entry: Entry::program(), confinement: confinement(site), until: Arc::default() }
}

/// Waits for the agent's first word and then until the system is up. From now on an interruption ends the machine.
///
/// # Errors
/// `MACHINE_FAILED`, or `CONTROL_LOST` where the disk holds recipes.
pub fn await_running(machine: &mut Machine, site: &Site, journal: &mut Journal<'_>) -> Result<(), Stopped> {
    let limit = Duration::from_secs(site.config().executor.boot_seconds.get().into());
    let start = Instant::now();
    let killer = machine.killer();
    journal.interruption().when_asked(move || killer.kill());
    machine.wait_hello(limit)?;
    match machine.wait_running(limit.saturating_sub(start.elapsed()))? {
        SystemState::Running => {}
        SystemState::Degraded => {
            journal.tell(Event::Note {
                text: "the guest's systemd says that a unit failed (degraded)".to_owned(),
            });
        }
    }
    Ok(())
}

/// Runs the VO's function tests, each once, in order, and all of them within `limit`: what is left of it then ends a test.
///
/// # Errors
/// Only what loses the machine: a test that fails is a result.
pub fn run_function_tests(
    machine: &mut Machine,
    manifest: &Manifest,
    limit: Duration,
    journal: &mut Journal<'_>,
) -> Result<Vec<TestResult>, Stopped> {
    let start = Instant::now();
    let mut run = |test| {
        let (result, said) = run_function_test(machine, test, limit.saturating_sub(start.elapsed()))?;
        journal.tell_output(said);
        Ok(result)
    };
    manifest.tests.iter().map(&mut run).collect()
}

/// One function test: how it ended, and all that it said. It runs no longer than it says, and no longer than `limit`.
pub(crate) fn run_function_test(
    machine: &mut Machine,
    test: &FunctionTest,
    limit: Duration,
) -> Result<(TestResult, String), Stopped> {
    let start = Instant::now();
    let limit = limit.min(test.timeout.duration()).max(Duration::from_millis(1));
    let exec = Exec {
        argv: ["/bin/sh", "-c", test.run.as_str()].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        output_limit: TEST_OUTPUT,
    };
    let mut said = Vec::new();
    let exited = machine.exec(exec, &mut |output| {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = output;
        said.extend_from_slice(bytes);
    });
    let ended = match exited {
        Ok(exited) => not_passed(test, &exited, limit),
        // The shell cannot be started, for one.
        Err(HarnessError::Agent { error, .. }) => {
            Some(format!("line {}: not run: {}", test.line, error.message))
        }
        Err(error) => return Err(error.into()),
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    let passed = ended.is_none();
    let mut detail = Vec::new();
    if let Some(ended) = ended {
        detail.push(ended);
        let lines: Vec<_> = said.lines().collect();
        detail.extend(lines[lines.len().saturating_sub(TEST_LINES)..].iter().map(ToString::to_string));
    }
    let result = TestResult {
        suite: FUNCTION_SUITE.to_owned(),
        name: test.name.clone(),
        result: if passed { TestOutcome::Passed } else { TestOutcome::Failed },
        seconds: start.elapsed().as_secs_f64(),
        detail,
    };
    Ok((result, said))
}

/// Why a function test did not pass, if it did not.
fn not_passed(test: &FunctionTest, exited: &Exited, limit: Duration) -> Option<String> {
    let line = test.line;
    match (exited.timed_out, exited.status, exited.signal) {
        (true, ..) => Some(format!("line {line}: not done after {:.0} s", limit.as_secs_f64().ceil())),
        (_, Some(0), _) => None,
        (_, Some(status), _) => Some(format!("line {line}: exit status {status}")),
        (_, _, Some(signal)) => Some(format!("line {line}: ended by signal {signal}")),
        _ => Some(format!("line {line}: ended without a status")),
    }
}
