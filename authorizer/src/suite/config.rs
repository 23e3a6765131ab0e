//! A suite's configuration: what a site tolerates beyond the base and the declarations.

use serde::{Deserialize, Serialize};

use super::checks::{
    AttributesConfig, ConfigurationConfig, FirewallConfig, GroupsConfig, HelpersConfig, HooksConfig,
    KernelConfig, ListeningConfig, ModulesConfig, OwnershipConfig, PathsConfig, ProgramsConfig, Rendered,
    SshdConfig, UnitsConfig,
};

/// One suite: a table for each check that has something to set. Every table must be there, so that a forgotten
/// one is an error and not a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteConfig {
    /// Sockets that accept traffic.
    pub listening: ListeningConfig,
    /// Setuid and setgid files, and files with capabilities.
    pub setuid: PathsConfig,
    /// Extended attributes.
    pub attributes: AttributesConfig,
    /// Privileged groups.
    pub groups: GroupsConfig,
    /// The SSH server's settings.
    pub sshd: SshdConfig,
    /// systemd's units.
    pub units: UnitsConfig,
    /// Periodic jobs.
    pub cron: PathsConfig,
    /// Kernel modules.
    pub modules: ModulesConfig,
    /// World-writable paths.
    pub world_writable: PathsConfig,
    /// Files that boot or a login runs.
    pub hooks: HooksConfig,
    /// Programs and libraries of the base.
    pub programs: ProgramsConfig,
    /// Files below `/etc`.
    pub configuration: ConfigurationConfig,
    /// Owners and modes.
    pub ownership: OwnershipConfig,
    /// The rules in the running kernel.
    pub firewall: FirewallConfig,
    /// Files that the site's recipes make of what is declared.
    pub rendered: Vec<Rendered>,
    /// The kernel itself.
    pub kernel: KernelConfig,
    /// What the kernel starts by itself.
    pub helpers: HelpersConfig,
}

/// Why a suite's configuration is refused.
#[derive(Debug, thiserror::Error)]
#[error("the suite is not valid: {0}")]
pub struct SuiteConfigError(#[from] toml::de::Error);

impl SuiteConfig {
    /// Reads the configuration; unknown and missing fields are errors.
    ///
    /// # Errors
    /// Says the line and what was expected.
    pub fn parse(text: &str) -> Result<Self, SuiteConfigError> {
        Ok(toml::from_str(text)?)
    }
}
