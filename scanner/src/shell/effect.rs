//! What well-known programs do to the machine: files written, modes set, users made, things fetched.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::decode;
use super::evaluate::Evaluator;
use super::flow::Flow;
use crate::action::{
    Fetch, HOLE, Kind, Provenance, Run, ServiceChange, Text, UserChange, Word, WriteFile, flag_in,
};

impl Evaluator {
    /// Tells the effects of a program and gives what it prints.
    pub(super) fn effect(&mut self, run: &Run, input: Option<Flow>, span: &Range<usize>) -> Flow {
        let program = run.program().to_owned();
        match program.as_str() {
            "tee" | "sponge" => self.tee(run, input, span),
            "cp" | "mv" | "install" | "ln" | "rsync" | "scp" => self.copy(run, &program, span),
            "dd" => self.dd(run, input, span),
            "sed" | "perl" if run.flag('i', "--in-place") => self.edit(run, span),
            "rm" | "unlink" | "shred" | "truncate" | "srm" | "wipe" => self.remove(run, &program, span),
            "chmod" => self.chmod(run, span),
            "mkdir" => self.make_folder(run, span),
            "chown" | "chgrp" => self.chown(run, span),
            "useradd" | "adduser" | "usermod" | "gpasswd" => self.user(run, &program, span),
            "chpasswd" => self.chpasswd(input, span),
            "systemctl" | "service" | "update-rc.d" | "chkconfig" | "rc-update" | "rc-service"
            | "killall" | "pkill" | "initctl" => self.service(run, &program, span),
            "curl" | "wget" | "fetch" | "aria2c" | "http" | "https" => self.fetch(run, &program, span),
            "crontab" => self.crontab(run, input, span),
            "apt" | "apt-get" | "aptitude" | "yum" | "dnf" | "zypper" | "apk" | "pip" | "pip3" | "pacman"
            | "rpm" | "dpkg" | "npm" | "microdnf" => {
                let options = run.arguments().to_vec();
                self.add(Kind::Package { options, program }, span.clone());
                Flow::unknown()
            }
            "insmod" | "modprobe" => Flow::empty(),
            _ => self.filter(run, &program, input),
        }
    }

