//! Sockets that accept traffic, from `/proc/1/net` (proc_pid_net(5)).

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use guest::facts::Socket;

use super::processes::{numbers, program};
use super::{Notes, proc_text};

const NAME: &str = "listening";
/// `TCP_LISTEN` and, for UDP and raw, `TCP_CLOSE`: not connected (net/tcp_states.h).
const LISTEN: &str = "0A";
const NOT_CONNECTED: &str = "07";

/// How a table is read.
struct Table {
    file: &'static str,
    protocol: &'static str,
    state: &'static str,
}

const TABLES: [Table; 10] = [
    Table { file: "tcp", protocol: "tcp", state: LISTEN },
    Table { file: "tcp6", protocol: "tcp", state: LISTEN },
    Table { file: "udp", protocol: "udp", state: NOT_CONNECTED },
    Table { file: "udp6", protocol: "udp", state: NOT_CONNECTED },
    Table { file: "udplite", protocol: "udplite", state: NOT_CONNECTED },
    Table { file: "udplite6", protocol: "udplite", state: NOT_CONNECTED },
    Table { file: "raw", protocol: "raw", state: NOT_CONNECTED },
    Table { file: "raw6", protocol: "raw", state: NOT_CONNECTED },
    Table { file: "icmp", protocol: "icmp", state: NOT_CONNECTED },
    Table { file: "icmp6", protocol: "icmp", state: NOT_CONNECTED },
];

