//! A list as a value to show: the same for a table and for JSON.

use recipe_spec::digest::Sha256Digest;
use recipe_spec::timestamp::Timestamp;
use serde::Serialize;

use crate::header::{IssuerName, Scope};
use crate::list::AuthenticCrl;
use crate::record::{Entry, Reason};
use crate::selector::Kind;

/// A whole list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Who issued it.
    pub issuer: IssuerName,
    /// SHA-256 of the SubjectPublicKeyInfo that signed it.
    pub signer: Sha256Digest,
    /// What it may revoke.
    pub scope: Scope,
    /// Its epoch.
    pub epoch: u64,
    /// Its number.
    pub number: u64,
    /// When it was issued.
    pub this_update: Timestamp,
    /// From when on it is refused.
    pub next_update: Timestamp,
    /// Its header digest.
    pub header: Sha256Digest,
    /// The header digest of the list before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Sha256Digest>,
    /// The body's digest.
    pub body: Sha256Digest,
    /// The entries, in order of digests.
    pub entries: Vec<ShownEntry>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownEntry {
    /// The selector's digest.
    pub selector: Sha256Digest,
    /// The kind of thing.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub date: Timestamp,
}

impl AuthenticCrl {
    /// The list as a value to show.
    pub fn show(&self) -> Shown {
        let header = self.header();
        Shown {
            issuer: header.issuer.clone(),
            signer: self.signer(),
            scope: header.scope,
            epoch: header.epoch,
            number: header.number,
            this_update: header.this_update,
            next_update: header.next_update,
            header: self.header_sha256(),
            previous: header.previous(),
            body: header.body.sha256,
            entries: self.body().entries().map(ShownEntry::from).collect(),
        }
    }
}

impl From<Entry> for ShownEntry {
    fn from(Entry { selector, kind, reason, date }: Entry) -> Self {
        Self { selector: Sha256Digest::from_bytes(selector), kind, reason, date: date.into() }
    }
}
