//! Units, drop-ins, generators and links of the service manager.

use std::path::{Path, PathBuf};

use guest::facts::UnitFile;

use super::places::{HOME_UNITS, UNIT_LIBRARIES, UNITS};
use super::small_files::{Reader, display};
use crate::agent::escape::escaped;
use crate::agent::root::Kind;

const NAME: &str = "units";

/// All of them, sorted. `homes` are the accounts' home folders.
pub(super) fn all(reader: &mut Reader<'_>, homes: &[&str]) -> Vec<UnitFile> {
    let mut places: Vec<PathBuf> = UNITS.iter().map(PathBuf::from).collect();
    for library in UNIT_LIBRARIES.iter().map(Path::new) {
        // On a merged system `/lib` is a link, and everything was seen below `/usr/lib`.
        let merged = library.parent().is_some_and(|parent| reader.target(parent).is_ok());
        if !merged {
            let entries = reader.list(NAME, library);
            places.extend(entries.into_iter().filter(|(_, kind)| *kind != Kind::File).map(|(path, _)| path));
        }
    }
    for home in homes.iter().filter(|home| home.starts_with('/')) {
        places.extend(HOME_UNITS.iter().map(|place| Path::new(home).join(place)));
    }
    places.sort();
    places.dedup();
    let mut units = Vec::new();
    for place in places {
        reader.each(NAME, &place, &mut |reader, path| {
            let unit = unit(reader, path);
            reader.push(NAME, &mut units, unit);
        });
    }
    units.sort();
    units
}

fn unit(reader: &mut Reader<'_>, path: &Path) -> UnitFile {
    let mut unit = UnitFile { path: display(path), sha256: None, link: None };
    match reader.target(path) {
        Ok(target) => unit.link = Some(escaped(&target)),
        // Not a link.
        Err(_) => match reader.digest(path) {
            Ok(digest) => unit.sha256 = Some(digest.to_hex()),
            Err(error) => reader.unread(NAME, path, &error),
        },
    }
    unit
}
