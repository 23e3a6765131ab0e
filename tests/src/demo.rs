//! The main job from one end to the other, on real machines: what `make demo` runs.
//!
//! Every row of the table at the end is read from a command's JSON. All it writes lies in `.demo` in the
//! project's folder, and in the cache of base images.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use end_to_end::command::Run;
use end_to_end::git::Daemon;
use end_to_end::site::{Site, cache, project};
use end_to_end::tree::is_root;
use end_to_end::vo::{Vo, copy_folder};

fn main() -> ExitCode {
    let folder = project().join(".demo");
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the last demo's folder is removed");
    }
    let mut story = Story::default();
    let whole = std::time::Instant::now();
    play(&mut story, &folder);
    let seconds = whole.elapsed().as_secs_f64();
    println!("\n{}", story.table());
    println!(
        "\n{seconds:.0} s in all, {} cold boots; the demo's files are in {}, base images in {}",
        story.cold_boots,
        folder.display(),
        cache().display()
    );
    if story.surprises > 0 {
        eprintln!("{} of {} results are not as they must be", story.surprises, story.rows.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn play(story: &mut Story, folder: &Path) {
    story.say("A VO makes a CA and a key, signs its recipes and serves them from git");
    let vo = Vo::found("atlas", &folder.join("vo"));
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("randomness for this run's nonce");
    let nonce = hex::encode(nonce);
    for (name, ..) in EXAMPLES {
        copy_folder(&project().join("examples").join(name), &vo.recipe(name));
    }
    let page = vo.recipe("web").join("files/index.html");
    let text = fs::read_to_string(&page).expect("the page of the example is read");
    assert!(text.contains(NONCE_PLACE), "the example's page has a place for the nonce");
    fs::write(&page, text.replace(NONCE_PLACE, &nonce)).expect("the page is written");
    for (name, ..) in EXAMPLES {
        story.row(&format!("sign {name}"), &vo.sign(name), &Expected::Done);
    }
    copy_folder(&vo.recipe("web"), &vo.recipe("web-changed"));
    let changed = vo.recipe("web-changed").join("files/index.html");
    let mut bytes = fs::read(&changed).expect("the copy's page is read");
    bytes[0] ^= 1;
    fs::write(&changed, bytes).expect("the copy's page is written");
    vo.recipes.commit("Recipes");
    let daemon = Daemon::serve(folder.join("vo").as_path());
    let url = daemon.url("recipes");

    story.say("A site makes its folder and trusts the VO's CA for the VO's recipes");
    let site = Site::found("example-site", folder);
    if !is_root() {
        println!(
            "  this is not root: the site allows that machines run as you, so an escaped QEMU could do what you can"
        );
    }
    let trusted = site.trust(&vo);
    story.row("trust the VO", &trusted, &Expected::Done);
    story.say("The site builds its base image, or finds it in the cache");
    let base = site.base();
    if !story.row("base image", &base, &Expected::Done) {
        return;
    }

    story.say("The site takes `web` through all stages and countersigns the result");
    let authorized = site.run(["authorize", &url, "--path", "web"]);
    let right = story.row("authorize web", &authorized, &Expected::Done);
    story.stages(&authorized);
    if !right {
        return;
    }

    story.say("It deploys `web`, and the page is fetched from the host");
    let port = free_port();
    let deployed = site.run(["deploy", "atlas/web", "--forward", &format!("{port}:80")]);
    story.row("deploy web", &deployed, &Expected::Done);
    if let Some(id) = deployed.json["instance"]["id"].as_str() {
        match fetch(port) {
            Ok(page) if page.contains(&nonce) => {
                println!("  the page holds this run's nonce {nonce}");
            }
            Ok(_) => story.surprise("the page does not hold this run's nonce"),
            Err(error) => story.surprise(&format!("the page could not be fetched: {error}")),
        }
        let shown = site.run(["instance", "show", id]);
        story.row("instance show", &shown, &Expected::Done);
        let stopped = site.run(["instance", "stop", id]);
        story.row("instance stop", &stopped, &Expected::Done);
    }

    story.say("It judges the other recipes: authorized or refused, each for its own reason");
    let refused = site.run(["authorize", &url, "--path", "web-changed"]);
    story.row("authorize web with a byte changed", &refused, &Expected::Refused("BAD_SIGNATURE"));
    for (name, expected) in EXAMPLES.iter().filter(|(name, _)| *name != "web") {
        let judged = site.run(["authorize", &url, "--path", name]);
        story.row(&format!("authorize {name}"), &judged, expected);
        if matches!(expected, Expected::Done) {
            story.stages(&judged);
        }
    }

    story.say("The site revokes `web`: the next deploy is refused");
    let version = authorized.json["version"].as_str().unwrap_or_default();
    let revoked = site.run(["revoke", &format!("atlas/web@{version}"), "--reason", "superseded"]);
    story.row("revoke web", &revoked, &Expected::Done);
    let refused = site.run(["deploy", "atlas/web", "--forward", &format!("{port}:80")]);
    story.row("deploy web", &refused, &Expected::Refused("REVOKED"));
}

/// The examples, and what becomes of each.
const EXAMPLES: [(&str, Expected); 6] = [
    ("web", Expected::Done),
    ("batch-worker", Expected::Done),
    ("backdoor", Expected::Refused("SCAN_DENIED")),
    ("sneaky", Expected::TestsFailed(&["site/listening", "site/setuid", "site/units"])),
    ("broken", Expected::TestsFailed(&["vo/gives the number of a run"])),
    ("stubborn", Expected::Refused("CONTROL_LOST")),
];

/// How a command must end.
enum Expected {
    /// With what it was asked for.
    Done,
    /// With this code.
    Refused(&'static str),
    /// With `TEST_FAILED`, these tests among the failed ones.
    TestsFailed(&'static [&'static str]),
}

impl Expected {
    fn is(&self, run: &Run) -> bool {
        match self {
            Self::Done => run.status == 0 && run.json["result"] == "done",
            Self::Refused(code) => run.status == 1 && run.code() == Some(code),
            Self::TestsFailed(tests) => {
                let failed = run.failed_tests();
                run.status == 1 && tests.iter().all(|test| failed.contains_key(*test))
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused(code) => f.write_str(code),
            Self::TestsFailed(tests) => write!(f, "TEST_FAILED by {}", tests.join(", ")),
        }
    }
}

/// What stands in the example's page where this run's nonce goes.
const NONCE_PLACE: &str = "@NONCE@";

#[derive(Default)]
struct Story {
    rows: Vec<[String; 3]>,
    cold_boots: u64,
    surprises: usize,
}

impl Story {
    fn say(&self, line: &str) {
        println!("\n== {line}");
    }

    /// Takes a row from a command's JSON, which must have ended as `expected`; says whether it was so.
    fn row(&mut self, stage: &str, run: &Run, expected: &Expected) -> bool {
        let mut result = match (run.json["result"].as_str(), run.code()) {
            (_, Some(code)) => code.to_owned(),
            (Some(result), None) => result.to_owned(),
            (None, None) => "no answer".to_owned(),
        };
        for test in run.failed_tests().keys() {
            let _ = write!(result, "\n  {test}");
        }
        let right = expected.is(run);
        println!("  {stage}: {} ({:.1} s)", result.replace("\n ", ""), run.seconds());
        self.cold_boots += run.json["coldBoots"].as_u64().unwrap_or_default();
        if !right {
            let mut why = format!("{stage}: expected {expected}, exit {}", run.status);
            let _ = write!(why, "\n{}\n{:#}", run.stderr.trim_end(), run.json);
            self.surprise(&why);
        }
        self.rows.push([stage.to_owned(), result, format!("{:.1}", run.seconds())]);
        right
    }

    /// The stages of an authorization, each with its seconds.
    fn stages(&mut self, authorized: &Run) {
        for stage in authorized.json["stages"].as_array().into_iter().flatten() {
            let name = stage["stage"].as_str().unwrap_or("?");
            self.part(name, "done", stage["seconds"].as_f64().unwrap_or_default());
        }
    }

    fn part(&mut self, stage: &str, result: &str, seconds: f64) {
        println!("    {stage} ({seconds:.1} s)");
        self.rows.push([format!("  {stage}"), result.to_owned(), format!("{seconds:.1}")]);
    }

    fn surprise(&mut self, why: &str) {
        self.surprises += 1;
        eprintln!("not as it must be: {why}");
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["stage", "result", "seconds"]);
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            table.add_row(row);
        }
        table
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port on loopback").port()
}

/// The page as the host sees it.
fn fetch(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut page = Vec::new();
    stream.take(1 << 20).read_to_end(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
