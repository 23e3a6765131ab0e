//! Passphrases: from a file or the terminal, never from argv or the environment.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use signer::Passphrase;
use zeroize::Zeroizing;

use crate::arguments::{NewPassphrase, PassphraseSource};
use crate::outcome::Problem;

/// Longest passphrase file that is read, in bytes.
const MAX_FILE: u64 = 4096;

impl PassphraseSource {
    /// The passphrase of `what` if `pem` is an encrypted key, else nothing.
    pub(crate) fn unlock(&self, pem: &str, what: &str) -> Result<Option<Passphrase>, Problem> {
        if !pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Ok(None);
        }
        match &self.passphrase_file {
            Some(file) => from_file(file).map(Some),
            None => ask(&format!("Passphrase of {what}: "), "--passphrase-file").map(Some),
        }
    }
}

impl NewPassphrase {
    /// The passphrase for a new key; nothing if it was asked to be unencrypted.
    pub(crate) fn choose(&self, what: &str) -> Result<Option<Passphrase>, Problem> {
        if self.no_passphrase {
            return Ok(None);
        }
        if let Some(file) = &self.passphrase_file {
            return from_file(file).map(Some);
        }
        let first =
            ask_text(&format!("New passphrase for {what}: "), "--passphrase-file or --no-passphrase")?;
        let again = ask_text("Again: ", "--passphrase-file or --no-passphrase")?;
        if *first != *again {
            return Err(Problem::usage("the two passphrases differ"));
        }
        checked(first).map(Some)
    }
}

fn from_file(path: &Path) -> Result<Passphrase, Problem> {
    let unreadable =
        |error| Problem::usage(format!("cannot read the passphrase file {}: {error}", path.display()));
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    File::open(path).map_err(unreadable)?.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    let line = text.lines().next().unwrap_or_default();
    checked(Zeroizing::new(line.to_owned()))
}

fn ask(prompt: &str, instead: &str) -> Result<Passphrase, Problem> {
    checked(ask_text(prompt, instead)?)
}

fn ask_text(prompt: &str, instead: &str) -> Result<Zeroizing<String>, Problem> {
    if !std::io::stdin().is_terminal() {
        return Err(Problem::usage(format!(
            "a passphrase is needed and there is no terminal to ask at: use {instead}"
        )));
    }
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Problem::usage(format!("cannot read a passphrase: {error}")))
}

fn checked(text: Zeroizing<String>) -> Result<Passphrase, Problem> {
    Passphrase::new(text.to_string()).map_err(Problem::usage)
}
