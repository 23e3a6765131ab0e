//! Changing whom a site trusts: VOs' anchors and their CRLs, and the CRL of the site's own CA.

use std::cmp::Ordering;
use std::path::Path;

use recipe_spec::{Timestamp, VoName};
use signer::ca::{self, Revoked};
use signer::{Anchor, Certificate, CertificateCrl, Passphrase};

use super::store::{self, Access};
use super::{
    CERTIFICATE_PEM_BYTES, CONFIG_BYTES, CRL_PEM_BYTES, ConfigError, Layout, SiteConfig, SiteError,
    TrustLock, ca_crl_next_update, load_anchors, load_pins, pem_blocks, read_key, template, trust_store,
};

/// Trusts a CA, named `name`, to vouch for signers of `vos`: keeps its certificate and CRL (both PEM; the CRLs of CAs below
/// it can come along) in the site's folder and appends an `[[anchor]]` to `site.toml`. Signers get their VO by their
/// certificate's organisation.
///
/// # Errors
/// [`SiteError`] when the certificate is not that of a CA, none of the CRLs is by it, one cannot be read, a CA has two, the
/// name or the files that it would take are another anchor's, or the CA is the site's own; nothing is changed then.
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
    let _ = given_crls(&crl_file, crl_pem, &certificate)?;
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

