//! Periodic jobs: the base's, and those that a `file` step declares.

use super::super::declarations::Standing;
use super::super::pattern;
use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "cron",
    sees: Sees::Files,
    lists: &["cron"],
    run: |evidence, config, complaints| {
        for file in &evidence.now.cron {
            let standing = evidence.declared.standing(&file.path, Some(&file.sha256), file.link.as_deref());
            if evidence.base.cron.contains(file)
                || matches!(standing, Standing::Declared(_))
                || pattern::any(&config.cron.allow, &file.path)
            {
                continue;
            }
            let problem = match standing {
                Standing::Different => "is not what the recipe declared",
                _ => "runs by itself, and nobody declared it",
            };
            complaints.add(&file.path, problem, "put it there with a `file` step, or remove it");
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, small_file};

    const STEP: &str = "[[step]]\nfile = { path = \"/etc/cron.d/x\", content = \"# job\\n\" }\n";

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
