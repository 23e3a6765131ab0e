//! The steps of a manifest.

use std::ops::Range;

use super::document::{self, Fields, Mistakes, Value};
use super::reading::command;
use super::step::{KINDS, LATER_KINDS};
use super::{
    DirectoryStep, DownloadStep, FileStep, GroupStep, LinkStep, PackageName, RunStep, Seconds, ServiceStep,
    Step, StepKind, UserStep,
};
use crate::diagnostic::{nearest, position};
use crate::text::{Malformed, quoted};

/// Characters of a unit's name at most (`systemd.unit(5)`).
const UNIT_CHARACTERS: usize = 255;
/// The highest user or group number; the one above means "none" to the kernel, the next is what 16 bits call so.
const HIGHEST_ID: i64 = 4_294_967_293;

type FieldSpans = Vec<(&'static str, Range<usize>)>;

pub(super) fn step(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<Step> {
    let Some(table) = value.get_ref().as_table() else {
        mistakes.add(value.span(), "a step is a table with one key, its kind", None);
        return None;
    };
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let (key, value) = match keys.as_slice() {
        [] => {
            let help = format!("give it one of {}", document::listed(&KINDS));
            mistakes.add(value.span(), "a step without a kind", Some(help));
            return None;
        }
        [one] => *one,
        [_, others @ ..] => {
            for (key, _) in others {
                let help = "one key a step: begin another with `[[step]]`".to_owned();
                mistakes.add(
                    key.span(),
                    format!("{} is a second key in this step", quoted(key.get_ref())),
                    Some(help),
                );
            }
            return None;
        }
    };
    let (kind, fields) = kind(mistakes, key.get_ref(), key.span(), value)?;
    let span = key.span().start.min(value.span().start)..key.span().end.max(value.span().end);
    Some(Step { kind, line: position(mistakes.source, key.span().start).0, span, fields })
}

fn kind(
    mistakes: &mut Mistakes<'_>,
    key: &str,
    key_span: Range<usize>,
    value: &Value<'_>,
) -> Option<(StepKind, FieldSpans)> {
    match key {
        "package" => {
            let packages = document::distinct_some(mistakes, value, document::parsed::<PackageName>)?;
            Some((StepKind::Package(packages), Vec::new()))
        }
        "file" => read(mistakes, value, "`file`", file),
        "directory" => read(mistakes, value, "`directory`", directory),
        "link" => read(mistakes, value, "`link`", link),
        "user" => read(mistakes, value, "`user`", user),
        "group" => read(mistakes, value, "`group`", group),
        "service" => read(mistakes, value, "`service`", service),
        "download" => read(mistakes, value, "`download`", download),
        "run" => read(mistakes, value, "`run`", run),
        later if LATER_KINDS.contains(&later) => {
            let help = format!("this version knows {}", document::listed(&KINDS));
            mistakes.add(
                key_span,
                format!("step kind `{later}` is not supported by this version"),
                Some(help),
            );
            None
        }
        other => {
            let help = match nearest(other, &KINDS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the kinds are {}", document::listed(&KINDS)),
            };
            mistakes.add(key_span, format!("unknown step kind {}", quoted(other)), Some(help));
            None
        }
    }
}

fn read<'t, 'i>(
    mistakes: &mut Mistakes<'_>,
    value: &'t Value<'i>,
    what: &'static str,
    read: impl FnOnce(&mut Mistakes<'_>, &mut Fields<'t, 'i>) -> Option<StepKind>,
) -> Option<(StepKind, FieldSpans)> {
    let mut fields = Fields::of(mistakes, value, what)?;
    let kind = read(mistakes, &mut fields);
    let spans = fields.finish(mistakes);
    Some((kind?, spans))
}

fn file(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let path = fields.required(mistakes, "path", document::parsed);
    let source = fields.optional(mistakes, "source", document::parsed);
    let content = fields
        .optional(mistakes, "content", |mistakes, value| document::text(mistakes, value).map(str::to_owned));
    let mode = fields.optional(mistakes, "mode", document::parsed);
    let owner = fields.optional(mistakes, "owner", document::parsed);
    let group = fields.optional(mistakes, "group", document::parsed);
    match (fields.has("source"), fields.has("content")) {
        (true, true) => mistakes.add(fields.span(), "`file` has both `source` and `content`", None),
        (false, false) => mistakes.add(fields.span(), "`file` has neither `source` nor `content`", None),
        _ => {}
    }
    Some(StepKind::File(FileStep { path: path?, source, content, mode, owner, group }))
}

fn directory(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let path = fields.required(mistakes, "path", document::parsed);
    let mode = fields.optional(mistakes, "mode", document::parsed);
    let owner = fields.optional(mistakes, "owner", document::parsed);
    let group = fields.optional(mistakes, "group", document::parsed);
    Some(StepKind::Directory(DirectoryStep { path: path?, mode, owner, group }))
}

fn link(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let path = fields.required(mistakes, "path", document::parsed);
    let target = fields.required(mistakes, "target", line);
    Some(StepKind::Link(LinkStep { path: path?, target: target? }))
}

fn user(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let name = fields.required(mistakes, "name", document::parsed);
    let uid = fields.optional(mistakes, "uid", id);
    let group = fields.optional(mistakes, "group", document::parsed);
    let groups = fields.optional(mistakes, "groups", |mistakes, value| {
        document::distinct(mistakes, value, document::parsed)
    });
    let home = fields.optional(mistakes, "home", document::parsed);
    let shell = fields.optional(mistakes, "shell", document::parsed);
    let system = fields.optional(mistakes, "system", document::boolean);
    let authorized_keys = fields
        .optional(mistakes, "authorized_keys", |mistakes, value| document::distinct(mistakes, value, line));
    Some(StepKind::User(UserStep {
        name: name?,
        uid,
        group,
        groups: groups.unwrap_or_default(),
        home,
        shell,
        system: system.unwrap_or(false),
        authorized_keys: authorized_keys.unwrap_or_default(),
    }))
}

fn group(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let name = fields.required(mistakes, "name", document::parsed);
    let gid = fields.optional(mistakes, "gid", id);
    let system = fields.optional(mistakes, "system", document::boolean);
    Some(StepKind::Group(GroupStep { name: name?, gid, system: system.unwrap_or(false) }))
}

fn service(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let name = fields.required(mistakes, "name", unit);
    let enabled = fields.optional(mistakes, "enabled", document::boolean);
    let running = fields.optional(mistakes, "running", document::boolean);
    if !fields.has("enabled") && !fields.has("running") {
        mistakes.add(fields.span(), "`service` has neither `enabled` nor `running`", None);
    }
    Some(StepKind::Service(ServiceStep { name: name?, enabled, running }))
}

fn download(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let url = fields.required(mistakes, "url", url);
    let sha256 = fields.required(mistakes, "sha256", document::parsed);
    let path = fields.required(mistakes, "path", document::parsed);
    let mode = fields.optional(mistakes, "mode", document::parsed);
    let owner = fields.optional(mistakes, "owner", document::parsed);
    let group = fields.optional(mistakes, "group", document::parsed);
    Some(StepKind::Download(DownloadStep { url: url?, sha256: sha256?, path: path?, mode, owner, group }))
}

fn run(mistakes: &mut Mistakes<'_>, fields: &mut Fields<'_, '_>) -> Option<StepKind> {
    let script = fields.required(mistakes, "script", document::parsed);
    let creates = fields.optional(mistakes, "creates", document::parsed);
    let unless = fields.optional(mistakes, "unless", command);
    let timeout = fields.optional(mistakes, "timeout", document::parsed).unwrap_or(Seconds::RUN);
    if !fields.has("creates") && !fields.has("unless") {
        let help = "name the file it creates, or a command that tells that it has run: a step is idempotent"
            .to_owned();
        mistakes.add(fields.span(), "`run` has neither `creates` nor `unless`", Some(help));
    }
    Some(StepKind::Run(RunStep { script: script?, creates, unless, timeout }))
}

fn id(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<u32> {
    document::integer(mistakes, value, 0, HIGHEST_ID)
}

/// One line of text.
fn line(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<String> {
    let text = document::text(mistakes, value)?;
    let most = mistakes.limits.line_bytes;
    let mistake = if text.trim().is_empty() {
        "the text is empty".to_owned()
    } else if text.len() > most {
        format!("the text is longer than {most} bytes")
    } else if text.chars().any(char::is_control) {
        "one line without control characters is expected".to_owned()
    } else {
        return Some(text.to_owned());
    };
    mistakes.add(value.span(), mistake, None);
    None
}

pub(super) fn unit(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<String> {
    let text = document::text(mistakes, value)?;
    let fits = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.len() <= UNIT_CHARACTERS
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    if fits {
        return Some(text.to_owned());
    }
    let rule = "use letters, digits and `:-_.\\@`, beginning with a letter or digit; `.service` is implied";
    mistakes.malformed(value.span(), &Malformed::new("a unit's name", text, rule));
    None
}

fn url(mistakes: &mut Mistakes<'_>, value: &Value<'_>) -> Option<String> {
    let text = document::text(mistakes, value)?;
    let malformed = |mistakes: &mut Mistakes<'_>, rule| {
        mistakes.malformed(value.span(), &Malformed::new("a URL to download", text, rule));
        None
    };
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return malformed(mistakes, "it must begin with `https://` or `http://`");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return malformed(mistakes, "it must name a host, and no user or password");
    }
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>`{}|^".contains(&byte);
    if !text.bytes().all(is_plain) || text.contains('#') {
        return malformed(mistakes, "percent-encode what is not plain ASCII, and leave out a fragment");
    }
    if text.len() > mistakes.limits.line_bytes {
        return malformed(mistakes, "it is too long");
    }
    Some(text.to_owned())
}
