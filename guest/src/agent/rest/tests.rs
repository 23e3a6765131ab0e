use std::process::{Child, Command};

use guest::control::AgentErrorKind;

use super::*;
use crate::agent::cgroups::tests::Tree;
use crate::agent::identity::tests::identity;

const SHORT: Patience = Patience { strays: Duration::from_millis(60), freezing: Duration::from_millis(60) };
const LONG: Patience = Patience { strays: Duration::from_secs(20), freezing: Duration::from_secs(20) };

/// The machine of these tests has tasks in cgroups of its own.
const NOBODY: Outside<'_> = &|_| Ok(None);

fn proc() -> Proc {
    Proc::at("/proc").unwrap()
}

/// A hierarchy with the agent's cgroup.
fn tree() -> Tree {
    let tree = Tree::new(&[]);
    tree.cgroup(OWN, false, &[std::process::id()]);
    tree
}

fn paths(frozen: &BTreeSet<PathBuf>) -> Vec<&str> {
    frozen.iter().map(|path| path.to_str().unwrap()).collect()
}

/// A process that runs until the test ends.
struct Program(Child);

impl Program {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn all_but_the_agent_are_frozen_and_go_on_again() {
    let tree = tree();
    tree.cgroup("/init.scope", true, &[1]);
    tree.cgroup("/system.slice", true, &[]);
    // The guest's own doing, which a clone keeps.
    tree.cgroup("/paused.slice", true, &[]);
    tree.write("/paused.slice", "cgroup.freeze", "1\n");
    let cgroups = tree.hierarchy();
    let frozen = freeze_all(&cgroups, &proc(), SHORT, NOBODY).unwrap();
    assert_eq!(paths(&frozen), ["/init.scope", "/system.slice"]);
    let asked = |path| tree.read(path, "cgroup.freeze");
    assert_eq!((asked("/init.scope").as_str(), asked("/system.slice").as_str()), ("1", "1"));
    assert_eq!(asked(OWN), "0");
    thaw(&cgroups, &frozen).unwrap();
    assert_eq!((asked("/init.scope").as_str(), asked("/system.slice").as_str()), ("0", "0"));
    assert_eq!(asked("/paused.slice"), "1\n");
}

#[test]
fn what_does_not_freeze_in_time_is_named_and_all_go_on() {
    let tree = tree();
    tree.cgroup("/a.slice", true, &[]);
    tree.cgroup("/b\u{1b}.slice", false, &[]);
    let error = freeze_all(&tree.hierarchy(), &proc(), SHORT, NOBODY).unwrap_err();
    assert_eq!(error.kind, AgentErrorKind::TimedOut);
    assert!(error.message.contains(r#"freezing the cgroup "/b\u{1b}.slice""#), "{}", error.message);
    assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0");
    assert_eq!(tree.read("/b\u{1b}.slice", "cgroup.freeze"), "0");
}

#[test]
fn a_kernel_that_does_not_tell_is_refused_and_all_go_on() {
    let tree = tree();
    tree.cgroup("/a.slice", true, &[]);
    tree.cgroup("/b.slice", true, &[]);
    tree.write("/b.slice", "cgroup.events", "populated 1\n");
    let error = freeze_all(&tree.hierarchy(), &proc(), LONG, NOBODY).unwrap_err();
    assert_eq!(error.kind, AgentErrorKind::System);
    assert!(error.message.contains("cgroup.events is not understood"), "{}", error.message);
    assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0");
    assert_eq!(tree.read("/b.slice", "cgroup.freeze"), "0");
}

#[test]
fn a_process_in_the_topmost_cgroup_is_refused_before_anything_is_frozen() {
    let program = Program::start();
    let tree = tree();
    tree.cgroup("/a.slice", true, &[]);
    tree.write("/", "cgroup.procs", &format!("{}\n", program.0.id()));
    let error = freeze_all(&tree.hierarchy(), &proc(), SHORT, NOBODY).unwrap_err();
    assert_eq!(error.kind, AgentErrorKind::System);
    let named = format!(r#"process {} ("sleep") is in the cgroup "/""#, program.0.id());
    assert!(error.message.contains(&named), "{}", error.message);
    assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0\n");
}

#[test]
fn what_is_within_the_agents_cgroup_is_refused() {
    let program = Program::start();
    let tree = tree();
    let look = || stray(&tree.hierarchy(), &proc());
    assert_eq!(look().unwrap(), None);
    tree.write(OWN, "cgroup.procs", &format!("{}\n{}\n", std::process::id(), program.0.id()));
    let expected = Unrest::Stray { pid: program.0.id(), name: "sleep".into(), cgroup: OWN };
    assert_eq!(look().unwrap(), Some(expected));
    tree.write(OWN, "cgroup.procs", &format!("{}\n", std::process::id()));
    tree.cgroup("/countersign/nest", true, &[]);
    assert_eq!(look().unwrap(), Some(Unrest::Within("/countersign/nest".into())));
    tree.write(OWN, "cgroup.procs", "");
    std::fs::remove_dir_all(tree.at("/countersign/nest", "")).unwrap();
    assert!(look().unwrap_err().to_string().contains("the agent is not in the cgroup"));
}

#[test]
fn who_has_ended_is_no_stray() {
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    assert_eq!(program(&proc(), ended.id()).unwrap(), None);
    assert!(program(&proc(), std::process::id()).unwrap().is_some());
}

#[test]
fn what_ends_or_appears_meanwhile_is_waited_for() {
    let program = Program::start();
    let tree = tree();
    tree.cgroup("/a.slice", false, &[]);
    // A cgroup that is gone again when it is looked at has no files.
    std::fs::create_dir(tree.at("/gone.slice", "")).unwrap();
    tree.write("/", "cgroup.procs", &format!("{}\n", program.0.id()));
    let started = Instant::now();
    let wait_for = |path: &str| {
        while tree.read(path, "cgroup.freeze") != "1" {
            assert!(started.elapsed() < LONG.freezing, "{path} is not frozen");
            thread::sleep(Duration::from_millis(1));
        }
    };
    let frozen = thread::scope(|scope| {
        let at_rest = scope.spawn(|| freeze_all(&tree.hierarchy(), &proc(), LONG, NOBODY));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0\n", "nothing is frozen before it can be");
        tree.write("/", "cgroup.procs", "");
        wait_for("/a.slice");
        // Who was not frozen yet makes a cgroup, and starts what gets into the topmost one.
        tree.cgroup("/late.slice", false, &[]);
        tree.write("/", "cgroup.procs", &format!("{}\n", program.0.id()));
        tree.becomes("/a.slice", true);
        wait_for("/late.slice");
        tree.becomes("/late.slice", true);
        thread::sleep(Duration::from_millis(50));
        assert!(!at_rest.is_finished());
        tree.write("/", "cgroup.procs", "");
        at_rest.join().unwrap()
    });
    assert_eq!(paths(&frozen.unwrap()), ["/a.slice", "/late.slice"]);
}

#[test]
fn whoever_moved_to_a_new_cgroup_is_found_by_its_process() {
    let tree = tree();
    tree.cgroup("/a.slice", true, &[]);
    let looks = std::cell::RefCell::new(Vec::new());
    let evades: Outside<'_> = &|still| {
        looks.borrow_mut().push(still.clone());
        Ok(Some(Unrest::Running("/n1".into())))
    };
    let error = freeze_all(&tree.hierarchy(), &proc(), SHORT, evades).unwrap_err();
    assert_eq!(error.kind, AgentErrorKind::TimedOut);
    assert!(error.message.contains(r#"freezing the cgroup "/n1""#), "{}", error.message);
    assert_eq!(looks.borrow()[0], BTreeSet::from(["/a.slice".into()]));
    assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0");
}

#[test]
fn a_task_outside_the_frozen_cgroups_is_found() {
    let program = Program::start();
    let of_program = tops(&proc(), program.0.id()).unwrap();
    assert_eq!(of_program.len(), 1);
    let found = outside(&proc(), &BTreeSet::new()).unwrap();
    assert!(matches!(found, Some(Unrest::Running(_))), "{found:?}");
    let all: BTreeSet<PathBuf> = proc()
        .numbers(".", MAX_TASKS)
        .unwrap()
        .into_iter()
        .filter_map(|pid| tops(&proc(), pid).ok())
        .flatten()
        .collect();
    assert!(all.contains(&of_program[0]));
    assert_eq!(outside(&proc(), &all).unwrap(), None);
    // A thread of the kernel, where this machine shows any, is frozen by nobody.
    assert_eq!(
        tops(&proc(), std::process::id()).unwrap().len(),
        proc().numbers(process(std::process::id()).join("task"), MAX_TASKS).unwrap().len()
    );
}

#[test]
fn the_topmost_cgroup_is_read_from_the_line_of_version_2() {
    for (text, top) in [
        ("0::/\n", "/"),
        ("0::/init.scope\n", "/init.scope"),
        ("1:name=systemd:/x\n0::/system.slice/ssh.service\n", "/system.slice"),
        ("0::/n13 (deleted)\n", "/n13 (deleted)"),
    ] {
        assert_eq!(topmost(text.as_bytes()).unwrap(), Path::new(top), "{text}");
    }
    for bad in ["", "1:cpu:/x\n", "0::\n", "x 0::/a\n"] {
        assert_eq!(topmost(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn one_quiet_look_is_not_enough() {
    let unrest = || Unrest::Running("/a".into());
    let mut looks = [None, Some(unrest()), None, None].into_iter();
    await_rest(LONG.freezing, || Ok(looks.next().unwrap())).unwrap();
    assert_eq!(looks.next(), None);
    let mut looks = [None, Some(unrest())].into_iter();
    await_rest(Duration::ZERO, || Ok(looks.next().unwrap())).unwrap_err();
}

/// At rest, with one cgroup frozen.
fn at_rest(tree: &Tree) -> Repose {
    tree.cgroup("/a.slice", true, &[]);
    tree.write("/a.slice", "cgroup.freeze", "1");
    let frozen = Some(Frozen { cgroups: BTreeSet::from(["/a.slice".into()]), disk: false });
    Repose { frozen, ..Repose::among(tree.hierarchy(), Pool::open().unwrap()) }
}

#[test]
fn a_machine_that_could_not_become_another_stays_frozen() {
    let tree = tree();
    let folder = tempfile::tempdir().unwrap();
    let root = Root::open(folder.path()).unwrap();
    let mut repose = at_rest(&tree);
    for (identity, kind) in [
        (identity(), AgentErrorKind::System),
        (control::Identity { seed: "x".into(), ..identity() }, AgentErrorKind::BadRequest),
    ] {
        assert_eq!(repose.wake(&root, &proc(), identity).unwrap_err().kind, kind);
        assert!(repose.is_at_rest());
        assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "1");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
    }
}

/// Nothing freezes procfs, nor thaws it.
#[test]
fn where_the_disk_does_not_freeze_all_go_on_and_where_it_does_not_thaw_none_does() {
    let tree = tree();
    let mut repose = at_rest(&tree);
    let root = Root::open("/proc").unwrap();
    repose.frozen.as_mut().unwrap().disk = true;
    let error = repose.wake(&root, &proc(), identity()).unwrap_err();
    assert!(error.message.contains("thaw the root file system"), "{}", error.message);
    assert!(repose.is_at_rest());
    assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "1");

    let error = freeze_disk(&root, &tree.hierarchy(), BTreeSet::from(["/a.slice".into()])).unwrap_err();
    assert!(error.message.contains("freeze the root file system"), "{}", error.message);
    assert_eq!(tree.read("/a.slice", "cgroup.freeze"), "0");
}

#[test]
fn names_are_for_machines_that_have_some() {
    let root = Root::open(tempfile::tempdir().unwrap().path()).unwrap();
    let mut repose = Repose::alone(Pool::open().unwrap());
    let awake = repose.wake(&root, &proc(), identity()).unwrap_err();
    assert!(awake.message.contains("does not rest"), "{}", awake.message);
    repose.rest(&root, &proc()).unwrap();
    assert!(repose.is_at_rest());
    let named = repose.wake(&root, &proc(), identity()).unwrap_err();
    assert_eq!(named.kind, AgentErrorKind::BadRequest);
    assert!(named.message.contains("no names"), "{}", named.message);
    assert!(repose.is_at_rest());
}
