//! `user` and `group`: made with the guest's `useradd` and `groupadd`; what is there is read from its files.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use guest::control::{AgentError, StepOutcome};
use recipe_spec::digest::Sha256Digest;
use recipe_spec::manifest::{GroupStep, UserStep};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Workshop, outcome};
use crate::agent::accounts::{Account, Accounts};
use crate::agent::content::{self, Attributes};
use crate::agent::exec::Launch;
use crate::agent::failure;
use crate::agent::output::Output;

const KEYS_FOLDER: &str = ".ssh";
const KEYS_FILE: &str = "authorized_keys";
const KEYS_FOLDER_MODE: u32 = 0o700;
const KEYS_FILE_MODE: u32 = 0o600;

pub(super) fn group(
    workshop: &Workshop<'_>,
    step: &GroupStep,
    output: &mut dyn Output,
) -> Result<StepOutcome, AgentError> {
    let accounts = workshop.accounts()?;
    let gid = step.gid.map(|gid| gid.to_string());
    let mut words = Vec::new();
    match accounts.group(step.name.as_str()) {
        None => {
            words.push("groupadd");
            if step.system {
                words.push("--system");
            }
        }
        Some(line) if step.gid.is_none_or(|gid| gid == line.gid) => return Ok(StepOutcome::Unchanged),
        Some(_) => words.push("groupmod"),
    }
    if let Some(gid) = &gid {
        words.extend(["--gid", gid]);
    }
    words.extend(["--", step.name.as_str()]);
    workshop.tool(&Launch::new(words), output)?;
    Ok(StepOutcome::Changed)
}

pub(super) fn user(
    workshop: &Workshop<'_>,
    step: &UserStep,
    output: &mut dyn Output,
) -> Result<StepOutcome, AgentError> {
    let accounts = workshop.accounts()?;
    let launch = match accounts.user(step.name.as_str()) {
        None => Some(useradd(step, &accounts)),
        Some(user) => usermod(step, user, &accounts),
    };
    if let Some(launch) = &launch {
        workshop.tool(launch, output)?;
    }
    let keyed = !step.authorized_keys.is_empty() && authorize_keys(workshop, step)?;
    Ok(outcome(launch.is_some() || keyed))
}

fn useradd(step: &UserStep, accounts: &Accounts) -> Launch {
    let mut words = vec!["useradd".to_owned()];
    if step.system {
        words.push("--system".to_owned());
    }
    // A service's home is made only if the recipe names it.
    let makes_home = !step.system || step.home.is_some();
    words.push(if makes_home { "--create-home" } else { "--no-create-home" }.to_owned());
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if let Some(uid) = step.uid {
        option("--uid", uid.to_string());
    }
    if let Some(group) = &step.group {
        option("--gid", group.to_string());
    } else if accounts.group(step.name.as_str()).is_some() {
        option("--gid", step.name.to_string());
    }
    if !step.groups.is_empty() {
        option("--groups", joined(step));
    }
    if let Some(home) = &step.home {
        option("--home-dir", home.to_string());
    }
    match &step.shell {
        Some(shell) => option("--shell", shell.to_string()),
        None if step.system => option("--shell", "/usr/sbin/nologin".to_owned()),
        None => option("--shell", "/bin/sh".to_owned()),
    }
    if step.group.is_none() && accounts.group(step.name.as_str()).is_none() {
        words.push("--user-group".to_owned());
    }
    words.extend(["--".to_owned(), step.name.to_string()]);
    Launch::new(words)
}

/// What differs from the step, if anything. What the step does not name stays.
fn usermod(step: &UserStep, user: &Account, accounts: &Accounts) -> Option<Launch> {
    let mut words = Vec::new();
    let mut appended = false;
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if let Some(uid) = step.uid.filter(|uid| *uid != user.uid) {
        option("--uid", uid.to_string());
    }
    if let Some(group) = &step.group
        && accounts.group(group.as_str()).map(|line| line.gid) != Some(user.gid)
    {
        option("--gid", group.to_string());
    }
    let member_of = accounts.supplementary(&user.name);
    if step.groups.iter().any(|group| !member_of.contains(&group.as_str())) {
        option("--groups", joined(step));
        appended = true;
    }
    if let Some(home) = step.home.as_ref().filter(|home| home.as_str() != user.home) {
        option("--home", home.to_string());
    }
    if let Some(shell) = step.shell.as_ref().filter(|shell| shell.as_str() != user.shell) {
        option("--shell", shell.to_string());
    }
    if words.is_empty() {
        return None;
    }
    if appended {
        // Membership that the step does not name stays.
        words.push("--append".to_owned());
    }
    let name = ["--".to_owned(), step.name.to_string()];
    Some(Launch::new(["usermod".to_owned()].into_iter().chain(words).chain(name)))
}

fn joined(step: &UserStep) -> String {
    step.groups.iter().map(|group| group.as_str()).collect::<Vec<_>>().join(",")
}

/// Makes the user's `authorized_keys` hold exactly the step's lines. Each folder on the way below the home is the user's own
/// and may change under our hands, so none is entered through a link.
fn authorize_keys(workshop: &Workshop<'_>, step: &UserStep) -> Result<bool, AgentError> {
    if let Some(line) = step.authorized_keys.iter().find(|line| line.contains(['\n', '\r', '\0'])) {
        return Err(failure::bad_request(format!("{line:?} is not one line of authorized_keys")));
    }
    let accounts = workshop.accounts()?;
    let user = accounts.user(step.name.as_str());
    let user = user.ok_or_else(|| failure::tool_failed(format!("`useradd` made no user `{}`", step.name)))?;
    let mut text = step.authorized_keys.join("\n");
    text.push('\n');
    put_keys(workshop, user, text.as_bytes())
        .map_err(|error| failure::system(format_args!("write the authorized keys of `{}`", user.name), error))
}

fn put_keys(workshop: &Workshop<'_>, user: &Account, text: &[u8]) -> io::Result<bool> {
    let own = |mode| Attributes { mode: Some(mode), uid: Some(user.uid), gid: Some(user.gid) };
    let home = workshop.root.open_at(Path::new(&user.home), OFlags::PATH | OFlags::DIRECTORY)?;
    let (folder, made) = own_folder(&home, KEYS_FOLDER, own(KEYS_FOLDER_MODE))?;
    let digest = Sha256Digest::of(text);
    let announced = (&digest, text.len() as u64);
    let written =
        content::put_in(&folder, OsStr::new(KEYS_FILE), own(KEYS_FILE_MODE), announced, &mut &text[..])?;
    Ok(made || written == StepOutcome::Changed)
}

/// The folder `name` in `parent`, made if missing; whether it was changed.
fn own_folder(parent: impl AsFd, name: &str, attributes: Attributes) -> io::Result<(OwnedFd, bool)> {
    let made = match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(KEYS_FOLDER_MODE)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    let settled = attributes.settle(&folder, &rustix::fs::fstat(&folder)?)?;
    Ok((folder, made || settled))
}
