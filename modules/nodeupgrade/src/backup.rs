//! Copies of a node's program, settings and store, a folder for each version, beside the store. The newest few are kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use edge_store::HeldStore;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::version::Version;

/// 3 backups: the release that runs, the one before, and one more.
const KEPT: usize = 3;
/// The first layout of the list.
const LAYOUT: u32 = 1;
/// 64 KiB: the list names a handful of files.
const LIST_MAX: u64 = 64 << 10;
const LIST: &str = "backup.json";
/// What the store is called in a backup.
const STORE: &str = "edgecore.db";
/// What a folder that is being made, or being removed, begins with: no version does.
const UNFINISHED: &str = ".new-";

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// What it is called in the backup.
    pub name: String,
    /// Where it was.
    pub path: PathBuf,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// The bits of its mode.
    pub mode: u32,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct List {
    layout: u32,
    version: String,
    created: u64,
    files: Vec<BackedUp>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its folder.
    pub folder: PathBuf,
    /// The version that it is of.
    pub version: Version,
    /// When it was made, in seconds since 1970 by the machine's clock.
    pub created: u64,
    /// The programs and the settings.
    pub files: Vec<BackedUp>,
}

impl Backup {
    /// The store in it.
    pub fn store(&self) -> PathBuf {
        store_in(&self.folder)
    }

    /// A file's place in it.
    pub fn place(&self, file: &BackedUp) -> PathBuf {
        self.folder.join(&file.name)
    }
}

/// The store in the backup of this folder.
pub(crate) fn store_in(folder: &Path) -> PathBuf {
    folder.join(STORE)
}

/// Where the backups of the node lie whose store is at `store`.
pub(crate) fn root(store: &Path) -> PathBuf {
    files::folder_of(store).join("backup")
}

/// Copies files, by the names that they are to have, and the store, which may be in use. A backup of the same version is replaced by
/// it in one step; older ones than the newest three go, but for `spared`.
///
/// # Errors
/// When something cannot be read, or the disk does not take it. What was there before stays.
pub(crate) fn make(
    version: &Version,
    of: &[(&str, &Path)],
    store: &Path,
    now: u64,
    spared: Option<&Path>,
) -> Result<Backup> {
    let root = root(store);
    files::make_folder(&root)?;
    remove_unfinished(&root)?;
    let fresh = root.join(format!("{UNFINISHED}{version}"));
    files::make_folder(&fresh)?;
    let made = fill(&fresh, version, of, store, now);
    if made.is_err() {
        drop(fs::remove_dir_all(&fresh));
    }
    let list = made?;
    let folder = root.join(version.as_str());
    if folder.exists() {
        renameat_with(CWD, &fresh, CWD, &folder, RenameFlags::EXCHANGE)
            .with_context(|| format!("cannot replace {}", folder.display()))?;
        files::sync_folder_of(&folder)?;
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    } else {
        files::rename(&fresh, &folder)?;
    }
    prune(&root, &folder, spared)?;
    Ok(Backup { folder, version: version.clone(), created: now, files: list.files })
}

fn fill(folder: &Path, version: &Version, of: &[(&str, &Path)], store: &Path, now: u64) -> Result<List> {
    let mut list = List { layout: LAYOUT, version: version.to_string(), created: now, files: Vec::new() };
    for (name, path) in of {
        let mode = files::mode_of(path)?;
        let sha256 = files::copy(path, &folder.join(name), mode)?;
        list.files.push(BackedUp { name: (*name).to_owned(), path: path.to_path_buf(), sha256, mode });
    }
    edge_store::back_up(store, &store_in(folder)).context("the node's store")?;
    files::replace(&folder.join(LIST), &serde_json::to_vec_pretty(&list)?, 0o600)?;
    files::sync_folder_of(&folder.join(LIST))?;
    Ok(list)
}

/// Copies the store once more into a backup: in one step, so that there is one at every instant.
///
/// # Errors
/// When the store is broken, or the disk does not take it.
pub(crate) fn refresh_store(folder: &Path, store: &HeldStore) -> Result<()> {
    let fresh = files::beside(&store_in(folder), ".fresh");
    store.back_up(&fresh).context("the node's store")?;
    let (key, place) = (files::beside(&fresh, ".key"), store_in(folder));
    if key.exists() {
        files::rename(&key, &files::beside(&place, ".key"))?;
    }
    files::rename(&fresh, &place)
}

/// The backups of the node, the newest first. What is no backup is passed over.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(store: &Path) -> Result<Vec<Backup>> {
    let root = root(store);
    let mut found = Vec::new();
    let entries = match fs::read_dir(&root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.with_context(|| format!("cannot list {}", root.display()))?,
    };
    for entry in entries {
        let folder = entry.with_context(|| format!("cannot list {}", root.display()))?.path();
        found.extend(read(&folder));
    }
    found.sort_by(|a: &Backup, b| (b.created, &b.folder).cmp(&(a.created, &a.folder)));
    Ok(found)
}

/// `None`: it is unfinished, damaged, or of a release to come.
fn read(folder: &Path) -> Option<Backup> {
    let bytes = files::read(&folder.join(LIST), LIST_MAX).ok()?;
    let list: List = serde_json::from_slice(&bytes).ok()?;
    let version = Version::parse(&list.version)?;
    let names_fit = list.files.iter().all(|file| !file.name.contains('/') && !file.name.starts_with('.'));
    let is_named = folder.file_name().is_some_and(|name| name == version.as_str());
    (list.layout == LAYOUT && is_named && names_fit).then_some(Backup {
        folder: folder.to_owned(),
        version,
        created: list.created,
        files: list.files,
    })
}

