//! The recipe CRL: asked before anything is built, and again before the site signs.

use crl::{Clear, CrlError, Seen, Selector};
use recipe_spec::{Code, Recipe, Timestamp};

use super::verify::VerifiedRecipe;
use crate::base::VerifiedBase;
use crate::site::Site;
use crate::stopped::Stopped;

/// A verified recipe that a fresh recipe CRL does not name, nor its signers.
#[derive(Debug)]
pub struct NotRevoked {
    verified: VerifiedRecipe,
    clear: Clear,
}

impl NotRevoked {
    pub(super) fn check(verified: VerifiedRecipe, site: &Site, now: Timestamp) -> Result<Self, Stopped> {
        let clear = ask(site, &selectors_of(&verified), now)?;
        Ok(Self { verified, clear })
    }

    /// The recipe.
    #[must_use]
    pub fn verified(&self) -> &VerifiedRecipe {
        &self.verified
    }

    /// Number of the list that was asked.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.clear.number
    }

    pub(super) fn detail(&self) -> String {
        format!("number {}, {} questions, not revoked", self.clear.number, self.clear.checked)
    }
}

/// Everything about a recipe itself that can be revoked: its content, its version, its signer's key and certificate, and
/// those of the CAs above.
pub(super) fn selectors_of(verified: &VerifiedRecipe) -> Vec<Selector> {
    let recipe = verified.recipe();
    let info = &recipe.manifest().recipe;
    let mut selectors = vec![
        Selector::Recipe(recipe.digest()),
        Selector::RecipeVersion { name: info.name.clone(), version: info.version.clone() },
    ];
    selectors.extend(Selector::of_signer(verified.signer()));
    selectors
}

/// What the site adds: the base image, who signed it, and the site's own recipes.
pub(super) fn selectors_of_site(base: &VerifiedBase, site_recipes: &[Recipe]) -> Vec<Selector> {
    let mut selectors = vec![Selector::BaseImage(base.sha256())];
    selectors.extend(base.signers().iter().flat_map(Selector::of_signer));
    selectors.extend(site_recipes.iter().map(|recipe| Selector::SiteRecipe(recipe.digest())));
    selectors
}

/// Refuses a clock that is behind a time which the site's CRL issuer has signed. Asked before certificates are judged: at a
/// wrong time they look expired or not yet valid, which would be said of the VO and for good.
///
/// # Errors
/// `CLOCK_BACKWARD`; `CRL_INVALID` or `CRL_MISSING` where the memory of lists is damaged.
pub fn check_clock(site: &Site, now: Timestamp) -> Result<(), Stopped> {
    let layout = site.layout();
    let seen = Seen::open(layout.crl_seen()).map_err(stopped)?;
    // Not even then, if the issuer has taken that time back.
    seen.check_clock(now)
        .or_else(|_| seen.current(&layout.recipe_crl(), site.pins(), now).map(drop))
        .map_err(stopped)
}

fn stopped(error: CrlError) -> Stopped {
    let stopped = Stopped::new(error.code(), &error);
    match error.code() {
        Code::CrlExpired => stopped.hint("publish a fresh list with `countersign crl publish`"),
        Code::ClockBackward => stopped.hint(CLOCK_HINT),
        _ => stopped,
    }
}

/// What to do about `CLOCK_BACKWARD`.
pub const CLOCK_HINT: &str = "set this clock right; if it is right, the list was issued under a clock that was ahead: \
     `countersign crl publish --clock-was-ahead` takes that back";

/// Asks the site's current list, which must be authentic, fresh and not older than one seen before.
///
/// # Errors
/// The codes of [`crl::CrlError`], and `REVOKED`.
pub(super) fn ask(site: &Site, selectors: &[Selector], now: Timestamp) -> Result<Clear, Stopped> {
    ask_at_least(site, selectors, 0, now)
}

/// As [`ask`], with a list of at least the given number.
///
/// # Errors
/// As [`ask`]; `CRL_ROLLBACK` if the list is older.
pub fn ask_at_least(
    site: &Site,
    selectors: &[Selector],
    number: u64,
    now: Timestamp,
) -> Result<Clear, Stopped> {
    let layout = site.layout();
    let list = Seen::open(layout.crl_seen())
        .and_then(|seen| seen.current(&layout.recipe_crl(), site.pins(), now))
        .map_err(stopped)?;
    list.require_number(number).map_err(stopped)?;
    list.check_all(selectors).map_err(|revoked| Stopped::new(revoked.code(), &revoked))
}
