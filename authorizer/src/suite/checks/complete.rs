//! The agent saw everything: nothing was cut, nothing was unreadable.

use super::{Check, Sees};

pub(super) const CHECK: Check = Check {
    name: "complete",
    sees: Sees::Files,
    lists: &[],
    run: |evidence, _, complaints| {
        for (facts, whose) in [(evidence.now, "this machine"), (evidence.base, "the base")] {
            for cut in &facts.truncated {
                complaints.add(
                    cut,
                    format_args!("not seen whole on {whose}"),
                    "a machine that cannot be seen cannot pass; have less of it, or make it readable",
                );
            }
        }
    },
};

#[cfg(test)]
mod tests {
    use crate::suite::fixture::Machine;

    #[test]
    fn an_unreadable_file_fails() {
        let mut machine = Machine::base();
        machine.passes("complete", "", "");
        machine.now.truncated.push("/etc/shadow".to_owned());
        machine.fails("complete", "", "", "/etc/shadow");
    }
}
