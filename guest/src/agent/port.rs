//! Virtio-serial ports: found by name in sysfs, opened once, never closed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const PORTS: &str = "/sys/class/virtio-ports";
/// How often sysfs is looked at while a port is awaited.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The pause before reading again while the host's side is not connected.
const HOST_ABSENT_PAUSE: Duration = Duration::from_millis(50);

/// One open port. The kernel lets a port be opened once at a time, so holding it keeps every other
/// program of the guest away from it.
pub(crate) struct Port(File);

impl Port {
    /// Opens the port named `name`, waiting at most `patience` for it to appear.
    ///
    /// # Errors
    /// `NotFound` after `patience`; `ResourceBusy` if another program holds the port.
    pub(crate) fn open(name: &str, patience: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(device) = find(name) {
                match File::options().read(true).write(true).open(&device) {
                    Ok(file) => return Ok(Self(file)),
                    // sysfs may be a moment ahead of devtmpfs.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no port {name}")));
            }
            thread::sleep(LOOK_PAUSE);
        }
    }

    /// A second handle on the same open port, so that one thread can read while another writes.
    pub(crate) fn second(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

fn find(name: &str) -> Option<PathBuf> {
    fs::read_dir(PORTS).ok()?.filter_map(Result::ok).find_map(|entry| {
        let said = fs::read_to_string(entry.path().join("name")).ok()?;
        (said.trim_end() == name).then(|| PathBuf::from("/dev").join(entry.file_name()))
    })
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                // The driver answers 0 while the host's side is not connected; that is no end.
                Ok(0) if !buffer.is_empty() => thread::sleep(HOST_ABSENT_PAUSE),
                other => return other,
            }
        }
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
