//! A user without root: what is missing is named at once, and where nothing is, the base is the same as root's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use end_to_end::command::binary;
use end_to_end::site::project;
use end_to_end::tree::{Net, Tree, is_root};
use end_to_end::vo::copy_folder;
use serde_json::Value;

/// A user id that is nobody's.
const NOBODY: u32 = 61_991;

/// The binary and the site recipes where everybody can read them, and a folder `own` of `owner`'s.
fn world(owner: u32) -> tempfile::TempDir {
    assert!(is_root(), "this test needs root: it becomes somebody else");
    let world = tempfile::tempdir().unwrap();
    std::fs::set_permissions(world.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::copy(binary(), world.path().join("countersign")).unwrap();
    copy_folder(&project().join("site-recipes"), &world.path().join("site-recipes"));
    let own = world.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(owner), Some(owner)).unwrap();
    world
}

/// `unshare` with `options`, then `become_nobody` and in it `init` and `base build`: exit status and standard error of the build.
fn build_in(world: &Path, options: &[&str], become_nobody: &[&str]) -> (Option<i32>, String) {
    let script = "cd \"$1/own\" && \"$1/countersign\" init site --id s --site-recipes \"$1/site-recipes\" --no-passphrase >&2 \
        && exec \"$1/countersign\" --site site base build debian-12 2>said";
    let output = Command::new("unshare")
        .args(options)
        .args(become_nobody)
        .args(["sh", "-c", script, "sh"])
        .arg(world)
        .env("HOME", world.join("own"))
        .output()
        .unwrap();
    let own = world.join("own");
    let said = std::fs::read_to_string(own.join("said")).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(std::fs::read_dir(own.join("site/bases")).unwrap().count(), 0, "nothing is left behind");
    (output.status.code(), said)
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let world = world(NOBODY);
    // What is no regular file is no program.
    let hide = "for program in mmdebstrap mke2fs qemu-system-x86_64 newuidmap newgidmap; do \
        for folder in /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin; do \
        [ ! -e $folder/$program ] || mount --bind /dev/null $folder/$program; done; done; exec \"$@\"";
    let id = NOBODY.to_string();
    let nobody = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    let (status, said) = build_in(world.path(), &["--mount", "--", "sh", "-c", hide, "hide"], &nobody);
    assert_eq!(status, Some(3), "{said}");
    assert!(said.starts_with("NO_QEMU: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for missing in [
        "mmdebstrap is not installed (package mmdebstrap)",
        "mke2fs is not installed (package e2fsprogs)",
        "newuidmap is not installed (package uidmap)",
        "newgidmap is not installed (package uidmap)",
        "user id 61991 has no name",
        "no usable qemu-system-x86_64 (wanted: QEMU 9.0 or later): it is not installed",
        "allow_same_user in site.toml does not let it run as this one",
    ] {
        assert!(said.contains(missing), "`{missing}` is not in {said}");
    }
    assert!(!said.contains("no user namespace"), "{said}");
}

#[test]
fn a_kernel_that_allows_no_user_namespace_is_named_with_its_setting() {
    let world = world(0);
    // The limit holds in the namespace that sets it, where this user is somebody without root.
    let (user, group) = (format!("--map-user={NOBODY}"), format!("--map-group={NOBODY}"));
    let forbid = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"";
    let options = ["--user", &user, &group, "--keep-caps", "--", "sh", "-ec", forbid, "forbid"];
    let nobody = ["setpriv", "--ambient-caps=-all", "--inh-caps=-all"];
    let (status, said) = build_in(world.path(), &options, &nobody);
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("no user namespace can be made: "), "{said}");
    assert!(said.contains("(sysctl user.max_user_namespaces is 0)"), "{said}");
}

