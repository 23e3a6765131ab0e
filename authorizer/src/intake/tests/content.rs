//! What is taken into a recipe from a repository on this host or a folder, and what is refused.

use super::*;
use signer::limits::MAX_ENVELOPE_BYTES;

#[test]
fn a_repository_on_this_host_gives_the_committed_files_and_not_the_working_tree() {
    let git = web();
    let commit = git.run(&["rev-parse", "HEAD"]);
    git.write("web/recipe.toml", "not committed").write("web/new", "not committed");
    let intake = git.fetch("", Some("web")).unwrap();
    assert_web(&intake, &commit, "web");
    assert_eq!(text(&intake, "recipe.toml"), "one\n");
    assert_eq!(intake.source.uri, format!("git+file://{}", git.top().canonicalize().unwrap().display()));
}

#[test]
fn a_folder_within_a_repository_names_the_recipe_too() {
    let git = web();
    let commit = git.run(&["rev-parse", "HEAD"]);
    let inside = take(&format!("{}/web", git.top().display()), None).unwrap();
    assert_web(&inside, &commit, "web");
    let deeper = take(&format!("{}/web", git.top().display()), Some("files")).unwrap();
    assert_eq!((deeper.source.path.as_str(), text(&deeper, "index.html")), ("web/files", "<p>"));
}

#[test]
fn bare_repositories_and_linked_worktrees_are_repositories() {
    let git = web();
    let commit = git.run(&["rev-parse", "HEAD"]);
    git.run(&["clone", "--quiet", "--bare", ".", "../bare.git"]);
    git.run(&["worktree", "add", "--quiet", "../linked", "-b", "linked"]);
    for name in ["bare.git", "linked"] {
        let intake = take(&git.folder.path().join(name).display().to_string(), Some("web")).unwrap();
        assert_web(&intake, &commit, "web");
    }
}

/// Its objects lie in files of their own, which libgit2 asks access(2) about.
#[test]
fn a_repository_that_only_its_owner_may_enter_is_read_by_root() {
    let git = web();
    let commit = git.run(&["rev-parse", "HEAD"]);
    let owned = Command::new("chown").args(["-R", "61990:61990"]).arg(git.top()).status().unwrap();
    let closed = Command::new("chmod").args(["-R", "go-rwx"]).arg(git.top()).status().unwrap();
    assert!(owned.success() && closed.success(), "this test needs root: it gives files away");
    for revision in ["", "#main", &format!("#{commit}")] {
        assert_eq!(git.fetch(revision, Some("web")).unwrap().source.commit, commit, "{revision}");
    }
}

#[test]
fn links_submodules_and_unusual_modes_are_refused() {
    let git = web();
    symlink("/etc/passwd", git.top().join("web/files/link")).unwrap();
    git.commit();
    assert_eq!(refused(git.fetch("", Some("web"))), ("files/link".to_owned(), "a symbolic link"));
    let daemon = git.serve();
    assert_eq!(refused(take(&daemon.uri(""), Some("web"))).1, "a symbolic link");
    assert_eq!(code(git.fetch("", Some("web"))), Some(Code::BadRecipe));

    let git = web();
    let commit = git.run(&["rev-parse", "HEAD"]);
    git.index("160000", &commit, "web/module");
    git.commit_index();
    assert_eq!(refused(git.fetch("", Some("web"))), ("module".to_owned(), "a submodule"));

    // The folder itself must be a folder too.
    let git = web();
    symlink("web", git.top().join("other")).unwrap();
    git.commit();
    for path in ["other", "other/files", "web/recipe.toml", "none"] {
        assert!(matches!(git.fetch("", Some(path)), Err(IntakeError::NoFolder { .. })), "{path}");
    }
}

