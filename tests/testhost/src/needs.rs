//! What the machine must have.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const NEEDS: [(&str, &[&str]); 8] = [
    ("containerd", &["/usr/bin/containerd", "/usr/local/bin/containerd"]),
    ("containerd", &["/usr/bin/ctr", "/usr/local/bin/ctr"]),
    ("runc", &["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"]),
    ("containernetworking-plugins", &["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"]),
    ("iproute2", &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]),
    ("iptables", &["/usr/sbin/iptables", "/sbin/iptables"]),
    ("util-linux", &["/usr/bin/nsenter"]),
    ("busybox-static", &["/bin/busybox", "/usr/bin/busybox"]),
];

/// A sentence that names what is missing for a [`crate::TestHost`], with the cure; `None` when nothing is.
pub fn missing() -> Option<String> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    if !root {
        return Some("a test host needs root: run the tests as root".to_owned());
    }
    let mut packages: Vec<&str> = NEEDS
        .iter()
        .filter(|(_, places)| !places.iter().any(|place| Path::new(place).exists()))
        .map(|(package, _)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return None;
    }
    Some(format!(
        "a test host needs Debian's {} and they are not installed: apt-get install --no-install-recommends {}",
        packages.join(", "),
        packages.join(" "),
    ))
}

/// Where the CNI plugins are.
pub(crate) fn cni_bin() -> &'static str {
    if Path::new("/usr/lib/cni/bridge").exists() { "/usr/lib/cni" } else { "/opt/cni/bin" }
}

/// The static busybox.
pub(crate) fn busybox() -> &'static Path {
    let first = Path::new("/bin/busybox");
    if first.exists() { first } else { Path::new("/usr/bin/busybox") }
}
