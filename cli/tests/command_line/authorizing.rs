//! `authorize` as far as it goes without a machine: the repository is read by a worker, which is this program again.

use std::process::{Command, Stdio};

use crate::world::World;

fn git(world: &World, arguments: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=VO", "-c", "user.email=vo@example.org"])
        .args(arguments)
        .current_dir(world.path("web"))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .status()
        .unwrap();
    assert!(done.success(), "git {arguments:?}");
}

fn commit(world: &World) {
    git(world, &["init", "--quiet"]);
    git(world, &["add", "--all"]);
    git(world, &["commit", "--quiet", "--message=change"]);
}

#[test]
fn a_repository_is_read_by_a_worker_of_this_program() {
    let world = World::with_site();
    world.run("sign web --key alice.key.pem --cert alice.cert.pem").done();
    commit(&world);
    // Taken in, verified, asked about and scanned; this site has no base.
    let stopped = world.json_ended(1, "BASE_MISMATCH", "--site site authorize web");
    assert_eq!(stopped["stage"], "base", "{stopped}");

    std::os::unix::fs::symlink("/etc/passwd", world.path("web/files/link")).unwrap();
    commit(&world);
    let refused = world.json_ended(1, "BAD_RECIPE", "--site site authorize web");
    assert_eq!(refused["stage"], "intake", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("a symbolic link"), "{refused}");
    let gone = world.json_ended(3, "REMOTE_UNAVAILABLE", "--site site authorize nowhere");
    assert_eq!(gone["stage"], "intake", "{gone}");
    assert_eq!(std::fs::read_dir(world.path("site/run")).unwrap().count(), 0, "something is left");
}

#[test]
fn a_worker_that_a_person_starts_does_nothing() {
    let world = World::new();
    for (job, said) in [("intake", "started by countersign itself"), ("other", "no such job")] {
        let ended = world.command(&format!("worker {job}")).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), text.contains(said)), (Some(1), true), "{text}");
    }
    assert!(!world.run("--help").done().stdout.contains("worker"));
}
