//! What a comparison tells: each path that differs, as values and as canonical lines of JSON.

use std::collections::BTreeMap;

use recipe_spec::digest::Sha256Digest;
use serde::{Deserialize, Serialize};

/// Name of the format of [`Comparison::to_json_lines`].
pub const FORMAT: &str = "countersign disk changes v1";

/// How a sealed disk differs from its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Paths in the sealed disk, `/` and directories included.
    pub files: u64,
    /// What differs, sorted by the bytes of the path as they are on the disk.
    pub changes: Vec<Change>,
    /// Sectors that belong to no file system.
    pub outside: Outside,
}

/// A path that is not the same on both disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// Absolute path, escaped by [`crate::escaped`].
    pub path: String,
    /// What the base has there; absent if the path is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Node>,
    /// What the sealed disk has there; absent if the path is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Node>,
}

/// A file of any kind. Times are not part of it: they prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// File, directory, link, device or the like.
    pub kind: Kind,
    /// `0o7777` of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file's content or of a link's target; 0 for all other kinds.
    pub size: u64,
    /// SHA-256 of the content of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// Where a symbolic link leads, escaped by [`crate::escaped`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Major and minor number of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Names that lead to it; of a directory 1.
    pub links: u16,
    /// Attributes of chattr(1) as bits of the inode: 0x10 immutable, 0x20 append only, and so on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flags: u32,
    /// Extended attributes: full name (`security.capability`), escaped by [`crate::escaped`], and value in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

fn is_zero(flags: &u32) -> bool {
    *flags == 0
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The gravest thing that happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// It is new.
    Created,
    /// It is gone.
    Deleted,
    /// It is of another kind: a link where a file was.
    Kind,
    /// Its content, target or device number is another. Its mode and owner may be too.
    Content,
    /// Only its mode, owner, group, link count, flags or extended attributes are others.
    Metadata,
}

/// Sectors of 512 bytes that lie outside the root file system, or in places of it which mean nothing to a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Outside {
    /// All equal the base's.
    Equal,
    /// Some do not.
    Different {
        /// The first that differs, counted from the beginning of the disk.
        first_sector: u64,
        /// How many differ.
        count: u64,
    },
}

impl Change {
    /// The gravest thing that happened to this path.
    pub fn what(&self) -> What {
        match (&self.before, &self.after) {
            (None, _) => What::Created,
            (_, None) => What::Deleted,
            (Some(before), Some(after)) if before.kind != after.kind => What::Kind,
            (Some(before), Some(after)) if before.content() != after.content() => What::Content,
            _ => What::Metadata,
        }
    }
}

impl Node {
    fn content(&self) -> impl PartialEq + '_ {
        (self.size, self.sha256, &self.target, self.device)
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    format: String,
    files: u64,
    changes: u64,
    outside: Outside,
}

impl Comparison {
    /// One line for the whole, then one for each change, each ended by a line feed; equal comparisons give equal bytes.
    pub fn to_json_lines(&self) -> Vec<u8> {
        let header = Header {
            format: FORMAT.to_owned(),
            files: self.files,
            changes: self.changes.len() as u64,
            outside: self.outside,
        };
        let mut bytes = line(&header);
        for change in &self.changes {
            bytes.extend(line(change));
        }
        bytes
    }

    /// Reads back what [`Comparison::to_json_lines`] wrote, and nothing else: another encoding of the same is an error.
    ///
    /// # Errors
    /// [`ReportError`]: which line, and why.
    pub fn from_json_lines(bytes: &[u8]) -> Result<Self, ReportError> {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').zip(1..);
        let (first, _) = lines.next().ok_or(ReportError::NotCanonical)?;
        let header: Header = parse(first, 1)?;
        if header.format != FORMAT {
            return Err(ReportError::Format);
        }
        let changes = lines.map(|(text, number)| parse(text, number)).collect::<Result<Vec<Change>, _>>()?;
        let comparison = Comparison { files: header.files, changes, outside: header.outside };
        if comparison.to_json_lines() != bytes {
            return Err(ReportError::NotCanonical);
        }
        Ok(comparison)
    }
}

/// Why bytes are not a list of changes.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The first line does not name our format.
    #[error("the first line does not say that this is `{FORMAT}`")]
    Format,
    /// A line is not what should stand there.
    #[error("line {number}: {source}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It says what a list says, in other bytes, or not as many changes as it announces.
    #[error("not the one encoding of a list of changes, or cut off")]
    NotCanonical,
}

