//! A full host disk: `HOST_FULL`, exit status 3, whatever stage it meets; nothing half-written, and the next run succeeds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use end_to_end::command::{Countersign, Run};
use end_to_end::disk::SmallDisk;
use end_to_end::git::Daemon;
use end_to_end::site::Site;
use end_to_end::vo::Vo;
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A VO with one small signed recipe, its git daemon, and a site that lies on a small disk.
struct World {
    _folder: tempfile::TempDir,
    disk: SmallDisk,
    site: Site,
    vo: Vo,
    daemon: Daemon,
}

impl World {
    fn make(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vo = Vo::found("atlas", &folder.path().join("vo"));
        let recipe = vo.recipe("note");
        fs::create_dir_all(&recipe).unwrap();
        fs::write(
            recipe.join("recipe.toml"),
            "[recipe]\nname = \"atlas/note\"\nversion = \"1.0.0\"\nsummary = \"Files\"\nbase = [\"debian-12\"]\n\n\
             [[step]]\nrun = { script = \"fill.sh\", creates = \"/var/lib/large\", timeout = \"600s\" }\n",
        )
        .unwrap();
        fs::write(
            recipe.join("fill.sh"),
            "#!/bin/sh\nset -e\nhead -c 200000000 /dev/urandom >/var/lib/large\nsync\n",
        )
        .unwrap();
        let _ = vo.sign("note").done();
        vo.recipes.commit("One recipe");
        let daemon = Daemon::serve(&folder.path().join("vo"));
        let site = Site::found("full", folder.path());
        let _ = site.trust(&vo).done();
        let kept = folder.path().join("kept");
        fs::rename(&site.folder, &kept).unwrap();
        fs::create_dir(&site.folder).unwrap();
        let disk = SmallDisk::mount(&site.folder, bytes);
        let copied =
            std::process::Command::new("cp").arg("-a").arg(kept.join(".")).arg(disk.outside()).status();
        assert!(copied.unwrap().success());
        Self { _folder: folder, disk, site, vo, daemon }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.site.call(arguments).run_on(&self.disk)
    }

    fn authorize(&self) -> Countersign {
        self.site.call(["authorize", &self.daemon.url("recipes"), "--path", "note"])
    }

    /// All files of the site but logs, but locks, with their lengths.
    fn files(&self) -> BTreeMap<PathBuf, u64> {
        let mut files = BTreeMap::new();
        collect(&self.disk.outside(), &mut files);
        files.retain(|path, _| {
            let path = path.to_string_lossy();
            !path.contains("/logs/") && !path.ends_with("lock")
        });
        files
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), files);
        } else {
            files.insert(entry.path(), entry.metadata().unwrap().len());
        }
    }
}

#[test]
fn what_needs_no_machine_ends_with_the_code_and_leaves_what_was() {
    let world = World::make(8 * MIB);
    let crl = world.vo.ca.join("ca.crl.pem");
    let _ = Countersign::new(["ca", "crl", world.vo.ca.to_str().unwrap()])
        .passphrase(&world.vo.passphrase)
        .run()
        .done();
    let cache = end_to_end::site::cache();
    let url = world.daemon.url("recipes");
    for arguments in [
        vec!["revoke", "atlas/note@9.9.9"],
        vec!["crl", "publish"],
        vec!["anchor", "renew", "atlas", "--crl", crl.to_str().unwrap()],
        // The repository that is fetched does not fit, and then not even a line of the ledger.
        vec!["authorize", &url, "--path", "note"],
        vec!["base", "build", "debian-12", "--cache", cache.to_str().unwrap()],
    ] {
        let before = world.files();
        world.disk.fill(0);
        let _ = world.run(&arguments).failed("HOST_FULL");
        world.disk.relieve();
        assert_eq!(world.files(), before, "{arguments:?}: nothing was changed and nothing is left");
        if arguments[0] != "base" && arguments[0] != "authorize" {
            let _ = world.run(&arguments).done();
        }
    }
    assert_eq!(
        world.run(&["authorize", &url, "--path", "note"]).code(),
        Some("BASE_MISMATCH"),
        "the ledger works"
    );
    assert_eq!(world.run(&["crl", "verify"]).done().json["number"], 3, "revoked and published, once each");
}

