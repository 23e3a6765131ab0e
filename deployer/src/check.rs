//! The deploy-time check, on one screen.

use std::str::FromStr;

use authorizer::authorization::{Authorization, VerifiedAuthorization};
use authorizer::base::{self, VerifiedBase};
use authorizer::ledger::Ledger;
use authorizer::machines::outdated;
use authorizer::pipeline::{ask_at_least, check_clock};
use authorizer::publication::{self, AUTHORIZATION_FILE, Published, RECIPE_ENVELOPE_FILE, RECIPE_FOLDER};
use authorizer::site::Site;
use authorizer::stopped::Stopped;
use crl::{Clear, Selector};
use harness::{Pinned, Qemu, Template};
use recipe_spec::manifest::{Manifest, Protocol};
use recipe_spec::{Code, Limits, Payload, Recipe, RecipeName, Sha256Digest, Timestamp};
use semver::Version;
use signer::{VerifiedRecipeSignature, verify_signed_recipe_at};

/// What is to be deployed.
#[derive(Clone, Debug)]
pub struct Order {
    /// The recipe.
    pub name: RecipeName,
    /// The version; the highest authorized one if absent.
    pub version: Option<Version>,
    /// Ports to forward.
    pub forwards: Vec<PortForward>,
}

/// A port of the host's loopback that leads to a declared port of the instance: `HOST:GUEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortForward {
    /// On 127.0.0.1.
    pub host: u16,
    /// In the instance.
    pub guest: u16,
}

impl FromStr for PortForward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        text.split_once(':')
            .and_then(|(host, guest)| Some(Self { host: port(host)?, guest: port(guest)? }))
            .ok_or_else(|| {
                format!("`{text}` is not HOST:GUEST with two ports from 1 to 65535, for example 8080:80")
            })
    }
}

/// An authorization that holds now, and what it lets be started. Only [`Deployable::check`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Deployable {
    authorization: VerifiedAuthorization,
    recipe: Recipe,
    base: VerifiedBase,
    layers: Vec<Pinned>,
    template: Template,
    qemu: Qemu,
    /// The VO's signature, as it was published.
    envelope: Vec<u8>,
    selectors: Vec<Selector>,
    clear: Clear,
}

impl Deployable {
    /// Verifies everything that the authorization rests on. The bytes of base, layers and template are checked when the machine opens
    /// them.
    ///
    /// # Errors
    /// [`Stopped`] with the code of whatever does not hold.
    pub fn check(order: &Order, site: &Site, now: Timestamp) -> Result<Self, Stopped> {
        check_clock(site, now)?;
        let published =
            publication::lookup(&site.layout().authorizations(), &order.name, order.version.as_ref())?;
        if order.version.is_none() {
            not_older_than_known(&published, site)?;
        }
        let file =
            published.file(AUTHORIZATION_FILE).ok_or_else(|| missing(&published, AUTHORIZATION_FILE))?;
        let authorization = Authorization::verify(file, site.pins(), site.id(), now)?;
        let said = &authorization.predicate().recipe;
        if (&said.name, &said.version) != (&published.name, &published.version) {
            let found = format!(
                "the authorization of {}@{} lies under {}@{}",
                said.name, said.version, published.name, published.version
            );
            return Err(Stopped::new(Code::BadSignature, found));
        }
        let recipe = recipe(&published)?;
        if recipe.digest() != authorization.recipe() {
            return Err(Stopped::new(
                Code::BadSignature,
                "the published recipe is not the one that was authorized",
            ));
        }
        let envelope = envelope(&published)?;
        let signature = signature(envelope, &recipe, &authorization, site, now)?;
        let base = base_image(&authorization, site, now)?;
        let number = authorization.predicate().crls.iter().map(|crl| crl.number).max().unwrap_or(u64::MAX);
        let selectors = selectors(&authorization, &recipe, &signature, &base);
        let clear = ask_at_least(site, &selectors, number, now)?;
        supported(recipe.manifest())?;
        declared(&order.forwards, recipe.manifest())?;
        let layers = layers(&authorization, site)?;
        let qemu = Qemu::find()?;
        let template = template(&authorization, &qemu, site)?;
        let envelope = envelope.to_vec();
        Ok(Self { authorization, recipe, base, layers, template, qemu, envelope, selectors, clear })
    }

    /// Asks again whether anything is revoked: the launch and its tests took minutes. The site is read anew, because the CRLs of
    /// VOs' CAs and the anchors themselves may have changed meanwhile too.
    ///
    /// # Errors
    /// As [`Deployable::check`]; `CRL_ROLLBACK` if the list is older than the one that was asked first.
    pub fn ask_again(&self, site: &Site, now: Timestamp) -> Result<Clear, Stopped> {
        let site = &Site::open(site.layout().root())?;
        check_clock(site, now)?;
        let valid_at = self.authorization.predicate().recipe.signer.chain_valid_at;
        let _ = verify_signed_recipe_at(&self.envelope, &self.recipe, site.trust(), valid_at, now)?;
        ask_at_least(site, &self.selectors, self.clear.number, now)
    }

