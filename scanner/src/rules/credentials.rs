//! CRD: secrets in the open, weak ones, and secrets read.

use super::{Scene, Sink, rule};
use crate::action::{Action, HOLE, Kind, Run, Word, shown};
use crate::content;
use crate::finding::{RuleInfo, Severity};

const PASSWORD: RuleInfo = rule(
    "CRD-001",
    Severity::Deny,
    "password in the open",
    "declare a `[[secret]]`; it reaches the instance's memory and nothing else",
    "CWE-798",
    "T1552.001",
);
const PRIVATE_KEY: RuleInfo = rule(
    "CRD-002",
    Severity::Deny,
    "private key in the open",
    "declare a `[[secret]]`, or let the instance make its own key",
    "CWE-321",
    "T1552.004",
);
const TOKEN: RuleInfo = rule(
    "CRD-003",
    Severity::Deny,
    "access token in the open",
    "revoke the token, then declare a `[[secret]]`",
    "CWE-798",
    "T1552.001",
);
const EMPTY: RuleInfo = rule(
    "CRD-004",
    Severity::Deny,
    "empty or well-known password",
    "give the account no password at all (`passwd -l`) and a key through a `user` step",
    "CWE-258",
    "T1078.001",
);
const WEAK_HASH: RuleInfo = rule(
    "CRD-005",
    Severity::Warn,
    "weakly hashed password",
    "use yescrypt or SHA-512 crypt, and keep the hash in a `[[secret]]`",
    "CWE-328",
    "",
);
const READ: RuleInfo = rule(
    "CRD-006",
    Severity::Deny,
    "secrets of the system read",
    "ask for what is needed through a `[[secret]]`",
    "CWE-522",
    "T1552",
);

pub(super) const RULES: &[RuleInfo] = &[PASSWORD, PRIVATE_KEY, TOKEN, EMPTY, WEAK_HASH, READ];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    for action in scene.actions {
        match &action.kind {
            Kind::User(user) => {
                if let Some(password) = &user.password {
                    judge_password(&user.name, password, action, sink);
                }
            }
            Kind::Environment { name, value } => assigned(name, value, action, sink),
            Kind::ReadFile { path, program }
                if content::is_secret(&path.text) && !matches!(program.as_str(), "wc" | "diff") =>
            {
                sink.report(
                    &READ,
                    &action.span,
                    format!("`{}` is read by `{}`", path.shown(), shown(program)),
                );
            }
            Kind::Fetch(fetch) => metadata(&fetch.url.text, action, sink),
            Kind::Run(run) => ran(run, action, sink),
            Kind::Text { text } => in_text(text, action, sink),
            _ => {}
        }
    }
}

fn judge_password(name: &Word, password: &Word, action: &Action, sink: &mut Sink<'_>) {
    let shown_name = name.shown();
    let text = password.text.trim_matches('"');
    if text.is_empty() {
        sink.report(&EMPTY, &action.span, format!("user `{shown_name}` gets an empty password"));
    } else if text.starts_with(['!', '*']) {
    } else if text.starts_with("$1$") {
        sink.report(&WEAK_HASH, &action.span, format!("the password of `{shown_name}` is hashed with MD5"));
    } else if text.starts_with('$') || text.trim_matches(HOLE).is_empty() {
        // A hash is not the password; an unknown one is someone else's business.
    } else if name.text == text || WELL_KNOWN.contains(&text.to_ascii_lowercase().as_str()) {
        sink.report(&EMPTY, &action.span, format!("user `{shown_name}` gets a password that everyone knows"));
    } else if !text.contains(HOLE) {
        sink.report(&PASSWORD, &action.span, format!("the password of `{shown_name}` stands in the open"));
    }
}

const WELL_KNOWN: &[&str] = &[
    "password",
    "passw0rd",
    "root",
    "admin",
    "toor",
    "123456",
    "12345678",
    "1234",
    "changeme",
    "default",
    "vagrant",
    "guest",
    "test",
    "user",
    "secret",
    "raspberry",
    "ubuntu",
    "password1",
    "password123",
    "letmein",
];

