//! What lies where the site expects a small file of its own: nothing is waited for, nothing is read without end, and no command
//! goes on as if it were not there.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::attack::{Attack, now};
use crate::minted::Minted;

type Put = fn(&Path);

/// What is put there, by a name for messages.
const HOSTILE: [(&str, Put); 4] = [
    ("a FIFO", |path| mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap()),
    ("a link to an endless device", |path| symlink("/dev/zero", path).unwrap()),
    ("a folder", |path| fs::create_dir(path).unwrap()),
    ("a sparse file of 10 GB", |path| {
        let file = File::create(path).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.set_len(10 << 30).unwrap();
    }),
];

#[test]
fn every_small_file_of_a_site_is_a_small_file_or_is_refused() {
    let minted = Minted::at(now().plus_seconds(-60));
    minted.see(now()).unwrap();
    let attack = Attack::on(minted);
    attack.recipe("web", &attack.minted.recipe, &attack.minted.envelope());
    attack.commit();
    let layout = attack.minted.layout();
    let (authorize, deploy) = ("authorize recipes --path web", "deploy atlas/web");
    for (file, command) in [
        ("site.toml", authorize),
        ("certificates/ca.pem", authorize),
        ("certificates/ca.crl.pem", deploy),
        ("certificates/countersigner.pem", authorize),
        ("keys/countersigner.pem", authorize),
        ("anchors/atlas.pem", authorize),
        ("anchors/atlas.crl.pem", deploy),
        ("crl/crl.intoto.jsonl", authorize),
        ("crl/crl.body", deploy),
        ("state/crl-seen/crl-seen", deploy),
        ("state/ledger.jsonl", authorize),
        ("state/site.lock", authorize),
        ("state/trust.lock", "crl publish"),
        ("authorizations.git/config", deploy),
        ("authorizations.git/HEAD", "catalog"),
        ("authorizations.git/refs/heads/main", deploy),
        ("bases/debian-12/base.intoto.jsonl", authorize),
        ("bases/debian-12/facts.json", deploy),
        ("bases/debian-12/vmlinuz", authorize),
    ] {
        let path = layout.root().join(file);
        let kept = attack.world.path("kept");
        for (what, put) in HOSTILE {
            // Nobody reads a lock, so its length says nothing.
            if what.contains("sparse") && file.ends_with(".lock") {
                continue;
            }
            fs::rename(&path, &kept).unwrap();
            put(&path);
            let before = attack.snapshot();
            let run = attack.run(command);
            assert!([1, 3].contains(&run.status), "{file}, {what}: {} {}", run.status, run.stderr);
            assert_eq!(run.json()["coldBoots"].as_u64().unwrap_or(0), 0, "{file}, {what}");
            let code = run.stderr.split(':').next().unwrap_or_default();
            assert!(run.json()["code"] == code && code.len() > 5, "{file}, {what}: {}", run.stderr);
            assert!(attack.snapshot() == before, "{file}, {what}");
            if what.contains("folder") { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
            fs::rename(&kept, &path).unwrap();
        }
    }
    assert_eq!(attack.run("crl verify").status, 0);
}
