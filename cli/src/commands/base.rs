//! `countersign base`: the images that this site trusts to start from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use authorizer::base::{
    self, BaseCache, BaseError, BuildOptions, Built, DISK_BYTES, Existing, FirstBoot, Progress,
    STATEMENT_FILE, VerifiedBase,
};
use authorizer::machines::confinement;
use authorizer::site::Site;
use serde::Serialize;
use serde_json::json;
use signer::{Role, Signer};

use crate::arguments::{BaseCommand, Format, PassphraseSource};
use crate::clock;
use crate::commands::site;
use crate::live::{Live, Shown};
use crate::outcome::{Answer, Problem, printable, table};

pub(crate) fn run(folder: Option<&Path>, command: &BaseCommand, format: Format) -> Result<Answer, Problem> {
    // A base is made and verified seldom, and then from its bytes.
    let site = site::open_afresh(folder)?;
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
    let made = make(&options, cache.as_ref(), &signer, &first_boot, &mut progress);
    live.end();
    made
}

/// Takes the base from the cache if that has it, else builds it and keeps it there.
fn make(
    options: &BuildOptions<'_>,
    cache: Option<&BaseCache>,
    signer: &Signer,
    first_boot: &FirstBoot<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Answer, Problem> {
    if options.existing == Existing::Keep && options.bases.join(options.name).exists() {
        return Err(BaseError::Exists { folder: options.bases.join(options.name) }.into());
    }
    if let Some(cache) = cache
        && let Some(built) = cache.take(options, signer, progress)?
    {
        return Ok(answer(&built, Origin::Cache, None));
    }
    let built = base::build(options, signer, first_boot, progress)?;
    // The base is good, whatever becomes of the copy.
    let kept = cache.map(|cache| cache.keep(&built));
    Ok(answer(&built, Origin::Build, kept.and_then(Result::err)))
}

/// Where a base came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Build,
    Cache,
}

fn answer(built: &Built, origin: Origin, not_kept: Option<BaseError>) -> Answer {
    let how = match origin {
        Origin::Build => "built",
        Origin::Cache => "took from the cache",
    };
    let mut human =
        format!("{how} {} in {}\nbase sha256 {}", built.name, built.folder.display(), built.sha256);
    if let Some(error) = &not_kept {
        human.push_str(&format!("\nnote: it is not kept in the cache: {}", printable(&error.to_string())));
    }
    let phases: Vec<_> =
        built.seconds.iter().map(|(phase, seconds)| json!({"phase": phase, "seconds": seconds})).collect();
    let mut answer = Answer::new(human, built);
    answer.data.insert("phases".to_owned(), json!(phases));
    answer.data.insert("cached".to_owned(), json!(origin == Origin::Cache));
    // The first boot, which sees what the base looks like.
    answer.data.insert("coldBoots".to_owned(), json!(u32::from(origin == Origin::Build)));
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
