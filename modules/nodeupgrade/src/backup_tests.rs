//! Backups of a small node, with a real store.

use super::*;
use edge_store::{Options, Store, StoreInspector};
use std::os::unix::fs::PermissionsExt as _;

struct Fixture {
    folder: tempfile::TempDir,
    store: PathBuf,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("edgecore.db");
    drop(Store::open(&store, Options::new([1; 16])).unwrap());
    fs::write(folder.path().join("program"), "old").unwrap();
    fs::set_permissions(folder.path().join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    Fixture { folder, store }
}

fn backed_up(fixture: &Fixture, version: &str, sequence: u64) -> Backup {
    let program = fixture.folder.path().join("program");
    let version = Version::parse(version).unwrap();
    make(&contents(&version, &[("edgecore", &program)], &fixture.store, sequence), None).unwrap()
}

fn contents<'a>(
    version: &'a Version,
    files: &'a [(&'a str, &'a Path)],
    store: &'a Path,
    sequence: u64,
) -> Contents<'a> {
    // The clock goes backwards all the time.
    Contents { version, files, store, store_may_be_broken: false, sequence, now: 1000 - sequence }
}

fn versions(fixture: &Fixture) -> Vec<String> {
    list(&fixture.store).unwrap().iter().map(|one| one.version.to_string()).collect()
}

#[test]
fn a_backup_keeps_modes_and_is_for_its_owner_alone() {
    let fixture = fixture();
    let backup = backed_up(&fixture, "0.1.0+abc", 5);
    assert_eq!(list(&fixture.store).unwrap(), std::slice::from_ref(&backup));
    assert_eq!(files::mode_of(&backup.folder).unwrap(), 0o700);
    assert_eq!(files::mode_of(&backup.folder.join("edgecore")).unwrap(), 0o755);
    for private in [backup.store(), files::beside(&backup.store(), ".key")] {
        assert_eq!(files::mode_of(&private).unwrap(), 0o600, "{}", private.display());
    }
    StoreInspector::open(backup.store()).unwrap();
    refresh_store(&backup.folder, &edge_store::hold(&fixture.store).unwrap()).unwrap();
    StoreInspector::open(backup.store()).unwrap();
}

#[test]
fn the_newest_are_kept_and_one_of_the_same_version_is_replaced() {
    let fixture = fixture();
    for (minor, sequence) in [(1, 1), (2, 2), (3, 3), (4, 4), (4, 5)] {
        backed_up(&fixture, &format!("0.{minor}.0"), sequence);
    }
    assert_eq!(versions(&fixture), ["0.4.0", "0.3.0", "0.2.0"]);
    backed_up(&fixture, "0.5.0", 6);
    assert_eq!(versions(&fixture), ["0.5.0", "0.4.0", "0.3.0"]);
}

#[test]
fn a_broken_store_is_left_out_where_somebody_is_on_the_way_back() {
    let fixture = fixture();
    fs::write(&fixture.store, vec![7; 8192]).unwrap();
    let (version, program) = (Version::parse("0.1.0").unwrap(), fixture.folder.path().join("program"));
    let files = [("edgecore", program.as_path())];
    let mut of = contents(&version, &files, &fixture.store, 1);
    assert!(make(&of, None).is_err());
    of.store_may_be_broken = true;
    let made = make(&of, None).unwrap();
    assert!(made.folder.join("edgecore").exists() && !made.store().exists());
}

#[test]
fn what_an_end_has_left_is_no_backup_and_goes() {
    let fixture = fixture();
    let half = root(&fixture.store).join(".new-0.1.0");
    fs::create_dir_all(half.join("below")).unwrap();
    let torn = root(&fixture.store).join("0.0.9");
    fs::create_dir_all(&torn).unwrap();
    fs::write(torn.join(LIST), "{").unwrap();
    assert!(versions(&fixture).is_empty());
    backed_up(&fixture, "0.1.0", 1);
    assert!(!half.exists());
    assert_eq!(versions(&fixture), ["0.1.0"]);
}

#[test]
fn a_version_is_found_by_its_name_or_as_the_newest_other_one() {
    let fixture = fixture();
    for (version, sequence) in [("0.1.0+abc", 1), ("0.2.0+def", 2), ("0.3.0+123", 3)] {
        backed_up(&fixture, version, sequence);
    }
    let running = Version::parse("0.3.0+123").unwrap();
    let found = |named| find(&fixture.store, named, &running).map(|one| one.version.to_string());
    assert_eq!(found(None).unwrap(), "0.2.0+def");
    let back = |running: &Version| find(&fixture.store, None, running).map(|one| one.version.to_string());
    assert_eq!(back(&Version::parse("0.2.0+def").unwrap()).unwrap(), "0.1.0+abc", "not forward again");
    let error = format!("{:#}", back(&Version::parse("0.1.0+abc").unwrap()).unwrap_err());
    assert!(error.contains("0.3.0+123") && error.contains("--historical-version"), "{error}");
    assert_eq!(back(&Version::unknown("a program that says nothing")).unwrap(), "0.3.0+123");
    assert_eq!(found(Some("v0.1.0")).unwrap(), "0.1.0+abc");
    assert_eq!(found(Some("0.3.0")).unwrap(), "0.3.0+123", "its settings");
    for (named, word) in [("0.0.1", "0.2.0+def"), ("../x", "no version")] {
        let error = format!("{:#}", found(Some(named)).unwrap_err());
        assert!(error.contains(word), "{error}");
    }
}
