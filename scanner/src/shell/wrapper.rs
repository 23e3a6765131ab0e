//! Commands that only run other commands: what they run, with their own options taken off.

use crate::action::{HOLE, Word};

/// What is under a wrapper.
pub(super) enum Under {
    /// No wrapper.
    Nothing(Vec<Word>),
    Command {
        argv: Vec<Word>,
        /// Variables it sets for the command.
        environment: Vec<(String, Word)>,
        /// Its arguments come from a list.
        repeated: bool,
    },
    /// Text for a shell.
    Script(Word),
}

struct Wrapper {
    name: &'static str,
    /// Options that take the next word.
    valued: &'static [&'static str],
    /// Operands before the command.
    operands: usize,
}

const fn plain(name: &'static str) -> Wrapper {
    Wrapper { name, valued: &[], operands: 0 }
}

const WRAPPERS: &[Wrapper] = &[
    Wrapper {
        name: "sudo",
        valued: &["-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U", "-D", "-R", "-T", "--user", "--group"],
        operands: 0,
    },
    Wrapper { name: "doas", valued: &["-u", "-C"], operands: 0 },
    Wrapper { name: "env", valued: &["-u", "-C", "--unset", "--chdir"], operands: 0 },
    plain("nohup"),
    plain("setsid"),
    plain("time"),
    plain("command"),
    plain("builtin"),
    plain("busybox"),
    plain("toybox"),
    plain("eatmydata"),
    plain("fakeroot"),
    plain("unbuffer"),
    plain("then"),
    plain("do"),
    Wrapper { name: "exec", valued: &["-a"], operands: 0 },
    Wrapper { name: "nice", valued: &["-n"], operands: 0 },
    Wrapper { name: "ionice", valued: &["-c", "-n"], operands: 0 },
    Wrapper { name: "chrt", valued: &["-p"], operands: 1 },
    Wrapper { name: "taskset", valued: &[], operands: 1 },
    Wrapper { name: "stdbuf", valued: &["-i", "-o", "-e"], operands: 0 },
    Wrapper { name: "timeout", valued: &["-k", "-s", "--signal", "--kill-after"], operands: 1 },
    Wrapper { name: "chroot", valued: &[], operands: 1 },
    Wrapper { name: "arch-chroot", valued: &["-u"], operands: 1 },
    Wrapper { name: "systemd-run", valued: &["-u", "-p", "-M", "-t", "--unit", "--property"], operands: 0 },
    Wrapper { name: "setpriv", valued: &["--reuid", "--regid"], operands: 0 },
    Wrapper { name: "unshare", valued: &[], operands: 0 },
    Wrapper { name: "nsenter", valued: &["-t", "--target"], operands: 0 },
    Wrapper { name: "watch", valued: &["-n", "--interval"], operands: 0 },
    Wrapper { name: "strace", valued: &["-o", "-e", "-s", "-p"], operands: 0 },
    Wrapper { name: "gosu", valued: &[], operands: 1 },
    Wrapper { name: "su-exec", valued: &[], operands: 1 },
    Wrapper { name: "retry", valued: &["-t", "-d"], operands: 0 },
    Wrapper {
        name: "xargs",
        valued: &["-I", "-n", "-P", "-L", "-d", "-a", "-s", "-E", "--max-args", "--max-procs", "--delimiter"],
        operands: 0,
    },
];

