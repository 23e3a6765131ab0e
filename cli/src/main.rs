//! The one binary `countersign`: arguments in, reports out.

mod arguments;
mod clock;
mod commands;
mod files;
mod interrupt;
mod live;
mod outcome;
mod passphrase;
mod problem;
mod surroundings;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use authorizer::pipeline::IfStanding;
use clap::Parser;
use clap::error::ErrorKind;

use crate::arguments::{Arguments, Command, Format};
use crate::commands::{authorize, base, ca, catalog, crl, deploy, instance, key, recipe, scan, site};
use crate::outcome::{Answer, Problem, say};

fn main() -> ExitCode {
    let start = Instant::now();
    // First, while there is one thread and nothing is open or written yet.
    if let Err(error) = surroundings::settle() {
        let code = recipe_spec::Code::HostFailed;
        let problem = Problem::coded(code, error.to_string());
        let status = say("countersign", Format::Human, Err(problem), start.elapsed());
        return ExitCode::from(status.unwrap_or(code.exit_status()));
    }
    let words: Vec<OsString> = std::env::args_os().collect();
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error, &words, start),
    };
    if let Command::Worker { job } = &arguments.command {
        return ExitCode::from(authorizer::jobs::serve(job));
    }
    let (name, format) = (arguments.command.name(), arguments.format);
    // A supervisor ends its instance in order when it is asked to end.
    let watched = match arguments.command {
        Command::Supervise(_) => Ok(()),
        _ => interrupt::watch(name, format, start),
    };
    let ended = match watched {
        Ok(()) => run(&arguments),
        Err(error) => {
            Err(Problem::coded(recipe_spec::Code::HostFailed, format!("cannot watch for signals: {error}")))
        }
    };
    match say(name, format, ended, start.elapsed()) {
        Some(status) => ExitCode::from(status),
        // A signal came first, and its thread is ending the process.
        None => loop {
            std::thread::park();
        },
    }
}

/// Help and version are answers; the rest is exit 2, as JSON too if that was asked for.
fn not_understood(error: &clap::Error, words: &[OsString], start: Instant) -> ExitCode {
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    let json = words.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
        || words.iter().any(|word| word == "--format=json");
    if json {
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let object = Problem::usage(message).into_object("countersign", start.elapsed());
        // A reader that is not there cannot be told, and the status says it too.
        let _ = writeln!(std::io::stdout().lock(), "{object}");
    }
    ExitCode::from(2)
}

fn run(arguments: &Arguments) -> Result<Answer, Problem> {
    let Arguments { site: folder, format, command } = arguments;
    let folder = folder.as_deref();
    let colour = colour(*format);
    match command {
        Command::Check { dir } => recipe::check(dir, colour),
        Command::Sign { dir, key, cert, passphrase } => {
            recipe::sign(dir, key, cert, passphrase, clock::now(), colour)
        }
        Command::Verify { dir, trust, crl, vos } => {
            recipe::verify(dir, trust, crl, vos, clock::now(), colour)
        }
        Command::Key(command) => key::run(command),
        Command::Ca(command) => ca::run(command, clock::now()),
        Command::Init { dir, id, site_recipes, passphrase } => {
            site::init(dir, id, site_recipes, passphrase, clock::now())
        }
        Command::Anchor(command) => site::anchor(folder, command, clock::now(), *format),
        Command::Base(command) => base::run(folder, command, *format),
        Command::Scan { paths } => scan::run(paths, colour),
        Command::Authorize { source, path, version, again, passphrase } => {
            let standing = if *again { IfStanding::DecideAgain } else { IfStanding::Answer };
            authorize::run(folder, source, path, version.as_deref(), standing, passphrase, *format)
        }
        Command::Revoke { selector, reason, passphrase } => {
            crl::revoke(folder, selector, reason, passphrase, clock::now(), *format)
        }
        Command::Crl(command) => crl::run(folder, command, clock::now(), *format),
        Command::Catalog => catalog::run(folder, clock::now()),
        Command::Deploy(wanted) => deploy::deploy(folder, wanted, *format),
        Command::Instance(command) => instance::run(folder, command),
        Command::Supervise(wanted) => deploy::supervise(folder, wanted),
        Command::Worker { .. } => Err(Problem::usage("a worker is started by other commands")),
    }
}

/// Colour is for people at a terminal who have not asked for none (<https://no-color.org>).
fn colour(format: Format) -> bool {
    format == Format::Human
        && std::io::stdout().is_terminal()
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
