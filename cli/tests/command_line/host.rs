//! What the host does to a command: read-only folders, other owners, missing files, no memory, two commands at once, kills.
//! A full disk is in `tests/tests/full.rs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::publishing::published;
use crate::world::{Run, World};

/// Runs a command of the world from a shell that prepares its surroundings first: `"$@"` is the command.
fn from_shell(world: &World, wrap: &[&str], script: &str, arguments: &str) -> Output {
    let command = world.command(arguments);
    let (program, words) = wrap.split_first().map_or(("sh", &[][..]), |(program, words)| (*program, words));
    let mut wrapped = Command::new(program);
    wrapped.args(words);
    if !wrap.is_empty() {
        wrapped.arg("sh");
    }
    wrapped.args(["-ec", script, "sh"]).arg(command.get_program()).args(command.get_args());
    wrapped
        .current_dir(world.path("."))
        .env_remove("COUNTERSIGN_SITE")
        .env_remove("COUNTERSIGN_PASSPHRASE_FILE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn what_a_shell_left_open_is_not_passed_on() {
    let world = World::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("waits"), rustix::fs::Mode::RUSR).unwrap();
    // It waits for somebody to write there, long after its start.
    let mut command = Command::new("bash");
    command.args(["-c", "exec 9</etc/passwd 200</etc/passwd; exec \"$0\" scan waits"]);
    command.arg(world.command("").get_program()).current_dir(world.path(".")).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let flags = |number: u32| -> Option<u32> {
        let about = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", child.id())).ok()?;
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    };
    let closed = |number| flags(number).is_some_and(|flags| flags & 0o2_000_000 != 0);
    let start = Instant::now();
    while !(closed(9) && closed(200)) && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let closed = [closed(9), closed(200)];
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(closed, [true; 2], "no program that it starts has them (execve(2), FD_CLOEXEC)");
}

