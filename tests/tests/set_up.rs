//! Set-up in every state that a machine can be in. Those that install something do it in a small Debian of their own with the
//! real apt, and are asked for by name: `make soak`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use end_to_end::site::project;
use end_to_end::tree::{Net, Tree, is_root};

const SET_UP: &str = "bash /project/setup/packages.sh";
/// Debian's source of this tree, without the line of which suite, so that a test writes its own.
const MIRROR: &str =
    "mirror=$(sed -nE 's/^deb ([a-z]+:[^ ]+) bookworm main$/\\1/p' /etc/apt/sources.list | head -n 1)\n";

/// Makes a small unsigned archive in `folder` that says it is `origin`'s bookworm, and holds the name of one package.
fn archive(folder: &str, origin: &str) -> String {
    format!(
        "mkdir -p {folder}/dists/bookworm/main/binary-amd64 && cd {folder}/dists/bookworm || exit
        index=main/binary-amd64/Packages
        printf 'Package: nothing\\nVersion: 1\\nArchitecture: all\\nFilename: x\\nSize: 1\\nSHA256: %064d\\n' 0 >$index
        {{
            printf 'Origin: {origin}\\nLabel: {origin}\\nCodename: bookworm\\nDate: Sat, 01 Jan 2022 00:00:00 UTC\\n'
            printf 'Architectures: amd64\\nComponents: main\\nSHA256:\\n'
            echo \" $(sha256sum <$index | cut -d ' ' -f 1) $(stat -c %s $index) $index\"
        }} >Release"
    )
}

