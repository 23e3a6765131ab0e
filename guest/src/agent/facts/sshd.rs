//! The ssh server's configuration, and the keys that it would accept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use guest::facts::SmallFile;

use super::small_files::{Reader, Text, display};
use crate::agent::accounts::{Account, Accounts};

const CONFIGURATION: &str = "/etc/ssh/sshd_config";
/// Relative names of included files start here (sshd_config(5)).
const FOLDER: &str = "/etc/ssh";
/// How deep files may include each other (`servconf.c`).
const MAX_DEPTH: usize = 16;
/// Files read in all.
const MAX_FILES: usize = 256;
/// Where keys lie unless the configuration says otherwise.
const KEYS: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];

/// `sshd_config` and what it includes, in the order in which the server reads it.
pub(super) fn configuration(reader: &mut Reader<'_>) -> Vec<SmallFile> {
    let mut files = Vec::new();
    include(reader, Path::new(CONFIGURATION), MAX_DEPTH, &mut files);
    files
}

fn include(reader: &mut Reader<'_>, path: &Path, depth: usize, files: &mut Vec<SmallFile>) {
    if depth == 0 || files.len() >= MAX_FILES {
        return reader.note(format!("sshd: {} is included too deep", display(path)));
    }
    let Some(file) = reader.one("sshd", path, Text::Kept) else { return };
    let text = file.text.clone().unwrap_or_default();
    if has_odd_keyword(&text) {
        reader.note(format!("sshd: {} has keywords that are not understood", display(path)));
    }
    files.push(file);
    for pattern in values(&text, "include") {
        for found in matches(reader, &Path::new(FOLDER).join(&pattern)) {
            include(reader, &found, depth - 1, files);
        }
    }
}

/// Every `authorized_keys` file of every account, sorted.
pub(super) fn authorized_keys(
    reader: &mut Reader<'_>,
    configuration: &[SmallFile],
    accounts: &Accounts,
) -> Vec<SmallFile> {
    let mut patterns: BTreeSet<String> = KEYS.into_iter().map(str::to_owned).collect();
    for file in configuration {
        patterns.extend(values(file.text.as_deref().unwrap_or_default(), "authorizedkeysfile"));
    }
    patterns.remove("none");
    let mut paths = BTreeSet::new();
    for user in &accounts.users {
        for pattern in &patterns {
            match expand(pattern, user) {
                Some(path) => drop(paths.insert(path)),
                None => reader.note(format!("authorizedKeys: {pattern} is not understood")),
            }
        }
    }
    let mut files = Vec::new();
    for path in paths {
        if let Some(file) = reader.one("authorizedKeys", &path, Text::Kept) {
            reader.push("authorizedKeys", &mut files, file);
        }
    }
    files
}

/// All values of a keyword, wherever it stands: in a `Match` block it may still count.
fn values(text: &str, keyword: &str) -> Vec<String> {
    let mut values = Vec::new();
    for line in text.lines() {
        let words = words(line);
        if let Some((first, rest)) = words.split_first()
            && first.eq_ignore_ascii_case(keyword)
        {
            values.extend(rest.iter().cloned());
        }
    }
    values
}

