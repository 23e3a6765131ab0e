//! Ledgers in temporary folders.

use super::*;

const NOW: i64 = 1_795_395_723;

struct Fixture {
    folder: tempfile::TempDir,
    name: RecipeName,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap(), name: "atlas/web".parse().unwrap() };
        std::fs::write(fixture.path(), "").unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.jsonl")
    }

    fn verify(&self, version: &str, content: &str, asked: Asked) -> Result<Entry, LedgerError> {
        Ledger::open(&self.path())?.record_verified(
            &self.name,
            &version.parse().unwrap(),
            Sha256Digest::of(content.as_bytes()),
            asked,
            Timestamp::from_unix(NOW),
        )
    }

    fn authorize(&self, version: &str, content: &str) -> Result<(), LedgerError> {
        Ledger::open(&self.path())?.record_authorized(
            &self.name,
            &version.parse().unwrap(),
            Sha256Digest::of(content.as_bytes()),
            Timestamp::from_unix(NOW),
        )
    }
}

fn code(result: Result<impl std::fmt::Debug, LedgerError>) -> Option<Code> {
    result.unwrap_err().code()
}

#[test]
fn a_version_keeps_its_content_and_the_time_it_was_first_seen() {
    let fixture = Fixture::new();
    let first = fixture.verify("1.4.0", "a", Asked::Newest).unwrap();
    assert_eq!(first.first_seen, Timestamp::from_unix(NOW));
    assert_eq!(fixture.verify("1.4.0", "a", Asked::Newest).unwrap(), first);
    assert_eq!(code(fixture.verify("1.4.0", "b", Asked::Newest)), Some(Code::VersionReused));
    assert_eq!(code(fixture.verify("1.4.0", "b", Asked::ByVersion)), Some(Code::VersionReused));
    fixture.verify("1.4.1", "b", Asked::Newest).unwrap();
    assert_eq!(std::fs::read_to_string(fixture.path()).unwrap().lines().count(), 2);
}

#[test]
fn a_ledger_that_is_lost_is_not_an_empty_one() {
    let fixture = Fixture::new();
    fixture.verify("1.4.0", "a", Asked::Newest).unwrap();
    std::fs::remove_file(fixture.path()).unwrap();
    let error = fixture.verify("1.4.0", "b", Asked::Newest).unwrap_err();
    assert!(matches!(error, LedgerError::Missing { .. }), "{error}");
    assert!(!fixture.path().exists());
}

#[test]
fn build_metadata_does_not_make_another_version() {
    let fixture = Fixture::new();
    fixture.verify("1.4.0+a", "a", Asked::Newest).unwrap();
    assert_eq!(code(fixture.verify("1.4.0+b", "b", Asked::Newest)), Some(Code::VersionReused));
    assert_eq!(code(fixture.verify("1.4.0", "c", Asked::Newest)), Some(Code::VersionReused));
    fixture.verify("1.4.0-rc.1", "d", Asked::Newest).unwrap();
}

#[test]
fn nothing_goes_below_the_highest_authorized_version_unasked() {
    let fixture = Fixture::new();
    fixture.verify("1.0.0", "one", Asked::Newest).unwrap();
    fixture.verify("3.0.0", "three", Asked::Newest).unwrap();
    fixture.verify("1.5.0", "only verified is not authorized", Asked::Newest).unwrap();
    fixture.authorize("2.0.0", "two").unwrap();
    fixture.authorize("1.9.0", "asked for").unwrap();
    assert_eq!(code(fixture.verify("1.0.0", "one", Asked::Newest)), Some(Code::VersionRollback));
    assert_eq!(code(fixture.verify("2.0.0-rc.1", "rc", Asked::Newest)), Some(Code::VersionRollback));
    fixture.verify("1.0.0", "one", Asked::ByVersion).unwrap();
    fixture.verify("2.0.0", "two", Asked::Newest).unwrap();
    fixture.verify("2.1.0", "next", Asked::Newest).unwrap();
    let ledger = Ledger::open(&fixture.path()).unwrap();
    assert_eq!(ledger.highest_authorized(&fixture.name), Some(&Version::new(2, 0, 0)));
    assert_eq!(ledger.highest_authorized(&"atlas/other".parse().unwrap()), None);
}

