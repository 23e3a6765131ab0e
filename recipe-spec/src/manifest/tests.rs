//! Manifests as people write them, right and wrong.

use std::time::{Duration, Instant};

use proptest::collection;
use proptest::prelude::*;

use super::*;
use crate::diagnostic::render;

/// Every part of the format that this version knows.
const WHOLE: &str = r#"# A display server.
[recipe]
name = "atlas/web"
version = "1.4.0"
summary = "Static web server for run displays"
base = ["debian-12", "debian-13"]

[network]
listen = [{ port = 80, protocol = "tcp" }, { port = 53, protocol = "udp" }]
fetch = ["debian"]
connect = [{ host = "db.example.org", port = 5432, protocol = "tcp" }]

[capabilities]
setuid = ["/usr/local/bin/x"]
users = ["atlas"]

[[step]]
package = ["nginx-light", "curl"]
[[step]]
file = { path = "/var/www/html/index.html", source = "files/index.html", mode = "0644" }
[[step]]
[step.file]
path = "/etc/motd"
content = """
Hello [[[
"""
owner = "root"
group = "adm"
[[step]]
directory = { path = "/srv/data", mode = "0750", owner = "atlas" }
[[step]]
link = { path = "/srv/www", target = "../var/www" }
[[step]]
group = { name = "atlas", gid = 1500 }
[[step]]
user = { name = "atlas", uid = 0x5dc, group = "atlas", groups = ["adm"], home = "/srv/data", shell = "/bin/bash", authorized_keys = ["ssh-ed25519 AAAA me"] }
[[step]]
service = { name = "nginx", enabled = true, running = true }
[[step]]
service.name = "cron"
service.enabled = false
[[step]]
download = { url = "https://example.org/x.tar.gz", sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", path = "/opt/x.tar.gz" }
[[step]]
run = { script = "scripts/finish.sh", creates = "/opt/x/ready", timeout = "2m" }

[[secret]]
name = "db-password"
path = "/run/secrets/db-password"

[[test]]
name = "serves the page"
run = "curl -fsS http://127.0.0.1/ | grep -q 'run display'"
timeout = "10s"
[[test]]
name = "é"
run = '''
true
'''

[instance]
renew = ["munge-key", "munge.service"]
"#;

const HEAD: &str = "[recipe]\nname = \"a/b\"\nversion = \"1.0.0\"\nbase = [\"debian-12\"]\n";

/// The messages about a manifest that begins well and goes on with `rest`.
fn mistakes_in(rest: &str) -> Vec<String> {
    match Manifest::parse(&format!("{HEAD}{rest}")) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.into_iter().map(|mistake| mistake.message).collect(),
    }
}

#[test]
fn the_whole_format_is_read() {
    let manifest = Manifest::parse(WHOLE).unwrap();
    assert_eq!(manifest.subject_name(), "atlas/web@1.4.0");
    assert_eq!(manifest.recipe.summary.as_deref(), Some("Static web server for run displays"));
    assert_eq!(manifest.recipe.base, ["debian-12", "debian-13"]);
    assert_eq!(manifest.network.listen[1], Listen { port: 53, protocol: Protocol::Udp });
    assert_eq!(manifest.network.fetch, ["debian"]);
    assert_eq!(manifest.network.connect[0].host, "db.example.org");
    assert_eq!(manifest.capabilities.setuid, ["/usr/local/bin/x"]);
    assert_eq!(manifest.instance.renew, ["munge-key", "munge.service"]);
    let steps: Vec<String> =
        manifest.steps.iter().map(|step| format!("{} {}", step.line, step.kind)).collect();
    assert_eq!(
        steps,
        [
            "18 package nginx-light curl",
            "20 file /var/www/html/index.html",
            "22 file /etc/motd",
            "30 directory /srv/data",
            "32 link /srv/www",
            "34 group atlas",
            "36 user atlas",
            "38 service nginx",
            "40 service cron",
            "43 download /opt/x.tar.gz",
            "45 run scripts/finish.sh",
        ]
    );
    let StepKind::User(user) = &manifest.steps[6].kind else { panic!() };
    assert_eq!((user.uid, user.system), (Some(1500), false));
    let StepKind::Service(service) = &manifest.steps[8].kind else { panic!() };
    assert_eq!((service.enabled, service.running), (Some(false), None));
    let StepKind::Run(run) = &manifest.steps[10].kind else { panic!() };
    assert_eq!(run.timeout.duration(), Duration::from_secs(120));
    let StepKind::File(motd) = &manifest.steps[2].kind else { panic!() };
    assert_eq!(motd.content.as_deref(), Some("Hello [[[\n"));
    assert_eq!(
        manifest.referenced_files().map(RecipePath::as_str).collect::<Vec<_>>(),
        ["files/index.html", "scripts/finish.sh"]
    );
    assert_eq!(
        (manifest.secrets[0].line, manifest.secrets[0].path.as_str()),
        (47, "/run/secrets/db-password")
    );
    assert_eq!(manifest.tests[0].timeout.seconds(), 10);
    assert_eq!(
        (manifest.tests[1].timeout, manifest.tests[1].line, manifest.tests[1].run.as_str()),
        (Seconds::TEST, 57, "true\n")
    );
}

