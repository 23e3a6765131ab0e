//! What happens on the way, as one enum: it feeds the live view, the log file and JSON alike.

use serde::Serialize;

/// The stages of the pipeline and of a deployment, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The recipe is fetched and its commit pinned.
    Intake,
    /// Signature, chain, VO and ledger.
    Verify,
    /// The recipe CRL.
    Revocation,
    /// The static scan.
    Scan,
    /// The base image's statement and every byte of its files.
    Base,
    /// An authorization of the same submission that still holds is looked for.
    Standing,
    /// QEMU, and whether it can use KVM here.
    Machines,
    /// The base's own boot, paused: found, or made.
    BaseTemplate,
    /// The build machine starts as a clone of it.
    Boot,
    /// The VO's recipe is applied.
    ApplyVo,
    /// The site's recipes are applied.
    ApplySite,
    /// All steps once more: none may change anything.
    ApplyAgain,
    /// The disk is flushed, the machine powered off, the layers hashed.
    Seal,
    /// The sealed disk is looked at from outside, where nothing of it runs.
    Inspect,
    /// The sealed disk boots afresh.
    BootSealed,
    /// The site's security tests.
    SecurityTests,
    /// The VO's function tests.
    FunctionTests,
    /// The running machine is looked at once more.
    LookAgain,
    /// The recipe CRL again.
    RevocationAgain,
    /// The site signs.
    Countersign,
    /// The authorization is committed to the site's repository.
    Publish,
    /// A deployment verifies the authorization from its bytes.
    VerifyAuthorization,
    /// A deployment's machine starts.
    Launch,
}

impl Stage {
    /// What a person reads while the stage runs.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Intake => "fetch the recipe",
            Self::Verify => "verify the signature",
            Self::Revocation => "check the recipe CRL",
            Self::Scan => "scan for risky directives",
            Self::Base => "check the base image",
            Self::Standing => "look for an authorization that holds",
            Self::Machines => "find out how machines run here",
            Self::BaseTemplate => "bring the base to rest",
            Self::Boot => "start the build machine",
            Self::ApplyVo => "apply the VO's recipe",
            Self::ApplySite => "apply the site's recipes",
            Self::ApplyAgain => "apply both once more",
            Self::Seal => "seal the disk",
            Self::Inspect => "look at the sealed disk from outside",
            Self::BootSealed => "boot the sealed disk afresh",
            Self::SecurityTests => "run the site's security tests",
            Self::FunctionTests => "run the VO's function tests",
            Self::LookAgain => "look at the running machine again",
            Self::RevocationAgain => "check the recipe CRL again",
            Self::Countersign => "countersign",
            Self::Publish => "publish the authorization",
            Self::VerifyAuthorization => "verify the authorization",
            Self::Launch => "launch the instance",
        }
    }
}

/// One thing that happened. Text from guests and repositories is as it came: whoever shows it escapes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event {
    /// A stage began.
    StageStarted {
        /// Which.
        stage: Stage,
    },
    /// A stage ended well.
    StageFinished {
        /// Which.
        stage: Stage,
        /// How long it took.
        seconds: f64,
        /// The stage's result in a few words.
        detail: String,
    },
    /// A step of a recipe is being applied.
    StepStarted {
        /// The recipe.
        recipe: String,
        /// From 1.
        number: usize,
        /// How many steps the recipe has.
        of: usize,
        /// Kind and object, for example `package nginx-light`.
        step: String,
    },
    /// A step was applied.
    StepFinished {
        /// The recipe.
        recipe: String,
        /// From 1.
        number: usize,
        /// True if the machine was not yet as the step says.
        changed: bool,
        /// How long it took.
        seconds: f64,
    },
    /// A test ended.
    TestFinished {
        /// `site` or `vo`.
        suite: String,
        /// The test's name.
        name: String,
        /// Whether it passed; a test that did not run did not pass.
        passed: bool,
        /// How long it took.
        seconds: f64,
        /// Why it failed, a line an object.
        detail: Vec<String>,
    },
    /// Output of a step or test.
    Output {
        /// A piece of it, lossily decoded.
        text: String,
    },
    /// The build machine asked the relay for something.
    Fetched {
        /// What was asked for.
        url: String,
        /// The HTTP status answered; 403 for what is not declared.
        status: u16,
        /// Bytes of the body passed on.
        bytes: u64,
    },
    /// Something that a person should know, for example that machines are emulated.
    Note {
        /// One line.
        text: String,
    },
    /// Last words on a console, after a machine failed.
    Console {
        /// The tail of the console.
        text: String,
    },
    /// The command ended; the last event of a log.
    Ended {
        /// `done`, or the code of the refusal or failure.
        result: String,
    },
}
