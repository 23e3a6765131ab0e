//! The files that were fetched, until something checks them.

use std::collections::{HashMap, HashSet};

use super::{checks_digests, checks_signature};
use crate::action::{Run, Word, WriteFile};

/// Parts of a path up to which it is looked at whether it ends in a relative one.
const PARTS: usize = 64;

/// What lies on the disk as it came from the network. Paths are kept without what says nothing (`./`, `//`).
#[derive(Default)]
pub(super) struct Fetched<'a> {
    unchecked: HashSet<String>,
    /// The same by their last parts: lists of digests mostly lie beside the files that they name.
    by_base: HashMap<String, Vec<String>>,
    /// What the script wrote itself, which may be a list of digests.
    texts: HashMap<String, &'a str>,
}

impl<'a> Fetched<'a> {
    /// A file gets new content.
    pub(super) fn written(&mut self, write: &'a WriteFile) {
        if !write.path.is_known() {
            return;
        }
        let path = plain(&write.path.text);
        if write.provenance.remote {
            self.texts.remove(&path);
            if self.unchecked.insert(path.clone()) {
                self.by_base.entry(base(&path).to_owned()).or_default().push(path);
            }
        } else if let Some(text) = write.content.as_deref() {
            self.texts.insert(path, text);
        }
    }

    /// Whether a path names a file that was fetched and not checked since.
    pub(super) fn holds(&self, path: &str) -> bool {
        if self.unchecked.is_empty() || path.is_empty() {
            return false;
        }
        let path = plain(path);
        self.unchecked.contains(&path) || self.ends(&path).is_some()
    }

    /// The relative path of a fetched file that this path ends in. One that is too short says too little.
    fn ends<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.rmatch_indices('/')
            .take(PARTS)
            .map(|(at, _)| &path[at + 1..])
            .find(|end| end.len() > 3 && self.unchecked.contains(*end))
    }

    /// What this command checks is no longer unchecked. It must name the file: a check of something else says nothing.
    pub(super) fn checked(&mut self, run: &Run) {
        if self.unchecked.is_empty() {
            return;
        }
        if checks_signature(run) {
            for word in run.operands() {
                self.forget(&word.text);
                // `gpg --verify x.sig` means x.
                for end in [".sig", ".asc", ".sign", ".minisig"] {
                    if let Some(signed) = word.text.strip_suffix(end) {
                        self.forget(signed);
                    }
                }
            }
        } else if checks_digests(run) {
            // What is in a list that came with the recipe or the base is not known here, nor which one `xargs` names.
            let unknown = |word: &&Word| {
                let path = plain(&word.text);
                !self.texts.contains_key(&path)
                    && !self.holds(&path)
                    && path != "-"
                    && !path.starts_with("/dev/")
            };
            if run.repeated || run.operands().any(|word| unknown(&word)) {
                self.unchecked.clear();
                self.by_base.clear();
                return;
            }
            // What it names stays checked, so no list is read twice.
            let lists: Vec<&str> =
                run.operands().filter_map(|word| self.texts.remove(&plain(&word.text))).collect();
            let input = run.input.as_ref().and_then(|input| input.text.as_deref());
            for line in lists.into_iter().chain(input).flat_map(str::lines) {
                if let Some(name) = listed(line) {
                    self.forget(name);
                }
            }
        }
    }

    fn forget(&mut self, name: &str) {
        let path = plain(name);
        if !path.contains('/') {
            for there in self.by_base.remove(&path).unwrap_or_default() {
                self.unchecked.remove(&there);
            }
        }
        while let Some(end) = self.ends(&path).map(str::to_owned) {
            self.unchecked.remove(&end);
        }
        self.unchecked.remove(&path);
    }
}

/// The file that a line of a list names: `digest  name`, `digest *name`, `SHA256 (name) = digest`.
fn listed(line: &str) -> Option<&str> {
    let (first, rest) = line.trim().split_once([' ', '\t'])?;
    let rest = rest.trim_start();
    match rest.strip_prefix('(').and_then(|name| name.rsplit_once(") = ")) {
        Some((name, _)) if first.starts_with(|c: char| c.is_ascii_uppercase()) => Some(name),
        _ => Some(rest.trim_start_matches('*')),
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn plain(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    root.to_owned() + &parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_digests_name_files() {
        assert_eq!(listed("ab  /opt/i"), Some("/opt/i"));
        assert_eq!(listed("ab *a b"), Some("a b"));
        assert_eq!(listed("SHA256 (a) = ab"), Some("a"));
        assert_eq!(listed("ab"), None);
    }

    #[test]
    fn paths_are_one_however_they_are_written() {
        assert_eq!(plain("./a//b/./c"), "a/b/c");
        assert_eq!(plain("//a"), "/a");
    }
}
