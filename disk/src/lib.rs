//! A sealed disk is judged by what lies on it, never by what runs on it: read from outside, and never mounted.
//!
//! The layers of a disk were written by a QEMU that is assumed to have been taken over by its guest, and the file system in
//! them by whoever was root in that guest. So every byte is hostile: a file name inside an image is never followed, every size
//! is a limit with a name, and what is not understood or does not add up is an error, not a shorter list.
//!
//! [`compare`] reads the base and the sealed disk side by side and tells each path that differs. Time stamps prove nothing and
//! are not looked at: a file counts as unchanged only if its data lies in the same blocks and no layer holds any of them, or if
//! both contents were hashed. A disk that the guest's kernel could read otherwise than it is read here, or would itself change
//! when it starts, is refused: a journal to be replayed, orphans, blocks with two owners, live blocks marked free.
//!
//! Open files in, values out: no process, no thread, no path of the host.

mod chain;
mod compare;
mod content;
mod error;
mod ext4;
mod limits;
mod merge;
mod outside;
mod qcow2;
mod report;
mod text;

pub use compare::{Left, compare, compare_and_list};
pub use error::{DiskError, Which};
pub use limits::Limits;
pub use report::{Change, Comparison, FORMAT, Kind, Node, Outside, ReportError, What};
pub use text::escaped;
