//! DSSE v1 envelopes in one encoding.
//!
//! DSSE leaves room: key order, white space, two base64 alphabets, unknown fields. An envelope of ours has one
//! form, a JSON line and a line end, and what is read must be that form byte for byte, so that no bit of it can
//! change without being refused and its digest names it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use recipe_spec::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::certificate::{Certificate, CertificateError};
use crate::chain::Chain;
use crate::key::SIGNATURE_BYTES;
use crate::limits::{MAX_ENVELOPE_BYTES, MAX_INTERMEDIATES, MAX_SIGNATURES};
use crate::role::{Role, Signer};

/// The payload type of every envelope here: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The bytes that a signature covers: `DSSEv1 <len(type)> <type> <len(payload)> <payload>`, lengths in decimal
/// bytes (DSSE v1 §PAE).
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Why bytes are not an envelope of ours. Nothing cryptographic has been looked at yet.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// More bytes than any envelope has.
    #[error("the envelope has {bytes} bytes, at most {MAX_ENVELOPE_BYTES} are read")]
    TooLarge {
        /// Bytes that came.
        bytes: usize,
    },
    /// Not JSON of the right shape; duplicate and unknown fields are here too.
    #[error("the envelope is not the JSON of a DSSE envelope: {0}")]
    NotAnEnvelope(String),
    /// The same content in another encoding.
    #[error(
        "the envelope is not in its canonical form (one line of JSON, no white space, fields in order, standard base64)"
    )]
    NotCanonical,
    /// Base64 that is not standard, padded and canonical.
    #[error("{field} is not standard base64")]
    NotBase64 {
        /// `payload` or `sig`.
        field: &'static str,
    },
    /// A signature of another length than Ed25519's.
    #[error("the signature by {keyid} has {bytes} bytes, Ed25519 has {SIGNATURE_BYTES}")]
    SignatureLength {
        /// The key that it claims.
        keyid: Sha256Digest,
        /// Bytes found.
        bytes: usize,
    },
    /// No signature, or too many.
    #[error("the envelope has {count} signatures, 1 to {MAX_SIGNATURES} are accepted")]
    SignatureCount {
        /// Signatures found.
        count: usize,
    },
    /// Two signatures by one key would count twice, and another order would be another encoding.
    #[error("the signature by {keyid} is not in its place: each key signs once, in the order of keyid")]
    KeyOrder {
        /// The key.
        keyid: Sha256Digest,
    },
    /// More intermediates than a chain may have.
    #[error("a signature brings {count} intermediate certificates, at most {MAX_INTERMEDIATES} are accepted")]
    TooManyIntermediates {
        /// Certificates found.
        count: usize,
    },
    /// A certificate that cannot be read.
    #[error("a certificate in the envelope cannot be read: {0}")]
    Certificate(#[from] CertificateError),
    /// The key of the certificate is not the one that `keyid` names.
    #[error("keyid {keyid} is not the key of the certificate of {subject}")]
    KeyIdMismatch {
        /// What the envelope says.
        keyid: Sha256Digest,
        /// Whose certificate it is.
        subject: String,
    },
}

/// Why something cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key's role does not sign such statements.
    #[error("a {role} key does not sign {predicate}")]
    OtherRole {
        /// The key's role.
        role: Role,
        /// What the payload is.
        predicate: String,
    },
    /// The payload is not an in-toto statement.
    #[error("the payload is not an in-toto statement: {0}")]
    NotAStatement(String),
    /// The payload type is not [`PAYLOAD_TYPE`].
    #[error("payload type {0} is not signed here")]
    OtherPayloadType(String),
    /// The envelope would break a limit, so nobody could read it.
    #[error("the envelope could not be read again: {0}")]
    Unreadable(#[from] EnvelopeError),
}

/// One signature of an envelope, with the chain that it brings. Untrusted.
#[derive(Clone, Debug)]
pub struct EnvelopeSignature {
    signature: [u8; SIGNATURE_BYTES],
    chain: Chain,
}

impl EnvelopeSignature {
    /// SHA-256 of the SPKI in the certificate.
    pub fn keyid(&self) -> Sha256Digest {
        self.chain.leaf().public_key().spki_sha256()
    }

    /// The raw Ed25519 signature over the PAE.
    pub fn signature(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.signature
    }

    /// The certificates as they came.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }
}

/// A DSSE envelope whose form is right. Who signed it, and whether the signatures hold, is not known yet.
#[derive(Clone)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<EnvelopeSignature>,
}

