//! `package`: installed through `apt-get`. What is installed is read from dpkg's own database, not asked.

use std::collections::BTreeMap;
use std::path::Path;

use guest::control::{AgentError, StepOutcome};
use recipe_spec::manifest::PackageName;

use super::{Workshop, outcome, succeeded};
use crate::agent::escape::escaped;
use crate::agent::exec::Launch;
use crate::agent::failure;
use crate::agent::output::{Output, Remembered};
use crate::agent::root::Kind;

const STATUS: &str = "/var/lib/dpkg/status";
const LISTS: &str = "/var/lib/apt/lists";
/// Longest `status` that is read, in bytes.
const MAX_STATUS: usize = 64 * 1024 * 1024;
/// The most names in the folder of lists that are looked at.
const MAX_LISTS: usize = 10_000;
/// How long apt waits for another that holds dpkg's lock (`apt-daily` at boot), in seconds.
const LOCK_WAIT: &str = "DPkg::Lock::Timeout=120";
/// What apt says when fresh lists may help.
const STALE: [&str; 5] = [
    "Unable to locate package",
    "has no installation candidate",
    "Failed to fetch",
    "Unable to fetch some archives",
    "is not available, but is referred to",
];

pub(super) fn install(
    workshop: &Workshop<'_>,
    names: &[PackageName],
    output: &mut dyn Output,
) -> Result<StepOutcome, AgentError> {
    let names: Vec<&str> = names.iter().map(PackageName::as_str).collect();
    // apt reads `name-` as "remove it", and PackageName may allow the letter.
    if let Some(name) = names.iter().find(|name| name.ends_with('-') || name.starts_with('-')) {
        return Err(failure::bad_request(format!("{name:?} is not the name of a package to install")));
    }
    let before = installed(workshop)?;
    if names.iter().all(|name| is_installed(&before, name)) {
        return Ok(StepOutcome::Unchanged);
    }
    let mut updated = false;
    if !has_lists(workshop)? {
        update(workshop, output)?;
        updated = true;
    }
    let install = apt_get(workshop.relay, &["install", "--yes", "--no-install-recommends", "--"], &names);
    let mut remembered = Remembered::new(output);
    let ended = install.run(workshop.deadline, &mut remembered)?;
    let said = escaped(&remembered.tail);
    if ended.status == Some(0) || ended.timed_out || updated || !STALE.iter().any(|sign| said.contains(sign))
    {
        succeeded("apt-get install", ended, &remembered.tail)?;
    } else {
        update(workshop, output)?;
        workshop.tool(&install, output)?;
    }
    // A name that only other packages provide never shows as installed itself: what counts is whether anything changed.
    Ok(outcome(installed(workshop)? != before))
}

fn update(workshop: &Workshop<'_>, output: &mut dyn Output) -> Result<(), AgentError> {
    workshop.tool(&apt_get(workshop.relay, &["update", "-o", "APT::Update::Error-Mode=any"], &[]), output)
}

/// `apt-get` that asks nothing, keeps changed configuration, and reaches archives only through the relay, if at all.
fn apt_get(relay: bool, verb: &[&str], names: &[&str]) -> Launch {
    let mut options = vec![
        "Dpkg::Options::=--force-confdef",
        "Dpkg::Options::=--force-confold",
        "Dpkg::Use-Pty=0",
        "APT::Cmd::Pattern-Only=true",
        "Acquire::Retries=3",
        "Acquire::Languages=none",
        LOCK_WAIT,
    ];
    let proxy = format!("Acquire::http::Proxy=http://{}", guest::relay::LISTEN);
    if relay {
        options.push(&proxy);
    }
    let words = ["apt-get", "--quiet=2"]
        .into_iter()
        .chain(options.into_iter().flat_map(|option| ["-o", option]))
        .chain(verb.iter().copied())
        .chain(names.iter().copied());
    Launch::new(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBIAN_PRIORITY", "critical")
        .env("APT_LISTCHANGES_FRONTEND", "none")
        .env("NEEDRESTART_MODE", "a")
        .env("UCF_FORCE_CONFFOLD", "1")
}

/// True if any index of packages was ever fetched.
fn has_lists(workshop: &Workshop<'_>) -> Result<bool, AgentError> {
    let entries = workshop.root.list(Path::new(LISTS), MAX_LISTS);
    let entries = entries.map_err(|error| failure::system("look at apt's lists", error))?.unwrap_or_default();
    Ok(entries.iter().any(|entry| {
        entry.kind == Kind::File && entry.name.to_str().is_some_and(|name| name.contains("_Packages"))
    }))
}

/// Version of each installed package, by name and architecture.
type Installed = BTreeMap<(String, String), String>;

fn installed(workshop: &Workshop<'_>) -> Result<Installed, AgentError> {
    let status = workshop.root.read(Path::new(STATUS), MAX_STATUS);
    let status = status.map_err(|error| failure::system("read dpkg's status", error))?;
    Ok(parse_status(&escaped(&status.unwrap_or_default())))
}

/// Packages in the state `installed`, whatever is wanted of them (dpkg(1), deb-control(5)).
fn parse_status(status: &str) -> Installed {
    let mut packages = BTreeMap::new();
    for paragraph in status.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let state = field("Status").and_then(|status| status.split_once(' '));
        if let (Some((_wanted, "ok installed")), Some(package)) = (state, field("Package")) {
            let text = |name| field(name).unwrap_or_default().to_owned();
            packages.insert((package.to_owned(), text("Architecture")), text("Version"));
        }
    }
    packages
}

/// Whether `name`, `name:architecture`, `name=version` is there.
fn is_installed(installed: &Installed, wanted: &str) -> bool {
    let (name, version) =
        wanted.split_once('=').map_or((wanted, None), |(name, version)| (name, Some(version)));
    let (name, architecture) = name.split_once(':').map_or((name, None), |(name, arch)| (name, Some(arch)));
    installed.iter().any(|((found, its_architecture), its_version)| {
        found == name
            && architecture.is_none_or(|wanted| wanted == its_architecture || its_architecture == "all")
            && version.is_none_or(|wanted| wanted == its_version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS_TEXT: &str = "Package: hello\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.10-3\nDescription: a\n Package: fake\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
        Package: held\nStatus: hold ok installed\nArchitecture: all\nVersion: 3\n\n\
        Package: half\nStatus: install reinstreq half-installed\nVersion: 3\n";

    #[test]
    fn only_installed_packages_count() {
        let found = parse_status(STATUS_TEXT);
        let names: Vec<_> = found.keys().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["held", "hello"]);
        for there in ["hello", "hello:amd64", "hello=2.10-3", "hello:amd64=2.10-3", "held:amd64"] {
            assert!(is_installed(&found, there), "{there}");
        }
        for not_there in ["gone", "half", "fake", "hello:arm64", "hello=2.10-4", "hell"] {
            assert!(!is_installed(&found, not_there), "{not_there}");
        }
        assert!(parse_status("").is_empty());
    }

    #[test]
    fn names_stand_behind_the_dashes_and_the_proxy_only_on_the_command_line() {
        let launch = apt_get(true, &["install", "--"], &["hello"]);
        assert_eq!(launch.argv[launch.argv.len() - 3..], ["install", "--", "hello"]);
        assert!(launch.argv.iter().any(|word| word == "Acquire::http::Proxy=http://127.0.0.1:3128"));
        assert!(!launch.env.keys().any(|name| name.contains("proxy")));
        assert!(!apt_get(false, &["update"], &[]).argv.iter().any(|word| word.contains("Proxy")));
    }
}
