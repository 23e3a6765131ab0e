//! NET: ways in and out that the recipe does not declare.

use super::execution::{inline_code, reads_program};
use super::{Scene, Sink, rule, under};
use crate::action::{Action, HOLE, Kind, Run, Word, shown};
use crate::content;
use crate::finding::{RuleInfo, Severity};
use crate::shell::is_shell;

const SHELL: RuleInfo = rule(
    "NET-001",
    Severity::Deny,
    "shell over the network",
    "log in with ssh and a key that a `user` step declares",
    "CWE-912",
    "T1059.004",
);
const TUNNEL: RuleInfo = rule(
    "NET-002",
    Severity::Deny,
    "tunnel around the site's network",
    "declare what is reached under `[network] connect` and what is offered under `listen`",
    "CWE-441",
    "T1572",
);
const UPLOAD: RuleInfo = rule(
    "NET-003",
    Severity::Deny,
    "local files sent away",
    "declare the destination under `[network] connect` and send it from the service that owns the data",
    "CWE-200",
    "T1048",
);
const BIND_ANY: RuleInfo = rule(
    "NET-004",
    Severity::Warn,
    "service bound to every address",
    "bind to 127.0.0.1, or declare the port under `[network] listen`",
    "CWE-1327",
    "",
);
const PLAIN: RuleInfo = rule(
    "NET-005",
    Severity::Warn,
    "fetched without encryption",
    "use https, and a `download` step with the sha256",
    "CWE-319",
    "T1557",
);
const ODD_URL: RuleInfo = rule(
    "NET-006",
    Severity::Warn,
    "fetched from a bare address or a place where anyone may put text",
    "fetch from the project's own host, by name",
    "CWE-829",
    "T1105",
);

pub(super) const RULES: &[RuleInfo] = &[SHELL, TUNNEL, UPLOAD, BIND_ANY, PLAIN, ODD_URL];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    let fifo = scene.runs().any(|(_, run)| matches!(run.program(), "mkfifo" | "mknod"));
    for action in scene.actions {
        match &action.kind {
            Kind::Run(run) => {
                shells(run, fifo, action, sink);
                tunnels(run, action, sink);
                uploads(run, action, sink);
                binds(run, action, sink);
            }
            Kind::Fetch(fetch) => url(&fetch.url.text, action, sink),
            _ => {}
        }
    }
}

fn shells(run: &Run, fifo: bool, action: &Action, sink: &mut Sink<'_>) {
    let span = &action.span;
    let program = run.program();
    if let Some(device) = run
        .redirects
        .iter()
        .find(|word| word.text.starts_with("/dev/tcp/") || word.text.starts_with("/dev/udp/"))
    {
        let shell = is_shell(program) || program == "exec";
        if shell {
            sink.report(&SHELL, span, format!("`{program}` talks to `{}`", device.shown()));
        }
    }
    let line = run.line();
    match program {
        "nc" | "ncat" | "netcat" | "nc.traditional" | "nc.openbsd" => {
            let executes = run.arguments().iter().any(|word| {
                word.text.starts_with('-')
                    && !word.text.starts_with("--")
                    && word.text.len() < 8
                    && word.text.contains(['e', 'c'])
            }) || run.has("--exec")
                || run.has("--sh-exec")
                || run.has("--lua-exec");
            let runs_shell = executes
                && (line.contains("sh")
                    || line.contains("cmd")
                    || line.contains(HOLE)
                    || line.contains("/bin/"));
            if runs_shell && !run.has("--version") {
                sink.report(&SHELL, span, format!("`{}` hands out a shell", shown(&line)));
            } else if fifo && run.input.is_some() {
                sink.report(
                    &SHELL,
                    span,
                    format!("`{}` is joined to a pipe in the file system", shown(&line)),
                );
            } else if run.arguments().iter().any(|word| {
                word.text.starts_with('-') && !word.text.starts_with("--") && word.text.contains('l')
            }) {
                sink.report_as(&SHELL, Severity::Warn, span, format!("`{}` listens", shown(&line)));
            }
        }
        "socat" => {
            let lower = line.to_ascii_lowercase();
            if lower.contains("exec:") || lower.contains("system:") {
                sink.report(&SHELL, span, format!("`{}` hands out a program", shown(&line)));
            }
        }
        "telnet" if fifo => sink.report(&SHELL, span, "telnet is joined to a pipe in the file system"),
        "openssl" if run.has("s_client") && fifo => {
            sink.report(&SHELL, span, "an encrypted connection is joined to a pipe in the file system");
        }
        "busybox" | "telnetd" | "dropbear" if line.contains("telnetd") && line.contains("-l") => {
            sink.report(&SHELL, span, "a telnet server hands out a shell");
        }
        "msfvenom" | "msfconsole" => sink.report(&SHELL, span, format!("`{program}` makes backdoors")),
        _ => {}
    }
    // A listener's or connection's output into a shell.
    if reads_program(run)
        && run.input.as_ref().is_some_and(|input| input.text.is_none() && !input.provenance.remote)
        && fifo
    {
        sink.report(&SHELL, span, format!("`{program}` reads its commands from a pipe in the file system"));
    }
    if let Some(code) = inline_code(run) {
        let lower = code.text.to_ascii_lowercase();
        let connects = lower.contains("socket")
            && (lower.contains("connect") || lower.contains("bind") || lower.contains("tcp"))
            || lower.contains("/inet/tcp")
            || lower.contains("fsockopen");
        let shell = lower.contains("/bin/sh")
            || lower.contains("/bin/bash")
            || lower.contains("pty.spawn")
            || lower.contains("dup2")
            || lower.contains("exec(");
        if connects && shell {
            sink.report(&SHELL, span, format!("code given to `{program}` joins a shell to a socket"));
        }
    }
}

