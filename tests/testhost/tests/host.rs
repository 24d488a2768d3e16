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
    assert!(!mountinfo::here().unwrap().iter().any(|mount| mount.point.starts_with(&dir)));
}

#[test]
fn a_host_that_lost_its_power_keeps_its_disk_and_nothing_else() {
    let mut host = testhost::TestHost::builder("power").uplink().start().unwrap();
    let said = |host: &testhost::TestHost, args: &[&str]| {
        let output = host.ctr().args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // runc knows ids of the whole machine.
    let sleeper = format!("sleeper-{}", std::process::id());
    said(&host, &["run", "--detach", testhost::BUSYBOX, &sleeper, "/bin/sleep", "1000"]);
    let tasks = said(&host, &["tasks", "list"]);
    let line = tasks.lines().find(|line| line.starts_with(&sleeper)).unwrap();
    let process = Path::new("/proc").join(line.split_whitespace().nth(1).unwrap());
    // One that has ended and that nobody has waited for yet has no command line.
    let runs = || std::fs::read(process.join("cmdline")).is_ok_and(|line| !line.is_empty());
    assert!(runs());
    let runc = Path::new("/run/containerd/runc/k8s.io").join(&sleeper);
    assert!(runc.exists());
    host.cut_power().unwrap();
    assert!(!runc.exists());
    assert!(!runs() && host.runtime_pid().is_none());
    assert!(!Path::new("/run/netns").join(host.netns()).exists());
    assert!(!mountinfo::here().unwrap().iter().any(|mount| mount.point.starts_with(host.dir())));
    host.restore_power().unwrap();
    host.restart_runtime().unwrap();
    assert!(said(&host, &["images", "list", "--quiet"]).contains(testhost::BUSYBOX));
    assert!(said(&host, &["containers", "list", "--quiet"]).contains(&sleeper));
    assert!(!said(&host, &["tasks", "list"]).contains(&sleeper));
}
