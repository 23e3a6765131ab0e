//! Programs and libraries of the base: there, as they were, and nothing of their name where it would be found before them.

use std::collections::{BTreeMap, HashSet};

use disk::{Kind, Node, What};
use serde::{Deserialize, Serialize};

use super::super::complaints::shown;
use super::super::declarations::{By, Standing};
use super::super::pattern::{self, Pattern};
use super::{Check, Evidence, Sees};

/// Where programs and libraries lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramsConfig {
    /// Where every file of the base must be as it was.
    pub unchanged: Vec<Pattern>,
    /// Exceptions: what packages write anew when another is installed, such as caches and indexes.
    pub allow: Vec<Pattern>,
    /// Where programs are looked for by name.
    pub search: Vec<Pattern>,
    /// Where libraries are looked for by name.
    pub libraries: Vec<Pattern>,
    /// Where the libraries of the loader's cache may lie.
    pub cached: Vec<Pattern>,
    /// Folders that are searched for the same relative path, one set for each language: modules of Perl.
    pub trees: Vec<Vec<String>>,
    /// Below these no library has the name of one of the base: the loader looks into folders beside a library that are named by the
    /// processor (`glibc-hwcaps`, `tls`), and each program may name folders of its own.
    pub shared: Vec<Pattern>,
    /// Files and folders of the base that packages may take away or make something else: caches.
    pub may_go: Vec<Pattern>,
}

pub(super) const CHECK: Check = Check {
    name: "programs",
    sees: Sees::Files,
    lists: &[],
    run: |evidence, config, complaints| {
        let config = &config.programs;
        let twins = [Names::of(evidence, &config.search), Names::of(evidence, &config.libraries)];
        let libraries = Names::of(evidence, &config.shared);
        let base: HashSet<&str> = evidence.base_paths.iter().map(String::as_str).collect();
        for change in &evidence.changes.changes {
            if pattern::any(&config.allow, &change.path)
                || is_the_sites(evidence, &change.path, change.after.as_ref())
            {
                continue;
            }
            match (&change.before, &change.after) {
                (Some(before), after)
                    if !pattern::any(&config.unchanged, &change.path)
                        && !pattern::any(&config.may_go, &change.path)
                        && (change.what() == What::Kind
                            || (after.is_none() && before.kind == Kind::Directory)) =>
                {
                    complaints.add(
                        &change.path,
                        "is of the base and is gone, or something else than it was",
                        "leave folders and links of the base as they are",
                    );
                }
                (Some(_), _) if !pattern::any(&config.unchanged, &change.path) => {}
                (Some(before), None) if before.kind != Kind::Directory => {
                    complaints.add(
                        &change.path,
                        "is of the base and is gone",
                        "leave programs of the base alone",
                    );
                }
                // Owner and mode are another check's.
                (Some(_), Some(_)) if matches!(change.what(), What::Content | What::Kind) => {
                    complaints.add(
                        &change.path,
                        "is of the base and has other content",
                        "bring programs of your own under names of their own; for newer packages, the site builds a newer base",
                    );
                }
                (None, Some(after)) if matches!(after.kind, Kind::File | Kind::Link) => {
                    let named = twins.iter().filter_map(|names| names.twin(&change.path).map(str::to_owned));
                    let library = is_library(&change.path).then(|| libraries.twin(&change.path)).flatten();
                    let twins = named.chain(library.map(str::to_owned));
                    for twin in twins.chain(twin_in_trees(&config.trees, &change.path, &base)).take(1) {
                        complaints.add(
                            &change.path,
                            format_args!(
                                "has the name of {} of the base and may be found in its place",
                                shown(&twin)
                            ),
                            "give it a name of its own",
                        );
                    }
                    if let Some(package) = package_of_script(&change.path)
                        && base.contains(format!("{PACKAGES}{package}.list").as_str())
                    {
                        complaints.add(
                            &change.path,
                            "is a script of a package of the base that has none",
                            "leave packages of the base alone",
                        );
                    }
                }
                _ => {}
            }
        }
    },
};

