//! Commands: what they are given, and that nothing they do can keep the agent waiting.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod wire;

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use guest::control::{AgentErrorKind, Exec, Exited, Request, Response};
use wire::{Agent, kind, shell};

const ENDED_WELL: Exited = Exited { status: Some(0), signal: None, timed_out: false, truncated: false };

#[test]
fn both_streams_and_the_exit_status_come_back() {
    let mut agent = Agent::start();
    let (exited, answer) = agent.exec(shell("echo out; echo err >&2; exit 3"));
    assert_eq!(exited, Exited { status: Some(3), ..ENDED_WELL });
    assert_eq!(
        (answer.stdout.as_slice(), answer.stderr.as_slice()),
        (b"out\n".as_slice(), b"err\n".as_slice())
    );
    let (exited, _) = agent.exec(shell("kill -TERM $$"));
    assert_eq!(exited, Exited { status: None, signal: Some(15), ..ENDED_WELL });
}

#[test]
fn a_command_gets_a_minimal_environment_and_a_session_of_its_own() {
    let mut agent = Agent::start();
    let mut exec = shell(
        "/usr/bin/env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | sort; pwd; cut -d' ' -f1,6 /proc/$$/stat",
    );
    exec.env.insert("COLOUR".into(), "blue".into());
    exec.cwd = Some("/usr".into());
    let (_, answer) = agent.exec(exec);
    let said = String::from_utf8(answer.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let (session, rest) = lines.split_last().unwrap();
    assert_eq!(
        rest,
        [
            "COLOUR=blue",
            "HOME=/root",
            "LANG=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "/usr"
        ]
    );
    let (pid, session) = session.split_once(' ').unwrap();
    assert_eq!(pid, session, "the shell leads its session");
}

#[test]
fn what_cannot_start_is_told_apart_from_what_fails() {
    let mut agent = Agent::start();
    let mut ask = |change: &dyn Fn(&mut Exec)| {
        let mut exec = shell("true");
        change(&mut exec);
        kind(&agent.ask(&Request::Exec(exec)).response)
    };
    assert_eq!(ask(&|exec| exec.argv = vec!["no-such-program".into()]), AgentErrorKind::ToolMissing);
    assert_eq!(ask(&|exec| exec.argv = vec!["/etc/passwd".into()]), AgentErrorKind::ToolMissing);
    assert_eq!(ask(&|exec| exec.argv = vec!["./relative".into()]), AgentErrorKind::ToolMissing);
    assert_eq!(ask(&|exec| exec.argv = vec![]), AgentErrorKind::BadRequest);
    assert_eq!(ask(&|exec| exec.argv.push("a\0b".into())), AgentErrorKind::BadRequest);
    assert_eq!(ask(&|exec| exec.cwd = Some("/no/such/folder".into())), AgentErrorKind::BadRequest);
    assert_eq!(ask(&|exec| exec.cwd = Some("usr".into())), AgentErrorKind::BadRequest);
    assert_eq!(ask(&|exec| exec.user = Some("no-such-user".into())), AgentErrorKind::BadRequest);
    assert_eq!(ask(&|exec| drop(exec.env.insert("A=B".into(), "c".into()))), AgentErrorKind::BadRequest);
}

#[test]
fn at_the_time_limit_the_whole_session_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("pids");
    let mut agent = Agent::start();
    // One child in the shell's own process group, one in a group of its own: job control (`set -m`) makes that.
    let text = format!("sleep 300 & echo $! >{0}; set -m; sleep 300 & echo $! >>{0}; wait", list.display());
    let start = Instant::now();
    let (exited, _) = agent.exec(Exec { timeout_ms: 700, ..shell(&text) });
    assert!(exited.timed_out && exited.signal == Some(9), "{exited:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    let pids = fs::read_to_string(list).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_alive(pid) {
            assert!(Instant::now() < deadline, "{pid} outlived its session");
            sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(agent.ask(&Request::Ping).response, Response::Pong);
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_process_left_behind_with_the_pipe_does_not_keep_the_agent_waiting() {
    let mut agent = Agent::start();
    let start = Instant::now();
    let (exited, answer) = agent.exec(shell("setsid sleep 20 & echo started"));
    assert_eq!(exited, ENDED_WELL);
    assert_eq!(answer.stdout, b"started\n");
    let (exited, _) = agent.exec(shell("setsid sh -c 'while :; do echo noise; done' & true"));
    assert_eq!(exited.status, Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn output_beyond_the_limit_is_dropped_and_said() {
    let mut agent = Agent::start();
    let flood = Exec { output_limit: 1000, ..shell("head -c 5000000 /dev/zero; echo late >&2; exit 4") };
    let (exited, answer) = agent.exec(flood);
    assert_eq!(exited, Exited { status: Some(4), truncated: true, ..ENDED_WELL });
    assert_eq!(answer.stdout.len() + answer.stderr.len(), 1000);
    let (exited, answer) = agent.exec(Exec { output_limit: 6, ..shell("echo 12345") });
    assert!(!exited.truncated);
    assert_eq!(answer.stdout, b"12345\n");
}

#[test]
fn a_large_output_comes_whole() {
    let mut agent = Agent::start();
    let (exited, answer) = agent.exec(Exec { output_limit: u64::MAX, ..shell("seq 1 200000") });
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(exited, ENDED_WELL);
    assert!(answer.stdout == expected.as_bytes());
}

#[test]
fn a_command_can_run_as_another_user() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become another; in a guest the agent always is.
        return;
    }
    let mut agent = Agent::start();
    let (_, answer) = agent.exec(Exec { user: Some("daemon".into()), ..shell("id -un; id -g; echo $HOME") });
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), "daemon\n1\n/usr/sbin\n");
}
