//! What the site's recipes put in place lies on the sealed disk as they say: content, mode and owner.
//!
//! The VO's programs ran beside the site's recipes and after them, as root. So nothing of what those recipes did counts but what
//! is on the disk, seen from outside.

use disk::{Kind, Node};
use recipe_spec::Sha256Digest;
use recipe_spec::manifest::Listen;
use serde::{Deserialize, Serialize};

use super::super::declarations::{Content, DeclaredFile};
use super::configuration::{ConfigurationConfig, is_of_boot};
use super::listening::protocol_name;
use super::{Check, Evidence, Sees};

/// A file that a script of the site's recipe makes of what the VO's recipe declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rendered {
    /// Where it lies: root's, mode 0644.
    pub path: String,
    /// A line for each port of `[network] listen`, with `{protocol}` and `{port}`.
    pub listen: String,
    /// The whole file; the line `{listen}` stands for the lines of all ports, in the recipe's order, and is empty if there are
    /// none.
    pub text: String,
}

/// A text with the lines of all declared ports in it.
pub(super) fn rendered(text: &str, line: &str, declared: &[Listen]) -> String {
    let lines: Vec<_> = declared
        .iter()
        .map(|listen| {
            let protocol = protocol_name(listen.protocol);
            line.replace("{protocol}", protocol).replace("{port}", &listen.port.to_string())
        })
        .collect();
    text.replace("{listen}", &lines.join("\n"))
}

const REMEDY: &str = "leave the site's settings alone";

pub(super) const CHECK: Check = Check {
    name: "site-files",
    sees: Sees::Files,
    lists: &[],
    run: |evidence, config, complaints| {
        for (path, file) in evidence.declared.site_files() {
            if let Some(problem) = judge(evidence, &config.configuration, path, file) {
                complaints.add(path, problem, REMEDY);
            }
        }
        for rendered in &config.rendered {
            let Rendered { path, listen, text } = rendered;
            let text = self::rendered(text, listen, &evidence.declared.vo_listen);
            let content = Content::Bytes(Sha256Digest::of(text.as_bytes()));
            let file = DeclaredFile { content, ..DeclaredFile::SITES };
            if let Some(problem) = judge(evidence, &config.configuration, path, &file) {
                complaints.add(path, problem, REMEDY);
            }
        }
    },
};

fn judge(
    evidence: &Evidence<'_>,
    config: &ConfigurationConfig,
    path: &str,
    file: &DeclaredFile,
) -> Option<&'static str> {
    if let Some(change) = evidence.changes.changes.iter().find(|change| change.path == path) {
        return match &change.after {
            _ if is_of_boot(evidence.when, config, change) => None,
            None => Some("was removed after the site's recipe"),
            Some(after) if !has_content(after, &file.content) => Some("was changed after the site's recipe"),
            Some(after) if !has_rights(after, file) => {
                Some("has another mode or owner than the site's recipe gave it")
            }
            Some(_) => None,
        };
    }
    if !evidence.base_paths.iter().any(|base| base == path) {
        return Some("is not there, and the site's recipe put it there");
    }
    // As the base has it, so with the base's mode and owner; whether that is what the recipe says is in the content.
    match &file.content {
        Content::Bytes(digest) => {
            let as_said = evidence.contents.get(path).is_some_and(|bytes| Sha256Digest::of(bytes) == *digest);
            (!as_said).then_some("is as the base has it, and the site's recipe changed it")
        }
        Content::Link(_) => None,
    }
}

fn has_content(node: &Node, content: &Content) -> bool {
    match content {
        Content::Bytes(digest) => node.kind == Kind::File && node.sha256 == Some(*digest),
        Content::Link(target) => node.kind == Kind::Link && node.target.as_ref() == Some(target),
    }
}

