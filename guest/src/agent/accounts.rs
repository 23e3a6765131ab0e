//! `/etc/passwd`, `/etc/group` and their shadow files, read by us: a static program has no name service, and the guest's own
//! would be the guest's word.

use std::io;
use std::path::Path;

use guest::control::AgentError;
use guest::facts::Password;

use super::child::Identity;
use super::escape::escaped;
use super::failure;
use super::root::Root;

/// Longest of these files that is read, in bytes.
const MAX_FILE: usize = 8 * 1024 * 1024;
/// The most supplementary groups of one user (`NGROUPS_MAX`, limits.h).
const MAX_GROUPS: usize = 65_536;

/// A line of `/etc/passwd` (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
    /// The password field itself is empty, which means: no password, whatever the shadow file says.
    pub(crate) password: Password,
}

/// A line of `/etc/group` (group(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupLine {
    pub(crate) name: String,
    pub(crate) gid: u32,
    pub(crate) members: Vec<String>,
    pub(crate) password: Password,
    /// Who may add members (gshadow(5)).
    pub(crate) administrators: Vec<String>,
}

/// All accounts of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) users: Vec<Account>,
    pub(crate) groups: Vec<GroupLine>,
    /// Files with lines that could not be understood.
    pub(crate) malformed: Vec<String>,
}

impl Accounts {
    /// Reads the four files; one that is missing is empty.
    pub(crate) fn read(root: &Root) -> io::Result<Self> {
        let text = |path: &str| -> io::Result<String> {
            Ok(escaped(&root.read(Path::new(path), MAX_FILE)?.unwrap_or_default()))
        };
        Ok(Self::parse(
            &text("/etc/passwd")?,
            &text("/etc/group")?,
            &text("/etc/shadow")?,
            &text("/etc/gshadow")?,
        ))
    }