    /// Programs that read files or their input and print.
    fn filter(&mut self, run: &Run, program: &str, input: Option<Flow>) -> Flow {
        const READERS: &[&str] = &[
            "cat",
            "tac",
            "head",
            "tail",
            "less",
            "more",
            "grep",
            "egrep",
            "fgrep",
            "zgrep",
            "sed",
            "awk",
            "gawk",
            "cut",
            "sort",
            "strings",
            "base64",
            "base32",
            "xxd",
            "od",
            "hexdump",
            "tr",
            "rev",
            "gzip",
            "gunzip",
            "zcat",
            "bzip2",
            "xz",
            "openssl",
            "gpg",
            "tar",
            "zip",
            "7z",
            "nl",
            "uniq",
            "wc",
            "paste",
            "diff",
            "jq",
            "unshadow",
            "john",
            "hashcat",
            "ssh-keygen2",
            "nc",
            "ncat",
            "dd",
            "getent",
            "split",
        ];
        if !READERS.contains(&program) {
            return match program {
                "getent" => Flow::unknown(),
                _ => Flow::unknown().with(argument_provenance(run)),
            };
        }
        let mut flow = Flow::empty();
        let mut files = 0;
        let skip = usize::from(matches!(
            program,
            "grep" | "egrep" | "fgrep" | "zgrep" | "sed" | "awk" | "gawk" | "tr" | "jq"
        ));
        let operands: Vec<Word> = run.operands().skip(skip).cloned().collect();
        for path in &operands {
            if path.text.contains('/') || path.text.starts_with('~') || program == "cat" {
                files += 1;
                let read = self.read_file(path, program);
                flow.append(read);
            }
        }
        if files == 0 {
            flow = input.unwrap_or_else(Flow::unknown);
        }
        flow = flow.with(argument_provenance(run));
        if program == "getent" && run.has("shadow") {
            let path = Word::literal_at("/etc/shadow", run.argv[0].span.clone());
            flow = flow.with(self.read_file(&path, "getent").provenance);
        }
        let decodes = Provenance { decoded: true, ..Provenance::default() };
        let turns = Provenance { scrambled: true, ..Provenance::default() };
        let text = flow.text.clone();
        // Whatever it does with the text, it goes through all of it.
        self.expanded += text.as_deref().map_or(0, str::len);
        match program {
            "cat" => flow,
            "base64" if run.flag('d', "--decode") || run.flag('D', "") => {
                let text = text.and_then(|text| decode::base64(&text)).map(Text::from);
                Flow { text, place: None, ..flow }.with(decodes)
            }
            "base32" if run.flag('d', "--decode") => Flow { text: None, place: None, ..flow }.with(decodes),
            "xxd" if run.flag('r', "--revert") || run.has("-r") => {
                let plain = run.flag('p', "--plain") || run.has("-ps");
                let text = text.filter(|_| plain).and_then(|text| decode::hex(&text)).map(Text::from);
                Flow { text, place: None, ..flow }.with(decodes)
            }
            "openssl"
                if run.flag('d', "") && (run.has("enc") || run.has("base64") || run.has("aes-256-cbc")) =>
            {
                let plain = run.has("base64") || run.has("-base64");
                let text = text.filter(|_| plain).and_then(|text| decode::base64(&text)).map(Text::from);
                Flow { text, place: None, ..flow }.with(decodes)
            }
            "gzip" | "bzip2" | "xz" if run.flag('d', "--decompress") => {
                Flow { text: None, place: None, ..flow }.with(decodes)
            }
            "gunzip" | "zcat" => Flow { text: None, place: None, ..flow }.with(decodes),
            "rev" => {
                let turned = |text: Text| -> String {
                    text.lines().flat_map(|line| line.chars().rev().chain(['\n'])).collect()
                };
                let text = text.map(turned).map(Text::from);
                Flow { text, place: None, ..flow }.with(turns)
            }
            "tr" => {
                let sets: Vec<Word> = run.operands().cloned().collect();
                let deletes = run.flag('d', "--delete");
                let text = match (&text, sets.as_slice()) {
                    (Some(text), [set]) if deletes => {
                        let set: HashSet<char> = set.text.chars().collect();
                        Some(text.chars().filter(|c| !set.contains(c)).collect::<String>())
                    }
                    (Some(text), [from, to]) => translate(text, &from.text, &to.text),
                    _ => None,
                };
                // Only letters for letters hide anything.
                let changes_case = ["a-z", "A-Z"].iter().all(|case| sets.iter().any(|set| set.is(case)));
                let hides = !deletes
                    && sets.iter().all(|set| set.text.chars().filter(char::is_ascii_alphabetic).count() > 3)
                    && !sets.iter().any(|set| set.text.contains("[:"))
                    && !changes_case;
                let flow = Flow { text: text.map(Text::from), place: None, ..flow };
                if hides { flow.with(turns) } else { flow }
            }
            "head" | "tail" | "sort" | "uniq" | "tac" => Flow { place: None, ..flow },
            _ => Flow { text: None, place: None, ..flow },
        }
    }

