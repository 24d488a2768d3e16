//! Whether the disk holds what is built. A linker that finds no room ends with a bus error and names no disk.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::steps::Outcome;

/// Bytes that a folder of everything takes when nothing of it is kept, and twice that when a build to come is thought of.
const THROWN_AWAY: u64 = 16_000_000_000;
const KEPT: u64 = 40_000_000_000;

/// Looks at the disk of `target`. Too little is said and tried: what was built before needs no room again.
pub(crate) fn look(target: &Path, kept: bool) -> Outcome {
    let needed = if kept { KEPT } else { THROWN_AWAY };
    match free(target) {
        Some(free) => verdict(free, needed, target),
        None => Outcome::Skipped(format!("df does not say how much room {} has", target.display())),
    }
}

fn verdict(free: u64, needed: u64, target: &Path) -> Outcome {
    if free >= needed {
        return Outcome::Passed;
    }
    Outcome::Skipped(format!(
        "{} has room for {} GB, and an empty folder grows to {} GB: a bus error of the linker below means that the disk is full",
        target.display(),
        free / 1_000_000_000,
        needed / 1_000_000_000
    ))
}

/// Bytes that whoever runs this may still write there.
fn free(target: &Path) -> Option<u64> {
    // The folder is made by the first build, which may be this one.
    let there = target.ancestors().find(|folder| folder.exists())?;
    let told = Command::new("df")
        .args(["--output=avail", "--block-size=1"])
        .arg(there)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    String::from_utf8_lossy(&told.stdout).lines().last()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_said_with_what_is_needed() {
        let folder = Path::new("/somewhere/target");
        assert!(matches!(verdict(KEPT, KEPT, folder), Outcome::Passed));
        let Outcome::Skipped(why) = verdict(KEPT - 1, KEPT, folder) else { panic!("not said") };
        assert!(why.contains("/somewhere/target has room for 39 GB") && why.contains("40 GB"), "{why}");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_room_of_the_one_above() {
        let above = std::env::temp_dir();
        assert!(free(&above.join("not/there/yet")).is_some_and(|free| free > 0));
    }
}
