//! Programs that write, copy, edit and remove files, and set their modes and owners.

use std::ops::Range;

use super::effect::operands_after;
use super::evaluate::{Evaluator, normal};
use super::flow::Flow;
use crate::action::{Kind, ModeChange, Provenance, Removal, Run, Text, Word, WriteFile};

impl Evaluator {
    pub(super) fn tee(&mut self, run: &Run, input: Option<Flow>, span: &Range<usize>) -> Flow {
        let flow = input.unwrap_or_else(Flow::unknown);
        let append = run.flag('a', "--append");
        for path in run.operands() {
            if !self.has_room() {
                break;
            }
            if path.text.starts_with("/dev/null") || path.text.starts_with("/dev/std") {
                continue;
            }
            let write = WriteFile {
                path: path.clone(),
                content: flow.text.clone(),
                provenance: flow.provenance,
                mode: None,
                append,
            };
            self.write_file(write, flow.place.clone(), span.clone());
        }
        flow
    }

    pub(super) fn copy(&mut self, run: &Run, program: &str, span: &Range<usize>) -> Flow {
        if program == "install" && run.flag('d', "--directory")
            || matches!(program, "rsync" | "scp") && run.operands().any(|word| word.text.contains(':'))
        {
            return Flow::empty();
        }
        let valued: &[&str] = if program == "install" {
            &["-m", "-o", "-g", "-t", "--mode", "--owner", "--group"]
        } else {
            &["-t", "-S"]
        };
        let folder = run.option("-t", "--target-directory").filter(|_| program != "rsync" && program != "ln");
        let mut operands = operands_after(run, valued);
        let destination = match &folder {
            Some(folder) => Some(Word { text: format!("{}/", folder.text), ..folder.clone() }),
            None if operands.len() > 1 => operands.pop(),
            None => None,
        };
        let Some(destination) = destination else { return Flow::empty() };
        let mode = run.option("-m", "--mode").filter(|_| program == "install");
        let into_folder =
            folder.is_some() || operands.len() > 1 || destination.text.ends_with('/') || destination.is(".");
        for source in operands {
            if !self.has_room() {
                break;
            }
            let path = if into_folder {
                Word {
                    text: format!("{}/{}", destination.text.trim_end_matches('/'), source.base()),
                    ..destination.clone()
                }
            } else {
                destination.clone()
            };
            let provenance = if program == "ln" {
                Provenance::default()
            } else {
                self.read_file(&source, program).provenance
            };
            if program == "ln" && source.is("/dev/null") {
                self.add(Kind::Remove { path, how: Removal::Empty }, span.clone());
                continue;
            }
            if program == "mv" {
                self.add(Kind::Remove { path: source.clone(), how: Removal::Unlink }, span.clone());
            }
            if let Some(mode) = &mode {
                let change = ModeChange::parse(&mode.text);
                self.add(Kind::SetMode { path: path.clone(), mode: change, recursive: false }, span.clone());
            }
            let content =
                if source.is("/dev/null") { Some(Text::default()) } else { self.copy_file(&source.text) };
            let write = WriteFile { path, content, provenance, mode: None, append: false };
            self.write_file(write, None, span.clone());
        }
        Flow::empty()
    }

    pub(super) fn dd(&mut self, run: &Run, input: Option<Flow>, span: &Range<usize>) -> Flow {
        let value = |name: &str| {
            run.arguments().iter().find_map(|word| {
                word.text.strip_prefix(name).map(|text| Word { text: text.to_owned(), ..word.clone() })
            })
        };
        let flow = match value("if=") {
            Some(path) => self.read_file(&path, "dd"),
            None => input.unwrap_or_else(Flow::unknown),
        };
        let Some(path) = value("of=") else { return flow };
        if !path.text.starts_with("/dev/") {
            let write =
                WriteFile { path, content: flow.text, provenance: flow.provenance, mode: None, append: true };
            self.write_file(write, None, span.clone());
        }
        Flow::empty()
    }

    /// `sed -i`: what it puts in counts as added to the file.
    pub(super) fn edit(&mut self, run: &Run, span: &Range<usize>) -> Flow {
        let mut scripts = Vec::new();
        let mut files = Vec::new();
        let mut words = run.arguments().iter();
        let by_option =
            run.arguments().iter().any(|word| matches!(word.text.as_str(), "-e" | "-f" | "--expression"));
        while let Some(word) = words.next() {
            match word.text.as_str() {
                "-e" | "--expression" | "-pe" | "-ne" => scripts.extend(words.next()),
                "-f" | "--file" => {
                    words.next();
                }
                text if text.starts_with('-') => {}
                _ if scripts.is_empty() && !by_option => scripts.push(word),
                _ => files.push(word.clone()),
            }
        }
        let added: Vec<String> = scripts.iter().flat_map(|script| added_by_sed(&script.text)).collect();
        let added = Text::from(added.join("\n"));
        let provenance = scripts.iter().fold(Provenance::default(), |all, word| all.and(word.provenance));
        for path in files {
            if !self.has_room() {
                break;
            }
            let write =
                WriteFile { path, content: Some(added.clone()), provenance, mode: None, append: true };
            self.write_file(write, None, span.clone());
        }
        Flow::empty()
    }

