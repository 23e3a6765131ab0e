//! Turning the machine off.

use std::time::Duration;

use guest::control::Mode;
use rustix::system::{RebootCommand, reboot};

use super::exec::{Deadline, Launch};
use super::kmsg;
use super::output::Captured;

/// How long `systemctl` may take to accept the order.
const ORDER_LIMIT: Duration = Duration::from_secs(15);

/// Asks the guest's service manager for an orderly power-off; does it at once where there is none or it refuses.
pub(crate) fn off(mode: Mode) {
    if mode == Mode::Disk {
        // What `systemctl poweroff` does when there is no login manager; asking that first can take half a minute if it fails.
        let order = Launch::new([
            "systemctl",
            "--no-block",
            "--job-mode=replace-irreversibly",
            "start",
            "poweroff.target",
        ]);
        let ended = order.run(Deadline::after(ORDER_LIMIT), &mut Captured::new(0));
        if ended.is_ok_and(|ended| ended.status == Some(0)) {
            return;
        }
        kmsg::say("the service manager takes no order to power off, doing it at once");
    }
    at_once();
}

/// Flushes all file systems and turns the machine off.
pub(crate) fn at_once() {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        kmsg::say(&format!("cannot power off: {error}"));
    }
}
