//! Remotes that are slow, endless, or say one thing and send another.

use std::io::{Read, Write};

use super::pack::{BLOB, Pack, header, serve, serve_pack};
use super::*;

/// A good recipe in one pack.
fn good() -> (git2::Oid, Vec<u8>) {
    let mut pack = Pack::default();
    let manifest = pack.object(BLOB, b"good\n");
    let commit = pack.commit(&[("100644", "recipe.toml", manifest)]);
    (commit, pack.finish())
}

fn within(uri: &str, limits: FetchLimits) -> Result<Intake, IntakeError> {
    let begun = Instant::now();
    let taken = take_within(uri, None, &Limits::STANDARD, &limits);
    assert!(begun.elapsed() < limits.deadline + Duration::from_secs(20), "it holds us up");
    taken
}

const SHORT: FetchLimits = FetchLimits { deadline: Duration::from_secs(3), ..FetchLimits::STANDARD };

fn too_late(taken: Result<Intake, IntakeError>) {
    assert!(matches!(taken, Err(IntakeError::Deadline { seconds: 3, .. })), "{taken:?}");
    assert_eq!(code(taken), Some(Code::RemoteUnavailable));
}

#[test]
fn the_servers_of_these_tests_can_serve() {
    let (commit, pack) = good();
    let taken = take(&serve_pack(commit, pack), None).unwrap();
    assert_eq!((text(&taken, "recipe.toml"), &taken.source.commit), ("good\n", &commit.to_string()));
}

#[test]
fn a_remote_that_sends_one_byte_a_second_is_unavailable() {
    let slowly = |bytes: Vec<u8>| {
        move |peer: &mut super::pack::Peer| {
            bytes.iter().try_for_each(|byte| {
                std::thread::sleep(Duration::from_secs(1));
                peer.raw(&[*byte])
            })
        }
    };
    too_late(within(&serve(slowly(b"00450123456789".repeat(10))), SHORT));
    let (commit, pack) = good();
    let uri = serve(move |peer| {
        peer.advertise(commit)?;
        peer.line(b"NAK\n")?;
        pack.iter().try_for_each(|byte| {
            std::thread::sleep(Duration::from_secs(1));
            peer.band(1, &[*byte])
        })
    });
    too_late(within(&uri, SHORT));
}

#[test]
fn references_without_end_are_given_up() {
    let limits = FetchLimits { memory_bytes: 64 << 20, ..FetchLimits::STANDARD };
    let uri = serve(|peer| {
        peer.hear()?;
        for number in 0_u64.. {
            let id = "0123456789012345678901234567890123456789";
            peer.line(format!("{id} refs/heads/{number}{}\n", "x".repeat(200)).as_bytes())?;
        }
        Ok(())
    });
    let endless = within(&uri, limits);
    assert!(
        endless.as_ref().is_err_and(|error| error.to_string().contains("bytes of memory")),
        "{endless:?}"
    );
    assert_eq!(code(endless), Some(Code::BadRecipe));
}

#[test]
fn a_hundred_thousand_references_are_no_problem() {
    let (commit, pack) = good();
    let uri = serve(move |peer| {
        peer.hear()?;
        peer.line(format!("{commit} HEAD\0side-band-64k shallow\n").as_bytes())?;
        for number in 0..100_000 {
            peer.line(format!("{commit} refs/heads/{number}\n").as_bytes())?;
        }
        peer.flush()?;
        while peer.hear()?.is_some() {}
        peer.line(format!("shallow {commit}").as_bytes())?;
        peer.flush()?;
        while peer.hear()?.is_none_or(|line| !line.starts_with(b"done")) {}
        peer.line(b"NAK\n")?;
        peer.band(1, &pack)?;
        peer.flush()
    });
    take(&uri, None).unwrap();
}

