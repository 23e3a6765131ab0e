//! EXE: code that comes from elsewhere, or hides what it is.

use std::collections::HashSet;

use super::fetched::Fetched;
use super::{Scene, Sink, checks, rule, under};
use crate::action::{Action, HOLE, Kind, Run, Word, shown};
use crate::finding::{RuleInfo, Severity};
use crate::shell::{is_interpreter, is_shell};

const PIPE: RuleInfo = rule(
    "EXE-001",
    Severity::Deny,
    "fetched text piped into an interpreter",
    "fetch it with a `download` step that names its sha256, read it, then run it from a `run` step",
    "CWE-494",
    "T1059.004",
);
const EVAL: RuleInfo = rule(
    "EXE-002",
    Severity::Deny,
    "fetched text evaluated",
    "put the commands into the recipe; nothing that can change after signing may be evaluated",
    "CWE-95",
    "T1059.004",
);
const DECODED: RuleInfo = rule(
    "EXE-003",
    Severity::Deny,
    "decoded text run",
    "put the commands into the recipe as plain text",
    "CWE-506",
    "T1140",
);
const TEMPORARY: RuleInfo = rule(
    "EXE-004",
    Severity::Warn,
    "program run from a temporary folder",
    "install programs with a `file`, `package` or `download` step under /usr/local or /opt",
    "CWE-379",
    "T1059",
);
const ONE_LINER: RuleInfo = rule(
    "EXE-005",
    Severity::Deny,
    "interpreter code on the command line that opens sockets or terminals",
    "ship the program as a file of the recipe, where it can be read",
    "CWE-506",
    "T1059",
);
const DYNAMIC: RuleInfo = rule(
    "EXE-006",
    Severity::Warn,
    "command that is not known before it runs",
    "write the command out; build argument lists, not text for `eval`",
    "CWE-95",
    "T1027.010",
);
const FETCH_AND_RUN: RuleInfo = rule(
    "EXE-007",
    Severity::Deny,
    "file fetched and run unchecked",
    "use a `download` step with its sha256, then a `run` step",
    "CWE-494",
    "T1105",
);

pub(super) const RULES: &[RuleInfo] = &[PIPE, EVAL, DECODED, TEMPORARY, ONE_LINER, DYNAMIC, FETCH_AND_RUN];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    let mut fetched = Fetched::default();
    let mut executable: HashSet<&str> = HashSet::new();
    for action in scene.actions {
        match &action.kind {
            Kind::WriteFile(write) => fetched.written(write),
            Kind::SetMode { path, mode, .. } if mode.execute => {
                executable.insert(path.base());
            }
            Kind::Run(run) => {
                interpreters(run, action, sink);
                code(run, action, sink);
                dynamic(run, action, sink);
                temporary(run, action, sink);
                fetched_program(run, &fetched, &executable, action, sink);
                if checks(run) && !is_ignored(action, sink) {
                    fetched.checked(run);
                }
            }
            _ => {}
        }
    }
}

/// An interpreter that takes its program from its input.
pub(super) fn reads_program(run: &Run) -> bool {
    let program = run.program();
    if !(is_shell(program) || is_interpreter(program)) {
        return false;
    }
    // `sh -s -- argument` reads its input too; `sh file` and `python -m tool` do not.
    let mut words = run.arguments().iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "-s" | "-" | "/dev/stdin" | "--" => return true,
            "-o" | "-O" | "+o" => {
                words.next();
            }
            "-c" | "-e" | "-m" | "-r" | "-n" | "-p" | "--version" | "-V" => return false,
            text if text.starts_with('-')
                && is_shell(program)
                && !text.starts_with("--")
                && text.contains('s') =>
            {
                return true;
            }
            text if text.starts_with('-') && text.contains(['c', 'e', 'm']) && !text.starts_with("--") => {
                return false;
            }
            text if text.starts_with('-') || text.starts_with('+') => {}
            _ => return false,
        }
    }
    true
}

