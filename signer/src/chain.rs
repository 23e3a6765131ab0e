//! A leaf and the certificates above it: what comes along with a signature. Untrusted, like each of them.

use crate::certificate::{Certificate, CertificateError, all_from_pem};
use crate::limits::MAX_INTERMEDIATES;

/// Why certificates are not a signing chain. Form only: no signature has been looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A certificate in it cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is no certificate.
    #[error("there is no certificate in the chain")]
    Empty,
    /// More certificates than a chain may have.
    #[error("the chain has more than {MAX_INTERMEDIATES} certificates between the leaf and the anchor")]
    TooLong,
    /// The leaf may not sign.
    #[error("the certificate of {subject} cannot sign recipes or lists: {fault}")]
    NotASigningCertificate {
        /// Its subject.
        subject: String,
        /// The rule that it breaks.
        fault: &'static str,
    },
    /// A certificate above the leaf may not issue.
    #[error("the certificate of {subject} cannot issue others: {fault}")]
    NotAnIssuer {
        /// Its subject.
        subject: String,
        /// The rule that it breaks.
        fault: &'static str,
    },
    /// Two neighbours do not belong together.
    #[error("the certificate of {subject} was issued by {issuer}, but {above} comes next in the chain")]
    NotLinked {
        /// The lower one's subject.
        subject: String,
        /// Its issuer.
        issuer: String,
        /// Subject of the next one.
        above: String,
    },
    /// The anchor came along: a site takes it from its own configuration only.
    #[error("the chain holds {subject}, which issued itself; leave the anchor out")]
    HoldsAnchor {
        /// The anchor's subject.
        subject: String,
    },
}

/// A leaf and the certificates above it, without the anchor. Untrusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    leaf: Certificate,
    intermediates: Vec<Certificate>,
}

impl Chain {
    /// Reads a PEM text: the leaf first, then each issuer, without the anchor.
    ///
    /// # Errors
    /// [`ChainError::Empty`], [`ChainError::TooLong`], [`ChainError::Certificate`].
    pub fn from_pem(pem: &str) -> Result<Self, ChainError> {
        let mut certificates = all_from_pem(pem, MAX_INTERMEDIATES + 2)?.into_iter();
        let leaf = certificates.next().ok_or(ChainError::Empty)?;
        let intermediates: Vec<_> = certificates.collect();
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(ChainError::TooLong);
        }
        Ok(Chain { leaf, intermediates })
    }

    pub(crate) fn from_untrusted(leaf: Certificate, intermediates: Vec<Certificate>) -> Self {
        Chain { leaf, intermediates }
    }

    /// The certificate of the key that signs.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// From the leaf's issuer upwards, without the anchor.
    pub fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    /// All certificates, from the leaf upwards.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.intermediates)
    }

    /// The certificate that the anchor must have issued.
    pub(crate) fn top(&self) -> &Certificate {
        self.intermediates.last().unwrap_or(&self.leaf)
    }

    /// Checks what can be seen without an anchor: a leaf that may sign, issuers that may issue, each the next one's
    /// subject.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn check_form(&self) -> Result<(), ChainError> {
        self.leaf.check_signing_leaf()?;
        for (below, above) in self.certificates().zip(&self.intermediates) {
            if above.is_self_issued() {
                return Err(ChainError::HoldsAnchor { subject: above.subject().to_owned() });
            }
            above.check_issuer()?;
            if !below.names_issuer(above) {
                return Err(ChainError::NotLinked {
                    subject: below.subject().to_owned(),
                    issuer: below.issuer().to_owned(),
                    above: above.subject().to_owned(),
                });
            }
        }
        Ok(())
    }
}
