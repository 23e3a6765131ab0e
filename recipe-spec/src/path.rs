//! Paths that cannot lead astray: one kind within the recipe's folder, one within the machine.

use crate::limits::Limits;
use crate::text::{Malformed, checked_text, misleads};

/// The longest name in a path (`NAME_MAX`), in bytes.
const NAME_BYTES: usize = 255;
/// The longest path in the machine, in bytes; well below `PATH_MAX`, so that tools may add to it.
const GUEST_PATH_BYTES: usize = 1024;

/// Names of the folder that git keeps to itself, the second for a file system with short names. Git and libgit2 take no entry
/// of such a name into a tree (`core.protectNTFS`).
const GIT_FOLDER: [&str; 2] = [".git", "git~1"];

/// Where no step of a recipe may write: what the kernel shows there is no file, and the last is ours.
/// `/var/run` is a link to `/run`.
const KEPT_FROM_RECIPES: [&str; 5] = ["/proc", "/sys", "/dev", "/run/countersign", "/var/run/countersign"];

checked_text! {
    /// A file within a recipe's folder: relative, `/` between names, no `.` or `..`, no backslash, no control or
    /// invisible character, no name that [git takes for `.git`](means_git). Its order is that of its bytes.
    RecipePath, check_recipe_path
}

checked_text! {
    /// A place in the machine: absolute and normalised, and neither `/` itself nor below `/proc`, `/sys`, `/dev` or
    /// `/run/countersign`.
    GuestPath, check_guest_path
}

impl RecipePath {
    /// The folders above it, outermost first: `a` and `a/b` for `a/b/c`.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.as_str().match_indices('/').map(|(at, _)| &self.as_str()[..at])
    }

    /// The last name.
    pub fn file_name(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or_default()
    }
}

impl GuestPath {
    /// The folder it lies in, `/` included.
    pub fn folder(&self) -> &str {
        match self.as_str().rfind('/') {
            None | Some(0) => "/",
            Some(at) => &self.as_str()[..at],
        }
    }

    /// The last name.
    pub fn file_name(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or_default()
    }
}

/// True for a name that is `.git` on some file system: in capitals, as its short name, with dots and spaces at its end, or as
/// a stream of it (`.git:x`). What HFS+ leaves out of names is refused in every path, see [`crate::text::misleads`].
pub fn means_git(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    GIT_FOLDER.iter().any(|folder| {
        name.strip_prefix(folder).is_some_and(|rest| {
            let rest = rest.trim_start_matches(['.', ' ']);
            rest.is_empty() || rest.starts_with(':')
        })
    })
}

fn check_recipe_path(text: &str) -> Result<(), Malformed> {
    let malformed = |rule| Err(Malformed::new("a path within the recipe", text, rule));
    let limits = Limits::STANDARD;
    if text.is_empty() {
        return malformed("name a file");
    }
    if text.starts_with('/') {
        return malformed("it must be relative to the recipe's folder");
    }
    if text.contains('\\') {
        return malformed("use `/` between names, and no backslash");
    }
    if text.len() > limits.path_bytes {
        return malformed("it is longer than 512 bytes");
    }
    if text.split('/').count() > limits.path_depth {
        return malformed("it has more than 16 names");
    }
    if text.split('/').any(means_git) {
        return malformed("no name that git takes for `.git`, it could not be published");
    }
    check_names(text).or_else(malformed)
}

fn check_guest_path(text: &str) -> Result<(), Malformed> {
    let malformed = |rule| Err(Malformed::new("a path in the machine", text, rule));
    let Some(names) = text.strip_prefix('/') else {
        return malformed("it must be absolute: begin with `/`");
    };
    if names.is_empty() {
        return malformed("the root itself cannot be meant");
    }
    if text.len() > GUEST_PATH_BYTES {
        return malformed("it is longer than 1024 bytes");
    }
    check_names(names).or_else(malformed)?;
    let below =
        |folder: &str| text.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if KEPT_FROM_RECIPES.iter().any(|folder| below(folder)) {
        return malformed("`/proc`, `/sys`, `/dev` and `/run/countersign` are not a recipe's");
    }
    Ok(())
}

