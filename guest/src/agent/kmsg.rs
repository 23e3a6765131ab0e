//! The agent's few words to a person: lines in the kernel's log, which the console shows.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

static KMSG: OnceLock<Option<File>> = OnceLock::new();

/// Opens `/dev/kmsg` now. Before a chroot this must be called once, because the new root may have no `/dev` yet.
pub(crate) fn open() {
    KMSG.get_or_init(|| File::options().write(true).open("/dev/kmsg").ok());
}

/// Says one line, if there is a kernel log to say it to.
pub(crate) fn say(line: &str) {
    if let Some(Some(mut file)) = KMSG.get().map(Option::as_ref) {
        // One write is one record; a log that cannot be written has nobody to be told.
        let _unheard = file.write_all(format!("<5>countersign-agent: {line}\n").as_bytes());
    }
}
