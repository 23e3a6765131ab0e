//! `countersign ca`: a folder with `ca.key.pem`, `ca.cert.pem` and `ca.crl.pem`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use recipe_spec::Timestamp;
use serde_json::json;
use signer::ca::{self, CrlReason, Revoked, Subject};
use signer::{Certificate, CertificateCrl, PublicKey};

use crate::arguments::{CaCommand, NewPassphrase, PassphraseSource};
use crate::commands::key;
use crate::files::{Access, lock, read_text, replace, write_new};
use crate::outcome::{Answer, Problem};

const DAY: i64 = 86_400;
const KEY: &str = "ca.key.pem";
const CERTIFICATE: &str = "ca.cert.pem";
const CRL: &str = "ca.crl.pem";
/// Held while the CRL is replaced.
const LOCK: &str = "crl.lock";

pub(crate) fn run(command: &CaCommand, now: Timestamp) -> Result<Answer, Problem> {
    match command {
        CaCommand::Init { dir, organisation, days, passphrase } => {
            init(dir, organisation, *days, passphrase, now)
        }
        CaCommand::Issue { dir, name, public_key, out, days, passphrase } => {
            issue(dir, name, public_key, out, *days, passphrase, now)
        }
        CaCommand::Crl { dir, revoke, days, passphrase } => {
            let revoke: Vec<_> = revoke.iter().map(AsRef::as_ref).collect();
            crl(dir, &revoke, *days, passphrase, now)
        }
    }
}

fn init(
    dir: &Path,
    organisation: &str,
    days: u32,
    passphrase: &NewPassphrase,
    now: Timestamp,
) -> Result<Answer, Problem> {
    let until = now.plus_seconds(i64::from(days) * DAY);
    let files = ca::init(
        organisation,
        &format!("{organisation} CA"),
        (now, until),
        now.plus_seconds(ca::CRL_VALIDITY_SECONDS),
    )
    .map_err(Problem::usage)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Problem::usage(format!("cannot make {}: {error}", dir.display())))?;
    key::write_secret(&dir.join(KEY), &files.key, passphrase)?;
    write_new(&dir.join(CERTIFICATE), files.certificate_pem.as_bytes(), Access::Public)?;
    write_new(&dir.join(CRL), files.crl_pem.as_bytes(), Access::Public)?;
    let digest = files.key.public().spki_sha256();
    let human = format!(
        "made the CA of {organisation} in {}, valid until {until}\nSPKI sha256 {digest}\ngive {CERTIFICATE} and {CRL} to sites; renew the CRL with `countersign ca crl` within 30 days",
        dir.display()
    );
    Ok(Answer::new(
        human,
        json!({"folder": dir, "certificate": dir.join(CERTIFICATE), "crl": dir.join(CRL), "spkiSha256": digest, "notAfter": until}),
    ))
}

fn issue(
    dir: &Path,
    name: &str,
    public_key: &Path,
    out: &Path,
    days: u32,
    passphrase: &PassphraseSource,
    now: Timestamp,
) -> Result<Answer, Problem> {
    let ca_pem = read_text(&dir.join(CERTIFICATE), "the CA's certificate")?;
    let authority = Certificate::from_pem(&ca_pem).map_err(Problem::usage)?;
    let organisation = authority
        .organisation()
        .ok_or_else(|| Problem::usage("the CA's certificate names no organisation"))?
        .to_owned();
    let public = PublicKey::from_pem(&read_text(public_key, "the public key")?)
        .map_err(|error| Problem::usage(format!("{}: {error}", public_key.display())))?;
    let ca_key = key::load(&dir.join(KEY), passphrase)?;
    let subject = Subject { organisation, common_name: name.to_owned() };
    let until = now.plus_seconds(i64::from(days) * DAY);
    let pem = ca::issue(&ca_key, &ca_pem, &subject, &public, (now, until)).map_err(Problem::usage)?;
    write_new(out, pem.as_bytes(), Access::Public)?;
    let human =
        format!("wrote {}: CN={name}, O={}, valid until {until}", out.display(), subject.organisation);
    Ok(Answer::new(
        human,
        json!({"certificate": out, "organisation": subject.organisation, "spkiSha256": public.spki_sha256(), "notAfter": until}),
    ))
}

fn crl(
    dir: &Path,
    revoke: &[&Path],
    days: u32,
    passphrase: &PassphraseSource,
    now: Timestamp,
) -> Result<Answer, Problem> {
    let ca_pem = read_text(&dir.join(CERTIFICATE), "the CA's certificate")?;
    let authority = Certificate::from_pem(&ca_pem).map_err(Problem::usage)?;
    let path = dir.join(CRL);
    // From reading the old list to replacing it: of two at once, one would lose the other's revocations.
    let _alone = lock(&dir.join(LOCK))?;
    let old = CertificateCrl::from_pem(&read_text(&path, "the CA's CRL")?)
        .map_err(|error| Problem::usage(format!("{}: {error}", path.display())))?;
    let number = old
        .number()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_add(1))
        .ok_or_else(|| Problem::usage(format!("the CRL number {} has no successor", old.number())))?;
    let mut entries: Vec<Revoked> = old
        .entries()
        .map(|(serial, entry)| Revoked { serial: serial.to_vec(), date: entry.date, reason: entry.reason })
        .collect();
    for file in revoke {
        let certificate = Certificate::from_pem(&read_text(file, "the certificate")?)
            .map_err(|error| Problem::usage(format!("{}: {error}", file.display())))?;
        if !certificate.is_signed_by(&authority) {
            return Err(Problem::usage(format!(
                "{}: the certificate of {} was not issued by this CA, which cannot revoke it",
                file.display(),
                certificate.subject()
            )));
        }
        if entries.iter().all(|entry| entry.serial != certificate.serial()) {
            let serial = certificate.serial().to_vec();
            entries.push(Revoked { serial, date: now, reason: CrlReason::Unspecified });
        }
    }
    let ca_key = key::load(&dir.join(KEY), passphrase)?;
    let until = now.plus_seconds(i64::from(days) * DAY);
    let pem = ca::crl(&ca_key, &ca_pem, &entries, number, now, until).map_err(Problem::usage)?;
    replace(&path, pem.as_bytes())?;
    let human =
        format!("wrote {}: number {number}, {} revoked, next update {until}", path.display(), entries.len());
    Ok(Answer::new(
        human,
        json!({"crl": path, "number": number, "revoked": entries.len(), "nextUpdate": until}),
    ))
}
