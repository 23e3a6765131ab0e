use super::*;

fn record(id: &str) -> Record {
    Record {
        id: id.to_owned(),
        name: "atlas/web".parse().unwrap(),
        version: semver::Version::new(1, 0, 0),
        authorization: Sha256Digest::of(b"authorization"),
        level: Level::Recipe,
        forwards: vec![(SocketAddrV4::new([127, 0, 0, 1].into(), 8080), 80)],
        started_at: Timestamp::from_unix(1_000_000),
        supervisor: 1,
        qemu: 2,
        uid: 61500,
        accelerator: "tcg".to_owned(),
    }
}

#[test]
fn the_state_follows_the_lock_and_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let instances = Instances::new(folder.path().join("instances"));
    assert!(instances.list().unwrap().is_empty());
    let held = instances.begin("web-1").unwrap();
    assert_eq!(instances.show("web-1").unwrap().state, State::Starting);
    held.running(&record("web-1")).unwrap();
    assert_eq!(instances.show("web-1").unwrap().state, State::Running);
    drop(held);
    assert_eq!(instances.show("web-1").unwrap().state, State::Ended);
    assert_eq!(instances.list().unwrap().len(), 1);

    let held = instances.begin("web-2").unwrap();
    fs::write(held.folder().join(RECORD), "{").unwrap();
    assert!(matches!(instances.show("web-2"), Err(InstanceError::BadRecord { .. })));
    fs::remove_file(held.folder().join(RECORD)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, held.folder().join(RECORD), rustix::fs::Mode::RUSR).unwrap();
    assert!(matches!(instances.show("web-2"), Err(InstanceError::BadRecord { .. })), "nor is it waited for");
    let states: Vec<_> = instances.list().unwrap().into_iter().map(|instance| instance.state).collect();
    assert_eq!(states, [State::Ended, State::Starting], "a damaged record hides no other instance");
}

#[test]
fn a_supervisor_hears_stop_also_while_it_starts_and_the_caller_waits_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let instances = Instances::new(folder.path().to_owned());
    for id in ["starting", "running"] {
        let held = instances.begin(id).unwrap();
        if id == "running" {
            held.running(&record(id)).unwrap();
        }
        let (say, heard) = std::sync::mpsc::channel();
        let listening = held.listen(move || say.send(()).unwrap()).unwrap();
        assert!(!listening.asked_to_stop());
        let supervisor = std::thread::spawn(move || {
            heard.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(listening.asked_to_stop());
            drop(held);
        });
        let ended = instances.stop(id, Duration::from_secs(20)).unwrap();
        supervisor.join().unwrap();
        assert_eq!(ended.state, State::Ended, "{id}");
    }
}

#[test]
fn an_instance_that_cannot_be_read_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let instances = Instances::new(folder.path().to_owned());
    let held = instances.begin("spoiled").unwrap();
    held.running(&record("spoiled")).unwrap();
    let lock = held.folder().join(LOCK);
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    fs::write(folder.path().join("no-folder"), "").unwrap();
    let _other = instances.begin("web-1").unwrap();
    assert!(matches!(instances.show("spoiled"), Err(InstanceError::Io { .. })));
    let listed = instances.list().unwrap();
    let states: Vec<_> = listed.iter().map(|one| (one.id.as_str(), one.state)).collect();
    assert_eq!(states, [("spoiled", State::Unknown), ("web-1", State::Starting)]);
    assert_eq!(listed[0].record.as_ref().unwrap().id, "spoiled");
    assert_eq!(serde_json::to_value(&listed).unwrap()[0]["state"], "unknown");
}

#[test]
fn all_are_listed_and_of_the_ended_the_newest_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let instances = Instances::new(folder.path().to_owned());
    for number in 0..KEPT + 2 {
        let id = format!("web-{number}");
        let started_at = Timestamp::from_unix(1_000_000 + i64::try_from(number).unwrap());
        fs::create_dir(folder.path().join(&id)).unwrap();
        let record = Record { started_at, ..record(&id) };
        fs::write(folder.path().join(&id).join(RECORD), serde_json::to_vec(&record).unwrap()).unwrap();
    }
    assert_eq!(instances.list().unwrap().len(), KEPT + 2);
    let _held = instances.begin("new").unwrap();
    assert_eq!(instances.list().unwrap().len(), KEPT + 1);
    for (id, kept) in [("web-0", false), ("web-1", false), ("web-2", true)] {
        assert_eq!(instances.show(id).is_ok(), kept, "{id}");
    }
}

#[test]
fn what_never_ran_is_swept_unless_it_may_have_just_begun() {
    let folder = tempfile::tempdir().unwrap();
    let instances = Instances::new(folder.path().to_owned());
    let made = |id: &str, record: Option<&str>, age: Duration| {
        let folder = folder.path().join(id);
        fs::create_dir_all(folder.join(MACHINE)).unwrap();
        if let Some(record) = record {
            fs::write(folder.join(RECORD), record).unwrap();
        }
        File::open(&folder).unwrap().set_modified(std::time::SystemTime::now() - age).unwrap();
    };
    let old = JUST_MADE * 2;
    made("old", None, old);
    made("just-made", None, Duration::ZERO);
    made("damaged", Some("{"), old);
    let held = instances.begin("held").unwrap();
    File::open(held.folder()).unwrap().set_modified(std::time::SystemTime::now() - old).unwrap();
    let _new = instances.begin("new").unwrap();
    let ids: Vec<_> = instances.list().unwrap().into_iter().map(|instance| instance.id).collect();
    assert_eq!(ids, ["damaged", "held", "just-made", "new"]);
    assert!(!folder.path().join("damaged").join(MACHINE).exists());
    assert!(instances.begin("held").is_err());
    assert!(held.folder().exists(), "what is another's is not put away");
}

#[test]
fn a_look_at_a_lock_does_not_keep_it_from_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOCK);
    let file = File::create(&path).unwrap();
    let look = || {
        let looking = File::open(&path).unwrap();
        flock(&looking, FlockOperation::NonBlockingLockShared).unwrap();
        looking
    };
    let looking = look();
    assert_eq!(lock(&file).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let looked = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(looking);
    });
    lock(&file).unwrap();
    looked.join().unwrap();
    assert!(lock_is_held(&path).unwrap());
}

#[test]
fn a_supervisor_that_does_not_end_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let instances = Instances::new(folder.path().to_owned());
    let _held = instances.begin("web-3").unwrap();
    let error = instances.stop("web-3", Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, InstanceError::StillRunning { .. }), "{error}");
}

#[test]
fn an_id_never_leaves_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let instances = Instances::new(folder.path().join("instances"));
    fs::create_dir_all(folder.path().join("other")).unwrap();
    for id in ["../other", "", ".", "/etc", "Web", "-x"] {
        assert!(matches!(instances.show(id), Err(InstanceError::Unknown { .. })), "{id}");
    }
}
