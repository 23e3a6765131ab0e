//! `countersign revoke` and `crl`: the site's recipe CRL.

use std::path::Path;

use ::crl::{AuthenticCrl, CrlError, Reason, RecipeCrl, Scope, Seen, Selector, Shown, Status};
use authorizer::site::{Site, TrustLock, renew_ca_crl};
use recipe_spec::{Code, Timestamp};
use serde_json::{Value, json};
use signer::{Role, Signer, TrustError};

use crate::arguments::{CrlCommand, Format, PassphraseSource};
use crate::commands::site;
use crate::interrupt;
use crate::outcome::{Answer, Problem, table};

pub(crate) fn run(
    folder: Option<&Path>,
    command: &CrlCommand,
    now: Timestamp,
    format: Format,
) -> Result<Answer, Problem> {
    let site = site::open(folder)?;
    match command {
        CrlCommand::Show => show(&site, now),
        CrlCommand::Check { selector } => check(&site, &selector_of(selector)?, now),
        CrlCommand::Verify => verify(&site, now),
        CrlCommand::Publish { clock_was_ahead, passphrase } => {
            let dating = if *clock_was_ahead { Dating::Corrected } else { Dating::InOrder };
            publish(folder, site, dating, passphrase, now, format)
        }
    }
}

/// How a list that is published again is dated.
#[derive(Clone, Copy)]
enum Dating {
    /// After the one before.
    InOrder,
    /// By the clock, although the one before is dated later.
    Corrected,
}

/// A selector, or the short form `VO/NAME@VERSION` of a recipe's version.
pub(crate) fn selector_of(text: &str) -> Result<Selector, Problem> {
    let short = text.contains('/') && text.contains('@') && !text.contains(':');
    let parsed = if short { format!("version:{text}").parse() } else { text.parse::<Selector>() };
    parsed.map_err(Problem::usage)
}

pub(crate) fn revoke(
    folder: Option<&Path>,
    selector: &str,
    reason: &str,
    passphrase: &PassphraseSource,
    now: Timestamp,
    format: Format,
) -> Result<Answer, Problem> {
    let selector = selector_of(selector)?;
    let reason: Reason = reason.parse().map_err(Problem::usage)?;
    let site = site::open(folder)?;
    let lock = site::trust_lock(&site, format)?;
    if matches!(&selector, Selector::SignerKey(key) if site.pins().pinned(Role::CrlIssuer).any(|pinned| pinned == *key))
    {
        return Err(Problem::usage(
            "this is the key that signs the recipe CRL, and no list can revoke its own issuer: replace its digest in [pins] crl_issuer of site.toml",
        ));
    }
    if matches!(&selector, Selector::SignerKey(key) if site.pins().ca().public_key().spki_sha256() == *key) {
        return Err(Problem::usage(
            "this is the key of the site's own CA, on which all that the site signs rests, this list too: give the site another CA instead",
        ));
    }
    let issuer = site::signer(&site, Role::CrlIssuer, passphrase)?;
    let list = extend(&site, &lock, Change::Revoke(&selector, reason), &issuer, now)?;
    // An earlier revocation keeps its reason and date: say what the list says.
    let Status::Revoked { reason, date, .. } = list.status(&selector) else {
        return Err(Problem::coded(Code::CrlInvalid, format!("the new list does not revoke {selector}")));
    };
    let human = format!("{selector} is revoked since {date} ({reason})\n{}", described(&list));
    Ok(Answer::new(
        human,
        with(
            published(&list),
            [("selector", json!(selector)), ("reason", json!(reason)), ("date", json!(date))],
        ),
    ))
}

