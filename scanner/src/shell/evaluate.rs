//! Follows a script: values into words, words into commands, commands into actions. Nothing is ever run.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use super::flow::Flow;
use super::tree::{Assignment, Direction, Group, Node, Reading, Redirect, Script, Simple, Stage};
use crate::action::{Action, HOLE, Kind, Limit, Origin, Provenance, Removal, Text, Word, WriteFile};
use crate::content::FileKind;
use crate::source::Place;
use crate::{content, limits};

struct Function {
    body: Rc<[Node]>,
    place: Place,
    called: bool,
}

/// The state of one file's evaluation. Unknown stays unknown: a variable set in several branches keeps some values of
/// each, and a command is looked at once for each of them.
pub(crate) struct Evaluator {
    actions: Vec<Action>,
    origin: Origin,
    pub(super) place: Place,
    variables: HashMap<String, Vec<Word>>,
    functions: HashMap<String, Function>,
    order: Vec<String>,
    positional: Vec<Word>,
    /// Files the script writes, by literal path.
    files: HashMap<String, Text>,
    /// Texts already followed from those files.
    followed: HashSet<Text>,
    scripts: HashMap<Rc<str>, Rc<Script>>,
    pub(super) nested: usize,
    calls: Vec<String>,
    branches: usize,
    commands: usize,
    pub(super) expanded: usize,
    /// Bytes of the actions, without those of a manifest itself, which has limits of its own.
    stored: usize,
    parsed: usize,
    exhausted: bool,
    /// Which of a variable's values this look takes, and how many there were.
    variant: usize,
    widest: usize,
}