#[test]
fn a_site_made_under_any_umask_can_be_used() {
    use std::os::unix::fs::PermissionsExt;
    for umask in ["000", "002", "077"] {
        let world = World::with_vo();
        world.write("site-recipes/suites/baseline.toml", "");
        let under = |arguments: &str| {
            Run::of(&from_shell(&world, &[], &format!("umask {umask}; exec \"$@\""), arguments)).done()
        };
        under("init site --id example-site --site-recipes site-recipes --no-passphrase");
        under("--site site anchor add atlas --ca ca/ca.cert.pem --crl ca/ca.crl.pem --vo atlas");
        under("--site site crl publish");
        under("--site site crl show");
        let mut paths = Vec::new();
        collect(&world.path("site"), &mut paths);
        for path in paths {
            let about = path.symlink_metadata().unwrap();
            assert_eq!(about.permissions().mode() & 0o022, 0, "umask {umask}: {}", path.display());
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_read_only_site_is_read_and_not_changed() {
    let world = published();
    let read_only = |arguments: &str| {
        let mount = "mount --bind site site && mount -o remount,bind,ro site && exec \"$@\"";
        Run::of(&from_shell(&world, &["unshare", "--mount", "--propagation", "private"], mount, arguments))
    };
    for arguments in ["crl show", "catalog", "instance list", "base list"] {
        let run = read_only(&format!("--site site {arguments}"));
        assert_eq!(run.status, 0, "{arguments}: {}", run.stderr);
    }
    for arguments in ["authorize recipes --path web", "revoke atlas/web@1.4.0", "crl publish"] {
        let run = read_only(&format!("--site site {arguments}")).ended(3, "HOST_FAILED");
        assert!(
            run.stderr.contains("Read-only file system") && run.stderr.contains("site/"),
            "{}",
            run.stderr
        );
    }
    assert_eq!(world.json("--site site crl show")["number"], 1);
}

#[test]
fn a_site_of_another_user_is_not_used_by_root_nor_changed_by_others() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let world = World::with_site();
    // Somebody else cannot read the keys, and says so.
    fs::set_permissions(world.path("."), PermissionsExt::from_mode(0o755)).unwrap();
    let as_other = ["setpriv", "--reuid=61990", "--regid=61990", "--clear-groups"];
    let other = |arguments: &str| Run::of(&from_shell(&world, &as_other, "exec \"$@\"", arguments));
    let run = other("--site site revoke atlas/web@1.4.0").ended(3, "HOST_FAILED");
    assert!(run.stderr.contains("Permission denied"), "{}", run.stderr);
    // Whoever owns a file can change it, whatever its mode.
    for file in ["site/site.toml", "site/crl", "site/anchors/atlas.crl.pem", "site"] {
        chown(world.path(file), Some(61_990), None).unwrap();
        let run = world.run("--site site crl show").ended(3, "HOST_FAILED");
        assert!(run.stderr.contains("belongs to user 61990"), "{}", run.stderr);
        chown(world.path(file), Some(0), None).unwrap();
    }
    world.run("--site site crl show").done();
}

#[test]
fn a_site_of_a_newer_version_is_left_alone() {
    let world = World::with_site();
    let text = world.read("site/site.toml");
    assert!(text.contains("layout = 1 "));
    world.write(
        "site/site.toml",
        &format!("{}\n[from_the_future]\nx = 1\n", text.replace("layout = 1 ", "layout = 2 ")),
    );
    for arguments in [
        "crl show",
        "authorize recipes",
        "revoke atlas/web@1.4.0",
        "deploy atlas/web",
        "base build debian-12",
    ] {
        let run = world.run(&format!("--site site {arguments}")).ended(3, "HOST_FAILED");
        assert!(run.stderr.contains("use a newer countersign"), "{}", run.stderr);
    }
    world.write("site/site.toml", &format!("{text}\n[from_the_future]\nx = 1\n"));
    let run = world.run("--site site crl show").ended(3, "HOST_FAILED");
    assert!(run.stderr.contains("site.toml: line "), "{}", run.stderr);
}

/// Every file and every folder of a site, one at a time.
#[test]
fn each_file_that_is_missing_is_named() {
    let world = published();
    let site = world.path("site");
    let mut paths = Vec::new();
    collect(&site, &mut paths);
    // What a run makes where it is missing; what only other commands need; the parts of a git repository that may be absent.
    let optional = [
        "run",
        "layers",
        "instances",
        "keys/ca.pem",
        "keys/base-signer.pem",
        "keys/crl-issuer.pem",
        "state/crl-seen",
        "authorizations.git/objects/",
        "authorizations.git/config",
        "authorizations.git/description",
        "bases",
        "authorizations.git/hooks",
        "authorizations.git/info",
        "authorizations.git/branches",
        "logs/",
        "state/site.lock",
        "state/trust.lock",
        "crl/crl.lock",
        "certificates/base-signer.pem",
        "certificates/crl-issuer.pem",
        "authorizations.git",
        "suites",
        "site-recipes",
        "anchors/atlas.crl.pem",
    ];
    for path in paths {
        let name = path.strip_prefix(&site).unwrap().to_str().unwrap().to_owned();
        let aside = world.path("aside");
        fs::rename(&path, &aside).unwrap();
        let run = world.run("--site site authorize recipes --path web");
        assert!(!run.stderr.contains("panicked"), "{name}: {}", run.stderr);
        let code = run.stderr.split(':').next().unwrap_or_default().to_owned();
        if !optional.iter().any(|begin| name.starts_with(begin)) {
            let file = path.file_name().unwrap().to_str().unwrap();
            // Without the list of the site's CA, it is the CA that is named.
            let said = if file == "ca.crl.pem" { "no CRL of the CA" } else { file };
            assert!(run.stderr.contains(said), "{name}: {}", run.stderr);
            assert!(
                run.status == 3 || run.status == 2 || code == "CRL_MISSING",
                "{name}: {}: {}",
                run.status,
                run.stderr
            );
        } else {
            assert!([1, 3].contains(&run.status), "{name}: {}", run.stderr);
        }
        // What the run made in its place goes.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        fs::rename(&aside, &path).unwrap();
    }
    world.run("--site site authorize recipes --path web").ended(1, "BASE_MISMATCH");
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        paths.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), paths);
        }
    }
}