/// A literal that a variable for a secret gets.
fn assigned(name: &str, value: &Word, action: &Action, sink: &mut Sink<'_>) {
    let lower = name.to_ascii_lowercase();
    let secret = [
        "password",
        "passwd",
        "secret_key",
        "api_key",
        "apikey",
        "auth_token",
        "access_token",
        "private_token",
    ]
    .iter()
    .any(|mark| lower.ends_with(mark));
    let text = value.text.as_str();
    let plain = value.is_known()
        && text.len() >= 6
        && text.len() < 100
        && !text.contains(['/', ' ', '$', '<', '{', '%', '\n'])
        && ![
            "example", "changeme", "your", "xxx", "dummy", "none", "null", "true", "false", "prompt",
            "random", "redacted",
        ]
        .iter()
        .any(|word| text.to_ascii_lowercase().contains(word));
    if secret && plain {
        sink.report_as(
            &PASSWORD,
            Severity::Warn,
            &action.span,
            format!("`{}` gets its value in the open", shown(name)),
        );
    }
}

fn metadata(url: &str, action: &Action, sink: &mut Sink<'_>) {
    if !url.contains("169.254.169.254")
        && !url.contains("metadata.google.internal")
        && !url.contains("169.254.170.2")
    {
        return;
    }
    let credentials = ["security-credentials", "service-accounts", "/token", "identity/oauth2", "user-data"]
        .iter()
        .any(|part| url.contains(part));
    let severity = if credentials { Severity::Deny } else { Severity::Warn };
    sink.report_as(
        &READ,
        severity,
        &action.span,
        format!("the cloud's metadata is read from `{}`", shown(url)),
    );
}

/// Names that only a search for secrets looks for.
const SOUGHT: &[&str] = &[
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials",
    "credentials.db",
    ".netrc",
    ".pgpass",
    "access_tokens.db",
    "accesstokens.json",
    "msal_token_cache",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.ppk",
    "*.keytab",
    "*.gpg",
    "*.asc",
    ".bash_history",
    "*history",
    "shadow",
    "*.kdbx",
    "key*.db",
    "logins.json",
    "login data",
    ".git-credentials",
    "wp-config.php",
    "*.cer",
    "*.crt",
];

