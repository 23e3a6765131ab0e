//! An [`Identity`], checked: nothing of a machine is changed for one that is not well-formed as a whole.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::control::{AgentError, HostKey, Identity, Names, SEED_BYTES};
use zeroize::Zeroizing;

use super::failure;

/// Length of a machine id, in hexadecimal digits.
const MACHINE_ID_DIGITS: usize = 32;
/// Longest label, in bytes (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// Longest file of a host key, in bytes. An Ed25519 key takes some four hundred.
const MAX_KEY: usize = 4 * 1024;
/// How a private key begins and ends (openssh-key-v1).
const PRIVATE_FENCE: (&str, &str) =
    ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "-----END OPENSSH PRIVATE KEY-----\n");
/// How a public key begins (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").
const PUBLIC_KIND: &str = "ssh-ed25519 ";

/// What a clone becomes.
pub(crate) struct Checked {
    pub(crate) seed: Zeroizing<[u8; SEED_BYTES]>,
    /// Since 1970-01-01 UTC.
    pub(crate) time: Duration,
    pub(crate) names: Option<CheckedNames>,
}

/// What names it to others.
pub(crate) struct CheckedNames {
    pub(crate) machine_id: String,
    pub(crate) hostname: String,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) private_key: Zeroizing<String>,
    pub(crate) public_key: String,
}

impl Checked {
    /// # Errors
    /// `BadRequest`, which says what is not well-formed, and nothing that is secret.
    pub(crate) fn check(identity: Identity) -> Result<Self, AgentError> {
        let Identity { seed, unix_time_ns, names } = identity;
        let seed = Zeroizing::new(seed);
        // Each secret is in a hand that wipes it before the first of them is found wrong.
        let names = names.map(CheckedNames::check).transpose();
        Ok(Self { seed: seed_bytes(&seed)?, time: Duration::from_nanos(unix_time_ns), names: names? })
    }
}

impl CheckedNames {
    fn check(names: Names) -> Result<Self, AgentError> {
        let Names { machine_id, hostname, mac, host_key: HostKey { private, public } } = names;
        let private_key = Zeroizing::new(private);
        require(
            is_machine_id(&machine_id),
            "the machine id is not 32 lower-case hexadecimal digits, of which one at least is not 0",
        )?;
        require(
            is_label(&hostname),
            "the hostname is not one label of at most 63 letters, digits and hyphens (RFC 1123 §2.1)",
        )?;
        let mac = mac.map(|mac| {
            mac_address(&mac).ok_or_else(|| {
                failure::bad_request("the address of the card is not xx:xx:xx:xx:xx:xx, lower-case, unicast")
            })
        });
        require(is_private_key(&private_key), "the private host key is not as ssh-keygen writes it")?;
        require(is_public_key(&public), "the public host key is not one line that begins with ssh-ed25519")?;
        Ok(Self { machine_id, hostname, mac: mac.transpose()?, private_key, public_key: public })
    }
}

fn require(well_formed: bool, otherwise: &str) -> Result<(), AgentError> {
    if well_formed { Ok(()) } else { Err(failure::bad_request(otherwise)) }
}

fn seed_bytes(text: &str) -> Result<Zeroizing<[u8; SEED_BYTES]>, AgentError> {
    let decoded = STANDARD.decode(text).map(Zeroizing::new).ok();
    let seed = decoded.and_then(|bytes| <[u8; SEED_BYTES]>::try_from(bytes.as_slice()).ok());
    seed.map(Zeroizing::new)
        .ok_or_else(|| failure::bad_request(format!("the seed is not {SEED_BYTES} bytes in base64")))
}

/// machine-id(5): also not all 0, which names no machine.
fn is_machine_id(text: &str) -> bool {
    text.len() == MACHINE_ID_DIGITS
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|byte| byte != b'0')
}

fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// An address that a card can have: of one station (the lowest bit of the first octet is 0), and not all 0.
fn mac_address(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut octets = text.split(':');
    for octet in &mut address {
        let digits = octets.next()?;
        let is_octet =
            digits.len() == 2 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        *octet = u8::from_str_radix(digits, 16).ok().filter(|_| is_octet)?;
    }
    (octets.next().is_none() && address[0] & 1 == 0 && address != [0; 6]).then_some(address)
}

