//! Sets a broken file aside and puts what can be read of it in its place.
//!
//! The salvaged copy is built beside the broken file and takes its name by a rename, so that a crash at any point leaves
//! either the broken file to salvage again or the finished copy to take.

use std::path::{Path, PathBuf};

use crate::files::{
    beside, forget_oldest, make_private, newest_broken, next_broken, remove, remove_database, rename, size,
    sync_folder,
};
use crate::mended_copy::{self, MendedCopy};
use crate::salvage::{Salvage, salvage};
use crate::schema::{self, SchemaError};
use crate::soundness::log_is_lost;
use crate::{Options, StoreError, connection};

/// Behind the database's name: a finished copy that is to take its place.
pub(crate) const COPY: &str = ".salvage";
/// In the place of a table's name: commits of which nothing is known any more.
pub(crate) const LOG: &str = "log";

/// A file that was set aside.
#[derive(Debug)]
pub(crate) struct Quarantine {
    /// Where it is now.
    pub(crate) path: PathBuf,
    /// What came out of it.
    pub(crate) salvage: Salvage,
    /// So many commits are known to be lost with its log.
    pub(crate) commits: u64,
}

/// What a crash had left of a quarantine, and where the broken file is.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// The finished copy, which has its place now.
    Finished(PathBuf),
    /// A log without its file.
    LogAlone(PathBuf),
}

/// After a crash while quarantining: takes the finished copy, and moves a log without its file out of the way, because
/// SQLite would replay it into whatever file stands there next.
///
/// # Errors
/// When the disk does not take it.
pub(crate) fn finish_interrupted(path: &Path) -> Result<Option<Interrupted>, StoreError> {
    remove_database(&beside(path, mended_copy::SUFFIX))?;
    let (copy, log) = (beside(path, COPY), beside(path, "-wal"));
    if size(path)? > 0 {
        remove_database(&copy)?;
        return Ok(None);
    }
    let mut aside = None;
    if size(&log)? > 0 {
        let broken = if copy.exists() { newest_broken(path)? } else { None };
        let target = match broken {
            Some(broken) => broken,
            None => next_broken(path)?,
        };
        rename(&log, &beside(&target, "-wal"))?;
        aside = Some(Interrupted::LogAlone(target));
    }
    remove(&beside(path, "-shm"))?;
    if copy.exists() {
        let broken = match newest_broken(path)? {
            Some(broken) => broken,
            None => next_broken(path)?,
        };
        rename(&copy, path)?;
        aside = Some(Interrupted::Finished(broken));
    }
    sync_folder(path)?;
    Ok(aside)
}

/// Salvages into a copy, moves the broken file aside and the copy to its place.
///
/// # Errors
/// When the disk does not take a copy; the broken file stays where it is then, for the next start.
pub(crate) fn replace(path: &Path, options: &Options) -> Result<Quarantine, StoreError> {
    let copy = beside(path, COPY);
    let lost_log = log_is_lost(path)?;
    remove_database(&copy)?;
    let mut salvage = build_copy(path, &copy, options)?;
    if lost_log.is_some() {
        salvage.uncounted.push(LOG);
    }
    let aside = take_place(path, &copy)?;
    let commits = lost_log.map_or(0, |log| log.commits);
    Ok(Quarantine { path: aside, salvage, commits })
}

/// Where the next file goes that is set aside.
///
/// # Errors
/// When the folder cannot be listed.
pub(crate) fn next(path: &Path) -> Result<PathBuf, StoreError> {
    next_broken(path)
}

/// Moves what lies at `path` aside, if anything does, and the finished `copy` there. Answers where the other one is.
///
/// # Errors
/// When the disk does not take it.
pub(crate) fn take_place(path: &Path, copy: &Path) -> Result<PathBuf, StoreError> {
    let aside = next_broken(path)?;
    remove(&beside(path, "-shm"))?;
    // `exists` follows a link, and it is the link that goes.
    if path.symlink_metadata().is_ok() {
        rename(path, &aside)?;
    }
    if beside(path, "-wal").exists() {
        rename(&beside(path, "-wal"), &beside(&aside, "-wal"))?;
    }
    rename(copy, path)?;
    sync_folder(path)?;
    forget_oldest(path)?;
    Ok(aside)
}

fn build_copy(path: &Path, copy: &Path, options: &Options) -> Result<Salvage, StoreError> {
    let fail = |e| StoreError::sqlite(copy, e);
    let mut broken = MendedCopy::make(path, options.max_bytes)?;
    make_private(copy, true)?;
    let mut conn = connection::writer(copy, options.max_bytes).map_err(fail)?;
    schema::create(&mut conn, &options.incarnation, options.node.as_deref()).map_err(fail)?;
    let salvage = salvage(&mut broken, &mut conn)?;
    // Now that its tables are found: a broken file is another node's all the same.
    if let Some(Err(SchemaError::OtherNode(of))) =
        broken.conn().map(|conn| schema::check_node(conn, options.node.as_deref()))
    {
        drop(conn);
        remove_database(copy)?;
        return Err(StoreError::other_node(path, of, options.node.as_deref()));
    }
    // Closing moves the log into the file, so that one rename moves everything.
    connection::fold_on_close(&conn).map_err(fail)?;
    conn.close().map_err(|(_, e)| fail(e))?;
    if beside(copy, "-wal").exists() {
        let source = std::io::Error::other("the log of the salvaged copy stays");
        return Err(StoreError::file("make", copy, source));
    }
    Ok(salvage)
}
