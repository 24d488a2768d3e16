//! The node's own files at start: what is secret is closed to other users of the machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use config::edge::EdgeCore as Settings;
use thiserror::Error;

/// Nothing of these is for others.
const OTHERS: u32 = 0o077;
/// What others must not have in a folder where the node's own files lie: who may write there may exchange them.
const WRITE: u32 = 0o022;
/// `/tmp` and the like: everybody may add, and only the owner may exchange.
const STICKY: u32 = 0o1000;

/// A file or folder of the node is open to others and cannot be closed.
#[derive(Debug, Error)]
#[error("`{path}` is open to other users of this machine and cannot be closed: chmod it to {mode:04o}")]
pub struct NotPrivate {
    /// Which.
    pub path: PathBuf,
    /// The mode that it should have.
    pub mode: u32,
    /// Why it could not be set.
    #[source]
    pub source: std::io::Error,
}

/// Looks at the store with what lies beside it, at the node's key, and at their folders, and closes what others could
/// read or exchange. Answers what was repaired, a sentence each. Pods' folders are the business of their module.
///
/// # Errors
/// See [`NotPrivate`].
pub fn keep_private(settings: &Settings) -> Result<Vec<String>, NotPrivate> {
    let store = &settings.database.data_source;
    let beside = |end: &str| {
        let mut name = store.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let key = &settings.modules.edge_hub.tls_private_key_file;
    let mut repaired = Vec::new();
    for file in [store.clone(), beside("-wal"), beside("-shm"), beside(".key"), key.clone()] {
        repaired.extend(close(&file, OTHERS)?);
    }
    for folder in [store, key].into_iter().filter_map(|file| file.parent()) {
        let sticky = fs::metadata(folder).is_ok_and(|found| found.mode() & STICKY != 0);
        if !sticky {
            repaired.extend(close(folder, WRITE)?);
        }
    }
    Ok(repaired)
}

fn close(path: &Path, others: u32) -> Result<Option<String>, NotPrivate> {
    // What is not there yet is made closed.
    let Ok(found) = fs::metadata(path) else { return Ok(None) };
    let (before, mode) = (found.mode() & 0o7777, found.mode() & 0o7777 & !others);
    if before == mode {
        return Ok(None);
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|source| NotPrivate {
        path: path.to_owned(),
        mode,
        source,
    })?;
    Ok(Some(format!("`{}` had mode {before:04o} and has {mode:04o} now", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_read_or_exchange_is_closed_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.database.data_source = dir.path().join("db/edgecore.db");
        settings.modules.edge_hub.tls_private_key_file = dir.path().join("pki/server.key");
        assert_eq!(keep_private(&settings).unwrap(), [] as [String; 0], "nothing is there yet");
        for folder in ["db", "pki"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::set_permissions(dir.path().join(folder), Permissions::from_mode(0o755)).unwrap();
        }
        for (file, mode) in
            [("db/edgecore.db", 0o644), ("db/edgecore.db-wal", 0o600), ("pki/server.key", 0o640)]
        {
            fs::write(dir.path().join(file), "x").unwrap();
            fs::set_permissions(dir.path().join(file), Permissions::from_mode(mode)).unwrap();
        }
        let said = keep_private(&settings).unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("edgecore.db") && said[0].contains("0644") && said[1].contains("server.key")
        );
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("db/edgecore.db"), mode("pki/server.key")), (0o600, 0o600));
        assert_eq!(keep_private(&settings).unwrap(), [] as [String; 0]);

        fs::set_permissions(dir.path().join("db"), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(keep_private(&settings).unwrap().len(), 1);
        assert_eq!(mode("db"), 0o755);
        fs::set_permissions(dir.path().join("db"), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(keep_private(&settings).unwrap(), [] as [String; 0]);
    }
}