fn publish(
    folder: Option<&Path>,
    site: Site,
    dating: Dating,
    passphrase: &PassphraseSource,
    now: Timestamp,
    format: Format,
) -> Result<Answer, Problem> {
    let lock = site::trust_lock(&site, format)?;
    // Before anything is renewed: a CRL of the CA that a wrong clock dates would be expired under the right one.
    let seen = Seen::open(site.layout().crl_seen())?;
    let ahead = seen.check_clock(now);
    match dating {
        Dating::InOrder => ahead?,
        Dating::Corrected if ahead.is_err() => {}
        Dating::Corrected => {
            return Err(Problem::usage(
                "the list is not dated ahead of this clock: publish it without --clock-was-ahead",
            ));
        }
    }
    match authentic(&site, now).and_then(|list| seen.compare(&list)) {
        // What the renewal mends.
        Ok(())
        | Err(CrlError::Envelope(TrustError::CrlExpired { .. } | TrustError::CrlFromFuture { .. })) => {}
        Err(spoiled) => return Err(spoiled.into()),
    }
    let unlocked = site::unlock(&site, Role::CrlIssuer, passphrase)?;
    let _ = interrupt::in_order();
    // The list counts only while the CA's own CRL is in force, so that one is renewed first. A CA whose key lies elsewhere,
    // or has another passphrase, is renewed elsewhere.
    let ca = if site.layout().ca_key().exists() {
        renew_ca_crl(&lock, unlocked.as_ref(), now).map_err(|error| error.to_string())
    } else {
        Err("the CA's key is not here".to_owned())
    };
    drop(site);
    let site = site::open(folder)?;
    let issuer = site.signer(Role::CrlIssuer, unlocked.as_ref())?;
    let change = match dating {
        Dating::InOrder => Change::Renew,
        Dating::Corrected => Change::Correct,
    };
    let list = extend(&site, &lock, change, &issuer, now)?;
    let mut human = described(&list);
    match &ca {
        Ok(()) => human.push_str("\nthe X.509 CRL of the site's CA is renewed too"),
        Err(why) => human.push_str(&format!("\nnote: the X.509 CRL of the site's CA is not renewed: {why}")),
    }
    Ok(Answer::new(human, with(published(&list), [("caCrlRenewed", json!(ca.is_ok()))])))
}

/// What the next list changes.
enum Change<'a> {
    /// One more revocation.
    Revoke(&'a Selector, Reason),
    /// The dates.
    Renew,
    /// The dates, to earlier ones: a clock that was ahead had dated the list before.
    Correct,
}

/// Issues the list after the one that is published, which may have expired, publishes it and remembers it.
fn extend(
    site: &Site,
    _lock: &TrustLock,
    change: Change<'_>,
    issuer: &Signer,
    now: Timestamp,
) -> Result<RecipeCrl, Problem> {
    let _ = interrupt::in_order();
    let layout = site.layout();
    let seen = Seen::open(layout.crl_seen())?;
    if !matches!(change, Change::Correct) {
        seen.check_clock(now)?;
    }
    let previous = authentic(site, now)?;
    // To extend a list below one seen before would publish a number twice, and one beside it would make that the chain.
    seen.compare(&previous)?;
    let next_update = now.plus_seconds(site.config().crl.next_update_seconds());
    let issued = |add: &[(Selector, Reason, Timestamp)]| {
        let name = previous.header().issuer.as_str();
        ::crl::issue(Some(&previous), add, name, Scope::Site, next_update, issuer, now)
    };
    let (header, body) = match change {
        Change::Revoke(selector, reason) => issued(&[(selector.clone(), reason, now)]),
        Change::Renew => issued(&[]),
        Change::Correct => ::crl::issue_correction(&previous, next_update, issuer, now),
    }?;
    // What nobody would accept is not published.
    let list = RecipeCrl::verify(&header, &body, site.pins(), now)?;
    ::crl::store(&layout.recipe_crl(), &header, &body)?;
    seen.admit(&list, now)?;
    Ok(list)
}

fn authentic(site: &Site, now: Timestamp) -> Result<AuthenticCrl, CrlError> {
    let (header, body) = ::crl::load(&site.layout().recipe_crl())?;
    AuthenticCrl::verify(&header, body, site.pins(), now)
}

fn current(site: &Site, now: Timestamp) -> Result<RecipeCrl, CrlError> {
    Seen::open(site.layout().crl_seen())?.current(&site.layout().recipe_crl(), site.pins(), now)
}