fn ran(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let span = &action.span;
    match run.program() {
        "passwd" => {
            if run.flag('d', "--delete") {
                let name = run.operands().last().map(Word::shown).unwrap_or_default();
                sink.report(&EMPTY, span, format!("user `{name}` gets an empty password"));
            } else if let Some(input) = &run.input
                && let Some(text) =
                    input.text.as_deref().filter(|text| !text.contains(HOLE) && !text.trim().is_empty())
            {
                let name = run.operands().last().cloned().unwrap_or_default();
                judge_password(
                    &name,
                    &Word { text: text.lines().next().unwrap_or_default().to_owned(), ..name.clone() },
                    action,
                    sink,
                );
            }
        }
        "sshpass" => {
            if run.option("-p", "").is_some_and(|word| word.is_known()) {
                sink.report(&PASSWORD, span, "a password for ssh stands in the open");
            } else if run.arguments().iter().any(|word| word.text.starts_with("-p")) {
                sink.report_as(
                    &PASSWORD,
                    Severity::Warn,
                    span,
                    "a password is handed to ssh on the command line",
                );
            }
        }
        "openssl" if run.has("passwd") && (run.has("-1") || run.has("-crypt") || run.has("-apr1")) => {
            sink.report(&WEAK_HASH, span, "a password is hashed with MD5");
        }
        "find" | "locate" | "fd" => {
            let names: Vec<&Word> = run
                .arguments()
                .windows(2)
                .filter(|words| matches!(words[0].text.as_str(), "-name" | "-iname" | "-path" | "-wholename"))
                .map(|words| &words[1])
                .collect();
            let removes = run.has("-delete")
                || run.line().contains("-exec rm")
                || run.line().contains("-exec chmod")
                || run.line().contains("-exec chown");
            let broad = run.operands().next().is_some_and(|place| {
                matches!(
                    place.text.as_str(),
                    "/" | "/home" | "/root" | "~" | "/etc" | "/Users" | "/home/" | "/var" | "/opt"
                ) || place.text.starts_with("//.")
                    || place.text.starts_with("~/.")
                    || place.text.starts_with("/.")
            });
            if let Some(name) = names.iter().find(|name| {
                let lower = name.text.to_ascii_lowercase();
                SOUGHT.iter().any(|sought| {
                    lower == *sought
                        || lower.trim_matches('*') == sought.trim_matches('*') && !sought.starts_with("*.")
                })
            }) && broad
                && !removes
            {
                sink.report(&READ, span, format!("the machine is searched for `{}`", name.shown()));
            }
        }
        "grep" | "egrep" | "rg" | "zgrep" => {
            let recursive = run.arguments().iter().any(|word| {
                word.text.starts_with('-') && !word.text.starts_with("--") && word.text.contains(['r', 'R'])
            }) || run.has("--recursive")
                || run.program() == "rg";
            let mut operands = run.operands();
            let pattern = operands.next().map(|word| word.text.to_ascii_lowercase()).unwrap_or_default();
            let secret =
                ["password", "passwd", "pass=", "private key", "aws_", "secret", "akia", "token", "api_key"]
                    .iter()
                    .any(|mark| pattern.contains(mark));
            let place = operands.find(|place| {
                matches!(
                    place.text.as_str(),
                    "/" | "/*"
                        | "/home"
                        | "/root"
                        | "/etc"
                        | "/etc/"
                        | "/var"
                        | "/var/www"
                        | "/home/"
                        | "/opt"
                        | "~"
                )
            });
            if recursive
                && secret
                && let Some(place) = place
            {
                sink.report(&READ, span, format!("`{}` is searched for passwords", place.shown()));
            }
        }
        "unshadow" | "mimipenguin" | "lazagne" | "laZagne" | "linpeas.sh" | "swiftbelt" => {
            sink.report(&READ, span, format!("`{}` collects passwords", run.program()));
        }
        "gcore" | "procdump" => {
            sink.report_as(&READ, Severity::Warn, span, "the memory of a process is dumped")
        }
        "strings" | "dd" | "cat" if run.line().contains("/proc/") && run.line().contains("/mem") => {
            sink.report(&READ, span, "the memory of a process is read");
        }
        "tcpdump" | "tshark" | "dumpcap" => {
            sink.report_as(&READ, Severity::Warn, span, "the network is listened to")
        }
        "security" if run.has("dump-keychain") => sink.report(&READ, span, "the keychain is dumped"),
        _ => {}
    }
}

const PREFIXES: &[(&str, usize, &str)] = &[
    ("AKIA", 16, "an AWS access key"),
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("github_pat_", 40, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("sk_live_", 20, "a Stripe key"),
    ("AIza", 35, "a Google key"),
    ("SG.", 60, "a SendGrid key"),
    ("npm_", 36, "an npm token"),
];

/// Keys and tokens anywhere in a text.
fn in_text(text: &str, action: &Action, sink: &mut Sink<'_>) {
    let mut from = 0;
    while let Some(at) = text[from..].find("-----BEGIN ").map(|at| from + at) {
        from = at + 11;
        let end = text[from..].find("-----").unwrap_or(0);
        let label = &text[from..from + end];
        let rest = &text[from + end..];
        let body: String =
            rest.trim_start_matches('-').chars().take(80).filter(char::is_ascii_alphanumeric).collect();
        if label.ends_with("PRIVATE KEY") && label.len() < 40 && body.len() > 30 {
            sink.report(
                &PRIVATE_KEY,
                &(action.span.start + at..action.span.start + from + end + 5),
                format!("a private key (`{}`) stands in the open", shown(label)),
            );
        }
    }
    for (prefix, length, what) in PREFIXES {
        for (at, _) in text.match_indices(prefix) {
            let joined = at > 0 && text.as_bytes()[at - 1].is_ascii_alphanumeric();
            let body = text[at + prefix.len()..]
                .bytes()
                .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
                .count();
            let varied =
                text[at + prefix.len()..].bytes().take(body).collect::<std::collections::HashSet<_>>().len()
                    > 6;
            let right_length = if *prefix == "AKIA" { body == *length } else { body >= *length };
            if !joined && right_length && varied && !text[at..at + prefix.len() + body].contains("EXAMPLE") {
                sink.report(
                    &TOKEN,
                    &(action.span.start + at..action.span.start + at + prefix.len() + body),
                    format!("{what} stands in the open"),
                );
            }
        }
    }
}
