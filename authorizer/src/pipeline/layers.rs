//! The site's layers: exactly those that a published authorization names. What else lies there is of a run that was killed
//! or failed between keeping its layers and publishing, or of an authorization that was replaced.
//!
//! A machine that runs on a layer holds it open, and does not notice that its name is gone.

use std::fs;
use std::io;
use std::path::Path;

use recipe_spec::Sha256Digest;

use super::build::Layer;
use crate::publication;
use crate::site::{LAYER_SUFFIX, Site, SiteLock};
use crate::stopped::Stopped;

/// Moves layers into the site's store. They stay only if an authorization that names them is published before the lock is
/// let go of.
pub(super) fn keep(layers: &[Layer], site: &Site, _lock: &SiteLock) -> Result<(), Stopped> {
    let store = site.layout().layers();
    fs::create_dir_all(&store).map_err(|error| Stopped::io("make", &store, &error))?;
    for layer in layers {
        let path = site.layout().layer(layer.sha256);
        fs::rename(&layer.path, &path).map_err(|error| Stopped::io("keep a layer as", &path, &error))?;
    }
    let flushed = fs::File::open(&store).and_then(|folder| folder.sync_all());
    flushed.map_err(|error| Stopped::io("flush", &store, &error))
}

/// Removes every layer that no published authorization names, and says how many. Where one of those cannot be read, nothing is
/// removed. Who holds the site's lock is the only one who keeps layers.
pub(super) fn sweep(site: &Site, lock: &SiteLock) -> Result<usize, Stopped> {
    let store = site.layout().layers();
    let found = match fs::read_dir(&store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        found => found.map_err(|error| Stopped::io("read", &store, &error))?,
    };
    let named = publication::layers_untrusted(&lock.authorizations())?;
    let mut swept = 0;
    for entry in found {
        let path = entry.map_err(|error| Stopped::io("read", &store, &error))?.path();
        if digest(&path).is_some_and(|layer| !named.contains(&layer)) {
            fs::remove_file(&path).map_err(|error| Stopped::io("remove", &path, &error))?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// The digest in a layer's name; none of what is no layer.
fn digest(path: &Path) -> Option<Sha256Digest> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(LAYER_SUFFIX)?.strip_suffix('.')?.parse().ok()
}
