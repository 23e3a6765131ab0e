//! `countersign init` and `anchor`: a site's folder and whom it trusts; and how the other commands open it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use authorizer::regular_file;
use authorizer::site::apt::{debian_mirrors, host_sources};
use authorizer::site::{
    InitOptions, KeyProtection, Layout, Site, SiteError, SiteLock, TrustLock, add_vo, pem_blocks,
    renew_anchor_crl,
};
use recipe_spec::{Code, Timestamp, VoName};
use serde_json::json;
use signer::limits::MAX_KEY_PEM_BYTES;
use signer::{Anchor, Passphrase, Role, Signer};
use zeroize::Zeroizing;

use crate::arguments::{AnchorCommand, Format, NewPassphrase, PassphraseSource};
use crate::files::read_text;
use crate::interrupt;
use crate::outcome::{Answer, Problem, printable};
use crate::problem::named_wrongly;

/// How long a command waits for another one to let go of what the site trusts.
const PATIENCE: Duration = Duration::from_secs(30);
/// An authorization takes its time, and several may be before us: who gives up is the caller.
const TURN: Duration = Duration::from_secs(24 * 60 * 60);
/// Where the host's package sources are described.
const APT: &str = "/etc/apt";

pub(crate) fn init(
    dir: &Path,
    id: &str,
    site_recipes: &Path,
    passphrase: &NewPassphrase,
    now: Timestamp,
) -> Result<Answer, Problem> {
    let id = id.parse().map_err(Problem::usage)?;
    let protection = match passphrase.choose("the site's keys")? {
        Some(passphrase) => KeyProtection::Passphrase(passphrase),
        None => KeyProtection::None,
    };
    let options = InitOptions {
        id,
        protection,
        now,
        allow_emulation: !kvm_is_likely(),
        site_recipes: Some(site_recipes.to_owned()),
        debian: debian_mirrors(&host_sources(Path::new(APT))),
    };
    let _ = interrupt::in_order();
    let site = Site::init(dir, &options).map_err(named_wrongly)?;
    let layout = site.layout();
    let mirrors: Vec<_> = options.debian.iter().map(ToString::to_string).collect();
    let recipes: Vec<_> = site.site_recipes().collect();
    let emulation = site.config().policy.allow_emulation;
    let mut human = format!("made the site {} in {}", site.id(), layout.root().display());
    for folder in &recipes {
        human.push_str(&format!("\nsite recipe {}", folder.display()));
    }
    for mirror in &mirrors {
        human.push_str(&format!("\nDebian from {mirror}"));
    }
    if mirrors.is_empty() {
        human.push_str("\nnote: this host's apt names no Debian mirror: fill in yours in site.toml");
    }
    if emulation {
        human.push_str(
            "\nnote: KVM may not work here, so site.toml allows emulation, which is no security boundary",
        );
    }
    human.push_str("\nnext: `countersign anchor add` for each VO, then `countersign base build`");
    let pins = &site.config().pins;
    let data = json!({
        "site": site.id(),
        "folder": layout.root(),
        "config": layout.config(),
        "siteRecipes": recipes,
        "debian": mirrors,
        "allowEmulation": emulation,
        "pins": {"countersigner": pins.countersigner, "crlIssuer": pins.crl_issuer, "baseSigner": pins.base_signer},
    });
    Ok(Answer::new(human, data))
}

/// Whether machines here can be expected to run under KVM. Only a booted guest would prove it, and there is none yet.
/// Inside another virtual machine the device opens more often than it works, so there it does not count.
fn kvm_is_likely() -> bool {
    let opens = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtual_host = processors
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_ascii_whitespace().any(|flag| flag == "hypervisor"));
    opens && !virtual_host
}

pub(crate) fn anchor(
    folder: Option<&Path>,
    command: &AnchorCommand,
    now: Timestamp,
    format: Format,
) -> Result<Answer, Problem> {
    // A site whose trust is damaged does not open, and this is what mends it.
    let layout = Site::guarded(named(folder)?)?;
    let lock = waiting(format, PATIENCE, |patience| TrustLock::acquire(&layout, patience))?;
    let _ = interrupt::in_order();
    match command {
        AnchorCommand::Add { name, ca, crl, vos } => {
            let anchor = trust_anchor(name, ca, crl, vos)?;
            let name = name.parse().map_err(Problem::usage)?;
            let certificate_pem = read_text(ca, "the CA's certificate")?;
            let crl_pem = read_text(crl, "the CA's CRL")?;
            add_vo(&lock, &name, &certificate_pem, &crl_pem, &vo_names(vos)?).map_err(named_wrongly)?;
            Ok(added(&anchor, vos, now))
        }
        AnchorCommand::Renew { name, crl } => {
            let name: VoName = name.parse().map_err(Problem::usage)?;
            let crl_pem = read_text(crl, "the CA's CRL")?;
            renew_anchor_crl(&lock, &name, &crl_pem, now).map_err(named_wrongly)?;
            Ok(Answer::new(format!("took the newer CRL of {name}"), json!({"anchor": name})))
        }
    }
}

