//! A program for the inside of a nano guest, which has none: built statically by the tests, sent in by the agent.
//!
//! ```text
//! probe fetch PROXY REQUEST   sends the request (\r\n written as |) to the proxy and prints the answer
//! probe connect ADDRESS       connects and says so, or fails
//! probe write FILE TEXT       writes at the beginning and flushes
//! probe read FILE LENGTH      prints the beginning
//! probe fill FILE MEGABYTES   writes zeros and ones until it is done or fails
//! probe sleep SECONDS
//! probe later MS ARGUMENT…    starts itself with these, to act after so long, and ends
//! probe shout FILE SECONDS    writes as much as it can
//! probe fork                  starts itself twice and again, without end
//! probe stop PID              SIGSTOP, said on the console
//! probe agent                 prints the agent's process id
//! probe off, probe reboot     at once, without anybody's leave
//! probe take PORT FRAME…      takes the agent's port (its end of the name) and writes frames without end; each is
//!                             KIND:ID:LENGTH, the first ones once, the last one for ever
//! ```
//!
//! As process 1 of a guest (`rdinit=/probe`) the word comes from the kernel's command line, after `--`; it ends, which is a
//! panic, where it knows none.

use std::fs::{self, File};
use std::io::{Error, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

unsafe extern "C" {
    safe fn kill(pid: i32, signal: i32) -> i32;
    safe fn reboot(command: i32) -> i32;
    safe fn syscall(number: i64, first: i64, second: i64, third: i64) -> i64;
}

const SIGSTOP: i32 = 19;
const REBOOT: i32 = 0x0123_4567;
const POWER_OFF: i32 = 0x4321_fedc;
const PIDFD_OPEN: i64 = 434;
const PIDFD_GETFD: i64 = 438;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["fetch", proxy, request] => {
            let mut stream = TcpStream::connect(proxy)?;
            stream.write_all(request.replace('|', "\r\n").as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            std::io::stdout().write_all(&answer)
        }
        ["connect", address] => {
            let address = address.parse().map_err(std::io::Error::other)?;
            TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            println!("connected");
            Ok(())
        }
        ["write", path, text] => {
            let mut file = File::options().write(true).open(path)?;
            // Whole sectors, so that nothing is read before it is written.
            let mut sector = text.as_bytes().to_vec();
            sector.resize(4096, 0);
            file.write_all(&sector)?;
            file.sync_all()
        }
        ["read", path, length] => {
            let mut bytes = vec![0; length.parse().map_err(std::io::Error::other)?];
            File::open(path)?.read_exact(&mut bytes)?;
            std::io::stdout().write_all(&bytes)
        }
        ["fill", path, megabytes] => {
            let mut file = File::options().write(true).create(true).open(path)?;
            for number in 0..megabytes.parse::<u32>().map_err(std::io::Error::other)? {
                file.write_all(&vec![1 + (number % 250) as u8; 1 << 20])?;
                file.sync_data()?;
            }
            Ok(())
        }
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs(seconds.parse().map_err(std::io::Error::other)?));
            Ok(())
        }
        ["later", time, rest @ ..] => {
            let myself = std::env::current_exe()?;
            let (out, err) = (Stdio::null(), Stdio::null());
            Command::new(myself).arg("after").arg(time).args(rest).stdout(out).stderr(err).spawn()?;
            Ok(())
        }
        ["after", time, rest @ ..] => {
            std::thread::sleep(Duration::from_millis(time.parse().map_err(Error::other)?));
            Err(Command::new(std::env::current_exe()?).args(rest).exec())
        }
        ["shout", path, seconds] => {
            let end = Instant::now() + Duration::from_secs(seconds.parse().map_err(Error::other)?);
            let mut file = File::options().write(true).open(path)?;
            let line = [b"all work and no play ".repeat(12).as_slice(), b"\n"].concat();
            while Instant::now() < end {
                file.write_all(&line)?;
            }
            Ok(())
        }
        ["fork"] => loop {
            // Some in groups of their own: killing one group is not enough. Where no more can be had, the rest goes on.
            let _ = Command::new(std::env::current_exe()?).arg("fork").process_group(0).spawn();
            let _ = Command::new(std::env::current_exe()?).arg("fork").spawn();
        },
        ["stop", pid] => {
            succeeded(kill(pid.parse().map_err(Error::other)?, SIGSTOP))?;
            fs::write("/dev/console", "stopped\n")
        }
        ["agent"] => {
            print!("{}", agent());
            Ok(())
        }
        ["off"] => succeeded(reboot(POWER_OFF)),
        ["reboot"] => succeeded(reboot(REBOOT)),
        ["take", port, frames @ .., last] => {
            let mut port = take(port)?;
            for frame in frames {
                port.write_all(&bytes(frame)?)?;
            }
            let flood = bytes(last)?.repeat(64);
            loop {
                port.write_all(&flood)?;
            }
        }
        other => Err(std::io::Error::other(format!("{other:?}"))),
    }
}

fn succeeded(result: i32) -> std::io::Result<()> {
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// The agent: it starts each command itself.
fn agent() -> i32 {
    std::os::unix::process::parent_id() as i32
}

/// A copy of the agent's own descriptor (pidfd_getfd(2)): the port cannot be opened twice, but root can do this.
fn take(name: &str) -> std::io::Result<File> {
    let device = fs::read_dir("/sys/class/virtio-ports")?
        .flatten()
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|said| said.trim().ends_with(name)))
        .ok_or_else(|| Error::other("there is no such port"))?;
    let device = format!("/dev/{}", device.file_name().display());
    assert!(File::open(&device).is_err(), "the agent holds it alone");
    for entry in fs::read_dir(format!("/proc/{}/fd", agent()))?.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy() == device) {
            let number = entry.file_name().to_string_lossy().parse().map_err(Error::other)?;
            let pidfd = syscall(PIDFD_OPEN, agent().into(), 0, 0);
            let descriptor = syscall(PIDFD_GETFD, pidfd, number, 0);
            if descriptor < 0 {
                return Err(Error::last_os_error());
            }
            // SAFETY: the kernel has just made this descriptor for us, and nothing else here knows its number.
            return Ok(unsafe { File::from_raw_fd(descriptor as i32) });
        }
    }
    Err(Error::other(format!("the agent does not hold {device}")))
}

/// A frame as `guest::frame` has it, its body zeros.
fn bytes(frame: &str) -> std::io::Result<Vec<u8>> {
    let numbers: Vec<u32> =
        frame.split(':').map(str::parse).collect::<Result<_, _>>().map_err(Error::other)?;
    let [kind, id, length] = numbers.as_slice() else { return Err(Error::other("a frame has three numbers")) };
    let mut bytes = (length + 5).to_be_bytes().to_vec();
    bytes.push(*kind as u8);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.resize(bytes.len() + *length as usize, 0);
    Ok(bytes)
}
