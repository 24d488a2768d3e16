//! What can go wrong here.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file operation did not work: what, where and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {}: {reason}", path.display())]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    reason: String,
}

impl FileError {
    pub(crate) fn new(what: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> FileError {
        FileError { what, path: path.to_owned(), reason: reason.to_string() }
    }
}
