//! Workers that are really started: this test program starts itself again, as `countersign` does.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::worker::{
    Ended, Entry, Job, Limit, Network, Order, Reading, Scratch, Stop, Task, WorkLimits, Workers,
    serve_in_test,
};
use harness::{Confinement, SameUser, UserRange};
use serde_json::{Value, json};

/// One job that does what its request says.
const TRY: Job = Job { name: "try", run: attempt };

#[test]
#[ignore = "started by the other tests, as a worker"]
fn worker() {
    serve_in_test(&[TRY]);
}

fn attempt(task: &mut Task) -> Result<(), Stop> {
    let request: Value = task.request()?;
    let number = |key: &str| request[key].as_u64().unwrap();
    let path = |key: &str| PathBuf::from(request[key].as_str().unwrap());
    match request["do"].as_str().unwrap() {
        "echo" => {
            for mut file in task.files() {
                file.seek(SeekFrom::Start(0))?;
                std::io::copy(&mut file, task.answer())?;
            }
            task.answer().write_all(request["say"].as_str().unwrap().as_bytes())?;
        }
        "status" => task.answer().write_all(&fs::read("/proc/self/status")?)?,
        "environment" => {
            let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
            names.sort();
            task.answer().write_all(names.join(" ").as_bytes())?;
        }
        "refuse" => {
            task.answer().write_all(b"half an answer")?;
            return Err(Stop::refused(&json!({"because": "no"})));
        }
        "fail" => return Err(Stop::Failed("this is\u{1b}[2J why".to_owned())),
        "panic" => panic!("on purpose"),
        "abort" => std::process::abort(),
        "leave early" => std::process::exit(0),
        "memory" => {
            let mut kept = Vec::new();
            for _ in 0..number("mib") {
                kept.push(vec![1_u8; 1 << 20]);
            }
            task.answer().write_all(&[kept.concat()[0]])?;
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "sleep" => std::thread::sleep(Duration::from_secs(600)),
        "flood the answer" => loop {
            task.answer().write_all(&[b'x'; 4096])?;
        },
        "flood stderr" => loop {
            eprintln!("{}", "flood ".repeat(100));
        },
        "write" => {
            for name in 0..number("files") {
                let mut file = File::create(task.scratch().unwrap().join(name.to_string()))?;
                for _ in 0..number("mib") {
                    file.write_all(&vec![0; 1 << 20])?;
                }
            }
            std::thread::sleep(Duration::from_millis(number("then_wait_ms")));
        }
        "open" => {
            let opened =
                if request["write"] == true { File::create(path("path")) } else { File::open(path("path")) };
            let said = match opened {
                Ok(mut file) => {
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    format!("opened {text}")
                }
                Err(error) => format!("{:?}", error.kind()),
            };
            task.answer().write_all(said.as_bytes())?;
        }
        "start a program" => {
            let started = Command::new("/bin/true").status();
            task.answer().write_all(format!("{:?}", started.map_err(|error| error.kind())).as_bytes())?;
        }
        "start a thread" => {
            let started = std::thread::Builder::new().spawn(|| {});
            task.answer().write_all(if started.is_ok() { b"started" } else { b"not started" })?;
        }
        "kill" => {
            let pid = rustix::process::Pid::from_raw(i32::try_from(number("pid")).unwrap()).unwrap();
            let killed = rustix::process::kill_process(pid, rustix::process::Signal::USR1);
            task.answer().write_all(format!("{killed:?}").as_bytes())?;
        }
        "connect" => {
            let port = u16::try_from(number("port")).unwrap();
            let tcp = TcpStream::connect(("127.0.0.1", port)).is_ok();
            let udp = UdpSocket::bind("127.0.0.1:0")
                .and_then(|socket| socket.send_to(b"x", ("127.0.0.1", port)))
                .is_ok();
            task.answer().write_all(format!("tcp {tcp} udp {udp}").as_bytes())?;
        }
        other => return Err(Stop::Failed(format!("what is {other}?"))),
    }
    Ok(())
}

fn workers() -> Workers {
    Workers {
        entry: Entry::libtest("worker"),
        confinement: Confinement { users: UserRange::standard(), same_user: SameUser::Allowed },
        until: Arc::default(),
    }
}

fn order<'a>() -> Order<'a> {
    Order {
        files: Vec::new(),
        reading: Reading::Nothing,
        network: Network::None,
        environment: Vec::new(),
        scratch: Scratch::None,
        limits: WorkLimits { wall_clock: Duration::from_secs(60), ..WorkLimits::STANDARD },
    }
}

fn run(request: Value, order: Order<'_>) -> Ended {
    workers().run(&TRY, &request, order).unwrap()
}

fn answer(request: Value, order: Order<'_>) -> String {
    match run(request, order) {
        Ended::Answered(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn died(request: Value) -> harness::worker::Death {
    match run(request, order()) {
        Ended::Died(death) => death,
        other => panic!("{other:?}"),
    }
}

fn file(content: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[test]
fn a_worker_answers_from_its_request_and_its_files() {
    let files = vec![file("one "), file("two ")];
    let said = answer(json!({"do": "echo", "say": "three"}), Order { files, ..order() });
    assert_eq!(said, "one two three");
    // Longer than any pipe holds.
    let long = "x".repeat(3 << 20);
    assert_eq!(answer(json!({"do": "echo", "say": ""}), Order { files: vec![file(&long)], ..order() }), long);
}

#[test]
fn a_refusal_replaces_what_was_answered_before_it() {
    let Ended::Refused(refusal) = run(json!({"do": "refuse"}), order()) else { panic!("not refused") };
    assert_eq!(serde_json::from_slice::<Value>(&refusal).unwrap(), json!({"because": "no"}));
}

#[test]
fn an_end_that_nobody_foresaw_says_what_is_known_of_it() {
    let death = died(json!({"do": "fail"}));
    assert_eq!(
        (death.status.as_str(), death.said.ends_with("this is\\u{1b}[2J why")),
        ("exit status: 1", true)
    );
    assert!(died(json!({"do": "panic"})).said.contains("on purpose"));
    assert!(died(json!({"do": "abort"})).status.contains("signal: 6"));
    // Exit status 0 is no answer.
    assert_eq!(died(json!({"do": "leave early"})).status, "exit status: 0");
}

#[test]
fn each_limit_is_named_when_it_is_exceeded() {
    let limits = WorkLimits {
        memory_bytes: 64 << 20,
        cpu_seconds: 1,
        wall_clock: Duration::from_secs(30),
        answer_bytes: 1 << 20,
        file_bytes: 4 << 20,
        scratch_bytes: 16 << 20,
        ..WorkLimits::STANDARD
    };
    let folder = tempfile::tempdir().unwrap();
    let ended = |request: Value, limits: WorkLimits| {
        run(request, Order { limits, scratch: Scratch::Below(folder.path()), ..order() })
    };
    assert_eq!(ended(json!({"do": "memory", "mib": 200}), limits), Ended::Exceeded(Limit::Memory));
    assert_eq!(ended(json!({"do": "memory", "mib": 20}), limits), Ended::Answered(vec![1]));
    assert_eq!(ended(json!({"do": "spin"}), limits), Ended::Exceeded(Limit::Processor));
    assert_eq!(ended(json!({"do": "flood the answer"}), limits), Ended::Exceeded(Limit::Answer));
    let write =
        |files: u64, mib: u64| json!({"do": "write", "files": files, "mib": mib, "then_wait_ms": 3000});
    assert_eq!(ended(write(1, 5), limits), Ended::Exceeded(Limit::File));
    assert_eq!(ended(write(8, 3), limits), Ended::Exceeded(Limit::Scratch));
    let short = WorkLimits { wall_clock: Duration::from_millis(300), ..limits };
    for hanging in ["sleep", "flood stderr"] {
        let begun = Instant::now();
        assert_eq!(ended(json!({"do": hanging}), short), Ended::Exceeded(Limit::WallClock), "{hanging}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
}

#[test]
fn a_worker_has_a_user_of_its_own_and_no_privilege() {
    let everything = Order { reading: Reading::Public(vec!["/".into()]), ..order() };
    let status = answer(json!({"do": "status"}), everything);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let us = rustix::process::geteuid();
    assert!(us.is_root(), "this test needs root: only root has users to give");
    let uid: u32 = field("Uid").split(' ').next().unwrap().parse().unwrap();
    assert!((61_500..61_564).contains(&uid), "{uid}");
    assert_eq!((field("Groups").as_str(), field("NoNewPrivs").as_str()), ("", "1"));
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(answer(json!({"do": "environment"}), order()), "LC_ALL MALLOC_ARENA_MAX");
}

/// A file that everybody may read, in a folder that only root may enter.
fn hidden() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

#[test]
fn what_a_worker_may_open_is_what_its_order_names() {
    let (folder, path) = hidden();
    let open = |path: &Path, write: bool, reading: Reading| {
        answer(json!({"do": "open", "path": path, "write": write}), Order { reading, ..order() })
    };
    let passwd = Path::new("/etc/passwd");
    assert_eq!(open(passwd, false, Reading::Nothing), "PermissionDenied");
    assert!(open(passwd, false, Reading::Public(vec!["/etc".into()])).starts_with("opened root:"));
    // A user of its own does not see what only we may read, unless it is to read as we do: then below those paths only.
    assert_eq!(open(&path, false, Reading::Public(vec!["/".into()])), "PermissionDenied");
    let here = Reading::AsCaller(vec![folder.path().to_owned()]);
    assert_eq!(open(&path, false, here.clone()), "opened content");
    assert_eq!(open(&path, true, here.clone()), "PermissionDenied");
    assert_eq!(open(Path::new("/etc/shadow"), false, here.clone()), "PermissionDenied");
    assert_eq!(open(passwd, false, here), "PermissionDenied");
    for writable in ["/tmp/countersign-worker-test", "/dev/shm/countersign-worker-test"] {
        let said = open(Path::new(writable), true, Reading::Public(vec!["/".into()]));
        assert_eq!(said, "PermissionDenied", "{writable}");
        assert!(!Path::new(writable).exists());
    }
}

#[test]
fn a_worker_starts_nothing_and_ends_nobody() {
    for (what, expected) in [("start a program", "Err("), ("start a thread", "not started")] {
        let said = answer(json!({"do": what}), order());
        assert!(said.starts_with(expected), "{what}: {said}");
    }
    let threads = WorkLimits { threads: 1, ..order().limits };
    assert_eq!(answer(json!({"do": "start a thread"}), Order { limits: threads, ..order() }), "started");
    // With a process to spare it still executes nothing.
    let everything = Reading::Public(vec!["/".into()]);
    let said =
        answer(json!({"do": "start a program"}), Order { limits: threads, reading: everything, ..order() });
    assert!(said.starts_with("Err("), "{said}");
    let said = answer(json!({"do": "kill", "pid": std::process::id()}), order());
    assert!(said.starts_with("Err("), "{said}");
}

#[test]
fn without_a_network_nothing_is_reached_and_with_it_the_host_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = |network| answer(json!({"do": "connect", "port": port}), Order { network, ..order() });
    assert_eq!(connect(Network::None), "tcp false udp false");
    assert_eq!(connect(Network::Host), "tcp true udp true");
}

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "started by killing_the_process_kills_its_worker"]
fn have_a_worker_wait_to_be_killed() {
    let request = json!({"do": "write", "files": 1, "mib": 1, "then_wait_ms": 600_000});
    let limits = WorkLimits {
        wall_clock: Duration::from_secs(600),
        file_bytes: 4 << 20,
        scratch_bytes: 4 << 20,
        ..WorkLimits::STANDARD
    };
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let users = UserRange { first: 61_980, count: 1, locks: Path::new(&folder).join("locks") };
    let workers = Workers { confinement: Confinement { users, same_user: SameUser::Allowed }, ..workers() };
    println!("\nstarting");
    let _ =
        workers.run(&TRY, &request, Order { limits, scratch: Scratch::Below(Path::new(&folder)), ..order() });
}

/// Where the process to be killed has its locks and its worker's folder.
const FOLDER: &str = "COUNTERSIGN_TEST_FOLDER";

/// Processes of a user, by their numbers.
fn processes_of(uid: u32) -> Vec<String> {
    let is_of = |pid: &String| {
        fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
            status.contains(&format!("\nUid:\t{uid}\t")) && !status.contains("\nState:\tZ")
        })
    };
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.parse::<u32>().is_ok()).filter(is_of).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn killing_the_process_kills_its_worker_and_the_next_one_sweeps() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: only root has users to give");
    let folder = tempfile::tempdir().unwrap();
    let mut spawner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "have_a_worker_wait_to_be_killed"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(spawner.stdout.take().unwrap());
    assert!(said.lines().map(Result::unwrap).any(|line| line == "starting"));
    let written = folder.path().join("scratch/61980/0");
    until("the worker writes nothing", || written.metadata().is_ok_and(|about| about.len() == 1 << 20));
    assert!(!processes_of(61_980).is_empty());
    // SIGKILL: nothing of ours runs any more, not even a destructor.
    spawner.kill().unwrap();
    spawner.wait().unwrap();
    until("the worker outlives its process", || processes_of(61_980).is_empty());
    // Its folder is still there, and goes when its user is taken again, or passed over because its dead still count.
    assert!(written.exists());
    let users = UserRange { first: 61_980, count: 2, locks: folder.path().join("locks") };
    let workers = Workers { confinement: Confinement { users, same_user: SameUser::Refused }, ..workers() };
    let next = workers.run(&TRY, &json!({"do": "echo", "say": "next"}), order()).unwrap();
    assert_eq!(next, Ended::Answered(b"next".to_vec()));
    assert_eq!(fs::read_dir(folder.path().join("scratch")).unwrap().count(), 0);
}