#[test]
fn spans_are_those_of_the_source() {
    let manifest = Manifest::parse(WHOLE).unwrap();
    let step = &manifest.steps[1];
    assert!(WHOLE[step.span.clone()].starts_with("file = {") && WHOLE[step.span.clone()].ends_with('}'));
    assert_eq!(&WHOLE[step.field_span("mode").unwrap()], "\"0644\"");
    assert_eq!(step.field_span("content"), None);
    assert_eq!(&WHOLE[manifest.steps[2].field_span("content").unwrap()], "\"\"\"\nHello [[[\n\"\"\"");
    assert!(WHOLE[manifest.steps[0].span.clone()].starts_with("package = ["));
    assert!(WHOLE[manifest.tests[0].run_span.clone()].starts_with("\"curl -fsS"));
}

#[test]
fn what_is_declared_for_the_sites_recipe() {
    let declared = Manifest::parse(WHOLE).unwrap().declared();
    assert_eq!(
        serde_json::to_string(&declared).unwrap(),
        r#"{"name":"atlas/web","version":"1.4.0","network":{"listen":[{"port":80,"protocol":"tcp"},{"port":53,"protocol":"udp"}],"fetch":["debian"],"connect":[{"host":"db.example.org","port":5432,"protocol":"tcp"}]},"capabilities":{"setuid":["/usr/local/bin/x"],"users":["atlas"]},"packages":["nginx-light","curl"],"users":["atlas"],"groups":["atlas"],"services":["nginx"]}"#
    );
    let json = serde_json::to_string(&declared).unwrap();
    assert_eq!(serde_json::from_str::<Declared>(&json).unwrap(), declared);
}

