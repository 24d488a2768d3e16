//! What takes a release: a real containerd imports an image and runs it, a real dpkg installs and removes the package.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command;

use testhost::TestHost;

fn one(out: &Path, folder: &str, begins: &str, ends: &str) -> PathBuf {
    let found = std::fs::read_dir(out.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut found = found.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(begins) && name.ends_with(ends)
    });
    found.next().unwrap_or_else(|| panic!("no {begins}*{ends} in {}", out.display()))
}

#[test]
fn containerd_imports_an_image_and_runs_it() {
    let programs = fixture::programs();
    let some = ["--only", "cloudcore,edgecore,virtual-mapper"];
    let (_parent, out) = fixture::release(programs.path(), &some).unwrap();
    let host = TestHost::new("dist").unwrap();
    for (image, programs, user) in [
        ("cloudcore", &["cloudcore"][..], "65532"),
        ("installation-package", &["keadm", "edgecore"], "0"),
        ("virtual-mapper", &["virtual-mapper"], "0"),
    ] {
        let archive = one(&out, "images", &format!("{image}_v"), ".tar");
        fixture::output(host.ctr().args(["images", "import", "--snapshotter", "overlayfs"]).arg(&archive));
        let name = format!("docker.io/kubeedge/{image}:v{}", fixture::VERSION);
        let listed = fixture::output(host.ctr().args(["images", "list"]));
        let line = listed.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("{listed}"));
        let digests = std::fs::read_to_string(out.join("images/digests.txt")).unwrap();
        let digest = digests.lines().find(|line| line.contains(&name)).unwrap().split(' ').next().unwrap();
        assert!(line.contains(digest), "{line} is not {digest}");
        assert!(line.contains("linux/"), "{line}");
        // runc knows ids of the whole machine.
        let id = |what: &str| format!("dist-{}-{image}-{what}", std::process::id());
        let run = |id: &str, arguments: &[&str]| {
            fixture::output(host.ctr().args(["run", "--rm", "--net-host", &name, id]).args(arguments))
        };
        for program in programs {
            let said = run(&id(program), &[&format!("/usr/local/bin/{program}"), "--version"]);
            assert_eq!(said.trim(), format!("{program} {}", fixture::said(fixture::OTHER)));
        }
        // Without a word of ours: what the image starts, and as whom.
        assert_eq!(run(&id("entry"), &[]).trim(), format!("{} started as Some({user})", programs[0]));
    }
}

#[test]
fn dpkg_installs_upgrades_and_removes_the_package() {
    let programs = fixture::programs();
    let (_parent, out) = fixture::release(programs.path(), &["--only", "edgecore"]).unwrap();
    let package = one(&out, "", "kubehive-edge_", ".deb");
    let told = fixture::output(Command::new("dpkg-deb").arg("--info").arg(&package));
    for line in
        ["Package: kubehive-edge", &format!("Version: {}", fixture::VERSION), "Recommends: containerd "]
    {
        assert!(told.contains(line), "{line} in {told}");
    }

    // dpkg changes its root into it, and runs the package's scripts there.
    let root = tempfile::tempdir().unwrap();
    for folder in
        ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "bin", "usr/local/bin"]
    {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    std::fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    std::fs::copy(busybox.expect("busybox-static"), root.path().join("bin/sh")).unwrap();
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.path().display())).arg("--force-not-root").args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    };
    dpkg(&["--install", package.to_str().unwrap()]);
    let installed = root.path().join("usr/bin/edgecore");
    let said = fixture::output(Command::new(&installed).arg("--version"));
    assert_eq!(said.trim(), format!("edgecore {}", fixture::said(fixture::OTHER)));
    let unit = std::fs::read_to_string(root.path().join("usr/lib/systemd/system/edgecore.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/edgecore --config"), "{unit}");
    assert!(unit.contains("ExecStartPre=-/usr/bin/keadm upgrade edge --take-up --config"), "{unit}");
    // Sums are right, and nothing is a setting.
    assert_eq!(dpkg(&["--verify", "kubehive-edge"]), "");
    assert!(!root.path().join("var/lib/dpkg/info/kubehive-edge.conffiles").exists());
    std::fs::write(&installed, "other").unwrap();
    assert!(dpkg(&["--verify", "kubehive-edge"]).contains("/usr/bin/edgecore"));

    // Again, as an upgrade does; what was copied by hand is named.
    std::fs::write(root.path().join("usr/local/bin/keadm"), "").unwrap();
    assert!(dpkg(&["--install", package.to_str().unwrap()]).contains("/usr/local/bin/keadm hides"));
    assert_eq!(dpkg(&["--verify", "kubehive-edge"]), "");
    // What `systemctl enable` made goes with the unit that it leads to, and not what leads to somebody else's.
    let units = root.path().join("etc/systemd/system");
    let enabled = |target: &str, unit: &str| {
        let link = units.join(target).join("edgecore.service");
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(unit, &link).unwrap();
        link
    };
    let of_package = enabled("multi-user.target.wants", "/usr/lib/systemd/system/edgecore.service");
    std::fs::write(units.join("edgecore.service"), "").unwrap();
    let of_another = enabled("other.target.wants", "/etc/systemd/system/edgecore.service");
    dpkg(&["--purge", "kubehive-edge"]);
    assert!(of_package.symlink_metadata().is_err(), "a link that leads nowhere is left");
    assert!(of_another.symlink_metadata().is_ok());
    assert!(!installed.exists() && !root.path().join("usr/lib/systemd/system/edgecore.service").exists());
    assert!(root.path().join("usr/local/bin/keadm").exists());
}
