//! `countersign instance`: what runs here, and what ran.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use deployer::instance::{Instance, Instances, State};
use recipe_spec::Code;
use serde_json::json;

use crate::arguments::InstanceCommand;
use crate::commands::site;
use crate::outcome::{Answer, Problem, printable_lines, table};

/// How long an instance may take to shut down.
const PATIENCE: Duration = Duration::from_secs(180);
/// Most bytes of a console that are shown: its end.
const MAX_CONSOLE: u64 = 4 << 20;

pub(crate) fn run(folder: Option<&Path>, command: &InstanceCommand) -> Result<Answer, Problem> {
    let site = site::open(folder)?;
    let instances = Instances::new(site.layout().instances());
    match command {
        InstanceCommand::List => {
            let all = instances.list()?;
            let human = if all.is_empty() { "there are no instances".to_owned() } else { listed(&all) };
            Ok(Answer::new(human, json!({"instances": all})))
        }
        InstanceCommand::Show { id } => Ok(shown(&instances.show(id)?)),
        InstanceCommand::Logs { id } => {
            let file = instances.console(id)?;
            let text = end_of(&file).map_err(|error| {
                Problem::coded(Code::HostFailed, format!("cannot read {}: {error}", file.display()))
            })?;
            let text = printable_lines(&text);
            let lines: Vec<_> = text.lines().collect();
            let data = json!({"id": id, "console": lines});
            Ok(Answer::new(text, data))
        }
        InstanceCommand::Stop { id } => Ok(shown(&instances.stop(id, PATIENCE)?)),
    }
}

/// One instance as an answer.
pub(crate) fn shown(instance: &Instance) -> Answer {
    let mut human = format!("{}: {}", instance.id, state(instance.state));
    if let Some(record) = &instance.record {
        human.push_str(&format!(
            "\n{}@{}, authorization sha256 {}\nlevel {}, started {}\nsupervisor {}, QEMU {} as user {}, {}",
            record.name,
            record.version,
            record.authorization,
            json!(record.level).as_str().unwrap_or_default(),
            record.started_at,
            record.supervisor,
            record.qemu,
            record.uid,
            record.accelerator,
        ));
    }
    for line in forwards(instance) {
        human.push_str(&format!("\n{line}"));
    }
    Answer::new(human, json!({"instance": instance}))
}

fn listed(instances: &[Instance]) -> String {
    let rows = instances.iter().map(|instance| {
        let (recipe, started) = match &instance.record {
            Some(record) => (format!("{}@{}", record.name, record.version), record.started_at.to_string()),
            None => Default::default(),
        };
        let ports = forwards(instance).join("\n");
        [instance.id.clone(), state(instance.state).to_owned(), recipe, started, ports]
    });
    table(["instance", "state", "recipe", "started", "ports"], rows)
}

fn forwards(instance: &Instance) -> Vec<String> {
    let all = instance.record.iter().flat_map(|record| &record.forwards);
    all.map(|(host, guest)| format!("{host} → {guest}")).collect()
}

fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Ended => "ended",
        State::Unknown => "unknown",
    }
}

/// The end of a console's log. What a guest prints is hostile: whoever shows it escapes it.
fn end_of(file: &Path) -> std::io::Result<String> {
    let mut file = match File::open(file) {
        // The supervisor makes it when the machine starts.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_CONSOLE)))?;
    let mut bytes = Vec::new();
    file.take(MAX_CONSOLE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
