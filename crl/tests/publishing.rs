//! From issue to the published folder and back, with writers that die, race and repeat.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod site;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crl::{
    AuthenticCrl, BODY_FILE, CrlError, HEADER_FILE, IssueError, NEXT_BODY_FILE, Reason, RecipeCrl, Scope,
    Seen, Selector, Status, issue, load, store,
};
use recipe_spec::code::Code;
use recipe_spec::digest::Sha256Digest;
use recipe_spec::timestamp::Timestamp;
use site::{ISSUER, Site, WEEK, at, recipe};

type Bytes = (Vec<u8>, Vec<u8>);

fn next(site: &Site, previous: Option<&AuthenticCrl>, add: &[Selector]) -> Bytes {
    let add: Vec<_> = add.iter().map(|selector| (selector.clone(), Reason::Superseded, at(0))).collect();
    issue(previous, &add, ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap()
}

fn authentic(site: &Site, (header, body): &Bytes) -> AuthenticCrl {
    AuthenticCrl::verify(header, body, &site.pins, at(0)).unwrap()
}

/// A site and its first `count` lists; list `n` adds recipe `n`.
fn chain(count: u32) -> (Site, Vec<Bytes>) {
    let site = Site::new();
    let mut lists: Vec<Bytes> = Vec::new();
    for n in 0..count {
        let previous = lists.last().map(|bytes| authentic(&site, bytes));
        lists.push(next(&site, previous.as_ref(), &[recipe(n)]));
    }
    (site, lists)
}

#[test]
fn a_chain_of_lists_is_issued_published_and_asked() {
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    let published = folder.path().join("published");
    let seen = Seen::open(folder.path().join("state")).unwrap();
    assert_eq!(seen.current(&published, &site.pins, at(0)).unwrap_err().code(), Code::CrlMissing);

    let mut previous: Option<RecipeCrl> = None;
    for n in 0..4u32 {
        let (header, body) = next(&site, previous.as_ref().map(RecipeCrl::authentic), &[recipe(n)]);
        store(&published, &header, &body).unwrap();
        let list = seen.current(&published, &site.pins, at(0)).unwrap();
        assert_eq!(list.number(), u64::from(n) + 1);
        assert_eq!(list.header().previous(), previous.as_ref().map(RecipeCrl::header_sha256));
        assert_eq!(list.header().epoch, 1);
        assert_eq!(list.header().entries, u64::from(n) + 1);
        for m in 0..6 {
            let revoked = matches!(list.status(&recipe(m)), Status::Revoked { .. });
            assert_eq!(revoked, m <= n, "recipe {m} on list {}", n + 1);
        }
        previous = Some(list);
    }
    assert_eq!(seen.current(&published, &site.pins, at(WEEK)).unwrap_err().code(), Code::CrlExpired);
    assert_eq!(seen.current(&published, &site.pins, at(-86_400)).unwrap_err().code(), Code::ClockBackward);
}

#[test]
fn asking_about_everything_at_once_tells_all_that_is_revoked() {
    let site = Site::new();
    let key: Selector = format!("key:{}", "ab".repeat(32)).parse().unwrap();
    let version: Selector = "version:atlas/web@1.4.0".parse().unwrap();
    let add = [(key.clone(), Reason::KeyCompromise, at(-5)), (version.clone(), Reason::Superseded, at(0))];
    let (header, body) = issue(None, &add, ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap();
    let list = RecipeCrl::verify(&header, &body, &site.pins, at(0)).unwrap();

    let clear = list.check_all(&[recipe(1), recipe(2)]).unwrap();
    assert_eq!((clear.number, clear.header, clear.checked), (1, list.header_sha256(), 2));

    for one in [&version, &key] {
        let asked = [recipe(1), one.clone()];
        let revoked = list.check_all(&asked).unwrap_err();
        assert_eq!(revoked.revocations.len(), 1);
        assert_eq!(&revoked.revocations[0].selector, one);
    }
    let revoked = list.check_all(&[recipe(1), version.clone(), key.clone(), recipe(2)]).unwrap_err();
    assert_eq!(revoked.code(), Code::Revoked);
    let told: Vec<_> =
        revoked.revocations.iter().map(|one| (one.selector.clone(), one.reason, one.date)).collect();
    assert_eq!(told, [(version, Reason::Superseded, at(0)), (key, Reason::KeyCompromise, at(-5))]);
    assert!(revoked.to_string().starts_with("version:atlas/web@1.4.0 is revoked since "), "{revoked}");
}

#[test]
fn an_expired_list_is_renewed_with_all_that_it_held() {
    let (site, lists) = chain(1);
    let expired = AuthenticCrl::verify(&lists[0].0, &lists[0].1, &site.pins, at(2 * WEEK)).unwrap();
    let (header, body) =
        issue(Some(&expired), &[], ISSUER, Scope::Site, at(3 * WEEK), &site.issuer, at(2 * WEEK)).unwrap();
    let list = RecipeCrl::verify(&header, &body, &site.pins, at(2 * WEEK)).unwrap();
    assert_eq!((list.number(), list.authentic().body().len()), (2, 1));
}

#[test]
fn what_cannot_be_issued_is_refused() {
    let (site, lists) = chain(1);
    let first = authentic(&site, &lists[0]);
    let refusal =
        |add: &[(Selector, Reason, Timestamp)], issuer: &str, now: Timestamp, next_update: Timestamp| {
            issue(Some(&first), add, issuer, Scope::Site, next_update, &site.issuer, now).unwrap_err().code()
        };
    assert_eq!(refusal(&[], ISSUER, at(-1), at(WEEK)), Code::ClockBackward);
    assert_eq!(refusal(&[], "another site", at(0), at(WEEK)), Code::CrlInvalid);
    assert_eq!(refusal(&[], "", at(0), at(WEEK)), Code::CrlInvalid);
    assert_eq!(refusal(&[], ISSUER, at(0), at(0)), Code::CrlInvalid);
    assert_eq!(refusal(&[], ISSUER, at(0), "2106-02-07T06:28:16Z".parse().unwrap()), Code::CrlInvalid);
    for date in [at(1), Timestamp::from_unix(-1), beyond_32_bits()] {
        assert_eq!(
            refusal(&[(recipe(7), Reason::Superseded, date)], ISSUER, at(0), at(WEEK)),
            Code::CrlInvalid
        );
    }
}

fn beyond_32_bits() -> Timestamp {
    Timestamp::from_unix(i64::from(u32::MAX) + 1)
}

#[test]
fn a_date_that_no_record_holds_is_refused_with_the_dates_that_one_does() {
    let site = Site::new();
    let add = [(recipe(7), Reason::Superseded, beyond_32_bits())];
    let error = issue(None, &add, ISSUER, Scope::Site, at(WEEK), &site.issuer, at(0)).unwrap_err();
    assert!(matches!(error, CrlError::Issue(IssueError::Date { .. })), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "{} cannot be revoked as of then: a list holds dates from 1970-01-01T00:00:00Z to 2106-02-07T06:28:15Z, \
             and 2106-02-07T06:28:16Z is none of them",
            recipe(7)
        )
    );
}

#[test]
fn the_header_digest_is_that_of_the_signed_bytes() {
    let (site, lists) = chain(1);
    let envelope = signer::Envelope::parse_untrusted(&lists[0].0).unwrap();
    assert_eq!(authentic(&site, &lists[0]).header_sha256(), Sha256Digest::of(envelope.payload_untrusted()));
    assert!(envelope.payload_untrusted().len() < 1024, "a header stays under 1 KB");
}

#[test]
fn another_certificate_of_the_same_key_is_no_equivocation() {
    let (site, lists) = chain(1);
    let first = authentic(&site, &lists[0]);
    let renewed = site.issuer_with_renewed_certificate();
    let add = [(recipe(0), Reason::Superseded, at(0))];
    let (header, body) = issue(None, &add, ISSUER, Scope::Site, at(WEEK), &renewed, at(0)).unwrap();
    assert_ne!(header, lists[0].0, "the envelope differs");
    let again = authentic(&site, &(header, body));
    assert_eq!(again.header_sha256(), first.header_sha256());
}

/// The list in a folder, by number; 0 if there is none.
fn number_in(site: &Site, folder: &Path) -> u64 {
    match load(folder) {
        Ok((header, body)) => RecipeCrl::verify(&header, body, &site.pins, at(0)).unwrap().number(),
        Err(error) => {
            assert_eq!(error.code(), Code::CrlMissing, "{error}");
            0
        }
    }
}

/// Each state that a publisher killed between two system calls leaves behind, with the list that is then in force.
/// `old` is the list before, if any.
fn killed(folder: &Path, old: Option<&Bytes>, new: &Bytes, step: usize) {
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    if let Some((header, body)) = old {
        put(HEADER_FILE, header);
        put(BODY_FILE, body);
    }
    let (header, body) = new;
    match step {
        0 => {}
        1 => put("crl.next.body.new", &body[..body.len() / 2]),
        2 => put(NEXT_BODY_FILE, body),
        3 => {
            put(NEXT_BODY_FILE, body);
            put("crl.intoto.jsonl.new", &header[..header.len() / 2]);
        }
        4 => {
            put(NEXT_BODY_FILE, body);
            put(HEADER_FILE, header);
        }
        _ => {
            put(BODY_FILE, body);
            put(HEADER_FILE, header);
        }
    }
}

#[test]
fn a_publisher_killed_at_any_step_leaves_the_old_list_or_the_new_one_and_the_next_goes_on() {
    let (site, lists) = chain(4);
    for step in 0..=5 {
        let in_force = if step < 4 { 0 } else { 1 };
        let empty = tempfile::tempdir().unwrap();
        killed(empty.path(), None, &lists[0], step);
        assert_eq!(number_in(&site, empty.path()), in_force, "first list, step {step}");

        let folder = tempfile::tempdir().unwrap();
        killed(folder.path(), Some(&lists[0]), &lists[1], step);
        assert_eq!(number_in(&site, folder.path()), 1 + in_force, "second list, step {step}");
        for (header, body) in &lists[1 + in_force as usize..] {
            store(folder.path(), header, body).unwrap();
        }
        assert_eq!(number_in(&site, folder.path()), 4);
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [BODY_FILE, HEADER_FILE, "crl.lock"], "nothing is left lying about");
    }
}