fn interpreters(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let program = run.program();
    if let Some(input) = run.input.as_ref().filter(|_| reads_program(run)) {
        if input.provenance.remote {
            sink.report(
                &PIPE,
                &action.span,
                format!("text fetched from the network is piped into `{program}`"),
            );
        }
        if input.provenance.decoded {
            sink.report(&DECODED, &action.span, format!("decoded text is piped into `{program}`"));
        }
        if input.provenance.scrambled && !input.provenance.remote {
            sink.report(
                &DYNAMIC,
                &action.span,
                format!("text put together letter by letter is piped into `{program}`"),
            );
        }
    }
    let evaluates = matches!(program, "eval" | "source" | ".")
        || (is_shell(program) || is_interpreter(program))
            && run.arguments().iter().any(|word| {
                word.text.starts_with('-')
                    && word.text.contains(['c', 'e', 'r'])
                    && !word.text.starts_with("--")
            });
    for word in run.arguments() {
        let from_process =
            word.text.starts_with("/dev/fd/") && (evaluates || is_shell(program) || is_interpreter(program));
        if word.provenance.remote && (evaluates || from_process) {
            sink.report(&EVAL, &action.span, format!("`{program}` runs text fetched from the network"));
        }
        if word.provenance.decoded && (evaluates || from_process) {
            sink.report(&DECODED, &action.span, format!("`{program}` runs decoded text"));
        }
    }
    // `$(curl …)` as the command itself.
    if let Some(first) = run.argv.first().filter(|word| word.provenance.remote || word.provenance.decoded) {
        let rule = if first.provenance.remote { &EVAL } else { &DECODED };
        sink.report(rule, &action.span, "the output of a fetch or decoder is run as a command");
    }
}

/// The code given to an interpreter, if it is on its command line.
pub(super) fn inline_code(run: &Run) -> Option<&Word> {
    if !is_interpreter(run.program())
        && !matches!(
            run.program(),
            "awk" | "gawk" | "mawk" | "vim" | "vi" | "gdb" | "lua" | "socat" | "expect" | "tclsh" | "irb"
        )
    {
        return None;
    }
    let arguments = run.arguments();
    let marked = |word: &Word| {
        matches!(word.text.as_str(), "-c" | "-e" | "-r" | "-ex" | "-E" | "--eval" | "--command")
            || (word.text.starts_with('-')
                && !word.text.starts_with("--")
                && word.text.ends_with(['e', 'c'])
                && word.text.len() < 6)
    };
    if matches!(run.program(), "awk" | "gawk" | "mawk") {
        return run.operands().next();
    }
    arguments.iter().position(marked).and_then(|at| arguments.get(at + 1))
}

/// What code of an interpreter shows that it gives a shell away or talks to one.
pub(super) fn suspicious_code(code: &str) -> Option<&'static str> {
    let lower = code.to_ascii_lowercase();
    let has = |needle: &str| lower.contains(needle);
    let socket = has("socket")
        || has("/inet/tcp")
        || has("fsockopen")
        || has("net.connect")
        || has("tcpsocket")
        || has("pfsockopen")
        || has("net::socket");
    let runs = has("subprocess")
        || has("os.system")
        || has("exec")
        || has("popen")
        || has("dup2")
        || has("/bin/sh")
        || has("/bin/bash")
        || has("pty.spawn")
        || has("child_process")
        || has("system(")
        || has("passthru")
        || has("cmd.exe")
        || has("getline");
    if socket && runs {
        return Some("opens a socket and runs a shell");
    }
    if has("pty.spawn") || has("import pty") {
        return Some("starts a shell on a terminal of its own");
    }
    if (has("urlopen") || has("requests.get") || has("urllib") || has("lwp::simple") || has("open-uri"))
        && (has("exec(") || has("eval(") || has("os.system") || has("subprocess"))
    {
        return Some("runs what it fetches");
    }
    if (has("b64decode") || has("base64") || has("unpack(") || has("fromhex"))
        && (has("exec(") || has("eval(") || has("os.system") || has("eval "))
    {
        return Some("runs what it decodes");
    }
    if has("setuid(0)") || has("setresuid(0") || has("os.setuid") && has("exec") {
        return Some("becomes root");
    }
    if (has("os.execl")
        || has("exec \"/bin/")
        || has("exec '/bin/")
        || has("os.system(\"/bin/")
        || has("os.system('/bin/"))
        && (has("/bin/sh") || has("/bin/bash"))
    {
        return Some("starts a shell");
    }
    if has("begin {system(\"/bin/") || has("begin{system(\"/bin/") {
        return Some("starts a shell");
    }
    None
}

