//! As whom the files of a tree are written: a tree belongs to many users, and only root can give files away.
//!
//! Without root that is the root of a user namespace. Our own user is 0 in it, every other id is one that `/etc/subuid`
//! and `/etc/subgid` set aside for us. So what belongs to root in the tree belongs to us outside of it and is read
//! as it is; all that gives a file away, reads its owner or removes it runs inside.

use std::path::Path;
use std::process::Command;

use super::error::BaseError;
use super::tools;

/// A namespace in which we are root and other users exist. Two of them map the same ids.
const NAMESPACE: [&str; 3] = ["--user", "--map-root-user", "--map-auto"];
/// What ends with us, and has mounts of its own.
const GUARD: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];
/// How many ids a tree may use, from 0; the highest is 65534, `nobody` (Debian Policy §9.2.2).
const IDS: u64 = 65_536;

/// Who gives a tree's files to their owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// Root.
    Root,
    /// Root of a user namespace.
    Namespace,
}

impl Owners {
    /// What this process can be.
    pub(super) fn ours() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::Namespace }
    }

    /// A command that may give files to any user, and dies with us.
    pub(super) fn command(self, program: &str) -> Command {
        let mut command = mortal();
        if self == Self::Namespace {
            command.arg("unshare").args(NAMESPACE).arg("--");
        }
        command.arg(program);
        command
    }

    /// The same, for a program that starts others: they are in a PID namespace whose first process dies with us, and so the
    /// kernel kills all of them. What they mount is seen by nobody else.
    pub(super) fn guarded(self, program: &str) -> Command {
        let mut command = mortal();
        command.arg("unshare");
        if self == Self::Namespace {
            command.args(NAMESPACE);
        }
        command.args(GUARD).args(["--", program]);
        command
    }

    /// What this host lacks for it, each with what brings it.
    pub(super) fn missing(self) -> Result<Vec<String>, BaseError> {
        match self {
            Self::Root => Ok(Vec::from_iter(too_few(&std::fs::read_to_string("/proc/self/uid_map")?))),
            Self::Namespace => missing_namespace(),
        }
    }
}

/// A command line that begins with what has the kernel kill it when we end. A namespace leaves that armed, because its root
/// is the same user outside.
fn mortal() -> Command {
    let mut command = tools::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}

/// Root of somebody's user namespace may have fewer ids than a tree uses.
fn too_few(uid_map: &str) -> Option<String> {
    let mapped: u64 =
        uid_map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    let text = || format!("this root is that of a user namespace with {mapped} user ids, {IDS} are needed");
    (mapped < IDS).then(text)
}

fn missing_namespace() -> Result<Vec<String>, BaseError> {
    let mut missing = Vec::new();
    for program in ["newuidmap", "newgidmap"] {
        if tools::find(program).is_none() {
            missing.push(format!("{program} is not installed (package uidmap)"));
        }
    }
    let uid = rustix::process::getuid().as_raw();
    match tools::run(tools::command("id").arg("-un")) {
        Ok(name) => {
            let name = String::from_utf8_lossy(&name).trim().to_owned();
            for file in ["/etc/subuid", "/etc/subgid"] {
                let ranges = std::fs::read_to_string(file).unwrap_or_default();
                missing.extend(no_range(file, &ranges, &name, uid));
            }
        }
        Err(_) => missing.push(format!(
            "user id {uid} has no name (an entry in /etc/passwd), so no ids are set aside for it"
        )),
    }
    // Whether the kernel lets us is asked apart from the helpers, so that all is named at once.
    let bare = tools::run(
        tools::command("unshare").args(["--user", "--map-root-user"]).args(GUARD).args(["--", "true"]),
    );
    let trial = match bare {
        Ok(_) if missing.is_empty() => tools::run(&mut Owners::Namespace.guarded("true")),
        bare => bare,
    };
    match trial {
        Ok(_) => {}
        Err(BaseError::Tool { tail, .. }) => {
            let said = tail.last().map_or("no reason given", String::as_str);
            missing
                .push(format!("no user namespace can be made: {said}{}", forbidden(Path::new("/proc/sys"))));
        }
        Err(other) => return Err(other),
    }
    Ok(missing)
}

