//! A small Debian of its own to change at will: what is written into it lies in an overlay and is thrown away.
//!
//! Programs in it run in mount and PID namespaces of their own, so that no mount and no process outlives a call. The host's
//! kernel, devices and, unless it is taken away, network are those of the host. Only root can make one.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::site::{cache, project};

/// Enters a tree and runs the script on standard input in it; its arguments are the tree's folder, what lies beneath it, the project
/// and the user.
const ENTER: &str = r#"
set -e
dir=$1 lower=$2 project=$3 user=$4
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
cd "$dir/root"
for folder in dev sys; do mount --rbind "/$folder" "$folder"; done
mount -t proc proc proc
mkdir -p project .host
mount --bind "$project" project
mount -o remount,bind,ro project
cat /etc/resolv.conf >etc/resolv.conf
pivot_root . .host
umount --lazy /.host
cd /
export HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8
set -- bash -s
[ "$user" = root ] || set -- setpriv --reuid "$user" --regid "$user" --init-groups -- env HOME="/home/$user" "$@"
# The first process of the namespace; with its end all others end.
exec timeout --signal=KILL 1200 "$@"
"#;

/// Where programs of the tree are, and the folder where [`Tree::minimal`] puts a `cargo` for set-up to find.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/rust";

/// Which network a program of the tree sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// The host's.
    Host,
    /// None, not even a loopback that is up.
    None,
}

/// A Debian that can be changed, removed when dropped. The project's folder is read-only at `/project` in it.
#[derive(Debug)]
pub struct Tree {
    lower: PathBuf,
    folder: tempfile::TempDir,
}

/// What a script in the tree said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit status; -1 if a signal ended it.
    pub status: i32,
    /// Both streams.
    pub text: String,
}

impl Said {
    /// This, which must have ended with `status`.
    ///
    /// # Panics
    /// If it did not, with what it said.
    #[must_use]
    pub fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// This, which must have said each of `words`.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn with(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.text.contains(word), "`{word}` is not in:\n{}", self.text);
        }
        self
    }
}

impl Tree {
    /// A Debian 12 with nothing beyond what apt needs, made from the host's own apt sources and kept in the cache. It has a
    /// user `ann`, and a file named `cargo`, because set-up does not install Rust.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn minimal() -> Self {
        assert!(is_root(), "this test needs root: it makes a Debian of its own");
        let lower = cache().join("trees/minimal");
        if !lower.join("etc/debian_version").is_file() {
            make_minimal(&lower);
        }
        let tree = Self::over(lower);
        let _ = tree
            .root(
                "useradd --create-home --shell /bin/bash ann
                 mkdir -p /opt/rust
                 install -m 0755 /dev/null /opt/rust/cargo",
            )
            .ended(0);
        tree
    }

    fn over(lower: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("countersign-tree-").tempdir().expect("a folder");
        for name in ["upper", "work", "root"] {
            std::fs::DirBuilder::new().mode(0o755).create(folder.path().join(name)).expect("a folder");
        }
        // Users of the tree walk through it.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
        Self { lower, folder }
    }

    /// Another tree in the same state.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::over(self.lower.clone());
        let upper = copy.folder.path().join("upper");
        std::fs::remove_dir(&upper).expect("the empty folder is removed");
        // Device nodes that stand for removed files, and attributes that stand for replaced folders, are copied as well.
        let done = Command::new("cp")
            .arg("--archive")
            .args([self.folder.path().join("upper"), upper])
            .status()
            .expect("cp starts");
        assert!(done.success(), "the tree is copied");
        copy
    }

    /// Runs a script as root, with the host's network.
    #[must_use]
    pub fn root(&self, script: &str) -> Said {
        self.run("root", Net::Host, script)
    }

    /// Runs a script as a user of the tree.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, user: &str, net: Net, script: &str) -> Said {
        use std::io::Write as _;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
        if net == Net::None {
            command.arg("--net");
        }
        let mut child = command
            .args(["--", "bash", "-c", ENTER, "enter"])
            .args([self.folder.path(), &self.lower, project()])
            .arg(user)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let script = format!("exec 2>&1\n{script}\n");
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("the script is passed on");
        let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
        let text = [stdout, stderr].concat();
        Said { status: status.code().unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() }
    }

    /// A file of the tree as the host sees it, if the tree has changed it.
    #[must_use]
    pub fn changed(&self, path: &str) -> PathBuf {
        self.folder.path().join("upper").join(path.trim_start_matches('/'))
    }
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").expect("a process sees itself").uid() == 0
}

fn make_minimal(lower: &Path) {
    let parent = lower.parent().expect("it lies in the cache");
    std::fs::create_dir_all(parent).expect("a folder in the cache");
    let fresh =
        tempfile::Builder::new().prefix(".minimal-").tempdir_in(parent).expect("a folder in the cache");
    let root = fresh.path().join("root");
    let done = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--quiet", "bookworm"])
        .arg(&root)
        .env("TMPDIR", fresh.path())
        .stdin(Stdio::null())
        .status()
        .expect("mmdebstrap starts");
    assert!(done.success(), "mmdebstrap makes a minimal Debian");
    std::fs::rename(&root, lower).expect("it is put into its place");
}
