//! Network interfaces, changed through rtnetlink(7), for which no ioctl is needed.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::sight::Proc;

/// Interface 1 is the loopback interface in every network namespace.
const LOOPBACK: i32 = 1;
/// Longest setting that is read, in bytes.
const MAX_SETTING: usize = 64;
/// `IFF_UP` of `linux/if.h`.
const UP: u32 = 1;
/// `IFLA_ADDRESS` of `linux/if_link.h`.
const ADDRESS: u16 = 1;
/// `IFLA_IFNAME` of `linux/if_link.h`.
const NAME: u16 = 3;

/// Brings the loopback interface up.
///
/// # Errors
/// From the system.
pub(crate) fn loopback_up() -> io::Result<()> {
    ask(&new_link(LOOPBACK, UP, &[]))
}

/// Gives the card `name` the address `mac`, also while it is up, if its driver can (virtio_net can), and has the kernel tell its
/// neighbours, who know the machine's IPv4 address by the card's old one (`arp_notify`: gratuitous ARP, RFC 5227 §3).
///
/// # Errors
/// From the system: `ENODEV` if there is no such card, `EBUSY` if its driver wants it down.
pub(crate) fn set_address(proc: &Proc, name: &str, mac: [u8; 6]) -> io::Result<()> {
    let mut ended = name.as_bytes().to_vec();
    ended.push(0);
    let notify = format!("sys/net/ipv4/conf/{name}/arp_notify");
    let before = match proc.read(&notify, MAX_SETTING) {
        // Without the card there is no setting of it either; the kernel says so below.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        before => Some(before?),
    };
    if before.is_some() {
        proc.write(&notify, b"1\n")?;
    }
    // Interface 0 is none: the kernel then looks for the name.
    ask(&new_link(0, 0, &[(NAME, &ended), (ADDRESS, &mac)]))?;
    before.map_or(Ok(()), |before| proc.write(&notify, &before))
}

/// Sends one message and awaits that it is acknowledged.
fn ask(message: &[u8]) -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&socket, message, SendFlags::empty())?;
    let mut answer = [0; 512];
    let (count, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    match answer.get(..count).and_then(acknowledged) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is not understood")),
    }
}

/// `nlmsghdr`, `ifinfomsg` and attributes (linux/netlink.h, linux/rtnetlink.h) of an `RTM_NEWLINK` that sets `flags` on an
/// interface that is there.
fn new_link(interface: i32, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
    const HEADS: usize = 32;
    let mut message = vec![0; HEADS];
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message[8..12].copy_from_slice(&1_u32.to_ne_bytes());
    message[20..24].copy_from_slice(&interface.to_ne_bytes());
    message[24..28].copy_from_slice(&flags.to_ne_bytes());
    message[28..32].copy_from_slice(&flags.to_ne_bytes());
    for (kind, value) in attributes {
        // Names and addresses: far below 64 KiB.
        let length = (4 + value.len()) as u16;
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let length = message.len() as u32;
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// The error number of an `NLMSG_ERROR`, 0 for success.
fn acknowledged(answer: &[u8]) -> Option<i32> {
    const NLMSG_ERROR: u16 = 2;
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let errno = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(errno)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::thread::UnshareFlags;

    use super::*;

    #[test]
    fn an_acknowledgement_is_understood_and_nothing_else() {
        let mut answer = [0; 36];
        answer[4] = 2;
        assert_eq!(acknowledged(&answer), Some(0));
        answer[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer), Some(-1));
        answer[4] = 3;
        assert_eq!(acknowledged(&answer), None);
        assert_eq!(acknowledged(&[]), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn messages_are_as_the_kernel_reads_them() {
        #[rustfmt::skip]
        let up = [
            32, 0, 0, 0,  16, 0,  5, 0,  1, 0, 0, 0,  0, 0, 0, 0,
            0, 0, 0, 0,  1, 0, 0, 0,  1, 0, 0, 0,  1, 0, 0, 0,
        ];
        assert_eq!(new_link(LOOPBACK, UP, &[]), up);
        #[rustfmt::skip]
        let address = [
            56, 0, 0, 0,  16, 0,  5, 0,  1, 0, 0, 0,  0, 0, 0, 0,
            0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
            9, 0,  3, 0,  b'e', b't', b'h', b'0', 0,  0, 0, 0,
            10, 0,  1, 0,  0x52, 0x54, 0, 0xab, 0xcd, 0xef,  0, 0,
        ];
        let attributes: [(u16, &[u8]); 2] =
            [(NAME, b"eth0\0"), (ADDRESS, &[0x52, 0x54, 0, 0xab, 0xcd, 0xef])];
        assert_eq!(new_link(0, 0, &attributes), address);
    }

    #[test]
    fn the_kernel_does_what_is_asked() {
        let thread = std::thread::spawn(|| {
            // SAFETY: as CLONE_NEWNET leaves file descriptor tables alone, nothing that other threads hold can break; this
            // thread ends with the test.
            #[allow(unsafe_code, reason = "the safe function is deprecated")]
            let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
            unshared.expect("this test changes interfaces of its own: run it as root");
            // A table of this thread's namespace; sysfs shows that of whoever mounted it.
            let flags = || fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            assert_eq!(flags(), "");
            loopback_up().unwrap();
            assert!(flags().ends_with(" lo\n"), "{}", flags());
            let proc = Proc::at("/proc").unwrap();
            let setting = || fs::read_to_string("/proc/sys/net/ipv4/conf/lo/arp_notify").unwrap();
            set_address(&proc, "lo", [0x52, 0x54, 0, 0xab, 0xcd, 0xef]).unwrap();
            assert_eq!(setting(), "0\n", "as before");
            // One that no card can have is refused.
            set_address(&proc, "lo", [0x53, 0x54, 0, 0xab, 0xcd, 0xef]).unwrap_err();
            let none = set_address(&proc, "eth0", [0x52, 0x54, 0, 0xab, 0xcd, 0xef]).unwrap_err();
            assert_eq!(none.raw_os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
