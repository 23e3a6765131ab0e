//! Keys, certificates and envelopes.
