//! Folders whose content is changed under our feet, by links and by somebody who is faster.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

const WAYS: [Way; 2] = [Way::Kernel, Way::Walk];

fn at(path: &str) -> &Path {
    Path::new(path)
}

/// A folder of the host that a container must never reach, with a file in it.
pub(crate) struct Outside {
    dir: tempfile::TempDir,
    before: (i64, i64, i64, i64),
}

impl Outside {
    pub(crate) fn new() -> Outside {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), "hush").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let mut outside = Outside { dir, before: (0, 0, 0, 0) };
        outside.before = outside.stamps();
        outside
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// Every write, change of mode or owner, and new or lost name moves one of these.
    fn stamps(&self) -> (i64, i64, i64, i64) {
        let (folder, file) = (fs::metadata(self.path()).unwrap(), fs::metadata(self.canary()).unwrap());
        (folder.ctime(), folder.ctime_nsec(), file.ctime(), file.ctime_nsec())
    }

    pub(crate) fn is_untouched(&self) -> bool {
        self.stamps() == self.before
            && fs::read_dir(self.path().join("d")).unwrap().count() == 0
            && fs::read_to_string(self.canary()).unwrap() == "hush"
    }
}

/// Somebody who exchanges two names in a folder as fast as he can, until the end of `work`. Answers what `work` did
/// and how often they changed places.
pub(crate) fn while_exchanged<T>(a: &Path, b: &Path, work: impl FnOnce() -> T) -> (T, u64) {
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, count.load(Ordering::Relaxed))
    })
}

#[test]
fn no_look_up_leaves_the_folder_or_follows_a_link() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), Outside::new());
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/f"), "in").unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink("a", dir.path().join("in")).unwrap();
    symlink(outside.canary(), dir.path().join("a/l")).unwrap();
    symlink("/proc/self/root", dir.path().join("magic")).unwrap();
    for way in WAYS {
        let folder = Folder::root_by(dir.path(), way).unwrap();
        assert_eq!(folder.read(at("a/f"), 10).unwrap().unwrap(), b"in", "{way:?}");
        assert!(folder.find(at("a/none")).unwrap().is_none());
        for bad in
            ["out", "in", "magic", "out/d", "in/b", "a/l", "..", "a/..", "a/../a", "/etc", "", "a\0b", "."]
        {
            assert!(folder.below(at(bad)).is_err(), "{bad} {way:?}");
            assert!(folder.find(at(bad)).is_err(), "{bad} {way:?}");
            assert!(folder.make(at(bad), Access::mode(0o777)).is_err(), "{bad} {way:?}");
            assert!(!matches!(folder.read(at(bad), 10), Ok(Some(_))), "{bad} {way:?}");
        }
        for bad in ["out/x", "in/x", "../x", "magic/x", "a/l/x"] {
            assert!(folder.create(at(bad), b"x", Access::mode(0o777)).is_err(), "{bad} {way:?}");
            assert!(folder.make(at(bad), Access::mode(0o777)).is_err(), "{bad} {way:?}");
            assert!(folder.overwrite(at(bad), b"x", Access::mode(0o777)).is_err(), "{bad} {way:?}");
            assert!(folder.remove(at(bad)).is_err(), "{bad} {way:?}");
        }
        for bad in ["a/b", "..", "", "/x", "."] {
            assert!(folder.link(at("x"), bad).is_err() && folder.rename("a", bad).is_err(), "{bad} {way:?}");
        }
        assert!(
            folder.create(at("a/l"), b"x", Access::mode(0o777)).is_err(),
            "a link is not written through"
        );
        assert!(outside.is_untouched(), "{way:?}");
    }
}

#[test]
fn only_plain_files_are_read_and_no_more_than_the_bound() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), Outside::new());
    let path = |name: &str| dir.path().join(name);
    fs::write(path("huge"), "").unwrap();
    // A terabyte that takes no room.
    fs::File::options().write(true).open(path("huge")).unwrap().set_len(1 << 40).unwrap();
    symlink(outside.canary(), path("link")).unwrap();
    rustix::fs::mkfifoat(CWD, path("fifo"), Mode::from_raw_mode(0o666)).unwrap();
    // Needs the right to make devices.
    let device = rustix::fs::mknodat(
        CWD,
        path("device"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 5),
    );
    fs::create_dir(path("folder")).unwrap();
    for way in WAYS {
        let folder = Folder::root_by(dir.path(), way).unwrap();
        assert_eq!(folder.tail(at("huge"), 4096).unwrap().unwrap().len(), 4096);
        assert!(folder.read(at("huge"), 4096).is_err());
        for name in ["link", "fifo", "folder", "absent", "huge/below"] {
            assert_eq!(folder.tail(at(name), 4096).unwrap(), None, "{name} {way:?}");
            assert_eq!(folder.read(at(name), 4096).unwrap(), None, "{name} {way:?}");
        }
        if device.is_ok() {
            assert_eq!(folder.tail(at("device"), 4096).unwrap(), None, "{way:?}");
        }
    }
}