impl Evaluator {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            actions: Vec::new(),
            origin,
            place: Place::Exact(0),
            variables: HashMap::new(),
            functions: HashMap::new(),
            order: Vec::new(),
            positional: Vec::new(),
            files: HashMap::new(),
            followed: HashSet::new(),
            scripts: HashMap::new(),
            nested: 0,
            calls: Vec::new(),
            branches: 0,
            commands: 0,
            expanded: 0,
            stored: 0,
            parsed: 0,
            exhausted: false,
            variant: 0,
            widest: 1,
        }
    }

    /// Reads a whole script, also the functions that it never calls.
    pub(crate) fn script(&mut self, text: &str, place: Place) {
        self.text(text, place);
        self.nested += 1;
        let mut index = 0;
        while let Some(name) = self.order.get(index).cloned() {
            index += 1;
            if self.functions.get(&name).is_some_and(|function| !function.called) {
                self.positional.clear();
                self.call(&name, Vec::new(), None);
            }
        }
        self.nested -= 1;
    }

    /// What a file step or a file of the recipe puts into the machine.
    pub(crate) fn file(&mut self, write: WriteFile, place: Place, span: Range<usize>) {
        self.write_file(write, Some(place), span);
    }

    pub(crate) fn add(&mut self, kind: Kind, span: Range<usize>) {
        // What does not fit is not seen by any rule, so it is a finding.
        if self.origin == Origin::Script && !matches!(kind, Kind::Limit(_)) {
            self.stored += kind.size();
        }
        if matches!(kind, Kind::Limit(_)) || self.has_room() {
            self.actions.push(Action { kind, span, origin: self.origin });
        }
    }

    /// Whether there is anything left of what the file may cost. What comes after that is neither followed nor kept, so
    /// whoever asks in a loop stops there.
    pub(super) fn has_room(&mut self) -> bool {
        let spent = if self.actions.len() >= limits::ACTIONS {
            "the number of actions"
        } else if self.stored > limits::ACTION_BYTES {
            "the length of all actions"
        } else if self.expanded > limits::EXPANDED_BYTES {
            "expansion"
        } else {
            return true;
        };
        self.exhaust(spent);
        false
    }

    /// What it took to come here, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.stored + self.expanded
    }

    /// What was found.
    pub(crate) fn finish(self) -> Vec<Action> {
        self.actions
    }

    /// Does something as a script would, not as the manifest says it openly.
    pub(crate) fn hidden(&mut self, work: impl FnOnce(&mut Self)) {
        let origin = std::mem::replace(&mut self.origin, Origin::Script);
        work(self);
        self.origin = origin;
    }

    /// Follows the shell inside a file of this kind that lies at `place`.
    pub(crate) fn follow_file(&mut self, kind: FileKind, content: &str, place: &Place) {
        for command in content::commands(kind, content) {
            let inner = match place {
                Place::Exact(base) => Place::Exact(base + command.start),
                Place::Whole(span) => Place::Whole(span.clone()),
            };
            self.branches += 1;
            self.hidden(|evaluator| {
                evaluator.text(&content[command], inner);
            });
            self.branches -= 1;
        }
    }

    pub(super) fn exhaust(&mut self, what: &'static str) {
        if !self.exhausted {
            self.exhausted = true;
            let span = self.place.span(0..1);
            self.add(Kind::Limit(Limit::Exhausted { what }), span);
        }
    }

    /// Follows a text that lies at `place` and gives what it prints.
    pub(super) fn text(&mut self, text: &str, place: Place) -> Flow {
        if self.nested >= limits::NESTED_TEXTS {
            self.exhaust("texts inside texts");
            return Flow::unknown();
        }
        if text.len() > limits::FILE_BYTES {
            self.exhaust("the length of a text");
            return Flow::unknown();
        }
        // Also a text that was read before is compared letter by letter.
        self.expanded += text.len();
        let script = match self.scripts.get(text) {
            Some(script) => Rc::clone(script),
            None => {
                self.parsed += text.len();
                if self.parsed > limits::PARSED_BYTES {
                    self.exhaust("the length of all texts");
                    return Flow::unknown();
                }
                let script = Rc::new(super::read(text));
                self.scripts.insert(Rc::from(text), Rc::clone(&script));
                script
            }
        };
        let outer = std::mem::replace(&mut self.place, place);
        if let (Reading::Lexer { why, at }, 0) = (&script.reading, self.nested) {
            let span = self.place.span(*at..*at + 1);
            self.add(Kind::Limit(Limit::Grammar { why: why.clone() }), span);
        }
        self.nested += 1;
        let flow = self.nodes(&script.nodes, None);
        self.nested -= 1;
        self.place = outer;
        flow
    }

    fn nodes(&mut self, nodes: &[Node], input: Option<&Flow>) -> Flow {
        let mut output = Flow::empty();
        for node in nodes {
            match node {
                Node::Function { name, body } => {
                    let function =
                        Function { body: Rc::clone(body), place: self.place.clone(), called: false };
                    if self.functions.insert(name.clone(), function).is_none() {
                        self.order.push(name.clone());
                    }
                }
                Node::Pipeline(stages) => output.append(self.pipeline(stages, input)),
            }
        }
        output
    }

    fn pipeline(&mut self, stages: &[Stage], input: Option<&Flow>) -> Flow {
        let mut flow = input.cloned();
        for stage in stages {
            if !self.has_room() {
                return Flow::unknown();
            }
            if self.commands >= limits::COMMANDS {
                self.exhaust("the number of commands");
                return Flow::unknown();
            }
            self.commands += 1;
            flow = Some(match stage {
                Stage::Simple(simple) => self.simple(simple, flow),
                Stage::Group(group) => self.group(group, flow),
            });
        }
        flow.unwrap_or_else(Flow::empty)
    }

    fn group(&mut self, group: &Group, input: Option<Flow>) -> Flow {
        if let Some((name, values)) = &group.binding {
            let mut found: Vec<Word> = values.iter().flat_map(|raw| self.words(raw)).collect();
            if found.len() > limits::LOOP_VALUES {
                found.truncate(limits::LOOP_VALUES);
                found.push(Word::literal_at(HOLE.to_string(), self.place.span(group.span.clone())));
            }
            if found.is_empty() {
                found.push(Word::literal_at(HOLE.to_string(), self.place.span(group.span.clone())));
            }
            self.variables.insert(name.clone(), found);
        }
        let span = self.place.span(group.span.clone());
        let (fed, targets) = self.redirects(&group.redirects);
        let input = fed.or(input);
        self.branches += usize::from(group.conditional);
        let output = self.nodes(&group.nodes, input.as_ref());
        self.branches -= usize::from(group.conditional);
        self.deliver(output, targets, span)
    }

    fn simple(&mut self, simple: &Simple, input: Option<Flow>) -> Flow {
        let outer = (self.variant, self.widest);
        (self.variant, self.widest) = (0, 1);
        let flow = self.look(simple, input.clone());
        let widest = self.widest.min(limits::LOOP_VALUES + 1);
        for variant in 1..widest {
            (self.variant, self.widest) = (variant, 1);
            self.look(simple, input.clone());
        }
        (self.variant, self.widest) = outer;
        flow
    }

    /// One look at a simple command, with one choice of values.
    fn look(&mut self, simple: &Simple, input: Option<Flow>) -> Flow {
        let span = self.place.span(simple.span.clone());
        let lasting = simple.words.is_empty();
        for assignment in &simple.assignments {
            self.assign(assignment, lasting, &span);
        }
        let argv: Vec<Word> = simple.words.iter().flat_map(|raw| self.words(raw)).collect();
        let (fed, targets) = self.redirects(&simple.redirects);
        let input = fed.or(input);
        let written: Vec<Word> = targets.iter().map(|target| target.path.clone()).collect();
        let output = if argv.is_empty() { Flow::empty() } else { self.command(argv, input, &written, &span) };
        self.deliver(output, targets, span)
    }

    fn assign(&mut self, assignment: &Assignment, lasting: bool, span: &Range<usize>) {
        let values: Vec<Word> = assignment.values.iter().map(|raw| self.value(raw)).collect();
        let text: Vec<_> = values.iter().map(|word| word.text.as_str()).collect();
        let provenance = values.iter().fold(Provenance::default(), |all, word| all.and(word.provenance));
        let mut text = text.join(" ");
        self.cut(&mut text);
        let value = Word { text, provenance, span: span.clone() };
        self.add(Kind::Environment { name: assignment.name.clone(), value: value.clone() }, span.clone());
        self.set(&assignment.name, value, assignment.append, lasting);
    }

    /// Cuts a text that is too long; what is cut is not seen, so that is a finding.
    fn cut(&mut self, text: &mut String) {
        if text.len() > limits::WORD_BYTES {
            text.truncate(text.floor_char_boundary(limits::WORD_BYTES));
            self.exhaust("the length of a word");
        }
    }

    /// Gives a variable a value; in a branch beside the ones it had.
    pub(super) fn set(&mut self, name: &str, mut value: Word, append: bool, lasting: bool) {
        let old = self.variables.get(name).and_then(|values| values.first()).cloned();
        if append && let Some(old) = old {
            let separator = if old.text.is_empty() || self.branches == 0 { "" } else { " " };
            let mut text = format!("{}{separator}{}", old.text, value.text);
            self.cut(&mut text);
            value.text = text;
            value.provenance = value.provenance.and(old.provenance);
        }
        self.expanded += value.text.len();
        let values = self.variables.entry(name.to_owned()).or_default();
        if self.branches == 0 && self.calls.is_empty() && lasting {
            values.clear();
        }
        values.retain(|old| old.text != value.text && !old.text.is_empty());
        values.insert(0, value);
        values.truncate(limits::VALUES);
    }

    pub(super) fn lookup(&mut self, name: &str) -> Word {
        let span = self.place.span(0..0);
        match self.variables.get(name) {
            Some(values) if !values.is_empty() => {
                self.widest = self.widest.max(values.len());
                let value = values[self.variant.min(values.len() - 1)].clone();
                // What is made of it may be short.
                self.expanded += value.text.len();
                value
            }
            _ => match name {
                "HOME" => Word::literal_at("~", span),
                "SHELL" | "BASH" => Word::literal_at("/bin/bash", span),
                "IFS" => {
                    let provenance = Provenance { scrambled: true, ..Provenance::default() };
                    Word { text: " ".to_owned(), span, provenance }
                }
                _ => Word::literal_at(HOLE.to_string(), span),
            },
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.variables.remove(name);
    }

    pub(super) fn positional(&self, index: usize) -> Word {
        let word = index.checked_sub(1).and_then(|index| self.positional.get(index)).cloned();
        word.unwrap_or_else(|| Word::literal_at(HOLE.to_string(), self.place.span(0..0)))
    }

    pub(super) fn all_positional(&self) -> String {
        if self.positional.is_empty() {
            return HOLE.to_string();
        }
        let words: Vec<_> = self.positional.iter().map(|word| word.text.as_str()).collect();
        words.join(" ")
    }

    pub(super) fn is_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Follows a function's body with these arguments.
    pub(super) fn call(&mut self, name: &str, arguments: Vec<Word>, input: Option<Flow>) -> Flow {
        let Some(function) = self.functions.get_mut(name) else { return Flow::unknown() };
        // A function that calls itself says nothing new; one that lies too deep would not be seen.
        if self.calls.iter().filter(|called| *called == name).count() > 1 {
            return Flow::unknown();
        }
        function.called = true;
        if self.calls.len() >= limits::CALL_DEPTH {
            self.exhaust("calls inside calls");
            return Flow::unknown();
        }
        let body = Rc::clone(&function.body);
        let place = std::mem::replace(&mut self.place, function.place.clone());
        let positional = std::mem::replace(&mut self.positional, arguments);
        self.calls.push(name.to_owned());
        let flow = self.nodes(&body, input.as_ref());
        self.calls.pop();
        self.positional = positional;
        self.place = place;
        flow
    }

    fn redirects(&mut self, redirects: &[Redirect]) -> (Option<Flow>, Vec<Target>) {
        let mut input = None;
        let mut targets = Vec::new();
        for redirect in redirects {
            match redirect {
                Redirect::Here { text, expands, span } => input = Some(self.heredoc(text, *expands, span)),
                Redirect::HereString(raw) => {
                    let word = self.value(raw);
                    input = Some(Flow::text(format!("{}\n", word.text)).with(word.provenance));
                }
                Redirect::File { fd, direction, target } => {
                    let path = self.value(target);
                    if *direction == Direction::Read && !path.text.starts_with("/dev/tcp/") {
                        input = Some(self.read_file(&path, "<"));
                        continue;
                    }
                    targets.push(Target { fd: *fd, direction: *direction, path });
                }
            }
        }
        (input, targets)
    }

    fn heredoc(&mut self, text: &str, expands: bool, span: &Range<usize>) -> Flow {
        let exact = match &self.place {
            Place::Exact(base) if text.len() == span.len() => Some(Place::Exact(base + span.start)),
            _ => Some(Place::Whole(self.place.span(span.clone()))),
        };
        // A function's is read again at each call.
        self.expanded += text.len();
        if !expands {
            return Flow { place: exact, ..Flow::text(text) };
        }
        let (expanded, provenance) = self.document(text, span);
        let place = if expanded == text { exact } else { Some(Place::Whole(self.place.span(span.clone()))) };
        Flow { place, ..Flow::text(expanded) }.with(provenance)
    }

    /// Sends output where its redirections say; what is left flows on.
    fn deliver(&mut self, output: Flow, targets: Vec<Target>, span: Range<usize>) -> Flow {
        let mut rest = Some(output);
        for target in targets {
            let append = target.direction == Direction::Append;
            let inert = target.path.text.is_empty()
                || (target.path.text.starts_with("/dev/") && !is_disk(&target.path.text))
                || target.direction == Direction::Read;
            if target.fd == Some(2) || inert {
                if target.fd.is_none_or(|fd| fd == 1) && target.direction != Direction::Read {
                    rest = None;
                }
                continue;
            }
            let content = if target.fd.is_none_or(|fd| fd == 1) { rest.take() } else { Some(Flow::empty()) };
            let content = content.unwrap_or_else(Flow::empty);
            let write = WriteFile {
                path: target.path,
                content: content.text,
                provenance: content.provenance,
                mode: None,
                append,
            };
            self.write_file(write, content.place, span.clone());
        }
        rest.unwrap_or_else(Flow::empty)
    }

    /// A file gets content: kept for later reads, and followed when something will run it.
    pub(super) fn write_file(&mut self, mut write: WriteFile, place: Option<Place>, span: Range<usize>) {
        if write.path.is_known() && write.path.text.starts_with("/dev/fd/") {
            return;
        }
        write.path.text = normal(&write.path.text);
        if !self.has_room() {
            return;
        }
        let emptied = write.content.as_deref().is_some_and(|text| text.trim().is_empty());
        if emptied && !write.append {
            self.add(Kind::Remove { path: write.path.clone(), how: Removal::Empty }, span.clone());
        }
        let content = write.content.clone();
        let path = write.path.clone();
        let append = write.append;
        self.add(Kind::WriteFile(write), span.clone());
        let Some(content) = content else { return };
        let kind = content::kind(&path.text, &content);
        self.follow_file(kind, &content, &place.unwrap_or(Place::Whole(span)));
        if let Some(known) = path.known() {
            let kept = self.files.entry(known.to_owned()).or_default();
            if !append {
                *kept = Text::default();
            }
            if kept.is_empty() {
                *kept = content;
            } else {
                self.expanded += content.len();
                kept.push_str(&content);
            }
            if kept.len() > limits::WORD_BYTES {
                *kept = Text::default();
                self.exhaust("the length of a file");
            }
        }
    }

    /// What a file holds, as far as this script wrote it.
    pub(super) fn read_file(&mut self, path: &Word, program: &str) -> Flow {
        self.add(Kind::ReadFile { path: path.clone(), program: program.to_owned() }, path.span.clone());
        let secret = content::is_secret(&path.text);
        let provenance = path.provenance.and(Provenance { secret, ..Provenance::default() });
        match self.files.get(&normal(&path.text)) {
            Some(text) => Flow::text(text.clone()).with(provenance),
            None if path.is("/dev/null") => Flow::empty(),
            None => Flow::unknown().with(provenance),
        }
    }

    /// The text of a file that is about to run, once.
    pub(super) fn take_script(&mut self, path: &str) -> Option<Text> {
        let text = self.files.get(&normal(path))?;
        // Each time it is compared with what was followed.
        self.expanded += text.len();
        // What was followed when it was written says nothing new.
        if content::is_followed(path, text) || !self.followed.insert(text.clone()) {
            return None;
        }
        Some(text.clone())
    }

    /// A name for the output of a process substitution.
    pub(super) fn process_file(&mut self, text: Option<Text>) -> String {
        let path = format!("/dev/fd/{}", 63 + self.files.len());
        if let Some(text) = text {
            self.files.insert(path.clone(), text);
        }
        path
    }

    pub(super) fn copy_file(&mut self, from: &str) -> Option<Text> {
        self.files.get(&normal(from)).cloned()
    }
}