fn has_rights(node: &Node, file: &DeclaredFile) -> bool {
    let owners = (node.uid == 0, node.gid == 0) == file.root;
    owners && (node.kind == Kind::Link || node.mode == file.mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::fixture::{Machine, change, node};

    const PATH: &str = "/etc/audit/rules.d/50-x.rules";
    const STEP: &str = "[[step]]\nfile = { path = \"/etc/audit/rules.d/50-x.rules\", content = \"-w /x\\n\", mode = \"0640\" }\n";

    fn as_said() -> Node {
        Node { mode: 0o640, ..node("-w /x\n") }
    }

    #[test]
    fn a_file_of_the_site_lies_there_as_it_says() {
        let mut machine = Machine::base();
        machine.fails("site-files", "", STEP, "is not there");
        // What the VO declares is its own affair.
        machine.passes("site-files", STEP, "");
        machine.disk.changes.push(change(PATH, None, Some(as_said())));
        machine.passes("site-files", "", STEP);
        for (node, said) in [
            (Node { mode: 0o644, ..as_said() }, "another mode"),
            (Node { uid: 65534, ..as_said() }, "another mode or owner"),
            (Node { gid: 65534, ..as_said() }, "another mode or owner"),
            (Node { mode: 0o640, ..crate::suite::fixture::node("-w /y\n") }, "was changed"),
            (
                Node { kind: Kind::Link, sha256: None, target: Some("/x".to_owned()), ..as_said() },
                "was changed",
            ),
        ] {
            let pushed = machine.disk.changes.len() - 1;
            machine.disk.changes[pushed] = change(PATH, None, Some(node));
            machine.fails("site-files", "", STEP, said);
        }
    }

    #[test]
    fn a_file_of_the_base_that_the_site_changed_is_not_changed_back() {
        let mut machine = Machine::base();
        machine.base_paths.push(PATH.to_owned());
        machine.fails("site-files", "", STEP, "as the base has it");
        machine.contents.insert(PATH.to_owned(), b"-w /y\n".to_vec());
        machine.fails("site-files", "", STEP, "as the base has it");
        machine.contents.insert(PATH.to_owned(), b"-w /x\n".to_vec());
        machine.passes("site-files", "", STEP);
        machine.disk.changes.push(change(PATH, Some(as_said()), None));
        machine.fails("site-files", "", STEP, "was removed");
    }

    #[test]
    fn a_link_of_the_site_leads_where_it_says() {
        let step = "[[step]]\nlink = { path = \"/etc/localtime\", target = \"/usr/share/zoneinfo/UTC\" }\n";
        let to = |target: &str| Node {
            kind: Kind::Link,
            mode: 0o777,
            sha256: None,
            target: Some(target.to_owned()),
            ..node("")
        };
        let mut machine = Machine::base();
        machine.disk.changes.push(change("/etc/localtime", None, Some(to("/usr/share/zoneinfo/UTC"))));
        machine.passes("site-files", "", step);
        machine.disk.changes[0].after = Some(to("/x"));
        machine.fails("site-files", "", step, "was changed");
    }

    #[test]
    fn what_is_made_of_the_declared_ports_holds_them_and_nothing_else() {
        let listen =
            "[network]\nlisten = [{ port = 80, protocol = \"tcp\" }, { port = 53, protocol = \"udp\" }]\n";
        let config = Machine::config();
        let rendered = &config.rendered[0];
        let two = rendered.text.replace("{listen}", "    tcp dport 80 accept\n    udp dport 53 accept");
        let machine = |text: &str| {
            let mut machine = Machine::base();
            machine.disk.changes.retain(|change| change.path != rendered.path);
            machine.disk.changes.push(change(&rendered.path, Some(node("")), Some(node(text))));
            machine
        };
        machine(&two).passes("site-files", listen, "");
        machine(&two).fails("site-files", "", "", &rendered.path);
        machine("flush ruleset\n").fails("site-files", listen, "", &rendered.path);
        let mut given = machine(&two);
        given.disk.changes.last_mut().unwrap().after.as_mut().unwrap().uid = 65534;
        given.fails("site-files", listen, "", "another mode or owner");
    }
}
