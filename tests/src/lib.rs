//! A world to try Countersign in: a VO with a CA and a git repository behind a real git daemon, a site, and
//! the binary `countersign` between them. The end-to-end tests and the demo share it.

pub mod command;
pub mod disk;
pub mod ending;
pub mod git;
pub mod log;
pub mod site;
pub mod tree;
pub mod vo;
