//! What a recipe can do, one kind at a time. A step says how the machine shall be, and goes to the agent as JSON.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::manifest::value::{Mode, PackageName, Seconds};
use crate::name::UserName;
use crate::path::{GuestPath, RecipePath};

/// A step and its place in the manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Line of its kind's key, from 1.
    pub line: usize,
    /// Bytes of the manifest from its kind's key to the end of the value (of the header, for `[step.file]`).
    pub span: Range<usize>,
    /// For each field that the manifest gives, the bytes of its value, quotes included.
    pub fields: Vec<(&'static str, Range<usize>)>,
}

impl Step {
    /// Bytes of the manifest that hold the value of `field`, quotes included.
    pub fn field_span(&self, field: &str) -> Option<Range<usize>> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, span)| span.clone())
    }
}

/// What a step does. In JSON the kind is the key: `{"service": {"name": "nginx", "enabled": true}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Packages are installed; never empty.
    Package(Vec<PackageName>),
    /// A file has this content.
    File(FileStep),
    /// A directory exists.
    Directory(DirectoryStep),
    /// A symbolic link points there.
    Link(LinkStep),
    /// A user exists.
    User(UserStep),
    /// A group exists.
    Group(GroupStep),
    /// A unit is enabled or running, or is not.
    Service(ServiceStep),
    /// A file was fetched by the host, checked, and lies here.
    Download(DownloadStep),
    /// A script ran.
    Run(RunStep),
}

/// The kinds that this version brings about.
pub(crate) const KINDS: [&str; 9] =
    ["package", "file", "directory", "link", "user", "group", "service", "download", "run"];
/// The kinds that the format has and this version does not bring about.
pub(crate) const LATER_KINDS: [&str; 7] =
    ["sysctl", "mount", "firewall", "kernel_module", "puppet", "cloud_init", "ansible"];

impl StepKind {
    /// The key in the manifest: `package`, `file`, …
    pub fn name(&self) -> &'static str {
        match self {
            StepKind::Package(_) => "package",
            StepKind::File(_) => "file",
            StepKind::Directory(_) => "directory",
            StepKind::Link(_) => "link",
            StepKind::User(_) => "user",
            StepKind::Group(_) => "group",
            StepKind::Service(_) => "service",
            StepKind::Download(_) => "download",
            StepKind::Run(_) => "run",
        }
    }

    /// The file of the recipe that it needs, if any.
    pub fn recipe_file(&self) -> Option<&RecipePath> {
        match self {
            StepKind::File(file) => file.source.as_ref(),
            StepKind::Run(run) => Some(&run.script),
            _ => None,
        }
    }
}

/// For a person: the kind and what it is about, `file /etc/motd`.
impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            StepKind::Package(packages) => packages.iter().try_for_each(|package| write!(f, " {package}")),
            StepKind::File(file) => write!(f, " {}", file.path),
            StepKind::Directory(directory) => write!(f, " {}", directory.path),
            StepKind::Link(link) => write!(f, " {}", link.path),
            StepKind::User(user) => write!(f, " {}", user.name),
            StepKind::Group(group) => write!(f, " {}", group.name),
            StepKind::Service(service) => write!(f, " {}", service.name),
            StepKind::Download(download) => write!(f, " {}", download.path),
            StepKind::Run(run) => write!(f, " {}", run.script),
        }
    }
}

/// `file`: exactly one of `source` and `content` is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileStep {
    /// Where it lies in the machine.
    pub path: GuestPath,
    /// The recipe's file with its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RecipePath>,
    /// The content itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Mode; `0644` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Owner; `root` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserName>,
    /// Group; `root` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<UserName>,
}

/// `directory`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryStep {
    /// Where it lies in the machine.
    pub path: GuestPath,
    /// Mode; `0755` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Owner; `root` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserName>,
    /// Group; `root` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<UserName>,
}

/// `link`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkStep {
    /// Where the link lies.
    pub path: GuestPath,
    /// What it points to; one line, not looked at further.
    pub target: String,
}

/// `user`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserStep {
    /// Its name.
    pub name: UserName,
    /// Its number; chosen by the machine if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its primary group; one of its own name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<UserName>,
    /// Groups that it is in beside that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<UserName>,
    /// Its home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<GuestPath>,
    /// Its shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<GuestPath>,
    /// True for a user that stands for a service.
    #[serde(default)]
    pub system: bool,
    /// Lines of its `authorized_keys`; the file is left alone if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<String>,
}

/// `group`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupStep {
    /// Its name.
    pub name: UserName,
    /// Its number; chosen by the machine if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// True for a group that stands for a service.
    #[serde(default)]
    pub system: bool,
}

/// `service`: at least one of `enabled` and `running` is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceStep {
    /// The unit; `.service` is implied if it has no suffix.
    pub name: String,
    /// Whether it starts at boot; left alone if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it runs now; left alone if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
}

/// `download`: fetched by the host, never by the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownloadStep {
    /// `http` or `https`.
    pub url: String,
    /// What the content must be.
    pub sha256: Sha256Digest,
    /// Where it lies in the machine.
    pub path: GuestPath,
    /// Mode; `0644` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Owner; `root` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserName>,
    /// Group; `root` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<UserName>,
}

/// `run`: at least one of `creates` and `unless` is given, so that the step can be idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStep {
    /// The recipe's file that is run.
    pub script: RecipePath,
    /// Nothing is run if this exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creates: Option<GuestPath>,
    /// Nothing is run if this shell command exits 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
    /// Time it may take; 10 minutes if the manifest says nothing.
    pub timeout: Seconds,
}
