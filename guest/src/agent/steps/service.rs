//! `service`: units of systemd, enabled and running as the step says.

use guest::control::{AgentError, StepOutcome};
use recipe_spec::manifest::ServiceStep;

use super::{Workshop, outcome};
use crate::agent::exec::Launch;
use crate::agent::failure;
use crate::agent::output::Output;

/// Suffixes of the kinds of units (systemd.unit(5)).
const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

pub(super) fn settle(
    workshop: &Workshop<'_>,
    step: &ServiceStep,
    output: &mut dyn Output,
) -> Result<StepOutcome, AgentError> {
    let unit = unit_name(&step.name)?;
    let mut changed = false;
    if let Some(wanted) = step.enabled {
        let (_, state) = workshop.ask(&systemctl(["is-enabled", "--", &unit]))?;
        if must_change(state.trim(), wanted) {
            let verb = if wanted { "enable" } else { "disable" };
            workshop.tool(&systemctl([verb, "--", &unit]), output)?;
            changed = true;
        }
    }
    if let Some(wanted) = step.running {
        let (_, state) = workshop.ask(&systemctl(["is-active", "--", &unit]))?;
        if is_running(state.trim()) != wanted {
            let show = systemctl(["show", "--property=NeedDaemonReload", "--value", "--", &unit]);
            if workshop.ask(&show)?.1.trim() == "yes" {
                workshop.tool(&systemctl(["daemon-reload"]), output)?;
            }
            let verb = if wanted { "start" } else { "stop" };
            workshop.tool(&systemctl([verb, "--", &unit]), output)?;
            changed = true;
        }
    }
    Ok(outcome(changed))
}

fn systemctl<const N: usize>(words: [&str; N]) -> Launch {
    Launch::new(["systemctl", "--no-pager", "--no-ask-password"].into_iter().chain(words))
}

fn unit_name(name: &str) -> Result<String, AgentError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if name.is_empty() || name.starts_with('-') || !name.bytes().all(plain) {
        return Err(failure::bad_request(format!("{name:?} is not the name of a unit")));
    }
    let has_suffix = name.rsplit_once('.').is_some_and(|(_, suffix)| SUFFIXES.contains(&suffix));
    Ok(if has_suffix { name.to_owned() } else { format!("{name}.service") })
}

/// Whether the state that `systemctl is-enabled` says (systemctl(1)) is not the wanted one. Units without an `[Install]`
/// section can be neither enabled nor disabled, so they are as wanted. An unknown state is for `systemctl` itself to refuse.
fn must_change(state: &str, wanted: bool) -> bool {
    match state {
        "static" | "indirect" | "generated" | "transient" => false,
        "enabled" | "alias" => !wanted,
        "disabled" | "masked" | "masked-runtime" => wanted,
        _ => true,
    }
}

/// What `systemctl is-active` says.
fn is_running(state: &str) -> bool {
    matches!(state, "active" | "reloading" | "refreshing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_name_is_never_an_option_or_a_path() {
        assert_eq!(unit_name("nginx").unwrap(), "nginx.service");
        assert_eq!(unit_name("fstrim.timer").unwrap(), "fstrim.timer");
        assert_eq!(unit_name("getty@tty1").unwrap(), "getty@tty1.service");
        assert_eq!(unit_name("org.example.web").unwrap(), "org.example.web.service");
        for hostile in ["", "-x", "--root=/", "../x", "a b", "a\nb", "*"] {
            assert!(unit_name(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn only_a_state_that_differs_is_changed() {
        assert!(!must_change("enabled", true));
        assert!(must_change("enabled", false));
        assert!(must_change("disabled", true));
        assert!(!must_change("disabled", false));
        assert!(!must_change("masked", false));
        assert!(!must_change("static", true));
        assert!(must_change("", false));
        assert!(is_running("active") && !is_running("activating") && !is_running("failed"));
    }
}
