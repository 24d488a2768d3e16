//! The invariants that hold over the whole repository, as rules that name the file, the line and the cure.
//!
//! A rule is a pure function from what was read to [`Finding`]s, with a test that shows it a bad sample; `tests/` holds
//! the rules to the real tree. What a rule lets through stands beside it in a list, with a reason.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod code_map;
pub mod dependencies;
pub mod events;
pub mod foreign_words;
mod masked;
pub mod members;
pub mod names;
pub mod path_access;
mod repository;
pub mod restricted_calls;
pub mod single_homes;
pub mod store_reads;

use std::fmt;

pub use repository::{Dependency, File, Package, Repository};

/// One place where a rule does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the root of the repository.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and what to do.
    pub what: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}