#[test]
fn many_mistakes_come_in_one_report() {
    let source = r#"[recipe]
nmae = "atlas/web"
version = "1.4"
base = "debian-12"

[[step]]
file = { path = "/etc/motd", content = "x", mode = "644", ownr = "root" }
[[step]]
pakage = ["nginx"]
[[step]]
puppet = { manifest = "site.pp" }
[[step]]
run = { script = "../x.sh" }
[[tests]]
"#;
    let mistakes = Manifest::parse(source).unwrap_err();
    assert_eq!(
        render(&mistakes, source, "recipe.toml", false),
        r#"error: `[recipe]` has no `name`
 --> recipe.toml:1:1
  |
1 | [recipe]
  | ^^^^^^^^
error: unknown key `nmae`
 --> recipe.toml:2:1
  |
2 | nmae = "atlas/web"
  | ^^^^
  |
  = help: did you mean `name`?
error: `1.4` is not a version
 --> recipe.toml:3:11
  |
3 | version = "1.4"
  |           ^^^^^
  |
  = help: unexpected end of input while parsing minor version number; write it as "1.4.0" (semantic versioning 2.0.0)
error: expected a list, found a string
 --> recipe.toml:4:8
  |
4 | base = "debian-12"
  |        ^^^^^^^^^^^
error: `644` is not a mode
 --> recipe.toml:7:52
  |
7 | file = { path = "/etc/motd", content = "x", mode = "644", ownr = "root" }
  |                                                    ^^^^^
  |
  = help: use four octal digits, like "0644"
error: unknown key `ownr`
 --> recipe.toml:7:59
  |
7 | file = { path = "/etc/motd", content = "x", mode = "644", ownr = "root" }
  |                                                           ^^^^
  |
  = help: did you mean `owner`?
error: unknown step kind `pakage`
 --> recipe.toml:9:1
  |
9 | pakage = ["nginx"]
  | ^^^^^^
  |
  = help: did you mean `package`?
error: step kind `puppet` is not supported by this version
  --> recipe.toml:11:1
   |
11 | puppet = { manifest = "site.pp" }
   | ^^^^^^
   |
   = help: this version knows `package`, `file`, `directory`, `link`, `user`, `group`, `service`, `download` and `run`
error: `run` has neither `creates` nor `unless`
  --> recipe.toml:13:7
   |
13 | run = { script = "../x.sh" }
   |       ^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: name the file it creates, or a command that tells that it has run: a step is idempotent
error: `../x.sh` is not a path within the recipe
  --> recipe.toml:13:18
   |
13 | run = { script = "../x.sh" }
   |                  ^^^^^^^^^
   |
   = help: no `.` and no `..`
error: unknown key `tests`
  --> recipe.toml:14:3
   |
14 | [[tests]]
   |   ^^^^^
   |
   = help: did you mean `test`?
"#
    );
}