fn tunnels(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let what = match run.program() {
        "ssh" | "autossh" => {
            // Flags before the host; what follows the host is the remote command.
            let mut words = run.arguments().iter();
            let mut found = None;
            while let Some(word) = words.next() {
                let text = word.text.as_str();
                if !text.starts_with('-') {
                    break;
                }
                if text.starts_with("-R") || (text.len() < 8 && text.contains('R') && !text.starts_with("--"))
                {
                    found = Some("a tunnel into this machine is opened with ssh -R");
                } else if text.starts_with("-D") || text.len() < 8 && text.ends_with('D') {
                    found = Some("a proxy is opened with ssh -D");
                }
                if matches!(
                    text,
                    "-i" | "-p"
                        | "-o"
                        | "-l"
                        | "-F"
                        | "-L"
                        | "-J"
                        | "-b"
                        | "-c"
                        | "-E"
                        | "-e"
                        | "-m"
                        | "-S"
                        | "-W"
                        | "-w"
                ) {
                    words.next();
                }
            }
            match found {
                Some(found) => found,
                None => return,
            }
        }
        "ngrok" | "frpc" | "chisel" | "bore" | "localtunnel" | "lt" | "gost" | "ligolo" | "iodine"
        | "dnscat" | "dnscat2" | "gs-netcat" | "proxychains" | "proxychains4" | "microsocks" => {
            "a program for tunnels is run"
        }
        "cloudflared" if run.has("tunnel") => "a tunnel of cloudflared is opened",
        "tor" | "torsocks" | "torify" => "traffic goes through tor",
        "tailscale" if run.has("up") || run.has("funnel") => "a network of its own is joined",
        _ => return,
    };
    sink.report(&TUNNEL, &action.span, what);
}

fn sensitive(path: &str) -> bool {
    let path = path.trim_start_matches('@');
    content::is_secret(path)
        || under(path, &["/etc", "/root", "/home", "/var/log"])
        || path.starts_with("~/")
        || path == "/"
}