/// Shows the list whatever its age; one that does not continue what was seen is shown with the refusal.
fn show(site: &Site, now: Timestamp) -> Result<Answer, Problem> {
    let list = authentic(site, now)?;
    let counts = Seen::compare_in(&site.layout().crl_seen(), &list);
    let answer = described_whole(&list, now);
    match counts {
        Ok(()) => Ok(answer),
        Err(error) => {
            let problem = Problem::from(error).details(&answer.human);
            Err(answer.data.into_iter().fold(problem, |problem, (name, value)| problem.with(&name, value)))
        }
    }
}

fn described_whole(list: &AuthenticCrl, now: Timestamp) -> Answer {
    let shown = list.show();
    let expired = now >= shown.next_update;
    let Shown { issuer, number, this_update, next_update, header, .. } = &shown;
    let mut human = format!(
        "recipe CRL number {number} of {issuer}, {} entries\nissued {this_update}, next update {next_update}{}\nheader sha256 {header}",
        shown.entries.len(),
        if expired { " (expired)" } else { "" },
    );
    if !shown.entries.is_empty() {
        let rows = shown.entries.iter().map(|entry| {
            [
                entry.kind.to_string(),
                entry.reason.to_string(),
                entry.date.to_string(),
                entry.selector.to_string(),
            ]
        });
        let table = table(["kind", "reason", "since", "selector's sha256"], rows);
        human.push_str(&format!("\n{table}"));
    }
    let mut answer = Answer::new(human, &shown);
    answer.data.insert("expired".to_owned(), json!(expired));
    answer
}

fn check(site: &Site, selector: &Selector, now: Timestamp) -> Result<Answer, Problem> {
    let list = current(site, now)?;
    match list.status(selector) {
        Status::NotRevoked { number, header } => {
            let human = format!("{selector} is not revoked (recipe CRL number {number})");
            let data =
                json!({"selector": selector, "status": "notRevoked", "number": number, "header": header});
            Ok(Answer::new(human, data))
        }
        Status::Revoked { number, header, reason, date } => {
            let message =
                format!("{selector} is revoked since {date} ({reason}, recipe CRL number {number})");
            Err(Problem::coded(Code::Revoked, message)
                .with("selector", selector)
                .with("status", "revoked")
                .with("number", number)
                .with("header", header)
                .with("reason", reason)
                .with("date", date))
        }
    }
}

fn verify(site: &Site, now: Timestamp) -> Result<Answer, Problem> {
    let list = current(site, now)?;
    let human = format!("{}\nsigned, whole, fresh and not older than one seen before", described(&list));
    Ok(Answer::new(human, published(&list)))
}

fn described(list: &RecipeCrl) -> String {
    format!(
        "recipe CRL number {}, {} entries, next update {}",
        list.number(),
        list.header().entries,
        list.next_update()
    )
}

fn published(list: &RecipeCrl) -> Value {
    json!({
        "number": list.number(),
        "header": list.header_sha256(),
        "entries": list.header().entries,
        "thisUpdate": list.header().this_update,
        "nextUpdate": list.next_update(),
    })
}

fn with<const N: usize>(mut object: Value, members: [(&str, Value); N]) -> Value {
    for (name, value) in members {
        object[name] = value;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_a_short_form_and_every_other_selector_its_own() {
        let read = |text: &str| selector_of(text).map(|selector| selector.to_string());
        assert_eq!(read("atlas/web@1.4.0").unwrap(), "version:atlas/web@1.4.0");
        assert_eq!(read("version:atlas/web@1.4.0-rc.1").unwrap(), "version:atlas/web@1.4.0-rc.1");
        let key = format!("key:{}", "ab".repeat(32));
        assert_eq!(read(&key).unwrap(), key);
        for wrong in
            ["atlas/web", "web@1.4.0", "atlas/web@1.4", "atlas/web@1.4.0+b", "key:xyz", "", "ATLAS/web@1.4.0"]
        {
            assert!(matches!(selector_of(wrong), Err(Problem::Usage(_))), "{wrong}");
        }
    }
}
