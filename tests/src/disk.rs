//! A small disk that a test can fill: a file system in memory, in a mount namespace of its own, which is gone with the test.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mounted file system of a fixed size. Only what is run through [`SmallDisk::wrap`] sees it under its own path.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    place: PathBuf,
}

/// What fills it.
const BALLAST: &str = "ballast";

impl SmallDisk {
    /// Mounts one of so many bytes at `place`, a folder that exists.
    ///
    /// # Panics
    /// If it cannot be mounted: root is needed.
    #[must_use]
    pub fn mount(place: &Path, bytes: u64) -> Self {
        let script = "mount -t tmpfs -o mode=755,size=\"$1\" none \"$2\" && echo ready && exec cat";
        let mut holder = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(bytes.to_string())
            .arg(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        let said = holder.stdout.take().expect("its output");
        BufReader::new(said).read_line(&mut line).expect("it says that it is ready");
        assert_eq!(line, "ready\n", "a file system in memory is mounted at {}", place.display());
        Self { holder, place: place.to_owned() }
    }

    /// The same folder as seen from outside.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.place.strip_prefix("/").unwrap_or(&self.place))
    }

    /// Fills it but for so many bytes.
    ///
    /// # Panics
    /// If something else than its end stops the writing.
    pub fn fill(&self, but: u64) {
        let mut file = File::create(self.outside().join(BALLAST)).expect("the ballast is made");
        let block = vec![1; 64 * 1024];
        for size in [block.len(), 4096, 1] {
            loop {
                match file.write_all(&block[..size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the disk cannot be filled: {error}"),
                }
            }
        }
        let length = file.metadata().expect("its length").len();
        file.set_len(length.saturating_sub(but)).expect("it is cut");
    }

    /// Makes room again.
    ///
    /// # Panics
    /// If it cannot.
    pub fn relieve(&self) {
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.outside().join(BALLAST))
            .map(drop)
            .and_then(|()| std::fs::remove_file(self.outside().join(BALLAST)))
            .expect("the ballast is removed");
    }

    /// The command as it runs where the disk is mounted.
    #[must_use]
    pub fn wrap(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--");
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.stdin(Stdio::null());
        inside
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