#[test]
fn progress_and_answers_without_end_are_given_up() {
    let (commit, _) = good();
    let progress = serve(move |peer| {
        peer.advertise(commit)?;
        peer.line(b"NAK\n")?;
        loop {
            peer.band(2, b"counting objects\r")?;
        }
    });
    let endless = within(&progress, FetchLimits::STANDARD);
    let counted =
        matches!(endless, Err(IntakeError::RepositoryTooLarge { unit: "bytes of progress messages", .. }));
    assert!(counted, "{endless:?}");
    assert_eq!(code(endless), Some(Code::BadRecipe));
    let answers = serve(move |peer| {
        peer.advertise(commit)?;
        loop {
            peer.line(b"NAK\n")?;
        }
    });
    let ended = within(&answers, SHORT);
    assert!(matches!(code(ended), Some(Code::RemoteUnavailable)));
}

#[test]
fn a_pack_without_end_is_given_up() {
    let (commit, _) = good();
    let uri = serve(move |peer| {
        peer.advertise(commit)?;
        peer.line(b"NAK\n")?;
        peer.band(1, &header(1))?;
        // A blob of nearly 2^60 bytes, in stored blocks of deflate.
        peer.band(1, &[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x78, 0x01])?;
        let block = [&[0x00, 0xff, 0xff, 0x00, 0x00][..], &vec![b'x'; 0xffff]].concat();
        loop {
            peer.band(1, &block)?;
        }
    });
    let limits = FetchLimits { bytes: 8 << 20, ..FetchLimits::STANDARD };
    let endless = within(&uri, limits);
    let counted = matches!(endless, Err(IntakeError::RepositoryTooLarge { unit: "bytes", limit, .. }) if limit == 8 << 20);
    assert!(counted, "{endless:?}");
    assert_eq!(code(endless), Some(Code::BadRecipe));
}

#[test]
fn other_objects_than_advertised_are_not_taken() {
    let (commit, pack) = good();
    let other = git2::Oid::from_str("0123456789012345678901234567890123456789").unwrap();
    let taken = take(&serve_pack(other, pack.clone()), None);
    assert!(
        matches!(taken, Err(IntakeError::NoRevision { .. } | IntakeError::Unavailable { .. })),
        "{taken:?}"
    );
    assert_eq!(code(taken), Some(Code::RemoteUnavailable));
    // A changed byte, and a pack that ends early.
    let mut changed = pack.clone();
    changed[20] ^= 1;
    for pack in [changed, pack[..pack.len() - 1].to_vec(), header(u32::MAX), Vec::new()] {
        let taken = take(&serve_pack(commit, pack), None);
        assert!(matches!(code(taken), Some(Code::RemoteUnavailable | Code::BadRecipe)));
    }
}

/// Stands between a client and a server, and does something once the references have passed.
fn between(server: u16, once: impl FnOnce() + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("git://{}/repository", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !seen.ends_with(b"0000") {
            let read = server.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..read]);
        }
        once();
        client.write_all(&seen).unwrap();
        let _ = std::io::copy(&mut server, &mut client);
    });
    uri
}

#[test]
fn a_reference_that_moves_during_the_fetch_gives_what_was_advertised() {
    let git = web();
    let before = git.run(&["rev-parse", "main"]);
    let daemon = git.serve();
    let (moved, after) = std::sync::mpsc::channel();
    let top = git.top();
    let uri = between(daemon.port, move || {
        let git = |arguments: &[&str]| {
            let run = Command::new("git").current_dir(&top).args(arguments).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap().trim().to_owned()
        };
        std::fs::write(top.join("web/recipe.toml"), "moved\n").unwrap();
        git(&["add", "--all"]);
        git(&["-c", "user.name=VO", "-c", "user.email=x", "commit", "--quiet", "--message=moved"]);
        moved.send(git(&["rev-parse", "main"])).unwrap();
    });
    let intake = take(&uri, Some("web")).unwrap();
    assert_ne!(after.recv().unwrap(), before, "it did move");
    assert_web(&intake, &before, "web");
    assert_eq!(text(&intake, "recipe.toml"), "one\n");
}