#[test]
fn keys_and_signatures_are_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let vo = Vo::found("atlas", &folder.path().join("vo"));
    let place = folder.path().join("disk");
    fs::create_dir(&place).unwrap();
    let disk = SmallDisk::mount(&place, MIB);
    fs::create_dir(disk.outside().join("recipe")).unwrap();
    fs::write(
        disk.outside().join("recipe/recipe.toml"),
        "[recipe]\nname = \"atlas/x\"\nversion = \"1.0.0\"\nsummary = \"x\"\nbase = [\"debian-12\"]\n[[step]]\npackage = [\"hello\"]\n",
    )
    .unwrap();
    let at = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let recipes = end_to_end::site::project().join("site-recipes").to_str().unwrap().to_owned();
    let (key, certificate) = (vo.key.to_str().unwrap(), vo.certificate.to_str().unwrap());
    let commands: [Vec<&str>; 4] = [
        vec!["sign", &at("recipe"), "--key", key, "--cert", certificate],
        vec!["key", "generate", &at("key.pem")],
        vec!["ca", "init", &at("ca"), "--organisation", "atlas"],
        vec!["init", &at("site"), "--id", "full", "--site-recipes", &recipes],
    ]
    .map(|words: Vec<&str>| {
        words.into_iter().map(|word| &*Box::leak(word.to_owned().into_boxed_str())).collect()
    });
    for arguments in &commands {
        let call = || Countersign::new(arguments.iter().copied()).passphrase(&vo.passphrase);
        let mut before = BTreeMap::new();
        collect(&disk.outside(), &mut before);
        disk.fill(0);
        let _ = call().run_on(&disk).failed("HOST_FULL");
        disk.relieve();
        let mut after = BTreeMap::new();
        collect(&disk.outside(), &mut after);
        assert_eq!(after, before, "{arguments:?}");
        let _ = call().run_on(&disk).done();
    }
}

/// The disk is filled when the run's log says that a stage began; what the guest or the site then writes has no room.
#[test]
#[ignore = "takes a quarter of an hour: make soak"]
fn a_disk_that_fills_at_any_stage_costs_one_run() {
    let world = World::make(1900 * MIB);
    let cache = end_to_end::site::cache();
    let _ = world.run(&["base", "build", "debian-12", "--cache", cache.to_str().unwrap()]).done();
    for (stage, but) in [
        ("intake", 0),
        ("verify", 0),
        ("machines", 0),
        ("base-template", 0),
        ("boot", 0),
        ("apply-vo", 64 * MIB),
        ("apply-site", 0),
        ("boot-sealed", 0),
        // The last stage that takes longer than filling a disk. What follows it finds no room for the ledger's line, or for
        // that and not for git's objects, unless the machine wanted the rest.
        ("look-again", 0),
        ("look-again", 16 * 1024),
    ] {
        let start = Instant::now();
        let ended = filled_at(&world, stage, but);
        assert_eq!(
            (ended.status, ended.code()),
            (3, Some("HOST_FULL")),
            "{stage}: {}\n{:#}",
            ended.stderr,
            ended.json
        );
        let files = world.files();
        let left = |part: &str| files.keys().filter(|path| path.to_string_lossy().contains(part)).count();
        assert_eq!((left("/run/"), left("/layers/"), left("tmp_object")), (0, 0, 0), "{stage}: {files:#?}");
        assert_eq!(world.run(&["catalog"]).done().json["authorizations"], serde_json::json!([]), "{stage}");
        println!(
            "{stage}, {but} bytes left: {} in {:.0} s",
            ended.json["message"],
            start.elapsed().as_secs_f64()
        );
    }
    let done = world.authorize().run_on(&world.disk).done();
    assert_eq!(done.json["made"], "now");
    assert_eq!(world.run(&["catalog"]).done().json["authorizations"].as_array().unwrap().len(), 1);
}

/// Authorizes, and fills the disk but for so many bytes once that stage has begun; makes room again at the end.
fn filled_at(world: &World, stage: &str, but: u64) -> Run {
    let logs = world.disk.outside().join("logs");
    let before = fs::read_dir(&logs).unwrap().count();
    let mut command = world.disk.wrap(&world.authorize().into_command());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if !await_stage(&logs, before, stage, &mut child) {
        let output = child.wait_with_output().unwrap();
        panic!("it ended before {stage}: {}", String::from_utf8_lossy(&output.stderr));
    }
    world.disk.fill(but);
    let output = child.wait_with_output().unwrap();
    world.disk.relieve();
    Run::of(&output)
}

/// False if the run ends before.
fn await_stage(logs: &Path, before: usize, stage: &str, child: &mut Child) -> bool {
    let start = Instant::now();
    loop {
        let mut names: Vec<_> = fs::read_dir(logs).unwrap().flatten().map(|entry| entry.path()).collect();
        names.sort();
        let newest = (names.len() > before).then(|| names.pop()).flatten();
        let text = newest.and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default();
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if events.any(|event| event["event"] == "stage-started" && event["stage"] == stage) {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(start.elapsed() < Duration::from_secs(900), "{stage} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
