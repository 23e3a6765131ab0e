//! Sockets that accept traffic, from `/proc/1/net` (proc_pid_net(5)).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use guest::facts::{MAX_ENTRIES, Socket};

use super::processes::{numbers, program};
use super::{Absence, Notes, proc_text};
use crate::agent::sight::{Proc, ended, process};

const NAME: &str = "listening";
/// `TCP_LISTEN` and, for UDP, `TCP_CLOSE`: not connected (net/tcp_states.h). A raw socket receives in any state.
const LISTEN: &str = "0A";
const NOT_CONNECTED: &str = "07";
/// Open descriptors of one process that are looked at.
const MAX_DESCRIPTORS: usize = 50 * MAX_ENTRIES;

/// The files for IP version 6 are not there when a kernel runs without it; then nothing listens by it.
const NO_IPV6: Absence = Absence::Normal;
/// A kernel without UDP-Lite has no file of it, and then nothing listens by it.
const NO_UDPLITE: Absence = Absence::Normal;
/// SCTP is a module, loaded with its first socket.
const NO_SCTP: Absence = Absence::Normal;

/// How a table is read.
struct Table {
    file: &'static str,
    protocol: &'static str,
    state: Option<&'static str>,
    absence: Absence,
}

const TABLES: [Table; 10] = [
    Table { file: "tcp", protocol: "tcp", state: Some(LISTEN), absence: Absence::Told },
    Table { file: "tcp6", protocol: "tcp", state: Some(LISTEN), absence: NO_IPV6 },
    Table { file: "udp", protocol: "udp", state: Some(NOT_CONNECTED), absence: Absence::Told },
    Table { file: "udp6", protocol: "udp", state: Some(NOT_CONNECTED), absence: NO_IPV6 },
    Table { file: "udplite", protocol: "udplite", state: Some(NOT_CONNECTED), absence: NO_UDPLITE },
    Table { file: "udplite6", protocol: "udplite", state: Some(NOT_CONNECTED), absence: NO_IPV6 },
    Table { file: "raw", protocol: "raw", state: None, absence: Absence::Told },
    Table { file: "raw6", protocol: "raw", state: None, absence: NO_IPV6 },
    Table { file: "icmp", protocol: "icmp", state: None, absence: Absence::Told },
    Table { file: "icmp6", protocol: "icmp", state: None, absence: NO_IPV6 },
];

/// All of the network namespace of process `pid`, sorted, with the programs that hold them. Sockets of vsock(7) have no file.
pub(super) fn listening(proc: &Proc, pid: u32, notes: &mut Notes) -> Vec<Socket> {
    let net = process(pid).join("net");
    let mut text = |file: &str, absence| {
        let text = proc_text(proc, NAME, &net.join(file), absence, notes)?;
        // Each begins with a line of headings, so even a table without a socket is not empty.
        if text.is_empty() {
            notes.add(format!("{NAME}: {file} is empty"));
        }
        Some(text)
    };
    let inet = TABLES.each_ref().map(|table| text(table.file, table.absence));
    let packet = text("packet", Absence::Told);
    let sctp = text("sctp/eps", NO_SCTP);
    let mut found: Vec<(Socket, u64)> = Vec::new();
    for (table, text) in TABLES.iter().zip(inet) {
        parse_inet(&text.unwrap_or_default(), table, &mut found, notes);
    }
    parse_packet(&packet.unwrap_or_default(), &mut found, notes);
    parse_sctp(&sctp.unwrap_or_default(), &mut found, notes);
    let holders = holders(proc, notes);
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
        if table.state.is_some_and(|wanted| wanted != state) {
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
fn holders(proc: &Proc, notes: &mut Notes) -> HashMap<u64, String> {
    let mut holders = HashMap::new();
    for pid in numbers(proc, NAME, notes) {
        match held(proc, pid, &mut holders) {
            Err(error) if !ended(&error) => notes.add(format!("{NAME}: the descriptors of {pid}: {error}")),
            _ => {}
        }
    }
    holders
}

fn held(proc: &Proc, pid: u32, holders: &mut HashMap<u64, String>) -> io::Result<()> {
    let folder = process(pid);
    let mut name = None;
    for number in proc.numbers(folder.join("fd"), MAX_DESCRIPTORS)? {
        let target = match proc.target(folder.join("fd").join(number.to_string())) {
            // Closed while we looked.
            Err(error) if ended(&error) => continue,
            other => other?,
        };
        if let Some(inode) = socket_inode(&target) {
            let name = match &name {
                Some(name) => name,
                None => name.insert(program(proc, &folder)?.unwrap_or_default()),
            };
            holders.entry(inode).or_insert_with(|| name.clone());
        }
    }
    Ok(())
}

fn socket_inode(target: &[u8]) -> Option<u64> {
    str::from_utf8(target).ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

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
    fn a_raw_socket_receives_in_any_state() {
        let raw = TABLES.iter().find(|table| table.file == "raw").unwrap();
        let (found, _) = parsed(TCP, raw);
        assert_eq!(found.len(), 3);
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
        let own = format!("{}/fd/{}", std::process::id(), listener.as_raw_fd());
        let proc = Proc::at("/proc").unwrap();
        let inode = socket_inode(&proc.target(own).unwrap()).unwrap();
        let mut holders = HashMap::new();
        held(&proc, std::process::id(), &mut holders).unwrap();
        assert_eq!(holders.get(&inode).map(String::as_str), std::env::current_exe().unwrap().to_str());
    }

    #[test]
    fn tables_that_are_not_the_kernels_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("1/net")).unwrap();
        fs::write(folder.path().join("1/net/tcp"), "head\n").unwrap();
        let mut notes = Notes::default();
        listening(&Proc::at(folder.path()).unwrap(), 1, &mut notes);
        assert!(notes.0.contains("listening: 1/net/tcp: not on a procfs"), "{notes:?}");
        assert!(notes.0.iter().any(|note| note.starts_with("listening: 1/net/udp:")), "{notes:?}");
        assert!(!notes.0.iter().any(|note| note.contains("tcp6") || note.contains("sctp")), "{notes:?}");
    }
}