    pub(super) fn remove(&mut self, run: &Run, program: &str, span: &Range<usize>) -> Flow {
        let how = match program {
            "shred" | "srm" | "wipe" => Removal::Shred,
            "truncate" => Removal::Empty,
            _ if run.flag('r', "--recursive") || run.flag('R', "") => Removal::Recursive,
            _ => Removal::Unlink,
        };
        if program == "truncate" {
            let size = run.option("-s", "--size").map(|word| word.text);
            if size.is_none_or(|size| !size.trim_matches(['0', '=']).is_empty()) {
                return Flow::empty();
            }
        }
        let valued: &[&str] = match program {
            "truncate" => &["-s", "-r", "--size"],
            "shred" => &["-n", "-s"],
            _ => &[],
        };
        for path in operands_after(run, valued) {
            if !self.has_room() {
                break;
            }
            let path = Word { text: normal(&path.text), ..path };
            self.add(Kind::Remove { path, how }, span.clone());
        }
        Flow::empty()
    }

    pub(super) fn chmod(&mut self, run: &Run, span: &Range<usize>) -> Flow {
        let recursive = run.flag('R', "--recursive");
        let mut mode = None;
        for word in run.arguments() {
            if !self.has_room() {
                break;
            }
            let removes =
                word.text.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|b| b"rwxstX".contains(&b)));
            if word.text.starts_with('-') && !(removes && mode.is_none()) {
                continue;
            }
            match mode {
                None => mode = Some(ModeChange::parse(&word.text)),
                Some(mode) => self.add(Kind::SetMode { path: word.clone(), mode, recursive }, span.clone()),
            }
        }
        Flow::empty()
    }

    /// `mkdir -m 4777 d`: made with a mode.
    pub(super) fn make_folder(&mut self, run: &Run, span: &Range<usize>) -> Flow {
        if let Some(mode) = run.option("-m", "--mode") {
            let mode = ModeChange::parse(&mode.text);
            for path in operands_after(run, &["-m", "--mode"]) {
                if !self.has_room() {
                    break;
                }
                // The rules know a folder by its end.
                let path = Word { text: format!("{}/", path.text.trim_end_matches('/')), ..path };
                self.add(Kind::SetMode { path, mode, recursive: false }, span.clone());
            }
        }
        Flow::unknown()
    }

    pub(super) fn chown(&mut self, run: &Run, span: &Range<usize>) -> Flow {
        let mut operands = run.operands().cloned();
        if let Some(owner) = operands.next() {
            for path in operands {
                if !self.has_room() {
                    break;
                }
                self.add(Kind::SetOwner { path, owner: owner.clone() }, span.clone());
            }
        }
        Flow::empty()
    }
}

/// The texts that a `sed` script puts in: replacements of `s`, lines of `a`, `i` and `c`.
fn added_by_sed(script: &str) -> Vec<String> {
    let mut added = Vec::new();
    for line in script.split('\n') {
        let mut rest = line;
        while let Some(at) = rest.find('s') {
            let starts = at == 0 || !rest.as_bytes()[at - 1].is_ascii_alphanumeric();
            let Some(mark) = rest[at + 1..].chars().next() else { break };
            if !starts
                || mark.is_alphanumeric()
                || mark == '\\'
                || mark.is_whitespace()
                || matches!(mark, '*' | '.' | ']')
            {
                rest = &rest[at + 1..];
                continue;
            }
            let body = &rest[at + 1 + mark.len_utf8()..];
            let mut parts = split_unescaped(body, mark);
            if parts.len() < 2 {
                break;
            }
            let end = parts[0].len() + parts[1].len() + 2 * mark.len_utf8();
            let pattern = parts.remove(0);
            let replacement = parts.remove(0);
            // `s/^#Key.*/Key yes/` names its key in both; `s/no/yes/` only in the pattern.
            let known = replacement.replace(['^', '$'], "").replace("\\1", group(&pattern)).replace('\\', "");
            added.push(known.replace('&', &pattern));
            rest = body.get(end..).unwrap_or_default();
        }
        for mark in ["a\\", "i\\", "c\\", "a ", "i ", "c "] {
            if let Some(at) = line.find(mark) {
                let before = &line[..at];
                let addressed = before.is_empty()
                    || before.ends_with(['/', '$', '}', ' '])
                    || before.bytes().all(|byte| byte.is_ascii_digit());
                if addressed && !line.trim_start().starts_with("s/") {
                    added.push(line[at + 2..].trim_start().to_owned());
                    break;
                }
            }
        }
    }
    added
}

/// The plain text of the first group of a pattern.
fn group(pattern: &str) -> &str {
    let Some(open) = pattern.find("\\(").map(|at| at + 2).or_else(|| pattern.find('(').map(|at| at + 1))
    else {
        return "";
    };
    let inner = &pattern[open..];
    let end = inner.find("\\)").or_else(|| inner.find(')')).unwrap_or(inner.len());
    inner[..end].trim_start_matches(['^', '#', '?', '*', '\\', 's', ' '])
}

fn split_unescaped(text: &str, mark: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == mark && !escaped {
            parts.push(String::new());
            if parts.len() > 3 {
                break;
            }
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sed_tells_what_it_puts_in() {
        assert_eq!(added_by_sed("s/^#*Port.*/Port 22/"), ["Port 22"]);
        assert_eq!(added_by_sed("s|^SELINUX=.*|SELINUX=disabled|g"), ["SELINUX=disabled"]);
        assert_eq!(added_by_sed("s/^#\\?\\(Key\\) no/\\1 yes/"), ["Key yes"]);
        assert_eq!(added_by_sed("$a root ALL"), ["root ALL"]);
        assert_eq!(added_by_sed("/x/d"), Vec::<String>::new());
    }
}
