//! Addresses that are never fetched from on behalf of a recipe: the host itself and the site's inner networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Says why an address is refused; `None` if it is an ordinary one of the internet.
///
/// By the IANA special-purpose registries (RFC 6890) and what carries an IPv4 address inside.
pub(crate) fn refused(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (127, ..) => "a loopback address",
        (0, ..) => "an address of this host",
        (10, ..) | (192, 168, _) => "a private address",
        (172, 16..=31, _) => "a private address",
        (169, 254, _) => "a link-local address",
        (100, 64..=127, _) => "a shared address of a carrier",
        (192, 0, 0) | (198, 18..=19, _) | (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => {
            "a special-purpose address"
        }
        (224.., ..) => "a multicast or reserved address",
        _ => return None,
    })
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let inner = |high: u16, low: u16| refused_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    if address.is_loopback() {
        return Some("a loopback address");
    }
    match segments {
        // IPv4-mapped, IPv4-compatible and the unspecified address.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => inner(high, low).or(Some("an IPv4 address in disguise")),
        // NAT64 and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x64, 0xff9b, 1, ..] => Some("a private address"),
        [0x2002, high, low, ..] => inner(high, low),
        // Teredo, ORCHID, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => {
            Some("a special-purpose address")
        }
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("a private address"),
        [first, ..] if first & 0xff80 == 0xfe80 => Some("a link-local address"),
        // Only 2000::/3 is given out.
        [first, ..] if first & 0xe000 != 0x2000 => Some("a multicast or reserved address"),
        _ => None,
    }
}

/// Resolves names, and refuses a name of which any address is refused: the connection goes to one of these
/// very addresses, so a name cannot change its mind in between.
#[derive(Debug, Default)]
pub(crate) struct PublicOnly(DefaultResolver);

/// How the refusal travels through `ureq`'s error type.
#[derive(Debug, thiserror::Error)]
#[error("{host} has {address}, {reason}")]
pub(crate) struct AddressRefused {
    host: String,
    address: IpAddr,
    reason: &'static str,
}

impl Resolver for PublicOnly {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.0.resolve(uri, config, timeout)?;
        for address in &addresses {
            if let Some(reason) = refused(address.ip()) {
                let host = uri.host().unwrap_or_default().to_owned();
                return Err(ureq::Error::Other(Box::new(AddressRefused {
                    host,
                    address: address.ip(),
                    reason,
                })));
            }
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_addresses_are_refused_in_every_disguise() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "100::1",
        ] {
            assert!(refused(text.parse().unwrap()).is_some(), "{text}");
        }
    }

    #[test]
    fn ordinary_addresses_are_not() {
        for text in [
            "8.8.8.8",
            "172.32.0.1",
            "192.167.0.1",
            "100.128.0.1",
            "2600::1",
            "2a00:1450:4001::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(refused(text.parse().unwrap()), None, "{text}");
        }
    }
}
