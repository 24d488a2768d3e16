//! A host comes up with its images and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

#[test]
fn a_host_comes_up_and_leaves_nothing_behind() {
    let host = testhost::TestHost::new("self").unwrap();
    let (dir, netns) = (host.dir().to_owned(), host.netns().to_owned());
    let images = host.ctr().args(["images", "list", "--quiet"]).output().unwrap();
    let images = String::from_utf8(images.stdout).unwrap();
    assert!(images.contains(testhost::BUSYBOX) && images.contains(testhost::PAUSE), "{images}");
    let hello = host
        .ctr()
        .args(["run", "--rm", "--net-host", testhost::BUSYBOX, "hello", "/bin/echo", "from busybox"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&hello.stdout).trim(), "from busybox", "{hello:?}");
    let pid = host.runtime_pid().unwrap();
    drop(host);
    assert!(!dir.exists());
    assert!(!Path::new("/run/netns").join(netns).exists());
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()));
}