#[test]
fn trees_that_git_would_not_write_are_refused() {
    let git = web();
    let blob = git.object("x");
    let tree = git.run(&["rev-parse", "HEAD:web"]);
    let raw = |entries: &[(&str, &[u8], &str)]| {
        commit_raw_tree(&git, entries);
        git.fetch("#raw", None)
    };
    for (mode, name, object) in [
        ("100644", &b".."[..], &blob),
        ("40000", b"..", &tree),
        ("100644", b".", &blob),
        ("100644", b"a/b", &blob),
        ("100644", b"/etc", &blob),
        ("40000", b".git", &tree),
        ("40000", b".GIT", &tree),
        ("40000", b".git.", &tree),
        ("40000", b"GIT~1", &tree),
        ("100644", b"git~1", &blob),
        ("100644", b".git ", &blob),
        ("100644", b".git:x", &blob),
        ("100644", b"\xff", &blob),
        ("100644", b"a\nb", &blob),
        ("100664", b"a", &blob),
        ("100600", b"a", &blob),
        ("20666", b"device", &blob),
        ("100644", b"tree as a file", &tree),
        ("40000", b"file as a tree", &blob),
    ] {
        let error = raw(&[(mode, name, object)]).unwrap_err();
        assert!(
            matches!(error.code(), Some(Code::BadRecipe | Code::RemoteUnavailable)),
            "{mode} {name:?}: {error:?}"
        );
    }
    assert!(raw(&[("100644", b"a", &blob), ("100644", b"a", &blob)]).is_err(), "the same name twice");
    raw(&[("100644", b"a", &blob), ("40000", b"b", &tree)]).unwrap();
}

#[test]
fn filters_hooks_and_attributes_of_a_repository_do_not_run() {
    let git = web();
    let marker = git.folder.path().join("ran");
    let touch = format!("touch {}; cat", marker.display());
    for setting in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "core.fsmonitor",
        "core.sshCommand",
    ] {
        git.run(&["config", setting, &touch]);
    }
    git.write(".gitattributes", "* filter=evil text eol=crlf ident export-subst\n");
    git.write("web/.gitattributes", "* filter=evil eol=crlf ident\n").write("web/recipe.toml", "$Id$\nLF\n");
    git.run(&[
        "-c",
        "filter.evil.clean=",
        "-c",
        "filter.evil.process=",
        "-c",
        "core.fsmonitor=",
        "add",
        "--all",
    ]);
    git.run(&["-c", "core.fsmonitor=", "commit", "--quiet", "--message=attributes"]);
    for hook in ["post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"] {
        git.write(&format!(".git/hooks/{hook}"), format!("#!/bin/sh\n{touch}\n"));
        std::fs::set_permissions(git.top().join(".git/hooks").join(hook), PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    let _ = std::fs::remove_file(&marker);
    let intake = git.fetch("", Some("web")).unwrap();
    assert_eq!(text(&intake, "recipe.toml"), "$Id$\nLF\n");
    let daemon = git.serve();
    assert_eq!(take(&daemon.uri(""), Some("web")).unwrap().payload, intake.payload);
    assert!(!marker.exists(), "something of the repository was run");
}

#[test]
fn files_beyond_the_limits_are_refused_before_they_are_read() {
    let git = web();
    let limits = Limits { file_bytes: 1000, recipe_bytes: 1500, files: 8, path_depth: 3, ..Limits::STANDARD };
    let take =
        |path| take_within(&git.top().display().to_string(), Some(path), &limits, &FetchLimits::STANDARD);
    git.write("one/huge", vec![b'x'; 1001]).write("all/a", vec![b'x'; 999]).write("all/b", vec![b'y'; 999]);
    git.write("deep/a/b/c/d", "").write("envelope/recipe.intoto.jsonl", vec![b'x'; MAX_ENVELOPE_BYTES + 1]);
    for number in 0..40 {
        git.write(&format!("many/{number}"), "");
    }
    git.commit();
    assert!(matches!(take("one"), Err(IntakeError::TooLarge { size: 1001, limit: 1000, .. })));
    assert!(matches!(take("all"), Err(IntakeError::TooLarge { size: 999, limit: 501, .. })));
    assert!(matches!(take("deep"), Err(IntakeError::TooDeep { .. })));
    assert!(matches!(take("envelope"), Err(IntakeError::TooLarge { .. })));
    assert_eq!(code(take("many")), Some(Code::BadRecipe));

    // A blob that ends too early is refused for the size it claims, so that was judged before it was read; reading
    // it would not even end.
    truncate(&git, "HEAD:one/huge");
    assert!(matches!(take("one"), Err(IntakeError::TooLarge { size: 1001, .. })));
}

/// Cuts the end off a loose object.
fn truncate(git: &Git, object: &str) {
    let id = git.run(&["rev-parse", object]);
    let file = git.top().join(".git/objects").join(&id[..2]).join(&id[2..]);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 8]).unwrap();
}