/// Set-up on this host, by a user who is not root if that can be had.
fn on_this_host(wrapper: &[&str], path: &str) -> (i32, String) {
    let mut words = wrapper.to_vec();
    let script = project().join("setup/packages.sh");
    // The script comes in on standard input: not every user may read the project's folder.
    words.extend(["bash", "-s"]);
    let output: Output = Command::new(words[0])
        .args(&words[1..])
        .env("PATH", path)
        .stdin(std::fs::File::open(script).unwrap())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// A folder for programs that stand before the host's own; one is named `cargo`, which set-up looks for and never calls.
fn programs(more: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for (name, text) in more.iter().chain(&[("cargo", "#!/bin/sh\n")]) {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    (folder, path)
}

/// Somebody without root, without a name and without ids of others.
const NOBODY: [&str; 4] = ["setpriv", "--reuid=61990", "--regid=61990", "--clear-groups"];

#[test]
fn where_nothing_is_missing_nothing_is_touched() {
    assert!(is_root(), "this test needs root: it takes network and write access away");
    let (_folder, path) = programs(&[]);
    // No network, and nothing of apt's or dpkg's that could be written.
    let sealed = "for folder in /etc /var/lib /var/cache; do mount --rbind $folder $folder; mount -o remount,bind,ro $folder; done; exec \"$@\"";
    let wrapper = ["unshare", "--mount", "--net", "--", "sh", "-ec", sealed, "sealed"];
    let (status, text) = on_this_host(&wrapper, &path);
    assert_eq!(status, 0, "{text}");
    assert!(text.starts_with("set-up: nothing is missing (QEMU "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn without_root_what_is_missing_is_named_and_nothing_is_installed() {
    assert!(is_root(), "this test needs root: it becomes somebody else");
    let (_folder, path) = programs(&[]);
    let (status, text) = on_this_host(&NOBODY, &path);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("a range of 65536 ids for 61990 in /etc/subuid and /etc/subgid"), "{text}");
    assert!(text.contains("--for 61990"), "{text}");
    assert!(!text.contains("refreshing"), "{text}");
}

/// The words of an old QEMU are enough for what reads them; a real one is in `an_old_qemu_is_refused_or_replaced`.
#[test]
fn an_old_qemu_is_told_from_a_new_one() {
    assert!(is_root(), "this test needs root: it becomes somebody else");
    for (version, missing) in [
        ("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", true),
        ("8.99.1", true),
        ("9.0.0", false),
        ("10.0.2 (Debian 1:10.0.2+ds-2)", false),
    ] {
        let emulator = format!("#!/bin/sh\necho 'QEMU emulator version {version}'\necho Copyright\n");
        let tool = format!("#!/bin/sh\necho 'qemu-img version {version}'\n");
        let new = "#!/bin/sh\necho 'qemu-img version 10.0.2'\n".to_owned();
        for tool in [&tool, &new] {
            let (_folder, path) = programs(&[("qemu-system-x86_64", &emulator), ("qemu-img", tool)]);
            let (status, text) = on_this_host(&NOBODY, &path);
            assert_eq!(status, 1, "{text}");
            let named =
                text.contains("qemu-system-x86 qemu-utils, version 9.0 or newer, from bookworm-backports");
            assert_eq!(named, missing, "{version}: {text}");
            let number = version.split(' ').next().unwrap();
            assert_eq!(text.contains(&format!("(found: {number}, qemu-img")), missing, "{version}: {text}");
        }
    }
}

#[test]
fn a_wrong_command_line_does_nothing() {
    let (_folder, path) = programs(&[]);
    for (arguments, said) in
        [(&["--for"][..], "usage:"), (&["now"], "usage:"), (&["--for", "no-such-user"], "no-such-user")]
    {
        let output = Command::new("bash")
            .arg(project().join("setup/packages.sh"))
            .args(arguments)
            .env("PATH", &path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}

#[test]
#[ignore = "installs packages in a Debian of its own"]
fn a_fresh_machine_is_set_up_and_then_needs_nothing() {
    let tree = Tree::minimal();
    let refused = tree.run("ann", Net::Host, SET_UP).ended(1);
    let refused = refused.with(&[
        "build-essential",
        "mmdebstrap",
        "uidmap",
        "qemu-system-x86 qemu-utils",
        "found: none",
    ]);
    assert!(!refused.text.contains("refreshing"), "{}", refused.text);

    let _ = tree.run("root", Net::None, SET_UP).ended(1).with(&["set-up: apt-get could not install this"]);
    assert!(!tree.changed(ADDED).exists(), "no source is left of an attempt");

    let done = tree.root(SET_UP).ended(0).with(&["adding the suite bookworm-backports"]);
    assert!(!done.text.contains("uidmap"), "root needs none of its setuid programs: {}", done.text);
    for net in [Net::Host, Net::None] {
        let _ = tree.run("root", net, SET_UP).ended(0).with(&["set-up: nothing is missing (QEMU 1"]);
    }
    let _ = tree.run("ann", Net::Host, SET_UP).ended(1).with(&["missing packages: uidmap\n", "--for ann"]);

    // A user without ids of others, behind another user's.
    let _ = tree.root("sed -i 's/^ann:/bob:/' /etc/subuid /etc/subgid").ended(0);
    let _ = tree
        .root(&format!("{SET_UP} --for ann"))
        .ended(0)
        .with(&["installing: uidmap", "165536 to 231071 aside for ann"]);
    let _ =
        tree.root("grep -qx ann:165536:65536 /etc/subuid && grep -qx ann:165536:65536 /etc/subgid").ended(0);
    for net in [Net::Host, Net::None] {
        let _ = tree.run("ann", net, SET_UP).ended(0).with(&["nothing is missing"]);
    }
    let _ = tree.root("sed -i 's/^ann:.*/ann:165536:1000/' /etc/subuid").ended(0);
    let _ =
        tree.root(&format!("{SET_UP} --for ann")).ended(1).with(&["/etc/subuid has fewer than 65536 ids"]);

    only_qemu_utils_of_backports_and_no_source_for_it(&tree);
}

const ADDED: &str = "/etc/apt/sources.list.d/countersign-backports.sources";

/// Here a plain `apt-get install qemu-system-x86` would take the old one and remove the new `qemu-utils`.
fn only_qemu_utils_of_backports_and_no_source_for_it(tree: &Tree) {
    // Sources as a newer installer writes them, behind those of another publisher who uses the same words.
    let script = format!(
        "{MIRROR}
        apt-get -qq -y purge qemu-system-x86 >/dev/null && qemu-img --version && rm {ADDED} /etc/apt/sources.list
        {}
        echo 'deb [trusted=yes] file:/other bookworm main' >/etc/apt/sources.list.d/another.list
        printf 'Types: deb deb-src\\n# a comment\\nEnabled: no\\nURIs: file:/gone\\nSuites: bookworm bookworm-backports\\nComponents: main\\n\\nTypes: deb\\n# a comment\\nURIs:\\n %s\\nsuites: bookworm-updates\\n bookworm\\nComponents: main contrib\\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\\n' $mirror >/etc/apt/sources.list.d/debian.sources",
        archive("/other", "Other")
    );
    let _ = tree.root(&script).ended(0).with(&["qemu-img version 1"]);
    let _ = tree.root(SET_UP).ended(0).with(&["adding the suite bookworm-backports", "done (QEMU 1"]);
    let _ = tree
        .root(&format!("{MIRROR} grep -q '^URIs: file:' {ADDED} || dpkg-query -W qemu-utils"))
        .ended(0)
        .with(&["bpo12"]);
    // With the source there, and neither program.
    let _ = tree.root("apt-get -qq -y purge qemu-system-x86 qemu-utils >/dev/null").ended(0);
    let said = tree.root(SET_UP).ended(0).with(&["done (QEMU 1"]);
    assert!(!said.text.contains("adding"), "{}", said.text);
}

#[test]
#[ignore = "installs packages in a Debian of its own"]
fn an_old_qemu_is_refused_or_replaced() {
    let tree = Tree::minimal();
    // Sources in the old form, with options; QEMU as this release has it, and what our own program is linked with.
    let script = format!(
        "{MIRROR}
        echo \"deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] $mirror bookworm main\" >/etc/apt/sources.list
        apt-get -qq update
        apt-get -qq -y install --no-install-recommends qemu-system-x86 qemu-utils libssl3 >/dev/null; qemu-img --version"
    );
    let _ = tree.root(&script).ended(0).with(&["qemu-img version 7.2"]);
    let refused = tree.run("ann", Net::None, SET_UP).ended(1);
    let _ =
        refused.with(&["qemu-system-x86 qemu-utils, version 9.0 or newer", "(found: 7.2.", "qemu-img 7.2."]);

    // The program itself finds it as old, before it makes anything.
    std::fs::copy(end_to_end::command::binary(), tree.changed("/opt/rust/countersign")).unwrap();
    let build = "cd && countersign init site --id old --site-recipes /project/site-recipes --no-passphrase && countersign --site site base build debian-12";
    let refused = tree.root(build).ended(3);
    let _ = refused.with(&["NO_QEMU: ", "wanted: QEMU 9.0 or later", "is version 7.2."]);
    assert!(!Path::new(&tree.changed("/root/site/bases/.lock")).exists());

    let _ = tree.root(SET_UP).ended(0).with(&["adding the suite bookworm-backports", "done (QEMU 1"]);
    let _ = tree.root(SET_UP).ended(0).with(&["nothing is missing"]);
}

/// Nothing is fetched here but the little Debian itself, once.
#[test]
#[ignore = "makes a Debian of its own"]
fn a_mirror_without_the_suite_and_a_busy_apt_are_said_clearly() {
    let tree = Tree::minimal();
    // All that is plain is there; a mirror of Debian that holds its release and nothing else.
    let script = format!(
        "for name in cc make pkg-config git mmdebstrap zstd xz openssl curl; do install -m 0755 /dev/null /usr/local/bin/$name; done
        printf 'Package: libssl-dev\\nStatus: install ok installed\\nMaintainer: x\\nArchitecture: amd64\\nVersion: 1\\nDescription: x\\n\\n' >>/var/lib/dpkg/status
        mkdir -p /etc/ssl/certs && touch /etc/ssl/certs/ca-certificates.crt
        {}
        echo 'deb [trusted=yes] file:/mirror bookworm main' >/etc/apt/sources.list",
        archive("/mirror", "Debian")
    );
    let _ = tree.root(&script).ended(0);
    let said = tree.run("root", Net::None, SET_UP).ended(1);
    let _ = said
        .with(&["the mirror file:/mirror/ gave no package list for bookworm-backports, so it was not added"]);
    assert!(!tree.changed(ADDED).exists(), "the source that did not work is gone");

    // The machine's own source for it does not work.
    let own =
        "echo 'deb http://mirror.invalid/debian bookworm-backports main' >/etc/apt/sources.list.d/own.list";
    let _ = tree.root(own).ended(0);
    let said = tree.run("root", Net::None, SET_UP).ended(1);
    let _ = said.with(&[
        "Failed to fetch http://mirror.invalid/debian",
        "apt source for bookworm-backports gave no package list",
    ]);
    let _ = tree.root("rm /etc/apt/sources.list.d/own.list").ended(0);

    // No source of Debian at all.
    let none = tree.copy();
    let _ = none.root(": >/etc/apt/sources.list").ended(0);
    let said = none.run("root", Net::None, SET_UP).ended(1);
    let _ = said.with(&["no apt source of this machine gave Debian's package list for bookworm"]);

    // apt is busy: for ever, then for a moment.
    let hold = |seconds: u32| {
        format!(
            "perl -e 'use Fcntl; open F, q(>>/var/lib/apt/lists/lock) or die; $l = pack(q(s s x4 q q i), F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $l) or die; print qq(held\\n); close STDOUT; sleep {seconds}' >/tmp/held &
            until grep -q held /tmp/held; do kill -0 $! || exit; sleep 0.1; done
            SETUP_LOCK_SECONDS=3 {SET_UP}"
        )
    };
    let said = tree.run("root", Net::None, &hold(600)).ended(1);
    let said = said.with(&[
        "another apt or dpkg is at work; waiting up to 3 s",
        "still at work after 3 s",
        "Could not get lock",
    ]);
    assert!(!said.text.contains("adding"), "{}", said.text);
    let said = tree.run("root", Net::None, &hold(2)).ended(1);
    let said = said.with(&["another apt or dpkg is at work", "gave no package list for bookworm-backports"]);
    assert!(!said.text.contains("still at work"), "{}", said.text);
}
