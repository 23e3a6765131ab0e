//! The steps of a recipe: each looks first, changes what differs, and says whether it did.

mod account;
mod download;
mod file;
mod package;
mod run;
mod service;

use std::path::{Path, PathBuf};

use guest::control::{AgentError, Exited, StepOutcome};
use recipe_spec::manifest::StepKind;
use recipe_spec::name::UserName;
use recipe_spec::path::RecipePath;

use super::accounts::Accounts;
use super::content::Attributes;
use super::exec::{Deadline, Launch};
use super::failure;
use super::output::{Captured, Output, Remembered};
use super::root::Root;

/// Last words of a tool that an error repeats, in bytes.
const LAST_WORDS: usize = 400;
/// Output kept of a tool that is asked something, in bytes.
const ANSWER: usize = 64 * 1024;

/// What a step works with.
pub(crate) struct Workshop<'a> {
    /// The machine's root.
    pub(crate) root: &'a Root,
    /// Folder with the recipe's payload.
    pub(crate) payload: &'a Path,
    /// Programs may use the relay as their proxy.
    pub(crate) relay: bool,
    /// When the step must be over.
    pub(crate) deadline: Deadline,
}

impl Workshop<'_> {
    /// Brings `step` about. What tools say goes to `output`.
    ///
    /// # Errors
    /// `ToolMissing`, `ToolFailed`, `TimedOut`, `System`, `BadRequest`.
    pub(crate) fn apply(&self, step: &StepKind, output: &mut dyn Output) -> Result<StepOutcome, AgentError> {
        match step {
            StepKind::Package(names) => package::install(self, names, output),
            StepKind::File(step) => file::file(self, step),
            StepKind::Directory(step) => file::directory(self, step),
            StepKind::Link(step) => file::link(self, step),
            StepKind::User(step) => account::user(self, step, output),
            StepKind::Group(step) => account::group(self, step, output),
            StepKind::Service(step) => service::settle(self, step, output),
            StepKind::Download(step) => download::place(self, step),
            StepKind::Run(step) => run::run(self, step, output),
        }
    }

    fn accounts(&self) -> Result<Accounts, AgentError> {
        Accounts::read(self.root).map_err(|error| failure::system("read the accounts", error))
    }

    /// Numbers of owner and group; `root` if not named.
    fn attributes(
        &self,
        mode: u32,
        owner: Option<&UserName>,
        group: Option<&UserName>,
    ) -> Result<Attributes, AgentError> {
        let mut attributes = Attributes { mode: Some(mode), uid: Some(0), gid: Some(0) };
        if owner.is_none() && group.is_none() {
            return Ok(attributes);
        }
        let accounts = self.accounts()?;
        if let Some(owner) = owner {
            let user = accounts.user(owner.as_str());
            let user =
                user.ok_or_else(|| failure::bad_request(format!("there is no user `{owner}` in the guest")))?;
            attributes.uid = Some(user.uid);
        }
        if let Some(group) = group {
            let line = accounts.group(group.as_str());
            let line = line
                .ok_or_else(|| failure::bad_request(format!("there is no group `{group}` in the guest")))?;
            attributes.gid = Some(line.gid);
        }
        Ok(attributes)
    }

    fn in_payload(&self, path: &RecipePath) -> PathBuf {
        self.payload.join(path.as_str())
    }

    /// Runs a tool that must succeed.
    fn tool(&self, launch: &Launch, output: &mut dyn Output) -> Result<(), AgentError> {
        let mut remembered = Remembered::new(output);
        let ended = launch.run(self.deadline, &mut remembered)?;
        succeeded(&launch.argv[0], ended, &remembered.tail)
    }

    /// Asks a tool something: its exit status and its standard output.
    fn ask(&self, launch: &Launch) -> Result<(Option<i32>, String), AgentError> {
        let mut answer = Captured::new(ANSWER);
        let ended = launch.run(self.deadline, &mut answer)?;
        if ended.timed_out {
            return Err(failure::timed_out(format_args!("`{}`", launch.argv[0])));
        }
        Ok((ended.status, answer.text()))
    }
}

/// An error unless `what` exited with status 0; it repeats the tool's last words.
fn succeeded(what: &str, ended: Exited, said: &[u8]) -> Result<(), AgentError> {
    if ended.timed_out {
        return Err(failure::timed_out(format_args!("`{what}`")));
    }
    let how = match (ended.status, ended.signal) {
        (Some(0), _) => return Ok(()),
        (Some(status), _) => format!("exit status {status}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    };
    let said = super::escape::escaped(&said[said.len().saturating_sub(LAST_WORDS)..]);
    let last = said.trim_end().lines().next_back().unwrap_or_default();
    let colon = if last.is_empty() { "" } else { ": " };
    Err(failure::tool_failed(format!("`{what}` ended with {how}{colon}{last}")))
}

/// Changed, if so.
fn outcome(changed: bool) -> StepOutcome {
    if changed { StepOutcome::Changed } else { StepOutcome::Unchanged }
}
