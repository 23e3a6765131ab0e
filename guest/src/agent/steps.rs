//! The steps of a recipe: each looks first, changes what differs, and says whether it did.

mod account;
mod download;
mod file;
mod package;
mod run;
mod service;

use std::path::{Path, PathBuf};

use guest::control::{AgentError, Exited, StepOutcome};
use recipe_spec::manifest::StepKind;
use recipe_spec::name::UserName;
use recipe_spec::path::RecipePath;

use super::accounts::Accounts;
use super::content::Attributes;
use super::exec::{Deadline, Launch};
use super::failure;
use super::output::{Captured, Output, Remembered};
use super::root::Root;

/// Last words of a tool that an error repeats, in bytes.
const LAST_WORDS: usize = 400;
/// Output kept of a tool that is asked something, in bytes.
const ANSWER: usize = 64 * 1024;

/// What a step works with.
pub(crate) struct Workshop<'a> {
    /// The machine's root.
    pub(crate) root: &'a Root,
    /// Folder with the recipe's payload.
    pub(crate) payload: &'a Path,
    /// Programs may use the relay as their proxy.
    pub(crate) relay: bool,
    /// When the step must be over.
    pub(crate) deadline: Deadline,
}

impl Workshop<'_> {
    /// Brings `step` about. What tools say goes to `output`.
    ///
    /// # Errors
    /// `ToolMissing`, `ToolFailed`, `TimedOut`, `System`, `BadRequest`.
    pub(crate) fn apply(&self, step: &StepKind, output: &mut dyn Output) -> Result<StepOutcome, AgentError> {
        match step {
            StepKind::Package(names) => package::install(self, names, output),
            StepKind::File(step) => file::file(self, step),
            StepKind::Directory(step) => file::directory(self, step),
            StepKind::Link(step) => file::link(self, step),
            StepKind::User(step) => account::user(self, step, output),
            StepKind::Group(step) => account::group(self, step, output),
            StepKind::Service(step) => service::settle(self, step, output),
            StepKind::Download(step) => download::place(self, step),
            StepKind::Run(step) => run::run(self, step, output),
        }
    }

    fn accounts(&self) -> Result<Accounts, AgentError> {
        Accounts::read(self.root).map_err(|error| failure::system("read the accounts", error))
    }

    /// Numbers of owner and group; `root` if not named.
    fn attributes(
        &self,
        mode: u32,
        owner: Option<&UserName>,
        group: Option<&UserName>,
    ) -> Result<Attributes, AgentError> {
        let mut attributes = Attributes { mode: Some(mode), uid: Some(0), gid: Some(0) };
        if owner.is_none() && group.is_none() {
            return Ok(attributes);
        }
        let accounts = self.accounts()?;
        if let Some(owner) = owner {
            let user = accounts.user(owner.as_str());
            let user =
                user.ok_or_else(|| failure::bad_request(format!("there is no user `{owner}` in the guest")))?;
            attributes.uid = Some(user.uid);
        }
        if let Some(group) = group {
            let line = accounts.group(group.as_str());
            let line = line
                .ok_or_else(|| failure::bad_request(format!("there is no group `{group}` in the guest")))?;
            attributes.gid = Some(line.gid);
        }
        Ok(attributes)
    }

    fn in_payload(&self, path: &RecipePath) -> PathBuf {
        self.payload.join(path.as_str())
    }

    /// Runs a tool that must succeed.
    fn tool(&self, launch: &Launch, output: &mut dyn Output) -> Result<(), AgentError> {
        let mut remembered = Remembered::new(output);
        let ended = launch.run(self.deadline, &mut remembered)?;
        succeeded(&launch.argv[0], ended, &remembered.tail)
    }

    /// Asks a tool something: its exit status and its standard output.
    fn ask(&self, launch: &Launch) -> Result<(Option<i32>, String), AgentError> {
        let mut answer = Captured::new(ANSWER);
        let ended = launch.run(self.deadline, &mut answer)?;
        if ended.timed_out {
            return Err(failure::timed_out(format_args!("`{}`", launch.argv[0])));
        }
        Ok((ended.status, answer.text()))
    }
}