#[test]
fn a_publisher_killed_and_one_killed_after_it() {
    // The second dies having written its own next body: the first one's must not have been lost by that.
    let (site, lists) = chain(3);
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path(), Some(&lists[0]), &lists[1], 4);
    fs::create_dir(folder.path().join("crl.intoto.jsonl.new")).unwrap();
    let stopped = store(folder.path(), &lists[2].0, &lists[2].1).unwrap_err();
    assert_eq!(stopped.code(), Code::CrlMissing, "{stopped}");
    assert_eq!(number_in(&site, folder.path()), 2);
}

/// All that others can open they can lock: the folder, which is for all to read, and what lies in it.
#[test]
fn nobody_else_can_hold_up_a_revocation() {
    let (site, lists) = chain(2);
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let seen = Seen::open(folder.path().join("seen")).unwrap();
    store(folder.path(), &lists[0].0, &lists[0].1).unwrap();
    let mut held = Vec::new();
    for place in [folder.path().to_owned(), folder.path().join("seen")] {
        held.push(fs::File::open(&place).unwrap());
        for entry in fs::read_dir(&place).unwrap().map(Result::unwrap) {
            if entry.metadata().unwrap().is_file() && entry.metadata().unwrap().mode() & 0o066 != 0 {
                held.push(fs::File::open(entry.path()).unwrap());
            }
        }
    }
    held.iter().for_each(|file| file.try_lock().unwrap());
    store(folder.path(), &lists[1].0, &lists[1].1).unwrap();
    assert_eq!(number_in(&site, folder.path()), 2);
    seen.mark().unwrap();

    // A lock that an older version left open to all is closed.
    let lock = folder.path().join("seen/crl-seen.lock");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    seen.mark().unwrap();
    assert_eq!(lock.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn of_two_publishers_who_extend_one_list_the_second_is_refused() {
    let (site, lists) = chain(1);
    let first = authentic(&site, &lists[0]);
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), &lists[0].0, &lists[0].1).unwrap();
    let candidates: Vec<Bytes> = (10..16).map(|n| next(&site, Some(&first), &[recipe(n)])).collect();
    let codes: Vec<Option<Code>> = thread::scope(|scope| {
        let path = folder.path();
        let publishers: Vec<_> = candidates
            .iter()
            .map(|(header, body)| {
                scope.spawn(move || store(path, header, body).err().map(|error| error.code()))
            })
            .collect();
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| code.is_none()).count(), 1, "{codes:?}");
    assert!(codes.iter().flatten().all(|code| *code == Code::CrlEquivocation), "{codes:?}");
    let winner = codes.iter().position(Option::is_none).unwrap();
    assert_eq!(load(folder.path()).unwrap(), candidates[winner]);
}