struct Target {
    fd: Option<u32>,
    direction: Direction,
    path: Word,
}

fn is_disk(path: &str) -> bool {
    ["/dev/sd", "/dev/vd", "/dev/nvme", "/dev/xvd", "/dev/hd", "/dev/mmcblk", "/dev/mem", "/dev/kmem"]
        .iter()
        .any(|disk| path.starts_with(disk))
}

/// `//etc/./x` as `/etc/x`; what climbs stays as it is.
pub(crate) fn normal(path: &str) -> String {
    let mut out = path.replace("/./", "/");
    while out.contains("//") && !out.contains("://") {
        out = out.replace("//", "/");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(text: &str) -> Vec<Action> {
        let mut evaluator = Evaluator::new(Origin::Script);
        evaluator.script(text, Place::Exact(0));
        evaluator.finish()
    }

    #[test]
    fn what_goes_to_many_files_is_not_kept_for_each_of_them() {
        let document = format!("<<E\n{}E\n", ("a".repeat(79) + "\n").repeat(1_250));
        let (names, bigs) = (" a".repeat(600), " big".repeat(600));
        let texts = [
            format!("tee {names} {document}"),
            format!("cat > big {document}cp{bigs} d\n"),
            format!("cat > big {document}install -m 644{bigs} d\n"),
            format!("cat > big {document}{}", "cat big > a\n".repeat(600)),
            format!("cat > big {document}{}", "dd if=big of=a\n".repeat(600)),
            format!("f() {{\ntee a {document}}}\n{}", "f\n".repeat(600)),
            format!("{{\n{}}} {document}", "cat > a\n".repeat(600)),
            format!("x={}\nchown $x{names}\n", "a".repeat(100_000)),
            format!("sed -i 's/a/{}/'{names}\n", "b".repeat(100_000)),
        ];
        for text in texts {
            let actions = actions(&text);
            let kept: usize = actions.iter().map(|action| action.kind.size()).sum();
            assert!(kept <= limits::ACTION_BYTES, "{kept} for {:?}…", &text[..20]);
            let told =
                actions.iter().any(|action| matches!(action.kind, Kind::Limit(Limit::Exhausted { .. })));
            assert!(told, "{:?}…", &text[..20]);
        }
    }

    #[test]
    fn many_texts_that_differ_are_not_all_parsed() {
        let text = format!("x='f() {{ {} }}'\n", "a;".repeat(50_000));
        let evals: String = (0..40).map(|number| format!("eval \"$x #{number}\"\n")).collect();
        let mut evaluator = Evaluator::new(Origin::Script);
        evaluator.script(&(text + &evals), Place::Exact(0));
        let parsed: usize = evaluator.scripts.keys().map(|text| text.len()).sum();
        assert!(parsed <= limits::PARSED_BYTES, "{parsed}");
        let told = |action: &Action| matches!(action.kind, Kind::Limit(Limit::Exhausted { .. }));
        assert!(evaluator.finish().iter().any(told));
    }
}