    fn user(&mut self, run: &Run, program: &str, span: &Range<usize>) -> Flow {
        const VALUED: &[&str] = &[
            "-b",
            "-c",
            "-d",
            "-e",
            "-f",
            "-g",
            "-G",
            "-k",
            "-K",
            "-p",
            "-s",
            "-u",
            "-Z",
            "-R",
            "-a",
            "-A",
            "-M",
            "--uid",
            "--gid",
            "--shell",
            "--home",
            "--home-dir",
            "--comment",
            "--gecos",
            "--ingroup",
            "--groups",
            "--password",
            "-aG",
            "-l",
        ];
        let valued: &[&str] = if program == "gpasswd" { &["-a", "-d", "-A"] } else { VALUED };
        let flags: &[&str] = if program == "useradd" { &["-M", "-l"] } else { &["-a", "-M"] };
        let valued: Vec<&str> =
            valued.iter().copied().filter(|option| program == "gpasswd" || !flags.contains(option)).collect();
        let operands = operands_after(run, &valued);
        let uid = run.option("-u", "--uid").or_else(|| grouped_uid(run));
        let mut change = UserChange { uid, ..UserChange::default() };
        let groups = ["-G", "-aG", "-Ga", "-g"].iter().filter_map(|short| {
            let long = if *short == "-g" { "--gid" } else { "--groups" };
            run.option(short, long)
        });
        change.groups =
            groups.flat_map(|word| word.text.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
        change.password = run.option("-p", "--password");
        match program {
            "gpasswd" => {
                change.name = run.option("-a", "--add").unwrap_or_default();
                change.groups = operands.iter().map(|word| word.text.clone()).collect();
                if change.name.text.is_empty() {
                    return Flow::empty();
                }
            }
            "adduser" if operands.len() == 2 => {
                change.name = operands[0].clone();
                change.groups.push(operands[1].text.clone());
            }
            _ => change.name = operands.last().cloned().unwrap_or_default(),
        }
        self.add(Kind::User(change), span.clone());
        Flow::empty()
    }

    fn chpasswd(&mut self, input: Option<Flow>, span: &Range<usize>) -> Flow {
        let text = input.and_then(|flow| flow.text).unwrap_or_else(|| Text::from(HOLE));
        for line in text.lines() {
            let (name, password) = line.split_once(':').unwrap_or(("\0", line));
            let change = UserChange {
                name: Word::literal_at(name, span.clone()),
                password: Some(Word::literal_at(password, span.clone())),
                ..UserChange::default()
            };
            self.add(Kind::User(change), span.clone());
        }
        Flow::empty()
    }

    fn service(&mut self, run: &Run, program: &str, span: &Range<usize>) -> Flow {
        let operands: Vec<Word> = run.operands().cloned().collect();
        let (names, verb): (Vec<Word>, &str) = match (program, operands.as_slice()) {
            ("systemctl" | "initctl", [verb, names @ ..]) => (names.to_vec(), verb.text.as_str()),
            ("rc-update", [verb, name, ..]) => (vec![name.clone()], verb.text.as_str()),
            ("killall" | "pkill", names) => (names.to_vec(), "stop"),
            (_, [name, verb, ..]) => (vec![name.clone()], verb.text.as_str()),
            _ => return Flow::empty(),
        };
        let change = match verb {
            "stop" | "kill" | "isolate" => ServiceChange::Stop,
            "disable" | "off" | "remove" | "del" | "delete" => ServiceChange::Disable,
            "mask" => ServiceChange::Mask,
            _ => ServiceChange::Other,
        };
        for name in names {
            self.add(Kind::Service { name, change }, span.clone());
        }
        Flow::empty()
    }

    fn fetch(&mut self, run: &Run, program: &str, span: &Range<usize>) -> Flow {
        let mut urls: Vec<Word> = run.arguments().iter().filter(|word| is_url(&word.text)).cloned().collect();
        if urls.is_empty() {
            urls.extend(run.operands().last().cloned());
        }
        let (output, named, unchecked) = if program == "wget" {
            let output = run.option("-O", "--output-document").or_else(|| {
                let grouped = run.arguments().iter().position(|word| flag_in(&word.text, 'O', ""))?;
                let word = &run.arguments()[grouped];
                if word.text.ends_with('O') { run.arguments().get(grouped + 1).cloned() } else { None }
            });
            let to_output =
                run.arguments().iter().any(|word| word.text.starts_with('-') && word.text.ends_with("O-"));
            let output = if to_output { Some(Word::literal_at("-", span.clone())) } else { output };
            (output, true, run.has("--no-check-certificate"))
        } else {
            let grouped = run.arguments().iter().position(|word| flag_in(&word.text, 'o', ""));
            let output = run.option("-o", "--output").or_else(|| run.arguments().get(grouped? + 1).cloned());
            let named = run.flag('O', "--remote-name") || program == "aria2c";
            (output, named, run.flag('k', "--insecure"))
        };
        let stdout = output.as_ref().is_some_and(|word| word.is("-") || word.is("/dev/stdout"));
        let discarded = output.as_ref().is_some_and(|word| word.is("/dev/null"));
        let remote = Provenance { remote: true, ..Provenance::default() };
        for url in &urls {
            if !self.has_room() {
                break;
            }
            let file = match &output {
                Some(word) if !stdout && !discarded => Some(word.clone()),
                None if named => {
                    let name = url.text.split(['?', '#']).next().unwrap_or_default().rsplit('/').next();
                    Some(Word { text: name.unwrap_or_default().to_owned(), ..url.clone() })
                }
                _ => None,
            };
            self.add(Kind::Fetch(Fetch { url: url.clone(), output: file.clone(), unchecked }), span.clone());
            if let Some(path) = file {
                let write = WriteFile { path, content: None, provenance: remote, mode: None, append: false };
                self.write_file(write, None, span.clone());
            }
        }
        if stdout || (output.is_none() && !named) {
            return Flow::unknown().with(remote);
        }
        Flow::empty()
    }

    fn crontab(&mut self, run: &Run, input: Option<Flow>, span: &Range<usize>) -> Flow {
        if run.flag('l', "") {
            return Flow::text("");
        }
        let operands = operands_after(run, &["-u"]);
        if run.flag('r', "") || run.flag('e', "") || (operands.is_empty() && input.is_none()) {
            return Flow::empty();
        }
        let flow = match operands.first() {
            Some(path) if !path.is("-") => {
                let text = self.copy_file(&path.text);
                Flow { text, ..Flow::default() }
            }
            _ => input.unwrap_or_else(Flow::unknown),
        };
        let user = run.option("-u", "").map_or_else(|| "root".to_owned(), |word| word.text);
        let path = Word::literal_at(format!("/var/spool/cron/crontabs/{user}"), run.argv[0].span.clone());
        let write =
            WriteFile { path, content: flow.text, provenance: flow.provenance, mode: None, append: false };
        self.write_file(write, flow.place, span.clone());
        Flow::empty()
    }
}

/// The number in `-ou0` and `-ou 0`: an option's value ends a group of flags.
fn grouped_uid(run: &Run) -> Option<Word> {
    let flags = |text: &str| !text.is_empty() && text.bytes().all(|byte| b"lmMNorU".contains(&byte));
    let mut words = run.arguments().iter();
    while let Some(word) = words.next() {
        let Some((before, value)) = word.text.strip_prefix('-').and_then(|text| text.split_once('u')) else {
            continue;
        };
        if flags(before) && !value.is_empty() {
            return Some(Word { text: value.to_owned(), ..word.clone() });
        } else if flags(before) {
            return words.next().cloned();
        }
    }
    None
}

fn argument_provenance(run: &Run) -> Provenance {
    run.arguments().iter().fold(Provenance::default(), |all, word| all.and(word.provenance))
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "ftp://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Operands, without options and the values that some of them take.
pub(super) fn operands_after(run: &Run, valued: &[&str]) -> Vec<Word> {
    let mut operands = Vec::new();
    let mut words = run.arguments().iter();
    while let Some(word) = words.next() {
        if valued.contains(&word.text.as_str()) {
            words.next();
        } else if !word.text.starts_with('-') || word.is("-") {
            operands.push(word.clone());
        }
    }
    operands
}

/// `tr` for sets of the same length and for letter ranges (`a-z`, `A-Za-z`).
fn translate(text: &str, from: &str, to: &str) -> Option<String> {
    let from = set(from)?;
    let to = set(to)?;
    if from.is_empty() || to.is_empty() {
        return None;
    }
    let last = *to.last()?;
    let mut other: HashMap<char, char> = HashMap::new();
    for (at, letter) in from.into_iter().enumerate() {
        other.entry(letter).or_insert(to.get(at).copied().unwrap_or(last));
    }
    Some(text.chars().map(|c| other.get(&c).copied().unwrap_or(c)).collect())
}

fn set(text: &str) -> Option<Vec<char>> {
    if text.contains("[:") || text.contains(HOLE) {
        return None;
    }
    let letters: Vec<char> = decode::escapes(text).chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < letters.len() && out.len() < 512 {
        if at + 2 < letters.len() && letters[at + 1] == '-' && letters[at] <= letters[at + 2] {
            out.extend((letters[at]..=letters[at + 2]).take(256));
            at += 3;
        } else {
            out.push(letters[at]);
            at += 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_translated() {
        assert_eq!(translate("uryyb", "a-z", "n-za-m").as_deref(), Some("hello"));
        assert_eq!(translate("x", "[:lower:]", "[:upper:]"), None);
    }
}