#[test]
fn an_old_list_is_not_published_over_a_new_one() {
    let (site, lists) = chain(3);
    let folder = tempfile::tempdir().unwrap();
    for (header, body) in &lists {
        store(folder.path(), header, body).unwrap();
        store(folder.path(), header, body).unwrap();
    }
    assert_eq!(store(folder.path(), &lists[1].0, &lists[1].1).unwrap_err().code(), Code::CrlRollback);
    let restored = authentic(&site, &lists[1]);
    let (header, body) = next(&site, Some(&restored), &[recipe(50)]);
    assert_eq!(
        store(folder.path(), &header, &body).unwrap_err().code(),
        Code::CrlEquivocation,
        "after a backup"
    );
    assert_eq!(store(folder.path(), &lists[0].0, &lists[1].1).unwrap_err().code(), Code::CrlInvalid, "mixed");
    assert_eq!(number_in(&site, folder.path()), 3);
}

#[test]
fn a_reader_never_gets_a_mixed_pair() {
    let (site, lists) = chain(30);
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), &lists[0].0, &lists[0].1).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut highest = 0;
            while !done.load(Ordering::Relaxed) {
                let number = number_in(&site, folder.path());
                assert!(number >= highest.max(1), "{number} after {highest}");
                highest = number;
            }
        });
        for (header, body) in &lists[1..] {
            store(folder.path(), header, body).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn hostile_files_in_the_folder() {
    let (site, lists) = chain(1);
    let (header, body) = &lists[0];
    let seen_folder = tempfile::tempdir().unwrap();
    let seen = Seen::open(seen_folder.path()).unwrap();
    let code_with = |spoil: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), header, body).unwrap();
        spoil(folder.path());
        seen.current(folder.path(), &site.pins, at(0)).err().map(|error| error.code())
    };
    assert_eq!(code_with(&|_| {}), None);
    assert_eq!(code_with(&|path| fs::remove_file(path.join(HEADER_FILE)).unwrap()), Some(Code::CrlMissing));
    assert_eq!(code_with(&|path| fs::remove_file(path.join(BODY_FILE)).unwrap()), Some(Code::CrlMissing));
    assert_eq!(code_with(&|path| fs::write(path.join(HEADER_FILE), b"").unwrap()), Some(Code::CrlInvalid));
    assert_eq!(
        code_with(&|path| fs::write(path.join(HEADER_FILE), "<html>").unwrap()),
        Some(Code::CrlInvalid)
    );
    assert_eq!(code_with(&|path| fs::write(path.join(BODY_FILE), b"").unwrap()), Some(Code::CrlInvalid));
    let endless = |name: &'static str, length: u64| {
        move |path: &Path| {
            fs::OpenOptions::new().write(true).open(path.join(name)).unwrap().set_len(length).unwrap()
        }
    };
    assert_eq!(code_with(&endless(HEADER_FILE, 1 << 40)), Some(Code::CrlInvalid));
    assert_eq!(code_with(&endless(BODY_FILE, 1 << 40)), Some(Code::CrlInvalid));
    let link = |path: &Path| {
        fs::rename(path.join(BODY_FILE), path.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", path.join(BODY_FILE)).unwrap();
    };
    assert!(code_with(&link).is_some(), "no link is followed");
}
