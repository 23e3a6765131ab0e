//! `countersign deploy`, and `supervise`, the process that it leaves behind.
//!
//! An instance lives as long as its supervisor, which outlives the command: `deploy` starts `supervise` in a session of
//! its own, shows what that says line by line, and ends when it is ready or has failed. If `deploy` is gone
//! before that, nobody waits for the instance any more, and the supervisor ends it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use authorizer::events::Event;
use authorizer::interruption::Interruption;
use authorizer::journal::Journal;
use deployer::{Instance, Launched, Order, PortForward, State};
use recipe_spec::{Code, RecipeName};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use signal_hook::iterator::Signals;

use crate::arguments::{DeployArguments, Format};
use crate::clock;
use crate::commands::authorize::logged;
use crate::commands::{instance, site};
use crate::interrupt;
use crate::live::{Live, Shown};
use crate::outcome::{Answer, Problem};

/// How long a supervisor may take to end in order once nobody reads what it says.
const UNREAD: Duration = Duration::from_secs(1);

/// What a supervisor says on its standard output, one a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Message {
    Line(String),
    Now(String),
    /// The instance works. The last message.
    Ready {
        human: String,
        data: Map<String, Value>,
    },
    /// There is no instance. The last message.
    Stopped {
        code: Code,
        message: String,
        hints: Vec<String>,
        details: String,
        data: Map<String, Value>,
    },
}

pub(crate) fn deploy(
    folder: Option<&Path>,
    wanted: &DeployArguments,
    format: Format,
) -> Result<Answer, Problem> {
    order(wanted)?;
    let site = site::open(folder)?;
    let interruption = interrupt::in_order();
    let mut supervisor = start(site.layout().root(), wanted)
        .map_err(|error| Problem::coded(Code::HostFailed, format!("cannot start the supervisor: {error}")))?;
    ask_too(interruption, &supervisor)
        .map_err(|error| Problem::coded(Code::HostFailed, format!("cannot watch the supervisor: {error}")))?;
    let mut live = Live::new(format);
    let said = last_message(&mut supervisor, &mut live);
    live.end();
    match said {
        Some(Message::Ready { human, data }) => match interruption.settle() {
            Ok(()) => Ok(Answer { human, data }),
            // The supervisor was asked too: there is no instance once it has ended.
            Err(stopped) => {
                let _ = supervisor.wait();
                Err(stopped.into())
            }
        },
        Some(Message::Stopped { code, message, hints, details, data }) => {
            // It has nothing left to do, but its end is what frees the instance's lock.
            let _ = supervisor.wait();
            Err(Problem::Coded { code, message, hints, details, data })
        }
        _ => {
            let how = supervisor.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            // A signal can reach it before it listens for one.
            interruption.settle()?;
            Err(Problem::coded(Code::MachineFailed, format!("the supervisor ended without a word: {how}"))
                .hint(format!("look at the newest log in {}", site.layout().logs().display())))
        }
    }
}

