//! One command: wrappers off, builtins and interpreters followed, the rest told by its effects.

use std::ops::Range;

use super::decode;
use super::evaluate::Evaluator;
use super::flow::Flow;
use super::wrapper::{self, Under};
use crate::action::{HOLE, Kind, Provenance, Run, Word};
use crate::source::Place;

/// Wrappers in wrappers.
const WRAPPERS: usize = 12;

/// Programs that read shell.
pub(crate) fn is_shell(program: &str) -> bool {
    matches!(
        program,
        "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "mksh" | "rbash" | "fish" | "csh" | "tcsh"
    )
}

/// Programs that run code of their own language.
pub(crate) fn is_interpreter(program: &str) -> bool {
    let stem = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    matches!(
        stem,
        "python" | "perl" | "ruby" | "php" | "node" | "nodejs" | "lua" | "luajit" | "tclsh" | "pwsh"
    )
}

impl Evaluator {
    /// Follows one command and gives what it prints.
    pub(super) fn command(
        &mut self,
        argv: Vec<Word>,
        input: Option<Flow>,
        redirects: &[Word],
        span: &Range<usize>,
    ) -> Flow {
        let mut argv = argv;
        let mut repeated = false;
        for depth in 0..=WRAPPERS {
            if depth == WRAPPERS {
                self.exhaust("wrappers around a command");
            }
            let outer = argv.clone();
            match wrapper::under(argv) {
                Under::Nothing(same) => {
                    argv = same;
                    break;
                }
                Under::Script(text) => {
                    self.run_action(outer, None, redirects, repeated, span);
                    return self.follow(&text, span);
                }
                Under::Command { argv: inner, environment, repeated: list } => {
                    if !matches!(outer[0].base(), "sudo" | "env" | "command" | "then" | "do" | "time") {
                        self.run_action(outer, None, redirects, repeated, span);
                    }
                    for (name, value) in environment {
                        self.add(Kind::Environment { name, value }, span.clone());
                    }
                    repeated |= list;
                    argv = inner;
                    if argv.is_empty() {
                        return Flow::empty();
                    }
                }
            }
        }
        let name = argv[0].text.clone();
        if self.is_function(&name) {
            let flow = self.call(&name, argv.split_off(1), input);
            // A function may shadow a program of the same name; what the program would do counts too.
            return flow;
        }
        let program = argv[0].base().to_owned();
        if let Some(flow) = self.builtin(&program, &argv, input.as_ref(), span) {
            return flow;
        }
        let run = self.run_action(argv, input.clone(), redirects, repeated, span);
        if is_shell(&program) {
            return self.shell(&run, input, span);
        }
        match program.as_str() {
            "eval" => {
                let text =
                    run.arguments().iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
                self.follow(&Word::literal_at(text, span.clone()), span)
            }
            "source" | "." => match run.arguments().first().cloned() {
                Some(path) => self.script_file(&path, span),
                None => Flow::empty(),
            },
            "trap" | "alias" => {
                for word in run.arguments() {
                    let text =
                        if program == "alias" { word.text.split_once('=').map(|pair| pair.1) } else { None };
                    let text = text.unwrap_or(&word.text).to_owned();
                    if text.contains(' ') || program == "trap" && self.is_function(&text) {
                        self.follow(&Word { text, ..word.clone() }, span);
                    }
                }
                Flow::empty()
            }
            "at" | "batch" => {
                if let Some(text) = input.and_then(|flow| flow.text) {
                    self.follow(&Word::literal_at(&*text, span.clone()), span);
                }
                Flow::empty()
            }
            _ if run.argv[0].text.contains('/') && run.argv[0].is_known() => {
                let path = run.argv[0].clone();
                let flow = self.script_file(&path, span);
                let effect = self.effect(&run, input, span);
                if flow.text.as_deref() == Some("") { effect } else { flow }
            }
            _ => self.effect(&run, input, span),
        }
    }

    fn run_action(
        &mut self,
        argv: Vec<Word>,
        input: Option<Flow>,
        redirects: &[Word],
        repeated: bool,
        span: &Range<usize>,
    ) -> Run {
        let run = Run { argv, input: input.map(Flow::into_input), redirects: redirects.to_vec(), repeated };
        self.add(Kind::Run(run.clone()), span.clone());
        run
    }

    /// A text that a shell will read.
    fn follow(&mut self, text: &Word, span: &Range<usize>) -> Flow {
        self.text(&text.text, whole(text, span))
    }

    fn script_file(&mut self, path: &Word, span: &Range<usize>) -> Flow {
        match self.take_script(&path.text) {
            Some(text) => self.text(&text, whole(path, span)),
            None => Flow::unknown().with(path.provenance),
        }
    }

