//! Gives a volume's files to the group of a pod, as the kubelet does (`pkg/volume/volume_linux.go`). Blocks.

use std::ffi::OsString;

use crate::disk::beneath::Folder;
use crate::error::StepError;

/// Files that are looked at; a volume with more is given as far as it goes, with a word.
const FILES_MAX: usize = 10_000_000;
/// So deep: each level is an open folder.
const DEPTH_MAX: usize = 256;

/// Gives all of it to `group`; `only_at_the_root`: not if the folder itself is the group's already (`OnRootMismatch`).
pub(crate) fn give(volume: &Folder, group: u32, only_at_the_root: bool) -> Result<(), StepError> {
    if only_at_the_root && volume.is_of_group(group)? {
        return Ok(());
    }
    let (mut seen, mut failed) = (0_usize, 0_usize);
    let top = volume.give_entries(group)?;
    (seen, failed) = (seen + top.seen, failed + top.failed);
    // The folders on the way down, each with those in it that are left.
    let mut way: Vec<(Option<Folder>, Vec<OsString>)> = vec![(None, top.folders)];
    while let Some((folder, left)) = way.last_mut() {
        let Some(name) = left.pop() else {
            way.pop();
            continue;
        };
        let here = folder.as_ref().unwrap_or(volume);
        // It may have gone, or become something else: then it is nobody's.
        let Ok(inner) = here.below(name.as_ref()) else { continue };
        let found = inner.give_entries(group)?;
        (seen, failed) = (seen + found.seen, failed + found.failed);
        if seen > FILES_MAX || way.len() >= DEPTH_MAX {
            let volume = volume.shown().display().to_string();
            tracing::warn!(
                volume,
                seen,
                "a volume has too many or too deep files to give them all to the pod's group"
            );
            break;
        }
        way.push((Some(inner), found.folders));
    }
    if failed > 0 {
        let volume = volume.shown().display().to_string();
        tracing::warn!(volume, failed, "files of a volume could not be given to the pod's group");
    }
    // The root last: what is cut short is begun anew.
    volume.give_itself(group)
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
        if volume.give_itself(4242).is_err() {
            // Only root can give away.
            return;
        }
        give(&volume, 4242, false).unwrap();
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
        give(&volume, 4242, true).unwrap();
        assert_eq!(seen("a").0, 0o700);
        give(&volume, 4243, true).unwrap();
        assert_eq!(seen("a"), (0o2770, 4243));
    }
}
