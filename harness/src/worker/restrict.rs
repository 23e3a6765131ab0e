//! What a worker gives up by itself before it looks at a hostile byte, by Landlock: it keeps reading what its orders name, and
//! writing in its scratch folder. It executes nothing. Where the kernel has no Landlock (before Linux 5.13, or not
//! enabled), its user and limits are what holds it.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    Scope, path_beneath_rules,
};

use super::handover::Orders;
use super::{Network, Reading};

/// The newest interface of Landlock that this was tried with; older kernels enforce what they know of it.
const TRIED: ABI = ABI::V6;

/// Restricts this thread and all that it starts.
pub(super) fn restrict(orders: &Orders) -> Result<(), RulesetError> {
    let readable: &[PathBuf] = match &orders.reading {
        Reading::Nothing => &[],
        Reading::Public(paths) | Reading::AsCaller(paths) => paths,
    };
    let mut ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(TRIED))?.scope(Scope::from_all(TRIED))?;
    if orders.network == Network::None {
        ruleset = ruleset.handle_access(AccessNet::from_all(TRIED))?;
    }
    // Paths that are not there give no rule, hence no access.
    ruleset
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(&orders.scratch, writing()))?
        .restrict_self()?;
    Ok(())
}

/// Files and folders, and nothing that could be more.
fn writing() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}