/// The backup of the version that is named, or else the newest of another version than the one that runs.
///
/// # Errors
/// When there is none: then it names those that there are.
pub(crate) fn find(store: &Path, named: Option<&str>, running: &Version) -> Result<Backup> {
    let there = list(store)?;
    let shown = || match there.is_empty() {
        true => format!("there is none in {}: `keadm backup edge` makes one", root(store).display()),
        false => {
            let names: Vec<&str> = there.iter().map(|one| one.version.as_str()).collect();
            format!("there is {}", names.join(", "))
        }
    };
    let wanted = match named {
        None => there.iter().find(|one| one.version != *running),
        Some(named) => {
            let version = Version::parse(named)
                .with_context(|| format!("`{}` is no version, as 0.1.0", named.escape_debug()))?;
            if running.is(&version) {
                bail!("{running} is the version that runs");
            }
            there.iter().find(|one| one.version.is(&version))
        }
    };
    wanted.cloned().with_context(|| match named {
        None => format!("no backup of another version than {running}: {}", shown()),
        Some(named) => format!("no backup of {named}: {}", shown()),
    })
}

fn prune(root: &Path, kept: &Path, spared: Option<&Path>) -> Result<()> {
    let store = files::folder_of(root).join(STORE);
    let others = list(&store)?.into_iter().filter(|one| one.folder != kept).skip(KEPT - 1);
    for old in others.filter(|one| Some(one.folder.as_path()) != spared) {
        fs::remove_dir_all(&old.folder).with_context(|| format!("cannot remove {}", old.folder.display()))?;
    }
    Ok(())
}

fn remove_unfinished(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", root.display()))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// The bytes that a backup of these files and the store has at the most: the store and its log are twice there while one is made anew.
pub(crate) fn room_for(of: &[&Path], store: &Path) -> u64 {
    let files: u64 = of.iter().map(|path| files::size_of(path)).sum();
    let store = files::size_of(store).saturating_add(files::size_of(&files::beside(store, "-wal")));
    files.saturating_add(store.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::{Options, Store, StoreInspector};
    use std::os::unix::fs::PermissionsExt as _;

    struct Fixture {
        folder: tempfile::TempDir,
        store: PathBuf,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("edgecore.db");
        drop(Store::open(&store, Options::new([1; 16])).unwrap());
        fs::write(folder.path().join("program"), "old").unwrap();
        fs::set_permissions(folder.path().join("program"), fs::Permissions::from_mode(0o755)).unwrap();
        Fixture { folder, store }
    }

    fn backed_up(fixture: &Fixture, version: &str, now: u64) -> Backup {
        let program = fixture.folder.path().join("program");
        make(&Version::parse(version).unwrap(), &[("edgecore", &program)], &fixture.store, now, None).unwrap()
    }

    fn versions(fixture: &Fixture) -> Vec<String> {
        list(&fixture.store).unwrap().iter().map(|one| one.version.to_string()).collect()
    }

    #[test]
    fn a_backup_keeps_modes_and_is_for_its_owner_alone() {
        let fixture = fixture();
        let backup = backed_up(&fixture, "0.1.0+abc", 5);
        assert_eq!(list(&fixture.store).unwrap(), std::slice::from_ref(&backup));
        assert_eq!(files::mode_of(&backup.folder).unwrap(), 0o700);
        assert_eq!(files::mode_of(&backup.folder.join("edgecore")).unwrap(), 0o755);
        for private in [backup.store(), files::beside(&backup.store(), ".key")] {
            assert_eq!(files::mode_of(&private).unwrap(), 0o600, "{}", private.display());
        }
        StoreInspector::open(backup.store()).unwrap();
        refresh_store(&backup.folder, &edge_store::hold(&fixture.store).unwrap()).unwrap();
        StoreInspector::open(backup.store()).unwrap();
    }

    #[test]
    fn the_newest_are_kept_and_one_of_the_same_version_is_replaced() {
        let fixture = fixture();
        for (minor, now) in [(1, 1), (2, 2), (3, 3), (4, 4), (4, 5)] {
            backed_up(&fixture, &format!("0.{minor}.0"), now);
        }
        assert_eq!(versions(&fixture), ["0.4.0", "0.3.0", "0.2.0"]);
        // A clock that went back does not cost the one that was just made.
        backed_up(&fixture, "0.5.0", 0);
        assert_eq!(versions(&fixture), ["0.4.0", "0.3.0", "0.5.0"]);
    }

    #[test]
    fn what_an_end_has_left_is_no_backup_and_goes() {
        let fixture = fixture();
        let half = root(&fixture.store).join(".new-0.1.0");
        fs::create_dir_all(half.join("below")).unwrap();
        let torn = root(&fixture.store).join("0.0.9");
        fs::create_dir_all(&torn).unwrap();
        fs::write(torn.join(LIST), "{").unwrap();
        assert!(versions(&fixture).is_empty());
        backed_up(&fixture, "0.1.0", 1);
        assert!(!half.exists());
        assert_eq!(versions(&fixture), ["0.1.0"]);
    }

    #[test]
    fn a_version_is_found_by_its_name_or_as_the_newest_other_one() {
        let fixture = fixture();
        for (version, now) in [("0.1.0+abc", 1), ("0.2.0+def", 2), ("0.3.0+123", 3)] {
            backed_up(&fixture, version, now);
        }
        let running = Version::parse("0.3.0+123").unwrap();
        let found = |named| find(&fixture.store, named, &running).map(|one| one.version.to_string());
        assert_eq!(found(None).unwrap(), "0.2.0+def");
        assert_eq!(found(Some("v0.1.0")).unwrap(), "0.1.0+abc");
        for (named, word) in [("0.0.1", "0.2.0+def"), ("0.3.0", "that runs"), ("../x", "no version")] {
            let error = format!("{:#}", found(Some(named)).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
