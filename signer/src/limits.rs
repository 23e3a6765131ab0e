//! How large anything may be before it is looked at. Every limit has a name.

/// Bytes of a whole envelope, with its line end.
pub const MAX_ENVELOPE_BYTES: usize = 2 * 1024 * 1024;
/// Signatures in one envelope.
pub const MAX_SIGNATURES: usize = 8;
/// Intermediate certificates between a leaf and its anchor.
pub const MAX_INTERMEDIATES: usize = 4;
/// Bytes of one certificate, as DER.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Bytes of the X.509 CRL of one CA, as DER: about 400,000 revoked certificates.
pub const MAX_CERTIFICATE_CRL_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a private key's PEM text.
pub const MAX_KEY_PEM_BYTES: usize = 16 * 1024;
/// Bytes of a passphrase.
pub const MAX_PASSPHRASE_BYTES: usize = 1024;
/// Rounds of PBKDF2 when a key is written: OWASP's number for HMAC-SHA-256.
pub const KDF_ITERATIONS: u32 = 600_000;
/// Rounds of PBKDF2 that a key may ask for when it is read: some seconds of work.
pub const MAX_KDF_ITERATIONS: u32 = 10_000_000;
/// Characters of an organisation or common name (RFC 5280 appendix A.1, ub-organization-name).
pub const MAX_NAME_CHARACTERS: usize = 64;