/// Says so if `ranges` (the text of `file`) set too few ids aside for the user. `unshare` takes the first range of
/// the user, be it under the name or the number.
fn no_range(file: &str, ranges: &str, name: &str, uid: u32) -> Option<String> {
    let number = uid.to_string();
    let first = ranges.lines().find_map(|line| {
        let mut fields = line.split(':');
        let user = fields.next()?;
        if user != name && user != number {
            return None;
        }
        fields.nth(1)?.trim().parse::<u64>().ok()
    });
    let has = match first {
        Some(count) if count >= IDS => return None,
        Some(count) => format!("the first range of {name} in {file} has {count} ids, {IDS} are needed"),
        None => format!("{file} sets no ids aside for {name}, {IDS} are needed"),
    };
    let option = if file.ends_with("subgid") { "--add-subgids" } else { "--add-subuids" };
    Some(format!("{has} (as root: usermod {option} FIRST-LAST {name})"))
}

/// The setting that forbids user namespaces, if one does.
fn forbidden(settings: &Path) -> &'static str {
    let is = |setting: &str, value: &str| {
        std::fs::read_to_string(settings.join(setting)).is_ok_and(|text| text.trim() == value)
    };
    if is("kernel/unprivileged_userns_clone", "0") {
        " (sysctl kernel.unprivileged_userns_clone is 0, it must be 1)"
    } else if is("user/max_user_namespaces", "0") {
        " (sysctl user.max_user_namespaces is 0)"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        " (AppArmor forbids it: sysctl kernel.apparmor_restrict_unprivileged_userns is 1)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_or_number_and_must_be_large_enough() {
        let lacks = |ranges: &str| no_range("/etc/subuid", ranges, "ann", 1001);
        assert_eq!(lacks("bob:1:65536\nann:100000:65536\n"), None);
        assert_eq!(lacks("1001:100000:65536\n"), None);
        let none = lacks("bob:100000:65536\nann2:1:65536\n").unwrap();
        assert!(none.contains("sets no ids aside for ann") && none.contains("--add-subuids"), "{none}");
        let few = lacks("ann:100000:1000\nann:200000:65536\n").unwrap();
        assert!(few.contains("has 1000 ids"), "{few}");
        assert!(lacks("ann:100000\n").is_some());
        assert!(lacks("").is_some());
    }

    #[test]
    fn the_setting_that_forbids_is_named() {
        let settings = tempfile::tempdir().unwrap();
        let set = |setting: &str, value: &str| {
            let path = settings.path().join(setting);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{value}\n")).unwrap();
        };
        assert_eq!(forbidden(settings.path()), "");
        set("kernel/apparmor_restrict_unprivileged_userns", "1");
        assert!(forbidden(settings.path()).contains("AppArmor"));
        set("user/max_user_namespaces", "0");
        assert!(forbidden(settings.path()).contains("max_user_namespaces"));
        set("kernel/unprivileged_userns_clone", "0");
        assert!(forbidden(settings.path()).contains("unprivileged_userns_clone"));
        for setting in ["kernel/unprivileged_userns_clone", "user/max_user_namespaces"] {
            set(setting, "1");
        }
        set("kernel/apparmor_restrict_unprivileged_userns", "0");
        assert_eq!(forbidden(settings.path()), "");
    }

    #[test]
    fn a_root_with_few_ids_is_none() {
        assert_eq!(too_few("         0          0 4294967295\n"), None);
        assert_eq!(too_few("0 1001 1\n1 100000 65535\n"), None);
        assert!(too_few("0 1001 1\n").unwrap().contains("with 1 user ids"));
    }
}
