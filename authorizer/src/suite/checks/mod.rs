//! The checks, in the order of their results.

mod attributes;
mod authorized_keys;
mod capabilities;
mod complete;
mod configuration;
mod cron;
mod firewall;
mod groups;
mod helpers;
mod hooks;
mod kernel;
mod listening;
pub(super) mod loader_cache;
mod modules;
mod mounts;
mod outside;
mod ownership;
mod programs;
mod setuid;
mod site_files;
mod site_recipe;
mod sshd;
mod sudoers;
mod units;
pub(super) mod users;
mod world_writable;

use serde::{Deserialize, Serialize};

use super::Evidence;
use super::complaints::Complaints;
use super::config::SuiteConfig;
use super::pattern::Pattern;

pub use attributes::AttributesConfig;
pub use configuration::ConfigurationConfig;
pub use firewall::FirewallConfig;
pub use groups::GroupsConfig;
pub use helpers::HelpersConfig;
pub use hooks::HooksConfig;
pub use kernel::KernelConfig;
pub use listening::{AllowedSocket, ListeningConfig};
pub use modules::ModulesConfig;
pub use ownership::OwnershipConfig;
pub use programs::ProgramsConfig;
pub use site_files::Rendered;
pub use sshd::SshdConfig;
pub use units::UnitsConfig;

/// What a check looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sees {
    /// The running machine: its kernel, sockets, processes.
    Machine,
    /// Files: as the running machine has them, and once more as they were before anything of the disk ran.
    Files,
}

/// One check.
pub(super) struct Check {
    /// Unique and stable: it is written into evidence.
    pub(super) name: &'static str,
    /// What it is given, and so how often it looks.
    pub(super) sees: Sees,
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
    attributes::CHECK,
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
    programs::CHECK,
    loader_cache::CHECK,
    configuration::CHECK,
    ownership::CHECK,
    outside::CHECK,
    kernel::CHECK,
    helpers::CHECK,
    firewall::CHECK,
    site_recipe::CHECK,
    site_files::CHECK,
];

/// Configuration of a check that only needs exceptions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathsConfig {
    /// Paths that are tolerated.
    pub allow: Vec<Pattern>,
}