/// Where dpkg keeps the scripts of packages, and a `.list` for each package.
const PACKAGES: &str = "/var/lib/dpkg/info/";

/// The package that dpkg takes this file for a script of (dpkg(1), deb-preinst(5)).
fn package_of_script(path: &str) -> Option<&str> {
    let (package, kind) = path.strip_prefix(PACKAGES)?.rsplit_once('.')?;
    matches!(kind, "preinst" | "postinst" | "prerm" | "postrm" | "config" | "triggers").then_some(package)
}

/// The base's file that has the same place in another folder of the same set.
fn twin_in_trees(trees: &[Vec<String>], path: &str, base: &HashSet<&str>) -> Option<String> {
    trees.iter().find_map(|roots| {
        let place = roots.iter().find_map(|root| path.strip_prefix(root.as_str())?.strip_prefix('/'))?;
        // Perl takes what is compiled before its source (perlfunc(1), require).
        let source = place.strip_suffix('c').filter(|source| source.ends_with(".pm"));
        let places = roots.iter().flat_map(|root| {
            [Some(place), source].into_iter().flatten().map(move |place| format!("{root}/{place}"))
        });
        places.into_iter().find(|other| base.contains(other.as_str()))
    })
}

fn is_the_sites(evidence: &Evidence<'_>, path: &str, after: Option<&Node>) -> bool {
    after.is_some_and(|after| {
        let digest = after.sha256.map(|digest| digest.to_hex());
        let standing = evidence.declared.standing(path, digest.as_deref(), after.target.as_deref());
        standing == Standing::Declared(By::Site)
    })
}

/// What the base has in folders that are searched by name.
struct Names<'a> {
    folders: &'a [Pattern],
    base: BTreeMap<&'a str, &'a str>,
}

impl<'a> Names<'a> {
    fn of(evidence: &Evidence<'a>, folders: &'a [Pattern]) -> Self {
        let paths = evidence.base_paths.iter().map(String::as_str);
        let base = paths.filter(|path| pattern::any(folders, path)).map(|path| (name(path), path)).collect();
        Self { folders, base }
    }

    /// The base's file of the same name, if `path` is searched too.
    fn twin(&self, path: &str) -> Option<&'a str> {
        pattern::any(self.folders, path).then(|| self.base.get(name(path)).copied()).flatten()
    }
}

