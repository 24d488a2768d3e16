//! Gives a volume's files to the group of a pod, as the kubelet does (`pkg/volume/volume_linux.go`). Blocks.

use std::path::{Path, PathBuf};

use crate::disk::beneath::{Access, Folder};
use crate::disk::folders;
use crate::error::StepError;

/// Files that are looked at; a volume with more is given as far as it goes, with a word.
const FILES_MAX: usize = 10_000_000;
/// 16 KiB of a path: four times what programs can name at once.
const PATH_MAX: usize = 16 << 10;
/// So many folders wait to be looked into.
const WAITING_MAX: usize = 1 << 20;

/// The group of a pod's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) number: u32,
    /// Not if the folder itself is the group's already (`OnRootMismatch`).
    pub(crate) only_at_the_root: bool,
}

/// Gives a volume to the group, unless that was done to its end since it was mounted: `mark` says so, and outlives whoever asked,
/// since nobody hears of a mount a second time. `is_new`: it was mounted now, and a mark speaks of a mount before.
pub(crate) fn give_once(
    root: &Folder,
    at: &Path,
    mark: &Path,
    group: Group,
    is_new: bool,
) -> Result<(), StepError> {
    if is_new {
        root.remove(mark)?;
    } else if root.file_stat(mark)?.is_some() {
        return Ok(());
    }
    give(&root.below(at)?, group)?;
    set_given(root, mark)
}

/// Notes that nothing is to be given any more.
pub(crate) fn set_given(root: &Folder, mark: &Path) -> Result<(), StepError> {
    if let Some(marks) = mark.parent() {
        folders::lead_to(root, marks)?;
    }
    root.overwrite(mark, b"", Access::mode(0o640))
}

/// Gives all of it to the group.
fn give(volume: &Folder, Group { number: group, only_at_the_root }: Group) -> Result<(), StepError> {
    if only_at_the_root && volume.is_of_group(group)? {
        return Ok(());
    }
    let top = volume.give_entries(group)?;
    let (mut seen, mut failed, mut is_partial) = (top.seen, top.failed, top.is_partial);
    let mut waiting: Vec<PathBuf> = top.folders.into_iter().map(PathBuf::from).collect();
    while let Some(at) = waiting.pop() {
        if seen > FILES_MAX {
            is_partial = true;
            break;
        }
        // It may have gone, or become something else: then it is nobody's.
        let Ok(Some(inner)) = volume.find_deep(&at) else { continue };
        let found = inner.give_entries(group)?;
        (seen, failed) = (seen + found.seen, failed + found.failed);
        is_partial |= found.is_partial;
        for name in found.folders {
            let next = at.join(name);
            // What is skipped takes nothing from the others.
            if next.as_os_str().len() > PATH_MAX || waiting.len() >= WAITING_MAX {
                is_partial = true;
            } else {
                waiting.push(next);
            }
        }
    }
    let shown = volume.shown().display().to_string();
    if is_partial {
        tracing::warn!(
            volume = shown,
            seen,
            "a volume has too many or too deep files to give them all to the pod's group"
        );
    }
    if failed > 0 {
        tracing::warn!(volume = shown, failed, "files of a volume could not be given to the pod's group");
    }
    // The root last: what is cut short is begun anew, and its root does not say that it is done.
    volume.give_itself(group, !is_partial)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn everything_becomes_the_groups_and_no_link_is_followed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/f"), "x").unwrap();
        fs::write(other.path().join("foreign"), "x").unwrap();
        for (path, mode) in [(at("a"), 0o700), (at("a/b/f"), 0o400), (other.path().join("foreign"), 0o600)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink(other.path().join("foreign"), at("link")).unwrap();
        symlink(other.path(), at("folder")).unwrap();
        let volume = Folder::root(dir.path()).unwrap();
        if volume.give_itself(4242, true).is_err() {
            // Only root can give away.
            return;
        }
        let all = |number| Group { number, only_at_the_root: false };
        let at_the_root = |number| Group { number, only_at_the_root: true };
        give(&volume, all(4242)).unwrap();
        let seen = |name: &str| {
            let found = fs::symlink_metadata(at(name)).unwrap();
            (found.mode() & 0o7777, found.gid())
        };
        assert_eq!(seen("a"), (0o2770, 4242));
        assert_eq!(seen("a/b/f"), (0o660, 4242));
        assert_eq!(seen("link").1, 4242);
        let foreign = fs::metadata(other.path().join("foreign")).unwrap();
        assert_eq!(
            (foreign.mode() & 0o7777, foreign.gid()),
            (0o600, fs::metadata(other.path()).unwrap().gid())
        );
        // Its root says that it is done.
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o700)).unwrap();
        give(&volume, at_the_root(4242)).unwrap();
        assert_eq!(seen("a").0, 0o700);
        give(&volume, at_the_root(4243)).unwrap();
        assert_eq!(seen("a"), (0o2770, 4243));
    }

    #[test]
    fn the_deepest_file_is_given_too_and_what_was_cut_short_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Folder::root(dir.path()).unwrap();
        if volume.give_itself(4242, false).is_err() {
            return;
        }
        assert!(!volume.is_of_group(4242).unwrap(), "it is the group's, and looked at again");
        let mut inner = volume.make(Path::new("d"), Access::mode(0o700)).unwrap();
        for _ in 0..400 {
            inner = inner.make(Path::new("d"), Access::mode(0o700)).unwrap();
        }
        inner.create(Path::new("f"), b"x", Access::mode(0o600)).unwrap();
        give(&volume, Group { number: 4242, only_at_the_root: true }).unwrap();
        let stat = inner.file_stat(Path::new("f")).unwrap().unwrap();
        assert_eq!((stat.st_gid, stat.st_mode & 0o777), (4242, 0o660));
        assert!(volume.is_of_group(4242).unwrap());
    }

    /// Whoever asked may be gone when it is done, or before it is begun; and what is not done is asked for again.
    #[test]
    fn a_volume_is_given_once_and_until_that_went_well() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let (at, mark) = (Path::new("v"), Path::new("marks/v/given"));
        let group = Group { number: 4242, only_at_the_root: false };
        let of = || fs::metadata(dir.path().join("v")).unwrap().gid();
        assert!(give_once(&root, at, mark, group, true).is_err(), "nothing is mounted there");
        fs::create_dir(dir.path().join("v")).unwrap();
        let own = of();
        // Not new any more, and not given either.
        if give_once(&root, at, mark, group, false).is_err() {
            return;
        }
        assert_eq!(of(), 4242);
        std::os::unix::fs::chown(dir.path().join("v"), None, Some(own)).unwrap();
        give_once(&root, at, mark, group, false).unwrap();
        assert_eq!(of(), own, "from then on it is its containers'");
        give_once(&root, at, mark, group, true).unwrap();
        assert_eq!(of(), 4242, "it was mounted anew");
    }
}