/// Takes one wrapper off.
pub(super) fn under(argv: Vec<Word>) -> Under {
    let Some(first) = argv.first() else { return Under::Nothing(argv) };
    let name = first.base().to_owned();
    match name.as_str() {
        "su" | "runuser" => return of_su(argv),
        "flock" => return of_flock(argv),
        "find" => return of_find(argv),
        "command" if argv.get(1).is_some_and(|word| word.is("-v") || word.is("-V")) => {
            return Under::Nothing(argv);
        }
        "script" => {
            return match option(&argv, &["-c", "--command"]) {
                Some(text) => Under::Script(text),
                None => Under::Nothing(argv),
            };
        }
        _ => {}
    }
    let Some(wrapper) = WRAPPERS.iter().find(|wrapper| wrapper.name == name) else {
        return Under::Nothing(argv);
    };
    let mut environment = Vec::new();
    let mut at = 1;
    let mut operands = wrapper.operands;
    while let Some(word) = argv.get(at) {
        let text = word.text.as_str();
        if text == "--" {
            at += 1;
            continue;
        }
        if name == "env" && matches!(text, "-S" | "--split-string") {
            let Some(first) = argv.get(at + 1) else { return Under::Nothing(argv) };
            // What follows are arguments of the command in it.
            let words: Vec<&str> = argv[at + 1..].iter().map(|word| word.text.as_str()).collect();
            return Under::Script(Word { text: words.join(" "), ..first.clone() });
        }
        if wrapper.valued.contains(&text) {
            at += 2;
        } else if text.starts_with('-') && text.len() > 1 {
            at += 1;
        } else if let Some((name, value)) = text.split_once('=').filter(|(name, _)| is_name(name)) {
            environment.push((name.to_owned(), Word { text: value.to_owned(), ..word.clone() }));
            at += 1;
        } else if operands > 0 {
            operands -= 1;
            at += 1;
        } else {
            break;
        }
    }
    let repeated = name == "xargs";
    if at >= argv.len() {
        // `sudo -i`, `sudo -s`, `chroot /mnt`: a shell of its own.
        let shell =
            matches!(name.as_str(), "sudo" | "chroot" | "doas" | "unshare" | "nsenter" | "setsid" | "exec");
        let by_flag = argv.iter().any(|word| matches!(word.text.as_str(), "-i" | "-s" | "-su" | "--login"));
        if shell && (by_flag || matches!(name.as_str(), "chroot" | "unshare" | "nsenter")) && argv.len() > 1 {
            let word = Word::literal_at("sh", argv[0].span.clone());
            return Under::Command { argv: vec![word], environment, repeated };
        }
        if name == "env" || environment.is_empty() {
            return Under::Nothing(argv);
        }
        return Under::Command { argv: Vec::new(), environment, repeated };
    }
    let mut argv: Vec<Word> = argv.into_iter().skip(at).collect();
    if repeated {
        let span = argv[0].span.clone();
        argv.push(Word::literal_at(HOLE.to_string(), span));
    }
    Under::Command { argv, environment, repeated }
}

fn is_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn option(argv: &[Word], names: &[&str]) -> Option<Word> {
    let at = argv.iter().position(|word| names.contains(&word.text.as_str()))?;
    argv.get(at + 1).cloned()
}

fn of_su(argv: Vec<Word>) -> Under {
    if let Some(text) = option(&argv, &["-c", "--command", "-lc"]) {
        return Under::Script(text);
    }
    if let Some(at) = argv.iter().position(|word| word.is("--")).filter(|at| at + 1 < argv.len()) {
        return Under::Command {
            argv: argv.into_iter().skip(at + 1).collect(),
            environment: Vec::new(),
            repeated: false,
        };
    }
    if argv[0].base() == "runuser" && argv.get(1).is_some_and(|word| word.is("-u")) && argv.len() > 3 {
        return Under::Command {
            argv: argv.into_iter().skip(3).collect(),
            environment: Vec::new(),
            repeated: false,
        };
    }
    Under::Nothing(argv)
}

fn of_flock(argv: Vec<Word>) -> Under {
    if let Some(text) = option(&argv, &["-c", "--command"]) {
        return Under::Script(text);
    }
    let mut at = 1;
    while argv.get(at).is_some_and(|word| word.text.starts_with('-')) {
        at += if matches!(argv[at].text.as_str(), "-w" | "-E" | "--timeout") { 2 } else { 1 };
    }
    if at + 1 < argv.len() {
        return Under::Command {
            argv: argv.into_iter().skip(at + 1).collect(),
            environment: Vec::new(),
            repeated: false,
        };
    }
    Under::Nothing(argv)
}

fn of_find(argv: Vec<Word>) -> Under {
    let exec = |word: &Word| matches!(word.text.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir");
    let Some(at) = argv.iter().position(exec) else { return Under::Nothing(argv) };
    let span = argv[0].span.clone();
    // The files found stand for the folder they are found in.
    let place = argv.get(1).filter(|word| !word.text.starts_with('-')).map(|word| word.text.clone());
    let found = format!("{}/{HOLE}", place.unwrap_or_default().trim_end_matches('/'));
    let inner: Vec<Word> = argv
        .into_iter()
        .skip(at + 1)
        .take_while(|word| !matches!(word.text.as_str(), ";" | "+" | "\\;"))
        .map(|word| {
            if word.text.contains("{}") {
                Word { text: word.text.replace("{}", &found), ..word }
            } else {
                word
            }
        })
        .collect();
    if inner.is_empty() {
        return Under::Nothing(vec![Word::literal_at("find", span)]);
    }
    Under::Command { argv: inner, environment: Vec::new(), repeated: true }
}
