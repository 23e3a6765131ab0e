//! Fetching by `git://`, and the revisions that both ways find.

use super::*;

#[test]
fn git_and_file_give_the_same_recipe() {
    let git = web();
    let daemon = git.serve();
    let commit = git.run(&["rev-parse", "HEAD"]);
    let fetched = take(&daemon.uri(""), Some("web")).unwrap();
    assert_web(&fetched, &commit, "web");
    assert_eq!(fetched.source.uri, format!("git+{}", daemon.uri("")));
    assert_eq!(fetched.payload, git.fetch("", Some("web")).unwrap().payload);
}

#[test]
fn branches_tags_and_commits_are_found_in_both_ways() {
    let git = web();
    let daemon = git.serve();
    let first = git.run(&["rev-parse", "HEAD"]);
    git.run(&["tag", "--annotate", "--message=release", "v1"]);
    git.run(&["branch", "old"]);
    let second = git.write("web/recipe.toml", "two\n").commit();
    for (fragment, commit) in [
        ("#main", &second),
        ("#HEAD", &second),
        ("#old", &first),
        ("#v1", &first),
        ("#refs/tags/v1", &first),
        ("#refs/heads/old", &first),
        (&format!("#{second}"), &second),
        (&format!("#{first}"), &first),
    ] {
        for intake in [git.fetch(fragment, Some("web")), take(&daemon.uri(fragment), Some("web"))] {
            assert_eq!(&intake.unwrap().source.commit, commit, "{fragment}");
        }
    }
    for missing in ["#none", "#refs/heads/v1", "#0123456789012345678901234567890123456789"] {
        for intake in [git.fetch(missing, Some("web")), take(&daemon.uri(missing), Some("web"))] {
            let error = intake.unwrap_err();
            assert!(matches!(error, IntakeError::NoRevision { .. }), "{missing}: {error}");
            assert_eq!(error.code(), Some(Code::RemoteUnavailable));
        }
    }
}

#[test]
fn a_commit_that_no_branch_names_directly_is_found_in_its_history() {
    let git = web();
    let daemon = git.serve();
    let first = git.run(&["rev-parse", "HEAD"]);
    git.write("web/recipe.toml", "two\n").commit();
    let intake = take(&daemon.uri(&format!("#{first}")), Some("web")).unwrap();
    assert_eq!(text(&intake, "recipe.toml"), "one\n");
}

#[test]
fn a_branch_and_another_tag_of_one_name_are_not_chosen_between() {
    let git = web();
    let daemon = git.serve();
    git.run(&["tag", "same"]);
    git.run(&["branch", "same"]);
    git.fetch("#same", Some("web")).unwrap();
    take(&daemon.uri("#same"), Some("web")).unwrap();
    git.write("web/recipe.toml", "two\n").commit();
    git.run(&["tag", "--force", "same"]);
    for intake in [git.fetch("#same", Some("web")), take(&daemon.uri("#same"), Some("web"))] {
        assert!(matches!(intake, Err(IntakeError::Ambiguous { .. })));
    }
    take(&daemon.uri("#refs/tags/same"), Some("web")).unwrap();
}

#[test]
fn a_reference_that_moves_afterwards_changes_nothing() {
    let git = web();
    let daemon = git.serve();
    let intake = take(&daemon.uri("#main"), Some("web")).unwrap();
    git.write("web/recipe.toml", "two\n").commit();
    assert_eq!(text(&intake, "recipe.toml"), "one\n");
    let again = take(&daemon.uri(&format!("#{}", intake.source.commit)), Some("web")).unwrap();
    assert_eq!(again.payload, intake.payload);
    assert_ne!(take(&daemon.uri("#main"), Some("web")).unwrap().source.commit, intake.source.commit);
}

