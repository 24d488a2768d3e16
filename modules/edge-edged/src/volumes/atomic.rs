//! Swapping all files of a volume at once: readers follow `..data`, which moves in one rename.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::payload::{BYTES_MAX, ENTRIES_MAX, Payload};
use crate::disk::beneath::{Access, Folder};
use crate::error::StepError;
use crate::pod::parsed_pod::fnv1a;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// The folder that holds one state of a volume, named by what is in it and by who may do what with that.
fn name_of(payload: &Payload, group: Option<u32>) -> String {
    let mut access = Vec::new();
    for file in payload.values() {
        access.extend_from_slice(&file.mode.to_le_bytes());
        access.extend_from_slice(&file.owner.unwrap_or(u32::MAX).to_le_bytes());
    }
    access.extend_from_slice(&group.unwrap_or(u32::MAX).to_le_bytes());
    let files = payload.iter().map(|(path, file)| (path.as_str(), file.bytes.as_slice()));
    format!("..{:016x}{:016x}", hash(files), fnv1a(&access))
}

/// Of what is in files, by their paths in order.
fn hash<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> u64 {
    let mut all = Vec::new();
    for (path, bytes) in files {
        for part in [path.as_bytes(), bytes] {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
    }
    fnv1a(&all)
}

/// Brings the volume `dir` to `payload`; answers whether anything changed. `mount_points`: where in it other volumes are
/// mounted. They are made, and stay whatever comes and goes beside them: a mount ends with the folder that it lies on.
pub(super) fn write(
    dir: &Folder,
    payload: &Payload,
    group: Option<u32>,
    mount_points: &BTreeSet<PathBuf>,
) -> Result<bool, StepError> {
    let name = name_of(payload, group);
    let folders = Access { mode: if group.is_some() { 0o2755 } else { 0o755 }, owner: None, group };
    let mount_points = free(mount_points, payload);
    for point in &mount_points {
        dir.make(point, folders)?;
    }
    if dir.link_target(DATA).as_deref() == Some(Path::new(&name))
        && dir.find(Path::new(&name))?.is_some_and(|state| holds(&state, payload))
    {
        // A write may have been cut short right behind the state.
        link_entries(dir, payload)?;
        return Ok(false);
    }
    // Left over from a write that was cut short.
    dir.remove(Path::new(&name))?;
    let state = dir.make(Path::new(&name), folders)?;
    for (path, file) in payload {
        let path = Path::new(path);
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            state.make(parent, folders)?;
        }
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        state.create(path, &file.bytes, Access { mode, owner: file.owner, group })?;
    }
    dir.remove(Path::new(NEXT))?;
    dir.link(Path::new(&name), NEXT)?;
    dir.rename(NEXT, DATA)?;
    link_entries(dir, payload)?;
    remove_others(dir, payload, &name, &mount_points)?;
    Ok(true)
}

/// Whether a state holds what its name says: its files may have been lost with the machine's power, and an administrator may have
/// been there.
fn holds(state: &Folder, payload: &Payload) -> bool {
    payload.iter().all(|(path, file)| {
        let (path, length) = (Path::new(path), file.bytes.len() as u64);
        let is_as_long = state
            .file_stat(path)
            .is_ok_and(|found| found.is_some_and(|stat| u64::try_from(stat.st_size) == Ok(length)));
        is_as_long && state.read(path, length).is_ok_and(|found| found.as_ref() == Some(&file.bytes))
    })
}

/// Whether the volume `dir` has been written to its end before, and holds that still.
pub(super) fn is_written(dir: &Folder) -> bool {
    let Some(name) = dir.link_target(DATA) else { return false };
    let told = name.to_str().and_then(|name| name.strip_prefix("..")?.get(..16));
    let told = told.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let found = dir.find(&name).and_then(|state| state.map(contents).transpose());
    let found = found.ok().flatten();
    found.is_some_and(|files| {
        Some(hash(files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())))) == told
    })
}

/// The files of a state, by their paths. No more than a volume may hold.
fn contents(state: Folder) -> Result<BTreeMap<String, Vec<u8>>, StepError> {
    let (mut files, mut left, mut space) = (BTreeMap::new(), vec![(String::new(), state)], BYTES_MAX as u64);
    while let Some((before, folder)) = left.pop() {
        // What has no text for a name is not ours.
        for name in folder.names(ENTRIES_MAX)?.into_iter().filter_map(|name| name.into_string().ok()) {
            if folder.has_folder(&name)? {
                left.push((format!("{before}{name}/"), folder.below(Path::new(&name))?));
            } else if let Some(bytes) = folder.read(Path::new(&name), space)? {
                space -= bytes.len() as u64;
                files.insert(format!("{before}{name}"), bytes);
            }
        }
    }
    Ok(files)
}

