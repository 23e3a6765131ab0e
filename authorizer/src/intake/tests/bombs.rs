//! Repositories that are small and unpack into much.

use super::pack::{BLOB, Pack, copies, serve_pack};
use super::*;

/// The most that one instruction of a delta copies, in bytes.
const COPIED: usize = (16 << 20) - 1;

/// A pack that is a good recipe, and a blob that `deltas` more objects each multiply by `times`.
fn delta_bomb(deltas: u32, times: u64) -> (git2::Oid, Vec<u8>) {
    let mut pack = Pack::default();
    let manifest = pack.object(BLOB, b"good\n");
    let commit = pack.commit(&[("100644", "recipe.toml", manifest)]);
    let base = pack.object(BLOB, &vec![0; COPIED]);
    for number in 0..deltas {
        pack.delta(base, &copies(COPIED as u64, times, number));
    }
    (commit, pack.finish())
}

#[test]
fn a_pack_whose_deltas_unpack_into_gigabytes_is_given_up() {
    // 2 GiB in less than 100 KB.
    let (commit, pack) = delta_bomb(1, 128);
    assert!(pack.len() < 100_000, "{}", pack.len());
    let bomb = take(&serve_pack(commit, pack), None);
    let memory = IntakeError::RepositoryTooLarge {
        uri: String::new(),
        limit: FetchLimits::STANDARD.memory_bytes,
        unit: "bytes of memory to unpack it",
    };
    assert_eq!(said(&bomb), memory.to_string(), "{bomb:?}");
    assert_eq!(code(bomb), Some(Code::BadRecipe));
    // The same pack with a delta that fits is taken in.
    let (commit, pack) = delta_bomb(1, 2);
    assert_eq!(text(&take(&serve_pack(commit, pack), None).unwrap(), "recipe.toml"), "good\n");
}

/// An error without the address of who caused it.
fn said(taken: &Result<Intake, IntakeError>) -> String {
    let text = taken.as_ref().unwrap_err().to_string();
    format!(": {}", text.split_once(": ").unwrap().1)
}

#[test]
fn a_pack_that_takes_long_to_unpack_is_given_up() {
    let (commit, pack) = delta_bomb(100, 16);
    let limits = FetchLimits { cpu_seconds: 1, ..FetchLimits::STANDARD };
    let bomb = take_within(&serve_pack(commit, pack), None, &Limits::STANDARD, &limits);
    assert!(said(&bomb).contains("1 seconds of processor time"), "{bomb:?}");
    assert_eq!(code(bomb), Some(Code::BadRecipe));
}

/// 2 GiB of zeros.
const HUGE: u64 = 2 << 30;
/// Their object id.
const HUGE_ID: &str = "77e9132b46cb9535f286f18974872f40049d1a89";

/// `prefix` and 2 GiB of zeros as zlib makes them (RFC 1950), without compressing 2 GiB: each piece after a full flush is the same.
fn huge_zlib(prefix: &[u8]) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let deflate = |content: &[u8]| {
        let mut state = flate2::Compress::new(flate2::Compression::fast(), false);
        let mut out = Vec::with_capacity(2 * content.len() + 1024);
        state.compress_vec(content, &mut out, flate2::FlushCompress::Full).unwrap();
        out
    };
    let mut zlib = vec![0x78, 0x01];
    zlib.extend(deflate(prefix));
    zlib.extend(deflate(&vec![0; PIECE]).repeat((HUGE / PIECE as u64) as usize));
    // An empty last block.
    zlib.extend([0x01, 0x00, 0x00, 0xff, 0xff]);
    let (mut a, mut b) = (1_u64, 0_u64);
    for byte in prefix {
        a = (a + u64::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b = (b + a * (HUGE % 65_521)) % 65_521;
    zlib.extend(((b << 16 | a) as u32).to_be_bytes());
    zlib
}

#[test]
fn a_blob_of_two_gigabytes_is_refused_by_what_it_says_of_its_size() {
    let git = web();
    let place = git.top().join(".git/objects").join(&HUGE_ID[..2]);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join(&HUGE_ID[2..]), huge_zlib(format!("blob {HUGE}\0").as_bytes())).unwrap();
    assert_eq!(git.run(&["cat-file", "-s", HUGE_ID]), HUGE.to_string(), "git itself takes it for what it is");
    git.index("100644", HUGE_ID, "web/huge");
    git.index("100644", HUGE_ID, "elsewhere/zeros");
    git.commit_index();
    let refused = git.fetch("", Some("web"));
    assert!(matches!(refused, Err(IntakeError::TooLarge { size: HUGE, .. })), "{refused:?}");
    assert_eq!(code(refused), Some(Code::BadRecipe));
    // Beside the recipe nobody looks at it.
    git.fetch("", Some("web/files")).unwrap();
}