#[test]
fn what_stands_in_the_place_of_a_file_makes_way_for_it() {
    for way in WAYS {
        let (dir, outside) = (tempfile::tempdir().unwrap(), Outside::new());
        let folder = Folder::root_by(dir.path(), way).unwrap();
        let hosts = dir.path().join("hosts");
        let traps: [&dyn Fn(); 5] = [
            &|| symlink(outside.canary(), &hosts).unwrap(),
            &|| rustix::fs::mkfifoat(CWD, &hosts, Mode::from_raw_mode(0o666)).unwrap(),
            &|| fs::create_dir_all(hosts.join("deep")).unwrap(),
            &|| fs::write(&hosts, "y".repeat(1 << 20)).unwrap(),
            &|| {
                fs::write(dir.path().join("other"), "kept").unwrap();
                fs::hard_link(dir.path().join("other"), &hosts).unwrap();
            },
        ];
        for trap in traps {
            folder.remove(at("hosts")).unwrap();
            trap();
            folder.overwrite(at("hosts"), b"ours", Access::mode(0o644)).unwrap();
            assert_eq!(fs::read_to_string(&hosts).unwrap(), "ours");
            assert!(fs::symlink_metadata(&hosts).unwrap().is_file());
        }
        assert_eq!(fs::read_to_string(dir.path().join("other")).unwrap(), "kept");
        assert!(outside.is_untouched(), "{way:?}");
        // A file that is only ours is written in place: a container has it mounted.
        let number = fs::metadata(&hosts).unwrap().ino();
        folder.overwrite(at("hosts"), b"again", Access::mode(0o644)).unwrap();
        assert_eq!(fs::metadata(&hosts).unwrap().ino(), number);
    }
}

#[test]
fn a_folder_that_becomes_a_link_gives_no_way_out() {
    for way in WAYS {
        let (dir, outside) = (tempfile::tempdir().unwrap(), Outside::new());
        fs::create_dir_all(dir.path().join("v/d")).unwrap();
        let trap = dir.path().join("trap");
        symlink(outside.path(), &trap).unwrap();
        let folder = Folder::root_by(dir.path(), way).unwrap();
        let (done, exchanged) = while_exchanged(&dir.path().join("v"), &trap, || {
            let mut done = 0;
            for round in 0..5000 {
                let access = Access { mode: 0o757, owner: Some(12345), group: Some(12345) };
                let made = folder.make(at("v/d"), access).and_then(|made| made.set_access(access));
                let name = format!("v/d/{round}");
                let created = folder.create(at(&name), b"x", access);
                let written = folder.overwrite(at("v/canary"), b"x", access);
                let read = folder.read(at("v/canary"), 100);
                assert_ne!(read.ok().flatten().as_deref(), Some(b"hush".as_slice()), "read outside");
                let removed = folder.remove(at("v/d"));
                done += u32::from(made.is_ok() && created.is_ok() && written.is_ok() && removed.is_ok());
            }
            done
        });
        assert!(outside.is_untouched(), "{way:?}");
        assert!(exchanged > 100, "the attacker had his chance {exchanged} times");
        // Some of it succeeded: it was no attack on a wall.
        assert!(done > 0 || way == Way::Walk, "{way:?}: {done}");
    }
}

#[test]
fn removal_stays_in_its_tree_while_links_are_put_into_it() {
    for way in WAYS {
        let (dir, outside) = (tempfile::tempdir().unwrap(), Outside::new());
        let trap = dir.path().join("trap");
        symlink(outside.path(), &trap).unwrap();
        let folder = Folder::root_by(dir.path(), way).unwrap();
        let mut exchanged = 0;
        for _ in 0..200 {
            for name in ["x", "x/y", "x/y/d"] {
                fs::create_dir_all(dir.path().join("tree").join(name)).unwrap();
                fs::write(dir.path().join("tree").join(name).join("canary"), "1").unwrap();
            }
            let inside = dir.path().join("tree/x/y");
            let (removed, count) = while_exchanged(&inside, &trap, || folder.remove(at("tree")));
            exchanged += count;
            if removed.is_err() {
                folder.remove(at("tree")).unwrap();
            }
            assert!(!dir.path().join("tree").exists());
            if fs::symlink_metadata(&trap).is_ok_and(|found| found.is_dir()) || !trap.exists() {
                folder.remove(at("trap")).unwrap();
                symlink(outside.path(), &trap).unwrap();
            }
        }
        assert!(outside.is_untouched(), "{way:?}");
        assert!(exchanged > 0, "the attacker had no chance");
    }
}

