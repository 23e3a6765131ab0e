//! `countersign base`: the images that this site trusts to start from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use authorizer::base::{
    self, BaseCache, BootFiles, BuildOptions, Built, DISK_BYTES, Existing, FirstBoot, Progress,
    STATEMENT_FILE, VerifiedBase,
};
use authorizer::machines::confinement;
use authorizer::site::Site;
use serde::Serialize;
use serde_json::json;
use signer::Role;

use crate::arguments::{BaseCommand, Format, PassphraseSource};
use crate::clock;
use crate::commands::site;
use crate::live::{Live, Shown};
use crate::outcome::{Answer, Problem, printable, table};

pub(crate) fn run(folder: Option<&Path>, command: &BaseCommand, format: Format) -> Result<Answer, Problem> {
    let site = site::open(folder)?;
    match command {
        BaseCommand::Build { name, cache, replace, passphrase } => {
            let existing = if *replace { Existing::Replace } else { Existing::Keep };
            build(&site, name, cache.as_deref(), existing, passphrase, format)
        }
        BaseCommand::List => Ok(list(&site)),
        BaseCommand::Verify { name } => {
            let verified = base::verify(&place(&site, name)?, site.pins(), clock::now())?;
            Ok(described(&verified))
        }
    }
}

fn build(
    site: &Site,
    name: &str,
    cache: Option<&Path>,
    existing: Existing,
    passphrase: &PassphraseSource,
    format: Format,
) -> Result<Answer, Problem> {
    let place = place(site, name)?;
    let bases =
        place.parent().filter(|_| place.file_name().is_some_and(|last| last == name)).ok_or_else(|| {
            Problem::usage(format!(
                "site.toml keeps the base `{name}` in {}: name that folder `{name}`",
                place.display()
            ))
        })?;
    let signer = site::signer(site, Role::BaseSigner, passphrase)?;
    let options = BuildOptions { bases, name, disk_bytes: DISK_BYTES, existing, now: clock::now() };
    let confinement = confinement(site);
    let executor = &site.config().executor;
    let first_boot = FirstBoot {
        confinement: &confinement,
        accelerator_cache: &site.layout().accelerator(),
        memory_mib: executor.memory_mib.get(),
        time_limit: Duration::from_secs(executor.boot_seconds.get().into()),
    };
    let mut live = Live::new(format);
    let mut title = "";
    let mut progress = |progress: Progress| match progress {
        Progress::Swept { folder } => {
            live.line(&format!("note: removed {}, which a killed build left", folder.display()))
        }
        Progress::Started { phase } => {
            title = phase.title();
            live.put(Shown::Now(title));
        }
        Progress::Output { line } => live.put(Shown::Now(&format!("{title}: {}", printable(&line)))),
        Progress::Finished { phase, seconds } => live.line(&format!("{seconds:>6.1} s  {}", phase.title())),
    };
    let cache = cache.map(|folder| BaseCache::new(folder.to_owned()));
    let cached = match &cache {
        Some(cache) => cache.take(&options, &signer, &mut progress)?,
        None => None,
    };
    if let Some(built) = cached {
        return Ok(answer(&built, From::Cache));
    }
    let mut boots = 0;
    let mut take_facts = |files: &BootFiles, progress: &mut dyn FnMut(Progress)| {
        boots += 1;
        first_boot.facts(files, progress)
    };
    let built = base::build(&options, &signer, &mut take_facts, &mut progress);
    live.end();
    let built = built?;
    if let Some(cache) = &cache {
        cache.keep(&built)?;
    }
    Ok(answer(&built, From::Archive { cold_boots: boots }))
}

/// Where a base came from.
enum From {
    Cache,
    Archive { cold_boots: u32 },
}

fn answer(built: &Built, from: From) -> Answer {
    let (verb, cold_boots) = match from {
        From::Cache => ("took from the cache", 0),
        From::Archive { cold_boots } => ("built", cold_boots),
    };
    let human = format!("{verb} {}: {}\nbase sha256 {}", built.name, built.folder.display(), built.sha256);
    let mut answer = Answer::new(human, built);
    answer.data.insert("coldBoots".to_owned(), json!(cold_boots));
    answer.data.insert("cached".to_owned(), json!(matches!(from, From::Cache)));
    answer
}

/// The folder of a base in the site's catalogue.
fn place(site: &Site, name: &str) -> Result<PathBuf, Problem> {
    let name = name.parse().map_err(Problem::usage)?;
    site.base(&name).ok_or_else(|| Problem::usage(format!("site.toml has no [[base]] named `{name}`")))
}

/// A base of the catalogue; whether it is what the site signed is for `base verify` to say.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    folder: PathBuf,
    built: bool,
}

fn list(site: &Site) -> Answer {
    let listed: Vec<_> = site
        .config()
        .bases
        .iter()
        .map(|base| {
            let folder = base.folder.below(site.layout().root());
            Listed { name: base.name.to_string(), built: folder.join(STATEMENT_FILE).is_file(), folder }
        })
        .collect();
    let rows = listed.iter().map(|base| {
        let state = if base.built { "built" } else { "missing" };
        [base.name.clone(), state.to_owned(), base.folder.display().to_string()]
    });
    Answer::new(table(["base", "state", "folder"], rows), json!({"bases": listed}))
}

fn described(base: &VerifiedBase) -> Answer {
    let predicate = base.predicate();
    let files: Vec<_> = base::FILES.iter().map(|file| (*file, base.pinned(file).sha256)).collect();
    let mut human = format!(
        "{}: base sha256 {}\nmade {}, kernel {}, {} packages",
        base.name(),
        base.sha256(),
        predicate.created,
        printable(&predicate.kernel),
        predicate.packages.len()
    );
    for (file, sha256) in &files {
        human.push_str(&format!("\n{sha256}  {file}"));
    }
    let files: serde_json::Map<_, _> =
        files.into_iter().map(|(file, sha256)| (file.to_owned(), json!(sha256))).collect();
    let data = json!({
        "name": base.name(),
        "folder": base.folder(),
        "sha256": base.sha256(),
        "created": predicate.created,
        "kernel": predicate.kernel,
        "packages": predicate.packages.len(),
        "files": files,
    });
    Answer::new(human, data)
}
