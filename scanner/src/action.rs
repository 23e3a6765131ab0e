//! What a recipe will do, whatever language said it. Readers make these; rules look at nothing else.

use std::ops::{Deref, Range};
use std::rc::Rc;

/// Stands in a word for what cannot be known before it runs. No text has it: see [`crate::source`].
pub(crate) const HOLE: char = '\0';

/// Where data came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// Fetched from the network.
    pub(crate) remote: bool,
    /// Came out of a decoder (base64, hex, gzip, a cipher).
    pub(crate) decoded: bool,
    /// Secrets of the system or of a user.
    pub(crate) secret: bool,
    /// Turned around letter by letter (`rev`, `tr`), or built from escapes.
    pub(crate) scrambled: bool,
}

impl Provenance {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            remote: self.remote || other.remote,
            decoded: self.decoded || other.decoded,
            secret: self.secret || other.secret,
            scrambled: self.scrambled || other.scrambled,
        }
    }
}

/// A text that many hold at once: one output may go to thousands of files, and is kept once for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Text(Rc<String>);

impl Text {
    pub(crate) fn push_str(&mut self, more: &str) {
        Rc::make_mut(&mut self.0).push_str(more);
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(Rc::new(text.into()))
    }
}

/// A word after expansion: literal text, with a [`HOLE`] for each part that is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// In the file.
    pub(crate) span: Range<usize>,
    pub(crate) provenance: Provenance,
}

impl Word {
    pub(crate) fn literal_at(text: impl Into<String>, span: Range<usize>) -> Self {
        Self { text: text.into(), span, provenance: Provenance::default() }
    }

    /// The whole text, if all of it is known.
    pub(crate) fn known(&self) -> Option<&str> {
        (!self.text.contains(HOLE)).then_some(self.text.as_str())
    }

    pub(crate) fn is_known(&self) -> bool {
        !self.text.contains(HOLE)
    }

    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// What it takes in memory.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }

    /// The last component of a path.
    pub(crate) fn base(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }

    /// For a message: short, one line, nothing that moves a terminal's cursor.
    pub(crate) fn shown(&self) -> String {
        shown(&self.text)
    }
}

/// A hostile text for a message: short, one line, no control or direction characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == crate::limits::SHOWN {
            out.push('…');
            break;
        }
        match c {
            HOLE => out.push_str("<?>"),
            '\n' | '\t' | '\r' => out.push(' '),
            c if c.is_control() || is_direction(c) => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// Characters that change the order in which a terminal or editor shows text.
pub(crate) fn is_direction(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}')
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The manifest says it openly; a site's policy may judge it.
    Declared,
    /// A script does it.
    Script,
}

/// One thing that will be done.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    pub(crate) kind: Kind,
    /// In the file.
    pub(crate) span: Range<usize>,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A program runs, wrappers taken off.
    Run(Run),
    WriteFile(WriteFile),
    /// A file is emptied, removed or overwritten with nothing of worth.
    Remove {
        path: Word,
        how: Removal,
    },
    ReadFile {
        path: Word,
        program: String,
    },
    SetMode {
        path: Word,
        mode: ModeChange,
        recursive: bool,
    },
    SetOwner {
        path: Word,
        owner: Word,
    },
    Fetch(Fetch),
    User(UserChange),
    Service {
        name: Word,
        change: ServiceChange,
    },
    Package {
        options: Vec<Word>,
        program: String,
    },
    /// A variable of the environment gets a value.
    Environment {
        name: String,
        value: Word,
    },
    /// Text that nothing else explains: payload files, programs' code. Searched for secrets and the like.
    Text {
        text: String,
    },
    /// The reader met a limit or something it cannot read.
    Limit(Limit),
}

