//! Packs written byte for byte (gitformat-pack(5)), and a server that speaks as much of git's protocol (gitprotocol-pack(5)) as
//! it takes to send one, and anything else.

use std::io::{Read, Write};

use super::*;

pub(super) const COMMIT: u8 = 1;
pub(super) const TREE: u8 = 2;
pub(super) const BLOB: u8 = 3;
const REF_DELTA: u8 = 7;

/// A pack under construction.
#[derive(Default)]
pub(super) struct Pack {
    objects: u32,
    bytes: Vec<u8>,
}

impl Pack {
    /// Adds a small object and gives its id.
    pub(super) fn object(&mut self, kind: u8, content: &[u8]) -> git2::Oid {
        self.compressed(kind, content.len() as u64, None, &deflated(content));
        let kind = match kind {
            COMMIT => git2::ObjectType::Commit,
            TREE => git2::ObjectType::Tree,
            _ => git2::ObjectType::Blob,
        };
        git2::Oid::hash_object(kind, content).unwrap()
    }

    /// Adds an object that is described as a change of another.
    pub(super) fn delta(&mut self, base: git2::Oid, delta: &[u8]) {
        self.compressed(REF_DELTA, delta.len() as u64, Some(base), &deflated(delta));
    }

    pub(super) fn compressed(&mut self, kind: u8, size: u64, base: Option<git2::Oid>, zlib: &[u8]) {
        self.objects += 1;
        let (mut byte, mut left) = (kind << 4 | (size & 15) as u8, size >> 4);
        while left > 0 {
            self.bytes.push(byte | 0x80);
            (byte, left) = ((left & 0x7f) as u8, left >> 7);
        }
        self.bytes.push(byte);
        self.bytes.extend(base.iter().flat_map(|base| base.as_bytes().to_vec()));
        self.bytes.extend(zlib);
    }

    /// A commit whose tree has these entries.
    pub(super) fn commit(&mut self, entries: &[(&str, &str, git2::Oid)]) -> git2::Oid {
        let mut content = Vec::new();
        for (mode, name, id) in entries {
            content.extend(format!("{mode} {name}\0").bytes());
            content.extend(id.as_bytes());
        }
        let tree = self.object(TREE, &content);
        let who = "VO <vo@example.org> 0 +0000";
        self.object(COMMIT, format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n").as_bytes())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut pack = header(self.objects);
        pack.extend(self.bytes);
        let mut sum = Command::new("sha1sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        sum.stdin.take().unwrap().write_all(&pack).unwrap();
        let said = sum.wait_with_output().unwrap().stdout;
        pack.extend(hex::decode(&said[..40]).unwrap());
        pack
    }
}

pub(super) fn header(objects: u32) -> Vec<u8> {
    [&b"PACK\0\0\0\x02"[..], &objects.to_be_bytes()].concat()
}

pub(super) fn deflated(content: &[u8]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(content).unwrap();
    zlib.finish().unwrap()
}

/// A delta from an object of `base_size` bytes to `copies` times all of them and a number that makes it another object. 16 MiB
/// less one byte is the most that one instruction copies.
pub(super) fn copies(base_size: u64, copies: u64, number: u32) -> Vec<u8> {
    let mut delta = Vec::new();
    for mut size in [base_size, base_size * copies + 4] {
        while size >= 0x80 {
            delta.push(size as u8 | 0x80);
            size >>= 7;
        }
        delta.push(size as u8);
    }
    for _ in 0..copies {
        let [a, b, c, ..] = base_size.to_le_bytes();
        delta.extend([0xf0, a, b, c]);
    }
    delta.push(4);
    delta.extend(number.to_le_bytes());
    delta
}

/// One connection of a client, from a server's side.
pub(super) struct Peer {
    stream: TcpStream,
}

impl Peer {
    pub(super) fn line(&mut self, content: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(format!("{:04x}", content.len() + 4).as_bytes())?;
        self.stream.write_all(content)
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        self.stream.write_all(b"0000")
    }

    /// What the client says next; nothing for a flush.
    pub(super) fn hear(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::from_str_radix(std::str::from_utf8(&length).unwrap(), 16).unwrap();
        let mut content = vec![0; length.saturating_sub(4)];
        self.stream.read_exact(&mut content)?;
        Ok((length > 0).then_some(content))
    }

    /// Advertises one commit as `main`, and listens until the client wants it.
    pub(super) fn advertise(&mut self, commit: git2::Oid) -> std::io::Result<()> {
        self.hear()?;
        self.line(format!("{commit} HEAD\0side-band-64k ofs-delta shallow\n").as_bytes())?;
        self.line(format!("{commit} refs/heads/main\n").as_bytes())?;
        self.flush()?;
        while self.hear()?.is_some() {}
        self.line(format!("shallow {commit}").as_bytes())?;
        self.flush()?;
        while self.hear()?.is_none_or(|line| !line.starts_with(b"done")) {}
        Ok(())
    }

    /// Sends a piece of the pack (1) or of what is for people (2).
    pub(super) fn band(&mut self, band: u8, content: &[u8]) -> std::io::Result<()> {
        content.chunks(60_000).try_for_each(|chunk| self.line(&[&[band], chunk].concat()))
    }

    pub(super) fn send(&mut self, commit: git2::Oid, pack: &[u8]) -> std::io::Result<()> {
        self.advertise(commit)?;
        self.line(b"NAK\n")?;
        self.band(1, pack)?;
        self.flush()
    }
}

/// Serves one client and gives the address; errors mean that the client has gone, which is what most wait for.
pub(super) fn serve(answer: impl FnOnce(&mut Peer) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("git://{}/repository", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let _ = answer(&mut Peer { stream });
    });
    uri
}

/// Serves one pack with one commit.
pub(super) fn serve_pack(commit: git2::Oid, pack: Vec<u8>) -> String {
    serve(move |peer| peer.send(commit, &pack))
}