/// Whether sshd could find another keyword in some line than [`words`]: it ends a quoted one at its quote, whatever follows.
fn has_odd_keyword(text: &str) -> bool {
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')).any(|line| {
        let end = line.find(|letter: char| letter.is_whitespace() || letter == '=').unwrap_or(line.len());
        end == 0 || !line[..end].bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// The words of a line: quotes keep spaces together, the first `=` after the keyword is a space, `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let line = line.trim_start();
    let end = line
        .find(|letter: char| letter.is_whitespace() || letter == '=' || letter == '"')
        .unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let mut words = vec![keyword.to_owned()];
    let mut word = String::new();
    let mut quote = None;
    for letter in rest.chars() {
        match (letter, quote) {
            ('"' | '\'', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            ('#', None) if word.is_empty() => break,
            (letter, None) if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (letter, _) => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The path that `AuthorizedKeysFile` means for a user; `None` if a token is not known.
fn expand(pattern: &str, user: &Account) -> Option<PathBuf> {
    let mut path = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' => match letters.next()? {
                '%' => path.push('%'),
                'h' => path.push_str(&user.home),
                'u' => path.push_str(&user.name),
                'U' => path.push_str(&user.uid.to_string()),
                _ => return None,
            },
            other => path.push(other),
        }
    }
    let home = if user.home.starts_with('/') { user.home.as_str() } else { "/" };
    Some(Path::new(home).join(path))
}

/// Files that a pattern with `*` and `?` names, in order (glob(7)).
fn matches(reader: &mut Reader<'_>, pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = part.as_os_str().to_string_lossy();
        if part.contains('[') {
            reader.note(format!("sshd: the pattern {} is not understood", display(pattern)));
            return Vec::new();
        }
        let mut next = Vec::new();
        for folder in found {
            if !part.contains(['*', '?']) {
                next.push(folder.join(part.as_ref()));
                continue;
            }
            for (path, _) in reader.list("sshd", &folder) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // A leading dot is only matched by a dot.
                if name.starts_with('.') == part.starts_with('.') && fits(part.as_bytes(), name.as_bytes()) {
                    next.push(path);
                }
            }
        }
        found = next;
        found.truncate(MAX_FILES);
    }
    found
}

/// Whether `name` fits `pattern`; looks at each pair of positions at most once.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    for at in 0..pattern.len() {
        reached[at + 1] = reached[at] && pattern[at] == b'*';
    }
    for letter in name {
        let mut next = vec![false; pattern.len() + 1];
        for (at, wanted) in pattern.iter().enumerate() {
            next[at + 1] = match wanted {
                b'*' => next[at] || reached[at + 1] || reached[at],
                b'?' => reached[at],
                wanted => reached[at] && wanted == letter,
            };
        }
        reached = next;
    }
    reached[pattern.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_server_reads_them() {
        let text = "# Include no\nInclude /etc/ssh/sshd_config.d/*.conf\n  include=\"a b\" c # d\nIncludes x\n\
            AuthorizedKeysFile\t.ssh/keys /etc/keys/%u\nPort 22\n";
        assert_eq!(values(text, "include"), ["/etc/ssh/sshd_config.d/*.conf", "a b", "c"]);
        assert_eq!(values(text, "authorizedkeysfile"), [".ssh/keys", "/etc/keys/%u"]);
        assert!(values("", "include").is_empty());
    }

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name) in
            [("*.conf", "a.conf"), ("*", "x"), ("a?c", "abc"), ("*a*b", "xaxxb"), ("x", "x"), ("*", "")]
        {
            assert!(fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [("*.conf", "a.con"), ("a?c", "ac"), ("x", ""), ("?", ""), ("*a*b", "ba")] {
            assert!(!fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }

    #[test]
    fn tokens_are_replaced_and_unknown_ones_are_no_path() {
        let accounts = Accounts::parse("u:x:7:7::/home/u:/bin/sh\n", "", "", "");
        let user = accounts.user("u").unwrap();
        let path = |pattern| expand(pattern, user).map(|path| display(&path));
        assert_eq!(path(".ssh/authorized_keys").as_deref(), Some("/home/u/.ssh/authorized_keys"));
        assert_eq!(path("/etc/%u/%U/%%/%h").as_deref(), Some("/etc/u/7/%//home/u"));
        assert_eq!(path("%x"), None);
        assert_eq!(path("%"), None);
    }

    #[test]
    fn a_keyword_in_quotes_is_odd() {
        for odd in ["\"Include\"/x", "  \"Match\" all", "Perm\"it\" x", "=x", "a'b' c"] {
            assert!(has_odd_keyword(&format!("Port 22\n{odd}\n")), "{odd}");
        }
        assert!(!has_odd_keyword("# \"x\"\n\n  Port=22\nMatch User \"a b\"\n\tPermitRootLogin no\n"));
    }
}
