//! The main job from one end to the other, on real machines: what `make demo` runs.
//!
//! Every row of the table at the end is read from a command's JSON. All it writes lies in `.demo` in the
//! project's folder, and in the cache of base images.

use std::fmt::Write as _;
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
    story.say("A VO makes a CA and a key, writes the recipe `web`, signs it and serves it from git");
    let vo = Vo::found("atlas", &folder.join("vo"));
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("randomness for this run's nonce");
    let nonce = hex::encode(nonce);
    copy_folder(&project().join("examples/web"), &vo.recipe("web"));
    copy_folder(&project().join("examples/backdoor"), &vo.recipe("backdoor"));
    let page = vo.recipe("web").join("files/index.html");
    let text = fs::read_to_string(&page).expect("the page of the example is read");
    assert!(text.contains(NONCE_PLACE), "the example's page has a place for the nonce");
    fs::write(&page, text.replace(NONCE_PLACE, &nonce)).expect("the page is written");
    let signed = vo.sign("web");
    story.row("sign web", &signed, None);
    let signed = vo.sign("backdoor");
    story.row("sign backdoor", &signed, None);
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
    let trusted = site.trust(&vo);
    story.row("trust the VO", &trusted, None);
    story.say("The site builds its base image, or finds it in the cache");
    let base = site.base();
    if !story.row("base image", &base, None) {
        return;
    }

    story.say("The site takes `web` through all stages and countersigns the result");
    let authorized = site.run(["authorize", &url, "--path", "web"]);
    let right = story.row("authorize web", &authorized, None);
    for stage in authorized.json["stages"].as_array().into_iter().flatten() {
        let name = stage["stage"].as_str().unwrap_or("?");
        story.part(name, "done", stage["seconds"].as_f64().unwrap_or_default());
    }
    if !right {
        return;
    }

    story.say("It deploys `web`, and the page is fetched from the host");
    let port = free_port();
    let deployed = site.run(["deploy", "atlas/web", "--forward", &format!("{port}:80")]);
    story.row("deploy web", &deployed, None);
    if let Some(id) = deployed.json["instance"]["id"].as_str() {
        match fetch(port) {
            Ok(page) if page.contains(&nonce) => {
                println!("  the page holds this run's nonce {nonce}");
            }
            Ok(_) => story.surprise("the page does not hold this run's nonce"),
            Err(error) => story.surprise(&format!("the page could not be fetched: {error}")),
        }
        let shown = site.run(["instance", "show", id]);
        story.row("instance show", &shown, None);
        let stopped = site.run(["instance", "stop", id]);
        story.row("instance stop", &stopped, None);
    }

    story.say("It refuses what it must");
    let refused = site.run(["authorize", &url, "--path", "backdoor"]);
    story.row("authorize backdoor", &refused, Some("SCAN_DENIED"));
    let refused = site.run(["authorize", &url, "--path", "web-changed"]);
    story.row("authorize web with a byte changed", &refused, Some("BAD_SIGNATURE"));

    story.say("The site revokes `web`: the next deploy is refused");
    let version = authorized.json["version"].as_str().unwrap_or_default();
    let revoked = site.run(["revoke", &format!("atlas/web@{version}"), "--reason", "superseded"]);
    story.row("revoke web", &revoked, None);
    let refused = site.run(["deploy", "atlas/web", "--forward", &format!("{port}:80")]);
    story.row("deploy web", &refused, Some("REVOKED"));
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

    /// Takes a row from a command's JSON, which must be done, or refused with the code `expected`; says whether it was so.
    fn row(&mut self, stage: &str, run: &Run, expected: Option<&str>) -> bool {
        let result = match (run.json["result"].as_str(), run.code()) {
            (_, Some(code)) => code.to_owned(),
            (Some(result), None) => result.to_owned(),
            (None, None) => "no answer".to_owned(),
        };
        let status = if expected.is_some() { 1 } else { 0 };
        let right = run.status == status && result == expected.unwrap_or("done");
        println!("  {stage}: {result} ({:.1} s)", run.seconds());
        self.cold_boots += run.json["coldBoots"].as_u64().unwrap_or_default();
        self.rows.push([stage.to_owned(), result, format!("{:.1}", run.seconds())]);
        if !right {
            let mut why = format!("{stage}: expected {}, exit {}", expected.unwrap_or("done"), run.status);
            let _ = write!(why, "\n{}\n{:#}", run.stderr.trim_end(), run.json);
            self.surprise(&why);
        }
        right
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
