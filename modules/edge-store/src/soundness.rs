//! What is wrong with a file and its log, as far as SQLite would not say so.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::StoreError;
use crate::files::{beside, size};
use crate::wal::{self, Wal};

/// What is wrong with a file's header, as far as SQLite would take it for something else: it opens a file with a
/// changed format byte as read-only instead of refusing it.
pub(crate) fn header(path: &Path) -> Result<Option<String>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(100).read_to_end(&mut bytes).map_err(|e| StoreError::file("read", path, e))?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::file("open", path, e)),
    };
    let sound = match bytes.as_slice() {
        [] => true,
        bytes if bytes.len() < 100 => false,
        bytes => bytes.starts_with(b"SQLite format 3\0") && bytes[18..20].iter().all(|b| matches!(b, 1 | 2)),
    };
    Ok((!sound).then(|| "the header is not SQLite's".to_owned()))
}

/// What is wrong with the log, as far as SQLite would pass over commits in it without a word.
pub(crate) fn log_is_lost(path: &Path) -> Result<Option<String>, StoreError> {
    if size(path)? == 0 {
        return Ok(None);
    }
    let (log, index) = (beside(path, "-wal"), beside(path, "-shm"));
    // SQLite takes the index away before the log, so the log alone may stay behind but never the index alone.
    if !log.exists() && size(&index)? > 0 {
        return Ok(Some("its log is gone".to_owned()));
    }
    match wal::examine(&log).map_err(|e| StoreError::file("read", &log, e))? {
        Wal::Whole => Ok(None),
        Wal::Torn => {
            tracing::warn!(path = %log.display(), "last commit of the log is torn, as by a power cut before it was answered");
            Ok(None)
        }
        Wal::Lost => Ok(Some("commits in its log cannot be read".to_owned())),
    }
}
