use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn root_and_oneself_are_trusted_and_nobody_else() {
    for (owner, mode, closed, is_folder, verdict) in [
        (0, 0o100_644, WRITE, false, PermissionCheck::Fine),
        (7, 0o100_644, WRITE, false, PermissionCheck::Fine),
        (8, 0o100_600, WRITE, false, PermissionCheck::OtherOwner),
        (8, 0o041_777, WRITE, true, PermissionCheck::OtherOwner),
        (7, 0o100_664, WRITE, false, PermissionCheck::Close(0o644)),
        (0, 0o100_644, ALL, false, PermissionCheck::Close(0o600)),
        (0, 0o041_777, WRITE, true, PermissionCheck::Fine),
        (0, 0o101_666, WRITE, false, PermissionCheck::Close(0o1644)),
        (0, 0o040_775, OTHERS_WRITE, true, PermissionCheck::Fine),
    ] {
        assert_eq!(check_permissions(owner, mode, 7, closed, is_folder), verdict, "{owner} {mode:o}");
    }
}

/// A program is refused as it is: who could have written to it may have.
#[test]
fn what_is_only_looked_at_is_refused_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("bin")).unwrap();
    fs::write(at("bin/edgecore"), "x").unwrap();
    let set = |name: &str, mode: u32| fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
    let look = || {
        let entry =
            TrustedEntry { key: "the program", path: at("bin/edgecore"), closed: WRITE, may_be_link: true };
        TrustCheck::refusing().path(&entry)
    };
    set("bin", 0o755);
    set("bin/edgecore", 0o755);
    look().unwrap();
    for (name, open, closed) in [("bin/edgecore", 0o757, 0o755), ("bin", 0o777, 0o755)] {
        set(name, open);
        let error = look().unwrap_err();
        assert!(matches!(error, UntrustedFile::Exposed { mode, .. } if mode == closed), "{error}");
        assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777, open);
        set(name, closed);
    }
}
