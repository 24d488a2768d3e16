//! Runs a test once more in a process of its own.

use std::path::Path;
use std::process::Command;

/// Set in the second run.
const MARK: &str = "EDGE_STORE_TEST_AGAIN";

/// What the second run was given; `None` in the first.
pub(crate) fn given() -> Option<String> {
    std::env::var(MARK).ok()
}

/// This very test, to be run with `given`.
pub(crate) fn this_test(name: &str, given: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, given);
    command
}

/// Runs the test in mounts of its own, which go when it ends. `true` if this is the run inside.
#[allow(dead_code)]
pub(crate) fn in_own_mounts(name: &str) -> bool {
    if given().is_some() {
        return true;
    }
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    assert!(
        root,
        "disks that are full or read-only need mounts, and mounts need root: run the tests as root"
    );
    let unshare = Path::new("/usr/bin/unshare");
    assert!(
        unshare.exists(),
        "Debian's util-linux is not installed: apt-get install --no-install-recommends util-linux"
    );
    let test = this_test(name, "inside");
    let mut command = Command::new(unshare);
    command.args(["--mount", "--propagation", "private"]).arg(test.get_program()).args(test.get_args());
    let out = command.env(MARK, "inside").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    // A name that no test has would pass, too.
    assert!(said.contains("1 passed"), "{said}");
    false
}
