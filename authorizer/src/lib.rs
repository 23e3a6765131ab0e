//! From a signed recipe in git to a countersigned, published result.
//!
//! The one idea: the pipeline is one direction of nouns, each carrying the evidence of the last, so that no stage can be
//! skipped. [`pipeline`] shows it on one screen; the other modules are its parts.

pub mod authorization;
pub mod base;
pub mod events;
pub mod intake;
pub mod interruption;
pub mod jobs;
pub mod journal;
pub mod ledger;
pub mod machines;
pub mod pipeline;
pub mod publication;
pub mod regular_file;
pub mod site;
pub mod stopped;
pub mod suite;
