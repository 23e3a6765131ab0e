//! The checks, in the order of their results.

mod authorized_keys;
mod capabilities;
mod complete;
mod cron;
mod groups;
mod hooks;
mod kernel;
mod listening;
mod modules;
mod mounts;
mod setuid;
mod site_recipe;
mod sshd;
mod sudoers;
mod units;
mod users;
mod world_writable;

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::complaints::Complaints;
use super::config::SuiteConfig;
use super::pattern::Pattern;

pub use groups::GroupsConfig;
pub use hooks::HooksConfig;
pub use kernel::KernelConfig;
pub use listening::{AllowedSocket, ListeningConfig};
pub use modules::ModulesConfig;
pub use sshd::SshdConfig;
pub use units::UnitsConfig;

/// One check.
pub(super) struct Check {
    /// Unique and stable: it is written into evidence.
    pub(super) name: &'static str,
    /// The lists of the facts it judges, as `truncated` names them.
    pub(super) lists: &'static [&'static str],
    /// Looks, and complains.
    pub(super) run: fn(&Evidence<'_>, &SuiteConfig, &mut Complaints),
}

/// Every check.
pub(super) const CHECKS: &[Check] = &[
    complete::CHECK,
    listening::CHECK,
    setuid::CHECK,
    capabilities::CHECK,
    users::CHECK,
    groups::CHECK,
    authorized_keys::CHECK,
    sudoers::CHECK,
    sshd::CHECK,
    units::CHECK,
    cron::CHECK,
    modules::CHECK,
    world_writable::CHECK,
    mounts::CHECK,
    hooks::CHECK,
    kernel::CHECK,
    site_recipe::CHECK,
];

/// Configuration of a check that only needs exceptions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathsConfig {
    /// Paths that are tolerated.
    pub allow: Vec<Pattern>,
}