fn check_names(names: &str) -> Result<(), &'static str> {
    for name in names.split('/') {
        match name {
            "" => return Err("no `//`, and no `/` at the end"),
            "." | ".." => return Err("no `.` and no `..`"),
            name if name.len() > NAME_BYTES => return Err("a name in it is longer than 255 bytes"),
            name if name.chars().any(misleads) => return Err("no control characters and no invisible ones"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_recipe_path_stays_in_the_folder() {
        for right in ["recipe.toml", "files/a b", "a/.hidden", "..a", "é"] {
            assert!(right.parse::<RecipePath>().is_ok(), "{right}");
        }
        let long_name = "x".repeat(256);
        let deep = "d/".repeat(16) + "f";
        let long = vec!["x".repeat(200); 3].join("/");
        for wrong in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a/..",
            "..",
            ".",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{202e}b",
            "a\u{200b}",
            &long_name,
            &deep,
            &long,
        ] {
            assert!(wrong.parse::<RecipePath>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_name_in_a_recipe_is_one_that_git_takes_for_its_own() {
        for name in [
            ".git",
            ".GIT",
            ".gIt",
            ".git.",
            ".git ",
            ".git . .",
            "git~1",
            "GIT~1",
            "git~1.",
            "git~1 ",
            ".git:",
            ".git::$INDEX_ALLOCATION",
            ".git .:x",
            "Git~1:x",
            ".g\u{200c}it",
            ".git\u{feff}",
        ] {
            for path in [name.to_owned(), format!("files/{name}"), format!("files/{name}/config")] {
                assert!(path.parse::<RecipePath>().is_err(), "{path:?}");
            }
        }
        for right in [
            ".gitignore",
            ".gitattributes",
            ".git-x",
            ".git x",
            ".git.x",
            ".git~1",
            "git",
            "git~2",
            "git~10",
            "git~1x",
            "x.git",
            "x.git/config",
        ] {
            assert!(right.parse::<RecipePath>().is_ok(), "{right}");
        }
        // A machine may have repositories.
        assert!("/srv/x/.git/config".parse::<GuestPath>().is_ok());
    }

    proptest! {
        #[test]
        fn however_git_is_written_it_is_known(
            name in "(\\.[gG][iI][tT]|[gG][iI][tT]~1)[. ]{0,6}(:[a-z.$ ]{0,6})?",
            before in "([a-z]{1,4}/){0,3}",
            after in "(/[a-z]{1,4}){0,3}",
        ) {
            let path = format!("{before}{name}{after}");
            prop_assert!(path.parse::<RecipePath>().is_err(), "{:?}", path);
        }
    }

    #[test]
    fn paths_are_ordered_by_their_bytes() {
        let mut paths: Vec<RecipePath> =
            ["a/b", "a-b", "a.b", "B", "é", "z"].map(|path| path.parse().unwrap()).into();
        paths.sort();
        assert_eq!(paths, ["B", "a-b", "a.b", "a/b", "z", "é"]);
    }

    #[test]
    fn a_guest_path_is_a_recipes_to_write() {
        for right in [
            "/etc",
            "/opt/x",
            "/procedure",
            "/device/x",
            "/run/secrets/x",
            "/run/countersigned",
            "/etc/a\\x2db",
        ] {
            assert!(right.parse::<GuestPath>().is_ok(), "{right}");
        }
        let long = format!("/{}", "x/".repeat(600)) + "y";
        for wrong in [
            "",
            "/",
            "etc",
            "//etc",
            "/etc/",
            "/etc//x",
            "/etc/../x",
            "/.",
            "/proc",
            "/proc/1/mem",
            "/sys/x",
            "/dev/sda",
            "/run/countersign",
            "/run/countersign/declared.json",
            "/var/run/countersign/x",
            "/a\nb",
            &long,
        ] {
            assert!(wrong.parse::<GuestPath>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn folders_and_names() {
        let path: RecipePath = "a/b/c".parse().unwrap();
        assert_eq!(path.folders().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(path.file_name(), "c");
        let path: GuestPath = "/etc/x".parse().unwrap();
        assert_eq!((path.folder(), path.file_name()), ("/etc", "x"));
        assert_eq!("/etc".parse::<GuestPath>().unwrap().folder(), "/");
    }

    #[test]
    fn the_messages_say_the_limits_in_force() {
        let deep = "d/".repeat(Limits::STANDARD.path_depth) + "f";
        let error = deep.parse::<RecipePath>().unwrap_err();
        assert!(error.rule.contains(&Limits::STANDARD.path_depth.to_string()), "{error}");
        let long = format!("{}/x", vec!["x".repeat(200); 3].join("/"));
        let error = long.parse::<RecipePath>().unwrap_err();
        assert!(error.rule.contains(&Limits::STANDARD.path_bytes.to_string()), "{error}");
        let error = format!("/{long}/{long}").parse::<GuestPath>().unwrap_err();
        assert!(error.rule.contains(&GUEST_PATH_BYTES.to_string()), "{error}");
    }
}
