//! Steps as they go to the agent: JSON that reads back as the same step, and nothing else.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::digest::Sha256Digest;

fn guest_path() -> impl Strategy<Value = GuestPath> {
    "/(etc|opt|srv)(/[a-zé .\\\\-]{1,8}[a-z]){0,3}".prop_map(|path| path.parse().unwrap())
}

fn recipe_path() -> impl Strategy<Value = RecipePath> {
    "[a-zé][a-z ]{0,8}(/[a-z]{1,8}){0,3}".prop_map(|path| path.parse().unwrap())
}

fn user() -> impl Strategy<Value = UserName> {
    "[a-z_][a-z0-9_-]{0,31}".prop_map(|name| name.parse().unwrap())
}

fn mode() -> impl Strategy<Value = Mode> {
    "[0-7]{4}".prop_map(|mode| mode.parse().unwrap())
}

fn seconds() -> impl Strategy<Value = Seconds> {
    (1u32..=Seconds::LONGEST.seconds()).prop_map(|seconds| format!("{seconds}s").parse().unwrap())
}

fn step_kind() -> impl Strategy<Value = StepKind> {
    let owned = || (guest_path(), of(mode()), of(user()), of(user()));
    prop_oneof![
        vec("[a-z][a-z0-9+.]{1,9}(=[0-9][a-z0-9.~-]{0,5})?", 1..4)
            .prop_map(|names| StepKind::Package(names.iter().map(|name| name.parse().unwrap()).collect())),
        (owned(), recipe_path()).prop_map(|((path, mode, owner, group), source)| {
            StepKind::File(FileStep { path, source: Some(source), content: None, mode, owner, group })
        }),
        (owned(), any::<String>()).prop_map(|((path, mode, owner, group), content)| {
            StepKind::File(FileStep { path, source: None, content: Some(content), mode, owner, group })
        }),
        owned().prop_map(|(path, mode, owner, group)| StepKind::Directory(DirectoryStep {
            path,
            mode,
            owner,
            group
        })),
        (guest_path(), "\\PC{1,20}").prop_map(|(path, target)| StepKind::Link(LinkStep { path, target })),
        (
            user(),
            of(any::<u32>()),
            of(user()),
            vec(user(), 0..3),
            of(guest_path()),
            of(guest_path()),
            any::<bool>(),
            vec("\\PC{1,20}", 0..3)
        )
            .prop_map(|(name, uid, group, groups, home, shell, system, authorized_keys)| {
                StepKind::User(UserStep { name, uid, group, groups, home, shell, system, authorized_keys })
            }),
        (user(), of(any::<u32>()), any::<bool>())
            .prop_map(|(name, gid, system)| StepKind::Group(GroupStep { name, gid, system })),
        ("[a-z][a-z@.-]{0,9}", of(any::<bool>()), of(any::<bool>()))
            .prop_map(|(name, enabled, running)| StepKind::Service(ServiceStep { name, enabled, running })),
        (owned(), "https://[a-z]{1,9}/[a-z%0-9]{0,9}", any::<[u8; 32]>()).prop_map(
            |((path, mode, owner, group), url, digest)| {
                StepKind::Download(DownloadStep {
                    url,
                    sha256: Sha256Digest::from_bytes(digest),
                    path,
                    mode,
                    owner,
                    group,
                })
            }
        ),
        (recipe_path(), of(guest_path()), of("\\PC{1,20}"), seconds()).prop_map(
            |(script, creates, unless, timeout)| StepKind::Run(RunStep { script, creates, unless, timeout })
        ),
    ]
}

proptest! {
    #[test]
    fn a_step_reads_back_as_itself(step in step_kind()) {
        let json = serde_json::to_string(&step).unwrap();
        prop_assert_eq!(serde_json::from_str::<StepKind>(&json).unwrap(), step);
    }
}

#[test]
fn the_wire_form_is_fixed() {
    let source = r#"
        [recipe]
        name = "a/b"
        version = "1.0.0"
        base = ["debian-12"]
        [[step]]
        file = { path = "/etc/motd", content = "x\n", mode = "0644" }
        [[step]]
        service = { name = "nginx", enabled = true }
        [[step]]
        run = { script = "x.sh", unless = "true" }
    "#;
    let steps = Manifest::parse(source).unwrap().steps;
    let json: Vec<String> = steps.iter().map(|step| serde_json::to_string(&step.kind).unwrap()).collect();
    assert_eq!(
        json,
        [
            r#"{"file":{"path":"/etc/motd","content":"x\n","mode":"0644"}}"#,
            r#"{"service":{"name":"nginx","enabled":true}}"#,
            r#"{"run":{"script":"x.sh","unless":"true","timeout":"10m"}}"#,
        ]
    );
}

#[test]
fn the_wire_refuses_what_a_manifest_would() {
    for wrong in [
        r#"{"file":{"path":"/proc/x","content":""}}"#,
        r#"{"file":{"path":"/x","content":"","extra":1}}"#,
        r#"{"file":{"path":"/x","content":"","mode":"9999"}}"#,
        r#"{"file":{"path":"/x","source":"../y"}}"#,
        r#"{"package":["-o"]}"#,
        r#"{"user":{"name":"a:b"}}"#,
        r#"{"puppet":{}}"#,
        r#"{"service":{"name":"x"},"group":{"name":"x"}}"#,
    ] {
        assert!(serde_json::from_str::<StepKind>(wrong).is_err(), "{wrong}");
    }
}