/// Lines of printable ASCII, each ended.
fn is_text(text: &str) -> bool {
    text.len() <= MAX_KEY
        && text.bytes().all(|byte| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic())
        && text.ends_with('\n')
}

fn is_private_key(text: &str) -> bool {
    let (begin, end) = PRIVATE_FENCE;
    is_text(text) && text.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end))
}

fn is_public_key(text: &str) -> bool {
    is_text(text) && text.starts_with(PUBLIC_KIND) && text.lines().count() == 1
}

#[cfg(test)]
pub(crate) mod tests {
    use guest::control::AgentErrorKind;
    use proptest::prelude::*;

    use super::*;

    pub(crate) const PRIVATE: &str =
        "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n";
    pub(crate) const PUBLIC: &str = "ssh-ed25519 AAAAC3Nz root@vm\n";

    pub(crate) fn names() -> Names {
        Names {
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            hostname: "vm-1".into(),
            mac: Some("52:54:00:ab:cd:ef".into()),
            host_key: HostKey { private: PRIVATE.into(), public: PUBLIC.into() },
        }
    }

    /// Well-formed, but of a time that the kernel does not take (the year 2554): the machine that runs a test, as root, keeps its
    /// own clock and names also where the test fails.
    pub(crate) fn identity() -> Identity {
        Identity { seed: STANDARD.encode([7; SEED_BYTES]), unix_time_ns: u64::MAX, names: Some(names()) }
    }

    fn refusal(identity: Identity) -> String {
        let error = Checked::check(identity).err().expect("it is refused");
        assert_eq!(error.kind, AgentErrorKind::BadRequest);
        error.message
    }

    fn named(change: impl FnOnce(&mut Names)) -> Identity {
        let mut names = names();
        change(&mut names);
        Identity { names: Some(names), ..identity() }
    }

    #[test]
    fn what_is_well_formed_is_taken_as_it_is() {
        let dated = Identity { unix_time_ns: 1_700_000_000_000_000_001, ..identity() };
        let checked = Checked::check(dated).unwrap();
        assert_eq!(*checked.seed, [7; SEED_BYTES]);
        assert_eq!(checked.time, Duration::new(1_700_000_000, 1));
        let names = checked.names.unwrap();
        assert_eq!((names.machine_id.len(), names.hostname.as_str()), (32, "vm-1"));
        assert_eq!(names.mac, Some([0x52, 0x54, 0, 0xab, 0xcd, 0xef]));
        assert_eq!((names.private_key.as_str(), names.public_key.as_str()), (PRIVATE, PUBLIC));
        let nameless = Checked::check(Identity { names: None, ..identity() }).unwrap();
        assert!(nameless.names.is_none());
        assert!(Checked::check(named(|names| names.mac = None)).unwrap().names.unwrap().mac.is_none());
    }

