//! How commands end: statuses, JSON on failure, signals, and readers that go away.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

#[test]
fn the_statuses_are_in_the_help() {
    let help = World::new().run("--help").done().stdout;
    for line in [
        "0  done or allowed",
        "1  refused: we decided no",
        "2  the command line is wrong",
        "3  could not decide",
    ] {
        assert!(help.contains(line), "{help}");
    }
}

#[test]
fn a_wrong_command_line_is_json_too() {
    let world = World::new();
    for arguments in
        ["--format json no-such-command", "sign --format=json", "--format json key public missing.pem"]
    {
        let run = world.run(arguments).usage();
        let value = run.json();
        assert_eq!(value["result"], "usage", "{value}");
        assert!(!value["message"].as_str().unwrap().is_empty(), "{value}");
        assert!(value["code"].is_null(), "{value}");
    }
    assert_eq!(world.run("--format yaml catalog").status, 2);
}

#[test]
fn an_answer_that_cannot_be_written_is_not_done() {
    let world = World::new();
    world.run("key generate key.pem --no-passphrase").done();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for format in ["human", "json"] {
        let mut command = world.command(&format!("--format {format} key public key.pem"));
        let ended = command.stdout(full()).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(3), "{said}");
        assert!(said.starts_with("HOST_FULL: "), "{said}");
    }
    let wrong = world.command("no-such-command --format json").stdout(full()).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_key_that_was_not_written_whole_is_not_there() {
    let world = World::new();
    let program = world.command("");
    // The first byte written to a file kills (SIGXFSZ, `setrlimit(2)`).
    let killed = std::process::Command::new("sh")
        .args(["-c", "ulimit -f 0; exec \"$0\" key generate key.pem --no-passphrase"])
        .arg(program.get_program())
        .current_dir(world.path("."))
        .output()
        .unwrap();
    assert_ne!(killed.status.code(), Some(0));
    assert!(!world.path("key.pem").exists());
    world.run("key generate key.pem --no-passphrase").done();
    world.run("key generate key.pem --no-passphrase").usage();
}

/// A command whose signals are as env(1) is told: the tests themselves may have been started with some ignored.
fn under_env(world: &World, signals: &str, arguments: &str) -> Command {
    let command = world.command(arguments);
    let mut under = Command::new("env");
    under.arg(signals).arg(command.get_program()).args(command.get_args()).current_dir(world.path("."));
    under.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    under
}

/// Waits until the process catches SIGTERM.
fn wait_until_it_listens(child: &Child) {
    let start = Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        // SIGTERM is the last of those that are caught.
        if u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (15 - 1)) != 0 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it never listens for signals");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_signal_is_an_interruption_with_its_code() {
    let world = World::new();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        world.path("pipe"),
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP")] {
        // A pipe that nobody writes to keeps the scan waiting.
        let mut child = under_env(&world, "--default-signal", "--format json scan pipe").spawn().unwrap();
        wait_until_it_listens(&child);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(status.code(), Some(3), "{err}");
        assert!(err.starts_with("INTERRUPTED: ") && err.contains(name), "{err}");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&value["code"], &value["result"]), (&"INTERRUPTED".into(), &"failed".into()));
    }
}

#[test]
fn a_signal_that_whoever_started_us_ignores_is_ignored() {
    let world = World::new();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        world.path("pipe"),
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    let mut child = under_env(&world, "--ignore-signal=HUP", "scan pipe").spawn().unwrap();
    wait_until_it_listens(&child);
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(child.try_wait().unwrap(), None, "it goes on, as under nohup(1)");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let world = World::new();
    world.run("key generate key.pem --no-passphrase").done();
    let mut child = world.command("key public key.pem").spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn names_from_outside_cannot_move_the_cursor() {
    let world = World::new();
    let output = world.command("scan").arg("no\u{1b}[2Jsuch").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains('\u{1b}') && said.contains("u{1b}"), "{said}");
    assert_eq!(output.status.code(), Some(2));
}
