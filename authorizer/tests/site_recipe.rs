//! The baseline recipe on a real machine: applied twice it changes nothing the second time, and the sealed disk, booted
//! afresh, passes the baseline suite; then again with what a hostile recipe leaves behind.
//!
//! It needs a base image: the folder of one in `COUNTERSIGN_TEST_BASE`, which `make test` sets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use authorizer::intake::read_folder;
use authorizer::suite::{self, Seen, Sight, SuiteConfig, TestResult};
use disk::{Comparison, Left};
use harness::{
    Accelerator, Confinement, DISK_COMMAND_LINE, DiskSpec, Exec, Facts, HarnessError, Initrd, Machine,
    MachineLimits, MachineSpec, Memory, NANO_COMMAND_LINE, Network, Output, Pinned, Qemu, Start, StepOutcome,
};
use recipe_spec::manifest::DECLARED_FILE;
use recipe_spec::{Limits, Payload, Recipe, Sha256Digest};

const TIME: Duration = Duration::from_secs(300);
const PAYLOAD: &str = "/run/countersign/payload";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn baseline() -> Recipe {
    recipe(read_folder(&repository("site-recipes/baseline"), &Limits::STANDARD).unwrap().payload)
}

/// A VO's recipe that only declares a port.
fn vo() -> Recipe {
    let manifest = "[recipe]\nname = \"vo/x\"\nversion = \"1.0.0\"\nbase = [\"debian-12\"]\n\
        [network]\nlisten = [{ port = 8080, protocol = \"tcp\" }]\n\
        connect = [{ host = \"db.example.org\", port = 5432, protocol = \"tcp\" }]\n\
        [[step]]\ndirectory = { path = \"/srv/x\" }\n";
    let mut payload = Payload::builder(&Limits::STANDARD);
    payload.add("recipe.toml", manifest.into(), false).unwrap();
    recipe(payload.finish().unwrap())
}

fn recipe(payload: Payload) -> Recipe {
    Recipe::from_payload(payload, &Limits::STANDARD).unwrap_or_else(|error| panic!("{}", error.report(false)))
}

fn base() -> PathBuf {
    std::env::var_os("COUNTERSIGN_TEST_BASE")
        .expect("COUNTERSIGN_TEST_BASE names the folder of a base")
        .into()
}

fn pinned(path: PathBuf) -> Pinned {
    let (digest, _) = Sha256Digest::of_reader(&mut std::fs::File::open(&path).unwrap()).unwrap();
    Pinned::new(path, digest)
}

fn boot(name: &str, layers: Vec<Pinned>, folder: &Path) -> Machine {
    let base = base();
    let mut start = Start::boot(
        pinned(base.join("vmlinuz")),
        Initrd::Disk(pinned(base.join("initrd"))),
        DISK_COMMAND_LINE,
    );
    if let Start::Boot(boot) = &mut start {
        boot.memory = Memory::Kept;
    }
    let spec = MachineSpec {
        name: name.to_owned(),
        start,
        memory_mib: 1024,
        disk: Some(DiskSpec {
            base: pinned(base.join("disk.qcow2")),
            layers,
            overlays: vec![name.to_owned()],
        }),
        network: Network::Restricted { forwards: Vec::new() },
        relay: None,
        accelerator: Accelerator::Tcg,
        confinement: Confinement::standard(),
        run_dir: folder.join(name),
        limits: MachineLimits::STANDARD,
    };
    let mut machine = Machine::spawn(&Qemu::find().unwrap(), spec).unwrap();
    machine.wait_hello(TIME).unwrap();
    machine.wait_running(TIME).unwrap();
    machine
}

fn apply(machine: &mut Machine, recipe: &Recipe) -> Vec<(String, StepOutcome)> {
    for (path, file) in recipe.payload().iter() {
        let mode = if file.executable { 0o755 } else { 0o644 };
        machine.write_file(&format!("{PAYLOAD}/{path}"), mode, &file.bytes).unwrap();
    }
    let steps = recipe.manifest().steps.iter();
    steps
        .map(|step| {
            let mut said = String::new();
            let outcome = machine
                .apply(&step.kind, PAYLOAD, TIME, &mut |output| {
                    said.push_str(&String::from_utf8_lossy(bytes_of(&output)))
                })
                .unwrap_or_else(|error| panic!("{}: {error}\n{said}", step.kind));
            (step.kind.to_string(), outcome)
        })
        .collect()
}

fn bytes_of<'a>(output: &'a Output<'a>) -> &'a [u8] {
    match output {
        Output::Stdout(bytes) | Output::Stderr(bytes) => bytes,
    }
}

