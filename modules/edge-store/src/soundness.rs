//! What is wrong with a file and its log, as far as SQLite would not say so.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::files::{beside, size};
use crate::wal::{self, Examined, Wal, WalIndex};
use crate::{StoreError, connection, schema};

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

/// Commits that were answered and that nobody can read any more.
#[derive(Debug)]
pub(crate) struct LostLog {
    /// How that shows.
    pub(crate) reason: String,
    /// So many are known of; there may have been others.
    pub(crate) commits: u64,
}

/// What is wrong with the log, as far as SQLite would pass over commits in it without a word.
pub(crate) fn log_is_lost(path: &Path) -> Result<Option<LostLog>, StoreError> {
    if size(path)? == 0 {
        return Ok(None);
    }
    let (log, index) = (beside(path, "-wal"), beside(path, "-shm"));
    // SQLite takes the index away before the log, so the log alone may stay behind but never the index alone.
    if !log.exists() && (size(&index)? > 0 || is_running(path)) {
        return Ok(Some(LostLog { reason: "its log is gone".to_owned(), commits: 1 }));
    }
    let found = wal::examine(&log).map_err(|e| StoreError::file("read", &log, e))?;
    if let Wal::Lost(commits) = found.wal {
        let reason = format!("at least {commits} commits in its log cannot be read");
        return Ok(Some(LostLog { reason, commits }));
    }
    let known = WalIndex::read(&index).map_err(|e| StoreError::file("read", &index, e))?;
    if let Some(WalIndex { frames, .. }) = known.filter(|index| is_short(&found, index)) {
        let reason = format!(
            "its log has {} pages, and had {frames}: the commits with the others, one at least, are lost",
            found.frames
        );
        return Ok(Some(LostLog { reason, commits: 1 }));
    }
    if found.wal == Wal::Torn {
        tracing::warn!(path = %log.display(), "last commit of the log is torn, as by a power cut before it was answered");
    }
    Ok(None)
}

/// Whether the file says that whoever wrote it last had a log and did not close it.
fn is_running(path: &Path) -> bool {
    let mut start = [0; 20];
    let is_read = File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok();
    // Where there is no log at all, as on file systems that do not share memory, none is gone.
    let has_log = is_read && start[18] == 2;
    has_log && connection::without_writes(path).is_ok_and(|conn| schema::is_running(&conn).unwrap_or(false))
}

/// Whether the log ends before what its index knows was written. An index of another round says nothing: after a power cut it may
/// be one of long ago.
fn is_short(log: &Examined, index: &WalIndex) -> bool {
    log.salts == index.salts && index.frames > log.frames
}