#[test]
fn each_mistake_has_its_message() {
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let download =
        |url: &str| format!("[[step]]\ndownload = {{ url = \"{url}\", sha256 = \"{sha}\", path = \"/x\" }}");
    let cases: Vec<(String, &str)> = [
        ("[[step]]", "a step without a kind"),
        ("step = [1]", "unknown key `step`"),
        (
            "[[step]]\npackage = [\"aa\"]\nfile = { path = \"/x\", content = \"\" }",
            "`file` is a second key in this step",
        ),
        ("[[step]]\npackage = []", "the list is empty"),
        ("[[step]]\npackage = [\"-y\"]", "`-y` is not a package"),
        ("[[step]]\npackage = [\"aa\", \"aa\"]", "listed twice"),
        ("[[step]]\npackage = \"aa\"", "expected a list, found a string"),
        ("[[step]]\nsysctl = { a = 1 }", "step kind `sysctl` is not supported by this version"),
        ("[[step]]\nfile = { path = \"/x\" }", "`file` has neither `source` nor `content`"),
        (
            "[[step]]\nfile = { path = \"/x\", source = \"a\", content = \"\" }",
            "`file` has both `source` and `content`",
        ),
        ("[[step]]\nfile = { content = \"\" }", "`file` has no `path`"),
        ("[[step]]\nfile = { path = \"/proc/x\", content = \"\" }", "`/proc/x` is not a path in the machine"),
        (
            "[[step]]\nfile = { path = \"/x\", content = \"\", mode = 0o644 }",
            "expected a string, found an integer",
        ),
        (
            "[[step]]\nlink = { path = \"/x\", target = \"a\\nb\" }",
            "one line without control characters is expected",
        ),
        ("[[step]]\nuser = { name = \"Root\" }", "`Root` is not a user or group name"),
        ("[[step]]\nuser = { name = \"x\", uid = -1 }", "not within 0 to 4294967293"),
        ("[[step]]\nuser = { name = \"x\", uid = 99999999999999999999 }", "not within 0 to 4294967293"),
        ("[[step]]\nuser = { name = \"x\", system = \"yes\" }", "expected `true` or `false`, found a string"),
        ("[[step]]\nservice = { name = \"x\" }", "`service` has neither `enabled` nor `running`"),
        ("[[step]]\nservice = { name = \"--now\", enabled = true }", "`--now` is not a unit's name"),
        ("[[step]]\nrun = { script = \"a\", unless = \" \" }", "the command is empty"),
        ("[[step]]\nrun = { script = \"a\", unless = \"a\\u0000b\" }", "a control character in a command"),
        ("[network]\nlisten = [{ port = 0, protocol = \"tcp\" }]", "not within 1 to 65535"),
        ("[network]\nlisten = [{ port = 80, protocol = \"tpc\" }]", "`tpc` is not a protocol"),
        ("[network]\nlisten = [{ port = 80 }]", "an element of `listen` has no `protocol`"),
        ("[network]\nfetch = [\"http://x\"]", "`http://x` is not an origin name"),
        (
            "[network]\nconnect = [{ host = \"A.org\", port = 1, protocol = \"tcp\" }]",
            "`A.org` is not a host",
        ),
        (
            "[network]\nconnect = [{ host = \"010.0.0.1\", port = 1, protocol = \"tcp\" }]",
            "`010.0.0.1` is not a host",
        ),
        (
            "[network]\nconnect = [{ host = \"0x7f.1\", port = 1, protocol = \"tcp\" }]",
            "`0x7f.1` is not a host",
        ),
        (
            "[network]\nconnect = [{ host = \"0:0::1\", port = 1, protocol = \"tcp\" }]",
            "`0:0::1` is not a host",
        ),
        ("[capabilities]\nsetuid = [\"bin/x\"]", "`bin/x` is not a path in the machine"),
        ("[capabilities]\nroot = true", "unknown key `root`"),
        ("[instance]\nrenew = [\"--now\"]", "`--now` is not a unit's name"),
        ("[instance]\nrenew = [\"a\", \"a\"]", "listed twice"),
        ("[instance]\nrestart = [\"a\"]", "unknown key `restart`"),
        ("[[secret]]\nname = \"x\"\npath = \"/etc/x\"", "a secret's path must be below `/run`"),
        (
            "[[test]]\nname = \"x\"\nrun = \"true\"\n[[test]]\nname = \"x\"\nrun = \"true\"",
            "a second test `x`",
        ),
        ("[[test]]\nname = \"x\"", "`[[test]]` has no `run`"),
        (
            "[[test]]\nname = \"a\\u202Eb\"\nrun = \"true\"",
            "no control characters and no invisible ones, please",
        ),
        ("[[test]]\nname = \"x\"\nrun = \"true\"\ntimeout = \"0s\"", "`0s` is not a span of time"),
        ("[[test]]\nname = \"x\"\nrun = \"true\"\ntimeout = 10", "expected a string, found an integer"),
        ("[recipe]", "duplicate key"),
        ("version = \"2.0.0\"", "duplicate key"),
    ]
    .into_iter()
    .map(|(rest, message)| (rest.to_owned(), message))
    .chain([
        (download("ftp://x/y"), "`ftp://x/y` is not a URL to download"),
        (download("https://user:pw@x/y"), "`https://user:pw@x/y` is not a URL to download"),
        (download("https:///y"), "`https:///y` is not a URL to download"),
        (download("https://x/a b"), "`https://x/a b` is not a URL to download"),
        (download("https://x/a#b"), "`https://x/a#b` is not a URL to download"),
        (download("https://x/é"), "`https://x/é` is not a URL to download"),
        (download("https://x/y").replace("ba78", "BA78"), "`BA7816BF…"),
    ])
    .collect();
    for (rest, message) in cases {
        // The two that say something else by design are looked at by their beginning.
        match message {
            "unknown key `step`" => assert_eq!(mistakes_in(&rest), [message], "{rest}"),
            "`BA7816BF…" => assert!(mistakes_in(&rest)[0].ends_with("is not a SHA-256 digest"), "{rest}"),
            message => assert_eq!(mistakes_in(&rest), [message], "{rest}"),
        }
    }
    assert_eq!(mistakes_in(""), [""; 0]);
}

#[test]
fn limits_are_mistakes_with_a_place() {
    let limits =
        Limits { steps: 1, tests: 1, list_elements: 2, command_bytes: 4, line_bytes: 5, ..Limits::STANDARD };
    for (rest, message) in [
        ("[[step]]\npackage = [\"aa\"]\n[[step]]\npackage = [\"bb\"]", "2 elements, and 1 are allowed"),
        ("[[step]]\npackage = [\"aa\", \"bb\", \"cc\"]", "3 elements, and 2 are allowed"),
        ("[[test]]\nname = \"x\"\nrun = \"false\"", "the command is longer than 4 bytes"),
        ("[[step]]\nlink = { path = \"/x\", target = \"123456\" }", "the text is longer than 5 bytes"),
    ] {
        let mistakes = Manifest::parse_within(&format!("{HEAD}{rest}"), &limits).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert_eq!(mistakes[0].message, message);
        assert!(mistakes[0].line > 4, "{rest}");
    }
    let long = format!("{HEAD}# {}", "x".repeat(Limits::STANDARD.manifest_bytes));
    assert_eq!(Manifest::parse(&long).unwrap_err()[0].message, "the manifest is too long");
}

