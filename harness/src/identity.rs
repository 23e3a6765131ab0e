//! What makes a clone a machine of its own, made on the host: nothing of it was in the template.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use guest::control::{HostKey, Identity, Names, SEED_BYTES};
use zeroize::Zeroizing;

use crate::error::HarnessError;
use crate::template::Template;

/// A line of a private key, in characters, as `ssh-keygen` breaks it.
const LINE: usize = 70;
/// Name of the algorithm (RFC 8709 §4).
const ALGORITHM: &[u8] = b"ssh-ed25519";

/// A fresh identity for a clone of `template`. A nano guest gets no names; `hostname` is a single label (RFC 1123 §2.1).
///
/// # Errors
/// `HOST_FAILED` if the system has no randomness or its clock stands before 1970.
pub fn fresh(template: &Template, hostname: &str) -> Result<Identity, HarnessError> {
    let shape = &template.record().shape;
    let names = match shape.mode {
        guest::control::Mode::Nano => None,
        guest::control::Mode::Disk => Some(Names {
            machine_id: machine_id(*random()?),
            hostname: hostname.to_owned(),
            mac: shape.card.then(|| random().map(|bytes| mac(*bytes))).transpose()?,
            host_key: host_key(random()?, *random()?),
        }),
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now =
        since.map_err(|_| HarnessError::process("tell the time", std::io::Error::other("before 1970")))?;
    Ok(Identity {
        seed: STANDARD.encode(*random::<SEED_BYTES>()?),
        unix_time_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        names,
    })
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, HarnessError> {
    let mut bytes = Zeroizing::new([0; N]);
    let failed = |error: getrandom::Error| {
        HarnessError::process("get random bytes", std::io::Error::other(error.to_string()))
    };
    getrandom::fill(&mut *bytes).map_err(failed)?;
    Ok(bytes)
}

/// As `systemd-machine-id-setup` makes one: a random UUID of version 4 (machine-id(5)).
fn machine_id(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    hex::encode(bytes)
}

/// A locally administered unicast address (IEEE 802, clause 8).
fn mac(mut bytes: [u8; 6]) -> String {
    bytes[0] = bytes[0] & 0xfc | 0x02;
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// An Ed25519 key in OpenSSH's own format (`PROTOCOL.key`), without a passphrase. `check` must differ from key to key only so
/// that files do.
fn host_key(seed: Zeroizing<[u8; 32]>, check: [u8; 4]) -> HostKey {
    let key = SigningKey::from_bytes(&seed);
    let public = key.verifying_key().to_bytes();
    let mut public_blob = Vec::new();
    put(&mut public_blob, ALGORITHM);
    put(&mut public_blob, &public);

    let mut secret = Zeroizing::new(Vec::with_capacity(192));
    secret.extend_from_slice(&check);
    secret.extend_from_slice(&check);
    put(&mut secret, ALGORITHM);
    put(&mut secret, &public);
    put(&mut secret, &*Zeroizing::new(key.to_keypair_bytes()));
    put(&mut secret, b"");
    // The block of the cipher "none" has 8 bytes; padding is 1, 2, 3 …
    for byte in 1..=u8::MAX {
        if secret.len() % 8 == 0 {
            break;
        }
        secret.push(byte);
    }

    let mut whole = Zeroizing::new(Vec::with_capacity(512));
    whole.extend_from_slice(b"openssh-key-v1\0");
    for field in [b"none".as_slice(), b"none", b""] {
        put(&mut whole, field);
    }
    whole.extend_from_slice(&1u32.to_be_bytes());
    put(&mut whole, &public_blob);
    put(&mut whole, &secret);

    let encoded = Zeroizing::new(STANDARD.encode(&*whole));
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(LINE).filter_map(|line| str::from_utf8(line).ok()).collect();
    HostKey {
        private: format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            lines.join("\n")
        ),
        public: format!("ssh-ed25519 {}\n", STANDARD.encode(public_blob)),
    }
}

/// A string of SSH (RFC 4251 §5): its length in 32 bits, then its bytes.
fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("fields of some bytes");
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn openssh_reads_the_key_and_finds_the_same_public_one() {
        let key = host_key(Zeroizing::new([7; 32]), [1, 2, 3, 4]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, &key.private).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = Command::new("ssh-keygen").args(["-y", "-P", "", "-f"]).arg(&path).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        assert_eq!(text.trim_end(), key.public.trim_end());
    }

    #[test]
    fn no_two_are_the_same_and_each_has_its_form() {
        let (one, other) = (random::<16>().unwrap(), random::<16>().unwrap());
        assert_ne!(*one, *other);
        assert_eq!(machine_id([0xff; 16]), "ffffffffffff4fffbfffffffffffffff");
        assert_eq!(mac([0xff; 6]), "fe:ff:ff:ff:ff:ff");
        assert_eq!(mac([0; 6]), "02:00:00:00:00:00");
    }
}
