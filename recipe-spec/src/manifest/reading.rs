//! The sections of a manifest.

use std::net::IpAddr;
use std::ops::Range;

use semver::Version;
use toml::de::DeTable;

use super::document::{self, Fields, Mistakes, Value};
use super::step_reading;
use super::{
    Capabilities, Connect, FunctionTest, Instance, Listen, Manifest, Network, Protocol, RecipeInfo,
    Reference, Seconds, Secret,
};
use crate::diagnostic::{nearest, position};
use crate::text::{Malformed, misleads, quoted};

/// Characters of a version at most.
const VERSION_CHARACTERS: usize = 64;
/// Characters of a summary and of a test's name at most.
const TITLE_CHARACTERS: usize = 200;
/// Characters of a host's name at most (RFC 1035 §2.3.4).
const HOST_CHARACTERS: usize = 253;

pub(super) fn manifest(mistakes: &mut Mistakes<'_>, root: &DeTable<'_>) -> Option<Manifest> {
    let limits = mistakes.limits;
    let mut fields = Fields::of_root(root);
    let recipe = fields.required(mistakes, "recipe", recipe);
    let network = fields.optional(mistakes, "network", network);
    let capabilities = fields.optional(mistakes, "capabilities", capabilities);
    let instance = fields.optional(mistakes, "instance", instance);
    let steps = fields.optional(mistakes, "step", |mistakes, value| {
        document::list(mistakes, value, limits.steps, step_reading::step)
    });
    let secrets = fields.optional(mistakes, "secret", |mistakes, value| {
        document::list(mistakes, value, limits.list_elements, secret)
    });
    let tests = fields.optional(mistakes, "test", |mistakes, value| {
        document::list(mistakes, value, limits.tests, function_test)
    });
    fields.finish(mistakes);

    let steps = steps.unwrap_or_default();
    let secrets = secrets.unwrap_or_default();
    let tests = tests.unwrap_or_default();
    report_twins(mistakes, "test", tests.iter().map(|(test, span)| (test.name.as_str(), span)));
    report_twins(mistakes, "secret", secrets.iter().map(|(secret, span)| (secret.name.as_str(), span)));
    report_twins(mistakes, "secret at", secrets.iter().map(|(secret, span)| (secret.path.as_str(), span)));
    let references = steps
        .iter()
        .filter_map(|step| {
            let path = step.kind.recipe_file()?.clone();
            let span = step.field_span("source").or_else(|| step.field_span("script"))?;
            Some(Reference { path, span })
        })
        .collect();
    Some(Manifest {
        recipe: recipe?,
        network: network.unwrap_or_default(),
        capabilities: capabilities.unwrap_or_default(),
        instance: instance.unwrap_or_default(),
        steps,
        secrets: secrets.into_iter().map(|(secret, _)| secret).collect(),
        tests: tests.into_iter().map(|(test, _)| test).collect(),
        references,
    })
}