fn start(site: &Path, wanted: &DeployArguments) -> std::io::Result<Child> {
    let DeployArguments { name, forwards, rehash } = wanted;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--site").arg(site).args(["supervise", name]);
    for forward in forwards {
        command.args(["--forward", forward]);
    }
    if *rehash {
        command.arg("--rehash");
    }
    // It outlives us: it must hold neither our folder nor our terminal, and it needs no key.
    command
        .current_dir("/")
        .env_remove("COUNTERSIGN_PASSPHRASE_FILE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Hands an interruption of this command on to the supervisor, which is in a session of its own.
fn ask_too(interruption: &Interruption, supervisor: &Child) -> std::io::Result<()> {
    // By a descriptor, so that the signal cannot reach another process that has the number by then.
    let supervisor = pidfd_open(Pid::from_child(supervisor), PidfdFlags::empty())?;
    interruption.when_asked(move || {
        // It fails only if the supervisor has ended.
        let _ = pidfd_send_signal(&supervisor, Signal::TERM);
    });
    Ok(())
}

/// Shows what the supervisor says until its last message.
fn last_message(supervisor: &mut Child, live: &mut Live<'_>) -> Option<Message> {
    let output = BufReader::new(supervisor.stdout.take()?);
    for line in output.lines() {
        match serde_json::from_str(&line.ok()?).ok()? {
            Message::Line(text) => live.line(&text),
            Message::Now(text) => live.put(Shown::Now(&text)),
            last => return Some(last),
        }
    }
    None
}

/// Holds one instance until it is asked to end: by `instance stop` or a signal; before it is ready also by the end of the
/// command that started it.
pub(crate) fn supervise(folder: Option<&Path>, wanted: &DeployArguments) -> Result<Answer, Problem> {
    // Fails where a person started this by hand from a shell: then it has the session it needs.
    let _ = rustix::process::setsid();
    let courier =
        Courier { stop: Arc::default(), over: Arc::default(), interruption: Interruption::default() };
    courier
        .watch()
        .map_err(|error| Problem::coded(Code::HostFailed, format!("cannot watch for signals: {error}")))?;
    let ended = hold(folder, wanted, &courier);
    if let Err(Problem::Coded { code, message, hints, details, data }) = &ended {
        courier.last(&Message::Stopped {
            code: *code,
            message: message.clone(),
            hints: hints.clone(),
            details: details.clone(),
            data: data.clone(),
        });
    }
    ended
}

fn hold(folder: Option<&Path>, wanted: &DeployArguments, courier: &Courier) -> Result<Answer, Problem> {
    let order = order(wanted)?;
    let site = if wanted.rehash { site::open_afresh(folder)? } else { site::open(folder)? };
    let mut live = Live::elsewhere(|shown| {
        courier.send(&match shown {
            Shown::Line(text) => Message::Line(text.to_owned()),
            Shown::Now(text) => Message::Now(text.to_owned()),
        });
    });
    let mut watcher = |event: &Event| live.show(event);
    let journal = Journal::new(&mut watcher).until(&courier.interruption);
    let (mut journal, log) = logged(journal, &site, "deploy")?;
    let stop = &courier.stop;
    let ended =
        deployer::supervise(&order, &site, &clock::now, stop, &mut journal, &mut |launched, journal| {
            courier.last(&ready(launched, journal, &log));
        });
    let result = ended.as_ref().map_or_else(|stopped| stopped.code.as_str(), |()| "done");
    journal.tell(Event::Ended { result: result.to_owned() });
    match ended {
        Ok(()) => Ok(Answer::default()),
        Err(stopped) => Err(Problem::from(stopped)
            .with("stages", journal.timings())
            .with("coldBoots", journal.cold_boots())
            .hint(format!("the whole log is {}", log.display()))
            .with("log", &log)),
    }
}

fn ready(launched: &Launched, journal: &Journal<'_>, log: &Path) -> Message {
    let record = launched.record.clone();
    let running = Instance { id: record.id.clone(), state: State::Running, record: Some(record) };
    let Answer { human, mut data } = instance::shown(&running);
    data.insert("crlNumber".to_owned(), json!(launched.crl_number));
    data.insert("stages".to_owned(), json!(journal.timings()));
    data.insert("coldBoots".to_owned(), json!(journal.cold_boots()));
    data.insert("log".to_owned(), json!(log));
    Message::Ready { human, data }
}

/// Carries messages to the command that started this one, and back that it should end.
struct Courier {
    /// Asks an instance that runs to shut down.
    stop: Arc<AtomicBool>,
    /// The last message was sent: whoever read it is free to go.
    over: Arc<AtomicBool>,
    /// Ends what is not ready yet.
    interruption: Interruption,
}

impl Courier {
    /// Listens for signals, and for the end of whoever reads our messages.
    fn watch(&self) -> std::io::Result<()> {
        let mut signals = Signals::new(interrupt::signals())?;
        let (stop, over, interruption) =
            (Arc::clone(&self.stop), Arc::clone(&self.over), self.interruption.clone());
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for _ in signals.forever() {
                stop.store(true, Ordering::Relaxed);
                interruption.ask();
                end_within(interrupt::PATIENCE, &over);
            }
        })?;
        let (over, interruption) = (Arc::clone(&self.over), self.interruption.clone());
        std::thread::Builder::new().name("reader".into()).spawn(move || {
            let stdout = std::io::stdout();
            // No event is asked for: that the reader is gone is told always (poll(2), POLLERR).
            let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
            while !matches!(poll(&mut watched, None), Ok(ready) if ready > 0) {}
            if !over.load(Ordering::SeqCst) {
                interruption.ask();
                end_within(UNREAD, &over);
            }
        })?;
        Ok(())
    }

    fn send(&self, message: &Message) {
        if !self.over.load(Ordering::SeqCst) {
            self.write(message);
        }
    }

    fn write(&self, message: &Message) {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // Nobody reads it any more: the thread that watches for that sees to it that this ends soon.
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            self.stop.store(true, Ordering::Relaxed);
            self.interruption.ask();
        }
    }

    fn last(&self, message: &Message) {
        // First: whoever reads it may be gone before the next line.
        if !self.over.swap(true, Ordering::SeqCst) {
            self.write(message);
        }
    }
}

