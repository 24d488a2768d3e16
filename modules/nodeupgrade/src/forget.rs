//! What upgrades leave on a node, removed when it is a node no more: backups hold its secrets, and the key to them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::journal_folder::JournalFolder;
use crate::{backup, boot};

/// Removes the backups, also those that were cut off, and the journal of the node whose store is at `store`, what waits for a program's name
/// and what keeps an upgrade's end, and answers which folders and files those were. What else lies there stays.
///
/// # Errors
/// When the disk does not let go of them.
pub fn forget(store: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = backup::remove_all(store)?;
    let journals = JournalFolder::of(store);
    // One that cannot be read says nothing of what else is there.
    if let Ok(Some(journal)) = journals.load() {
        journal.exchanges.iter().for_each(crate::exchange::Exchange::forget);
        removed.extend(boot::remove(&journal.launch, Path::new(boot::UNITS))?);
    }
    if journals.path().exists() {
        let folder = journals.path().to_owned();
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        removed.push(folder);
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
        let version = Version::parse("0.1.0").unwrap();
        let make = || {
            let (files, sequence, now) = ([("edgecore", store.as_path())], 1, 1);
            let (version, store) = (&version, store.as_path());
            let of =
                backup::Contents { version, files: &files, store, store_may_be_broken: false, sequence, now };
            backup::make(&of, None)
        };
        make().unwrap();
        drop(JournalFolder::of(&store).lock().unwrap());
        assert_eq!(forget(&store).unwrap().len(), 2);
        assert!(!backup::root(&store).exists() && forget(&store).unwrap().is_empty());
        // One that was cut off while it was made, one while it was removed, and one that is damaged or of a release to come.
        for (name, file) in [(".new-0.2.0", "edgecore.db.key"), ("0.3.0", "backup.json")] {
            let folder = backup::root(&store).join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), "{").unwrap();
        }
        assert_eq!(forget(&store).unwrap().len(), 2);
        assert!(!backup::root(&store).exists());
        make().unwrap();
        fs::write(backup::root(&store).join("mine"), "x").unwrap();
        forget(&store).unwrap();
        assert_eq!(fs::read_to_string(backup::root(&store).join("mine")).unwrap(), "x");
    }
}
