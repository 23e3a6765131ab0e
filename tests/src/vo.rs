//! A VO: a CA, a signer's key and certificate, and a repository of recipes.

use std::path::{Path, PathBuf};

use crate::command::{Countersign, Run};
use crate::git::Repository;

/// A VO and where it keeps things.
#[derive(Debug)]
pub struct Vo {
    /// The VO's name, also the O of its certificates.
    pub name: String,
    /// Folder of the CA: `ca.cert.pem`, `ca.crl.pem`.
    pub ca: PathBuf,
    /// The signer's key.
    pub key: PathBuf,
    /// The signer's certificate.
    pub certificate: PathBuf,
    /// File with the passphrase of its keys.
    pub passphrase: PathBuf,
    /// The repository with its recipes, one a folder.
    pub recipes: Repository,
}

impl Vo {
    /// Makes all of it below `folder`, through the binary.
    #[must_use]
    pub fn found(name: &str, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder for the VO");
        let at = |file: &str| folder.join(file);
        let passphrase = at("passphrase");
        std::fs::write(&passphrase, "a passphrase of the VO\n").expect("the passphrase is written");
        let (ca, key, public, certificate) =
            (at("ca"), at("signer.key.pem"), at("signer.pub.pem"), at("signer.cert.pem"));
        let call = |arguments: &[&dyn AsRef<std::ffi::OsStr>]| {
            Countersign::new(arguments.iter().map(|a| a.as_ref().to_owned()))
                .passphrase(&passphrase)
                .run()
                .done()
        };
        let _ = call(&[&"ca", &"init", &ca, &"--organisation", &name]);
        let _ = call(&[&"key", &"generate", &key]);
        let printed = call(&[&"key", &"public", &key]);
        let pem = printed.json["publicKey"].as_str().expect("a public key is printed");
        std::fs::write(&public, pem).expect("the public key is written");
        let _ = call(&[
            &"ca",
            &"issue",
            &ca,
            &"--name",
            &"signer",
            &"--public-key",
            &public,
            &"--out",
            &certificate,
        ]);
        let recipes = Repository::init(&folder.join("recipes"));
        Self { name: name.to_owned(), ca, key, certificate, passphrase, recipes }
    }

    /// The folder of one recipe in the working tree.
    #[must_use]
    pub fn recipe(&self, name: &str) -> PathBuf {
        self.recipes.folder.join(name)
    }

    /// Signs a recipe.
    #[must_use]
    pub fn sign(&self, recipe: &str) -> Run {
        let folder = self.recipe(recipe);
        Countersign::new(["sign".as_ref(), folder.as_os_str()])
            .key(&self.key, &self.certificate)
            .passphrase(&self.passphrase)
            .run()
    }
}

impl Countersign {
    fn key(self, key: &Path, certificate: &Path) -> Self {
        self.and(["--key".as_ref(), key.as_os_str(), "--cert".as_ref(), certificate.as_os_str()])
    }
}

/// Copies a folder of plain files, its file modes included.
///
/// # Panics
/// If something in it cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is made");
    for entry in std::fs::read_dir(from).expect("the folder is read") {
        let entry = entry.expect("an entry is read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}
