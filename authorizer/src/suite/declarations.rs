//! What the recipes say openly: a machine may differ from its base only by this.

use std::collections::{BTreeMap, BTreeSet};

use recipe_spec::manifest::{Listen, Mode, StepKind};
use recipe_spec::name::UserName;
use recipe_spec::{Recipe, Sha256Digest};

/// Whose recipe said it. A later recipe overrides an earlier one; the site's come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The recipe under test.
    Vo,
    /// A recipe of the site.
    Site,
}

impl DeclaredFile {
    /// What the site makes of nothing: root's, for all to read.
    pub(super) const SITES: Self = Self {
        by: By::Site,
        content: Content::Link(String::new()),
        mode: DEFAULT_MODE,
        root: (true, true),
        shown: true,
    };
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
    /// Units that `service` steps disable, with suffix.
    pub(super) disabled: BTreeSet<String>,
    /// Ports that the recipe under test opens, in its order.
    pub(super) vo_listen: Vec<Listen>,
    files: BTreeMap<String, DeclaredFile>,
    /// Folders of `directory` steps that belong to another than root.
    given_folders: BTreeSet<String>,
}

/// A file, download or link of a step.
#[derive(Clone, Debug)]
pub(super) struct DeclaredFile {
    pub(super) by: By,
    pub(super) content: Content,
    /// `0o7777` of the mode; of a link nothing.
    pub(super) mode: u32,
    /// Whether owner and group are root's: of other names a host knows no number.
    pub(super) root: (bool, bool),
    /// Whether the recipe holds the content, so that it was scanned; a download's it only names.
    pub(super) shown: bool,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The digest of a regular file.
    Bytes(Sha256Digest),
    /// The target of a symbolic link.
    Link(String),
}

/// How a file of the machine stands to the declarations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Declared, with this very content.
    Declared(By),
    /// Declared with other content: something changed it.
    Different,
    /// Declared by the recipe under test, which does not hold the content: it was downloaded, or lies behind a link.
    Unseen,
    /// Nobody declared it.
    Undeclared,
}

/// What is wrong with a file that is [`Standing::Unseen`].
pub(super) const UNSEEN: &str =
    "holds what the recipe does not show: it was downloaded, or lies behind a link";

impl Declarations {
    /// Collects what the recipes declare, in the order in which they are applied.
    #[must_use]
    pub fn of(vo: &Recipe, site: &[&Recipe]) -> Self {
        let mut declared = Self { vo_listen: vo.manifest().network.listen.clone(), ..Self::default() };
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
                        let mode = file.mode.map_or(DEFAULT_MODE, Mode::bits);
                        let root = (is_root(file.owner.as_ref()), is_root(file.group.as_ref()));
                        self.files.insert(
                            file.path.to_string(),
                            DeclaredFile { by, content, mode, root, shown: true },
                        );
                    }
                }
                StepKind::Download(download) => {
                    let content = Content::Bytes(download.sha256);
                    let mode = download.mode.map_or(DEFAULT_MODE, Mode::bits);
                    let root = (is_root(download.owner.as_ref()), is_root(download.group.as_ref()));
                    self.files.insert(
                        download.path.to_string(),
                        DeclaredFile { by, content, mode, root, shown: false },
                    );
                }
                StepKind::Link(link) => {
                    let content = Content::Link(link.target.clone());
                    let file = DeclaredFile { by, content, mode: 0, root: (true, true), shown: true };
                    self.files.insert(link.path.to_string(), file);
                }
                StepKind::Directory(directory) if !is_root(directory.owner.as_ref()) => {
                    self.given_folders.insert(directory.path.to_string());
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
                        self.disabled.remove(&unit_name(&service.name));
                        self.enabled.insert(unit_name(&service.name), by);
                    }
                    Some(false) => {
                        self.enabled.remove(&unit_name(&service.name));
                        self.disabled.insert(unit_name(&service.name));
                    }
                    None => {}
                },
                StepKind::Package(_) | StepKind::Directory(_) | StepKind::Group(_) | StepKind::Run(_) => {}
            }
        }
    }

    /// How a file with this digest (or this link's target) stands.
    pub(super) fn standing(&self, path: &str, sha256: Option<&str>, link: Option<&str>) -> Standing {
        let Some(file) = self.files.get(path) else { return Standing::Undeclared };
        let as_said = match (&file.content, link) {
            (Content::Link(target), Some(link)) => target == link,
            (Content::Bytes(digest), None) => sha256 == Some(digest.to_hex().as_str()),
            (Content::Link(_), None) | (Content::Bytes(_), Some(_)) => false,
        };
        match as_said {
            true if file.shown || file.by == By::Site => Standing::Declared(file.by),
            true => Standing::Unseen,
            false => Standing::Different,
        }
    }

    /// Whether a step gives this file or folder to another than root.
    pub(super) fn is_given_away(&self, path: &str) -> bool {
        self.given_folders.contains(path) || self.files.get(path).is_some_and(|file| !file.root.0)
    }

    /// The files and links that the site's recipes put in place.
    pub(super) fn site_files(&self) -> impl Iterator<Item = (&str, &DeclaredFile)> {
        self.files.iter().filter(|(_, file)| file.by == By::Site).map(|(path, file)| (path.as_str(), file))
    }
}

/// What a step's file has if it says nothing.
const DEFAULT_MODE: u32 = 0o644;

fn is_root(name: Option<&UserName>) -> bool {
    name.is_none_or(|name| name.as_str() == "root")
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
