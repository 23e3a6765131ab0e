//! The recipe CRL.