#[test]
fn a_tree_deeper_than_a_process_has_descriptors_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::root(dir.path()).unwrap();
    let mut inner = folder.make(at("deep"), Access::mode(0o755)).unwrap();
    for level in 0..4_000 {
        if level % 1000 == 0 {
            inner.create(at("f"), b"x", Access::mode(0o644)).unwrap();
            symlink("/etc", dir.path().join(format!("l{level}"))).unwrap();
        }
        // Both a folder to go down in and one to move aside.
        inner.make(at("side/leaf"), Access::mode(0o755)).unwrap();
        inner = inner.make(at("d"), Access::mode(0o755)).unwrap();
    }
    drop(inner);
    folder.remove(at("deep")).unwrap();
    assert!(!dir.path().join("deep").exists());
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn removal_never_enters_a_mount() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), Outside::new());
    let folder = Folder::root(dir.path()).unwrap();
    folder.make(at("tree/m/n"), Access::mode(0o755)).unwrap();
    folder.make(at("tree/t"), Access::mode(0o755)).unwrap();
    let found = Folder::root(outside.path()).unwrap().sub_path(at("d")).unwrap();
    // Needs the right to mount.
    let Ok(()) = folder.show(&found, at("tree/m/n")) else { return };
    fs::write(outside.path().join("d/kept"), "1").unwrap();
    let refused = folder.remove(at("tree")).unwrap_err().to_string();
    assert!(refused.contains("mounted"), "{refused}");
    assert!(outside.path().join("d/kept").exists());
    // Two over each other, and one in memory.
    folder.tmpfs(at("tree/m/n"), Some(1 << 20), 16).unwrap();
    folder.tmpfs(at("tree/t"), None, 16).unwrap().make(at("in/memory"), Access::mode(0o700)).unwrap();
    assert!(folder.is_mount(at("tree/t")).unwrap() && !folder.is_mount(at("tree/m")).unwrap());
    folder.detach_below(at("tree")).unwrap();
    assert!(!folder.is_mount(at("tree/m/n")).unwrap() && !folder.is_mount(at("tree/t")).unwrap());
    folder.remove(at("tree")).unwrap();
    assert!(outside.path().join("d/kept").exists());
}

#[test]
fn a_root_behind_a_link_knows_its_mounts() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("named")).unwrap();
    let folder = Folder::root(&dir.path().join("named")).unwrap();
    folder.make(at("p/t"), Access::mode(0o755)).unwrap();
    let Ok(_) = folder.tmpfs(at("p/t"), None, 16) else { return };
    assert!(folder.is_mount(at("p/t")).unwrap());
    folder.detach_below(at("p")).unwrap();
    assert!(!folder.is_mount(at("p/t")).unwrap());
}

#[test]
fn a_sub_path_follows_links_inside_and_none_that_lead_out() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), Outside::new());
    fs::create_dir_all(dir.path().join("v/..1/deep")).unwrap();
    fs::write(dir.path().join("v/..1/key"), "1").unwrap();
    symlink("..1", dir.path().join("v/..data")).unwrap();
    symlink("..data/key", dir.path().join("v/key")).unwrap();
    symlink("deep/../..data/key", dir.path().join("v/..1/round")).unwrap();
    symlink("loop", dir.path().join("v/loop")).unwrap();
    symlink("../../etc", dir.path().join("v/up")).unwrap();
    symlink(outside.path(), dir.path().join("v/out")).unwrap();
    symlink("..1/../../..", dir.path().join("v/far")).unwrap();
    for way in WAYS {
        let folder = Folder::root_by(&dir.path().join("v"), way).unwrap();
        for good in ["key", "..data/key", "..data/deep", "..1/../key"] {
            let found = folder.sub_path(at(good));
            // `..` in the pod's own words is refused, in a link it may stand.
            assert_eq!(found.is_ok(), !good.contains("/../"), "{good} {way:?}: {found:?}");
        }
        for bad in ["up", "out", "out/canary", "far", "loop", "loop/x"] {
            let refused = folder.sub_path(at(bad)).unwrap_err();
            assert!(matches!(refused, Errno::XDEV | Errno::LOOP), "{bad} {way:?}: {refused}");
        }
    }
    assert!(outside.is_untouched());
}

#[test]
fn the_mode_does_not_depend_on_the_mask_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::root(dir.path()).unwrap();
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    let made = folder.make(at("a/b"), Access::mode(0o755)).unwrap();
    made.create(at("f"), b"", Access::mode(0o666)).unwrap();
    rustix::process::umask(before);
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/b/f")), (0o755, 0o755, 0o666));
}
