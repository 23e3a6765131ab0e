//! Ed25519 keys, at rest and in use.
//!
//! A private key is PKCS#8 version 1, because OpenSSL 3.0 cannot read an encrypted version 2, and is encrypted
//! with PBES2: PBKDF2-HMAC-SHA-256 and AES-256-CBC (RFC 8018 §6.2). It is wiped from memory when dropped.

use std::fmt;

use der::pem::{LineEnding, PemLabel as _};
use ed25519_dalek::pkcs8::KeypairBytes;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use pkcs8::pkcs5::pbes2;
use pkcs8::{
    EncodePrivateKey as _, EncodePublicKey as _, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef,
    SecretDocument,
};
use recipe_spec::Sha256Digest;
use spki::SubjectPublicKeyInfoRef;
use zeroize::{Zeroize as _, Zeroizing};

use crate::limits::{KDF_ITERATIONS, MAX_KDF_ITERATIONS, MAX_KEY_PEM_BYTES, MAX_PASSPHRASE_BYTES};

/// Bytes of an Ed25519 signature (RFC 8032 §5.1.6).
pub const SIGNATURE_BYTES: usize = 64;
/// id-Ed25519 (RFC 8410 §3).
pub(crate) const ED25519: der::asn1::ObjectIdentifier =
    der::asn1::ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a key cannot be read, made or written. No variant holds any part of a key or of a passphrase.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not one PEM block of a private key.
    #[error("this is not a private key in PEM: {0}")]
    NotPem(String),
    /// The PEM text is larger than any key.
    #[error("the key file has {bytes} bytes, at most {MAX_KEY_PEM_BYTES} are read")]
    TooLarge {
        /// Bytes of the text.
        bytes: usize,
    },
    /// The key is encrypted and no passphrase was given.
    #[error("the key is encrypted and needs its passphrase")]
    PassphraseNeeded,
    /// Decryption failed: in practice, the passphrase is wrong.
    #[error("the passphrase does not open this key")]
    WrongPassphrase,
    /// A passphrase that protects nothing, or is too long.
    #[error("a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes")]
    BadPassphrase,
    /// The key is encrypted in a way that is not read here.
    #[error(
        "the key is encrypted with {found}; use PBES2 with PBKDF2 and AES (`openssl pkcs8 -topk8 -v2 aes-256-cbc`)"
    )]
    UnsupportedEncryption {
        /// What the file names.
        found: String,
    },
    /// The key is of another algorithm.
    #[error("the key's algorithm is {oid}, only Ed25519 (1.3.101.112) is used here")]
    NotEd25519 {
        /// Dotted object identifier.
        oid: String,
    },
    /// The structure is not PKCS#8, or the public half does not belong to the private one.
    #[error("the key is malformed")]
    Malformed,
    /// A public key that is not a canonical, strong Ed25519 point.
    #[error("the public key is not a usable Ed25519 key")]
    WeakPublicKey,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(String),
}

/// A passphrase: wiped when dropped, never printed.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the passphrase as typed.
    ///
    /// # Errors
    /// [`KeyError::BadPassphrase`] when it is empty or longer than [`MAX_PASSPHRASE_BYTES`].
    pub fn new(text: String) -> Result<Self, KeyError> {
        Passphrase::checked(Zeroizing::new(text.into_bytes()))
    }

    /// Takes the content of a passphrase file; one line end at its end is not part of it, as with OpenSSL's `file:`.
    ///
    /// # Errors
    /// As [`Passphrase::new`].
    pub fn from_file_content(content: Vec<u8>) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new(content);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Passphrase::checked(bytes)
    }

    fn checked(bytes: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        if bytes.is_empty() || bytes.len() > MAX_PASSPHRASE_BYTES {
            return Err(KeyError::BadPassphrase);
        }
        Ok(Passphrase(bytes))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// An Ed25519 private key. It prints as its public half, and is wiped when dropped.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes a key from the operating system's random bytes.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        fill_random(seed.as_mut())?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }

    /// Reads PKCS#8 PEM, version 1 or 2, plain or encrypted with PBES2 (PBKDF2 and AES-CBC), as OpenSSL writes it.
    /// The passphrase is not looked at when the key is plain.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the text, the passphrase or the algorithm.
    pub fn from_pem(pem: &str, passphrase: Option<&Passphrase>) -> Result<Self, KeyError> {
        if pem.len() > MAX_KEY_PEM_BYTES {
            return Err(KeyError::TooLarge { bytes: pem.len() });
        }
        let (label, document) =
            SecretDocument::from_pem(pem.trim()).map_err(|error| KeyError::NotPem(error.to_string()))?;
        if label == PrivateKeyInfoRef::PEM_LABEL {
            return SecretKey::from_pkcs8(document.as_bytes());
        }
        if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
            return Err(KeyError::NotPem(format!("it is labelled {}", recipe_spec::text::quoted(label))));
        }
        let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|error| {
            KeyError::UnsupportedEncryption { found: format!("an unknown scheme ({error})") }
        })?;
        affordable(&encrypted)?;
        let passphrase = passphrase.ok_or(KeyError::PassphraseNeeded)?;
        let plain = encrypted.decrypt(passphrase.0.as_slice()).map_err(|_| KeyError::WrongPassphrase)?;
        SecretKey::from_pkcs8(plain.as_bytes())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| KeyError::Malformed)?;
        if info.algorithm.oid != ED25519 {
            return Err(KeyError::NotEd25519 { oid: info.algorithm.oid.to_string() });
        }
        SigningKey::try_from(info).map(SecretKey).map_err(|_| KeyError::Malformed)
    }

    /// Writes the key encrypted, `-----BEGIN ENCRYPTED PRIVATE KEY-----`, with [`KDF_ITERATIONS`] rounds.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn to_encrypted_pem(&self, passphrase: &Passphrase) -> Result<String, KeyError> {
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        fill_random(&mut salt)?;
        fill_random(&mut iv)?;
        let parameters = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(KDF_ITERATIONS, &salt, iv)
            .map_err(|_| KeyError::Malformed)?;
        let document = self.to_pkcs8()?;
        let info = PrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| KeyError::Malformed)?;
        let encrypted =
            info.encrypt_with_params(parameters, passphrase.0.as_slice()).map_err(|_| KeyError::Malformed)?;
        let mut pem = encrypted
            .to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
            .map_err(|_| KeyError::Malformed)?;
        Ok(std::mem::take(&mut *pem))
    }

    /// Writes the key in the clear, `-----BEGIN PRIVATE KEY-----`. The text is wiped when dropped.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] cannot happen for a key that exists; it is there so that nothing panics.
    pub fn to_plain_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.to_pkcs8()?.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(|_| KeyError::Malformed)
    }

    fn to_pkcs8(&self) -> Result<SecretDocument, KeyError> {
        let mut secret = self.0.to_bytes();
        let version_1 = KeypairBytes { secret_key: secret, public_key: None };
        secret.zeroize();
        version_1.to_pkcs8_der().map_err(|_| KeyError::Malformed)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `message` with pure Ed25519 (RFC 8032 §5.1.6); deterministic.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }

    pub(crate) fn dalek(&self) -> &SigningKey {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public().spki_sha256())
    }
}

