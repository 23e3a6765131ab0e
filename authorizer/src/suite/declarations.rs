//! What the recipes say openly: a machine may differ from its base only by this.

use std::collections::{BTreeMap, BTreeSet};

use recipe_spec::manifest::{Listen, StepKind};
use recipe_spec::{Recipe, Sha256Digest};

/// Whose recipe said it. A later recipe overrides an earlier one; the site's come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The recipe under test.
    Vo,
    /// A recipe of the site.
    Site,
}

/// A user as a `user` step has it.
#[derive(Clone, Debug)]
pub(super) struct DeclaredUser {
    pub(super) by: By,
    pub(super) home: Option<String>,
    pub(super) authorized_keys: Vec<String>,
}

/// Everything declared by the VO's recipe and then the site's.
#[derive(Clone, Debug, Default)]
pub struct Declarations {
    pub(super) listen: Vec<Listen>,
    pub(super) setuid: BTreeSet<String>,
    /// Users of `user` steps.
    pub(super) users: BTreeMap<String, DeclaredUser>,
    /// Users that packages may bring: `[capabilities] users`.
    pub(super) expected_users: BTreeSet<String>,
    /// Units that `service` steps enable, with suffix.
    pub(super) enabled: BTreeMap<String, By>,
    files: BTreeMap<String, (Content, By)>,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Bytes(Sha256Digest),
    Link(String),
}

/// How a file of the machine stands to the declarations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Declared, with this very content.
    Declared(By),
    /// Declared with other content: something changed it.
    Different,
    /// Nobody declared it.
    Undeclared,
}

impl Declarations {
    /// Collects what the recipes declare, in the order in which they are applied.
    #[must_use]
    pub fn of(vo: &Recipe, site: &[&Recipe]) -> Self {
        let mut declared = Self::default();
        declared.add(vo, By::Vo);
        for recipe in site {
            declared.add(recipe, By::Site);
        }
        declared
    }

    fn add(&mut self, recipe: &Recipe, by: By) {
        let manifest = recipe.manifest();
        self.listen.extend(manifest.network.listen.iter().copied());
        self.setuid.extend(manifest.capabilities.setuid.iter().map(ToString::to_string));
        self.expected_users.extend(manifest.capabilities.users.iter().map(ToString::to_string));
        for step in &manifest.steps {
            match &step.kind {
                StepKind::File(file) => {
                    let bytes = match (&file.source, &file.content) {
                        (Some(source), _) => recipe.payload().file(source).map(|file| file.bytes.as_slice()),
                        (None, content) => content.as_deref().map(str::as_bytes),
                    };
                    if let Some(bytes) = bytes {
                        let content = Content::Bytes(Sha256Digest::of(bytes));
                        self.files.insert(file.path.to_string(), (content, by));
                    }
                }
                StepKind::Download(download) => {
                    self.files.insert(download.path.to_string(), (Content::Bytes(download.sha256), by));
                }
                StepKind::Link(link) => {
                    self.files.insert(link.path.to_string(), (Content::Link(link.target.clone()), by));
                }
                StepKind::User(user) => {
                    self.users.insert(
                        user.name.to_string(),
                        DeclaredUser {
                            by,
                            home: user.home.as_ref().map(ToString::to_string),
                            authorized_keys: user.authorized_keys.clone(),
                        },
                    );
                }
                StepKind::Service(service) => match service.enabled {
                    Some(true) => {
                        self.enabled.insert(unit_name(&service.name), by);
                    }
                    Some(false) => {
                        self.enabled.remove(&unit_name(&service.name));
                    }
                    None => {}
                },
                StepKind::Package(_) | StepKind::Directory(_) | StepKind::Group(_) | StepKind::Run(_) => {}
            }
        }
    }

    /// How a file with this digest (or this link's target) stands.
    pub(super) fn standing(&self, path: &str, sha256: Option<&str>, link: Option<&str>) -> Standing {
        match (self.files.get(path), link) {
            (None, _) => Standing::Undeclared,
            (Some((Content::Link(target), by)), Some(link)) if target == link => Standing::Declared(*by),
            (Some((Content::Bytes(digest), by)), None) if sha256 == Some(digest.to_hex().as_str()) => {
                Standing::Declared(*by)
            }
            (Some(_), _) => Standing::Different,
        }
    }

    /// Paths of the files and links that the site's recipes put in place.
    pub(super) fn site_files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, (_, by))| *by == By::Site).map(|(path, _)| path.as_str())
    }
}

/// `.service` is implied.
fn unit_name(name: &str) -> String {
    const SUFFIXES: [&str; 9] =
        [".service", ".socket", ".timer", ".path", ".mount", ".automount", ".target", ".swap", ".slice"];
    if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}