impl Kind {
    /// What it costs to keep it and to let every rule look at it, in bytes: its texts, and something for each word.
    pub(crate) fn size(&self) -> usize {
        let words = |words: &[Word]| words.iter().map(Word::size).sum::<usize>();
        let text = |text: Option<&Text>| text.map_or(0, |text| text.len());
        size_of::<Action>()
            + match self {
                Self::Run(run) => {
                    let input = run.input.as_ref().and_then(|input| input.text.as_ref());
                    words(&run.argv) + words(&run.redirects) + text(input)
                }
                Self::WriteFile(write) => write.path.size() + text(write.content.as_ref()),
                Self::Remove { path, .. } | Self::ReadFile { path, .. } | Self::SetMode { path, .. } => {
                    path.size()
                }
                Self::SetOwner { path, owner } => path.size() + owner.size(),
                Self::Fetch(fetch) => fetch.url.size() + fetch.output.as_ref().map_or(0, Word::size),
                Self::User(user) => {
                    let groups = user.groups.iter().map(|group| size_of::<String>() + group.len());
                    let given = [user.uid.as_ref(), user.password.as_ref()];
                    user.name.size()
                        + given.into_iter().flatten().map(Word::size).sum::<usize>()
                        + groups.sum::<usize>()
                }
                Self::Service { name, .. } => name.size(),
                Self::Package { options, .. } => words(options),
                Self::Environment { name, value } => name.len() + value.size(),
                Self::Text { text } => text.len(),
                Self::Limit(_) => 0,
            }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) argv: Vec<Word>,
    /// What goes into it, when a pipe or a here-document feeds it.
    pub(crate) input: Option<Input>,
    /// Its output or input goes to this (`/dev/tcp/…` and devices are of interest).
    pub(crate) redirects: Vec<Word>,
    /// Each element of `argv[n..]` comes from a list (`xargs`, `find -exec`).
    pub(crate) repeated: bool,
}

impl Run {
    /// The program's name without its folder.
    pub(crate) fn program(&self) -> &str {
        self.argv.first().map(Word::base).unwrap_or_default()
    }

    pub(crate) fn arguments(&self) -> &[Word] {
        self.argv.get(1..).unwrap_or_default()
    }

    pub(crate) fn has(&self, argument: &str) -> bool {
        self.arguments().iter().any(|word| word.is(argument))
    }

    /// A flag by its letter (also among others: `-rf`) or by its long name.
    pub(crate) fn flag(&self, letter: char, long: &str) -> bool {
        self.arguments().iter().any(|word| flag_in(&word.text, letter, long))
    }

    /// The value of an option: `-o value`, `-ovalue`, `--long value`, `--long=value`.
    pub(crate) fn option(&self, short: &str, long: &str) -> Option<Word> {
        let mut words = self.arguments().iter();
        while let Some(word) = words.next() {
            let text = word.text.as_str();
            if (!short.is_empty() && text == short) || (!long.is_empty() && text == long) {
                return words.next().cloned();
            }
            let long_value = text.strip_prefix(long).filter(|_| !long.is_empty());
            let short_value = text
                .strip_prefix(short)
                .filter(|rest| !short.is_empty() && !text.starts_with("--") && !rest.is_empty());
            if let Some(value) = long_value.and_then(|rest| rest.strip_prefix('=')).or(short_value) {
                return Some(Word { text: value.to_owned(), ..word.clone() });
            }
        }
        None
    }

    /// Arguments that are no options.
    pub(crate) fn operands(&self) -> impl Iterator<Item = &Word> {
        self.arguments().iter().filter(|word| !word.text.starts_with('-') || word.text == "-")
    }

    pub(crate) fn line(&self) -> String {
        let words: Vec<_> = self.argv.iter().map(|word| word.text.as_str()).collect();
        words.join(" ")
    }
}

