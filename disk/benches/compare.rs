//! How long a sealed disk takes to compare, and how much of that is saved by not reading what no layer holds.
//!
//! `make bench`. `COUNTERSIGN_TEST_BASE` names the folder of a base. `COUNTERSIGN_BENCH_LAYERS` may name sealed layers of a
//! real disk, bottom up, with `:` between them; else a layer is made with debugfs(8), in which some hundred files of
//! `/usr/share` are gone and one of 4 MiB is new.
//!
//! The baseline is the same disk as one layer that holds every cluster: nothing is proven unchanged then, so every file is
//! hashed on both sides. The two lists must be the same, so this is a test as well.

#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "made for tests, which use more of it and end where something unexpected happens"
)]
#[path = "../tests/images/image.rs"]
mod image;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use disk::{Comparison, Left, Limits, compare};

use crate::image::{Base, debugfs, run};

/// Each is measured so many times, in turns; the fastest counts, as what else the machine does only ever adds. For the same
/// reason the ratio is that of processor time.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let Some(folder) = std::env::var_os("COUNTERSIGN_TEST_BASE") else {
        eprintln!("COUNTERSIGN_TEST_BASE must name the folder of a base image (`make bench` does that)");
        return ExitCode::from(2);
    };
    let base = PathBuf::from(folder).join("disk.qcow2");
    let scratch = tempfile::tempdir().expect("a folder for images");
    let layers: Vec<PathBuf> = match std::env::var("COUNTERSIGN_BENCH_LAYERS") {
        Ok(paths) => paths.split(':').map(PathBuf::from).collect(),
        Err(_) => vec![made_layer(&base, scratch.path())],
    };
    let merged = scratch.path().join("merged.qcow2");
    let chain = layers.iter().fold(node(&base, None), |below, layer| node(layer, Some(&below)));
    run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(format!("json:{chain}")).arg(&merged));

    let open = |path: &PathBuf| File::open(path).expect("an image");
    let bottom = open(&base);
    let sealed: Vec<File> = layers.iter().map(open).collect();
    let whole = [open(&merged)];
    let [mut by_layers, mut by_hashing] = [[Duration::MAX; 2]; 2];
    let mut found = (0, 0);
    for _ in 0..ROUNDS {
        let (layered, time) = timed(&bottom, &sealed);
        by_layers = least(by_layers, time);
        let (hashed, time) = timed(&bottom, &whole);
        by_hashing = least(by_hashing, time);
        assert!(layered == hashed, "both ways find the same");
        found = (layered.files, layered.changes.len());
    }
    println!("{} paths, {} changes", found.0, found.1);
    let row = |what: &str, [elapsed, processor]: [Duration; 2]| {
        println!(
            "{what:34}{:7.3} s elapsed{:9.3} s of processor",
            elapsed.as_secs_f64(),
            processor.as_secs_f64()
        );
    };
    row("what no layer holds is not read", by_layers);
    row("every file hashed (baseline)", by_hashing);
    println!("ratio {:.1}", by_hashing[1].as_secs_f64() / by_layers[1].as_secs_f64());
    ExitCode::SUCCESS
}

/// The comparison, and how long it took: elapsed, and of one processor.
fn timed(base: &File, sealed: &[File]) -> (Comparison, [Duration; 2]) {
    let (start, before) = (Instant::now(), on_processor());
    let comparison =
        compare(base, sealed, Left::PoweredOff, &Limits::default()).expect("a disk that compares");
    (comparison, [start.elapsed(), on_processor() - before])
}

fn least([a, b]: [Duration; 2], [c, d]: [Duration; 2]) -> [Duration; 2] {
    [a.min(c), b.min(d)]
}

/// Time that this process, which has one thread, has had a processor.
fn on_processor() -> Duration {
    let said = std::fs::read_to_string("/proc/self/schedstat").expect("the kernel tells it");
    Duration::from_nanos(said.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

/// QEMU's description of an image and of what lies below it; what its header says of that does not count.
fn node(image: &Path, below: Option<&str>) -> String {
    let below = below.map_or("null".to_owned(), str::to_owned);
    format!(
        r#"{{"driver":"qcow2","file":{{"driver":"file","filename":"{}"}},"backing":{below}}}"#,
        image.display()
    )
}

/// A layer with what debugfs changed, written by QEMU.
fn made_layer(base: &Path, scratch: &Path) -> PathBuf {
    let (folder, new) = (tempfile::tempdir().expect("a folder"), scratch.join("new"));
    let raw = folder.path().join("base.raw");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).args([base, &raw]));
    std::fs::write(&new, vec![b'n'; 4 << 20]).expect("a file");
    let base = Base::of_raw(folder, raw);
    let listed = debugfs(&base.raw, &["ls -p /usr/share/zoneinfo/Europe"]);
    let names = listed.lines().filter_map(|line| line.split('/').nth(5));
    let removed = names.filter(|name| !name.is_empty() && !name.starts_with('.'));
    let mut commands: Vec<String> =
        removed.map(|name| format!("rm /usr/share/zoneinfo/Europe/{name}")).collect();
    commands.extend(["cd /usr/share".to_owned(), format!("write {} new", new.display())]);
    let changed = base.changed(&commands.iter().map(String::as_str).collect::<Vec<_>>());
    drop(base.layer(&changed));
    let layer = scratch.join("layer.qcow2");
    std::fs::copy(base.path("layer.qcow2"), &layer).expect("the layer");
    layer
}
