use std::fs;

use super::*;
use crate::finding::Grade::{Failed, Passed, Warned};
use crate::finding::tests::grade;

fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let host = Host::in_folder(folder.path());
    (folder, host)
}

#[test]
fn a_processor_is_counted_and_a_busy_one_is_said() {
    let stat = |idle: u64| format!("cpu  100 0 100 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 7\n");
    grade(&cpu(&stat(100), &stat(900)), Passed, "2 cores, 0 % busy");
    let after = "cpu  1000 0 100 105 0 0 0 0 0 0\ncpu0 1\n";
    grade(&cpu(&stat(100), after), Warned, "1 cores, 100 % busy");
    grade(&cpu("", "intr 7\n"), Failed, "is /proc mounted");
}

#[test]
fn memory_is_judged_as_kubeedge_does() {
    let meminfo = |all: u64, left: u64| {
        format!("MemTotal: {} kB\nMemFree: 1 kB\nMemAvailable: {} kB\n", all << 10, left << 10)
    };
    grade(&memory(&meminfo(512, 400)), Passed, "400.0 MiB of 512.0 MiB are left");
    grade(&memory(&meminfo(255, 200)), Failed, "needs 256.0 MiB in all");
    grade(&memory(&meminfo(512, 127)), Failed, "less than 128.0 MiB");
    grade(&memory(&meminfo(4096, 200)), Warned, "MemoryPressure");
    grade(&memory(""), Failed, "0 B of 0 B");
}

#[test]
fn a_memory_controller_that_is_off_is_said_with_its_cure_for_either_version() {
    let look = |files: &[(&str, &str)]| memory_cgroup(&Cgroups::of(&host(files).1));
    let unified = "/sys/fs/cgroup/cgroup.controllers";
    grade(&look(&[(unified, "cpuset cpu io memory pids\n")]), Passed, "version 2");
    grade(&look(&[(unified, "cpuset cpu io pids\n")]), Failed, "cgroup_enable=memory cgroup_memory=1");
    grade(&look(&[(unified, "memory\n")]), Warned, "cpu and pids");
    grade(&look(&[]), Failed, "no cgroups are mounted");
    let heads = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
    let table = |memory: u8| format!("{heads}cpu\t3\t60\t1\nmemory\t7\t87\t{memory}\npids\t2\t1\t1\n");
    let mounted = [
        ("/sys/fs/cgroup/cpu,cpuacct/x", ""),
        ("/sys/fs/cgroup/pids/x", ""),
        ("/sys/fs/cgroup/memory/x", ""),
    ];
    let version1 = |memory: u8, upto: usize| {
        let table = table(memory);
        let mut files = vec![("/proc/cgroups", table.as_str())];
        files.extend(&mounted[..upto]);
        look(&files)
    };
    grade(&version1(1, 3), Passed, "version 1");
    grade(&version1(0, 3), Failed, "Raspberry Pi");
    grade(&version1(1, 2), Failed, "version 1");
    grade(&version1(1, 0), Failed, "no cgroups are mounted");
}

#[test]
fn disks_are_judged_as_kubeedge_does_and_the_worst_is_said() {
    let disk_of = |size: u64, available: u64| Disk {
        size,
        available,
        inodes: 1000,
        inodes_free: 500,
        ..Disk::default()
    };
    let tenth = |disk: &Disk| disk.size / 10;
    let on = |folder: &str, disk: Disk| (PathBuf::from(folder), disk);
    let well = on("/a", disk_of(100 << 30, 50 << 30));
    grade(&disk(std::slice::from_ref(&well), &tenth), Passed, "/a: 50.0 GiB of 100.0 GiB");
    grade(&disk(&[well.clone(), on("/b", disk_of(100 << 30, 9 << 30))], &tenth), Warned, "/b: 9.0 GiB");
    let full =
        disk(&[on("/b", disk_of(100 << 30, 9 << 30)), on("/c", disk_of(100 << 30, 500 << 20))], &tenth);
    grade(&full, Failed, "/c: 500.0 MiB");
    assert!(!full.says.contains("/b"), "{full:?}");
    grade(&disk(&[on("/d", disk_of(1000 << 20, 900 << 20))], &tenth), Failed, "needs 1.0 GiB in all");
    grade(
        &disk(std::slice::from_ref(&well), &|_: &Disk| 60 << 30),
        Warned,
        "below 60.0 GiB pods are evicted",
    );
    let read_only = Disk { read_only: true, ..disk_of(100 << 30, 50 << 30) };
    grade(&disk(&[on("/e", read_only)], &tenth), Failed, "remount,rw");
    grade(&disk(&[], &tenth), Warned, "no file system");
    // A kubelet's own threshold, of a disk that has no images.
    let below = evicts_below(&Host::here(), &EdgeCore::default());
    assert_eq!(below(&Disk { size: 1000, device: u64::MAX, ..Disk::default() }), 100);
    let of_inodes =
        |all: u64, left: u64| [on("/a", Disk { inodes: all, inodes_free: left, ..Disk::default() })];
    grade(&inodes(&of_inodes(1000, 50)), Passed, "50 of 1000");
    grade(&inodes(&of_inodes(1000, 49)), Warned, "DiskPressure");
    grade(&inodes(&of_inodes(1000, 9)), Failed, "no file can be made");
    grade(&inodes(&of_inodes(0, 0)), Passed, "without a bound");
}