#[test]
fn an_object_that_ends_too_early_does_not_hold_us_up() {
    let limits = FetchLimits { deadline: Duration::from_millis(500), ..FetchLimits::STANDARD };
    for object in ["HEAD:web/recipe.toml", "HEAD:web", "HEAD"] {
        let git = web();
        truncate(&git, object);
        let begun = Instant::now();
        let cut = take_within(&git.top().display().to_string(), Some("web"), &Limits::STANDARD, &limits);
        assert_eq!(code(cut), Some(Code::RemoteUnavailable), "{object}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn an_object_that_is_not_what_its_name_says_is_refused() {
    let git = web();
    let other = git.object("another content\n");
    let named = git.run(&["rev-parse", "HEAD:web/recipe.toml"]);
    let place = |id: &str| git.top().join(".git/objects").join(&id[..2]).join(&id[2..]);
    std::fs::remove_file(place(&named)).unwrap();
    std::fs::copy(place(&other), place(&named)).unwrap();
    assert_eq!(code(git.fetch("", Some("web"))), Some(Code::RemoteUnavailable));
}

#[test]
fn a_plain_folder_gives_the_same_as_a_commit() {
    let git = web();
    let folder = read_folder(&git.top().join("web"), &Limits::STANDARD).unwrap();
    let intake = git.fetch("", Some("web")).unwrap();
    assert_eq!((folder.payload, folder.envelope), (intake.payload, intake.envelope));
    // The repository's own folder does not belong to a recipe at its top.
    let top = read_folder(&git.top(), &Limits::STANDARD).unwrap();
    assert!(top.payload.iter().all(|(path, _)| !path.as_str().starts_with(".git")));
}

#[test]
fn a_plain_folder_holds_nothing_but_files_and_folders() {
    let read = |prepare: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("recipe.toml"), "x").unwrap();
        prepare(folder.path());
        let limits = Limits { files: 8, file_bytes: 1000, path_depth: 3, ..Limits::STANDARD };
        read_folder(folder.path(), &limits)
    };
    let link = read(&|folder| symlink("/etc/passwd", folder.join("link")).unwrap());
    assert!(matches!(link, Err(IntakeError::Entry { what: "a symbolic link", .. })));
    let linked_folder = read(&|folder| symlink("/etc", folder.join("files")).unwrap());
    assert!(matches!(linked_folder, Err(IntakeError::Entry { what: "a symbolic link", .. })));
    let pipe = read(&|folder| {
        assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    });
    assert!(matches!(pipe, Err(IntakeError::Entry { what: "neither file nor folder", .. })));
    let large = read(&|folder| std::fs::write(folder.join("large"), vec![0; 1001]).unwrap());
    assert!(matches!(large, Err(IntakeError::TooLarge { size: 1001, limit: 1000, .. })));
    let deep = read(&|folder| std::fs::create_dir_all(folder.join("a/b/c/d")).unwrap());
    assert!(matches!(deep, Err(IntakeError::TooDeep { .. })));
    let many = read(&|folder| {
        (0..30).for_each(|number| std::fs::create_dir(folder.join(number.to_string())).unwrap())
    });
    assert!(matches!(many, Err(IntakeError::TooMany { .. })));
    let missing = read_folder(Path::new("/nonexistent"), &Limits::STANDARD).unwrap_err();
    assert_eq!(missing.code(), None);
}