/// All of PID 1's network namespace, sorted, with the programs that hold them.
pub(super) fn listening(proc: &Path, notes: &mut Notes) -> Vec<Socket> {
    let net = proc.join("1/net");
    let mut found: Vec<(Socket, u64)> = Vec::new();
    for table in &TABLES {
        parse_inet(&proc_text(&net.join(table.file), notes), table, &mut found, notes);
    }
    parse_packet(&proc_text(&net.join("packet"), notes), &mut found, notes);
    parse_sctp(&proc_text(&net.join("sctp/eps"), notes), &mut found, notes);
    let holders = holders(proc);
    let mut sockets: Vec<Socket> = found
        .into_iter()
        .map(|(socket, inode)| Socket { program: holders.get(&inode).cloned(), ..socket })
        .collect();
    sockets.sort();
    sockets
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`
fn parse_inet(text: &str, table: &Table, found: &mut Vec<(Socket, u64)>, notes: &mut Notes) {
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, state, _, _, _, uid, _, inode, ..] = fields[..] else {
            notes.add(format!("{NAME}: {}", table.file));
            continue;
        };
        if state != table.state {
            continue;
        }
        match (address(local), uid.parse(), inode.parse()) {
            (Some((address, port)), Ok(uid), Ok(inode)) => {
                let protocol = table.protocol.to_owned();
                notes.push(NAME, found, (Socket { protocol, address, port, uid, program: None }, inode));
            }
            _ => notes.add(format!("{NAME}: {}", table.file)),
        }
    }
}

/// `sk RefCnt Type Proto Iface R Rmem User Inode`: the port is the protocol, the address the interface's number.
fn parse_packet(text: &str, found: &mut Vec<(Socket, u64)>, notes: &mut Notes) {
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, protocol, interface, _, _, uid, inode] = fields[..] else {
            notes.add(format!("{NAME}: packet"));
            continue;
        };
        match (u16::from_str_radix(protocol, 16), uid.parse(), inode.parse()) {
            (Ok(port), Ok(uid), Ok(inode)) => {
                let (protocol, address) = ("packet".to_owned(), format!("interface {interface}"));
                notes.push(NAME, found, (Socket { protocol, address, port, uid, program: None }, inode));
            }
            _ => notes.add(format!("{NAME}: packet")),
        }
    }
}

/// `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS`; style 2 with state 10 listens, and so may any other.
fn parse_sctp(text: &str, found: &mut Vec<(Socket, u64)>, notes: &mut Notes) {
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, _, _, port, uid, inode, addresses @ ..] = &fields[..] else {
            notes.add(format!("{NAME}: sctp"));
            continue;
        };
        match (port.parse(), uid.parse(), inode.parse()) {
            (Ok(port), Ok(uid), Ok(inode)) => {
                let (protocol, address) = ("sctp".to_owned(), addresses.join(" "));
                notes.push(NAME, found, (Socket { protocol, address, port, uid, program: None }, inode));
            }
            _ => notes.add(format!("{NAME}: sctp")),
        }
    }
}

/// `0100007F:1F90`: 32-bit words of the address in the machine's byte order, then the port.
fn address(text: &str) -> Option<(String, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let bytes = hex::decode(address).ok()?;
    // The hexadecimal is a number; on a little-endian machine its first byte in memory is the last one written.
    let in_order: Vec<u8> = bytes
        .chunks(4)
        .flat_map(|word| {
            if cfg!(target_endian = "little") { word.iter().rev().copied().collect() } else { word.to_vec() }
        })
        .collect();
    let address = match *in_order.as_slice() {
        [a, b, c, d] => Ipv4Addr::new(a, b, c, d).to_string(),
        ref long => Ipv6Addr::from(<[u8; 16]>::try_from(long).ok()?).to_string(),
    };
    Some((address, port))
}

/// The program that holds each socket, by inode; of several, that with the lowest process number.
fn holders(proc: &Path) -> HashMap<u64, String> {
    let mut holders = HashMap::new();
    for pid in numbers(proc) {
        let folder = proc.join(pid.to_string());
        let Ok(descriptors) = fs::read_dir(folder.join("fd")) else { continue };
        let mut name = None;
        for descriptor in descriptors.filter_map(Result::ok) {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            if let Some(inode) = socket_inode(target.as_os_str().as_bytes()) {
                let name = name.get_or_insert_with(|| program(&folder).unwrap_or_default());
                holders.entry(inode).or_insert_with(|| name.clone());
            }
        }
    }
    holders
}

fn socket_inode(target: &[u8]) -> Option<u64> {
    str::from_utf8(target).ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn parsed(text: &str, table: &Table) -> (Vec<(Socket, u64)>, Notes) {
        let (mut found, mut notes) = (Vec::new(), Notes::default());
        parse_inet(text, table, &mut found, &mut notes);
        (found, notes)
    }

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13337 1 0 100 0 0 10 0\n\
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 42 1 0 100 0 0 10 0\n\
   2: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000    33        0 43 1 0 100 0 0 10 0\n";

    #[test]
    fn listening_sockets_are_told_from_connected_ones() {
        let (found, notes) = parsed(TCP, &TABLES[0]);
        let said: Vec<_> = found
            .iter()
            .map(|(socket, inode)| (socket.address.as_str(), socket.port, socket.uid, *inode))
            .collect();
        assert_eq!(said, [("0.0.0.0", 22, 0, 13337), ("127.0.0.1", 8080, 33, 42)]);
        assert!(notes.0.is_empty());
    }

    #[test]
    fn a_line_that_is_not_understood_is_not_passed_over() {
        for line in
            ["0: zz:0016 0:0 0A 0:0 0:0 0 0 0 1 x", "0: 00000000:0016", "0: 00:1 0:0 0A 0:0 0:0 0 0 0 1 x"]
        {
            let (found, notes) = parsed(&format!("head\n{line}\n"), &TABLES[0]);
            assert!(found.is_empty() && notes.0.contains("listening: tcp"), "{line}");
        }
    }

    #[test]
    fn addresses_of_both_versions_are_read() {
        assert_eq!(address("00000000000000000000000000000000:0050"), Some(("::".into(), 80)));
        assert_eq!(address("00000000000000000000000001000000:0050"), Some(("::1".into(), 80)));
        assert_eq!(address("0000000000000000FFFF00000100007F:0001"), Some(("::ffff:127.0.0.1".into(), 1)));
    }

    #[test]
    fn packet_sockets_are_seen() {
        let (mut found, mut notes) = (Vec::new(), Notes::default());
        let text = "sk RefCnt Type Proto Iface R Rmem User Inode\nffff 3 3 0003 2 1 0 0 777\n";
        parse_packet(text, &mut found, &mut notes);
        assert_eq!((found[0].0.port, found[0].0.address.as_str(), found[0].1), (3, "interface 2", 777));
    }

    #[test]
    fn a_socket_of_this_process_is_held_by_its_program() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode =
            fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener))).unwrap();
        let inode = socket_inode(inode.as_os_str().as_bytes()).unwrap();
        let holders = holders(Path::new("/proc"));
        assert_eq!(holders.get(&inode).map(String::as_str), std::env::current_exe().unwrap().to_str());
    }
}
