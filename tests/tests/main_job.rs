//! The main job from one end to the other, through the binary and on real machines: one authorization, one deployment, and
//! everything about them that must be refused. Lower levels test the parts; this shows the wiring.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use end_to_end::command::Run;
use end_to_end::ending::descendants;
use end_to_end::git::Daemon;
use end_to_end::log::NextLog;
use end_to_end::site::{Site, project};
use end_to_end::vo::{Vo, copy_folder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn a_recipe_is_authorized_deployed_and_revoked() {
    let world = tempfile::tempdir().unwrap();
    let vo = Vo::found("atlas", &world.path().join("vo"));
    copy_folder(&project().join("examples/web"), &vo.recipe("web"));
    let _ = vo.sign("web").done();
    copy_folder(&vo.recipe("web"), &vo.recipe("web-changed"));
    flip(&vo.recipe("web-changed/files/index.html"));
    copy_folder(&project().join("examples/backdoor"), &vo.recipe("backdoor"));
    let _ = vo.sign("backdoor").done();
    let commit = vo.recipes.commit("Recipes");
    let daemon = Daemon::serve(&world.path().join("vo"));
    let url = daemon.url("recipes");

    let site = Site::found("test-site", world.path());
    let _ = site.run(["authorize", &url, "--path", "web"]).refused("UNTRUSTED_SIGNER");
    let _ = site.trust(&vo).done();
    let _ = site.run(["authorize", &url, "--path", "web"]).refused("BASE_MISMATCH");
    let _ = site.base().done();
    let _ = site.run(["deploy", "atlas/web"]).refused("NOT_AUTHORIZED");
    let scan = site.run(["authorize", &url, "--path", "backdoor"]).refused("SCAN_DENIED");
    assert_eq!(scan.json["stage"], "scan", "{:#}", scan.json);
    let _ = site.run(["authorize", &url, "--path", "web-changed"]).refused("BAD_SIGNATURE");

    let authorized = site.run(["authorize", &url, "--path", "web"]).done();
    assert_eq!(authorized.json["name"], "atlas/web");
    assert_eq!(authorized.json["sourceCommit"], commit.as_str());
    assert_eq!(
        authorized.json["coldBoots"], 2,
        "one of the base, kept for all builds, one of the sealed disk"
    );
    nothing_is_left(&site);
    openssl_accepts_the_countersignature(&site, world.path());

    let deployed = site.run(["deploy", "atlas/web", "--forward", "0:80"]);
    assert_eq!(deployed.status, 2, "a port of 0 is no port: {}", deployed.stderr);
    let _ = site.run(["deploy", "atlas/web", "--forward", "2222:22"]).refused("NOT_AUTHORIZED");
    tampered_files_are_refused_before_a_machine_starts(&site);
    a_tampered_base_template_is_refused(&site, &url);
    an_older_repository_is_no_way_back(&site);

    let port = free_port();
    let deployed = site.run(["deploy", "atlas/web", "--forward", &format!("{port}:80")]).done();
    let id = deployed.json["instance"]["id"].as_str().expect("an id").to_owned();
    assert!(fetch(port).contains("run display"), "the host reaches the declared port");
    an_instance_is_confined(&deployed, &site);
    assert_eq!(state(&site, &id), "running");
    assert_eq!(deployed.json["coldBoots"], 0, "it is a clone: {:#}", deployed.json);

    what_is_revoked_while_its_machine_starts_is_not_handed_out(&site, &id);
    let _ = site.run(["deploy", "atlas/web"]).refused("REVOKED");
    let _ = site.run(["authorize", &url, "--path", "web"]).refused("REVOKED");
    let _ = site.run(["instance", "stop", &id]).done();
    assert_eq!(state(&site, &id), "ended");
    let logs = site.run(["instance", "logs", &id]).done();
    assert!(logs.json.to_string().len() > 100, "the console is kept");
    fs::remove_dir_all(site.folder.join("crl")).unwrap();
    let _ = site.run(["deploy", "atlas/web"]).refused("CRL_MISSING");
}

/// A list that names the recipe only once its machine starts. The supervisor stands still meanwhile, so that it is not faster.
fn what_is_revoked_while_its_machine_starts_is_not_handed_out(site: &Site, running: &str) {
    let mut log = NextLog::of(site);
    let mut deploy = site
        .call(["deploy", "atlas/web"])
        .into_command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !log.says("stage-started", "launch") {
        assert_eq!(deploy.try_wait().unwrap(), None, "it ended before its machine started");
        std::thread::sleep(Duration::from_millis(1));
    }
    let supervisor =
        descendants(deploy.id()).first().and_then(|pid| Pid::from_raw(pid.cast_signed())).unwrap();
    kill_process(supervisor, Signal::STOP).unwrap();
    let too_late = log.says("stage-started", "revocation-again");
    let revoked = site.run(["revoke", "atlas/web@1.0.0", "--reason", "superseded"]);
    // Whatever came of it: nothing else would let the supervisor go on.
    kill_process(supervisor, Signal::CONT).unwrap();
    let _ = revoked.done();
    let refused = Run::of(&deploy.wait_with_output().unwrap()).refused("REVOKED");
    assert!(!too_late, "the list was asked before it was there");
    assert_eq!(refused.json["stage"], "revocation-again", "{:#}", refused.json);
    let listed = site.run(["instance", "list"]).done();
    let instances = listed.json["instances"].as_array().unwrap();
    let alive: Vec<_> = instances.iter().filter(|instance| instance["state"] != "ended").collect();
    assert!(matches!(&alive[..], [one] if one["id"] == running), "{alive:#?}");
}

fn state(site: &Site, id: &str) -> String {
    let shown = site.run(["instance", "show", id]).done();
    shown.json["instance"]["state"].as_str().unwrap_or_default().to_owned()
}

/// No run folder, no lock that is held: a second command would wait.
fn nothing_is_left(site: &Site) {
    let left: Vec<PathBuf> =
        fs::read_dir(site.folder.join("run")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The bytes that the site signed, checked by a program that shares no code with ours.
fn openssl_accepts_the_countersignature(site: &Site, scratch: &Path) {
    let repository = site.folder.join("authorizations.git");
    let shown = Command::new("git")
        .arg("-C")
        .arg(&repository)
        .args(["show", "main:atlas/web/1.0.0/authorization.intoto.jsonl"])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let file = String::from_utf8(shown.stdout).unwrap();
    let lines: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "the authorization and two statements for other tools");
    for (number, envelope) in lines.iter().enumerate() {
        let at = |name: &str| scratch.join(format!("line-{number}.{name}"));
        let payload = base64_decode(envelope["payload"].as_str().unwrap());
        let kind = envelope["payloadType"].as_str().unwrap();
        let mut pae = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        pae.extend(&payload);
        let signature = &envelope["signatures"][0];
        fs::write(at("pae"), &pae).unwrap();
        fs::write(at("sig"), base64_decode(signature["sig"].as_str().unwrap())).unwrap();
        fs::write(at("cert.pem"), signature["certificate"].as_str().unwrap()).unwrap();
        let (status, text) = openssl(&["x509", "-pubkey", "-noout", "-in"], &[&at("cert.pem")]);
        assert!(status, "{text}");
        fs::write(at("pub.pem"), text).unwrap();
        let verify = |pae: &Path| {
            let files = [&at("pub.pem"), Path::new("-sigfile"), &at("sig"), Path::new("-in"), pae];
            openssl(&["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"], &files)
        };
        let (status, text) = verify(&at("pae"));
        assert!(status, "{text}");
        pae[20] ^= 1;
        fs::write(at("other"), &pae).unwrap();
        assert!(!verify(&at("other")).0, "and refuses other bytes");
        let anchor = site.folder.join("certificates/ca.pem");
        let (status, text) = openssl(&["verify", "-x509_strict", "-CAfile"], &[&anchor, &at("cert.pem")]);
        assert!(status, "{text}");
    }
}

fn openssl(words: &[&str], files: &[&Path]) -> (bool, String) {
    let output = Command::new("openssl").args(words).args(files).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    (output.status.success(), text)
}

fn base64_decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn kept(site: &Site, store: &str) -> Vec<PathBuf> {
    fs::read_dir(site.folder.join(store)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// RAM, device state, overlay and record of the one template in this store.
fn template_files(site: &Site, store: &str) -> Vec<PathBuf> {
    let [template] = &kept(site, store)[..] else { panic!("one template is kept") };
    let files: Vec<_> = fs::read_dir(template).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    files
}

/// A byte changed in what build machines are cloned from: none starts from it.
fn a_tampered_base_template_is_refused(site: &Site, url: &str) {
    for file in template_files(site, "base-templates/debian-12") {
        let undo = change_a_byte(&file);
        let again = site.run(["authorize", url, "--path", "web", "--again"]).refused("LAYER_MISMATCH");
        assert_eq!(again.json["coldBoots"], 0, "{:#}", again.json);
        assert!(again.json.to_string().contains("it is made again"), "{:#}", again.json);
        undo();
    }
}

/// A byte changed in a layer, a template, in the base's disk, kernel or initrd: no machine starts from it.
fn tampered_files_are_refused_before_a_machine_starts(site: &Site) {
    for file in kept(site, "layers").into_iter().chain(template_files(site, "templates")) {
        let undo = change_a_byte(&file);
        let refused = site.run(["deploy", "atlas/web"]).refused("LAYER_MISMATCH");
        assert_eq!(refused.json["coldBoots"], 0, "{:#}", refused.json);
        undo();
    }
    for file in ["disk.qcow2", "vmlinuz", "initrd"] {
        let undo = change_a_byte(&site.folder.join("bases/debian-12").join(file));
        let _ = site.run(["deploy", "atlas/web"]).refused("BASE_MISMATCH");
        undo();
    }
}

/// The site remembers a higher version than its repository of authorizations offers: a name does not lead back.
fn an_older_repository_is_no_way_back(site: &Site) {
    let ledger = site.folder.join("state/ledger.jsonl");
    let before = fs::read_to_string(&ledger).unwrap();
    let authorized = before.lines().last().unwrap();
    assert!(authorized.contains("1.0.0"), "{authorized}");
    let verified = before.lines().next().unwrap();
    let higher =
        format!("{before}{}\n{}\n", verified.replace("1.0.0", "1.1.0"), authorized.replace("1.0.0", "1.1.0"));
    fs::write(&ledger, higher).unwrap();
    let _ = site.run(["deploy", "atlas/web"]).refused("VERSION_ROLLBACK");
    fs::write(&ledger, before).unwrap();
}

/// Flips a bit in the middle of a file, whatever its mode, and gives the way back.
fn change_a_byte(path: &Path) -> impl FnOnce() + use<> {
    let path = path.to_owned();
    flip(&path);
    move || flip(&path)
}

fn flip(path: &Path) {
    let before = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    fs::set_permissions(path, before).unwrap();
}

/// QEMU runs as a user of its own, without capabilities and behind a filter, and that user reads no key and writes no base.
fn an_instance_is_confined(deployed: &Run, site: &Site) {
    let instance = &deployed.json["instance"];
    let uid = instance["uid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", instance["qemu"])).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_ne!(uid, 0);
    assert_eq!(field("Uid:"), vec![uid.to_string(); 4]);
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    assert_eq!(field("CapBnd:"), ["0000000000000000"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_eq!(field("Seccomp:"), ["2"]);
    let as_qemu = |script: &str, file: PathBuf| {
        let id = uid.to_string();
        Command::new("setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", script, "sh"])
            .arg(file)
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    for key in fs::read_dir(site.folder.join("keys")).unwrap() {
        assert!(!as_qemu("cat \"$1\" >/dev/null", key.unwrap().path()));
    }
    for file in kept(site, "layers").into_iter().chain(template_files(site, "templates")) {
        assert!(!as_qemu(": >>\"$1\"", file));
    }
    assert!(!as_qemu(": >>\"$1\"", site.folder.join("bases/debian-12/disk.qcow2")));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn fetch(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.take(1 << 20).read_to_string(&mut page).unwrap();
    page
}
