//! Measures the scanner on a folder of samples: `cargo run -p scanner --release --example measure -- DIR [--list KIND]`.
//!
//! DIR holds `index.tsv` (columns: file, scope `active`, `passive` or `benign`, technique, …) and the files it names.
//! `--list missed|quiet|denied|unparsed` prints the files behind a figure.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use scanner::{FileReport, Severity};

#[derive(Default)]
struct Tally {
    files: usize,
    found: usize,
    denied: usize,
    unparsed: usize,
}

impl Tally {
    fn add(&mut self, report: &FileReport) {
        self.files += 1;
        self.found += usize::from(report.severity() >= Some(Severity::Warn));
        self.denied += usize::from(report.severity() == Some(Severity::Deny));
        self.unparsed += usize::from(is_unparsed(report));
    }

    fn row(&self, name: &str) {
        let share = |count: usize| 100.0 * count as f64 / self.files.max(1) as f64;
        println!(
            "{name:<22} {:>5} files  found {:>4} {:>5.1} %  denied {:>4} {:>5.1} %  lexer only {:>3}",
            self.files,
            self.found,
            share(self.found),
            self.denied,
            share(self.denied),
            self.unparsed
        );
    }
}

fn is_unparsed(report: &FileReport) -> bool {
    report.findings.iter().any(|finding| finding.rule == "LIM-002")
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("give the folder of the samples")?);
    let list = arguments.nth(1);
    let index = std::fs::read_to_string(folder.join("index.tsv"))?;
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut rules: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut spent = Duration::ZERO;
    let mut bytes_read = 0;
    for row in index.lines().skip(1) {
        let mut columns = row.split('\t');
        let (Some(file), Some(scope)) = (columns.next(), columns.next()) else { continue };
        let Ok(bytes) = std::fs::read(folder.join(file)) else { continue };
        let start = Instant::now();
        let report = scanner::scan_file(file, &bytes);
        spent += start.elapsed();
        bytes_read += bytes.len();
        let kind = match file.split('/').collect::<Vec<_>>().as_slice() {
            ["benign", kind, ..] => format!("benign {kind}"),
            [folder, ..] => format!("{folder} {scope}"),
            [] => continue,
        };
        let severity = report.severity();
        let listed = match list.as_deref() {
            Some("missed") => scope == "active" && severity < Some(Severity::Warn),
            Some("quiet") => scope == "active" && severity == Some(Severity::Warn),
            Some("denied") => scope == "benign" && severity == Some(Severity::Deny),
            Some("unparsed") => is_unparsed(&report),
            _ => false,
        };
        if listed {
            println!("{file}");
            for finding in report
                .findings
                .iter()
                .filter(|finding| finding.severity != Severity::Smell || finding.rule == "LIM-002")
            {
                println!(
                    "    {}:{} {} {} {}",
                    finding.line,
                    finding.column,
                    finding.rule,
                    finding.severity.as_str(),
                    finding.message
                );
            }
        }
        let mut seen: Vec<&str> =
            report.findings.iter().filter(|f| f.severity == Severity::Deny).map(|f| f.rule).collect();
        seen.sort_unstable();
        seen.dedup();
        for rule in seen {
            *rules.entry((kind.clone(), rule)).or_default() += 1;
        }
        tallies.entry(kind).or_default().add(&report);
    }
    for (name, tally) in &tallies {
        tally.row(name);
    }
    println!("files denied, by rule:");
    for ((kind, rule), count) in &rules {
        println!("  {kind:<22} {rule} {count}");
    }
    let files: usize = tallies.values().map(|tally| tally.files).sum();
    println!(
        "{files} files, {bytes_read} bytes in {:.3} s of one core: {:.0} files a second",
        spent.as_secs_f64(),
        files as f64 / spent.as_secs_f64()
    );
    Ok(())
}
