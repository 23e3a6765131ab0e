//! Builds the static agent that every machine is given, with a cargo of its own.
//!
//! The agent needs another code generation than the rest (static, small, without unwinding), and a
//! build may not depend on a file that somebody had to make first. The nested cargo has a target
//! folder of its own below `OUT_DIR`, so the two never wait for each other's lock.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";
const BINARY: &str = "countersign-agent";

/// What an outer cargo, clippy or coverage run leaves in the environment and would change the agent.
const FOREIGN: &[&str] = &[
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "RUSTDOCFLAGS",
    "TARGET",
    "HOST",
    "PROFILE",
    "OPT_LEVEL",
    "DEBUG",
];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let harness = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let Some(workspace) = harness.parent() else { fail("the crate has no parent folder") };
    for watched in [
        "guest/src",
        "guest/Cargo.toml",
        "recipe-spec/src",
        "recipe-spec/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target_dir = out.join("agent-target");
    build(workspace, &target_dir);
    let built = target_dir.join(TARGET).join(PROFILE).join(BINARY);
    if let Err(error) = fs::copy(&built, out.join(BINARY)) {
        fail(&format!("cannot copy {}: {error}", built.display()));
    }
}

fn build(workspace: &Path, target_dir: &Path) {
    let mut command = Command::new(variable("CARGO"));
    command
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--package", "guest", "--bin", BINARY])
        .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(target_dir);
    for name in FOREIGN {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PROFILE_")
            || name.starts_with("CARGO_FEATURE_")
            || name.starts_with("CARGO_CFG_")
        {
            command.env_remove(&name);
        }
    }
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("the agent did not build: {status}")),
        Err(error) => fail(&format!("cannot start cargo for the agent: {error}")),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn fail(reason: &str) -> ! {
    println!("cargo::error={reason}");
    std::process::exit(1);
}