#[test]
fn nesting_is_refused_before_the_parser_sees_it() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("[{a=", "}]")] {
        for depth in [17, 100, 40_000] {
            let source = format!("{HEAD}x = {}1{}", open.repeat(depth), close.repeat(depth));
            let mistakes = Manifest::parse(&source).unwrap_err();
            assert_eq!(mistakes[0].message, "nested deeper than 16 levels");
            assert_eq!(mistakes[0].line, 5);
        }
    }
    let dotted = format!("{HEAD}{}a = 1", "a.".repeat(100_000));
    assert_eq!(Manifest::parse(&dotted).unwrap_err()[0].message, "nested deeper than 16 levels");
}

#[test]
fn reports_are_bounded_in_number_and_time() {
    let source =
        format!("{HEAD}{}", "[[step]]\nfile = { pth = 1, mod = 2, owner = 3, source = 4 }\n".repeat(500));
    let start = Instant::now();
    let mistakes = Manifest::parse(&source).unwrap_err();
    assert_eq!(mistakes.len(), Limits::STANDARD.diagnostics);
    render(&mistakes, &source, "recipe.toml", true);
    let one_line = format!("{HEAD}x = [{}]", "\"y\", ".repeat(40_000));
    let mistakes = Manifest::parse(&one_line).unwrap_err();
    assert!(render(&mistakes, &one_line, "recipe.toml", false).len() < 1000);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_hostile_source_cannot_speak_to_the_terminal() {
    let source = format!("{HEAD}\"\\u001b[2J\u{202e}\" = 1 # \u{9b}2J\u{202e}\n");
    let shown = render(&Manifest::parse(&source).unwrap_err(), &source, "recipe.toml", false);
    assert!(shown.contains("unknown key"), "{shown}");
    assert!(!shown.chars().any(|c| c != '\n' && crate::text::misleads(c)), "{shown:?}");
}

#[test]
fn no_prefix_of_a_manifest_panics() {
    for end in (0..=WHOLE.len()).filter(|&end| WHOLE.is_char_boundary(end)) {
        let prefix = &WHOLE[..end];
        if let Err(mistakes) = Manifest::parse(prefix) {
            assert!(!mistakes.is_empty());
            render(&mistakes, prefix, "recipe.toml", false);
        }
    }
}

/// Cuts, repeats and swaps pieces of a manifest: closer to what people get wrong than random bytes are.
fn mutated() -> impl Strategy<Value = String> {
    let edits = collection::vec((0usize..4, 0..WHOLE.len(), 0usize..60, any::<char>()), 1..6);
    edits.prop_map(|edits| {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (what, at, length, character) in edits {
            let start = at.min(text.len().saturating_sub(1));
            let end = (start + length).min(text.len());
            match what {
                0 => drop(text.drain(start..end)),
                1 => text.insert(start, character),
                2 => {
                    let piece = text[start..end].to_vec();
                    let place = (at * 7) % (text.len() + 1);
                    text.splice(place..place, piece);
                }
                _ => {
                    let lines: String = text.iter().collect();
                    let mut lines: Vec<&str> = lines.split_inclusive('\n').collect();
                    let (a, b) = (at % lines.len(), length % lines.len());
                    lines.swap(a, b);
                    text = lines.concat().chars().collect();
                }
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn no_mutation_of_a_manifest_panics(source in mutated()) {
        if let Err(mistakes) = Manifest::parse(&source) {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.iter().all(|mistake| source.get(mistake.span.clone()).is_some()));
            render(&mistakes, &source, "recipe.toml", false);
        }
    }
}
