//! The static scan and what it decides.

use recipe_spec::{Code, Recipe};
use scanner::{Decision, Report};

use super::revocation::NotRevoked;
use crate::stopped::Stopped;

/// A recipe without a finding that denies.
#[derive(Debug)]
pub struct ScannedRecipe {
    clear: NotRevoked,
    report: Report,
}

impl ScannedRecipe {
    pub(super) fn scan(clear: NotRevoked) -> Result<Self, Stopped> {
        let recipe = clear.verified().recipe();
        let report = scanner::scan_recipe(recipe);
        match report.decision {
            Decision::Allow => Ok(Self { clear, report }),
            Decision::Review => {
                let stopped = Stopped::new(Code::ReviewNeeded, "the scan asks for a person's review");
                Err(stopped.details(human(&report, &clear)))
            }
            Decision::Deny => {
                Err(Stopped::new(Code::ScanDenied, report.summary()).details(human(&report, &clear)))
            }
        }
    }

    /// The recipe and all that is known of it.
    #[must_use]
    pub fn clear(&self) -> &NotRevoked {
        &self.clear
    }

    /// The recipe itself.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        self.clear.verified().recipe()
    }

    /// What the scan found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    pub(super) fn detail(&self) -> String {
        self.report.summary()
    }
}

fn human(report: &Report, clear: &NotRevoked) -> String {
    let payload = clear.verified().recipe().payload();
    report.human(|path| payload.file_at(path).map(|file| file.bytes.as_slice()), false)
}
