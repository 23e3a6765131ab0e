//! Fetching from a repository over a network into a bare repository, in the worker.

use std::cell::{Cell, RefCell};
use std::path::Path;

use git2::{
    AutotagOption, Config, Direction, FetchOptions, Oid, Progress, ProxyOptions, RemoteCallbacks,
    RemoteRedirect, Repository, RepositoryInitOptions,
};
use url::Url;

use super::job::Halt;
use super::wire::{Refusal, Unit};
use super::{FetchLimits, Revision};

/// All settings that a fetch goes by.
const SETTINGS: &str = "[http]\n\tfollowRedirects = false\n";

/// The most bytes of what a remote says for people while it works; nobody reads it.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Fetches the commit that `revision` names now into a repository in `folder`, within `limits`.
pub(super) fn fetch(
    folder: &Path,
    url: &Url,
    revision: &Revision,
    limits: &FetchLimits,
) -> Result<(Repository, Oid), Halt> {
    let exceeded = Exceeded::default();
    // libgit2 itself only reports that a callback said no.
    Fetch { folder, url, revision, limits }.run(&exceeded).map_err(|halt| match exceeded.found.take() {
        Some((limit, unit)) => Refusal::Repository { limit, unit }.into(),
        None => halt,
    })
}

struct Fetch<'a> {
    folder: &'a Path,
    url: &'a Url,
    revision: &'a Revision,
    limits: &'a FetchLimits,
}

/// What the callbacks count, and a limit that they found exceeded.
#[derive(Default)]
struct Exceeded {
    progress: Cell<u64>,
    found: RefCell<Option<(u64, Unit)>>,
}

impl Exceeded {
    /// Whether `count` is within `limit`; the first limit that is exceeded stays.
    fn within(&self, count: u64, limit: u64, unit: Unit) -> bool {
        if count > limit {
            self.found.borrow_mut().get_or_insert((limit, unit));
        }
        count <= limit
    }
}

impl Fetch<'_> {
    fn run(&self, exceeded: &Exceeded) -> Result<(Repository, Oid), Halt> {
        let git = |error: git2::Error| Halt::git(&error);
        let repository = Repository::init_opts(
            self.folder,
            // No template: it could bring hooks and settings of this host.
            RepositoryInitOptions::new().bare(true).external_template(false).initial_head("main"),
        )
        .map_err(git)?;
        // Neither the host's nor the user's settings apply: `url.*.insteadOf` would fetch from somewhere else. Only a setting
        // reaches the first request of a connection, for which libgit2 follows redirects to any host by default.
        let settings = self.folder.join("settings");
        std::fs::write(&settings, SETTINGS)?;
        Config::open(&settings).and_then(|config| repository.set_config(&config)).map_err(git)?;
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
        drop(remote);
        let commit = repository
            .find_object(wanted.id(), None)
            .and_then(|object| object.peel_to_commit())
            .map_err(|error| Halt::missing(&error, Refusal::NoRevision))?
            .id();
        Ok((repository, commit))
    }

    fn wanted(&self, advertised: &[(String, Oid)]) -> Result<Wanted, Halt> {
        if let Revision::Commit(id) = *self.revision {
            let head = advertised.iter().find(|(name, oid)| *oid == id && !name.ends_with("^{}"));
            return Ok(match head {
                Some((name, _)) => Wanted::Reference { name: name.clone(), id },
                None => Wanted::Old { id },
            });
        }
        let candidates = self.revision.candidates();
        let mut found = advertised.iter().filter(|(name, _)| candidates.contains(name));
        let (name, id) = found.next().ok_or(Refusal::NoRevision)?;
        let peeled = |name: &str, id: Oid| {
            let peeled = format!("{name}^{{}}");
            advertised.iter().find(|(other, _)| *other == peeled).map_or(id, |(_, id)| *id)
        };
        if found.any(|(other, other_id)| peeled(other, *other_id) != peeled(name, *id)) {
            return Err(Refusal::Ambiguous.into());
        }
        Ok(Wanted::Reference { name: name.clone(), id: *id })
    }

    fn callbacks<'a>(&'a self, exceeded: &'a Exceeded) -> RemoteCallbacks<'a> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(move |progress| self.may_go_on(&progress, exceeded));
        callbacks.sideband_progress(move |text| {
            let said = exceeded.progress.get().saturating_add(text.len() as u64);
            exceeded.progress.set(said);
            exceeded.within(said, PROGRESS_BYTES, Unit::ProgressBytes)
        });
        callbacks
    }

    fn may_go_on(&self, progress: &Progress<'_>, exceeded: &Exceeded) -> bool {
        exceeded.within(progress.received_bytes() as u64, self.limits.bytes, Unit::Bytes)
            && exceeded.within(progress.total_objects() as u64, self.limits.objects as u64, Unit::Objects)
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
