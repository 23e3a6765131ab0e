//! `countersign authorize`: a recipe from git through all stages of the pipeline, with a live view and a log.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use authorizer::events::Event;
use authorizer::journal::{self, Journal, Timing};
use authorizer::pipeline::{self, Authorized, IfStanding, Job, Made};
use authorizer::site::Site;
use authorizer::stopped::is_full;
use recipe_spec::Code;
use serde_json::json;
use signer::Role;

use crate::arguments::{Format, PassphraseSource};
use crate::clock;
use crate::commands::site;
use crate::interrupt;
use crate::live::Live;
use crate::outcome::{Answer, Problem};

pub(crate) fn run(
    folder: Option<&Path>,
    source: &str,
    path: &str,
    version: Option<&str>,
    standing: IfStanding,
    passphrase: &PassphraseSource,
    format: Format,
) -> Result<Answer, Problem> {
    let job = Job {
        source: source.parse().map_err(Problem::usage)?,
        path: if path.is_empty() { None } else { Some(path.parse().map_err(Problem::usage)?) },
        version: version
            .map(|text| {
                text.parse().map_err(|error| Problem::usage(format!("`{text}` is no version: {error}")))
            })
            .transpose()?,
        standing,
    };
    let site = site::open(folder)?;
    let countersigner = site::signer(&site, Role::Countersigner, passphrase)?;
    let lock = site::lock(&site, format)?;
    // Whoever had it, or an officer meanwhile, may have changed what the site trusts.
    let site = site::open(folder)?;
    let mut live = Live::new(format);
    let mut watcher = |event: &Event| live.show(event);
    let journal = Journal::new(&mut watcher).until(interrupt::in_order());
    let (mut journal, log) = logged(journal, &site, "authorize")?;
    let ended = pipeline::authorize(&job, &site, &lock, &countersigner, &clock::now, &mut journal);
    let result = ended.as_ref().map_or_else(|stopped| stopped.code.as_str(), |_| "done");
    journal.tell(Event::Ended { result: result.to_owned() });
    let (stages, cold_boots) = (journal.timings().to_vec(), journal.cold_boots());
    drop(journal);
    live.end();
    match ended {
        Ok(authorized) => Ok(answer(&authorized, &stages, cold_boots, &log)),
        Err(stopped) => Err(Problem::from(stopped)
            .with("stages", stages)
            .with("coldBoots", cold_boots)
            .hint(format!("the whole log is {}", log.display()))
            .with("log", log)),
    }
}

fn answer(authorized: &Authorized, stages: &[Timing], cold_boots: u32, log: &Path) -> Answer {
    let said = match authorized.made {
        Made::Now => "authorized",
        Made::Before => "already authorized:",
    };
    let human = format!(
        "{said} {}@{} until {}\nauthorization sha256 {}\nlog {}",
        authorized.name,
        authorized.version,
        authorized.not_after,
        authorized.authorization,
        log.display()
    );
    let mut answer = Answer::new(human, authorized);
    answer.data.insert("stages".to_owned(), json!(stages));
    answer.data.insert("coldBoots".to_owned(), json!(cold_boots));
    answer.data.insert("log".to_owned(), json!(log));
    answer
}

/// A journal that also writes a new log file `logs/<time>-<what>.jsonl` of the site. Older ones beyond what a site keeps are
/// removed first; a site that only deploys has no other run that would.
pub(crate) fn logged<'a>(
    journal: Journal<'a>,
    site: &Site,
    what: &str,
) -> Result<(Journal<'a>, PathBuf), Problem> {
    journal::sweep(&site.layout().logs());
    let stamp = clock::stamp(clock::now());
    let named = |suffix: &str| site.layout().logs().join(format!("{stamp}-{what}{suffix}.jsonl"));
    // Two runs can begin within one second.
    let names = std::iter::once(named("")).chain((2..1000).map(|number| named(&format!("-{number}"))));
    for path in names {
        match Journal::new_log(&path) {
            Ok(log) => return Ok((journal.log_to(&path, log), path)),
            // Whoever was faster has the name.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                let code = if is_full(&error) { Code::HostFull } else { Code::HostFailed };
                return Err(Problem::coded(
                    code,
                    format!("cannot write the log {}: {error}", path.display()),
                ));
            }
        }
    }
    Err(Problem::coded(Code::HostFailed, "a thousand logs of this second are there already"))
}