fn code(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let code = match inline_code(run) {
        Some(word) => word.text.as_str(),
        // A here-document into an interpreter.
        None => match &run.input {
            Some(input) if is_interpreter(run.program()) && reads_program(run) => match &input.text {
                Some(text) => text,
                None => return,
            },
            _ => return,
        },
    };
    if let Some(what) = suspicious_code(code) {
        sink.report(&ONE_LINER, &action.span, format!("code given to `{}` {what}", run.program()));
    }
}

fn dynamic(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let Some(first) = run.argv.first() else { return };
    if run.program() == "eval" {
        let text = run.line();
        let harmless =
            ["ssh-agent", "dircolors", "shellenv", "getopt", "locale"].iter().any(|tool| text.contains(tool));
        if text.contains(HOLE) && !harmless && run.arguments().iter().all(|word| !word.provenance.remote) {
            sink.report(&DYNAMIC, &action.span, format!("`{}` cannot be known before it runs", shown(&text)));
        }
    }
    if first.provenance.scrambled && first.text.chars().any(char::is_alphabetic) {
        sink.report(
            &DYNAMIC,
            &action.span,
            format!("the command `{}` is put together from pieces", first.shown()),
        );
    }
    if run.arguments().iter().any(|word| word.provenance.scrambled)
        && matches!(run.program(), "eval" | "sh" | "bash" | "source")
    {
        sink.report(
            &DYNAMIC,
            &action.span,
            format!("text for `{}` is put together from pieces", run.program()),
        );
    }
}

const TEMPORARY_FOLDERS: &[&str] = &["/tmp", "/var/tmp", "/dev/shm"];

fn temporary(run: &Run, action: &Action, sink: &mut Sink<'_>) {
    let script = if is_shell(run.program())
        || is_interpreter(run.program())
        || matches!(run.program(), "source" | ".")
    {
        run.operands().next()
    } else {
        run.argv.first()
    };
    if let Some(path) = script.filter(|word| under(&word.text, TEMPORARY_FOLDERS)) {
        sink.report(
            &TEMPORARY,
            &action.span,
            format!("`{}` is run from a folder that anyone may write", path.shown()),
        );
    }
}

/// Whether a script goes on whatever this command says: `check || true`.
fn is_ignored(action: &Action, sink: &Sink<'_>) -> bool {
    let after = sink.source.text().get(action.span.end..).unwrap_or_default();
    let blanks = [' ', '\t'];
    after.trim_start_matches(blanks).strip_prefix("||").is_some_and(|instead| {
        let instead = instead.trim_start_matches(blanks);
        ["true", ":", "/bin/true", "/usr/bin/true"].iter().any(|nothing| instead.starts_with(nothing))
    })
}

fn fetched_program(
    run: &Run,
    fetched: &Fetched<'_>,
    executable: &HashSet<&str>,
    action: &Action,
    sink: &mut Sink<'_>,
) {
    let Some(first) = run.argv.first() else { return };
    let interpreted =
        is_shell(run.program()) || is_interpreter(run.program()) || matches!(run.program(), "source" | ".");
    let script = if interpreted { run.operands().next() } else { Some(first) };
    let Some(script) = script else { return };
    // Where it was marked does not matter: it is the last part of the path that both names share.
    let marked = || script.text.contains('/') && executable.contains(script.base());
    if (interpreted || marked()) && fetched.holds(&script.text) {
        sink.report(
            &FETCH_AND_RUN,
            &action.span,
            format!("`{}` was fetched and runs without a check of its digest", script.shown()),
        );
    }
}