    /// The authorization.
    pub fn authorization(&self) -> &VerifiedAuthorization {
        &self.authorization
    }

    /// The recipe, with its function tests.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The base image.
    pub fn base(&self) -> &VerifiedBase {
        &self.base
    }

    /// The layers on it, bottom up.
    #[must_use]
    pub fn layers(&self) -> &[Pinned] {
        &self.layers
    }

    /// What the instance is a clone of.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What it is cloned by.
    #[must_use]
    pub fn qemu(&self) -> &Qemu {
        &self.qemu
    }

    /// The recipe CRL's first answer.
    pub fn clear(&self) -> &Clear {
        &self.clear
    }
}

fn missing(published: &Published, file: &str) -> Stopped {
    Stopped::new(
        Code::NotAuthorized,
        format!("{}@{} was published without {file}", published.name, published.version),
    )
}

/// A name alone never leads to less than the highest version that this site has published, whatever the repository of
/// authorizations offers. One that was signed and never published, because that failed, takes nothing away.
fn not_older_than_known(published: &Published, site: &Site) -> Result<(), Stopped> {
    let ledger = Ledger::open(&site.layout().ledger())?;
    let offered = &published.version;
    match ledger.highest_published(&published.name).filter(|highest| *highest > offered) {
        None => Ok(()),
        Some(highest) => Err(Stopped::new(
            Code::VersionRollback,
            format!("{} {highest} was authorized here, the repository offers {offered}", published.name),
        )
        .hint(format!(
            "restore the repository of authorizations, or deploy {}@{offered} by its version",
            published.name
        ))),
    }
}

/// The recipe as it was published with its authorization.
fn recipe(published: &Published) -> Result<Recipe, Stopped> {
    let mut builder = Payload::builder(&Limits::STANDARD);
    for (path, file) in &published.files {
        if let Some(path) = path.as_str().strip_prefix(RECIPE_FOLDER).and_then(|path| path.strip_prefix('/'))
        {
            builder.add(path, file.bytes.clone(), file.executable).map_err(bad)?;
        }
    }
    let payload = builder.finish().map_err(bad)?;
    Recipe::from_payload(payload, &Limits::STANDARD).map_err(|error| Stopped::new(error.code(), &error))
}

fn bad(error: recipe_spec::payload::PayloadError) -> Stopped {
    Stopped::new(Code::BadRecipe, error)
}

fn envelope(published: &Published) -> Result<&[u8], Stopped> {
    published.file(RECIPE_ENVELOPE_FILE).ok_or_else(|| missing(published, RECIPE_ENVELOPE_FILE))
}

/// The VO's signature: its chain as it was when the site authorized, its certificates' revocation as it is now.
fn signature(
    envelope: &[u8],
    recipe: &Recipe,
    authorization: &VerifiedAuthorization,
    site: &Site,
    now: Timestamp,
) -> Result<VerifiedRecipeSignature, Stopped> {
    let said = &authorization.predicate().recipe;
    let signature = verify_signed_recipe_at(envelope, recipe, site.trust(), said.signer.chain_valid_at, now)?;
    let same_signer =
        signature.signers().iter().all(|signer| signer.spki_sha256() == said.signer.spki.sha256);
    if Sha256Digest::of(envelope) != said.envelope.sha256 || !same_signer {
        return Err(Stopped::new(
            Code::BadSignature,
            "the published signature is not the one that was authorized",
        ));
    }
    Ok(signature)
}

fn base_image(
    authorization: &VerifiedAuthorization,
    site: &Site,
    now: Timestamp,
) -> Result<VerifiedBase, Stopped> {
    let wanted = &authorization.predicate().base;
    let folder = site.base(&wanted.name).ok_or_else(|| {
        Stopped::new(Code::BaseMismatch, format!("this site has no base image {}", wanted.name))
    })?;
    let base = base::verify(&folder, site.pins(), now)?;
    if base.sha256() != wanted.sha256 {
        return Err(Stopped::new(
            Code::BaseMismatch,
            format!("the base image {} is {}, authorized was {}", wanted.name, base.sha256(), wanted.sha256),
        )
        .hint("authorize the recipe again on the base image that is here"));
    }
    Ok(base)
}

/// Everything that the instance would depend on and that can be revoked.
fn selectors(
    authorization: &VerifiedAuthorization,
    recipe: &Recipe,
    signature: &VerifiedRecipeSignature,
    base: &VerifiedBase,
) -> Vec<Selector> {
    let predicate = authorization.predicate();
    let mut selectors = vec![
        Selector::Authorization(authorization.digest()),
        Selector::Recipe(recipe.digest()),
        Selector::RecipeVersion {
            name: predicate.recipe.name.clone(),
            version: predicate.recipe.version.clone(),
        },
        Selector::BaseImage(predicate.base.sha256),
    ];
    selectors
        .extend(predicate.site_recipes.iter().map(|site_recipe| Selector::SiteRecipe(site_recipe.sha256)));
    for signer in signature.signers().iter().chain([authorization.signer()]).chain(base.signers()) {
        selectors.extend(Selector::of_signer(signer));
    }
    selectors
}