fn is_library(path: &str) -> bool {
    let name = name(path);
    name.ends_with(".so") || name.contains(".so.")
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use disk::{Kind, Node};

    use crate::suite::fixture::{Machine, change, node};

    #[test]
    fn a_program_of_the_base_is_as_it_was() {
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/usr/sbin/nginx", None, Some(node("nginx"))));
        machine.disk.changes.push(change("/var/lib/dpkg/status", Some(node("a")), Some(node("b"))));
        machine.passes("programs", "", "");
        machine.disk.changes.push(change("/usr/sbin/sshd", Some(node("a")), Some(node("b"))));
        machine.fails("programs", "", "", "/usr/sbin/sshd: is of the base and has other content");
        machine.disk.changes[2] = change("/usr/lib/x86_64-linux-gnu/libpam.so.0", Some(node("a")), None);
        machine.fails("programs", "", "", "gone");
    }

    #[test]
    fn nothing_is_found_in_place_of_the_bases_own() {
        for (own, other) in [
            ("/usr/bin/ls", "/usr/local/sbin/ls"),
            ("/usr/sbin/sshd", "/usr/local/bin/sshd"),
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/local/lib/libc.so.6"),
            (
                "/usr/lib/x86_64-linux-gnu/libc.so.6",
                "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libc.so.6",
            ),
        ] {
            let mut machine = Machine::base();
            machine.base_paths.push(own.to_owned());
            machine.disk.changes.push(change(other, None, Some(node("x"))));
            machine.fails("programs", "", "", own);
        }
        let mut machine = Machine::base();
        machine.base_paths.push("/usr/bin/ls".to_owned());
        machine.disk.changes.push(change("/opt/own/ls", None, Some(node("x"))));
        machine.disk.changes.push(change("/usr/local/bin/own", None, Some(node("x"))));
        machine.passes("programs", "", "");
    }

    #[test]
    fn the_links_of_the_root_folder_lead_where_they_led() {
        let to = |target: &str| Node {
            kind: Kind::Link,
            sha256: None,
            target: Some(target.to_owned()),
            ..node("")
        };
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/sbin", Some(to("usr/sbin")), Some(to("opt/s"))));
        machine.fails("programs", "", "", "/sbin");
    }

    #[test]
    fn a_module_has_not_the_place_of_one_of_the_base() {
        let mut machine = Machine::base();
        machine.base_paths.push("/usr/lib/x86_64-linux-gnu/perl-base/strict.pm".to_owned());
        machine.disk.changes.push(change("/usr/share/perl5/Own/strict.pm", None, Some(node("x"))));
        machine.disk.changes.push(change("/opt/perl5/strict.pm", None, Some(node("x"))));
        machine.passes("programs", "", "");
        machine.disk.changes.push(change("/usr/share/perl5/strict.pm", None, Some(node("x"))));
        machine.fails("programs", "", "", "/usr/share/perl5/strict.pm");
    }

    #[test]
    fn a_package_of_the_base_gets_no_script() {
        let mut machine = Machine::base();
        machine.base_paths.push("/var/lib/dpkg/info/hostname.list".to_owned());
        machine.disk.changes.push(change("/var/lib/dpkg/info/nginx.prerm", None, Some(node("x"))));
        machine.passes("programs", "", "");
        machine.disk.changes.push(change("/var/lib/dpkg/info/hostname.prerm", None, Some(node("x"))));
        machine.fails("programs", "", "", "/var/lib/dpkg/info/hostname.prerm");
    }

    #[test]
    fn a_library_of_the_base_has_no_namesake_however_deep() {
        for path in [
            "/usr/lib/x86_64-linux-gnu/systemd/tls/x86_64/x86_64/libsystemd-shared-252.so",
            "/usr/libexec/sudo/tls/x86_64/libsystemd-shared-252.so",
            "/usr/local/lib/own/a/b/c/libsystemd-shared-252.so",
        ] {
            let mut machine = Machine::base();
            machine.base_paths.push("/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so".to_owned());
            machine.disk.changes.push(change("/usr/lib/own/libown.so.1", None, Some(node("x"))));
            machine.passes("programs", "", "");
            machine.disk.changes.push(change(path, None, Some(node("x"))));
            machine.fails("programs", "", "", path);
        }
    }

    #[test]
    fn what_perl_takes_first_is_a_twin_too() {
        let mut machine = Machine::base();
        machine.base_paths.push("/usr/lib/x86_64-linux-gnu/perl-base/strict.pm".to_owned());
        let path = "/usr/lib/x86_64-linux-gnu/perl-base/strict.pmc";
        machine.disk.changes.push(change(path, None, Some(node("x"))));
        machine.fails("programs", "", "", path);
    }

    #[test]
    fn a_folder_of_the_base_stays_one() {
        let folder = || Node { kind: Kind::Directory, sha256: None, ..node("") };
        let link = Node { kind: Kind::Link, sha256: None, target: Some("/etc".to_owned()), ..node("") };
        let with = |path: &str, after: Option<Node>| {
            let mut machine = Machine::base();
            machine.disk.changes.push(change(path, Some(folder()), after));
            machine
        };
        with("/home", Some(link.clone())).fails("programs", "", "", "/home");
        with("/var/log/audit", None).fails("programs", "", "", "/var/log/audit");
        with("/var/log/audit", Some(link)).fails("programs", "", "", "/var/log/audit");
        with("/var/lib/apt/lists/partial", None).passes("programs", "", "");
    }
}
