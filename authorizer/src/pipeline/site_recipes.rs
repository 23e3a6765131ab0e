//! The site's own recipes and its test suite, as they lie in its folder.

use recipe_spec::{Code, Limits, Recipe, Sha256Digest, Timestamp};

use super::revocation::{ask, selectors_of_site};
use crate::base::VerifiedBase;
use crate::intake;
use crate::regular_file;
use crate::site::Site;
use crate::stopped::Stopped;
use crate::suite::SuiteConfig;

/// The site's recipes in the order in which they are applied. They need no signature: who may write the site's folder
/// is the site.
pub(super) fn load(site: &Site) -> Result<Vec<Recipe>, Stopped> {
    site.site_recipes()
        .map(|folder| {
            let files = intake::read_folder(&folder, &Limits::STANDARD)?;
            Recipe::from_payload(files.payload, &Limits::STANDARD).map_err(|error| {
                Stopped::new(error.code(), format!("site recipe {}: {error}", folder.display()))
                    .details(error.report(false))
            })
        })
        .collect()
}

/// As [`load`], where neither they nor the base are revoked.
pub(super) fn load_unrevoked(
    site: &Site,
    base: &VerifiedBase,
    now: Timestamp,
) -> Result<Vec<Recipe>, Stopped> {
    let recipes = load(site)?;
    let _clear = ask(site, &selectors_of_site(base, &recipes), now)?;
    Ok(recipes)
}

/// Longest suite file that is read, in bytes.
const MAX_SUITE: u64 = 1 << 20;

/// The configuration of the site's security tests, and the digest of the bytes that it was read from.
pub(super) fn suite(site: &Site) -> Result<(SuiteConfig, Sha256Digest), Stopped> {
    let path = site.suite();
    let bytes = regular_file::read(&path, MAX_SUITE).map_err(|error| Stopped::io("read", &path, &error))?;
    let digest = Sha256Digest::of(&bytes);
    let text = String::from_utf8(bytes).map_err(Stopped::internal)?;
    let suite = SuiteConfig::parse(&text)
        .map_err(|error| Stopped::new(Code::HostFailed, format!("{}: {error}", path.display())))?;
    Ok((suite, digest))
}
