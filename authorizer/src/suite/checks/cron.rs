//! Periodic jobs: the base's, and those that a `file` step declares.

use super::super::declarations::{Standing, UNSEEN};
use super::super::pattern;
use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "cron",
    sees: Sees::Files,
    lists: &["cron"],
    run: |evidence, config, complaints| {
        for file in &evidence.now.cron {
            let standing = evidence.standing(&file.path, Some(&file.sha256), file.link.as_deref());
            if evidence.base.cron.contains(file)
                || matches!(standing, Standing::Declared(_))
                || pattern::any(&config.cron.allow, &file.path)
            {
                continue;
            }
            let problem = match standing {
                Standing::Different => "is not what the recipe declared",
                Standing::Unseen => UNSEEN,
                _ => "runs by itself, and nobody declared it",
            };
            complaints.add(&file.path, problem, "put it there with a `file` step, or remove it");
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, change, node, small_file};

    const STEP: &str = "[[step]]\nfile = { path = \"/etc/cron.d/x\", content = \"# job\\n\" }\n";

    #[test]
    fn a_job_that_the_recipe_does_not_hold_is_not_declared() {
        let digest = recipe_spec::Sha256Digest::of(b"# job\n");
        let download = format!(
            "[[step]]\ndownload = {{ url = \"https://example.org/x\", sha256 = \"{}\", path = \"/etc/cron.d/x\" }}\n",
            digest.to_hex()
        );
        let mut machine = Machine::base();
        machine.now.cron.push(small_file("/etc/cron.d/x", "# job\n"));
        machine.fails("cron", &download, "", "downloaded");

        let link = "[[step]]\nlink = { path = \"/etc/cron.d/x\", target = \"/opt/job\" }\n";
        let file = "[[step]]\nfile = { path = \"/opt/job\", content = \"# job\\n\" }\n";
        machine.now.cron[0].link = Some("/opt/job".to_owned());
        machine.disk.changes.push(change("/opt/job", None, Some(node("# job\n"))));
        machine.fails("cron", link, "", "behind a link");
        machine.passes("cron", &format!("{link}{file}"), "");
        machine.disk.changes.last_mut().unwrap().after = Some(node("# another job\n"));
        machine.fails("cron", &format!("{link}{file}"), "", "behind a link");
        machine.disk.changes.pop();
        machine.fails("cron", link, "", "behind a link");
        machine.base_paths.push("/opt/job".to_owned());
        machine.passes("cron", link, "");
        machine.disk.changes.push(change("/opt/job/x", None, Some(node("x"))));
        machine.fails("cron", link, "", "behind a link");
    }

    #[test]
    fn a_job_is_the_bases_or_declared_as_it_is() {
        let mut machine = Machine::base();
        machine.now.cron.push(small_file("/etc/cron.d/x", "# job\n"));
        machine.passes("cron", STEP, "");
        machine.fails("cron", "", "", "nobody declared");
        machine.now.cron[0] = small_file("/etc/cron.d/x", "# another job\n");
        machine.fails("cron", STEP, "", "not what the recipe declared");
        machine.base.cron = machine.now.cron.clone();
        machine.passes("cron", "", "");
        machine.now.cron[0].mode = 0o666;
        machine.fails("cron", "", "", "/etc/cron.d/x");
    }
}