/// Ends this process if it does not say in time how it ended: what hangs before the instance is ready holds nothing that is worth
/// waiting for, and a machine goes with the process.
fn end_within(patience: Duration, over: &Arc<AtomicBool>) {
    let waited = Arc::clone(over);
    let waiting = std::thread::Builder::new().name("patience".into()).spawn(move || {
        std::thread::sleep(patience);
        end_unless(&waited);
    });
    if waiting.is_err() {
        end_unless(over);
    }
}

fn end_unless(over: &AtomicBool) {
    if !over.load(Ordering::SeqCst) {
        std::process::exit(Code::Interrupted.exit_status().into());
    }
}

fn order(wanted: &DeployArguments) -> Result<Order, Problem> {
    let (name, version) = named(&wanted.name)?;
    let forwards = wanted.forwards.iter().map(|text| text.parse::<PortForward>().map_err(Problem::usage));
    let forwards: Vec<PortForward> = forwards.collect::<Result<_, _>>()?;
    let twice = |at: usize| forwards[..at].iter().any(|before| before.host == forwards[at].host);
    if let Some(at) = (0..forwards.len()).find(|at| twice(*at)) {
        let port = forwards[at].host;
        return Err(Problem::usage(format!("--forward names port {port} of the host twice")));
    }
    Ok(Order { name, version, forwards })
}

/// `VO/NAME` or `VO/NAME@VERSION`.
fn named(text: &str) -> Result<(RecipeName, Option<Version>), Problem> {
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let version = version
        .map(|version| {
            version.parse().map_err(|error| Problem::usage(format!("`{version}` is no version: {error}")))
        })
        .transpose()?;
    Ok((name.parse().map_err(Problem::usage)?, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_name_perhaps_a_version_and_forwards() {
        let order = |name: &str, forwards: &[&str]| {
            let forwards = forwards.iter().map(ToString::to_string).collect();
            order(&DeployArguments { name: name.to_owned(), forwards, rehash: false })
        };
        let read = order("atlas/web@1.4.0", &["8080:80"]).unwrap();
        assert_eq!((read.name.as_str(), read.version), ("atlas/web", Some(Version::new(1, 4, 0))));
        assert_eq!(read.forwards, [PortForward { host: 8080, guest: 80 }]);
        assert_eq!(order("atlas/web", &[]).unwrap().version, None);
        for wrong in ["web", "atlas/web@", "atlas/web@1", "atlas/web@1.0.0@2.0.0", "Atlas/web", ""] {
            assert!(matches!(order(wrong, &[]), Err(Problem::Usage(_))), "{wrong}");
        }
        assert!(matches!(order("atlas/web", &["80"]), Err(Problem::Usage(_))));
        assert!(order("atlas/web", &["8080:80", "8081:80"]).is_ok());
        assert!(matches!(order("atlas/web", &["8080:80", "8080:81"]), Err(Problem::Usage(_))));
    }

    #[test]
    fn messages_read_back() {
        let stopped = Message::Stopped {
            code: Code::Revoked,
            message: "a\nb".into(),
            hints: vec![],
            details: String::new(),
            data: Map::new(),
        };
        let line = serde_json::to_string(&stopped).unwrap();
        assert!(!line.contains('\n'));
        assert!(matches!(serde_json::from_str(&line).unwrap(), Message::Stopped { code: Code::Revoked, .. }));
    }

    #[test]
    fn nothing_is_sent_after_the_last_message() {
        let courier = Courier {
            stop: Arc::default(),
            over: Arc::new(AtomicBool::new(true)),
            interruption: Interruption::default(),
        };
        courier.send(&Message::Line("would be in the test's own output".into()));
        courier.last(&Message::Line("would be in the test's own output".into()));
        assert!(!courier.stop.load(Ordering::Relaxed));
    }
}