/// One line of JSON.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("strings, numbers and maps with text keys only");
    bytes.push(b'\n');
    bytes
}

fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8], number: usize) -> Result<T, ReportError> {
    serde_json::from_slice(bytes).map_err(|source| ReportError::Line { number, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            kind: Kind::File,
            mode: 0o4755,
            uid: 0,
            gid: 8,
            size: 3,
            sha256: Some(Sha256Digest::of(b"abc")),
            target: None,
            device: None,
            links: 1,
            flags: 0,
            attributes: BTreeMap::new(),
        }
    }

    fn comparison() -> Comparison {
        let link = Node { kind: Kind::Link, sha256: None, target: Some("abc".into()), ..node() };
        let device = Node {
            kind: Kind::Char,
            size: 0,
            sha256: None,
            device: Some((1, 3)),
            flags: 0x10,
            attributes: BTreeMap::from([("user.a".into(), "00ff".into())]),
            ..node()
        };
        Comparison {
            files: 7,
            changes: vec![
                Change { path: "/a".into(), before: None, after: Some(node()) },
                Change { path: "/b".into(), before: Some(node()), after: Some(link) },
                Change { path: "/c".into(), before: Some(device), after: None },
            ],
            outside: Outside::Different { first_sector: 6, count: 2 },
        }
    }

    #[test]
    fn the_encoding_stays_as_it_is_documented() {
        let digest = Sha256Digest::of(b"abc").to_hex();
        let expected = format!(
            concat!(
                r#"{{"format":"countersign disk changes v1","files":7,"changes":3,"outside":{{"different":{{"firstSector":6,"count":2}}}}}}"#,
                "\n",
                r#"{{"path":"/a","after":{{"kind":"file","mode":2541,"uid":0,"gid":8,"size":3,"sha256":"{0}","links":1}}}}"#,
                "\n",
                r#"{{"path":"/b","before":{{"kind":"file","mode":2541,"uid":0,"gid":8,"size":3,"sha256":"{0}","links":1}},"#,
                r#""after":{{"kind":"link","mode":2541,"uid":0,"gid":8,"size":3,"target":"abc","links":1}}}}"#,
                "\n",
                r#"{{"path":"/c","before":{{"kind":"char","mode":2541,"uid":0,"gid":8,"size":0,"device":[1,3],"links":1,"#,
                r#""flags":16,"attributes":{{"user.a":"00ff"}}}}}}"#,
                "\n"
            ),
            digest
        );
        assert_eq!(String::from_utf8(comparison().to_json_lines()).unwrap(), expected);
        let equal = Comparison { files: 0, changes: vec![], outside: Outside::Equal };
        assert_eq!(
            equal.to_json_lines(),
            b"{\"format\":\"countersign disk changes v1\",\"files\":0,\"changes\":0,\"outside\":\"equal\"}\n"
        );
    }

    #[test]
    fn a_list_reads_back_and_no_other_encoding_does() {
        let bytes = comparison().to_json_lines();
        assert_eq!(Comparison::from_json_lines(&bytes).unwrap(), comparison());
        for length in 0..bytes.len() {
            assert!(Comparison::from_json_lines(&bytes[..length]).is_err(), "cut after {length} bytes");
        }
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("\"files\":7", "\"files\": 7"),
            ("changes v1", "changes v2"),
            ("\"links\":1}}", "\"links\":1,\"target\":null}}"),
            ("\"uid\":0", "\"owner\":0,\"uid\":0"),
        ] {
            assert!(Comparison::from_json_lines(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn the_gravest_thing_is_told() {
        let change =
            |before: Option<Node>, after: Option<Node>| Change { path: "/x".into(), before, after }.what();
        assert_eq!(change(None, Some(node())), What::Created);
        assert_eq!(change(Some(node()), None), What::Deleted);
        assert_eq!(change(Some(node()), Some(Node { kind: Kind::Fifo, ..node() })), What::Kind);
        let other = Node { sha256: Some(Sha256Digest::of(b"x")), mode: 0, ..node() };
        assert_eq!(change(Some(node()), Some(other)), What::Content);
        for other in [
            Node { mode: 0o755, ..node() },
            Node { uid: 1, ..node() },
            Node { links: 2, ..node() },
            Node { flags: 0x10, ..node() },
        ] {
            assert_eq!(change(Some(node()), Some(other)), What::Metadata);
        }
    }
}
