//! Small files of interest, found on the disk beneath all mounts and in the root as the guest sees it.
//!
//! The disk alone would miss what lies on a tmpfs (`/run/systemd`, or a home that leads there), and the root alone would believe
//! what is mounted over the disk. So all of both is told, and a path that is not the same in both is named as not understood.

use std::collections::HashMap;

use guest::facts::{Facts, SmallFile, UnitFile};

use super::small_files::{Reader, Text};
use super::{Notes, places, sshd, units};
use crate::agent::accounts::Accounts;
use crate::agent::root::Root;

/// What was found in the known places.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) sshd: Vec<SmallFile>,
    pub(super) authorized_keys: Vec<SmallFile>,
    pub(super) sudoers: Vec<SmallFile>,
    pub(super) cron: Vec<SmallFile>,
    pub(super) hooks: Vec<SmallFile>,
    pub(super) units: Vec<UnitFile>,
}

impl Found {
    /// What lies below one root; lists are sorted, but `sshd`.
    pub(super) fn below(root: &Root, accounts: &Accounts, notes: &mut Notes) -> Self {
        let homes: Vec<&str> = accounts.users.iter().map(|user| user.home.as_str()).collect();
        let mut reader = Reader::new(root, notes);
        let sshd = sshd::configuration(&mut reader);
        let authorized_keys = sshd::authorized_keys(&mut reader, &sshd, accounts);
        let sudoers = reader.all("sudoers", places::SUDOERS, Text::Kept);
        let cron = reader.all("cron", places::CRON, Text::Kept);
        let mut hooks = reader.all("hooks", places::HOOKS, Text::Left);
        for file in reader.dot_files("hooks", places::ROOT_HOME) {
            reader.push("hooks", &mut hooks, file);
        }
        hooks.sort();
        let units = units::all(&mut reader, &homes);
        Self { sshd, authorized_keys, sudoers, cron, hooks, units }
    }

    /// Adds what was found to the facts of another look at the same machine.
    pub(super) fn add_to(self, facts: &mut Facts, notes: &mut Notes) {
        unite("sshd", &mut facts.sshd, self.sshd, notes);
        let lists = [
            ("authorizedKeys", &mut facts.authorized_keys, self.authorized_keys),
            ("sudoers", &mut facts.sudoers, self.sudoers),
            ("cron", &mut facts.cron, self.cron),
            ("hooks", &mut facts.hooks, self.hooks),
        ];
        for (name, list, other) in lists {
            unite(name, list, other, notes);
            list.sort();
        }
        unite("units", &mut facts.units, self.units, notes);
        facts.units.sort();
    }
}

/// A fact of one path.
trait AtPath: Clone + PartialEq {
    fn path(&self) -> &str;
    /// Whether `self`, seen on the bare disk, says no less than it must about what is `seen` in the guest's root; takes over
    /// what only the latter can tell.
    fn agrees(&mut self, seen: &Self) -> bool;
}

impl AtPath for SmallFile {
    fn path(&self) -> &str {
        &self.path
    }

    fn agrees(&mut self, seen: &Self) -> bool {
        // A link of the disk to a file on a tmpfs: only the guest's root has the text.
        if self.link.is_some() && self.text.is_none() {
            self.text.clone_from(&seen.text);
        }
        self == seen
    }
}

impl AtPath for UnitFile {
    fn path(&self) -> &str {
        &self.path
    }

    fn agrees(&mut self, seen: &Self) -> bool {
        self == seen
    }
}

/// Adds to `list` what only `other` has.
fn unite<T: AtPath>(name: &str, list: &mut Vec<T>, other: Vec<T>, notes: &mut Notes) {
    let places: HashMap<String, usize> =
        list.iter().enumerate().map(|(place, entry)| (entry.path().to_owned(), place)).collect();
    for entry in other {
        match places.get(entry.path()) {
            None => notes.push(name, list, entry),
            Some(&place) if list[place].agrees(&entry) => {}
            Some(_) => notes.add(format!("{name}: {} is another than on the disk", entry.path())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, sha256: &str, link: Option<&str>, text: Option<&str>) -> SmallFile {
        SmallFile {
            path: path.into(),
            mode: 0o644,
            uid: 0,
            sha256: sha256.into(),
            link: link.map(str::to_owned),
            text: text.map(str::to_owned),
        }
    }

    #[test]
    fn both_are_told_and_a_difference_is_said() {
        let mut list = vec![
            file("/a", "1", None, Some("x")),
            file("/hidden", "2", None, None),
            file("/link", "3", Some("/run/x"), None),
            file("/other", "4", None, Some("x")),
        ];
        let seen = vec![
            file("/a", "1", None, Some("x")),
            file("/link", "3", Some("/run/x"), Some("on a tmpfs")),
            file("/new", "5", None, None),
            file("/other", "6", None, Some("y")),
        ];
        let mut notes = Notes::default();
        unite("cron", &mut list, seen, &mut notes);
        let paths: Vec<_> = list.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/hidden", "/link", "/other", "/new"]);
        assert_eq!(list[2].text.as_deref(), Some("on a tmpfs"));
        assert_eq!(list[3].sha256, "4");
        assert_eq!(notes.0.into_iter().collect::<Vec<_>>(), ["cron: /other is another than on the disk"]);
    }
}
