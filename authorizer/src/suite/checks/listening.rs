//! Sockets that accept traffic: only those the recipe declares, the base's own, and what the site tolerates.

use std::net::IpAddr;

use guest::facts::Socket;
use recipe_spec::manifest::Protocol;
use serde::{Deserialize, Serialize};

use super::{Check, Sees};

/// What is tolerated beyond declarations and base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListeningConfig {
    /// Sockets on loopback addresses are tolerated.
    pub loopback: bool,
    /// Sockets that are there or not depending on the moment, such as a DHCP client's.
    pub allow: Vec<AllowedSocket>,
}

/// A tolerated socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedSocket {
    /// `tcp`, `udp`, `raw`, `packet`, …
    pub protocol: String,
    /// Its port; 0 where the protocol has none.
    pub port: u16,
    /// The program that must hold it.
    pub program: String,
}

pub(super) const CHECK: Check = Check {
    name: "listening",
    sees: Sees::Machine,
    lists: &["listening"],
    run: |evidence, config, complaints| {
        let config = &config.listening;
        for socket in &evidence.now.listening {
            let declared = evidence.declared.listen.iter().any(|listen| {
                listen.port == socket.port && protocol_name(listen.protocol) == socket.protocol
            });
            let in_base = evidence.base.listening.iter().any(|base| {
                // A service that the base has on loopback only may not be opened to everyone.
                (&base.protocol, base.port, is_loopback(base))
                    == (&socket.protocol, socket.port, is_loopback(socket))
            });
            let tolerated = config.loopback && is_loopback(socket)
                || config.allow.iter().any(|allowed| {
                    allowed.protocol == socket.protocol
                        && allowed.port == socket.port
                        && socket.program.as_ref() == Some(&allowed.program)
                });
            if !declared && !in_base && !tolerated {
                complaints.add(
                    &format!("{} {} port {}", socket.protocol, socket.address, socket.port),
                    format_args!(
                        "accepts traffic ({}) and is not declared",
                        super::super::complaints::shown(
                            socket.program.as_deref().unwrap_or("unknown program")
                        )
                    ),
                    "declare it in [network] listen, or stop the program",
                );
            }
        }
    },
};

pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn is_loopback(socket: &Socket) -> bool {
    // An address may name its card: `fe80::1%eth0`.
    let address = socket.address.split('%').next().unwrap_or_default();
    match address.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, socket};

    const HTTP: &str = "[network]\nlisten = [{ port = 80, protocol = \"tcp\" }]\n";

    #[test]
    fn a_declared_port_passes_and_another_fails() {
        let mut machine = Machine::base();
        machine.now.listening.push(socket("tcp", "0.0.0.0", 80));
        machine.passes("listening", HTTP, "");
        machine.fails("listening", "", "", "tcp 0.0.0.0 port 80");
        machine.now.listening.push(socket("udp", "::", 80));
        machine.fails("listening", HTTP, "", "udp :: port 80");
    }

    #[test]
    fn loopback_is_tolerated_and_no_disguise_of_it() {
        for (address, tolerated) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("nonsense", false),
        ] {
            let mut machine = Machine::base();
            machine.now.listening.push(socket("tcp", address, 3000));
            if tolerated {
                machine.passes("listening", "", "");
            } else {
                machine.fails("listening", "", "", "port 3000");
            }
        }
    }

    #[test]
    fn the_bases_own_socket_passes_where_the_base_has_it() {
        let mut machine = Machine::base();
        machine.base.listening.push(socket("tcp", "127.0.0.1", 25));
        machine.now.listening.push(socket("tcp", "0.0.0.0", 25));
        machine.fails("listening", "", "", "port 25");
        machine.base.listening.push(socket("tcp", "::", 25));
        machine.passes("listening", "", "");
    }

    #[test]
    fn a_tolerated_socket_needs_its_program() {
        let mut machine = Machine::base();
        let mut dhcp = socket("udp", "10.0.2.15", 68);
        machine.now.listening.push(dhcp.clone());
        machine.fails("listening", "", "", "port 68");
        dhcp.program = Some("/usr/lib/systemd/systemd-networkd".to_owned());
        machine.now.listening = vec![dhcp];
        machine.passes("listening", "", "");
    }
}
