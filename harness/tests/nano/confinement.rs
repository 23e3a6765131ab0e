//! What QEMU may, seen from outside and tried.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::Machine;

use crate::base::{self, boot, nano};

fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_is_qemu(machine: &Machine) {
    let program = fs::read_link(format!("/proc/{}/exe", machine.pid())).unwrap();
    assert!(program.to_string_lossy().contains("qemu-system"), "{}", program.display());
}

/// Whether a process of this user can do something with a file.
fn can(uid: u32, test: &str, path: &Path) -> bool {
    Command::new("setpriv")
        .args([
            &format!("--reuid={uid}"),
            &format!("--regid={uid}"),
            "--clear-groups",
            "--inh-caps=-all",
            "sh",
            "-c",
        ])
        .args([test, "sh", &path.to_string_lossy()])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
fn qemu_runs_confined_as_a_user_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let machine = boot(nano("confined", folder.path()));
    let pid = machine.pid();
    assert_is_qemu(&machine);
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    assert_eq!(status(pid, "CapEff"), "0000000000000000");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for name in ["Max address space", "Max file size", "Max core file size", "Max open files"] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(!line.contains("unlimited"), "{line}");
    }
    // Only what it was given: no folder, no file of ours but the sealed boot files.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned();
        let harmless = ["socket:", "anon_inode:", "/memfd:", "/dev/null", "pipe:"];
        assert!(harmless.iter().any(|start| target.starts_with(start)), "{target}");
    }
    let uid = machine.uid().expect("this test needs root: without it QEMU has no user of its own");
    assert_eq!(status(pid, "Uid"), [uid; 4].map(|uid| uid.to_string()).join(" "));
    assert_eq!(status(pid, "Gid"), [uid; 4].map(|uid| uid.to_string()).join(" "));
    assert_eq!(status(pid, "Groups"), "");
    assert_eq!(status(pid, "CapBnd"), "0000000000000000");
}

#[test]
fn the_user_of_a_machine_reads_no_key_and_writes_no_base() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let machine = boot(nano("tries", folder.path()));
    let uid = machine.uid().expect("this test needs root: without it QEMU has no user of its own");
    let key = folder.path().join("site.key");
    fs::write(&key, "secret").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let open = folder.path().join("open");
    fs::write(&open, "public").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    // The trial itself works: what is open to all can be read.
    assert!(can(uid, "cat \"$1\" >/dev/null", &open));
    assert!(!can(uid, "cat \"$1\" >/dev/null", &key));
    assert!(!can(uid, "echo x >>\"$1\"", &key));
    for file in ["disk.qcow2", "vmlinuz", "initrd", "nano.cpio"] {
        assert!(!can(uid, ": >>\"$1\"", &base::base().join(file)), "{file}");
    }
    assert!(!can(uid, "ls \"$1\"", &folder.path().join("tries")), "not even its own run folder");
    assert!(!can(uid, ": >\"$1/new\"", folder.path()));
}

#[test]
fn two_machines_have_two_users() {
    let folder = tempfile::tempdir().unwrap();
    let qemu = harness::Qemu::find().unwrap();
    let one = Machine::spawn(&qemu, nano("one", folder.path())).unwrap();
    let two = Machine::spawn(&qemu, nano("two", folder.path())).unwrap();
    assert!(one.uid().is_some(), "this test needs root: without it QEMU has no user of its own");
    assert_ne!(one.uid(), two.uid());
}

#[test]
fn dropping_a_machine_ends_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let machine = boot(nano("dropped", folder.path()));
    let pid = machine.pid();
    drop(machine);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Where the process to be killed puts its machine: it will not be able to tidy up.
const FOLDER: &str = "COUNTERSIGN_TEST_FOLDER";

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "started by killing_the_process_kills_its_machine"]
fn boot_and_wait_to_be_killed() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let machine = boot(nano("orphan", Path::new(&folder)));
    println!("\nQEMU {}", machine.pid());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn killing_the_process_kills_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    let mut spawner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "confinement::boot_and_wait_to_be_killed"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(spawner.stdout.take().unwrap());
    let pid: u32 =
        said.lines().map(Result::unwrap).find_map(|line| line.strip_prefix("QEMU ")?.parse().ok()).unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    // SIGKILL: nothing of ours runs any more, not even a destructor.
    spawner.kill().unwrap();
    spawner.wait().unwrap();
    let start = Instant::now();
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(start.elapsed() < Duration::from_secs(10), "QEMU {pid} outlives its process");
        std::thread::sleep(Duration::from_millis(20));
    }
}
