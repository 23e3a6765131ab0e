//! The site's two locks: one process at a time changes what a site authorizes, and one what it trusts.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Layout, SiteError};
use crate::regular_file;

/// How often a waiting process looks again.
const POLL: Duration = Duration::from_millis(50);

/// The held lock of one site's authorizations. A function that changes what the site authorizes takes it as a parameter,
/// so that it cannot be called without. Released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct SiteLock {
    layout: Layout,
    _file: File,
}

impl SiteLock {
    /// Takes the lock, waiting at most `patience` for another process to let go of it.
    ///
    /// # Errors
    /// [`SiteError::Locked`] when it is still held then; [`SiteError::Io`] when the file cannot be opened.
    pub fn acquire(layout: &Layout, patience: Duration) -> Result<Self, SiteError> {
        Ok(Self { layout: layout.clone(), _file: locked(&layout.lock(), patience)? })
    }

    /// The site that is locked.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The repository of authorizations of the locked site.
    pub fn authorizations(&self) -> PathBuf {
        self.layout.authorizations()
    }
}

/// The held lock of what one site trusts: anchors, CRLs of CAs, the recipe CRL. It is another than [`SiteLock`], which an
/// authorization holds for minutes: a revocation must not wait for whoever is to be revoked.
#[derive(Debug)]
pub struct TrustLock {
    layout: Layout,
    _file: File,
}

impl TrustLock {
    /// Takes the lock, waiting at most `patience` for another process to let go of it.
    ///
    /// # Errors
    /// As [`SiteLock::acquire`].
    pub fn acquire(layout: &Layout, patience: Duration) -> Result<Self, SiteError> {
        Ok(Self { layout: layout.clone(), _file: locked(&layout.trust_lock(), patience)? })
    }

    /// The site that is locked.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn locked(path: &Path, patience: Duration) -> Result<File, SiteError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file =
        regular_file::open_with(&mut options, path).map_err(|source| SiteError::io("open", path, source))?;
    let deadline = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(POLL),
            Err(Errno::WOULDBLOCK) => {
                return Err(SiteError::Locked { path: path.to_owned(), seconds: patience.as_secs() });
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(SiteError::io("lock", path, errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(folder: &tempfile::TempDir) -> Layout {
        let layout = Layout::new(folder.path());
        std::fs::create_dir(layout.state()).unwrap();
        layout
    }

    #[test]
    fn a_second_holder_is_refused_and_admitted_after_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        let held = SiteLock::acquire(&layout, Duration::ZERO).unwrap();
        assert!(matches!(
            SiteLock::acquire(&layout, Duration::from_millis(1)),
            Err(SiteError::Locked { .. })
        ));
        drop(held);
        SiteLock::acquire(&layout, Duration::ZERO).unwrap();
    }

    #[test]
    fn what_is_trusted_changes_while_something_is_authorized() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        let _authorizing = SiteLock::acquire(&layout, Duration::ZERO).unwrap();
        let _revoking = TrustLock::acquire(&layout, Duration::ZERO).unwrap();
        let second = TrustLock::acquire(&layout, Duration::from_millis(1));
        assert!(matches!(second, Err(SiteError::Locked { .. })));
    }

    #[test]
    fn a_waiting_process_gets_the_lock_when_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        let held = SiteLock::acquire(&layout, Duration::ZERO).unwrap();
        let waiting = std::thread::spawn({
            let layout = layout.clone();
            move || SiteLock::acquire(&layout, Duration::from_secs(20)).map(|_| ())
        });
        std::thread::sleep(POLL);
        drop(held);
        waiting.join().unwrap().unwrap();
    }
}