fn run(machine: &mut Machine, script: &str) -> String {
    let exec = Exec {
        argv: ["sh", "-c", script].map(str::to_owned).into(),
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_ms: 60_000,
        output_limit: 65_536,
    };
    let mut said = String::new();
    let exited =
        machine.exec(exec, &mut |output| said.push_str(&String::from_utf8_lossy(bytes_of(&output)))).unwrap();
    assert_eq!(exited.status, Some(0), "{script}: {said}");
    said
}

/// A disk as it was seen from outside.
struct Outside {
    files: Facts,
    comparison: Comparison,
    base_paths: Vec<String>,
    contents: BTreeMap<String, Vec<u8>>,
}

fn disk_of(layers: Vec<Pinned>) -> DiskSpec {
    DiskSpec { base: pinned(base().join("disk.qcow2")), layers, overlays: Vec::new() }
}

/// What differs from the base, and the base's paths.
fn compare(disk: &DiskSpec, left: Left) -> (Comparison, Vec<String>) {
    let mut files = disk.open().unwrap();
    let start = Instant::now();
    let (comparison, base_paths) =
        disk::compare_and_list(&files.remove(0), &files, left, &disk::Limits::default()).unwrap();
    eprintln!(
        "{} of {} files changed, compared in {:?}",
        comparison.changes.len(),
        comparison.files,
        start.elapsed()
    );
    (comparison, base_paths)
}

/// Looks at the disk: by a clean guest, and by the host.
fn inspect(layers: Vec<Pinned>, name: &str, folder: &Path) -> Outside {
    let base = base();
    let disk = disk_of(layers);
    let (comparison, base_paths) = compare(&disk, Left::PoweredOff);
    let spec = MachineSpec {
        name: name.to_owned(),
        start: Start::boot(
            pinned(base.join("vmlinuz")),
            Initrd::Nano(pinned(base.join("nano.cpio"))),
            NANO_COMMAND_LINE,
        ),
        memory_mib: 256,
        disk: Some(disk),
        network: Network::None,
        relay: None,
        accelerator: Accelerator::Tcg,
        confinement: Confinement::standard(),
        run_dir: folder.join(name),
        limits: MachineLimits::STANDARD,
    };
    let mut machine = Machine::spawn(&Qemu::find().unwrap(), spec).unwrap();
    machine.wait_hello(TIME).unwrap();
    let files = machine.disk_facts().unwrap();
    let contents = contents(|path, limit| machine.read_disk_file(path, limit));
    Outside { files, comparison, base_paths, contents }
}

fn config() -> SuiteConfig {
    let text = std::fs::read_to_string(repository("site-recipes/suites/baseline.toml")).unwrap();
    SuiteConfig::parse(&text).unwrap()
}

/// What lies at the paths that are judged by content.
fn contents(mut read: impl FnMut(&str, u64) -> Result<Vec<u8>, HarnessError>) -> BTreeMap<String, Vec<u8>> {
    suite::contents_wanted(&vo(), &[&baseline()], &config())
        .into_iter()
        .filter_map(|(path, limit)| read(&path, limit).ok().map(|bytes| (path, bytes)))
        .collect()
}

fn judge(booted: Sight<'_>, outside: &Outside) -> Vec<TestResult> {
    let before: Facts = serde_json::from_slice(&std::fs::read(base().join("facts.json")).unwrap()).unwrap();
    let Outside { files, comparison, base_paths, contents } = outside;
    let sealed = Sight { facts: files, contents, changes: comparison };
    let seen = Seen { booted, sealed, base_paths };
    let results = suite::judge(&seen, &before, &vo(), &[&baseline()], &config());
    for result in results.iter().filter(|result| !result.passed()) {
        eprintln!("{}: {:#?}", result.name, result.detail);
    }
    results
}

fn failed(results: &[TestResult]) -> Vec<&str> {
    results.iter().filter(|result| !result.passed()).map(|result| result.name.as_str()).collect()
}

