//! Changing whom a site trusts: VOs' anchors and their CRLs, and the CRL of the site's own CA.

use recipe_spec::{Timestamp, VoName};
use signer::ca::{self, Revoked};
use signer::{Anchor, Certificate, CertificateCrl, Passphrase};

use super::store::{self, Access};
use super::{
    CERTIFICATE_PEM_BYTES, CONFIG_BYTES, CRL_PEM_BYTES, ConfigError, Layout, SiteConfig, SiteError,
    TrustLock, ca_crl_next_update, load_anchors, load_pins, pem_blocks, read_key, template, trust_store,
};

/// Trusts a CA, named `name`, to vouch for signers of `vos`: keeps its certificate and CRL (both PEM) in the site's
/// folder and appends an `[[anchor]]` to `site.toml`. Signers get their VO by their certificate's organisation.
///
/// # Errors
/// [`SiteError`] when the certificate is not that of a CA, the CRL is not by it, the name or the files that it would
/// take are another anchor's, or the CA is the site's own; nothing is changed then.
pub fn add_vo(
    lock: &TrustLock,
    name: &VoName,
    certificate_pem: &str,
    crl_pem: &str,
    vos: &[VoName],
) -> Result<(), SiteError> {
    let layout = lock.layout();
    let certificate_file = layout.anchors().join(format!("{name}.pem"));
    let crl_file = layout.anchors().join(format!("{name}.crl.pem"));
    let text = store::read_text(&layout.config(), CONFIG_BYTES)?;
    let in_config = |source| SiteError::Config { path: layout.config(), source };
    let before = SiteConfig::parse(&text).map_err(in_config)?;
    for anchor in &before.anchors {
        if anchor.name == *name {
            return Err(in_config(ConfigError::Twice { table: "anchor", name: name.to_string() }));
        }
        for used in [&anchor.certificate, &anchor.crl].map(|path| path.below(layout.root())) {
            if used == certificate_file || used == crl_file {
                return Err(SiteError::Taken { path: used, anchor: anchor.name.clone() });
            }
        }
    }
    let certificate = parse_certificate(&certificate_file, certificate_pem)?;
    let _ = own_crl(&crl_file, crl_pem, &certificate)?;
    let in_trust = |source| SiteError::Trust { path: certificate_file.clone(), source: Box::new(source) };
    let new = Anchor::new(name.as_str(), certificate_pem, &pem_blocks(crl_pem), vos.iter().cloned())
        .map_err(in_trust)?;
    let mut anchors = load_anchors(layout, &before)?;
    anchors.push(new);
    let _ = trust_store(layout, anchors, &load_pins(layout, &before)?)?;
    let entry =
        template::anchor(name, &format!("anchors/{name}.pem"), &format!("anchors/{name}.crl.pem"), vos);
    let text = text + &entry;
    let _ = SiteConfig::parse(&text).map_err(in_config)?;
    // The files count only once site.toml names them, so they come first; a kill leaves the site as it was.
    store::replace(&certificate_file, certificate_pem.as_bytes(), Access::Public)?;
    store::replace(&crl_file, crl_pem.as_bytes(), Access::Public)?;
    store::replace(&layout.config(), text.as_bytes(), Access::Public)
}

/// Takes a newer CRL (PEM) of an anchor's CA, and of CAs below it, in place of the old one.
///
/// # Errors
/// [`SiteError`] when there is no such anchor, the CRL is not by its CA, or it has a lower number than the old one. A
/// missing or damaged old one is no obstacle.
pub fn renew_anchor_crl(lock: &TrustLock, name: &VoName, crl_pem: &str) -> Result<(), SiteError> {
    let layout = lock.layout();
    let text = store::read_text(&layout.config(), CONFIG_BYTES)?;
    let config =
        SiteConfig::parse(&text).map_err(|source| SiteError::Config { path: layout.config(), source })?;
    let anchor = config
        .anchors
        .iter()
        .find(|anchor| anchor.name == *name)
        .ok_or_else(|| SiteError::NoAnchor { name: name.clone() })?;
    let certificate_file = anchor.certificate.below(layout.root());
    let crl_file = anchor.crl.below(layout.root());
    let pem = store::read_text(&certificate_file, CERTIFICATE_PEM_BYTES)?;
    let certificate = parse_certificate(&certificate_file, &pem)?;
    let new = own_crl(&crl_file, crl_pem, &certificate)?;
    // What is missing or damaged has no number, and is what a renewal mends.
    let old =
        store::read_text(&crl_file, CRL_PEM_BYTES).and_then(|pem| own_crl(&crl_file, &pem, &certificate));
    if let Some(old) = old.ok().filter(|old| number(&new) < number(old)) {
        let what = format!("has number {}, the one it would replace has {}", new.number(), old.number());
        return Err(SiteError::OtherCrl { what });
    }
    store::replace(&crl_file, crl_pem.as_bytes(), Access::Public)
}

/// Issues the next CRL of the site's own CA, with the entries of the one before: due every 30 days, for without a CRL in
/// force nothing that the site signed counts.
///
/// # Errors
/// [`SiteError`] when the CA's key or the old CRL cannot be read, or the new one not be written.
pub fn renew_ca_crl(
    lock: &TrustLock,
    passphrase: Option<&Passphrase>,
    now: Timestamp,
) -> Result<(), SiteError> {
    let layout: &Layout = lock.layout();
    let pem = store::read_text(&layout.ca_certificate(), CERTIFICATE_PEM_BYTES)?;
    let certificate = parse_certificate(&layout.ca_certificate(), &pem)?;
    let old = own_crl(&layout.ca_crl(), &store::read_text(&layout.ca_crl(), CRL_PEM_BYTES)?, &certificate)?;
    let next =
        u64::try_from(number(&old)).ok().and_then(|number| number.checked_add(1)).ok_or_else(|| {
            SiteError::OtherCrl { what: format!("has number {}, which has no next", old.number()) }
        })?;
    let key = read_key(&layout.ca_key(), passphrase)?;
    let revoked: Vec<_> = old
        .entries()
        .map(|(serial, entry)| Revoked { serial: serial.to_vec(), date: entry.date, reason: entry.reason })
        .collect();
    let crl = ca::crl(&key, &pem, &revoked, next, now, ca_crl_next_update(now))?;
    store::replace(&layout.ca_crl(), crl.as_bytes(), Access::Public)
}

fn parse_certificate(path: &std::path::Path, pem: &str) -> Result<Certificate, SiteError> {
    Certificate::from_pem(pem)
        .map_err(|source| SiteError::Certificate { path: path.to_owned(), source: Box::new(source) })
}

/// The CRL that the CA itself issued, among the blocks of `pem`.
fn own_crl(path: &std::path::Path, pem: &str, ca: &Certificate) -> Result<CertificateCrl, SiteError> {
    for block in pem_blocks(pem) {
        let crl = CertificateCrl::from_pem(&block).map_err(|source| SiteError::CertificateCrl {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        if crl.is_signed_by(ca) {
            return Ok(crl);
        }
    }
    Err(SiteError::OtherCrl { what: format!("was not issued by {}", ca.subject()) })
}

/// A CRL's number; one beyond 128 bits (RFC 5280 §5.2.3 allows 160) counts as the highest.
fn number(crl: &CertificateCrl) -> u128 {
    crl.number().parse().unwrap_or(u128::MAX)
}