/// An error unless `what` exited with status 0; it repeats the tool's last words.
fn succeeded(what: &str, ended: Exited, said: &[u8]) -> Result<(), AgentError> {
    if ended.timed_out {
        return Err(failure::timed_out(format_args!("`{what}`")));
    }
    let how = match (ended.status, ended.signal) {
        (Some(0), _) => return Ok(()),
        (Some(status), _) => format!("exit status {status}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    };
    let said = super::escape::escaped(&said[said.len().saturating_sub(LAST_WORDS)..]);
    let last = said.trim_end().lines().next_back().unwrap_or_default();
    let colon = if last.is_empty() { "" } else { ": " };
    Err(failure::tool_failed(format!("`{what}` ended with {how}{colon}{last}")))
}

/// Changed, if so.
fn outcome(changed: bool) -> StepOutcome {
    if changed { StepOutcome::Changed } else { StepOutcome::Unchanged }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::time::Duration;

    use guest::control::AgentErrorKind;

    use super::*;

    /// A folder as a guest's root, with one account: whoever runs the test.
    struct Guest {
        folder: tempfile::TempDir,
        root: Root,
    }

    impl Guest {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            fs::create_dir_all(folder.path().join("etc")).unwrap();
            fs::create_dir_all(folder.path().join("payload/.download")).unwrap();
            fs::write(folder.path().join("etc/passwd"), format!("me:x:{uid}:{gid}::/:/bin/sh\n")).unwrap();
            fs::write(folder.path().join("etc/group"), format!("us:x:{gid}:\n")).unwrap();
            let root = Root::open(folder.path()).unwrap();
            Self { folder, root }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn apply(&self, step: &str) -> Result<StepOutcome, AgentError> {
            let deadline = Deadline::after(Duration::from_secs(60));
            let workshop =
                Workshop { root: &self.root, payload: Path::new("/payload"), relay: false, deadline };
            workshop.apply(&serde_json::from_str(step).unwrap(), &mut Captured::new(0))
        }

        fn changed_once(&self, step: &str) {
            assert_eq!(self.apply(step).unwrap(), StepOutcome::Changed, "{step}");
            assert_eq!(self.apply(step).unwrap(), StepOutcome::Unchanged, "{step}");
        }

        fn mode(&self, path: &str) -> u32 {
            fs::symlink_metadata(self.at(path)).unwrap().mode() & 0o7777
        }
    }

    const OWNED: &str = r#""owner": "me", "group": "us""#;

    #[test]
    fn a_file_gets_content_and_mode_and_each_is_mended_alone() {
        let guest = Guest::new();
        let step =
            format!(r#"{{"file": {{"path": "/srv/a/b", "content": "x\n", "mode": "0640", {OWNED}}}}}"#);
        guest.changed_once(&step);
        assert_eq!((fs::read(guest.at("srv/a/b")).unwrap(), guest.mode("srv/a/b")), (b"x\n".to_vec(), 0o640));
        fs::set_permissions(guest.at("srv/a/b"), Permissions::from_mode(0o666)).unwrap();
        guest.changed_once(&step);
        assert_eq!(guest.mode("srv/a/b"), 0o640);
        fs::write(guest.at("srv/a/b"), "y\n").unwrap();
        guest.changed_once(&step);
        assert_eq!(fs::read(guest.at("srv/a/b")).unwrap(), b"x\n");
        assert_eq!(fs::read_dir(guest.at("srv/a")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_a_files_place_is_replaced_and_its_target_left() {
        let guest = Guest::new();
        fs::write(guest.at("etc/target"), "keep").unwrap();
        symlink("target", guest.at("etc/file")).unwrap();
        guest.changed_once(&format!(r#"{{"file": {{"path": "/etc/file", "content": "new", {OWNED}}}}}"#));
        assert!(fs::symlink_metadata(guest.at("etc/file")).unwrap().is_file());
        assert_eq!(fs::read(guest.at("etc/target")).unwrap(), b"keep");
    }

    #[test]
    fn links_on_the_way_stay_inside_the_root() {
        let guest = Guest::new();
        fs::create_dir_all(guest.at("usr/lib")).unwrap();
        symlink("/usr/lib", guest.at("lib")).unwrap();
        symlink("../../../../usr", guest.at("up")).unwrap();
        guest.changed_once(&format!(r#"{{"file": {{"path": "/lib/one", "content": "1", {OWNED}}}}}"#));
        guest.changed_once(&format!(r#"{{"file": {{"path": "/up/lib/two", "content": "2", {OWNED}}}}}"#));
        assert!(guest.at("usr/lib/one").exists() && guest.at("usr/lib/two").exists());
    }

    #[test]
    fn a_file_comes_from_the_payload_and_never_through_a_link_there() {
        let guest = Guest::new();
        fs::write(guest.at("payload/page"), "page").unwrap();
        guest.changed_once(&format!(r#"{{"file": {{"path": "/srv/page", "source": "page", {OWNED}}}}}"#));
        assert_eq!(fs::read(guest.at("srv/page")).unwrap(), b"page");
        symlink("/etc/passwd", guest.at("payload/sneaky")).unwrap();
        let step = format!(r#"{{"file": {{"path": "/srv/page", "source": "sneaky", {OWNED}}}}}"#);
        assert_eq!(guest.apply(&step).unwrap_err().kind, AgentErrorKind::System);
        let step = format!(r#"{{"file": {{"path": "/srv/page", {OWNED}}}}}"#);
        assert_eq!(guest.apply(&step).unwrap_err().kind, AgentErrorKind::BadRequest);
    }

    #[test]
    fn a_download_must_have_its_digest() {
        let guest = Guest::new();
        let digest = recipe_spec::digest::Sha256Digest::of(b"fetched").to_hex();
        let step = format!(
            r#"{{"download": {{"url": "https://x/y", "sha256": "{digest}", "path": "/opt/y", "mode": "0755", {OWNED}}}}}"#
        );
        assert_eq!(guest.apply(&step).unwrap_err().kind, AgentErrorKind::System);
        fs::write(guest.at("payload/.download").join(&digest), "other").unwrap();
        assert_eq!(guest.apply(&step).unwrap_err().kind, AgentErrorKind::BadRequest);
        assert!(!guest.at("opt").exists());
        fs::write(guest.at("payload/.download").join(&digest), "fetched").unwrap();
        guest.changed_once(&step);
        assert_eq!(guest.mode("opt/y"), 0o755);
    }

    #[test]
    fn a_directory_is_made_with_those_above_it() {
        let guest = Guest::new();
        let step = format!(r#"{{"directory": {{"path": "/srv/a/b", "mode": "1777", {OWNED}}}}}"#);
        guest.changed_once(&step);
        assert_eq!((guest.mode("srv/a"), guest.mode("srv/a/b")), (0o755, 0o1777));
        fs::write(guest.at("srv/file"), "").unwrap();
        symlink("a", guest.at("srv/link")).unwrap();
        for name in ["file", "link"] {
            let step = format!(r#"{{"directory": {{"path": "/srv/{name}", {OWNED}}}}}"#);
            assert_eq!(guest.apply(&step).unwrap_err().kind, AgentErrorKind::System, "{name}");
        }
    }

    #[test]
    fn a_link_points_where_it_should_and_replaces_no_folder() {
        let guest = Guest::new();
        let step = r#"{"link": {"path": "/etc/alias", "target": "../nowhere"}}"#;
        guest.changed_once(step);
        assert_eq!(fs::read_link(guest.at("etc/alias")).unwrap(), Path::new("../nowhere"));
        guest.changed_once(r#"{"link": {"path": "/etc/alias", "target": "/else"}}"#);
        fs::create_dir(guest.at("etc/folder")).unwrap();
        let step = r#"{"link": {"path": "/etc/folder", "target": "x"}}"#;
        assert_eq!(guest.apply(step).unwrap_err().kind, AgentErrorKind::System);
        assert!(
            !fs::read_dir(guest.at("etc"))
                .unwrap()
                .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with(".countersign") })
        );
    }

    #[test]
    fn an_unknown_owner_is_no_guess() {
        let guest = Guest::new();
        for who in [r#""owner": "stranger""#, r#""group": "strangers""#] {
            let step = format!(r#"{{"file": {{"path": "/srv/x", "content": "", {who}}}}}"#);
            assert_eq!(guest.apply(&step).unwrap_err().kind, AgentErrorKind::BadRequest);
        }
        assert!(!guest.at("srv").exists());
    }

    #[test]
    fn what_is_there_already_needs_no_tool() {
        let guest = Guest::new();
        fs::create_dir_all(guest.at("var/lib/dpkg")).unwrap();
        let status = "Package: hello\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";
        fs::write(guest.at("var/lib/dpkg/status"), status).unwrap();
        for step in [
            r#"{"package": ["hello"]}"#.to_owned(),
            r#"{"user": {"name": "me", "system": false}}"#.to_owned(),
            r#"{"group": {"name": "us", "system": false}}"#.to_owned(),
            r#"{"run": {"script": "missing.sh", "creates": "/etc/passwd", "timeout": "10s"}}"#.to_owned(),
        ] {
            assert_eq!(guest.apply(&step).unwrap(), StepOutcome::Unchanged, "{step}");
        }
    }
}
