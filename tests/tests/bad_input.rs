//! `docs/bad-input.md` promises a test for each row. This keeps the promise honest: each test that a row names is there, each
//! that `make test` leaves out is marked and run by `make soak`, and each code has the exit status that the formats give it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use end_to_end::site::project;

/// A row of a table: its cells, without the blanks around them.
fn rows(document: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(project().join("docs").join(document)).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The texts between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Exit status by code, from the table of the formats.
fn codes() -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    for row in rows("formats.md") {
        if let [status, names, _] = &row[..]
            && ["1", "3"].contains(&status.as_str())
        {
            codes.extend(quoted(names).into_iter().map(|name| (name.to_owned(), status.clone())));
        }
    }
    assert!(codes.len() > 30, "{codes:?}");
    codes
}

/// Stands behind a test that `make test` leaves out.
const SOAK: &str = " (make soak)";

/// A test as a row names it.
struct Named<'a> {
    file: &'a str,
    test: &'a str,
    /// Whether the row says that only `make soak` runs it.
    in_soak: bool,
}

/// The tests that a cell names: a file, then functions of it, until the next file.
fn tests(cell: &str) -> Vec<Named<'_>> {
    let mut found = Vec::new();
    let mut file = None;
    let pieces: Vec<_> = cell.split('`').skip(1).collect();
    for piece in pieces.chunks(2) {
        let [name, after] = piece else { panic!("a backtick without its other: {cell}") };
        if name.ends_with(".rs") {
            file = Some(*name);
        } else {
            let file = file.unwrap_or_else(|| panic!("no file before `{name}`: {cell}"));
            found.push(Named { file, test: name, in_soak: after.starts_with(SOAK) });
        }
    }
    assert!(!found.is_empty(), "a row without a test: {cell}");
    found
}

/// The attributes of a function, from the source before it.
fn attributes(before: &str) -> Vec<&str> {
    let lines = before.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines.take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect()
}

#[test]
fn every_row_has_a_code_that_there_is_and_a_test_that_there_is() {
    let codes = codes();
    let makefile = fs::read_to_string(project().join("Makefile")).unwrap();
    let soak = makefile.split("\nsoak:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let mut promised = 0;
    for row in rows("bad-input.md") {
        let [what, ends, named] = &row[..] else { panic!("three cells are expected: {row:?}") };
        if what == "input" || what.starts_with("--") {
            continue;
        }
        for code in
            quoted(ends).into_iter().filter(|text| text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        {
            let status = codes.get(code).unwrap_or_else(|| panic!("{what}: no code {code}"));
            assert!(
                ends.contains(&format!("`{code}` ({status})")),
                "{what}: {code} ends with {status}, not {ends}"
            );
        }
        for Named { file, test, in_soak } in tests(named) {
            let source =
                fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let before = source.split(&format!("fn {test}(")).next().unwrap();
            assert!(before.len() < source.len(), "{what}: {file} has no {test}");
            let attributes = attributes(before);
            assert!(attributes.contains(&"#[test]"), "{what}: {file}, {test} is no test");
            let ignored = attributes.iter().any(|line| line.starts_with("#[ignore"));
            assert_eq!(in_soak, ignored, "{what}: {test} is ignored, or the row says{SOAK}, and not both");
            if ignored {
                let target = Path::new(file).file_stem().unwrap().to_string_lossy();
                assert!(soak.contains(&format!("--test {target} ")), "{what}: make soak does not run {file}");
            }
            promised += 1;
        }
    }
    assert!(promised > 50, "{promised}");
}