fn recipe(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<RecipeInfo> {
    let mut fields = Fields::of(mistakes, value, "`[recipe]`")?;
    let name = fields.required(mistakes, "name", document::parsed);
    let version = fields.required(mistakes, "version", version);
    let summary = fields.optional(mistakes, "summary", title);
    let base = fields.required(mistakes, "base", |mistakes, value| {
        document::distinct_some(mistakes, value, document::parsed)
    });
    fields.finish(mistakes);
    Some(RecipeInfo { name: name?, version: version?, summary, base: base? })
}

fn version(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Version> {
    let text = document::text(mistakes, value)?;
    match Version::parse(text) {
        Ok(version) if text.len() <= VERSION_CHARACTERS => Some(version),
        Ok(_) => {
            mistakes.add(
                value.span(),
                format!("a version has at most {VERSION_CHARACTERS} characters"),
                None,
            );
            None
        }
        Err(error) => {
            let help = format!("{error}; write it as \"1.4.0\" (semantic versioning 2.0.0)");
            mistakes.add(value.span(), format!("{} is not a version", quoted(text)), Some(help));
            None
        }
    }
}

fn network(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Network> {
    let mut fields = Fields::of(mistakes, value, "`[network]`")?;
    let listen =
        fields.optional(mistakes, "listen", |mistakes, value| document::distinct(mistakes, value, listen));
    let fetch = fields
        .optional(mistakes, "fetch", |mistakes, value| document::distinct(mistakes, value, document::parsed));
    let connect =
        fields.optional(mistakes, "connect", |mistakes, value| document::distinct(mistakes, value, connect));
    fields.finish(mistakes);
    Some(Network {
        listen: listen.unwrap_or_default(),
        fetch: fetch.unwrap_or_default(),
        connect: connect.unwrap_or_default(),
    })
}

fn listen(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Listen> {
    let mut fields = Fields::of(mistakes, value, "an element of `listen`")?;
    let port = fields.required(mistakes, "port", port);
    let protocol = fields.required(mistakes, "protocol", protocol);
    fields.finish(mistakes);
    Some(Listen { port: port?, protocol: protocol? })
}

fn connect(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Connect> {
    let mut fields = Fields::of(mistakes, value, "an element of `connect`")?;
    let host = fields.required(mistakes, "host", host);
    let port = fields.required(mistakes, "port", port);
    let protocol = fields.required(mistakes, "protocol", protocol);
    fields.finish(mistakes);
    Some(Connect { host: host?, port: port?, protocol: protocol? })
}

fn port(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<u16> {
    document::integer(mistakes, value, 1, 65535)
}

fn protocol(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Protocol> {
    match document::text(mistakes, value)? {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        other => {
            let help = nearest(other, &["tcp", "udp"]).map(|meant| format!("did you mean `{meant}`?"));
            let help = help.or_else(|| Some("use `tcp` or `udp`".to_owned()));
            mistakes.add(value.span(), format!("{} is not a protocol", quoted(other)), help);
            None
        }
    }
}

fn host(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<String> {
    let text = document::text(mistakes, value)?;
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    // The canonical text of an address has one form only; `010.0.0.1` or `1` would be read in several ways.
    let is_address = text.parse::<IpAddr>().is_ok_and(|address| address.to_string() == text);
    let has_letter_last =
        text.rsplit('.').next().is_some_and(|label| label.bytes().any(|byte| !byte.is_ascii_digit()));
    let is_name = text.len() <= HOST_CHARACTERS && has_letter_last && text.split('.').all(is_label);
    if is_address || is_name {
        return Some(text.to_owned());
    }
    let rule = "write a DNS name in lower case, or an IP address";
    mistakes.malformed(value.span(), &Malformed::new("a host", text, rule));
    None
}

fn capabilities(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Capabilities> {
    let mut fields = Fields::of(mistakes, value, "`[capabilities]`")?;
    let setuid = fields.optional(mistakes, "setuid", |mistakes, value| {
        document::distinct(mistakes, value, document::parsed)
    });
    let users = fields
        .optional(mistakes, "users", |mistakes, value| document::distinct(mistakes, value, document::parsed));
    fields.finish(mistakes);
    Some(Capabilities { setuid: setuid.unwrap_or_default(), users: users.unwrap_or_default() })
}

fn instance(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Instance> {
    let mut fields = Fields::of(mistakes, value, "`[instance]`")?;
    let renew = fields.optional(mistakes, "renew", |mistakes, value| {
        document::distinct(mistakes, value, step_reading::unit)
    });
    fields.finish(mistakes);
    Some(Instance { renew: renew.unwrap_or_default() })
}

fn secret(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<(Secret, Range<usize>)> {
    let mut fields = Fields::of(mistakes, value, "`[[secret]]`")?;
    let name = fields.required(mistakes, "name", document::parsed);
    let path = fields.required(mistakes, "path", |mistakes, value| {
        let path: crate::path::GuestPath = document::parsed(mistakes, value)?;
        if path.as_str().starts_with("/run/") {
            return Some(path);
        }
        let help = "a secret lies in RAM only: choose a path below `/run/secrets`".to_owned();
        mistakes.add(value.span(), "a secret's path must be below `/run`", Some(help));
        None
    });
    let line = position(mistakes.source, fields.span().start).0;
    let span = fields.span_of("name");
    fields.finish(mistakes);
    Some((Secret { name: name?, path: path?, line }, span))
}

fn function_test(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<(FunctionTest, Range<usize>)> {
    let mut fields = Fields::of(mistakes, value, "`[[test]]`")?;
    let name = fields.required(mistakes, "name", title);
    let run = fields.required(mistakes, "run", command);
    let timeout = fields.optional(mistakes, "timeout", document::parsed).unwrap_or(Seconds::TEST);
    let span = fields.span_of("name");
    let run_span = fields.span_of("run");
    let line = position(mistakes.source, run_span.start).0;
    fields.finish(mistakes);
    Some((FunctionTest { name: name?, run: run?, timeout, line, run_span }, span))
}

/// One line that a person reads.
fn title(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<String> {
    let text = document::text(mistakes, value)?;
    let mistake = if text.trim().is_empty() {
        "the text is empty"
    } else if text.chars().count() > TITLE_CHARACTERS {
        "the text is longer than 200 characters"
    } else if text.chars().any(misleads) {
        "no control characters and no invisible ones, please"
    } else {
        return Some(text.to_owned());
    };
    mistakes.add(value.span(), mistake, None);
    None
}

/// A shell command, of several lines perhaps.
pub(super) fn command(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<String> {
    let text = document::text(mistakes, value)?;
    let most = mistakes.limits.command_bytes;
    let mistake = if text.trim().is_empty() {
        "the command is empty".to_owned()
    } else if text.len() > most {
        format!("the command is longer than {most} bytes")
    } else if text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t')) {
        "a control character in a command".to_owned()
    } else {
        return Some(text.to_owned());
    };
    mistakes.add(value.span(), mistake, None);
    None
}

fn report_twins<'a>(
    mistakes: &mut Mistakes<'_>,
    what: &str,
    named: impl Iterator<Item = (&'a str, &'a Range<usize>)>,
) {
    let mut seen: Vec<(&str, &Range<usize>)> = Vec::new();
    for (name, span) in named {
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == name) {
            let line = position(mistakes.source, first.start).0;
            mistakes.add(
                span.clone(),
                format!("a second {what} {}", quoted(name)),
                Some(format!("the first is on line {line}")),
            );
        } else {
            seen.push((name, span));
        }
    }
}
