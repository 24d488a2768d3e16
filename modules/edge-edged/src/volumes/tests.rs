//! The volume attack: somebody with all rights inside the volume, against the updater alone.
//!
//! With the volume mounted read-only no container can do this any more. It has to hold all the same: a container that
//! runs since an older start has it mounted writable.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, renameat_with};

use super::atomic;
use super::payload::{File, Payload};
use crate::disk::beneath::Folder;
use crate::disk::beneath::tests::Outside;

const KEYS: usize = 60;
const UPDATES: usize = 200;
const TRAP: &str = "..trap";

fn payload(round: usize) -> Payload {
    let file =
        |key: usize| File { bytes: format!("{round}-{key}").into_bytes(), mode: 0o666, owner: Some(12345) };
    (0..KEYS)
        .map(|key| (if key % 10 == 0 { format!("d/{key}") } else { format!("k{key}") }, file(key)))
        .collect()
}

/// Exchanges every folder of ours that shows up, or a part of it, for a link to `outside`, and back again now and then,
/// as the review's attacker did.
fn attack(volume: &Path, outside: &Path, done: &AtomicBool, exchanged: &AtomicU64) {
    // He cannot reach outside himself: no link is followed on the way to what he exchanges.
    let exchange = |folder: &Path, part: &str, target: &Path| {
        let Ok(folder) = open(folder, OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) else { return };
        let trap = volume.join(TRAP);
        if !fs::symlink_metadata(&trap).is_ok_and(|found| found.is_symlink()) {
            drop(fs::remove_file(&trap));
            drop(fs::remove_dir_all(&trap));
            drop(symlink(target, &trap));
        }
        if renameat_with(&folder, part, CWD, &trap, RenameFlags::EXCHANGE).is_ok() {
            exchanged.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut turn = 0_u64;
    while !done.load(Ordering::Relaxed) {
        for entry in fs::read_dir(volume).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") || name.starts_with("..data") || name == TRAP {
                continue;
            }
            turn += 1;
            let state = volume.join(&name);
            match (entry.file_type().is_ok_and(|kind| kind.is_dir()), turn % 8) {
                (true, 0) => exchange(&state, "d", outside),
                (true, 1) => exchange(&state, "k7", &outside.join("canary")),
                (true, _) => exchange(volume, &name, outside),
                // The folder comes back, which hides that it was away.
                (false, 0..4) => {
                    let _ = renameat_with(CWD, &state, CWD, volume.join(TRAP), RenameFlags::EXCHANGE);
                }
                (false, _) => {}
            }
        }
    }
}

fn attacked<T>(volume: &Path, outside: &Outside, work: impl FnOnce() -> T) -> (T, u64) {
    let (done, exchanged) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| attack(volume, outside.path(), &done, &exchanged));
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, exchanged.load(Ordering::Relaxed))
    })
}

/// A writer as it was: by path.
fn write_by_path(volume: &Path, round: usize) {
    let state = volume.join(format!("..{round:016x}"));
    drop(fs::create_dir(&state));
    for (path, file) in payload(round) {
        let at = state.join(path);
        drop(at.parent().map(fs::create_dir_all));
        drop(fs::write(at, file.bytes));
    }
    drop(fs::remove_dir_all(&state));
    drop(fs::remove_file(&state));
}

#[test]
fn two_hundred_updates_under_attack_touch_nothing_outside() {
    // The attacker is good enough: a writer by path is caught.
    let (volume, outside) = (tempfile::tempdir().unwrap(), Outside::new());
    let (caught, _) = attacked(volume.path(), &outside, || {
        (0..UPDATES).any(|round| {
            write_by_path(volume.path(), round);
            !outside.is_untouched()
        })
    });
    assert!(caught, "the attacker of this test is too slow to prove anything");

    for older in [false, true] {
        let (volume, outside) = (tempfile::tempdir().unwrap(), Outside::new());
        let (path, points) = (volume.path(), BTreeSet::new());
        let folder = if older { Folder::root_on_older(path) } else { Folder::root(path).unwrap() };
        let (written, exchanged) = attacked(path, &outside, || {
            (0..UPDATES)
                .filter(|round| atomic::write(&folder, &payload(*round), Some(4321), &points).is_ok())
                .count()
        });
        assert!(outside.is_untouched(), "written outside; older: {older}");
        assert!(exchanged > UPDATES as u64, "the attacker had his chance {exchanged} times");
        assert!(written > 0, "no update went through: it was no attack on an updater that works");
        // When he is gone, the next update puts everything right.
        atomic::write(&folder, &payload(UPDATES), Some(4321), &points).unwrap();
        assert_eq!(fs::read_to_string(path.join("k7")).unwrap(), "200-7");
        assert_eq!(fs::read_to_string(path.join("d/10")).unwrap(), "200-10");
        assert!(fs::symlink_metadata(path.join(TRAP)).is_err());
        assert!(outside.is_untouched());
    }
}
