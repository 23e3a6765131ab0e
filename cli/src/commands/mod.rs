//! One module a group of commands.

pub(crate) mod authorize;
pub(crate) mod base;
pub(crate) mod ca;
pub(crate) mod catalog;
pub(crate) mod crl;
pub(crate) mod deploy;
pub(crate) mod instance;
pub(crate) mod key;
pub(crate) mod recipe;
pub(crate) mod scan;
pub(crate) mod site;

pub(crate) use site::trust_anchor;
