//! Keys, certificates and envelopes: who signed which bytes, and may they.
//!
//! Everything is a pure function of bytes, anchors, revocation data and time; nothing here reads a disk, a
//! network or a clock. The flow has one direction:
//!
//! ```text
//! bytes ─Envelope::parse_untrusted→ Envelope ─trust::verify_recipe | verify_site→ VerifiedEnvelope ─payload()→ parse
//! ```
//!
//! A [`VerifiedEnvelope`] can only come out of a verification, and its payload is the bytes that were verified:
//! nothing is written again to check a signature (DSSE v1 §PAE).
//!
//! Signing takes a [`Signer`]: a key, its certificate chain and the one [`Role`] that it has.

pub mod ca;
pub mod certificate;
mod certificate_crl;
pub mod chain;
pub mod dsse;
pub mod key;
pub mod limits;
pub mod role;
pub mod signed_recipe;
pub mod trust;

pub use certificate::{Certificate, CertificateError};
pub use certificate_crl::{CertificateCrl, CertificateCrlError};
pub use chain::{Chain, ChainError};
pub use dsse::{Envelope, EnvelopeError, PAYLOAD_TYPE, SignError};
pub use key::{KeyError, Passphrase, PublicKey, SecretKey};
pub use role::{Role, Signer, SignerError};
pub use signed_recipe::{VerifiedRecipeSignature, verify_signed_recipe, verify_signed_recipe_at};
pub use trust::{
    Anchor, SitePins, TrustError, TrustSetupError, TrustStore, VerifiedEnvelope, VerifiedSigner, VoMap,
    verify_recipe, verify_recipe_at, verify_site, verify_site_at,
};
