//! The command line as data.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_STATUS: &str = "\
Exit status:
  0  done or allowed
  1  refused: we decided no
  2  the command line is wrong
  3  could not decide: try again

With 1 and 3 the first line of stderr starts with a code, for example
SCAN_DENIED or REMOTE_UNAVAILABLE; with --format json the answer carries it.";

/// Trust virtual machine recipes, not images
#[derive(Debug, Parser)]
#[command(name = "countersign", version, after_help = EXIT_STATUS, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The site's folder
    #[arg(long, global = true, env = "COUNTERSIGN_SITE", value_name = "DIR")]
    pub(crate) site: Option<PathBuf>,
    /// How to answer
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text for a person
    Human,
    /// One JSON object on standard output, on failure too
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a recipe: manifest, payload and scan
    #[command(after_help = "Example:\n  countersign check my-recipe")]
    Check {
        /// The recipe's folder
        dir: PathBuf,
    },
    /// Sign a recipe: writes recipe.intoto.jsonl beside recipe.toml
    #[command(
        after_help = "Example:\n  countersign sign my-recipe --key alice.key.pem --cert alice.cert.pem"
    )]
    Sign {
        /// The recipe's folder
        dir: PathBuf,
        /// Private key, PKCS#8 PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Certificate, PEM, then its intermediates if any
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Verify a signed recipe against trust anchors
    #[command(
        after_help = "Example:\n  countersign verify my-recipe --trust ca.cert.pem --crl ca.crl.pem --vo atlas"
    )]
    Verify {
        /// The recipe's folder
        dir: PathBuf,
        /// Certificate of the CA to trust, PEM
        #[arg(long, value_name = "FILE")]
        trust: PathBuf,
        /// The CA's X.509 CRL, PEM, then those of CAs below it if any
        #[arg(long, value_name = "FILE")]
        crl: PathBuf,
        /// VO that the CA may vouch for
        #[arg(long = "vo", value_name = "NAME", required = true)]
        vos: Vec<String>,
    },
    /// Make keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Run a small certificate authority
    #[command(subcommand)]
    Ca(CaCommand),
    /// Make a site's folder, with keys, an empty recipe CRL and a commented site.toml
    #[command(
        after_help = "Example:\n  countersign init /srv/countersign --id example-site --site-recipes site-recipes"
    )]
    Init {
        /// The folder to make; must not exist or be empty
        dir: PathBuf,
        /// Name of the site, as it stands in authorizations
        #[arg(long, value_name = "NAME")]
        id: String,
        /// Folder with the site's recipes and test suites
        #[arg(long, value_name = "DIR")]
        site_recipes: PathBuf,
        #[command(flatten)]
        passphrase: NewPassphrase,
    },
    /// Trust anchors of VOs
    #[command(subcommand)]
    Anchor(AnchorCommand),
    /// Base images
    #[command(subcommand)]
    Base(BaseCommand),
    /// Look for risky directives; runs nothing
    #[command(after_help = "Example:\n  countersign scan my-recipe scripts/install.sh")]
    Scan {
        /// Recipe folders and files
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Take a signed recipe from git through all stages and countersign the result
    ///
    /// Where the same recipe with the same signature is authorized already, that is the answer and nothing is built, as
    /// long as the authorization holds: not expired, not revoked, on the base image, site recipes, policy, tests and
    /// version of countersign of today, with its layers whole. Else the new decision replaces the old one.
    #[command(
        after_help = "Example:\n  countersign authorize https://git.example.org/atlas/recipes.git --path web"
    )]
    Authorize {
        /// Git repository: a local path, git:// or https://, with an optional #REVISION: branch, tag or commit
        source: String,
        /// The recipe's folder inside the repository, if not the top
        #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
        path: String,
        /// Allow a version below the highest authorized one, if it is exactly this
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Decide anew although an authorization of this very submission holds: with today's packages, say. The new one
        /// replaces it
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Put something on the recipe CRL and publish it
    #[command(
        after_help = "Examples:\n  countersign revoke atlas/web@1.4.0 --reason keyCompromise\n  countersign revoke key:<sha256> --reason keyCompromise"
    )]
    Revoke {
        /// VO/NAME@VERSION; recipe:, key:, base:, site-recipe: or authorization: and a SHA-256; or
        /// certificate:ISSUER:SERIAL with the SHA-256 of the issuer's DER name and the serial number in hex
        selector: String,
        /// Why: unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation,
        /// certificateHold, privilegeWithdrawn or aACompromise
        #[arg(long, value_name = "REASON", default_value = "unspecified")]
        reason: String,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// The recipe CRL
    #[command(subcommand)]
    Crl(CrlCommand),
    /// List what is authorized
    #[command(after_help = "Example:\n  countersign catalog --format json")]
    Catalog,
    /// Check an authorization afresh and start an instance of it
    #[command(after_help = "Example:\n  countersign deploy atlas/web --forward 8080:80")]
    Deploy(DeployArguments),
    /// Running instances
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Hold one instance; started by `deploy`
    #[command(hide = true)]
    Supervise(DeployArguments),
    /// Do one job on hostile bytes, confined; started by other commands
    #[command(hide = true)]
    Worker {
        /// Name of the job
        job: String,
    },
}