/// What this version cannot give an instance is refused aloud, never left out.
fn supported(manifest: &Manifest) -> Result<(), Stopped> {
    if let Some(connect) = manifest.network.connect.first() {
        return Err(Stopped::new(
            Code::NotAuthorized,
            format!(
                "the recipe connects to {}:{}, and this version has no way to let an instance do so",
                connect.host, connect.port
            ),
        ));
    }
    if let Some(secret) = manifest.secrets.first() {
        return Err(Stopped::new(
            Code::NotAuthorized,
            format!("the recipe needs the secret `{}`, and this version cannot deliver secrets", secret.name),
        ));
    }
    Ok(())
}

/// Only what the recipe declares can be reached.
fn declared(forwards: &[PortForward], manifest: &Manifest) -> Result<(), Stopped> {
    let listens =
        |port| manifest.network.listen.iter().any(|l| l.port == port && l.protocol == Protocol::Tcp);
    match forwards.iter().find(|forward| !listens(forward.guest)) {
        None => Ok(()),
        Some(forward) => Err(Stopped::new(
            Code::NotAuthorized,
            format!(
                "port {} cannot be forwarded: the recipe does not declare that it listens there",
                forward.guest
            ),
        )),
    }
}

fn layers(authorization: &VerifiedAuthorization, site: &Site) -> Result<Vec<Pinned>, Stopped> {
    let layers = authorization.predicate().layers.iter();
    let pinned = layers.map(|layer| Pinned::new(site.layout().layer(layer.sha256), layer.sha256));
    pinned
        .map(|layer| {
            if layer.path.is_file() {
                return Ok(layer);
            }
            Err(Stopped::new(Code::LayerMismatch, format!("layer {} is not at this site", layer.sha256))
                .hint("authorize the recipe again"))
        })
        .collect()
}

/// The template by its record; its files are checked when the machine opens them.
fn template(authorization: &VerifiedAuthorization, qemu: &Qemu, site: &Site) -> Result<Template, Stopped> {
    const AGAIN: &str = "authorize the recipe again";
    let Some(named) = &authorization.predicate().template else {
        let message = "the authorization names no template: an older version made it";
        return Err(Stopped::new(Code::NotAuthorized, message).hint(AGAIN));
    };
    let template = Template::pinned(&site.layout().template(named.sha256), named.sha256)
        .map_err(|error| Stopped::from(error).hint(AGAIN))?;
    match outdated(&template, &qemu.version, site) {
        None => Ok(template),
        Some(other) => Err(Stopped::new(Code::LayerMismatch, other).hint(AGAIN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_two_ports() {
        assert_eq!("8080:80".parse(), Ok(PortForward { host: 8080, guest: 80 }));
        for text in ["", "80", ":80", "80:", "0:80", "80:0", "65536:80", "127.0.0.1:80:80", "a:b", "-1:80"] {
            assert!(text.parse::<PortForward>().is_err(), "{text}");
        }
    }

    fn manifest(network: &str) -> Manifest {
        let source = format!(
            "[recipe]\nname = \"atlas/web\"\nversion = \"1.0.0\"\nbase = [\"debian-12\"]\n{network}\n[[step]]\npackage = [\"hello\"]\n"
        );
        Manifest::parse(&source).unwrap()
    }

    #[test]
    fn only_declared_tcp_ports_are_forwarded() {
        let manifest = manifest(
            "[network]\nlisten = [{ port = 80, protocol = \"tcp\" }, { port = 53, protocol = \"udp\" }]",
        );
        let forward = |guest| [PortForward { host: 8080, guest }];
        assert!(declared(&forward(80), &manifest).is_ok());
        for port in [22, 53, 8080] {
            assert_eq!(declared(&forward(port), &manifest).unwrap_err().code, Code::NotAuthorized, "{port}");
        }
    }

    #[test]
    fn what_cannot_be_given_is_refused_aloud() {
        let connect =
            manifest("[network]\nconnect = [{ host = \"db.example.org\", port = 5432, protocol = \"tcp\" }]");
        let stopped = supported(&connect).unwrap_err();
        assert_eq!(stopped.code, Code::NotAuthorized);
        assert!(stopped.message.contains("db.example.org:5432"), "{stopped}");
        let secret = manifest("[[secret]]\nname = \"db-password\"\npath = \"/run/secrets/db-password\"");
        assert!(supported(&secret).unwrap_err().message.contains("db-password"));
        assert!(supported(&manifest("")).is_ok());
    }
}