#[test]
fn only_one_commit_of_a_branch_is_fetched() {
    let git = web();
    for round in 0..5 {
        git.write("web/recipe.toml", format!("{round}")).commit();
    }
    let daemon = git.serve();
    let url = daemon.uri("").parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (repository, _) =
        remote::fetch(folder.path(), &url, &Revision::Head, &FetchLimits::STANDARD).unwrap();
    assert!(repository.is_shallow());
    let mut commits = 0;
    let odb = repository.odb().unwrap();
    odb.foreach(|id| {
        commits += usize::from(odb.read_header(*id).unwrap().1 == git2::ObjectType::Commit);
        true
    })
    .unwrap();
    assert_eq!(commits, 1);
}

#[test]
fn a_repository_beyond_the_limits_is_given_up() {
    let git = web();
    // Random enough that it does not compress.
    let mut noise = Vec::new();
    for number in 0u32..40_000 {
        noise.extend(recipe_spec::Sha256Digest::of(&number.to_le_bytes()).as_bytes());
    }
    git.write("elsewhere/noise", &noise).commit();
    let daemon = git.serve();
    let take = |limits| take_within(&daemon.uri(""), Some("web"), &Limits::STANDARD, &limits);
    let few_bytes = take(FetchLimits { bytes: 100_000, ..FetchLimits::STANDARD });
    assert!(matches!(few_bytes, Err(IntakeError::RepositoryTooLarge { unit: "bytes", .. })), "{few_bytes:?}");
    assert_eq!(code(few_bytes), Some(Code::BadRecipe));
    let few_objects = take(FetchLimits { objects: 3, ..FetchLimits::STANDARD });
    assert!(matches!(few_objects, Err(IntakeError::RepositoryTooLarge { unit: "objects", .. })));
    take(FetchLimits::STANDARD).unwrap();
}

#[test]
fn a_remote_that_is_gone_or_never_was_is_unavailable() {
    let git = web();
    let daemon = git.serve();
    let uri = daemon.uri("");
    take(&uri, Some("web")).unwrap();
    let other = uri.replace("/repository", "/none");
    assert_eq!(code(take(&other, Some("web"))), Some(Code::RemoteUnavailable));
    drop(daemon);
    assert_eq!(code(take(&uri, Some("web"))), Some(Code::RemoteUnavailable));
    // The same answer over https, so that transport is built in: else git would say that it does not know it.
    let https = take(&format!("https://127.0.0.1:{}/repository", free_port()), None).unwrap_err();
    assert_eq!(https.code(), Some(Code::RemoteUnavailable));
    assert!(https.to_string().contains("connect"), "{https}");
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("none").display().to_string();
    assert_eq!(code(take(&nothing, None)), Some(Code::RemoteUnavailable));
    assert_eq!(code(take(&folder.path().display().to_string(), None)), Some(Code::RemoteUnavailable));
    let empty = Git::init();
    assert!(matches!(empty.fetch("", None), Err(IntakeError::NoRevision { .. })));
    assert!(matches!(take(&empty.serve().uri(""), None), Err(IntakeError::NoRevision { .. })));
}

#[test]
fn a_remote_that_stays_silent_does_not_hold_us_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("git://{}/repository", listener.local_addr().unwrap());
    let limits = FetchLimits { deadline: Duration::from_millis(300), ..FetchLimits::STANDARD };
    let begun = Instant::now();
    let silent = take_within(&uri, None, &Limits::STANDARD, &limits);
    assert!(matches!(silent, Err(IntakeError::Deadline { .. })), "{silent:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(code(silent), Some(Code::RemoteUnavailable));
}

#[test]
fn what_a_remote_says_is_shown_on_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("git://{}/repository", listener.local_addr().unwrap());
    let answer = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut peer, _) = listener.accept().unwrap();
        let _ = peer.read(&mut [0; 1024]);
        let line = "ERR \u{1b}[2Jboo\nsecond line";
        let _ = peer.write_all(format!("{:04x}{line}", line.len() + 4).as_bytes());
    });
    let error = take(&uri, None).unwrap_err().to_string();
    answer.join().unwrap();
    assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error:?}");
}