fn uploads(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let span = &action.span;
    match run.program() {
        "curl" => {
            let mut words = run.arguments().iter();
            while let Some(word) = words.next() {
                let text = word.text.as_str();
                let file: Option<String> = match text {
                    "-T" | "--upload-file" => words.next().map(|word| word.text.clone()),
                    "-d" | "--data" | "--data-binary" | "--data-raw" | "--data-ascii"
                    | "--data-urlencode" | "--json" => {
                        let value = words.next();
                        if let Some(value) = value.filter(|value| value.provenance.secret) {
                            sink.report(&UPLOAD, span, format!("secrets are sent with `{}`", value.shown()));
                        }
                        value.and_then(|word| word.text.strip_prefix('@')).map(str::to_owned)
                    }
                    "-F" | "--form" => {
                        words.next().and_then(|word| word.text.split_once('@').map(|pair| pair.1.to_owned()))
                    }
                    _ => text
                        .strip_prefix("--upload-file=")
                        .or(text.strip_prefix("--data-binary=@"))
                        .or(text.strip_prefix("--data=@"))
                        .or(text.strip_prefix("-T"))
                        .or(text.strip_prefix("-F").and_then(|form| form.split_once('@')).map(|pair| pair.1))
                        .or(text.strip_prefix("-d@"))
                        .map(str::to_owned),
                };
                let Some(file) = file else { continue };
                let piped_secret = matches!(file.as_str(), "-" | "@-")
                    && run.input.as_ref().is_some_and(|input| input.provenance.secret);
                let severity = if sensitive(&file) || piped_secret { Severity::Deny } else { Severity::Warn };
                sink.report_as(&UPLOAD, severity, span, format!("`{}` is sent away", shown(&file)));
            }
        }
        "wget" => {
            if let Some(file) = run.option("", "--post-file").or_else(|| run.option("", "--body-file")) {
                let severity = if sensitive(&file.text) { Severity::Deny } else { Severity::Warn };
                sink.report_as(&UPLOAD, severity, span, format!("`{}` is sent away", file.shown()));
            }
        }
        "nc" | "ncat" | "netcat" | "socat" | "ssh"
            if run.input.as_ref().is_some_and(|input| input.provenance.secret) =>
        {
            sink.report(&UPLOAD, span, format!("secrets are sent through `{}`", run.program()));
        }
        "scp" | "rsync" | "rclone" | "sftp" => {
            let operands: Vec<&Word> = run.operands().collect();
            let Some((destination, sources)) = operands.split_last() else { return };
            let away = destination.text.contains(':');
            if let Some(source) = sources.iter().find(|source| {
                away && (content::is_secret(&source.text)
                    || matches!(source.text.as_str(), "/etc/passwd" | "/"))
            }) {
                sink.report(
                    &UPLOAD,
                    span,
                    format!("`{}` is sent to `{}`", source.shown(), destination.shown()),
                );
            }
        }
        _ => {}
    }
}

fn binds(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    if matches!(
        run.program(),
        "ip" | "route"
            | "iptables"
            | "ufw"
            | "nft"
            | "firewall-cmd"
            | "aws"
            | "gcloud"
            | "az"
            | "openstack"
            | "curl"
            | "wget"
            | "grep"
            | "sed"
            | "awk"
    ) {
        return;
    }
    let any = run.arguments().iter().find(|word| {
        let text = word.text.as_str();
        let value = text.rsplit(['=', '@']).next().unwrap_or_default();
        value == "0.0.0.0"
            || value.starts_with("0.0.0.0:")
            || value.starts_with("tcp://0.0.0.0")
            || value == "[::]"
    });
    if let Some(word) = any {
        sink.report(
            &BIND_ANY,
            &action.span,
            format!("`{}` binds to every address (`{}`)", run.program(), word.shown()),
        );
    }
}

/// Judges where something is fetched from.
fn url(url: &str, action: &Action, sink: &mut Sink<'_>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(HOLE) {
        return;
    }
    let local = ["localhost", "127.", "[::1]", "169.254.", "10.", "192.168.", "0.0.0.0"]
        .iter()
        .any(|local| host.starts_with(local))
        || name.ends_with(".local")
        || name.ends_with(".internal");
    if matches!(scheme, "http" | "ftp") && !local {
        sink.report(&PLAIN, &action.span, format!("`{}` is fetched without encryption", shown(url)));
    }
    let address =
        name.split('.').count() == 4 && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let open = [
        "pastebin.com",
        "paste.ee",
        "hastebin.com",
        "ghostbin",
        "transfer.sh",
        "termbin.com",
        "ix.io",
        "0x0.st",
        "file.io",
        "anonfiles",
        "discordapp.com",
        "discord.com",
        "t.me",
        "bit.ly",
        "tinyurl.com",
        "gist.githubusercontent.com",
    ]
    .iter()
    .any(|place| name == *place || name.ends_with(&format!(".{place}")));
    let onion = name.ends_with(".onion") || name.contains(".onion.");
    if address && !local || open || onion {
        sink.report(&ODD_URL, &action.span, format!("`{}` is no named host of a project", shown(url)));
    }
}