/// An Ed25519 public key: a canonical point that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER (RFC 8410 §4: no parameters). Only the one encoding that
    /// [`PublicKey::spki_der`] writes is read.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::NotEd25519`], [`KeyError::WeakPublicKey`].
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoRef::try_from(der).map_err(|_| KeyError::Malformed)?;
        if spki.algorithm.oid != ED25519 {
            return Err(KeyError::NotEd25519 { oid: spki.algorithm.oid.to_string() });
        }
        let bytes = spki.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
        let key = PublicKey::from_bytes(bytes)?;
        if key.spki_der() == der { Ok(key) } else { Err(KeyError::Malformed) }
    }

    /// Reads `-----BEGIN PUBLIC KEY-----`.
    ///
    /// # Errors
    /// [`KeyError::NotPem`], else as [`PublicKey::from_spki_der`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > MAX_KEY_PEM_BYTES {
            return Err(KeyError::TooLarge { bytes: pem.len() });
        }
        let (label, document) =
            der::Document::from_pem(pem.trim()).map_err(|error| KeyError::NotPem(error.to_string()))?;
        if label != PUBLIC_KEY_LABEL {
            return Err(KeyError::NotPem(format!("it is labelled {}", recipe_spec::text::quoted(label))));
        }
        PublicKey::from_spki_der(document.as_bytes())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = bytes.try_into().map_err(|_| KeyError::WeakPublicKey)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::WeakPublicKey)?;
        // RFC 8032 §5.1.3 wants y below p; dalek reads larger ones too, so that one key would have two names.
        let canonical = key.to_edwards().compress().to_bytes() == *bytes;
        if key.is_weak() || !canonical {
            return Err(KeyError::WeakPublicKey);
        }
        Ok(PublicKey(key))
    }

    /// SubjectPublicKeyInfo in DER, 44 bytes (RFC 8410 §4).
    pub fn spki_der(&self) -> Vec<u8> {
        let mut der = SPKI_PREFIX.to_vec();
        der.extend_from_slice(self.0.as_bytes());
        der
    }

    /// `-----BEGIN PUBLIC KEY-----`, as `openssl pkey -pubin` reads it.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] cannot happen for a key that exists.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|_| KeyError::Malformed)
    }

    /// SHA-256 of [`PublicKey::spki_der`]: the key's name everywhere (`keyid`, pins, revocation).
    pub fn spki_sha256(&self) -> Sha256Digest {
        Sha256Digest::of(&self.spki_der())
    }

    /// True when `signature` is one by this key over `message`. Strict: canonical S, no small-order R
    /// (dalek's `verify_strict`), so that a signature has one form only.
    #[must_use]
    pub fn verify_strict(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(bytes) = <&[u8; SIGNATURE_BYTES]>::try_from(signature) else { return false };
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(bytes)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.spki_sha256())
    }
}

const PUBLIC_KEY_LABEL: &str = "PUBLIC KEY";

/// `SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING (33 bytes, none unused) … }` (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Refuses an encryption that this crate does not know, or that would cost minutes to open.
fn affordable(encrypted: &EncryptedPrivateKeyInfoRef<'_>) -> Result<(), KeyError> {
    let unsupported = |found: String| Err(KeyError::UnsupportedEncryption { found });
    let Some(parameters) = encrypted.encryption_algorithm.pbes2() else {
        return unsupported("PBES1".to_owned());
    };
    match &parameters.kdf {
        pbes2::Kdf::Pbkdf2(kdf) if kdf.iteration_count <= MAX_KDF_ITERATIONS => Ok(()),
        pbes2::Kdf::Pbkdf2(kdf) => unsupported(format!(
            "{} rounds of PBKDF2, above the {MAX_KDF_ITERATIONS} that are done",
            kdf.iteration_count
        )),
        other => unsupported(format!("the key derivation {}", other.oid())),
    }
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| KeyError::NoRandomness(error.to_string()))
}