fn added(anchor: &Anchor, vos: &[String], now: Timestamp) -> Answer {
    let certificate = anchor.certificate();
    let subject = certificate.subject();
    let next_update = anchor.crls().iter().map(signer::CertificateCrl::next_update).min();
    let mut human = format!("{} vouches for recipes of {}", printable(subject), vos.join(", "));
    match next_update {
        Some(due) if due <= now => {
            human.push_str(&format!(
                "\nnote: its CRL was due for renewal at {due}: all it vouches for is refused until then"
            ));
        }
        Some(due) => human.push_str(&format!("\nrenew its CRL before {due}")),
        None => {}
    }
    if !certificate.is_valid_at(now) {
        human.push_str(&format!(
            "\nnote: its certificate is valid from {} to {}, it is {now}",
            certificate.not_before(),
            certificate.not_after()
        ));
    }
    let data = json!({
        "anchor": anchor.name(),
        "subject": subject,
        "spkiSha256": certificate.public_key().spki_sha256(),
        "notAfter": certificate.not_after(),
        "crlNextUpdate": next_update,
        "vos": vos,
    });
    Answer::new(human, data)
}

/// A CA from files on the command line, trusted for the recipes of `vos`.
pub(crate) fn trust_anchor(name: &str, ca: &Path, crl: &Path, vos: &[String]) -> Result<Anchor, Problem> {
    let certificate_pem = read_text(ca, "the CA's certificate")?;
    let crls = pem_blocks(&read_text(crl, "the CA's CRL")?);
    if crls.is_empty() {
        return Err(Problem::usage(format!("{}: there is no X.509 CRL in PEM in it", crl.display())));
    }
    Anchor::new(name, &certificate_pem, &crls, vo_names(vos)?)
        .map_err(|error| Problem::usage(format!("{} and {}: {error}", ca.display(), crl.display())))
}

fn vo_names(vos: &[String]) -> Result<Vec<VoName>, Problem> {
    let name = |vo: &String| match vo.as_str() {
        // Whose recipes are applied after every VO's.
        "site" => Err(Problem::usage("`site` is what the site's own recipes are called, and no VO's name")),
        vo => vo.parse().map_err(Problem::usage),
    };
    vos.iter().map(name).collect()
}

/// Opens the site that `--site` or `COUNTERSIGN_SITE` names.
pub(crate) fn open(folder: Option<&Path>) -> Result<Site, Problem> {
    let site = open_afresh(folder)?;
    site.remember_digests();
    Ok(site)
}

/// As [`open`], for who shall hash every file again.
pub(crate) fn open_afresh(folder: Option<&Path>) -> Result<Site, Problem> {
    Ok(Site::open(named(folder)?)?)
}

fn named(folder: Option<&Path>) -> Result<&Path, Problem> {
    let folder = folder
        .ok_or_else(|| Problem::usage("which site? name its folder with --site or COUNTERSIGN_SITE"))?;
    if !Layout::new(folder).config().exists() {
        return Err(Problem::usage(format!("{} is no site: it has no site.toml", folder.display())));
    }
    Ok(folder)
}

/// Takes the lock of what the site trusts, which no authorization holds.
pub(crate) fn trust_lock(site: &Site, format: Format) -> Result<TrustLock, Problem> {
    waiting(format, PATIENCE, |patience| TrustLock::acquire(site.layout(), patience))
}

/// Takes the site's lock: one process at a time changes what a site authorizes.
pub(crate) fn lock(site: &Site, format: Format) -> Result<SiteLock, Problem> {
    waiting(format, TURN, |patience| SiteLock::acquire(site.layout(), patience))
}

/// Takes a lock; if another command has it, says so to a person and waits.
fn waiting<T>(
    format: Format,
    patience: Duration,
    acquire: impl Fn(Duration) -> Result<T, SiteError>,
) -> Result<T, Problem> {
    match acquire(Duration::ZERO) {
        Err(SiteError::Locked { .. }) => {
            if format == Format::Human {
                let text = "another countersign is at work on this site";
                let minutes = patience.as_secs().div_ceil(60);
                let _ =
                    writeln!(std::io::stdout().lock(), "note: {text}, waiting for it up to {minutes} min");
            }
            Ok(acquire(patience)?)
        }
        acquired => Ok(acquired?),
    }
}

/// The site's signing key of `role`.
pub(crate) fn signer(site: &Site, role: Role, passphrase: &PassphraseSource) -> Result<Signer, Problem> {
    Ok(site.signer(role, unlock(site, role, passphrase)?.as_ref())?)
}

/// The passphrase of the site's key of `role`, if that is encrypted.
pub(crate) fn unlock(
    site: &Site,
    role: Role,
    passphrase: &PassphraseSource,
) -> Result<Option<Passphrase>, Problem> {
    let file =
        site.layout().key(role).ok_or_else(|| Problem::usage(format!("a site has no key of a {role}")))?;
    let unreadable = |error: io::Error| {
        let message = format!("cannot read the site's key {}: {error}", file.display());
        match error.kind() {
            // This command is one for the folder that has the keys.
            io::ErrorKind::NotFound => Problem::usage(message),
            _ => Problem::coded(Code::HostFailed, message),
        }
    };
    let pem = Zeroizing::new(regular_file::read(&file, MAX_KEY_PEM_BYTES as u64).map_err(unreadable)?);
    passphrase.unlock(&String::from_utf8_lossy(&pem), &format!("the site's {role} key"))
}
