//! `countersign key`

use std::path::Path;

use serde_json::json;
use signer::key::{PublicKey, SecretKey};

use crate::arguments::{KeyCommand, NewPassphrase, PassphraseSource};
use crate::files::{Access, read_text, write_new};
use crate::outcome::{Answer, Problem};

pub(crate) fn run(command: &KeyCommand) -> Result<Answer, Problem> {
    match command {
        KeyCommand::Generate { file, passphrase } => {
            let key = generate(file, passphrase)?;
            let digest = key.spki_sha256();
            let human = format!("wrote {}\nSPKI sha256 {digest}", file.display());
            Ok(Answer::new(human, json!({"key": file, "spkiSha256": digest})))
        }
        KeyCommand::Public { file, passphrase } => {
            let public = load(file, passphrase)?.public();
            let pem = public.to_pem().map_err(Problem::usage)?;
            let digest = public.spki_sha256();
            let human = format!("{pem}SPKI sha256 {digest}");
            Ok(Answer::new(human, json!({"publicKey": pem, "spkiSha256": digest})))
        }
    }
}

/// Makes a key and writes it to a new file.
pub(crate) fn generate(file: &Path, passphrase: &NewPassphrase) -> Result<PublicKey, Problem> {
    let key = SecretKey::generate().map_err(Problem::usage)?;
    write_secret(file, &key, passphrase)?;
    Ok(key.public())
}

/// Writes a key to a new file, encrypted unless it was asked otherwise.
pub(crate) fn write_secret(file: &Path, key: &SecretKey, passphrase: &NewPassphrase) -> Result<(), Problem> {
    match passphrase.choose(&file.display().to_string())? {
        Some(passphrase) => {
            let pem = key.to_encrypted_pem(&passphrase).map_err(Problem::usage)?;
            write_new(file, pem.as_bytes(), Access::Secret)
        }
        None => write_new(file, key.to_plain_pem().map_err(Problem::usage)?.as_bytes(), Access::Secret),
    }
}

/// Reads a key from its file.
pub(crate) fn load(file: &Path, passphrase: &PassphraseSource) -> Result<SecretKey, Problem> {
    let pem = read_text(file, "the key")?;
    let passphrase = passphrase.unlock(&pem, &file.display().to_string())?;
    SecretKey::from_pem(&pem, passphrase.as_ref())
        .map_err(|error| Problem::usage(format!("{}: {error}", file.display())))
}