    /// Understands the four texts.
    pub(crate) fn parse(passwd: &str, group: &str, shadow: &str, gshadow: &str) -> Self {
        let mut malformed = Vec::new();
        let mut note = |file: &str| {
            if !malformed.iter().any(|noted| noted == file) {
                malformed.push(file.to_owned());
            }
        };
        let mut shadows = std::collections::HashMap::new();
        for line in lines(shadow) {
            match line.split(':').collect::<Vec<_>>()[..] {
                // The first line of a name counts, as for the name service.
                [name, password, _, _, _, _, _, _, _] if is_plain(name) => {
                    shadows.entry(name).or_insert(password);
                }
                _ => note("/etc/shadow"),
            }
        }
        let mut users = Vec::new();
        for line in lines(passwd) {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, password, uid, gid, _comment, home, shell] = fields[..] else {
                note("/etc/passwd");
                continue;
            };
            let (true, Ok(uid), Ok(gid)) = (is_plain(name), uid.parse(), gid.parse()) else {
                note("/etc/passwd");
                continue;
            };
            let password = match password {
                "x" => shadows.get(name).map_or(Password::Missing, |hash| password_of(hash)),
                other => password_of(other),
            };
            users.push(Account {
                name: name.to_owned(),
                uid,
                gid,
                home: home.to_owned(),
                shell: shell.to_owned(),
                password,
            });
        }
        let mut group_shadows = std::collections::HashMap::new();
        for line in lines(gshadow) {
            match line.split(':').collect::<Vec<_>>()[..] {
                [name, password, administrators, members] if is_plain(name) => {
                    group_shadows.entry(name).or_insert((password, administrators, members));
                }
                _ => note("/etc/gshadow"),
            }
        }
        let mut groups = Vec::new();
        for line in lines(group) {
            match line.split(':').collect::<Vec<_>>()[..] {
                [name, password, gid, members] if is_plain(name) && gid.parse::<u32>().is_ok() => {
                    let shadow = group_shadows.get(name);
                    let mut members = names(members);
                    // newgrp(1) takes the members from there.
                    members.extend(shadow.map(|(_, _, members)| names(members)).unwrap_or_default());
                    members.sort();
                    members.dedup();
                    groups.push(GroupLine {
                        name: name.to_owned(),
                        gid: gid.parse().unwrap_or_default(),
                        members,
                        password: match (password, shadow) {
                            ("x", Some((hash, ..))) => password_of(hash),
                            ("x", None) => Password::Missing,
                            (other, _) => password_of(other),
                        },
                        administrators: shadow.map(|(_, people, _)| names(people)).unwrap_or_default(),
                    });
                }
                _ => note("/etc/group"),
            }
        }
        Self { users, groups, malformed }
    }

    /// The user of that name; the first line counts.
    pub(crate) fn user(&self, name: &str) -> Option<&Account> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The group of that name; the first line counts.
    pub(crate) fn group(&self, name: &str) -> Option<&GroupLine> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Names of the groups that list `user` as a member, sorted.
    pub(crate) fn supplementary(&self, user: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .groups
            .iter()
            .filter(|group| group.members.iter().any(|member| member == user))
            .map(|group| group.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What a process of `name` runs as.
    ///
    /// # Errors
    /// `BadRequest` if there is no such user.
    pub(crate) fn identity(&self, name: &str) -> Result<Identity, AgentError> {
        let user = self
            .user(name)
            .ok_or_else(|| failure::bad_request(format!("there is no user `{name}` in the guest")))?;
        let mut groups: Vec<u32> = self
            .groups
            .iter()
            .filter(|group| group.members.iter().any(|member| member == name))
            .map(|group| group.gid)
            .chain([user.gid])
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(MAX_GROUPS);
        let home = if user.home.is_empty() { "/" } else { &user.home };
        Ok(Identity { uid: user.uid, gid: user.gid, groups, home: home.to_owned() })
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A name that every reader of these files understands alike. The name service skips blanks before a line (nss/nss_files of
/// glibc): ` root` is root there, and would be somebody else here.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$');
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(plain)
}

fn names(list: &str) -> Vec<String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What a password field says (shadow(5)).
fn password_of(field: &str) -> Password {
    match field {
        "" => Password::Empty,
        locked if locked.starts_with(['*', '!']) => Password::Locked,
        _ => Password::Set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_others_would_read_otherwise_is_malformed() {
        let known = "root:$6$x:1:0:99999:7:::\n";
        for name in [" root", "\\u{9}root", "root ", "", "-x", "ro\\u{0}ot"] {
            let shadow = format!("{name}:$6$x:1:0:99999:7:::\n");
            let accounts = Accounts::parse("", "", &(shadow + known), "");
            assert_eq!(accounts.malformed, ["/etc/shadow"], "{name:?}");
            assert_eq!(
                Accounts::parse(&format!("{name}:x:0:0::/:/bin/sh\n"), "", "", "").malformed,
                ["/etc/passwd"]
            );
            assert_eq!(Accounts::parse("", &format!("{name}:x:0:\n"), "", "").malformed, ["/etc/group"]);
            assert_eq!(Accounts::parse("", "", "", &format!("{name}:::\n")).malformed, ["/etc/gshadow"]);
        }
        let fine = Accounts::parse("_apt:x:42:65534::/x:/x\n", "systemd-journal:x:999:\n", known, "");
        assert!(fine.malformed.is_empty(), "{:?}", fine.malformed);
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        www:x:33:33:www:/var/www:/usr/sbin/nologin\nopen::1000:1000::/home/open:/bin/sh\n\
        late:x:1001:1001::/home/late:/bin/sh\nold:$1$x$y:1002:1002::/:/bin/sh\n+nis::::::\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:syslog,www\nwww:x:33:\nbroken\n";
    const SHADOW: &str = "root:*:19000:0:99999:7:::\nwww:!:19000:0:99999:7:::\n";
    const GSHADOW: &str = "root:*::\nadm:$6$x$y:www:late\n";

    #[test]
    fn a_group_with_a_password_or_an_administrator_is_told() {
        let groups = Accounts::parse(PASSWD, GROUP, SHADOW, GSHADOW).groups;
        let said: Vec<_> = groups.iter().map(|group| (group.name.as_str(), group.password)).collect();
        assert_eq!(said, [("root", Password::Locked), ("adm", Password::Set), ("www", Password::Missing)]);
        assert_eq!(groups[1].administrators, ["www"]);
        assert_eq!(groups[1].members, ["late", "syslog", "www"], "of both files");
    }

    #[test]
    fn passwords_say_whether_anyone_may_log_in() {
        let accounts = Accounts::parse(PASSWD, GROUP, SHADOW, GSHADOW);
        let said: Vec<_> = accounts.users.iter().map(|user| (user.name.as_str(), user.password)).collect();
        assert_eq!(
            said,
            [
                ("root", Password::Locked),
                ("www", Password::Locked),
                ("open", Password::Empty),
                ("late", Password::Missing),
                ("old", Password::Set),
            ]
        );
    }

    #[test]
    fn lines_that_are_not_understood_are_named() {
        assert_eq!(Accounts::parse(PASSWD, GROUP, SHADOW, GSHADOW).malformed, ["/etc/passwd", "/etc/group"]);
    }

    #[test]
    fn an_identity_has_all_groups_of_the_user() {
        let identity = Accounts::parse(PASSWD, GROUP, SHADOW, GSHADOW).identity("www").unwrap();
        assert_eq!(identity, Identity { uid: 33, gid: 33, groups: vec![4, 33], home: "/var/www".into() });
        assert!(Accounts::parse(PASSWD, GROUP, SHADOW, GSHADOW).identity("nobody-there").is_err());
    }
}
