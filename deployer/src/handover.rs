//! The handover of an instance that works: what was hashed and verified when it began must hold until then.

use authorizer::events::Stage;
use authorizer::journal::Journal;
use authorizer::stopped::Stopped;
use crl::Clear;
use harness::HarnessError;
use serde::Serialize;

use crate::instance::Record;

/// That what an instance was started from still holds. Only [`StillHolds::check`] makes one.
#[derive(Debug)]
#[must_use]
pub(crate) struct StillHolds {
    clear: Clear,
}

impl StillHolds {
    /// Looks again at the files that the machine runs from, for its RAM is a map of one that somebody may have written to since
    /// it was hashed; then asks again whether anything is revoked.
    ///
    /// # Errors
    /// What either says.
    pub(crate) fn check(
        unchanged: impl FnOnce() -> Result<(), HarnessError>,
        ask_again: impl FnOnce() -> Result<Clear, Stopped>,
        journal: &mut Journal<'_>,
    ) -> Result<Self, Stopped> {
        unchanged()?;
        let clear = journal.stage(
            Stage::RevocationAgain,
            |clear: &Clear| format!("number {}", clear.number),
            |_| ask_again(),
        )?;
        Ok(Self { clear })
    }
}

/// An instance that works.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Launched {
    /// What was started.
    #[serde(flatten)]
    pub record: Record,
    /// Number of the recipe CRL that was asked last.
    pub crl_number: u64,
    /// Without it nothing is handed out.
    #[serde(skip)]
    _holds: StillHolds,
}

impl Launched {
    pub(crate) fn of(record: Record, holds: StillHolds) -> Self {
        Self { record, crl_number: holds.clear.number, _holds: holds }
    }
}

#[cfg(test)]
mod tests {
    use authorizer::events::Event;
    use recipe_spec::{Code, Sha256Digest};

    use super::*;

    fn check(
        unchanged: Result<(), HarnessError>,
        asked: Result<Clear, Stopped>,
    ) -> Result<StillHolds, Stopped> {
        let mut watcher = |_: &Event| {};
        StillHolds::check(|| unchanged, || asked, &mut Journal::new(&mut watcher))
    }

    #[test]
    fn what_was_changed_or_revoked_since_it_began_is_not_handed_out() {
        let changed = || {
            let (path, reason) = ("/site/templates/memory".into(), "it was changed".into());
            Err(HarnessError::Unusable { path, layer: true, reason })
        };
        let clear = Clear { number: 8, header: Sha256Digest::of(b"header"), checked: 1 };
        let revoked = || Err(Stopped::new(Code::Revoked, "version:atlas/web@1.0.0 is revoked"));
        assert_eq!(check(Ok(()), Ok(clear)).unwrap().clear.number, 8, "of the list that was asked last");
        assert_eq!(check(changed(), Ok(clear)).unwrap_err().code, Code::LayerMismatch);
        assert_eq!(check(changed(), revoked()).unwrap_err().code, Code::LayerMismatch);
        let stopped = check(Ok(()), revoked()).unwrap_err();
        assert_eq!((stopped.code, stopped.stage), (Code::Revoked, Some(Stage::RevocationAgain)));
    }
}
