//! Publishing into real repositories, read back by this module and by git itself.

use std::path::PathBuf;
use std::time::Duration;

use git2::{FileMode, Signature, Time};
use recipe_spec::{Code, Limits};

use super::shelf::BRANCH;
use super::*;
use crate::site::Layout;

struct Fixture {
    _folder: tempfile::TempDir,
    lock: SiteLock,
    name: RecipeName,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        std::fs::create_dir(layout.state()).unwrap();
        init(&layout.authorizations()).unwrap();
        let lock = SiteLock::acquire(&layout, Duration::ZERO).unwrap();
        Self { _folder: folder, lock, name: "atlas/web".parse().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.lock.authorizations()
    }

    fn publish(&self, version: &str, files: &[(&str, &str)]) -> Result<String, PublicationError> {
        let now = Timestamp::from_unix(1_795_395_723);
        publish(&self.lock, &self.name, &version.parse().unwrap(), &contents(files), "authorize", now)
    }

    fn lookup(&self, version: Option<&str>) -> Result<Published, PublicationError> {
        lookup(&self.path(), &self.name, version.map(|version| version.parse().unwrap()).as_ref())
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output =
            std::process::Command::new("git").arg("-C").arg(self.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn contents(files: &[(&str, &str)]) -> Files {
    files
        .iter()
        .map(|(path, text)| {
            let executable = path.ends_with(".sh");
            (path.parse().unwrap(), PayloadFile { bytes: text.as_bytes().to_vec(), executable })
        })
        .collect()
}

const FILES: &[(&str, &str)] = &[
    (AUTHORIZATION_FILE, "{}\n"),
    ("evidence/scan.json", "[]"),
    ("recipe/recipe.toml", "x"),
    ("recipe/scripts/a.sh", "#!/bin/sh"),
];

#[test]
fn what_is_published_is_read_back_and_git_reads_it_too() {
    let fixture = Fixture::new();
    let commit = fixture.publish("1.4.0", FILES).unwrap();
    let published = fixture.lookup(None).unwrap();
    assert_eq!((&published.commit, &published.version), (&commit, &Version::new(1, 4, 0)));
    assert_eq!(published.files, contents(FILES));
    assert_eq!(published.file(AUTHORIZATION_FILE), Some(&b"{}\n"[..]));
    assert_eq!(published.file("../x"), None);
    fixture.git(&["fsck", "--strict"]);
    assert_eq!(
        fixture.git(&["ls-tree", "-r", "main", "--format=%(objectmode) %(path)"]).lines().collect::<Vec<_>>(),
        [
            "100644 atlas/web/1.4.0/authorization.intoto.jsonl",
            "100644 atlas/web/1.4.0/evidence/scan.json",
            "100644 atlas/web/1.4.0/recipe/recipe.toml",
            "100755 atlas/web/1.4.0/recipe/scripts/a.sh"
        ]
    );
}

#[test]
fn each_publication_is_one_commit_on_the_one_before_and_other_versions_stay() {
    let fixture = Fixture::new();
    let first = fixture.publish("1.4.0", FILES).unwrap();
    let second = fixture.publish("1.10.0", &[(AUTHORIZATION_FILE, "b")]).unwrap();
    assert_eq!(fixture.git(&["log", "--format=%H", "main"]).lines().collect::<Vec<_>>(), [second, first]);
    assert_eq!(fixture.lookup(Some("1.4.0")).unwrap().files, contents(FILES));
    assert_eq!(fixture.lookup(None).unwrap().version, Version::new(1, 10, 0));
    fixture.publish("1.10.0", &[(AUTHORIZATION_FILE, "again")]).unwrap();
    assert_eq!(fixture.lookup(None).unwrap().files, contents(&[(AUTHORIZATION_FILE, "again")]));
    fixture.publish("2.0.0-rc.1", FILES).unwrap();
    fixture.publish("1.9.0", FILES).unwrap();
    let listed = list(&fixture.path()).unwrap();
    let versions: Vec<_> = listed.iter().map(|(name, version)| format!("{name} {version}")).collect();
    assert_eq!(versions, ["atlas/web 1.4.0", "atlas/web 1.9.0", "atlas/web 1.10.0", "atlas/web 2.0.0-rc.1"]);
}

#[test]
fn what_was_never_published_is_not_authorized() {
    let fixture = Fixture::new();
    assert_eq!(list(&fixture.path()).unwrap(), []);
    assert_eq!(fixture.lookup(None).unwrap_err().code(), Some(Code::NotAuthorized));
    fixture.publish("1.4.0", FILES).unwrap();
    let error = fixture.lookup(Some("1.5.0")).unwrap_err();
    assert_eq!(error.to_string(), "atlas/web@1.5.0 is not authorized at this site");
    let other = lookup(&fixture.path(), &"atlas/other".parse().unwrap(), None).unwrap_err();
    assert_eq!(other.code(), Some(Code::NotAuthorized));
}

#[test]
fn a_reference_that_moved_meanwhile_is_not_overwritten() {
    let fixture = Fixture::new();
    let first = fixture.publish("1.4.0", FILES).unwrap();
    let second = fixture.publish("1.5.0", FILES).unwrap();
    let shelf = Shelf::open(&fixture.path()).unwrap();
    let (first, second): (Oid, Oid) = (first.parse().unwrap(), second.parse().unwrap());
    let stale = shelf.repository.reference_matching(BRANCH, first, true, first, "stale");
    assert_eq!(stale.err().unwrap().code(), ErrorCode::Modified);
    assert_eq!(shelf.tip().unwrap(), Some(second));
}

#[test]
fn what_a_kill_leaves_behind_changes_nothing_and_stops_nothing() {
    let fixture = Fixture::new();
    let first = fixture.publish("1.4.0", FILES).unwrap();
    let shelf = Shelf::open(&fixture.path()).unwrap();
    shelf.repository.blob(b"an object that nothing names").unwrap();
    std::fs::write(fixture.path().join("refs/heads/main.lock"), "").unwrap();
    assert_eq!(fixture.lookup(None).unwrap().commit, first);
    fixture.publish("1.5.0", FILES).unwrap();
    assert_eq!(fixture.lookup(None).unwrap().version, Version::new(1, 5, 0));
}

#[test]
fn the_same_publication_is_the_same_commit_anywhere() {
    assert_eq!(
        Fixture::new().publish("1.4.0", FILES).unwrap(),
        Fixture::new().publish("1.4.0", FILES).unwrap()
    );
}

#[test]
fn too_much_is_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    let many: Vec<_> = (0..=super::FILES).map(|number| format!("evidence/{number}")).collect();
    let many: Vec<_> = many.iter().map(|path| (path.as_str(), "")).collect();
    assert!(matches!(fixture.publish("1.0.0", &many), Err(PublicationError::TooLarge { .. })));
    assert_eq!(list(&fixture.path()).unwrap(), []);
}

#[test]
fn the_deepest_and_the_longest_path_of_a_recipe_can_be_published() {
    let limits = Limits::STANDARD;
    let deepest = format!("recipe/{}f", "d/".repeat(limits.path_depth - 1));
    let longest = format!("recipe/{}", ["x".repeat(170), "y".repeat(170), "z".repeat(170)].join("/"));
    assert_eq!(longest.len(), "recipe/".len() + limits.path_bytes);
    let files = [(AUTHORIZATION_FILE, "{}\n"), (deepest.as_str(), "d"), (longest.as_str(), "l")];
    let fixture = Fixture::new();
    fixture.publish("1.4.0", &files).unwrap();
    let published = fixture.lookup(None).unwrap();
    assert_eq!(published.files, contents(&files));
    assert_eq!(published.file(&deepest), Some(&b"d"[..]));
    for wrong in [
        deepest.replace("recipe/", "recipe/d/"),
        format!("{longest}z"),
        deepest.replace("recipe/", "evidence/"),
        "recipe/".to_owned(),
        "recipe//f".to_owned(),
        "recipe/../f".to_owned(),
        "../recipe/f".to_owned(),
    ] {
        assert!(wrong.parse::<PublishedPath>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_staged_is_not_published_yet() {
    let fixture = Fixture::new();
    let first = fixture.publish("1.4.0", FILES).unwrap();
    let staged = stage(&fixture.lock, &contents(&[(AUTHORIZATION_FILE, "b")])).unwrap();
    assert_eq!(fixture.lookup(None).unwrap().commit, first);
    let now = Timestamp::from_unix(1_795_395_723);
    let commit =
        staged.publish(&fixture.lock, &fixture.name, &Version::new(1, 5, 0), "authorize", now).unwrap();
    let published = fixture.lookup(None).unwrap();
    assert_eq!((published.commit, published.version), (commit, Version::new(1, 5, 0)));
    assert_eq!(published.files, contents(&[(AUTHORIZATION_FILE, "b")]));
}

#[test]
fn git_refuses_no_name_that_a_recipe_may_have() {
    let fixture = Fixture::new();
    let shelf = Shelf::open(&fixture.path()).unwrap();
    let blob = shelf.repository.blob(b"x").unwrap();
    let mut folder = shelf.repository.treebuilder(None).unwrap();
    let mut refused = 0;
    for name in
        [".git", ".GiT", "git~1", "GIT~1", "git~2", "git", "x.git", ".gitx", ".gi\u{200d}t", "..", "."]
    {
        for end in ["", ".", " ", ". .", ":", ":x", " :x", "x", " x", ".x", "~1", "\\", "\\x"] {
            let name = format!("{name}{end}");
            if folder.insert(name.as_str(), blob, FileMode::Blob.into()).is_ok() {
                continue;
            }
            refused += 1;
            for path in [format!("recipe/{name}"), format!("recipe/files/{name}"), format!("recipe/{name}/x")]
            {
                assert!(path.parse::<PublishedPath>().is_err(), "{path:?}");
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_link_in_the_repository_is_damage() {
    let fixture = Fixture::new();
    fixture.publish("1.4.0", FILES).unwrap();
    let shelf = Shelf::open(&fixture.path()).unwrap();
    let blob = shelf.repository.blob(b"/etc/passwd").unwrap();
    let mut folder = shelf.repository.treebuilder(None).unwrap();
    folder.insert(AUTHORIZATION_FILE, blob, FileMode::Link.into()).unwrap();
    let folder = folder.write().unwrap();
    let (tip, root) = shelf.root().unwrap().unwrap();
    let tree = shelf.graft(Some(&root), &["atlas", "web", "1.4.0"], folder).unwrap();
    let who = Signature::new("x", "x@localhost", &Time::new(0, 0)).unwrap();
    let parent = shelf.repository.find_commit(tip).unwrap();
    let tree = shelf.repository.find_tree(tree).unwrap();
    shelf.repository.commit(Some(BRANCH), &who, &who, "x", &tree, &[&parent]).unwrap();
    assert!(matches!(fixture.lookup(None), Err(PublicationError::Damaged { .. })));
}
