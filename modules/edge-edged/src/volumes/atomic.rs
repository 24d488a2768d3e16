//! Swapping all files of a volume at once: readers follow `..data`, which moves in one rename.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::payload::{FILES_MAX, Payload};
use crate::disk::beneath::{Access, Folder};
use crate::error::StepError;
use crate::pod::parsed_pod::fnv1a;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// The folder that holds one state of a volume, named by what is in it.
fn name_of(payload: &Payload, group: Option<u32>) -> String {
    let mut all = Vec::new();
    for (path, file) in payload {
        for part in [path.as_bytes(), &file.bytes] {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
        all.extend_from_slice(&file.mode.to_le_bytes());
        all.extend_from_slice(&file.owner.unwrap_or(u32::MAX).to_le_bytes());
    }
    all.extend_from_slice(&group.unwrap_or(u32::MAX).to_le_bytes());
    format!("..{:016x}", fnv1a(&all))
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
        state.create_kept(path, &file.bytes, Access { mode, owner: file.owner, group })?;
    }
    // After a loss of power the link leads to what was written, or to what was there before.
    state.keep()?;
    dir.remove(Path::new(NEXT))?;
    dir.link(Path::new(&name), NEXT)?;
    dir.rename(NEXT, DATA)?;
    dir.keep()?;
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

/// Whether the volume `dir` has been written to its end before.
pub(super) fn is_written(dir: &Folder) -> bool {
    let state = dir.link_target(DATA);
    state.is_some_and(|state| dir.find(&state).is_ok_and(|state| state.is_some()))
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
    for name in dir.names(3 * FILES_MAX)? {
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
        let is_written = || write(&folder, &wanted, None, &BTreeSet::new()).unwrap();
        assert!(is_written() && !is_written());
        for (name, left) in [("a", Some("")), ("d/e", Some("\0\0")), ("d/e", None)] {
            let at = fs::canonicalize(dir.path().join(name)).unwrap();
            match left {
                Some(text) => fs::write(at, text).unwrap(),
                None => fs::remove_file(at).unwrap(),
            }
            assert!(is_written() && !is_written(), "{name}");
            assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
            assert_eq!(fs::read_to_string(dir.path().join("d/e")).unwrap(), "22");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
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