#[test]
fn a_killed_init_is_swept_by_the_next() {
    let world = World::new();
    world.write("site-recipes/suites/baseline.toml", "");
    let init = "init site --id example-site --site-recipes site-recipes --no-passphrase";
    let mut left = 0;
    for round in 0..20 {
        let mut child = world.command(init).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(8 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        left += names(&world.path(".")).iter().filter(|name| name.contains("countersign-init")).count();
        // Whole, or not there.
        if world.path("site").exists() {
            world.run("--site site crl verify").done();
            fs::remove_dir_all(world.path("site")).unwrap();
        }
    }
    assert!(left > 0, "some kill met it at work");
    world.run(init).done();
    assert_eq!(names(&world.path(".")), ["site", "site-recipes"], "no keys lie about that nobody knows of");
    world.run("--site site crl verify").done();
}

#[test]
fn of_two_inits_at_once_one_makes_the_site() {
    let world = World::new();
    world.write("site-recipes/suites/baseline.toml", "");
    let init = "init site --id example-site --site-recipes site-recipes --no-passphrase";
    for _ in 0..3 {
        let children: Vec<_> = (0..3).map(|_| world.command(init).spawn().unwrap()).collect();
        let mut ended: Vec<_> =
            children.into_iter().map(|child| Run::of(&child.wait_with_output().unwrap())).collect();
        ended.sort_by_key(|run| run.status);
        let statuses: Vec<_> = ended.iter().map(|run| run.status).collect();
        assert_eq!(statuses, [0, 2, 2], "{}", ended[1].stderr);
        assert!(ended[1].stderr.contains("not empty"), "{}", ended[1].stderr);
        world.run("--site site crl verify").done();
        fs::remove_dir_all(world.path("site")).unwrap();
        assert_eq!(names(&world.path(".")), ["site-recipes"]);
    }
}

#[test]
fn revocations_at_once_are_all_published() {
    let world = World::with_site();
    let revoke = |n: u32| world.command(&format!("--site site revoke atlas/web@1.0.{n}")).spawn().unwrap();
    let children: Vec<_> = (0..6).map(revoke).collect();
    for child in children {
        let run = Run::of(&child.wait_with_output().unwrap());
        assert_eq!(run.status, 0, "{}", run.stderr);
    }
    let shown = world.json("--site site crl show");
    assert_eq!((&shown["number"], shown["entries"].as_array().unwrap().len()), (&7.into(), 6));
}

#[test]
fn a_second_run_says_that_it_waits() {
    let world = published();
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(world.path("site/state/site.lock"))
        .unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let waiting = world.command("--site site authorize recipes --path web").spawn().unwrap();
    // What the site trusts changes meanwhile.
    world.run("--site site revoke atlas/other@1.0.0").done();
    std::thread::sleep(Duration::from_millis(300));
    drop(lock);
    let run = Run::of(&waiting.wait_with_output().unwrap()).ended(1, "BASE_MISMATCH");
    assert!(run.stdout.contains("another countersign is at work on this site, waiting"), "{}", run.stdout);
}

/// Without memory a command may be ended anywhere. Whatever it has published is whole.
#[test]
fn a_command_without_memory_publishes_whole_lists_or_none() {
    let world = World::with_site();
    let (mut failed, mut worked) = (0, 0);
    for mebibytes in (4..=300).step_by(16) {
        let limit = format!("--as={}", mebibytes << 20);
        let arguments = format!("--site site revoke atlas/web@1.0.{mebibytes}");
        let run = Run::of(&from_shell(&world, &["prlimit", &limit], "exec \"$@\"", &arguments));
        if run.status == 0 {
            worked += 1;
        } else {
            failed += 1;
        }
        world.run("--site site crl verify").done();
    }
    assert!(failed > 0 && worked > 0, "{failed} and {worked}");
    let shown = world.json("--site site crl show");
    let entries = shown["entries"].as_array().unwrap().len();
    assert!(entries >= worked, "{entries} {worked}");
    assert_eq!(shown["number"], entries + 1);
}

#[test]
fn no_temporary_folder_is_wanted() {
    let world = published();
    for folder in ["/nonexistent", "/proc", ""] {
        let mut command = world.command("--site site authorize recipes --path web");
        let output = command.env("TMPDIR", folder).output().unwrap();
        Run::of(&output).ended(1, "BASE_MISMATCH");
    }
}

#[test]
fn a_closed_standard_output_is_no_reason_to_fail() {
    let world = World::with_site();
    let output = from_shell(&world, &[], "exec \"$@\" >&-", "--site site revoke atlas/web@1.4.0");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let full = from_shell(&world, &[], "exec \"$@\" >/dev/full", "--site site revoke atlas/web@1.4.1");
    Run::of(&full).ended(3, "HOST_FULL");
    assert_eq!(
        world.json("--site site crl show")["number"],
        3,
        "both are published: it is done, and said so"
    );
}

/// A log that takes nothing (a link to a full device) changes no decision.
#[test]
fn a_log_that_cannot_be_written_does_not_lose_the_decision() {
    let world = published();
    let script = "mount -t tmpfs -o size=4k none site/logs; dd if=/dev/zero of=site/logs/ballast bs=4k 2>/dev/null || true; exec \"$@\"";
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    let run = Run::of(&from_shell(&world, &unshare, script, "--site site authorize recipes --path backdoor"));
    let run = run.ended(1, "SCAN_DENIED");
    assert!(run.stdout.contains("the log ends here"), "{}", run.stdout);
}