#[test]
fn a_blob_of_two_gigabytes_that_a_remote_sends_is_given_up() {
    let mut pack = Pack::default();
    pack.compressed(BLOB, HUGE, None, &huge_zlib(b""));
    let manifest = pack.object(BLOB, b"good\n");
    let huge = git2::Oid::from_str(HUGE_ID).unwrap();
    let commit = pack.commit(&[("100644", "huge", huge), ("100644", "recipe.toml", manifest)]);
    let pack = pack.finish();
    assert!((pack.len() as u64) < FetchLimits::STANDARD.bytes);
    let limits = FetchLimits { cpu_seconds: 1, ..FetchLimits::STANDARD };
    let given_up = take_within(&serve_pack(commit, pack), None, &Limits::STANDARD, &limits);
    assert!(said(&given_up).contains("processor time"), "{given_up:?}");
    assert_eq!(code(given_up), Some(Code::BadRecipe));
}

#[test]
fn a_few_trees_with_paths_without_end_are_refused() {
    let git = web();
    let mut below = git.run(&["rev-parse", "HEAD:web"]);
    // Ten to the power of ten paths.
    for _ in 0..10 {
        let names: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_bytes(), below.as_str())).collect();
        commit_raw_tree(&git, &entries);
        below = git.run(&["rev-parse", "raw^{tree}"]);
    }
    let begun = Instant::now();
    let daemon = git.serve();
    for taken in [git.fetch("#raw", None), take(&daemon.uri("#raw"), None)] {
        assert!(matches!(taken, Err(IntakeError::TooMany { .. })), "{taken:?}");
        assert_eq!(code(taken), Some(Code::BadRecipe));
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn trees_within_trees_without_end_are_refused() {
    let git = web();
    let repository = git2::Repository::open(git.top()).unwrap();
    let mut below = repository.revparse_single("HEAD:web").unwrap().id();
    for _ in 0..2_000 {
        let tree = [&b"40000 a\0"[..], below.as_bytes()].concat();
        below = repository.odb().unwrap().write(git2::ObjectType::Tree, &tree).unwrap();
    }
    commit_raw_tree(&git, &[("40000", b"a", &below.to_string())]);
    let daemon = git.serve();
    for taken in [git.fetch("#raw", None), take(&daemon.uri("#raw"), None)] {
        assert!(matches!(taken, Err(IntakeError::TooDeep { .. })), "{taken:?}");
        assert_eq!(code(taken), Some(Code::BadRecipe));
    }
}

#[test]
fn a_hundred_thousand_files_are_refused() {
    use std::io::Write;

    let git = web();
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet", "--force"])
        .current_dir(git.top())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut commit = String::from("commit refs/heads/many\ncommitter VO <vo@example.org> 0 +0000\ndata 0\n");
    commit.push_str("M 100644 inline recipe.toml\ndata 5\ngood\n\n");
    for number in 0..100_000 {
        let (name, text) = (format!("many/{}/{number}", number / 500), number.to_string());
        commit.push_str(&format!("M 100644 inline {name}\ndata {}\n{text}\n", text.len()));
    }
    import.stdin.take().unwrap().write_all(commit.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    let here = git.fetch("#many", None);
    assert!(matches!(here, Err(IntakeError::TooMany { .. })), "{here:?}");
    assert_eq!(code(here), Some(Code::BadRecipe));
    let daemon = git.serve();
    let fetched = take(&daemon.uri("#many"), None);
    let objects =
        matches!(fetched, Err(IntakeError::RepositoryTooLarge { limit: 100_000, unit: "objects", .. }));
    assert!(objects, "{fetched:?}");
    assert_eq!(code(fetched), Some(Code::BadRecipe));
}