    /// `sh -c text`, `sh file`, or a shell that reads its input.
    fn shell(&mut self, run: &Run, input: Option<Flow>, span: &Range<usize>) -> Flow {
        let mut words = run.arguments().iter();
        while let Some(word) = words.next() {
            let text = word.text.as_str();
            if text == "-o" || text == "-O" || text == "--rcfile" || text == "--init-file" {
                words.next();
            } else if text.starts_with('-') && !text.starts_with("--") && text.contains('c') {
                return match words.find(|word| !word.text.starts_with('-')) {
                    Some(script) => self.follow(&script.clone(), span),
                    None => Flow::empty(),
                };
            } else if text == "-" || text == "-s" || text == "/dev/stdin" {
                break;
            } else if !text.starts_with('-') && !text.starts_with('+') {
                return self.script_file(&word.clone(), span);
            }
        }
        match input {
            Some(Flow { text: Some(text), place, .. }) => {
                let place = place.unwrap_or_else(|| Place::Whole(span.clone()));
                self.text(&text, place)
            }
            _ => Flow::unknown(),
        }
    }

    /// Builtins that print or set and do nothing else to the machine.
    fn builtin(
        &mut self,
        program: &str,
        argv: &[Word],
        input: Option<&Flow>,
        span: &Range<usize>,
    ) -> Option<Flow> {
        let arguments = argv.get(1..).unwrap_or_default();
        let provenance = arguments.iter().fold(Provenance::default(), |all, word| all.and(word.provenance));
        match program {
            "echo" => {
                let plain =
                    |word: &&Word| matches!(word.text.as_str(), "-n" | "-e" | "-E" | "-ne" | "-en" | "-nE");
                let options = arguments.iter().take_while(plain).count();
                let escapes = arguments[..options].iter().any(|word| word.text.contains('e'));
                let newline = !arguments[..options].iter().any(|word| word.text.contains('n'));
                let words: Vec<_> = arguments[options..].iter().map(|word| word.text.as_str()).collect();
                let mut text = words.join(" ");
                if escapes {
                    text = decode::escapes(&text);
                }
                if newline {
                    text.push('\n');
                }
                let scrambled = escapes && words.iter().any(|word| word.contains("\\x"));
                let place = match arguments.get(options) {
                    Some(word) if arguments.len() == options + 1 => Some(Place::Whole(word.span.clone())),
                    _ => None,
                };
                let built = Provenance { scrambled, ..Provenance::default() };
                Some(Flow { place, ..Flow::text(text) }.with(provenance).with(built))
            }
            "printf" => {
                let arguments: &[Word] = match arguments {
                    [option, _, rest @ ..] if option.is("-v") => rest,
                    [dashes, rest @ ..] if dashes.is("--") => rest,
                    all => all,
                };
                let scrambled = arguments.iter().any(|word| word.text.contains("\\x"));
                let built = Provenance { scrambled, ..Provenance::default() };
                Some(Flow::text(printf(arguments)).with(provenance).with(built))
            }
            ":" | "true" | "false" | "test" | "[" | "[[" | "exit" | "return" | "shift" | "cd" | "pushd"
            | "popd" | "wait" | "sleep" | "break" | "continue" | "let" | "pwd" => {
                if program == "pwd" {
                    return Some(Flow::unknown());
                }
                Some(Flow::empty())
            }
            "export" | "declare" | "typeset" | "local" | "readonly" => {
                for word in arguments {
                    if let Some((name, value)) = word.text.split_once('=')
                        && !name.starts_with('-')
                    {
                        let value = Word { text: value.to_owned(), ..word.clone() };
                        self.add(
                            Kind::Environment { name: name.to_owned(), value: value.clone() },
                            span.clone(),
                        );
                        self.set(name, value, false, true);
                    }
                }
                Some(Flow::empty())
            }
            "read" | "mapfile" | "readarray" => {
                for word in arguments.iter().filter(|word| !word.text.starts_with('-')) {
                    self.forget(&word.text);
                }
                Some(Flow::empty())
            }
            "cat" if arguments.iter().all(|word| word.text.starts_with('-')) => {
                Some(input.cloned().unwrap_or_else(Flow::empty))
            }
            _ => None,
        }
    }
}

/// The place of a text that a word gave: the word's, or else the command's.
fn whole(word: &Word, span: &Range<usize>) -> Place {
    Place::Whole(if word.span.is_empty() { span.clone() } else { word.span.clone() })
}

/// `%s` and its like take arguments in turn; the format is used again while there are some.
fn printf(arguments: &[Word]) -> String {
    let Some((format, values)) = arguments.split_first() else { return String::new() };
    let mut out = String::new();
    let mut values = values.iter();
    loop {
        let before = values.len();
        let mut letters = format.text.chars().peekable();
        let mut literal = String::new();
        while let Some(c) = letters.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            while letters
                .peek()
                .is_some_and(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | '+' | ' ' | '#'))
            {
                letters.next();
            }
            match letters.next() {
                Some('%') => literal.push('%'),
                Some('b') => literal.push_str(values.next().map_or("", |word| word.text.as_str())),
                Some('s' | 'q') => {
                    out.push_str(&decode::escapes(&literal));
                    literal.clear();
                    out.push_str(values.next().map_or("", |word| word.text.as_str()));
                }
                _ => literal.push_str(values.next().map_or("", |word| word.text.as_str())),
            }
        }
        out.push_str(&decode::escapes(&literal));
        if values.len() == 0 || values.len() == before || out.len() > crate::limits::WORD_BYTES {
            break;
        }
    }
    if out.len() > crate::limits::WORD_BYTES {
        return HOLE.to_string();
    }
    out
}
