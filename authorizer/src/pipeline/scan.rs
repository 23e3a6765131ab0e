//! The static scan and what it decides.

use recipe_spec::manifest::Capabilities;
use recipe_spec::{Code, Recipe};
use scanner::{Decision, Report};

use super::revocation::NotRevoked;
use crate::site::config::Policy;
use crate::stopped::Stopped;

/// A recipe without a finding that denies.
#[derive(Debug)]
pub struct ScannedRecipe {
    clear: NotRevoked,
    report: Report,
}

impl ScannedRecipe {
    pub(super) fn scan(clear: NotRevoked, policy: &Policy) -> Result<Self, Stopped> {
        let recipe = clear.verified().recipe();
        granted(&recipe.manifest().capabilities, policy)?;
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

/// What a recipe asks for openly is granted by the site's policy, or refused.
fn granted(asked: &Capabilities, policy: &Policy) -> Result<(), Stopped> {
    match asked.setuid.iter().find(|program| !policy.setuid.contains(program)) {
        None => Ok(()),
        Some(program) => Err(Stopped::new(
            Code::ScanDenied,
            format!("the recipe asks that {program} may be setuid, and the site's policy does not grant it"),
        )
        .hint("the site's security officer can add it to [policy] setuid in site.toml")),
    }
}

fn human(report: &Report, clear: &NotRevoked) -> String {
    let payload = clear.verified().recipe().payload();
    report.human(|path| payload.file_at(path).map(|file| file.bytes.as_slice()), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setuid_program_is_granted_by_policy_only() {
        let policy = |setuid: &str| -> Policy {
            let text = format!(
                "allow_emulation = false\nlevel = \"recipe\"\nauthorization_days = 1\nsetuid = {setuid}\n"
            );
            toml::from_str(&text).unwrap()
        };
        let asked = Capabilities { setuid: vec!["/usr/local/bin/x".parse().unwrap()], users: Vec::new() };
        assert!(granted(&Capabilities::default(), &policy("[]")).is_ok());
        assert!(granted(&asked, &policy("[\"/usr/local/bin/x\"]")).is_ok());
        for other in ["[]", "[\"/usr/local/bin\"]", "[\"/usr/local/bin/y\"]"] {
            let stopped = granted(&asked, &policy(other)).unwrap_err();
            assert_eq!(stopped.code, Code::ScanDenied);
            assert!(stopped.message.contains("/usr/local/bin/x"), "{stopped}");
        }
    }
}
