//! What can go wrong, where, and what helps.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::holders::Holders;

/// Why a store did not open, read or commit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A bound of the outbox is reached.
    #[error("outbox is full: {bound} is {limit}; it empties when the cloud confirms")]
    Full {
        /// Which bound: rows, or bytes.
        bound: &'static str,
        /// Its value.
        limit: u64,
    },
    /// One row is larger than a row may be.
    #[error("{what} has {size} bytes, at most {limit} are kept; make it smaller")]
    TooLarge {
        /// The row.
        what: String,
        /// Its size.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// The file cannot grow.
    #[error("{} cannot grow: the disk is full, or the file has its 512 MiB; free space on that disk", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("{} is read-only; remount its file system writable and give edgecore write access to it", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The disk does not do what it is told.
    #[error("{} cannot be read or written; check the disk and the kernel's log", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// SQLite's word for it.
        source: rusqlite::Error,
    },
    /// The file broke while it was open.
    #[error("{} is damaged; restart edgecore, which sets the file aside and salvages its rows", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's word for it.
        source: rusqlite::Error,
    },
    /// The file could not be opened for writing, and still cannot.
    #[error("{} can be read but not written: {reason}", path.display())]
    Impaired {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
    },
    /// There is no key to seal a secret with.
    #[error("{} is not there and cannot be made, so nothing secret is kept; make its folder writable", path.display())]
    NoKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The file is the store of another node: its disk was copied, or the machine has another name now.
    #[error(
        "{} is the store of node `{of}`, and this is node `{node}`: nothing of it is read or sent. If its disk is a copy of that \
         node's, move the store away with all files whose names begin like it, and edgecore begins an empty one; if it is that \
         node's, give the node its name back", path.display()
    )]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// The node that it is of.
        of: String,
        /// The node that opens it.
        node: String,
    },
    /// The file is that of KubeEdge's edgecore, which the node may go back to.
    #[error(
        "{} is the database of KubeEdge's edgecore, and stays as it is: `keadm join --from-kubeedge` takes over what it holds, into \
         another file; without that name another file in database.dataSource", path.display()
    )]
    OfKubeEdge {
        /// The file.
        path: PathBuf,
    },
    /// Nothing can be read out of a file that was to be KubeEdge's.
    #[error(
        "{} is no database of KubeEdge's that can be read ({reason}): move it away, and nothing is taken over from it; the cloud \
         sends what it held", path.display()
    )]
    NotKubeEdges {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no file.
    #[error("{} does not exist; edgecore makes it when it starts, or name another one", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Something stands in the place of the database, or of a file beside it, that is no file.
    #[error("{} is {is} and no regular file; {cure}", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
        /// What it is.
        is: &'static str,
        /// What helps: the database's own name can be another one, those of the files beside it follow from it.
        cure: &'static str,
    },
    /// The file is something else, and nothing beside it says that it ever was a store.
    #[error(
        "{} is no database, and none of a node's other files lies beside it: name another file in database.dataSource, or move this away",
        path.display()
    )]
    NeverOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or too broken to be looked into.
    #[error("{} is not a node's store, or is broken ({reason}); edgecore sets it aside when it starts", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another connection does not let go of the file.
    #[error("{} is held by {by}, which lets nobody in beside it; end that program and try again", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// Who lets nobody in.
        by: Holders,
    },
    /// Another process has the file, or this one has it twice.
    #[error(
        "{} is in use by {by}: if that is another edgecore, stop it or give this one a database of its own (database.dataSource); if it \
         is keadm, wait for its end", path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who has it.
        by: Holders,
    },
    /// The file, or one beside it, was renamed, removed or replaced while it is open.
    #[error(
        "{} was removed or replaced while edgecore has it open ({found}); stop edgecore before anything is done to its files",
        path.display()
    )]
    Exchanged {
        /// The database.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// A file or folder refused what opening needs.
    #[error("cannot {doing} {}; check that its folder exists, is writable and has space", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word for it.
        source: std::io::Error,
    },
    /// Anything else that SQLite reports.
    #[error("database {} refused a statement", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's word for it.
        source: rusqlite::Error,
    },
    /// The writer has ended.
    #[error("writer of {} has ended; restart edgecore", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        // A full disk also shows when the log's index cannot grow.
        const SHM_SIZE: i32 = 4874;
        let path = path.to_owned();
        if source.sqlite_extended_error_code() == Some(SHM_SIZE) {
            return StoreError::NoSpace { path };
        }
        match code(&source) {
            Some(ErrorCode::DatabaseBusy) => StoreError::Busy { by: Holders::of_database(&path), path },
            Some(ErrorCode::DiskFull) => StoreError::NoSpace { path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::ReadOnly { path },
            _ if is_broken(&source) => StoreError::Damaged { path, source },
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => StoreError::Disk { path, source },
            _ => StoreError::Sqlite { path, source },
        }
    }

    pub(crate) fn other_node(path: &Path, of: String, node: Option<&str>) -> Self {
        StoreError::OtherNode { path: path.to_owned(), of, node: node.unwrap_or_default().to_owned() }
    }

    /// Whether the disk takes no writes, though the file may be good.
    pub(crate) fn is_disk(&self) -> bool {
        matches!(self, StoreError::NoSpace { .. } | StoreError::ReadOnly { .. } | StoreError::Disk { .. })
    }

    /// Whether the caller's batch is at fault and not the disk.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self, StoreError::Full { .. } | StoreError::TooLarge { .. })
    }

    /// The same refusal for another batch.
    pub(crate) fn again(&self, path: &Path) -> StoreError {
        match self {
            StoreError::NoSpace { path } => StoreError::NoSpace { path: path.clone() },
            StoreError::ReadOnly { path } => StoreError::ReadOnly { path: path.clone() },
            other => StoreError::Impaired { path: path.to_owned(), reason: other.to_string() },
        }
    }

    pub(crate) fn file(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        let kind = source.kind();
        if matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            StoreError::NoSpace { path }
        } else if kind == std::io::ErrorKind::ReadOnlyFilesystem {
            StoreError::ReadOnly { path }
        } else {
            StoreError::File { doing, path, source }
        }
    }
}

fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// Whether the file, not the disk or the system, is at fault.
pub(crate) fn is_broken(error: &rusqlite::Error) -> bool {
    const SHORT_READ: i32 = 522;
    const CORRUPT_FS: i32 = 8458;
    match code(error) {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => true,
        Some(ErrorCode::SystemIoFailure) => {
            matches!(error.sqlite_extended_error_code(), Some(SHORT_READ | CORRUPT_FS))
        }
        _ => false,
    }
}

/// Whether the disk is at fault.
pub(crate) fn is_of_disk(error: &rusqlite::Error) -> bool {
    matches!(
        code(error),
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
    )
}

/// Whether an error while opening speaks of the file's content: a schema or a value that is not ours.
pub(crate) fn is_not_ours(error: &rusqlite::Error) -> bool {
    is_broken(error)
        || match code(error) {
            // SQLITE_ERROR: a table or column is missing, the format is unsupported.
            Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::TooBig) => true,
            Some(ErrorCode::ConstraintViolation | ErrorCode::InternalMalfunction) => true,
            Some(_) => false,
            // rusqlite's own: no such row, wrong type, not UTF-8, statement that it cannot use.
            None => true,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(extended: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(extended), None)
    }

    #[test]
    fn each_fault_names_the_path_and_the_cure() {
        let path = Path::new("/var/lib/x.db");
        for (extended, cure) in [
            (13, "free space"),
            (8, "remount"),
            (266, "check the disk"),
            (11, "restart edgecore"),
            (522, "set"),
        ] {
            let text = StoreError::sqlite(path, sqlite(extended)).to_string();
            assert!(text.contains("/var/lib/x.db") && text.contains(cure), "{extended}: {text}");
        }
    }

    #[test]
    fn a_full_or_read_only_disk_is_no_broken_file() {
        for extended in [13, 8, 266, 14, 5, 7, 778] {
            assert!(!is_not_ours(&sqlite(extended)), "{extended}");
        }
        for extended in [11, 26, 1, 522, 267] {
            assert!(is_not_ours(&sqlite(extended)), "{extended}");
        }
    }
}
