//! Fetching from a repository over a network, into a temporary bare repository.

use std::sync::atomic::{AtomicBool, Ordering};

use git2::{
    AutotagOption, Config, Direction, FetchOptions, Oid, Progress, ProxyOptions, RemoteCallbacks,
    RemoteRedirect, Repository, RepositoryInitOptions,
};
use tempfile::TempDir;
use url::Url;

use super::deadline::Deadline;
use super::{FetchLimits, IntakeError, Place, Revision};

/// One commit, fetched. The folder goes with this value.
pub(super) struct Fetched {
    folder: TempDir,
    commit: Oid,
}

impl Fetched {
    pub(super) fn open(&self) -> Result<Repository, git2::Error> {
        Repository::open_bare(self.folder.path())
    }

    pub(super) fn commit(&self) -> Oid {
        self.commit
    }
}

/// Fetches the commit that `revision` names now, within `limits`.
pub(super) fn fetch(
    url: &Url,
    revision: &Revision,
    limits: &FetchLimits,
    deadline: &Deadline,
) -> Result<Fetched, IntakeError> {
    let uri = Place::Remote(url.clone()).to_string();
    Job { url, uri, revision, limits, deadline }.run()
}

struct Job<'a> {
    url: &'a Url,
    uri: String,
    revision: &'a Revision,
    limits: &'a FetchLimits,
    deadline: &'a Deadline,
}

/// A limit that a callback found exceeded: libgit2 itself only reports that the callback said no.
#[derive(Default)]
struct Exceeded {
    bytes: AtomicBool,
    objects: AtomicBool,
    deadline: AtomicBool,
}

impl Job<'_> {
    fn run(&self) -> Result<Fetched, IntakeError> {
        let exceeded = Exceeded::default();
        self.fetch(&exceeded).map_err(|error| {
            let uri = self.uri.clone();
            if exceeded.bytes.load(Ordering::Relaxed) {
                IntakeError::RepositoryTooLarge { uri, limit: self.limits.bytes, unit: "bytes" }
            } else if exceeded.objects.load(Ordering::Relaxed) {
                IntakeError::RepositoryTooLarge { uri, limit: self.limits.objects as u64, unit: "objects" }
            } else if exceeded.deadline.load(Ordering::Relaxed) {
                IntakeError::Deadline { uri, seconds: self.limits.deadline.as_secs() }
            } else {
                error
            }
        })
    }

    fn fetch(&self, exceeded: &Exceeded) -> Result<Fetched, IntakeError> {
        let git = |error: git2::Error| IntakeError::unavailable(&self.uri, &error);
        let folder = tempfile::Builder::new()
            .prefix("countersign-intake-")
            .tempdir()
            .map_err(|source| IntakeError::Io { path: std::env::temp_dir(), source })?;
        let repository = Repository::init_opts(
            folder.path(),
            // No template: it could bring hooks and settings of this host.
            RepositoryInitOptions::new().bare(true).external_template(false).initial_head("main"),
        )
        .map_err(git)?;
        // Neither the host's nor the user's settings apply: `url.*.insteadOf` would fetch from somewhere else.
        Config::new().and_then(|config| repository.set_config(&config)).map_err(git)?;
        let mut remote = repository.remote_anonymous(self.url.as_str()).map_err(git)?;
        // One connection for both: what is downloaded is what was advertised, however the reference moves.
        let mut connection = remote
            .connect_auth(Direction::Fetch, Some(self.callbacks(exceeded)), Some(proxy()))
            .map_err(git)?;
        let advertised: Vec<_> =
            connection.list().map_err(git)?.iter().map(|head| (head.name().to_owned(), head.oid())).collect();
        let wanted = self.wanted(&advertised)?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks(exceeded))
            .proxy_options(proxy())
            .download_tags(AutotagOption::None)
            .follow_redirects(RemoteRedirect::None)
            .update_fetchhead(false);
        if let Wanted::Reference { .. } = &wanted {
            options.depth(1);
        }
        connection.remote().download(&wanted.refspecs(), Some(&mut options)).map_err(git)?;
        drop(connection);
        let commit = repository
            .find_object(wanted.id(), None)
            .and_then(|object| object.peel_to_commit())
            .map_err(|_| self.missing())?
            .id();
        Ok(Fetched { folder, commit })
    }

    fn wanted(&self, advertised: &[(String, Oid)]) -> Result<Wanted, IntakeError> {
        if let Revision::Commit(id) = *self.revision {
            let head = advertised.iter().find(|(name, oid)| *oid == id && !name.ends_with("^{}"));
            return Ok(match head {
                Some((name, _)) => Wanted::Reference { name: name.clone(), id },
                None => Wanted::Old { id },
            });
        }
        let candidates = self.revision.candidates();
        let mut found = advertised.iter().filter(|(name, _)| candidates.contains(name));
        let (name, id) = found.next().ok_or_else(|| self.missing())?;
        let peeled = |name: &str, id: Oid| {
            let peeled = format!("{name}^{{}}");
            advertised.iter().find(|(other, _)| *other == peeled).map_or(id, |(_, id)| *id)
        };
        if found.any(|(other, other_id)| peeled(other, *other_id) != peeled(name, *id)) {
            let revision = self.revision.to_string();
            return Err(IntakeError::Ambiguous { uri: self.uri.clone(), revision });
        }
        Ok(Wanted::Reference { name: name.clone(), id: *id })
    }

    fn missing(&self) -> IntakeError {
        IntakeError::NoRevision { uri: self.uri.clone(), revision: self.revision.to_string() }
    }

    fn callbacks<'a>(&'a self, exceeded: &'a Exceeded) -> RemoteCallbacks<'a> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(move |progress| self.may_go_on(&progress, exceeded));
        callbacks.sideband_progress(move |_| self.in_time(exceeded));
        callbacks
    }

    fn may_go_on(&self, progress: &Progress<'_>, exceeded: &Exceeded) -> bool {
        if progress.received_bytes() as u64 > self.limits.bytes {
            exceeded.bytes.store(true, Ordering::Relaxed);
            return false;
        }
        if progress.total_objects() > self.limits.objects {
            exceeded.objects.store(true, Ordering::Relaxed);
            return false;
        }
        self.in_time(exceeded)
    }

    fn in_time(&self, exceeded: &Exceeded) -> bool {
        let late = self.deadline.is_over();
        if late {
            exceeded.deadline.store(true, Ordering::Relaxed);
        }
        !late
    }
}

/// A site behind a proxy names it in the environment, as for other programs.
fn proxy<'a>() -> ProxyOptions<'a> {
    let mut options = ProxyOptions::new();
    options.auto();
    options
}

/// What is asked of the remote.
enum Wanted {
    /// What a reference names: one commit is enough.
    Reference { name: String, id: Oid },
    /// A commit that no reference names any more: most servers give it only as part of a history.
    Old { id: Oid },
}

impl Wanted {
    fn id(&self) -> Oid {
        match self {
            Self::Reference { id, .. } | Self::Old { id } => *id,
        }
    }

    fn refspecs(&self) -> Vec<String> {
        match self {
            Self::Reference { name, .. } => vec![format!("+{name}:refs/intake/wanted")],
            Self::Old { .. } => vec![
                "+refs/heads/*:refs/intake/heads/*".to_owned(),
                "+refs/tags/*:refs/intake/tags/*".to_owned(),
            ],
        }
    }
}
