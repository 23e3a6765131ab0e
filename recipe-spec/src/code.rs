//! The codes a person and a program see: published once, they keep their meaning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::Malformed;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal;)*) => {
        /// Why something was refused (exit status 1), or why it could not be decided (exit status 3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// The published form, for example `BAD_SIGNATURE`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }

            /// 1: we decided no. 3: we could not decide, and another try may.
            pub fn exit_status(self) -> u8 {
                match self { $(Code::$variant => $status,)* }
            }
        }
    };
}

codes! {
    /// The signature does not verify, or the content is not what was signed.
    BadSignature = "BAD_SIGNATURE", 1;
    /// No anchor of the site vouches for the signer.
    UntrustedSigner = "UNTRUSTED_SIGNER", 1;
    /// The signer speaks for another VO than the recipe's.
    WrongVo = "WRONG_VO", 1;
    /// A certificate is not valid at the time in question.
    CertExpired = "CERT_EXPIRED", 1;
    /// The CA's own list revokes a certificate.
    CertRevoked = "CERT_REVOKED", 1;
    /// The recipe CRL revokes something that the decision rests on.
    Revoked = "REVOKED", 1;
    /// There is no authorization of this site.
    NotAuthorized = "NOT_AUTHORIZED", 1;
    /// The authorization's `notAfter` has passed.
    AuthorizationExpired = "AUTHORIZATION_EXPIRED", 1;
    /// The authorization is another site's.
    WrongSite = "WRONG_SITE", 1;
    /// The authorization is for another trust level.
    WrongLevel = "WRONG_LEVEL", 1;
    /// There is no recipe CRL.
    CrlMissing = "CRL_MISSING", 1;
    /// The recipe CRL does not verify or is malformed.
    CrlInvalid = "CRL_INVALID", 1;
    /// The recipe CRL's next update is overdue.
    CrlExpired = "CRL_EXPIRED", 1;
    /// The recipe CRL has a lower number than one seen before.
    CrlRollback = "CRL_ROLLBACK", 1;
    /// Two recipe CRLs of one number differ.
    CrlEquivocation = "CRL_EQUIVOCATION", 1;
    /// The recipe CRL does not continue the one seen before.
    CrlFork = "CRL_FORK", 1;
    /// The clock is behind a signed time already seen.
    ClockBackward = "CLOCK_BACKWARD", 1;
    /// The version is lower than the highest authorized one.
    VersionRollback = "VERSION_ROLLBACK", 1;
    /// The recipe breaks the format's rules.
    BadRecipe = "BAD_RECIPE", 1;
    /// The version was signed before with other content.
    VersionReused = "VERSION_REUSED", 1;
    /// The scan found what the policy denies.
    ScanDenied = "SCAN_DENIED", 1;
    /// The policy asks for a person's review first.
    ReviewNeeded = "REVIEW_NEEDED", 1;
    /// A person's review said no.
    ReviewRejected = "REVIEW_REJECTED", 1;
    /// A recorded input is not what it was.
    InputChanged = "INPUT_CHANGED", 1;
    /// A step failed in the machine.
    ApplyFailed = "APPLY_FAILED", 1;
    /// A step changed the machine when applied again.
    NotIdempotent = "NOT_IDEMPOTENT", 1;
    /// The agent went silent after the first step.
    ControlLost = "CONTROL_LOST", 1;
    /// A test failed, or did not run.
    TestFailed = "TEST_FAILED", 1;
    /// The base image is not the one named by digest.
    BaseMismatch = "BASE_MISMATCH", 1;
    /// A layer is not the one named by digest.
    LayerMismatch = "LAYER_MISMATCH", 1;
    /// An instance left its pattern.
    Behaviour = "BEHAVIOUR", 1;
    /// A repository, mirror or list could not be reached.
    RemoteUnavailable = "REMOTE_UNAVAILABLE", 3;
    /// QEMU is missing or too old.
    NoQemu = "NO_QEMU", 3;
    /// The machine was silent before the first step, or QEMU died.
    MachineFailed = "MACHINE_FAILED", 3;
    /// The host has no room: disk, memory or processes.
    HostFull = "HOST_FULL", 3;
    /// The host or the site's own folder failed in a way that says nothing of the recipe.
    HostFailed = "HOST_FAILED", 3;
    /// The command was interrupted.
    Interrupted = "INTERRUPTED", 3;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Code {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Code::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| Malformed::new("a code", text, "see the table of exit codes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_codes_keep_their_names_and_statuses() {
        let table: Vec<String> =
            Code::ALL.iter().map(|code| format!("{} {code}", code.exit_status())).collect();
        assert_eq!(
            table.join("\n"),
            "1 BAD_SIGNATURE\n1 UNTRUSTED_SIGNER\n1 WRONG_VO\n1 CERT_EXPIRED\n1 CERT_REVOKED\n1 REVOKED\n\
             1 NOT_AUTHORIZED\n1 AUTHORIZATION_EXPIRED\n1 WRONG_SITE\n1 WRONG_LEVEL\n1 CRL_MISSING\n\
             1 CRL_INVALID\n1 CRL_EXPIRED\n1 CRL_ROLLBACK\n1 CRL_EQUIVOCATION\n1 CRL_FORK\n1 CLOCK_BACKWARD\n\
             1 VERSION_ROLLBACK\n1 BAD_RECIPE\n1 VERSION_REUSED\n1 SCAN_DENIED\n1 REVIEW_NEEDED\n\
             1 REVIEW_REJECTED\n1 INPUT_CHANGED\n1 APPLY_FAILED\n1 NOT_IDEMPOTENT\n1 CONTROL_LOST\n\
             1 TEST_FAILED\n1 BASE_MISMATCH\n1 LAYER_MISMATCH\n1 BEHAVIOUR\n3 REMOTE_UNAVAILABLE\n3 NO_QEMU\n\
             3 MACHINE_FAILED\n3 HOST_FULL\n3 HOST_FAILED\n3 INTERRUPTED"
        );
    }

    #[test]
    fn a_code_reads_back_from_text_and_json() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse::<Code>().unwrap(), *code);
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), *code);
        }
        assert!("bad_recipe".parse::<Code>().is_err());
    }
}