#[test]
#[ignore = "fetches packages twice and boots machines"]
fn a_base_built_without_root_is_as_one_built_by_root() {
    let tree = Tree::minimal();
    let _ = tree.root("bash /project/setup/packages.sh --for ann").ended(0);
    std::fs::copy(binary(), tree.changed("/opt/rust/countersign")).unwrap();
    let init = "cd && countersign init site --id s --site-recipes /project/site-recipes --no-passphrase";
    let _ = tree.run("ann", Net::Host, init).ended(0);
    let build = "cd && countersign --site site base build debian-12";
    let refused = tree.run("ann", Net::Host, build).ended(3);
    let _ = refused.with(&[
        "HOST_FAILED: a base cannot be built here: nothing can run as a user of its own",
        "allow_same_user",
    ]);
    let allow = "cd && sed -i 's/^allow_same_user = false/allow_same_user = true /' site/site.toml";
    let _ = tree.run("ann", Net::Host, allow).ended(0);
    a_killed_build_leaves_nothing_that_lives(&tree);

    let built =
        tree.run("ann", Net::Host, build).ended(0).with(&["which a killed build left", "built debian-12"]);
    eprintln!("{}", built.text);
    let _ = tree.run("ann", Net::None, "cd && countersign --site site base verify debian-12").ended(0);
    let left =
        tree.run("ann", Net::None, "ls -A ~/site/bases; find ~ /tmp ! -user ann ! -user root").ended(0);
    assert_eq!(left.text, ".build.lock\ndebian-12\n");
    what_a_namespace_gives_away_reaches_the_disk(&tree);

    let _ = tree.root(init).ended(0);
    let _ = tree.root(build).ended(0);
    // Both disks, mounted where that is trusted. The initrd and apt's index hold moments and addresses of their making.
    let list = "set -e
        list() {
            qemu-img convert -O raw $1/site/bases/debian-12/disk.qcow2 /disk.raw
            mount -o loop,ro,noload /disk.raw /mnt
            cd /mnt
            find . \\( -type f -printf '%P %y %m %U %G %n %s\\n' -o -type l -printf '%P %y %m %U %G %l\\n' -o -printf '%P %y %m %U %G\\n' \\) | sed 's/^\\(boot.initrd.*\\) .*/\\1/' | sort
            find . -type f ! -path './boot/initrd*' ! -path './var/cache/apt/*pkgcache.bin' -print0 | sort -z | xargs -0 sha256sum
            cd /
            umount /mnt
        }
        list /home/ann >/ann.list
        list /root >/root.list
        diff /ann.list /root.list && wc -l </ann.list";
    let same = tree.root(list).ended(0);
    assert!(same.text.trim().parse::<u32>().unwrap() > 10_000, "{}", same.text);
    let facts = |home: &str| -> Value {
        let path = tree.changed(&format!("{home}/site/bases/debian-12/facts.json"));
        let mut facts: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        // Process ids differ from boot to boot, and the journal lies in a folder named by the machine's id.
        facts.as_object_mut().unwrap().remove("processes").unwrap();
        let of_journal =
            |attribute: &Value| attribute["path"].as_str().unwrap().starts_with("/var/log/journal/");
        facts["attributes"].as_array_mut().unwrap().retain(|attribute| !of_journal(attribute));
        facts
    };
    let (ann, root) = (facts("/home/ann"), facts("/root"));
    assert!(ann["setuid"].as_array().unwrap().len() > 5, "{ann:#}");
    assert_eq!(ann, root, "both look the same from inside");
}

fn a_killed_build_leaves_nothing_that_lives(tree: &Tree) {
    // What was there before is this test's own, as are the words that look for what is left.
    let script = "cd; ids() { ls /proc | grep -E '^[0-9]+$'; }; before=\" $(ids | tr '\\n' ' ')\"
        countersign --site site base build debian-12 >/dev/null 2>&1 & build=$!
        alive() { ids | while read -r id; do
            case \"$before\" in *\" $id \"*) continue;; esac
            grep -qE '^State:.[RSD]' /proc/$id/status 2>/dev/null && tr '\\0' ' ' </proc/$id/cmdline 2>/dev/null && echo; done |
            grep -E '^(/[^ ]*/)?(countersign|unshare|timeout|setpriv|sh|perl|mmdebstrap|apt-get|dpkg|tar|qemu-system-x86_64)( |$)'; }
        until [ -n \"$(find ~/site/bases/.build-*/tree/etc/shadow ! -group ann 2>/dev/null)\" ]; do
            kill -0 $build || exit 9; sleep 0.2; done
        alive >/dev/null || exit 8
        kill -9 $build; sleep 2; alive && exit 7
        ls -A ~/site/bases; find ~/site/bases ! -user ann -o ! -group ann | wc -l";
    let said = tree.run("ann", Net::Host, script).ended(0).with(&[".build-debian-12-"]);
    assert!(!said.text.trim_end().ends_with("\n0"), "files of others are left to sweep: {}", said.text);
}

/// No package of the base has file capabilities, so a tree of three files stands for one that has.
fn what_a_namespace_gives_away_reaches_the_disk(tree: &Tree) {
    let _ = tree.root("apt-get -qq -y install libcap2-bin >/dev/null").ended(0);
    let script = "cd && export PATH=$PATH:/usr/sbin && mkdir tree && truncate -s 20M inside outside
        inside() { unshare --user --map-root-user --map-auto -- \"$@\"; }
        inside sh -ec 'cp /bin/true tree/capable; setcap cap_net_raw=ep tree/capable
            cp /bin/true tree/set; chown 33:42 tree/set; chmod 6755 tree/set; ln -s x tree/link; chown -h 65534:6 tree/link' &&
        inside mke2fs -q -t ext4 -d tree inside && mke2fs -q -t ext4 -d tree outside
        for disk in inside outside; do debugfs -R 'ea_list /capable' $disk; debugfs -R 'ls -l /' $disk; done 2>/dev/null
        inside rm -r tree";
    let said = tree.run("ann", Net::None, script).ended(0);
    let (inside, outside) = said.text.split_at(said.text.rfind("Extended").unwrap());
    // Version 2 of the attribute, which holds in every machine; version 3 would name ann as the only root it holds for.
    assert!(inside.contains("security.capability (20) = 01 00 00 02 00 20"), "{inside}");
    assert!(
        outside.contains("security.capability (24) = 01 00 00 03 00 20"),
        "what is read from outside: {outside}"
    );
    let words = inside.split_whitespace().collect::<Vec<_>>().join(" ");
    for file in ["106755 (1) 33 42", "120777 (7) 65534 6", "100755 (1) 0 0"] {
        assert!(words.contains(file), "{file}: {words}");
    }
}