#[test]
fn the_baseline_is_idempotent_closes_the_machine_and_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let mut building = boot("building", Vec::new(), folder.path());
    let declared = serde_json::to_vec(&vo().manifest().declared()).unwrap();
    building.write_file(DECLARED_FILE, 0o644, &declared).unwrap();
    // What a careless VO's recipe may leave.
    run(&mut building, "useradd careless && passwd -d careless");
    // And a hostile one: rules of its own with a mark that looks like the site's, options before sshd's file.
    run(
        &mut building,
        "echo \"# declared $(sha256sum </run/countersign/declared.json | cut -c1-64)\" >/etc/nftables.conf\n\
         echo 'SSHD_OPTS=\"-o PermitRootLogin=yes\"' >/etc/default/ssh",
    );
    let first = apply(&mut building, &baseline());
    eprintln!("{first:#?}");
    for (step, outcome) in apply(&mut building, &baseline()) {
        assert_eq!(outcome, StepOutcome::Unchanged, "{step} is not idempotent");
    }
    run(&mut building, "grep -q '^careless:!:' /etc/shadow && userdel careless");
    let layer = building.power_off(TIME).unwrap().overlays.remove(0);

    let outside = inspect(vec![pinned(layer.clone())], "inspect", folder.path());
    for change in &outside.comparison.changes {
        eprintln!("{:?} {}", change.what(), change.path);
    }
    let mut fresh = boot("fresh", vec![pinned(layer.clone())], folder.path());
    // As systemd-binfmt does for a package that the suite knows.
    run(
        &mut fresh,
        r"printf '%s' ':python3.11:M::\xa7\x0d\x0d\x0a::/usr/bin/python3.11:' >/proc/sys/fs/binfmt_misc/register",
    );
    let facts = fresh.facts().unwrap();
    let rules = run(&mut fresh, "nft list ruleset");
    assert!(rules.contains("policy drop"), "{rules}");
    assert!(rules.contains("tcp dport 8080 accept"), "{rules}");
    assert!(!rules.contains("5432"), "{rules}");
    assert!(run(&mut fresh, "auditctl -l").contains("/etc/passwd"));
    let identity = |machine: &mut Machine| run(machine, "cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub");
    let first_identity = identity(&mut fresh);
    let live_contents = contents(|path, limit| fresh.read_file(path, limit));
    let template = fresh.into_template(&folder.path().join("kept")).unwrap();
    let booted = [pinned(layer.clone()), template.overlay().unwrap()].into();
    let (changes, _) = compare(&disk_of(booted), Left::Frozen);
    for change in changes.changes.iter().filter(|change| !outside.comparison.changes.contains(change)) {
        eprintln!("by the boot: {:?} {}", change.what(), change.path);
    }
    let booted = Sight { facts: &facts, contents: &live_contents, changes: &changes };
    assert_eq!(failed(&judge(booted, &outside)), [""; 0]);

    // The same disk with what a hostile recipe leaves: each check that should speak does.
    let mut hostile = boot("hostile", vec![pinned(layer.clone())], folder.path());
    assert_ne!(first_identity, identity(&mut hostile));
    run(
        &mut hostile,
        "cp /bin/true /usr/local/bin/x && chmod 4755 /usr/local/bin/x\n\
         echo 'toor::0:0::/root:/bin/sh' >>/etc/passwd && echo 'toor::19000::::::' >>/etc/shadow\n\
         mkdir -p /root/.ssh && echo ssh-ed25519 AAAA >/root/.ssh/authorized_keys\n\
         echo 'ALL ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/x\n\
         echo 'PermitRootLogin yes' >/etc/ssh/sshd_config\n\
         echo '* * * * * root true' >/etc/cron.d/x\n\
         gpasswd -a nobody sudo\n\
         echo true >/etc/profile.d/x.sh\n\
         touch /etc/open && chmod 666 /etc/open\n\
         systemctl disable nftables && nft flush ruleset\n\
         printf '[Service]\\nExecStart=/bin/true\\n' >/etc/systemd/system/x.service\n\
         sed -i /careless/d /etc/group\n\
         perl -e '($f, $n, $v) = (\"/etc/shadow\", \"trusted.x\", \"1\"); syscall(188, $f, $n, $v, 1, 0) == 0 or die' # setxattr(2)\n\
         cp /bin/true /usr/local/sbin/ls && echo x >>/usr/bin/sync\n\
         chgrp nogroup /etc && echo x >>/etc/nanorc && echo x >/etc/security/limits.d/x.conf && mknod /srv/disk b 254 0\n\
         printf hidden | dd of=/dev/vda bs=1 seek=100 conv=notrunc 2>/dev/null; sync\n\
         (exec 3<>/dev/null; perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(Listen=>1,LocalPort=>4444) or die; sleep 600' >/dev/null 2>&1 &)\n\
         echo ':x:E::x::/bin/true:' >/proc/sys/fs/binfmt_misc/register && echo '|/bin/true' >/proc/sys/kernel/core_pattern\n\
         sleep 2",
    );
    let live = hostile.facts().unwrap();
    let live_contents = contents(|path, limit| hostile.read_file(path, limit));
    let left = hostile.power_off(TIME).unwrap().overlays.remove(0);
    let outside = inspect(vec![pinned(layer), pinned(left)], "inspect-hostile", folder.path());
    let booted = Sight { facts: &live, contents: &live_contents, changes: &outside.comparison };
    let results = judge(booted, &outside);
    let failed = failed(&results);
    for check in [
        "listening",
        "setuid",
        "users",
        "groups",
        "authorized-keys",
        "sudoers",
        "sshd",
        "units",
        "cron",
        "world-writable",
        "hooks",
        "site-recipe",
        "site-files",
        "firewall",
        "helpers",
        "attributes",
        "programs",
        "configuration",
        "ownership",
        "outside",
    ] {
        assert!(failed.contains(&check), "{check} passed: {failed:?}");
    }
}