/// Takes newer CRLs (PEM) of an anchor's CA, and of CAs below it, in place of the old ones. `crl_pem` has the newest list of
/// each CA.
///
/// # Errors
/// [`SiteError`] when there is no such anchor, one of the CRLs cannot be read or is not in force at `now`, a CA has two, none
/// is by the anchor's CA, or the list of a CA goes back: a lower number than the old one, the same number and other content,
/// or none any more. Nothing is changed then. What is missing or damaged of the old ones is no obstacle, so for a CA that is
/// no more its list is first taken out of the old file by hand.
pub fn renew_anchor_crl(
    lock: &TrustLock,
    name: &VoName,
    crl_pem: &str,
    now: Timestamp,
) -> Result<(), SiteError> {
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
    let new = given_crls(&crl_file, crl_pem, &certificate)?;
    new.iter().try_for_each(|crl| in_force(crl, now))?;
    // What cannot be loaded would close the whole site. Other anchors are not asked: one that is damaged is renewed next.
    let _ = Anchor::new(name.as_str(), &pem, &pem_blocks(crl_pem), anchor.vos.iter().cloned())
        .map_err(|source| SiteError::Trust { path: crl_file.clone(), source: Box::new(source) })?;
    for old in old_crls(&crl_file, &certificate) {
        goes_forward(&new, &old)?;
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
    let number = old.number().parse::<u64>().ok();
    let next = number.and_then(|number| number.checked_add(1)).ok_or_else(|| SiteError::OtherCrl {
        what: format!("has number {}, which has no next", old.number()),
    })?;
    let key = read_key(&layout.ca_key(), passphrase)?;
    let revoked: Vec<_> = old
        .entries()
        .map(|(serial, entry)| Revoked { serial: serial.to_vec(), date: entry.date, reason: entry.reason })
        .collect();
    let crl = ca::crl(&key, &pem, &revoked, next, now, ca_crl_next_update(now))?;
    store::replace(&layout.ca_crl(), crl.as_bytes(), Access::Public)
}

fn parse_certificate(path: &Path, pem: &str) -> Result<Certificate, SiteError> {
    Certificate::from_pem(pem)
        .map_err(|source| SiteError::Certificate { path: path.to_owned(), source: Box::new(source) })
}

fn parse_crl(path: &Path, pem: &str) -> Result<CertificateCrl, SiteError> {
    CertificateCrl::from_pem(pem)
        .map_err(|source| SiteError::CertificateCrl { path: path.to_owned(), source: Box::new(source) })
}

/// The CRL that the CA itself issued, among the blocks of `pem`.
fn own_crl(path: &Path, pem: &str, ca: &Certificate) -> Result<CertificateCrl, SiteError> {
    for block in pem_blocks(pem) {
        let crl = parse_crl(path, &block)?;
        if crl.is_signed_by(ca) {
            return Ok(crl);
        }
    }
    Err(not_issued_by(ca))
}

/// The CRLs of a text that the site shall take: all of its blocks, one of each CA, one of them by `ca`. Whether a CA below
/// signed its list shows only where its certificate is at hand, with a recipe's signature.
fn given_crls(path: &Path, pem: &str, ca: &Certificate) -> Result<Vec<CertificateCrl>, SiteError> {
    let blocks = pem_blocks(pem);
    // A block without its end is none, and would be left out in silence.
    if pem.lines().filter(|line| line.starts_with("-----BEGIN ")).count() != blocks.len() {
        return Err(SiteError::OtherCrl { what: "is cut off: a PEM block of it has no end".to_owned() });
    }
    let mut crls = Vec::<CertificateCrl>::with_capacity(blocks.len());
    for block in &blocks {
        let crl = parse_crl(path, block)?;
        if crls.iter().any(|earlier| earlier.issuer_sha256() == crl.issuer_sha256()) {
            return Err(SiteError::OtherCrl { what: format!("of {} comes twice", crl.issuer()) });
        }
        crls.push(crl);
    }
    if crls.iter().any(|crl| crl.is_signed_by(ca)) { Ok(crls) } else { Err(not_issued_by(ca)) }
}

/// The CRLs that a renewal replaces. What is missing or damaged has no number, and is what a renewal mends; so is a list in
/// the name of `ca` that is not by it.
fn old_crls(path: &Path, ca: &Certificate) -> Vec<CertificateCrl> {
    let pem = store::read_text(path, CRL_PEM_BYTES).unwrap_or_default();
    let mut crls: Vec<_> =
        pem_blocks(&pem).iter().filter_map(|block| CertificateCrl::from_pem(block).ok()).collect();
    crls.retain(|crl| crl.issuer() != ca.subject() || crl.is_signed_by(ca));
    crls
}

/// Refuses a list by which everything under its CA would be refused.
fn in_force(crl: &CertificateCrl, now: Timestamp) -> Result<(), SiteError> {
    let issuer = crl.issuer();
    if now < crl.this_update() {
        let what = format!("of {issuer} is valid from {} on, it is {now}", crl.this_update());
        return Err(SiteError::OtherCrl { what });
    }
    if now >= crl.next_update() {
        let what = format!("of {issuer} was due for renewal at {}, it is {now}", crl.next_update());
        return Err(SiteError::OtherCrl { what });
    }
    Ok(())
}

/// Refuses to replace `old` by an older list of its CA, by another one of the same number, or by none: an old list could
/// take its place later.
fn goes_forward(new: &[CertificateCrl], old: &CertificateCrl) -> Result<(), SiteError> {
    let issuer = old.issuer();
    let what = match new.iter().find(|new| new.issuer_sha256() == old.issuer_sha256()) {
        None => format!("of {issuer} is missing: give the newest list of each CA in one file"),
        Some(new) => match order(new).cmp(&order(old)) {
            Ordering::Less => format!(
                "of {issuer} has number {}, the one it would replace has {}",
                new.number(),
                old.number()
            ),
            Ordering::Equal if new.sha256() != old.sha256() => format!(
                "of {issuer} has number {} like the one it would replace, and other content",
                new.number()
            ),
            _ => return Ok(()),
        },
    };
    Err(SiteError::OtherCrl { what })
}

/// Numbers can have 160 bits (RFC 5280 §5.2.3). In decimal, without leading zeros, the longer one is the higher.
fn order(crl: &CertificateCrl) -> (usize, &str) {
    (crl.number().len(), crl.number())
}

fn not_issued_by(ca: &Certificate) -> SiteError {
    SiteError::OtherCrl { what: format!("was not issued by {}", ca.subject()) }
}