/// What `deploy` hands on to `supervise`.
#[derive(Debug, Args)]
pub(crate) struct DeployArguments {
    /// VO/NAME, the highest authorized version, or VO/NAME@VERSION
    pub(crate) name: String,
    /// Forward a port of the host's loopback to a declared port of the instance
    #[arg(long = "forward", value_name = "HOST:GUEST")]
    pub(crate) forwards: Vec<String>,
    /// Hash base, layers and template again, also those that were hashed since this system booted and are unchanged by their
    /// times
    #[arg(long)]
    pub(crate) rehash: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an Ed25519 key, encrypted with a passphrase
    #[command(after_help = "Example:\n  countersign key generate alice.key.pem")]
    Generate {
        /// File to write; must not exist
        file: PathBuf,
        #[command(flatten)]
        passphrase: NewPassphrase,
    },
    /// Print the public key and its SPKI digest
    #[command(after_help = "Example:\n  countersign key public alice.key.pem")]
    Public {
        /// Private key, PKCS#8 PEM
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make a CA: ca.key.pem, ca.cert.pem and an empty ca.crl.pem
    #[command(after_help = "Example:\n  countersign ca init atlas-ca --organisation atlas")]
    Init {
        /// Folder to make
        dir: PathBuf,
        /// Organisation (O) of the CA: the VO's name
        #[arg(long, value_name = "NAME")]
        organisation: String,
        /// Days that the CA's certificate is valid
        #[arg(long, default_value_t = 3650)]
        days: u32,
        #[command(flatten)]
        passphrase: NewPassphrase,
    },
    /// Issue a signing certificate for a key; its O is the CA's
    #[command(
        after_help = "Example:\n  countersign ca issue atlas-ca --name alice --public-key alice.pub.pem --out alice.cert.pem"
    )]
    Issue {
        /// The CA's folder
        dir: PathBuf,
        /// Common name (CN) of the holder
        #[arg(long)]
        name: String,
        /// The holder's public key (SPKI PEM), as `key public` prints it
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// File to write; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Days that the certificate is valid
        #[arg(long, default_value_t = 365)]
        days: u32,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Renew the CA's X.509 CRL, and revoke certificates
    #[command(after_help = "Example:\n  countersign ca crl atlas-ca --revoke alice.cert.pem")]
    Crl {
        /// The CA's folder
        dir: PathBuf,
        /// Certificate to revoke, PEM
        #[arg(long = "revoke", value_name = "FILE")]
        revoke: Vec<PathBuf>,
        /// Days until the next update
        #[arg(long, default_value_t = 30)]
        days: u32,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AnchorCommand {
    /// Trust a CA for the recipes of some VOs
    #[command(
        after_help = "Example:\n  countersign anchor add atlas --ca ca.cert.pem --crl ca.crl.pem --vo atlas"
    )]
    Add {
        /// Name of the anchor in site.toml
        name: String,
        /// Certificate of the CA, PEM
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
        /// The CA's X.509 CRL, PEM, then those of CAs below it if any
        #[arg(long, value_name = "FILE")]
        crl: PathBuf,
        /// VO that the CA may vouch for
        #[arg(long = "vo", value_name = "NAME", required = true)]
        vos: Vec<String>,
    },
    /// Take newer X.509 CRLs of an anchor's CA and of CAs below it
    #[command(after_help = "Example:\n  countersign anchor renew atlas --crl ca.crl.pem")]
    Renew {
        /// Name of the anchor in site.toml
        name: String,
        /// The CA's X.509 CRL, PEM, then those of CAs below it if any
        #[arg(long, value_name = "FILE")]
        crl: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BaseCommand {
    /// Build a base image from the distribution's signed archive
    #[command(after_help = "Example:\n  countersign base build debian-12 --cache ~/.cache/countersign")]
    Build {
        /// Name in the site's base catalogue
        #[arg(default_value = "debian-12")]
        name: String,
        /// Keep the built image here too, and take it from here if it is there
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
        /// Replace a base that is there already
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// List the site's base images
    #[command(after_help = "Example:\n  countersign base list --site /srv/countersign")]
    List,
    /// Check a base image's statement and every byte of its files
    #[command(after_help = "Example:\n  countersign base verify debian-12")]
    Verify {
        /// Name in the site's base catalogue
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CrlCommand {
    /// Show the published list
    #[command(after_help = "Example:\n  countersign crl show")]
    Show,
    /// Ask whether something is revoked; exit 1 with REVOKED if so
    #[command(after_help = "Example:\n  countersign crl check atlas/web@1.4.0")]
    Check {
        /// As for `revoke`
        selector: String,
    },
    /// Verify the published list: signature, expiry, numbering against the highest seen
    #[command(after_help = "Example:\n  countersign crl verify")]
    Verify,
    /// Publish the list again with new dates and the next number, and renew the X.509 CRL of the site's own CA
    #[command(after_help = "Example:\n  countersign crl publish")]
    Publish {
        /// Date the list rightly although the one before is from the future: this clock is right, and was ahead then
        #[arg(long)]
        clock_was_ahead: bool,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// List instances
    #[command(after_help = "Example:\n  countersign instance list")]
    List,
    /// Show one instance
    #[command(after_help = "Example:\n  countersign instance show web-0123456789ab")]
    Show {
        /// The instance's id
        id: String,
    },
    /// Print the console of an instance
    #[command(after_help = "Example:\n  countersign instance logs web-0123456789ab")]
    Logs {
        /// The instance's id
        id: String,
    },
    /// Shut an instance down and wait until it has ended
    #[command(after_help = "Example:\n  countersign instance stop web-0123456789ab")]
    Stop {
        /// The instance's id
        id: String,
    },
}

/// Where the passphrase of an existing key comes from.
#[derive(Debug, Args)]
pub(crate) struct PassphraseSource {
    /// Read the key's passphrase from the first line of this file instead of asking
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_PASSPHRASE_FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// How to protect a new key.
#[derive(Debug, Args)]
pub(crate) struct NewPassphrase {
    /// Read the new passphrase from the first line of this file instead of asking
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_PASSPHRASE_FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Write the key unencrypted, whatever passphrase file there is
    #[arg(long)]
    pub(crate) no_passphrase: bool,
}

impl Command {
    /// The words of the command, as answers carry them.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Check { .. } => "check",
            Self::Sign { .. } => "sign",
            Self::Verify { .. } => "verify",
            Self::Key(KeyCommand::Generate { .. }) => "key generate",
            Self::Key(KeyCommand::Public { .. }) => "key public",
            Self::Ca(CaCommand::Init { .. }) => "ca init",
            Self::Ca(CaCommand::Issue { .. }) => "ca issue",
            Self::Ca(CaCommand::Crl { .. }) => "ca crl",
            Self::Init { .. } => "init",
            Self::Anchor(AnchorCommand::Add { .. }) => "anchor add",
            Self::Anchor(AnchorCommand::Renew { .. }) => "anchor renew",
            Self::Base(BaseCommand::Build { .. }) => "base build",
            Self::Base(BaseCommand::List) => "base list",
            Self::Base(BaseCommand::Verify { .. }) => "base verify",
            Self::Scan { .. } => "scan",
            Self::Authorize { .. } => "authorize",
            Self::Revoke { .. } => "revoke",
            Self::Crl(CrlCommand::Show) => "crl show",
            Self::Crl(CrlCommand::Check { .. }) => "crl check",
            Self::Crl(CrlCommand::Verify) => "crl verify",
            Self::Crl(CrlCommand::Publish { .. }) => "crl publish",
            Self::Catalog => "catalog",
            Self::Deploy(_) => "deploy",
            Self::Instance(InstanceCommand::List) => "instance list",
            Self::Instance(InstanceCommand::Show { .. }) => "instance show",
            Self::Instance(InstanceCommand::Logs { .. }) => "instance logs",
            Self::Instance(InstanceCommand::Stop { .. }) => "instance stop",
            Self::Supervise(_) => "supervise",
            Self::Worker { .. } => "worker",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Arguments::command().debug_assert();
    }

    /// Every command that a person can type, with its words.
    fn commands(of: &clap::Command, words: &[&str], found: &mut Vec<(Vec<String>, clap::Command)>) {
        for below in of.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
            let words = [words, &[below.get_name()]].concat();
            if below.has_subcommands() {
                commands(below, &words, found);
            } else {
                found.push((words.iter().map(|word| (*word).to_owned()).collect(), below.clone()));
            }
        }
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        let mut all = Vec::new();
        commands(&Arguments::command(), &[], &mut all);
        assert!(all.len() > 20, "{}", all.len());
        for (words, command) in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> =
                help.lines().filter_map(|line| line.strip_prefix("  countersign ")).collect();
            assert!(!examples.is_empty(), "{words:?} has no example");
            for example in examples {
                let given = std::iter::once("countersign").chain(example.split(' '));
                let parsed =
                    Arguments::try_parse_from(given).unwrap_or_else(|error| panic!("{example}: {error}"));
                assert_eq!(parsed.command.name(), words.join(" "), "{example}");
            }
        }
    }

    #[test]
    fn help_says_the_exit_statuses() {
        let help = Arguments::command().render_long_help().to_string();
        for line in [
            "0  done or allowed",
            "1  refused: we decided no",
            "2  the command line is wrong",
            "3  could not decide",
        ] {
            assert!(help.contains(line), "{help}");
        }
    }

    #[test]
    fn short_help_is_imperative_and_has_no_full_stop() {
        let mut all = Vec::new();
        commands(&Arguments::command(), &[], &mut all);
        for (words, command) in all {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.ends_with('.'), "{words:?}: {about}");
            assert!(about.starts_with(char::is_uppercase), "{words:?}: {about}");
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        let parsed =
            Arguments::try_parse_from(["countersign", "crl", "show", "--site", "/s", "--format", "json"])
                .unwrap();
        assert_eq!((parsed.site, parsed.format), (Some("/s".into()), Format::Json));
    }
}
