//! `run`: a script of the recipe, unless it already did its work.
//!
//! The payload may lie where nothing can be executed (`/run` is mounted so), therefore the script's `#!` line is read here
//! and its interpreter started, as the kernel would.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use guest::control::{AgentError, StepOutcome};
use recipe_spec::manifest::RunStep;

use super::{Workshop, succeeded};
use crate::agent::exec::Launch;
use crate::agent::failure;
use crate::agent::output::{Output, Remembered};
use crate::agent::root::LastLink;

/// Longest `#!` line (`BINPRM_BUF_SIZE`, linux/binfmts.h), in bytes.
const MAX_SHEBANG: usize = 256;
/// What runs a script without a `#!` line.
const SHELL: &str = "/bin/sh";

pub(super) fn run(
    workshop: &Workshop<'_>,
    step: &RunStep,
    output: &mut dyn Output,
) -> Result<StepOutcome, AgentError> {
    if let Some(creates) = &step.creates {
        let exists = workshop.root.exists(Path::new(creates.as_str()));
        if exists.map_err(|error| failure::system(format_args!("look for {creates}"), error))? {
            return Ok(StepOutcome::Unchanged);
        }
    }
    if let Some(unless) = &step.unless {
        let (status, _) = workshop.ask(&in_payload(workshop, Launch::new([SHELL, "-c", unless.as_str()])))?;
        if status == Some(0) {
            return Ok(StepOutcome::Unchanged);
        }
    }
    let script = workshop.in_payload(&step.script);
    let opened = workshop.root.open_regular(&script, LastLink::Refused);
    let opened = opened.map_err(|error| failure::system(format_args!("open {}", script.display()), error))?;
    let mut words = interpreter(opened)?;
    words.push(script.to_string_lossy().into_owned());
    let mut remembered = Remembered::new(output);
    let deadline = workshop.deadline.sooner(step.timeout.duration());
    let ended = in_payload(workshop, Launch::new(words)).run(deadline, &mut remembered)?;
    succeeded(step.script.as_str(), ended, &remembered.tail)?;
    Ok(StepOutcome::Changed)
}

/// In the payload's folder, told where it is and how to reach the relay.
fn in_payload(workshop: &Workshop<'_>, mut launch: Launch) -> Launch {
    launch.cwd = workshop.payload.to_owned();
    launch = launch.env("COUNTERSIGN_PAYLOAD", &workshop.payload.to_string_lossy());
    if workshop.relay {
        let proxy = format!("http://{}", guest::relay::LISTEN);
        launch = launch.env("http_proxy", &proxy).env("HTTP_PROXY", &proxy);
    }
    launch
}

/// The words that start a script, without the script: what its `#!` line says, at most one argument (execve(2)).
fn interpreter(script: File) -> Result<Vec<String>, AgentError> {
    let mut head = Vec::new();
    let read = script.take(MAX_SHEBANG as u64).read_to_end(&mut head);
    read.map_err(|error| failure::system("read the script", error))?;
    let Some(line) = head.strip_prefix(b"#!") else { return Ok(vec![SHELL.to_owned()]) };
    let end = line.iter().position(|byte| *byte == b'\n');
    let line = end.map(|end| &line[..end]).and_then(|line| str::from_utf8(line).ok());
    let line =
        line.ok_or_else(|| failure::bad_request("the `#!` line of the script is too long or not text"))?;
    let (program, argument) = line.trim().split_once([' ', '\t']).unwrap_or((line.trim(), ""));
    if !program.starts_with('/') {
        return Err(failure::bad_request("the `#!` line of the script names no absolute path"));
    }
    let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
    Ok([program].into_iter().chain(argument).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn words(text: &str) -> Result<Vec<String>, AgentError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        interpreter(file)
    }

    #[test]
    fn the_first_line_is_read_as_the_kernel_reads_it() {
        assert_eq!(words("#!/bin/bash\nx").unwrap(), ["/bin/bash"]);
        assert_eq!(words("#! /usr/bin/env  python3 -u \nx").unwrap(), ["/usr/bin/env", "python3 -u"]);
        assert_eq!(words("echo x").unwrap(), ["/bin/sh"]);
        assert_eq!(words("").unwrap(), ["/bin/sh"]);
        for bad in ["#!sh\n", "#!\n", "#!/bin/sh", &format!("#!/{}\n", "a".repeat(300))] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }
}
