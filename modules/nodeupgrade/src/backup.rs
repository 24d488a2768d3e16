//! Copies of a node's program, settings and store, a folder for each version, beside the store. The newest few are kept; which those are
//! is counted, since a node's clock may stand anywhere.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use edge_store::{HeldStore, StoreError};
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
    /// One without it is older than all that have one.
    #[serde(default)]
    sequence: u64,
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
    /// Of all that were made the how many-eth it is, counted together with upgrades and rollbacks: the greatest is the newest.
    pub sequence: u64,
    /// When it was made, in seconds since 1970 by the machine's clock: for a person, since that may have stood anywhere.
    pub created: u64,
    /// The programs and the settings.
    pub files: Vec<BackedUp>,
}

impl Backup {
    /// The store in it.
    pub fn store(&self) -> PathBuf {
        store_in(&self.folder)
    }

    /// The file in it that is called so.
    pub(crate) fn file(&self, name: &str) -> Option<&BackedUp> {
        self.files.iter().find(|file| file.name == name)
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

/// What a backup is made of.
pub(crate) struct Contents<'a> {
    /// The version that runs.
    pub(crate) version: &'a Version,
    /// Files, by the names that they are to have.
    pub(crate) files: &'a [(&'a str, &'a Path)],
    /// The store, which may be in use.
    pub(crate) store: &'a Path,
    /// Whether one that cannot be read is left out, and the backup made without: for who is on the way back from there.
    pub(crate) store_may_be_broken: bool,
    /// [`Backup::sequence`].
    pub(crate) sequence: u64,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// Makes a backup. One of the same version is replaced by it in one step; older ones than the newest three go, but for `spared`.
///
/// # Errors
/// When something cannot be read, or the disk does not take it. What was there before stays.
pub(crate) fn make(of: &Contents<'_>, spared: Option<&Path>) -> Result<Backup> {
    let (root, version) = (root(of.store), of.version);
    files::make_folder(&root)?;
    remove_unfinished(&root)?;
    let fresh = root.join(format!("{UNFINISHED}{version}"));
    files::make_folder(&fresh)?;
    let made = fill(&fresh, of);
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
    let (sequence, created) = (of.sequence, of.now);
    Ok(Backup { folder, version: version.clone(), sequence, created, files: list.files })
}

fn fill(folder: &Path, of: &Contents<'_>) -> Result<List> {
    let (sequence, created) = (of.sequence, of.now);
    let version = of.version.to_string();
    let mut list = List { layout: LAYOUT, version, sequence, created, files: Vec::new() };
    for (name, path) in of.files {
        let mode = files::mode_of(path)?;
        let sha256 = files::copy(path, &folder.join(name), mode)?;
        list.files.push(BackedUp { name: (*name).to_owned(), path: path.to_path_buf(), sha256, mode });
    }
    match edge_store::back_up(of.store, &store_in(folder)) {
        Err(StoreError::NotAStore { .. } | StoreError::Missing { .. }) if of.store_may_be_broken => {}
        copied => copied.context("the node's store")?,
    }
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
    found.sort_by(|a: &Backup, b| (b.sequence, &b.folder).cmp(&(a.sequence, &a.folder)));
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
        sequence: list.sequence,
        created: list.created,
        files: list.files,
    })
}

/// The backup of the version that is named, which may be the one that runs, or else the newest of another version than the one that runs, and of none that is newer than
/// that: who goes back twice is not to be on the release that was left.
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
        None => there.iter().find(|one| {
            let is_back = !running.is_known() || one.version.newness(running) != Ordering::Greater;
            one.version != *running && is_back
        }),
        Some(named) => {
            let version = Version::parse(named)
                .with_context(|| format!("`{}` is no version, as 0.1.0", named.escape_debug()))?;
            there.iter().find(|one| one.version.is(&version))
        }
    };
    wanted.cloned().with_context(|| match named {
        None => {
            format!("no backup of a version before {running}: {} (`--historical-version` names one)", shown())
        }
        Some(named) => format!("no backup of {named}: {}", shown()),
    })
}

fn prune(root: &Path, kept: &Path, spared: Option<&Path>) -> Result<()> {
    let store = files::folder_of(root).join(STORE);
    let others = list(&store)?.into_iter().filter(|one| one.folder != kept).skip(KEPT - 1);
    for old in others.filter(|one| Some(one.folder.as_path()) != spared) {
        remove(root, &old.folder)?;
    }
    Ok(())
}

/// Removes a backup in one step: what an end in the middle leaves of it is none.
fn remove(root: &Path, folder: &Path) -> Result<()> {
    let mut name = OsString::from(UNFINISHED);
    name.push(folder.file_name().unwrap_or_default());
    let going = root.join(name);
    if going.exists() {
        fs::remove_dir_all(&going).with_context(|| format!("cannot remove {}", going.display()))?;
    }
    files::rename(folder, &going)?;
    fs::remove_dir_all(&going).with_context(|| format!("cannot remove {}", going.display()))
}

/// Removes all backups, those that are unfinished or damaged, too, and answers which folders those were. What else lies there stays.
///
/// # Errors
/// When the disk does not let go of them.
pub(crate) fn remove_all(store: &Path) -> Result<Vec<PathBuf>> {
    let root = root(store);
    let mut removed = Vec::new();
    let entries = match fs::read_dir(&root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(removed),
        entries => entries.with_context(|| format!("cannot list {}", root.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", root.display()))?;
        let folder = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        } else if folder.join(LIST).exists() {
            remove(&root, &folder)?;
        } else {
            continue;
        }
        removed.push(folder);
    }
    Ok(removed)
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
#[path = "backup_tests.rs"]
mod tests;
