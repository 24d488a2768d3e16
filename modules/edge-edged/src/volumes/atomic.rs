//! Swapping all files of a volume at once: readers follow `..data`, which moves in one rename.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use super::payload::Payload;
use crate::desired::fnv1a;
use crate::error::StepError;

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

/// Brings the volume at `dir` to `payload`; answers whether anything changed.
pub(super) fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<bool, StepError> {
    let name = name_of(payload, group);
    let current = fs::read_link(dir.join(DATA)).ok();
    let state = dir.join(&name);
    if current.as_deref() == Some(Path::new(&name)) && state.is_dir() {
        return Ok(false);
    }
    // Left over from a write that was cut short.
    remove(&state)?;
    make_dir(&state, group)?;
    for (path, file) in payload {
        let at = state.join(path);
        make_parents(&state, path, group)?;
        fs::write(&at, &file.bytes).map_err(|error| StepError::file("write", &at, &error))?;
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        set_access(&at, mode, file.owner, group)?;
    }
    let next = dir.join(NEXT);
    remove(&next)?;
    symlink(&name, &next).map_err(|error| StepError::file("link", &next, &error))?;
    let data = dir.join(DATA);
    fs::rename(&next, &data).map_err(|error| StepError::file("swap", &data, &error))?;
    link_entries(dir, payload)?;
    if let Some(old) =
        current.filter(|old| is_own(&old.to_string_lossy()) && old.as_path() != Path::new(&name))
    {
        remove(&dir.join(old))?;
    }
    Ok(true)
}

/// The names that containers see: one link per entry at the top, each through `..data`.
fn link_entries(dir: &Path, payload: &Payload) -> Result<(), StepError> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        let target = Path::new(DATA).join(name);
        if fs::read_link(&link).ok().as_deref() != Some(target.as_path()) {
            remove(&link)?;
            symlink(&target, &link).map_err(|error| StepError::file("link", &link, &error))?;
        }
    }
    let entries = fs::read_dir(dir).map_err(|error| StepError::file("list", dir, &error))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn is_own(name: &str) -> bool {
    name.len() == 18 && name.starts_with("..") && name.bytes().skip(2).all(|b| b.is_ascii_hexdigit())
}

fn make_parents(state: &Path, path: &str, group: Option<u32>) -> Result<(), StepError> {
    let mut at: PathBuf = state.to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    for part in parts.iter().take(parts.len().saturating_sub(1)) {
        at.push(part);
        if !at.is_dir() {
            make_dir(&at, group)?;
        }
    }
    Ok(())
}

fn make_dir(path: &Path, group: Option<u32>) -> Result<(), StepError> {
    fs::create_dir(path).map_err(|error| StepError::file("make folder", path, &error))?;
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    set_access(path, mode, None, group)
}

fn set_access(path: &Path, mode: u32, owner: Option<u32>, group: Option<u32>) -> Result<(), StepError> {
    if owner.is_some() || group.is_some() {
        chown(path, owner, group).map_err(|error| StepError::file("give away", path, &error))?;
    }
    // After the owner: a change of owner clears the set-group bit.
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(|error| StepError::file("set the mode of", path, &error))
}

fn remove(path: &Path) -> Result<(), StepError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let removed = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| StepError::file("remove", path, &error))
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn a_volume_changes_in_one_step_and_keeps_no_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(write(at, &payload(&[("a", "1"), ("d/e", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(at.join("d/e")).unwrap(), "2");
        assert_eq!(fs::metadata(at.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write(at, &payload(&[("a", "1"), ("d/e", "2")]), None).unwrap());
        assert!(write(at, &payload(&[("a", "3")]), None).unwrap());
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "3");
        assert!(!at.join("d").exists());
        // One state, `..data` and one link.
        assert_eq!(fs::read_dir(at).unwrap().count(), 3);
    }

    #[test]
    fn a_write_that_was_cut_short_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = payload(&[("a", "1")]);
        fs::create_dir(dir.path().join(name_of(&wanted, None))).unwrap();
        symlink("nowhere", dir.path().join(NEXT)).unwrap();
        assert!(write(dir.path(), &wanted, None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
    }
}
