//! What upgrades leave on a node, removed when it is a node no more: backups hold its secrets, and the key to them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::backup;
use crate::journal::JournalFolder;

/// Removes the backups and the journal of the node whose store is at `store`, and answers which folders those were. What else lies
/// there stays.
///
/// # Errors
/// When the disk does not let go of them.
pub fn forget(store: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let mut gone = |folder: PathBuf| -> Result<()> {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        removed.push(folder);
        Ok(())
    };
    for backup in backup::list(store)? {
        gone(backup.folder)?;
    }
    let journals = JournalFolder::of(store);
    if journals.path().exists() {
        gone(journals.path().to_owned())?;
    }
    // With something else in it, it stays.
    drop(fs::remove_dir(backup::root(store)));
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;

    #[test]
    fn nothing_of_a_node_is_left_and_what_is_not_ours_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("edgecore.db");
        drop(edge_store::Store::open(&store, edge_store::Options::new([1; 16])).unwrap());
        let make =
            || backup::make(&Version::parse("0.1.0").unwrap(), &[("edgecore", &store)], &store, 1, None);
        make().unwrap();
        drop(JournalFolder::of(&store).lock().unwrap());
        assert_eq!(forget(&store).unwrap().len(), 2);
        assert!(!backup::root(&store).exists() && forget(&store).unwrap().is_empty());
        make().unwrap();
        fs::write(backup::root(&store).join("mine"), "x").unwrap();
        forget(&store).unwrap();
        assert_eq!(fs::read_to_string(backup::root(&store).join("mine")).unwrap(), "x");
    }
}