#[test]
fn what_was_about_to_be_authorized_is_not_published_until_that_is_recorded() {
    let fixture = Fixture::new();
    fixture.authorize("1.0.0", "one").unwrap();
    fixture.authorize("2.0.0+b", "two").unwrap();
    let mut ledger = Ledger::open(&fixture.path()).unwrap();
    assert_eq!((ledger.highest_published(&fixture.name), ledger.last_commit()), (None, None));
    let (one, now) = (Version::new(1, 0, 0), Timestamp::from_unix(NOW));
    ledger.record_published(&fixture.name, &one, Sha256Digest::of(b"one"), "c0ffee", now).unwrap();
    drop(ledger);
    let mut ledger = Ledger::open(&fixture.path()).unwrap();
    assert_eq!(ledger.highest_published(&fixture.name), Some(&one));
    assert_eq!(ledger.highest_authorized(&fixture.name), Some(&"2.0.0+b".parse().unwrap()));
    assert_eq!(ledger.last_commit(), Some("c0ffee"));
    let left: Vec<_> = ledger.unpublished().map(|(_, version)| version.to_string()).collect();
    assert_eq!(left, ["2.0.0+b"]);
    let other = ledger.record_published(&fixture.name, &one, Sha256Digest::of(b"two"), "c0ffee", now);
    assert_eq!(code(other), Some(Code::VersionReused));
}

#[test]
fn a_version_refused_as_a_rollback_is_in_the_ledger_all_the_same() {
    let fixture = Fixture::new();
    fixture.authorize("2.0.0", "two").unwrap();
    assert_eq!(code(fixture.verify("1.0.0", "a", Asked::Newest)), Some(Code::VersionRollback));
    assert_eq!(code(fixture.verify("1.0.0", "b", Asked::ByVersion)), Some(Code::VersionReused));
}

#[test]
fn a_version_cannot_be_authorized_with_other_content() {
    let fixture = Fixture::new();
    fixture.verify("1.0.0", "a", Asked::Newest).unwrap();
    assert_eq!(code(fixture.authorize("1.0.0", "b")), Some(Code::VersionReused));
}

#[test]
fn whatever_part_of_the_last_line_a_kill_left_the_lines_before_it_count() {
    let fixture = Fixture::new();
    fixture.verify("1.0.0", "a", Asked::Newest).unwrap();
    let whole = std::fs::read(fixture.path()).unwrap();
    fixture.verify("1.1.0", "b", Asked::Newest).unwrap();
    let both = std::fs::read(fixture.path()).unwrap();
    for end in whole.len()..both.len() {
        std::fs::write(fixture.path(), &both[..end]).unwrap();
        assert_eq!(code(fixture.verify("1.0.0", "other", Asked::Newest)), Some(Code::VersionReused), "{end}");
        fixture.verify("1.1.0", "other", Asked::Newest).unwrap();
        assert_eq!(std::fs::read(fixture.path()).unwrap().len(), both.len(), "{end}");
    }
    // A torn line longer than the one written next leaves nothing of itself behind that.
    std::fs::write(fixture.path(), [&whole[..], &[0; 1000]].concat()).unwrap();
    fixture.verify("1.1.0", "other", Asked::Newest).unwrap();
    assert_eq!(std::fs::read(fixture.path()).unwrap().len(), both.len());
    fixture.verify("1.1.0", "other", Asked::Newest).unwrap();
}

#[test]
fn damage_elsewhere_is_refused() {
    let fixture = Fixture::new();
    fixture.verify("1.0.0", "a", Asked::Newest).unwrap();
    fixture.authorize("1.1.0", "b").unwrap();
    let whole = std::fs::read_to_string(fixture.path()).unwrap();
    let lines: Vec<_> = whole.lines().collect();
    for damaged in [
        format!("{}\n\n{}\n", lines[0], lines[1]),
        whole.replace("verified", "verfied"),
        whole.replace("authorized", "published"),
        whole.replace("\"at\"", "\"of\""),
        format!("{}\n{}\n", lines[0], lines[2]),
        format!("{whole}{}\n", lines[0].replace("2026", "2027")),
        format!("{}\0\n{}\n", lines[0], lines[1]),
    ] {
        std::fs::write(fixture.path(), damaged).unwrap();
        let error = Ledger::open(&fixture.path()).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }) && error.code().is_none(), "{error}");
    }
}

#[test]
fn two_processes_take_turns() {
    let fixture = Fixture::new();
    let held = Ledger::open(&fixture.path()).unwrap();
    let path = fixture.path();
    let (said, heard) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        Ledger::open(&path).unwrap();
        said.send(()).unwrap();
    });
    assert!(heard.recv_timeout(std::time::Duration::from_millis(100)).is_err());
    drop(held);
    heard.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    other.join().unwrap();
}