/// The names that containers see: one link per entry at the top, each through `..data`.
fn link_entries(dir: &Folder, payload: &Payload) -> Result<(), StepError> {
    for name in tops(payload) {
        let target = Path::new(DATA).join(name);
        if dir.link_target(name).as_deref() != Some(target.as_path()) {
            dir.remove(Path::new(name))?;
            dir.link(&target, name)?;
        }
    }
    Ok(())
}

fn tops(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

/// The mount points that no entry of the volume has the place of: what is mounted on an entry finds it there.
fn free<'a>(mount_points: &'a BTreeSet<PathBuf>, payload: &Payload) -> Vec<&'a Path> {
    let taken = tops(payload);
    let top = |point: &Path| point.iter().next().and_then(|name| name.to_str().map(str::to_owned));
    let is_free = |point: &&PathBuf| top(point).is_some_and(|name| !taken.contains(name.as_str()));
    mount_points.iter().filter(is_free).map(PathBuf::as_path).collect()
}

/// Entries that are no longer there, and older states, those of writes that were cut short included.
fn remove_others(
    dir: &Folder,
    payload: &Payload,
    state: &str,
    mount_points: &[&Path],
) -> Result<(), StepError> {
    let mut wanted = tops(payload);
    wanted.extend(mount_points.iter().filter_map(|point| point.iter().next()?.to_str()));
    // What was there before and what is there now.
    for name in dir.names(3 * ENTRIES_MAX)? {
        let stays = name.to_str().is_some_and(|name| name == state || name == DATA || wanted.contains(name));
        if !stays {
            dir.remove(Path::new(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::super::payload::File;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn a_volume_changes_in_one_step_and_keeps_no_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let (at, folder) = (dir.path(), Folder::root(dir.path()).unwrap());
        assert!(write(&folder, &payload(&[("a", "1"), ("d/e", "2")]), None, &BTreeSet::new()).unwrap());
        assert_eq!(fs::read_to_string(at.join("d/e")).unwrap(), "2");
        assert_eq!(fs::metadata(at.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write(&folder, &payload(&[("a", "1"), ("d/e", "2")]), None, &BTreeSet::new()).unwrap());
        assert!(write(&folder, &payload(&[("a", "3")]), None, &BTreeSet::new()).unwrap());
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "3");
        assert!(!at.join("d").exists());
        // One state, `..data` and one link.
        assert_eq!(fs::read_dir(at).unwrap().count(), 3);
    }

    #[test]
    fn what_others_are_mounted_on_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (at, folder) = (dir.path(), Folder::root(dir.path()).unwrap());
        let points = BTreeSet::from(["config", "deep/er", "a"].map(PathBuf::from));
        write(&folder, &payload(&[("a", "1"), ("b", "2")]), None, &points).unwrap();
        let number = |name: &str| fs::metadata(at.join(name)).unwrap().ino();
        assert_eq!(fs::metadata(at.join("config")).unwrap().permissions().mode() & 0o7777, 0o755);
        let before = (number("config"), number("deep/er"));
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "1", "an entry of the volume is a place, too");
        write(&folder, &payload(&[("a", "3")]), None, &points).unwrap();
        assert_eq!((number("config"), number("deep/er")), before);
        assert!(!at.join("b").exists());
        // A container that came later mounts something where nothing was.
        let more = BTreeSet::from([PathBuf::from("config"), PathBuf::from("new")]);
        assert!(!write(&folder, &payload(&[("a", "3")]), None, &more).unwrap());
        assert!(at.join("new").is_dir());
    }

    #[test]
    fn what_a_loss_of_power_took_from_a_state_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::root(dir.path()).unwrap();
        let wanted = payload(&[("a", "1"), ("d/e", "22")]);
        let wrote = || write(&folder, &wanted, None, &BTreeSet::new()).unwrap();
        assert!(wrote() && !wrote());
        for (name, left) in [("a", Some("")), ("d/e", Some("\0\0")), ("d/e", None)] {
            let at = fs::canonicalize(dir.path().join(name)).unwrap();
            match left {
                Some(text) => fs::write(at, text).unwrap(),
                None => fs::remove_file(at).unwrap(),
            }
            // Nor is it shown when there is nothing any more to write it from.
            assert!(!is_written(&folder), "{name}");
            assert!(wrote() && !wrote() && is_written(&folder), "{name}");
            assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
            assert_eq!(fs::read_to_string(dir.path().join("d/e")).unwrap(), "22");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        // Cut short behind the state: its names come, too.
        fs::remove_file(dir.path().join("a")).unwrap();
        assert!(!wrote());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
    }

    #[test]
    fn a_write_that_was_cut_short_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = payload(&[("a", "1")]);
        fs::create_dir(dir.path().join(name_of(&wanted, None))).unwrap();
        fs::create_dir(dir.path().join("..0123456789abcdef")).unwrap();
        symlink("nowhere", dir.path().join(NEXT)).unwrap();
        assert!(write(&Folder::root(dir.path()).unwrap(), &wanted, None, &BTreeSet::new()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
