//! The manifest, `recipe.toml`: who the recipe is, what it does, and what it asks for.
//!
//! [`Manifest::parse`] is the only door. It reports as many mistakes at once as it can, each with its place.

mod document;
mod reading;
mod step;
mod step_reading;
mod value;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wire_tests;

use std::ops::Range;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::limits::Limits;
use crate::name::{BaseName, OriginName, RecipeName, SecretName, UserName};
use crate::path::{GuestPath, RecipePath};

pub use step::{
    DirectoryStep, DownloadStep, FileStep, GroupStep, LinkStep, RunStep, ServiceStep, Step, StepKind,
    UserStep,
};
pub use value::{Mode, PackageName, Seconds};

/// A manifest that keeps the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `[recipe]`.
    pub recipe: RecipeInfo,
    /// `[network]`; empty if absent.
    pub network: Network,
    /// `[capabilities]`; empty if absent.
    pub capabilities: Capabilities,
    /// `[instance]`; empty if absent.
    pub instance: Instance,
    /// `[[step]]`, in the order in which they run.
    pub steps: Vec<Step>,
    /// `[[secret]]`.
    pub secrets: Vec<Secret>,
    /// `[[test]]`, in order.
    pub tests: Vec<FunctionTest>,
    /// Files of the recipe that steps name, with the place where they do.
    references: Vec<Reference>,
}

/// A file of the recipe that a step names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reference {
    pub(crate) path: RecipePath,
    pub(crate) span: Range<usize>,
}

/// `[recipe]`: what the recipe is called and where it can run.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipeInfo {
    /// `VO/name`.
    pub name: RecipeName,
    /// Semantic version 2.0.0.
    pub version: Version,
    /// One line for catalogues.
    pub summary: Option<String>,
    /// Names in the site's base catalogue, first match wins; never empty.
    pub base: Vec<BaseName>,
}

/// `[network]`: every connection the recipe needs; there are no others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Ports that can be reached when it is deployed.
    pub listen: Vec<Listen>,
    /// Origins that can be reached while it is built.
    pub fetch: Vec<OriginName>,
    /// Hosts that it can reach when deployed.
    pub connect: Vec<Connect>,
}

/// A port that the recipe serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// 1 to 65535.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A host and port that the recipe uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// DNS name or IP address, lower case.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

/// `[capabilities]`: asked for openly, granted by the site's policy, else refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Programs that may be setuid or setgid beyond the base's own.
    pub setuid: Vec<GuestPath>,
    /// Users that may exist beyond the base's own.
    pub users: Vec<UserName>,
}

/// `[instance]`: what each instance, a clone of one template, needs of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Services that hold secrets in memory or make them when they start, restarted in each clone where they run, in an order of
    /// systemd's; `.service` is implied.
    pub renew: Vec<String>,
}

/// `[[secret]]`: something that an instance, and nothing else, gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What the site knows it by.
    pub name: SecretName,
    /// Where the instance finds it; below `/run`, which is RAM.
    pub path: GuestPath,
    /// Line of its table, from 1.
    pub line: usize,
}

/// `[[test]]`: a command of the VO that shows the instance does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionTest {
    /// Unique in the recipe; one line.
    pub name: String,
    /// Shell command; the test passes if it exits 0.
    pub run: String,
    /// Time it may take; 30 s if the manifest says nothing.
    pub timeout: Seconds,
    /// Line of `run`, from 1.
    pub line: usize,
    /// Bytes of the manifest that hold the value of `run`, quotes included.
    pub run_span: Range<usize>,
}

/// What a recipe asked for and sets up, as it lies in the guest while the site's recipe runs
/// (`/run/countersign/declared.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Declared {
    /// `VO/name`.
    pub name: RecipeName,
    /// Its version.
    pub version: Version,
    /// `[network]`.
    pub network: Network,
    /// `[capabilities]`.
    pub capabilities: Capabilities,
    /// Packages that it installs, in order of first mention.
    pub packages: Vec<PackageName>,
    /// Users that it makes or changes.
    pub users: Vec<UserName>,
    /// Groups that it makes or changes.
    pub groups: Vec<UserName>,
    /// Units that it enables or starts; `.service` implied.
    pub services: Vec<String>,
}

/// Where the guest finds [`Declared`] while a site recipe runs.
pub const DECLARED_FILE: &str = "/run/countersign/declared.json";

impl Manifest {
    /// Reads `recipe.toml` within [`Limits::STANDARD`]. Mistakes come in the order of their place, at least one.
    pub fn parse(source: &str) -> Result<Manifest, Vec<Diagnostic>> {
        Manifest::parse_within(source, &Limits::STANDARD)
    }

    /// Reads `recipe.toml` within `limits`.
    pub fn parse_within(source: &str, limits: &Limits) -> Result<Manifest, Vec<Diagnostic>> {
        document::parse(source, limits, reading::manifest)
    }

    /// Files of the recipe that the manifest names, in order of mention; a file may come more than once.
    pub fn referenced_files(&self) -> impl Iterator<Item = &RecipePath> {
        self.references.iter().map(|reference| &reference.path)
    }

    pub(crate) fn references(&self) -> &[Reference] {
        &self.references
    }

    /// `VO/name@version`: the subject of the recipe's statement.
    pub fn subject_name(&self) -> String {
        format!("{}@{}", self.recipe.name, self.recipe.version)
    }

    /// What the site's recipe may know of this one.
    pub fn declared(&self) -> Declared {
        let mut declared = Declared {
            name: self.recipe.name.clone(),
            version: self.recipe.version.clone(),
            network: self.network.clone(),
            capabilities: self.capabilities.clone(),
            packages: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
            services: Vec::new(),
        };
        for step in &self.steps {
            match &step.kind {
                StepKind::Package(packages) => {
                    packages.iter().for_each(|package| add_once(&mut declared.packages, package));
                }
                StepKind::User(user) => add_once(&mut declared.users, &user.name),
                StepKind::Group(group) => add_once(&mut declared.groups, &group.name),
                StepKind::Service(service)
                    if service.enabled == Some(true) || service.running == Some(true) =>
                {
                    add_once(&mut declared.services, &service.name);
                }
                _ => {}
            }
        }
        declared
    }
}

fn add_once<T: Clone + PartialEq>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}
