//! `docs/bad-input.md` promises a test for each row. This keeps the promise honest: each test that a row names is there, and
//! each code has the exit status that the formats give it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::BTreeMap;
use std::fs;

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

/// The tests that a cell names: a file, then functions of it, until the next file.
fn tests(cell: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut file = None;
    for name in quoted(cell) {
        if name.ends_with(".rs") {
            file = Some(name);
        } else {
            found.push((file.unwrap_or_else(|| panic!("no file before `{name}`: {cell}")), name));
        }
    }
    assert!(!found.is_empty(), "a row without a test: {cell}");
    found
}

#[test]
fn every_row_has_a_code_that_there_is_and_a_test_that_there_is() {
    let codes = codes();
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
        for (file, test) in tests(named) {
            let source =
                fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let before = source.split(&format!("fn {test}(")).next().unwrap();
            assert!(before.len() < source.len(), "{what}: {file} has no {test}");
            let attributes: Vec<_> = before.lines().rev().take(4).collect();
            assert!(
                attributes.iter().any(|line| line.trim() == "#[test]"),
                "{what}: {file}, {test} is no test"
            );
            promised += 1;
        }
    }
    assert!(promised > 50, "{promised}");
}