pub(crate) fn flag_in(text: &str, letter: char, long: &str) -> bool {
    if text.starts_with("--") {
        return !long.is_empty()
            && (text == long || text.strip_prefix(long).is_some_and(|rest| rest.starts_with('=')));
    }
    letter != '\0'
        && text.strip_prefix('-').is_some_and(|letters| {
            letters.contains(letter) && letters.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// Data that flows into a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// As far as it is known.
    pub(crate) text: Option<Text>,
    pub(crate) provenance: Provenance,
}

#[derive(Clone, Debug)]
pub(crate) struct WriteFile {
    pub(crate) path: Word,
    /// As far as it is known.
    pub(crate) content: Option<Text>,
    pub(crate) provenance: Provenance,
    pub(crate) mode: Option<u32>,
    /// Whether the file's old content is kept: `>>`, `tee -a`, `sed -i`.
    pub(crate) append: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    Unlink,
    Recursive,
    Empty,
    Shred,
}

/// The bits a change of mode sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModeChange {
    pub(crate) setuid: bool,
    pub(crate) setgid: bool,
    pub(crate) sticky: bool,
    pub(crate) execute: bool,
    /// Others may read, write.
    pub(crate) other_read: bool,
    pub(crate) other_write: bool,
    pub(crate) group_write: bool,
    pub(crate) unknown: bool,
}

impl ModeChange {
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self {
            setuid: bits & 0o4000 != 0,
            setgid: bits & 0o2000 != 0,
            sticky: bits & 0o1000 != 0,
            execute: bits & 0o111 != 0,
            other_read: bits & 0o004 != 0,
            other_write: bits & 0o002 != 0,
            group_write: bits & 0o020 != 0,
            unknown: false,
        }
    }

    /// `0755`, `=0755`, `u+s`, `a=rwx,o-w`.
    pub(crate) fn parse(text: &str) -> Self {
        let digits = text.strip_prefix(['=', '+']).unwrap_or(text);
        if digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() < text.len() {
            return Self::parse(digits);
        }
        if !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| (b'0'..b'8').contains(&byte)) {
            return u32::from_str_radix(text, 8).map(Self::from_bits).unwrap_or_default();
        }
        let mut change = Self { unknown: text.contains(HOLE), ..Self::default() };
        for clause in text.split(',') {
            let who: &str = &clause[..clause.find(['+', '-', '=']).unwrap_or(0)];
            let everyone = who.is_empty() || who.contains('a');
            let mut adds = false;
            for letter in clause[who.len()..].chars() {
                match letter {
                    '+' | '=' => adds = true,
                    '-' => adds = false,
                    _ if !adds => {}
                    's' => {
                        change.setuid |= who.is_empty() || who.contains(['u', 'a']);
                        change.setgid |= who.is_empty() || who.contains(['g', 'a']);
                    }
                    't' => change.sticky = true,
                    'x' => change.execute = true,
                    // Without "who" the umask keeps others from writing.
                    'w' => {
                        change.other_write |= who.contains(['o', 'a']);
                        change.group_write |= who.contains(['g', 'a']);
                    }
                    'r' => change.other_read |= everyone || who.contains('o'),
                    _ => {}
                }
            }
        }
        change
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) url: Word,
    /// Where it is kept, if in a file.
    pub(crate) output: Option<Word>,
    /// The server's certificate is not checked.
    pub(crate) unchecked: bool,
}

/// A user is made or changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserChange {
    pub(crate) name: Word,
    pub(crate) uid: Option<Word>,
    pub(crate) groups: Vec<String>,
    /// A hash or password given openly, empty for none.
    pub(crate) password: Option<Word>,
    /// Public keys that may log in as this user.
    pub(crate) authorized_keys: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceChange {
    Stop,
    Disable,
    Mask,
    Other,
}

#[derive(Clone, Debug)]
pub(crate) enum Limit {
    Size { bytes: usize },
    Grammar { why: String },
    Exhausted { what: &'static str },
    Nul,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_in_both_forms() {
        assert!(ModeChange::parse("4755").setuid);
        assert!(!ModeChange::parse("0755").setuid);
        assert!(ModeChange::parse("=4755").setuid && ModeChange::parse("+4000").setuid);
        assert!(!ModeChange::parse("-4000").setuid && !ModeChange::parse("=").setuid);
        assert!(ModeChange::parse("u+s").setuid);
        assert!(!ModeChange::parse("g+s").setuid);
        assert!(ModeChange::parse("g+xs").setgid);
        assert!(!ModeChange::parse("u-s,g-s").setuid);
        assert!(ModeChange::parse("a+rwx").other_write);
        assert!(ModeChange::parse("0777").other_write);
        assert!(!ModeChange::parse("+w").other_write);
        assert!(!ModeChange::parse("go-w").other_write);
        assert!(ModeChange::parse("o=rw").other_write);
    }

    #[test]
    fn what_is_shown_of_hostile_text_moves_no_cursor() {
        assert_eq!(shown("a\u{1b}[2Jb\nc\u{202e}d\0"), "a?[2Jb c?d<?>");
        assert!(shown(&"x".repeat(500)).chars().count() <= crate::limits::SHOWN + 1);
    }
}