/// The fault is a real one: a file system with no room, and one that takes no writes.
#[test]
fn a_full_disk_and_one_that_takes_no_writes_are_found() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = |options: &str| {
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(folder.path())
            .status();
        done.is_ok_and(|status| status.success())
    };
    let unmount =
        || assert!(std::process::Command::new("umount").arg(folder.path()).status().unwrap().success());
    // A machine that lets nobody mount has no such fault to show.
    if !mount("size=1m") {
        return;
    }
    fs::write(folder.path().join("fills"), vec![7; 1 << 20]).unwrap();
    let host = Host::here();
    let tenth = |disk: &Disk| disk.size / 10;
    let seen = disks(&host, &[folder.path().join("not/yet")]);
    unmount();
    grade(&disk(&seen, &tenth), Failed, "not/yet: 0 B of 1.0 MiB");
    assert!(mount("size=2g,ro"));
    let seen = disks(&host, &[folder.path().to_owned()]);
    unmount();
    grade(&disk(&seen, &tenth), Failed, "takes no writes");
    assert!(mount("size=2g,nr_inodes=2"));
    fs::write(folder.path().join("takes"), "").ok();
    fs::write(folder.path().join("takes too"), "").ok();
    let seen = disks(&host, &[folder.path().to_owned()]);
    unmount();
    grade(&inodes(&seen), Failed, "0 of 2");
}

#[test]
fn processes_have_room() {
    grade(&pids("32768\n", "120000\n", "0.1 0.2 0.3 2/345 99\n"), Passed, "345 of 32768");
    grade(&pids("32768\n", "360\n", "0.1 0.2 0.3 2/345 99\n"), Failed, "345 of 360");
    grade(&pids("", "", ""), Warned, "is it mounted");
}

#[test]
fn a_kernel_without_what_runtimes_need_is_said() {
    let overlay = ("/proc/filesystems", "nodev\tsysfs\nnodev\toverlay\n\text4\n");
    let release = ("/proc/sys/kernel/osrelease", "6.1.0\n");
    let dep = (
        "/lib/modules/6.1.0/modules.dep",
        "kernel/net/bridge/bridge.ko.xz: kernel/net/llc/llc.ko\nkernel/drivers/net/veth.ko:\n",
    );
    grade(&kernel_modules(&host(&[overlay, release, dep]).1), Passed, "overlay");
    grade(&kernel_modules(&host(&[release, dep]).1), Warned, "has no overlay:");
    grade(&kernel_modules(&host(&[overlay, release]).1), Passed, "not looked for");
    let other = ("/lib/modules/6.1.0/modules.builtin", "kernel/net/ipv6/ipv6.ko\n");
    grade(&kernel_modules(&host(&[overlay, release, other]).1), Warned, "has no bridge, veth:");
    grade(
        &kernel_modules(
            &host(&[overlay, release, other, ("/sys/module/bridge/x", ""), ("/sys/module/veth/x", "")]).1,
        ),
        Passed,
        "veth",
    );
    grade(&iptables(&host(&[]).1), Warned, "apt-get install iptables");
    grade(&iptables(&host(&[("/usr/sbin/iptables", "")]).1), Passed, "/usr/sbin/iptables");
    let network = |plugins: &str| ("/etc/cni/net.d/10-x.conflist", plugins.to_owned());
    let with = |plugins: &str| {
        let (path, text) = network(plugins);
        iptables(&host(&[(path, &text)]).1)
    };
    grade(&with(r#"{"plugins": [{"type": "portmap"}]}"#), Warned, "apt-get install iptables");
    grade(&with(r#"{"plugins": [{"type": "ptp", "ipMasq": true}]}"#), Warned, "apt-get install iptables");
    grade(&with(r#"{"plugins": [{"type": "macvlan"}]}"#), Passed, "no plugin of /etc/cni/net.d starts it");
    grade(&architecture("riscv64"), Warned, "riscv64");
    grade(&architecture("x86_64"), Passed, "x86_64");
    grade(&privileges(false), Warned, "sudo");
}