    #[test]
    fn each_field_is_checked_and_nothing_secret_is_said() {
        // Not canonical: the last digit has bits that no byte has.
        let mut loose = STANDARD.encode([7; SEED_BYTES]);
        loose.replace_range(85..86, "x");
        let no_padding = loose.trim_end_matches('=').to_owned();
        for seed in ["".into(), "%".repeat(88), loose, no_padding, format!("{}\n", identity().seed)] {
            let said = refusal(Identity { seed: seed.clone(), ..identity() });
            assert_eq!(said, "the seed is not 64 bytes in base64", "{seed}");
        }
        for id in ["", "0123456789ABCDEF0123456789abcdef", &"0".repeat(32), &"1".repeat(33), &"1".repeat(31)]
        {
            assert!(refusal(named(|names| names.machine_id = id.into())).contains("machine id"), "{id}");
        }
        for hostname in ["", "-a", "a-", "a.b", "a_b", "a b", "a\n", "ä", &"a".repeat(64)] {
            assert!(
                refusal(named(|names| names.hostname = hostname.into())).contains("hostname"),
                "{hostname}"
            );
        }
        for mac in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:00",
            "52:54:00:AB:cd:ef",
            "52-54-00-ab-cd-ef",
            "+2:54:00:ab:cd:ef",
            "53:54:00:ab:cd:ef",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "52:54:00:ab:cd:ef\n",
        ] {
            assert!(refusal(named(|names| names.mac = Some(mac.into()))).contains("card"), "{mac}");
        }
        let long = PRIVATE.replacen("c2VjcmV0", &"A".repeat(MAX_KEY), 1);
        for key in ["", "secret\n", PRIVATE.trim_end(), &PRIVATE.replace("c2V", "\0\r"), &long] {
            let said = refusal(named(|names| names.host_key.private = key.into()));
            assert_eq!(said, "the private host key is not as ssh-keygen writes it");
        }
        for key in ["", "ssh-rsa AAAA\n", PUBLIC.trim_end(), &PUBLIC.repeat(2), &format!("{PUBLIC}\n")] {
            assert!(refusal(named(|names| names.host_key.public = key.into())).contains("public"), "{key}");
        }
    }

    /// What the kernel and systemd say of a label, written another way.
    fn is_label_by_parts(text: &str) -> bool {
        let parts: Vec<&str> = text.split('-').collect();
        let ends = parts.first().zip(parts.last());
        text.chars().count() <= 63
            && ends.is_some_and(|(first, last)| !first.is_empty() && !last.is_empty())
            && parts.iter().all(|part| part.chars().all(|letter| letter.is_ascii_alphanumeric()))
    }

    proptest! {
        #[test]
        fn a_seed_is_taken_at_its_length_only(bytes in prop::collection::vec(any::<u8>(), 0..130)) {
            let checked = Checked::check(Identity { seed: STANDARD.encode(&bytes), ..identity() });
            prop_assert_eq!(checked.is_ok(), bytes.len() == SEED_BYTES);
        }

        #[test]
        fn a_seed_is_taken_in_one_writing_only(text in "[A-Za-z0-9+/]{85,86}[A-Za-z0-9+/=]{2,3}") {
            if let Ok(checked) = Checked::check(Identity { seed: text.clone(), ..identity() }) {
                prop_assert_eq!(STANDARD.encode(*checked.seed), text);
            }
        }

        #[test]
        fn every_64_random_bytes_are_a_seed(bytes in prop::array::uniform32(any::<[u8; 2]>())) {
            let identity = Identity { seed: STANDARD.encode(bytes.as_flattened()), ..identity() };
            let seed = Checked::check(identity).unwrap().seed;
            prop_assert_eq!(&seed[..], bytes.as_flattened());
        }

        #[test]
        fn a_hostname_is_one_label(text in "[a-zA-Z0-9-]{0,66}|[ -~]{0,8}|.{0,8}") {
            let checked = Checked::check(named(|names| names.hostname = text.clone()));
            prop_assert_eq!(checked.is_ok(), is_label_by_parts(&text), "{}", text);
        }

        #[test]
        fn an_address_is_read_as_it_is_written(octets in any::<[u8; 6]>()) {
            let text = octets.map(|octet| format!("{octet:02x}")).join(":");
            let expected = Some(octets).filter(|octets| octets[0] % 2 == 0 && *octets != [0; 6]);
            let checked = Checked::check(named(|names| names.mac = Some(text)));
            prop_assert_eq!(checked.ok().map(|checked| checked.names.unwrap().mac), expected.map(Some));
        }

        #[test]
        fn an_address_has_one_writing(text in "[0-9a-fA-F:]{17}|([0-9a-fA-F+-]{1,3}:){5}[0-9a-f]{2}") {
            if let Some(octets) = mac_address(&text) {
                prop_assert_eq!(octets.map(|octet| format!("{octet:02x}")).join(":"), text);
            }
        }

        #[test]
        fn a_machine_id_is_32_digits(text in "[0-9a-f]{30,34}|[0-9a-fA-F]{32}|.{32}") {
            let digits = text.chars().all(|digit| digit.is_ascii_digit() || ('a'..='f').contains(&digit));
            let expected = digits && text.chars().count() == 32 && text.chars().any(|digit| digit != '0');
            let checked = Checked::check(named(|names| names.machine_id = text.clone()));
            prop_assert_eq!(checked.is_ok(), expected, "{}", text);
        }

        #[test]
        fn no_key_of_other_bytes_gets_into_a_file(text in any::<String>(), at in 0..PRIVATE.len()) {
            let mut key = PRIVATE.to_owned();
            key.insert_str(at, &text);
            let allowed = text.chars().all(|letter| matches!(letter, '\n' | ' '..='~'));
            if Checked::check(named(|names| names.host_key.private = key)).is_ok() {
                prop_assert!(allowed, "{text:?}");
            }
        }
    }
}
