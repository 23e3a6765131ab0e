//! A base image from the distribution's archive, built, booted, signed and verified; then each file of it changed.
//!
//! It downloads packages and boots a machine, so it is asked for by name: `cargo test -p authorizer --test base_image --
//! --ignored`. With `COUNTERSIGN_TEST_BASES` set, the base is kept in that folder for other tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use authorizer::base::{self, BaseError, BuildOptions, Existing, FirstBoot, Progress};
use harness::Confinement;
use recipe_spec::{Code, Timestamp};
use signer::{Chain, Role, SecretKey, Signer, SitePins, ca};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

struct Site {
    signer: Signer,
    pins: SitePins,
}

fn site() -> Site {
    let now = Timestamp::from_unix(NOW);
    let validity = (now, now.plus_seconds(300 * DAY));
    let authority = ca::init("site", "site CA", validity, now.plus_seconds(30 * DAY)).unwrap();
    let key = SecretKey::generate().unwrap();
    let subject = ca::Subject { organisation: "site".to_owned(), common_name: "base signer".to_owned() };
    let leaf =
        ca::issue(&authority.key, &authority.certificate_pem, &subject, &key.public(), validity).unwrap();
    let signer = Signer::new(Role::BaseSigner, key, Chain::from_pem(&leaf).unwrap()).unwrap();
    let pins = SitePins::new(&authority.certificate_pem, &[authority.crl_pem])
        .unwrap()
        .pin(Role::BaseSigner, signer.spki_sha256())
        .unwrap();
    Site { signer, pins }
}

fn build(site: &Site, bases: &Path) -> Result<base::Built, BaseError> {
    let cache = bases.join(".accelerator.json");
    let first_boot = FirstBoot {
        confinement: &Confinement::standard(),
        accelerator_cache: &cache,
        memory_mib: 1024,
        time_limit: Duration::from_secs(300),
    };
    let options = BuildOptions {
        bases,
        name: "debian-12",
        disk_bytes: base::DISK_BYTES,
        existing: Existing::Replace,
        now: Timestamp::from_unix(NOW),
    };
    base::build(&options, &site.signer, &first_boot, &mut |event| {
        if let Progress::Started { .. } | Progress::Finished { .. } | Progress::Swept { .. } = event {
            eprintln!("{event:?}");
        }
    })
}

#[test]
#[ignore = "downloads packages and boots a machine"]
fn a_base_is_built_booted_signed_and_verified() {
    let temporary = tempfile::tempdir().unwrap();
    let bases = std::env::var_os("COUNTERSIGN_TEST_BASES").map_or(temporary.path().to_owned(), PathBuf::from);
    let site = site();
    let built = build(&site, &bases).unwrap_or_else(|error| panic!("{error}\n{}", error.tail().join("\n")));
    eprintln!("{built:#?}");
    assert_eq!(base::list(&bases).unwrap(), ["debian-12"]);

    let later = Timestamp::from_unix(NOW).plus_seconds(DAY);
    let verified = base::verify(&built.folder, &site.pins, later).unwrap();
    assert_eq!(verified.sha256(), built.sha256);
    assert_eq!(verified.name(), "debian-12");
    assert!(verified.predicate().packages.contains_key("openssh-server"));
    assert!(verified.predicate().releases.iter().any(|release| release.suite == "bookworm-security"));
    // No package's default leaves a way in that the site did not choose.
    let facts = verified.facts();
    assert!(facts.truncated.is_empty(), "{:?}", facts.truncated);
    assert!(facts.listening.iter().all(|socket| [22, 68].contains(&socket.port)), "{:?}", facts.listening);
    assert!(facts.authorized_keys.is_empty());
    assert_eq!(facts.kernel_tainted, 0);

    // A base of another site, and each file with one byte changed.
    assert!(base::verify(&built.folder, &self::site().pins, later).is_err());
    for file in base::FILES {
        flip_last_byte(&built.folder.join(file));
        let error = base::verify(&built.folder, &site.pins, later).unwrap_err();
        assert_eq!(error.code(), Code::BaseMismatch, "{file}");
        assert!(error.to_string().contains(file), "{error}");
        flip_last_byte(&built.folder.join(file));
    }
    let _ = base::verify(&built.folder, &site.pins, later).unwrap();
    flip_last_byte(&built.folder.join(base::STATEMENT_FILE));
    assert!(base::verify(&built.folder, &site.pins, later).is_err());
    flip_last_byte(&built.folder.join(base::STATEMENT_FILE));
}

fn flip_last_byte(path: &Path) {
    use std::os::unix::fs::FileExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let last = file.metadata().unwrap().len() - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).unwrap();
    file.write_all_at(&[byte[0] ^ 1], last).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444)).unwrap();
}

#[test]
fn an_unknown_base_is_refused_before_anything_is_made() {
    let bases = tempfile::tempdir().unwrap();
    let site = site();
    let options = BuildOptions {
        bases: &bases.path().join("bases"),
        name: "plan-9",
        disk_bytes: base::DISK_BYTES,
        existing: Existing::Keep,
        now: Timestamp::from_unix(NOW),
    };
    let first_boot = FirstBoot {
        confinement: &Confinement::standard(),
        accelerator_cache: &bases.path().join("accelerator.json"),
        memory_mib: 1024,
        time_limit: Duration::from_secs(300),
    };
    let error = base::build(&options, &site.signer, &first_boot, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BaseError::UnknownBase { .. }));
    assert!(!bases.path().join("bases").exists());
}
