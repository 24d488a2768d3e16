//! Disks that are full or take no writes: real ones, of two megabytes each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rerun;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use edge_store::{
    Class, ObjectKey, Opened, Options, OutboxQueue, Store, StoreError, StoreInspector, Table, Write,
};
use rustix::mount::{MountFlags, mount, mount_remount};
use tempfile::TempDir;

/// A small disk. It is unmounted with the mounts of the test.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=2m")).unwrap();
        Disk { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn db(&self) -> PathBuf {
        self.path().join("edgecore.db")
    }

    fn open(&self) -> Store {
        Store::open(self.db(), Options::new([1; 16])).unwrap()
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut ballast =
            File::options().append(true).create(true).open(self.path().join("ballast")).unwrap();
        for size in [1 << 16, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }

    fn read_only(&self, yes: bool) {
        let flags = if yes { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_remount(self.path(), flags, c"").unwrap();
    }
}

fn batch(id: usize) -> Vec<Write> {
    vec![
        Write::PutObject {
            key: ObjectKey::new("secrets", "default", format!("s{id}")),
            uid: "u".to_owned(),
            content_hash: "1".to_owned(),
            resource_version: "7".to_owned(),
            json: vec![b'a'; 2000],
        },
        Write::Enqueue {
            queue: OutboxQueue::Node,
            class: Class::Event,
            key: format!("{id}"),
            body: vec![b'b'; 500],
        },
    ]
}

/// Exactly the batches that were answered are there.
fn holds(store: &Store, answered: &[usize]) {
    let mut secrets: Vec<usize> = store
        .list_objects("secrets", None)
        .unwrap()
        .iter()
        .map(|object| object.key.name[1..].parse().unwrap())
        .collect();
    secrets.sort_unstable();
    let reports: Vec<usize> =
        store.outbox_head(10_000, 1 << 24).unwrap().iter().map(|row| row.key.parse().unwrap()).collect();
    assert_eq!((secrets.as_slice(), reports.as_slice()), (answered, answered));
    assert_eq!((store.snapshot().damaged, store.snapshot().outbox_rows), (0, answered.len() as u64));
}

fn trouble(store: &Store) -> String {
    store.snapshot().trouble.unwrap()
}

#[test]
fn a_disk_that_fills_up_refuses_and_heals() {
    if !rerun::in_own_mounts("a_disk_that_fills_up_refuses_and_heals") {
        return;
    }
    let disk = Disk::new();
    let store = disk.open();
    let mut answered: Vec<usize> = (0..50).collect();
    for id in 0..50 {
        store.commit_blocking(batch(id)).unwrap();
    }
    for round in 1..=3 {
        disk.fill();
        // The log has room in it for a while.
        let mut refused = 0;
        for id in round * 1000..round * 1000 + 400 {
            match store.commit_blocking(batch(id)) {
                Ok(_) => answered.push(id),
                Err(error) => {
                    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
                    assert!(error.to_string().contains("free space"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 50, "{refused}");
        assert!(trouble(&store).contains("free space"));
        holds(&store, &answered);
        disk.free();
        store.commit_blocking(batch(round * 1000 + 900)).unwrap();
        answered.push(round * 1000 + 900);
        assert_eq!(store.snapshot().trouble, None);
        holds(&store, &answered);
        // Room for the next round.
        let seqs = store.outbox_head(10_000, 1 << 24).unwrap().iter().map(|row| row.seq).collect();
        let forget = answered.drain(..).map(|id| Write::DeleteObject {
            key: ObjectKey::new("secrets", "default", format!("s{id}")),
            uid: None,
        });
        store.commit_blocking(forget.chain([Write::Confirm { seqs }]).collect()).unwrap();
    }
    drop(store);
    let store = disk.open();
    assert_eq!(store.opened(), &Opened::Clean);
    holds(&store, &answered);
}

/// The store opened while its disk takes no writes: it answers reads, refuses, and heals without being opened again.
fn serves_and_heals(disk: &Disk, is_expected: impl Fn(&StoreError) -> bool, heal: impl FnOnce()) {
    let mut answered: Vec<usize> = (0..50).collect();
    let store = disk.open();
    assert_eq!(store.opened(), &Opened::Clean);
    assert!(!trouble(&store).is_empty());
    for id in 50..53 {
        holds(&store, &answered);
        let error = store.commit_blocking(batch(id)).unwrap_err();
        assert!(is_expected(&error), "{error:?}");
        assert!(error.to_string().contains("edgecore.db"), "{error}");
    }
    assert_eq!((store.snapshot().refused, store.revision()), (3, 50));
    let inspector = StoreInspector::open(disk.db()).unwrap();
    let entries = inspector.entries(Some("secrets"), None, false).unwrap();
    assert_eq!((entries.len(), entries.iter().filter(|entry| entry.damage.is_some()).count()), (50, 0));
    drop(inspector);
    heal();
    assert_eq!(store.commit_blocking(batch(53)).unwrap().revision, 51);
    answered.push(53);
    assert_eq!(store.snapshot().trouble, None);
    holds(&store, &answered);
    drop(store);
    let store = disk.open();
    assert_eq!((store.opened(), store.incarnation()), (&Opened::Clean, [1; 16].as_slice()));
    holds(&store, &answered);
}

/// A disk with fifty batches on it, as they are after a clean end or after a kill with all of them in the log.
fn disk_with_fifty(killed: bool) -> Disk {
    let disk = Disk::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let live = elsewhere.path().join("edgecore.db");
    let store = Store::open(&live, Options::new([1; 16])).unwrap();
    for id in 0..50 {
        store.commit_blocking(batch(id)).unwrap();
    }
    let still_open = Some(store).filter(|_| killed);
    for name in ["edgecore.db", "edgecore.db-wal", "edgecore.db.key", "edgecore.db.lock"] {
        if elsewhere.path().join(name).exists() {
            fs::copy(elsewhere.path().join(name), disk.path().join(name)).unwrap();
        }
    }
    assert_eq!((disk.path().join("edgecore.db-wal").exists(), still_open.is_some()), (killed, killed));
    disk
}

#[test]
fn a_node_that_boots_with_a_full_disk_has_its_objects() {
    if !rerun::in_own_mounts("a_node_that_boots_with_a_full_disk_has_its_objects") {
        return;
    }
    for killed in [false, true] {
        let disk = disk_with_fifty(killed);
        disk.fill();
        serves_and_heals(&disk, |error| matches!(error, StoreError::NoSpace { .. }), || disk.free());
    }
}

#[test]
fn a_node_that_boots_with_a_read_only_disk_has_its_objects() {
    if !rerun::in_own_mounts("a_node_that_boots_with_a_read_only_disk_has_its_objects") {
        return;
    }
    for killed in [false, true] {
        let disk = disk_with_fifty(killed);
        disk.read_only(true);
        serves_and_heals(
            &disk,
            |error| matches!(error, StoreError::ReadOnly { .. }),
            || disk.read_only(false),
        );
    }
}

#[test]
fn a_broken_file_waits_for_a_disk_that_takes_its_copy() {
    if !rerun::in_own_mounts("a_broken_file_waits_for_a_disk_that_takes_its_copy") {
        return;
    }
    let disk = disk_with_fifty(false);
    let mut bytes = fs::read(disk.db()).unwrap();
    let at = bytes.len() / 2 / 4096 * 4096;
    bytes[at..at + 4096].fill(0xa5);
    fs::write(disk.db(), &bytes).unwrap();
    disk.fill();
    let open = || Store::open(disk.db(), Options::new([2; 16]));
    assert!(matches!(open().unwrap_err(), StoreError::NoSpace { .. }));
    disk.read_only(true);
    assert!(matches!(open().unwrap_err(), StoreError::ReadOnly { .. }));
    assert!(fs::read(disk.db()).unwrap() == bytes, "the broken file is all there is");
    disk.read_only(false);
    disk.free();
    let store = open().unwrap();
    let Opened::Quarantined { salvaged, .. } = store.opened() else { panic!("{:?}", store.opened()) };
    assert!((60..100).contains(salvaged), "{salvaged}");
    store.commit_blocking(vec![Write::DeleteRows { table: Table::Facts, key1: "x".to_owned() }]).unwrap();
}
