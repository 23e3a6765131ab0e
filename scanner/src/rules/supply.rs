//! SUP: where software comes from, and whether it can change unseen.

use super::{Scene, Sink, rule};
use crate::action::{Kind, Origin};
use crate::finding::{RuleInfo, Severity};

const NO_CHECKSUM: RuleInfo = rule(
    "SUP-001",
    Severity::Warn,
    "download without a checksum",
    "use a `download` step with its sha256",
    "CWE-494",
    "T1195",
);
const REPOSITORY: RuleInfo = rule(
    "SUP-003",
    Severity::Warn,
    "repository or key of a third party",
    "ask the site for an origin, and name it under `[network] fetch`",
    "CWE-829",
    "T1195.002",
);
const EXTRA_INDEX: RuleInfo = rule(
    "SUP-005",
    Severity::Deny,
    "packages from an index that is not checked",
    "use one index, over https, with hashes (`--require-hashes`)",
    "CWE-829",
    "T1195.002",
);
const WEAK_CHECKSUM: RuleInfo =
    rule("SUP-006", Severity::Warn, "checksum that can be forged", "use SHA-256", "CWE-328", "");

pub(super) const RULES: &[RuleInfo] = &[NO_CHECKSUM, REPOSITORY, EXTRA_INDEX, WEAK_CHECKSUM];

pub(super) fn check(scene: &Scene<'_>, sink: &mut Sink<'_>) {
    let verified = scene.verifies();
    for (action, fetch) in scene.fetches() {
        let Some(output) = fetch.output.as_ref().filter(|_| !verified && action.origin == Origin::Script)
        else {
            continue;
        };
        let name = output.base().to_ascii_lowercase();
        let program = [
            ".sh",
            ".run",
            ".bin",
            ".deb",
            ".rpm",
            ".tar.gz",
            ".tgz",
            ".tar.xz",
            ".tar.bz2",
            ".zip",
            ".jar",
            ".py",
            ".whl",
            ".pl",
            ".appimage",
            ".so",
            ".ko",
        ]
        .iter()
        .any(|end| name.ends_with(end))
            || output.text.contains("/bin/");
        if program {
            sink.report(
                &NO_CHECKSUM,
                &action.span,
                format!("`{}` is kept without a check of its digest", output.shown()),
            );
        }
    }
    for action in scene.actions {
        match &action.kind {
            Kind::Package { options, program } => {
                let index = options.iter().find(|word| {
                    matches!(word.text.as_str(), "--trusted-host" | "--extra-index-url")
                        || word.text.starts_with("--trusted-host=")
                        || word.text.starts_with("--extra-index-url=")
                });
                if let Some(option) = index {
                    sink.report(&EXTRA_INDEX, &action.span, format!("`{program}` gets `{}`", option.shown()));
                }
            }
            Kind::Run(run) => match run.program() {
                "md5sum" | "sha1sum" | "md5" if run.flag('c', "--check") => {
                    sink.report(
                        &WEAK_CHECKSUM,
                        &action.span,
                        format!("`{}` cannot tell a forged file", run.program()),
                    );
                }
                "add-apt-repository" | "apt-add-repository" | "yum-config-manager" | "apt-key"
                    if run.has("add")
                        || run.has("--add-repo")
                        || run.has("adv")
                        || run.program().starts_with("a") && run.program() != "apt-key" =>
                {
                    sink.report(
                        &REPOSITORY,
                        &action.span,
                        format!("`{}` adds a source of packages", run.program()),
                    );
                }
                _ => {}
            },
            Kind::WriteFile(write) => {
                let path = write.path.text.as_str();
                if path.contains("/etc/apt/sources.list")
                    || path.contains("/etc/yum.repos.d/")
                    || path == "/etc/apk/repositories"
                {
                    sink.report(
                        &REPOSITORY,
                        &action.span,
                        format!("`{}` is a source of packages", write.path.shown()),
                    );
                }
            }
            _ => {}
        }
    }
}