impl Envelope {
    /// Reads the canonical encoding, and nothing else: writing the result gives the same bytes again.
    ///
    /// # Errors
    /// [`EnvelopeError`] names the first rule that is broken.
    pub fn parse_untrusted(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge { bytes: bytes.len() });
        }
        let form: EnvelopeForm =
            serde_json::from_slice(bytes).map_err(|error| EnvelopeError::NotAnEnvelope(error.to_string()))?;
        let envelope = Envelope::from_form(form)?;
        if envelope.to_bytes() != bytes {
            return Err(EnvelopeError::NotCanonical);
        }
        Ok(envelope)
    }

    fn from_form(form: EnvelopeForm) -> Result<Self, EnvelopeError> {
        let count = form.signatures.len();
        if count == 0 || count > MAX_SIGNATURES {
            return Err(EnvelopeError::SignatureCount { count });
        }
        let payload = decode(&form.payload, "payload")?;
        let mut signatures = Vec::<EnvelopeSignature>::with_capacity(count);
        for form in form.signatures {
            let signature = form.read()?;
            let keyid = signature.keyid();
            if signatures.last().is_some_and(|earlier| earlier.keyid() >= keyid) {
                return Err(EnvelopeError::KeyOrder { keyid });
            }
            signatures.push(signature);
        }
        Ok(Envelope { payload_type: form.payload_type, payload, signatures })
    }

    /// The canonical encoding: one line of JSON and a line end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let form = EnvelopeForm {
            payload: BASE64.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self.signatures.iter().map(SignatureForm::write).collect(),
        };
        // Strings and lists of strings only: writing them cannot fail, and nothing equals empty bytes.
        let mut bytes = serde_json::to_vec(&form).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// SHA-256 of [`Envelope::to_bytes`].
    pub fn sha256(&self) -> Sha256Digest {
        Sha256Digest::of(&self.to_bytes())
    }

    /// The payload type as it came.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload's bytes, unverified.
    pub fn payload_untrusted(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures, unverified, each by another key, in the order of keyid.
    pub fn signatures(&self) -> &[EnvelopeSignature] {
        &self.signatures
    }

    /// Adds a signature by another key, for recipes that several people sign.
    ///
    /// # Errors
    /// [`SignError`] as in [`sign`].
    pub fn with_signature(mut self, signer: &Signer) -> Result<Self, SignError> {
        signable(signer.role(), &self.payload_type, &self.payload)?;
        self.signatures.push(signature_by(signer, &self.payload_type, &self.payload));
        self.signatures.sort_by_key(EnvelopeSignature::keyid);
        Ok(Envelope::parse_untrusted(&self.to_bytes())?)
    }

    pub(crate) fn into_payload(self) -> Vec<u8> {
        self.payload
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.signatures.iter().map(EnvelopeSignature::keyid).collect();
        write!(f, "Envelope({} bytes of {}, by {keys:?})", self.payload.len(), self.payload_type)
    }
}

/// Signs a statement: the predicate must be one that the signer's role signs.
///
/// # Errors
/// [`SignError`] when the payload is no statement, or not this role's, or the envelope would break a limit.
pub fn sign(payload_type: &str, payload: &[u8], signer: &Signer) -> Result<Envelope, SignError> {
    signable(signer.role(), payload_type, payload)?;
    let envelope = Envelope {
        payload_type: payload_type.to_owned(),
        payload: payload.to_vec(),
        signatures: vec![signature_by(signer, payload_type, payload)],
    };
    Ok(Envelope::parse_untrusted(&envelope.to_bytes())?)
}

fn signature_by(signer: &Signer, payload_type: &str, payload: &[u8]) -> EnvelopeSignature {
    EnvelopeSignature {
        signature: signer.key().sign(&pae(payload_type, payload)),
        chain: signer.chain().clone(),
    }
}

fn signable(role: Role, payload_type: &str, payload: &[u8]) -> Result<(), SignError> {
    if payload_type != PAYLOAD_TYPE {
        return Err(SignError::OtherPayloadType(recipe_spec::text::quoted(payload_type)));
    }
    let predicate = predicate_type(payload).map_err(|error| SignError::NotAStatement(error.to_string()))?;
    if role.predicates().contains(&predicate.as_str()) {
        Ok(())
    } else {
        Err(SignError::OtherRole { role, predicate: recipe_spec::text::quoted(&predicate) })
    }
}

/// The predicate type of a statement, before its predicate is known and can be read strictly.
pub(crate) fn predicate_type(payload: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "predicateType")]
        predicate_type: String,
    }
    serde_json::from_slice::<Head>(payload).map(|head| head.predicate_type)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnvelopeForm {
    payload: String,
    payload_type: String,
    signatures: Vec<SignatureForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureForm {
    keyid: Sha256Digest,
    sig: String,
    /// PEM text.
    certificate: String,
    /// PEM texts, from the leaf's issuer upwards, without the anchor.
    intermediates: Vec<String>,
}

impl SignatureForm {
    fn read(self) -> Result<EnvelopeSignature, EnvelopeError> {
        let keyid = self.keyid;
        let bytes = decode(&self.sig, "sig")?;
        let signature = <[u8; SIGNATURE_BYTES]>::try_from(bytes.as_slice())
            .map_err(|_| EnvelopeError::SignatureLength { keyid, bytes: bytes.len() })?;
        if self.intermediates.len() > MAX_INTERMEDIATES {
            return Err(EnvelopeError::TooManyIntermediates { count: self.intermediates.len() });
        }
        let leaf = Certificate::from_pem(&self.certificate)?;
        if leaf.public_key().spki_sha256() != keyid {
            return Err(EnvelopeError::KeyIdMismatch { keyid, subject: leaf.subject().to_owned() });
        }
        let intermediates =
            self.intermediates.iter().map(|pem| Certificate::from_pem(pem)).collect::<Result<_, _>>()?;
        Ok(EnvelopeSignature { signature, chain: Chain::from_untrusted(leaf, intermediates) })
    }

    fn write(signature: &EnvelopeSignature) -> Self {
        SignatureForm {
            keyid: signature.keyid(),
            sig: BASE64.encode(signature.signature),
            certificate: signature.chain.leaf().to_pem(),
            intermediates: signature.chain.intermediates().iter().map(Certificate::to_pem).collect(),
        }
    }
}

fn decode(text: &str, field: &'static str) -> Result<Vec<u8>, EnvelopeError> {
    BASE64.decode(text).map_err(|_| EnvelopeError::NotBase64 { field })
}
