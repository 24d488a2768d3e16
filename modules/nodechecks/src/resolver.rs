//! The file whose servers pods are given. The verdict is pure.

use std::net::IpAddr;

use config::edge::EdgeCore;

use crate::finding::Finding;
use crate::host::Host;

const FILE: &str = "ResolvConf";
/// The C library looks at no more.
const SERVERS_MAX: usize = 3;
/// Where systemd-resolved keeps the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The servers that a resolver's file names.
pub fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let server = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        // Of an address of the link's the interface is named behind it.
        server.split('%').next()?.parse().ok()
    });
    servers.take(SERVERS_MAX).collect()
}

/// The file whose servers pods are given (dnsPolicy `Default`).
pub fn resolv_conf(host: &Host, settings: &EdgeCore) -> Finding {
    let path = &settings.modules.edged.tailored_kubelet_config.resolv_conf;
    if path.as_os_str().is_empty() {
        return Finding::passed(FILE, "pods are given none (resolvConf is empty)");
    }
    let shown = path.display();
    let Some(text) = host.read(path) else {
        return Finding::warned(
            FILE,
            format!(
                "{shown} cannot be read, and pods are given no name server: write one with `nameserver ADDRESS`, or set \
                     modules.edged.tailoredKubeletConfig.resolvConf"
            ),
        );
    };
    let servers = servers(&text);
    let listed = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if servers.is_empty() {
        return Finding::warned(
            FILE,
            format!("{shown} names no server (`nameserver ADDRESS`), and pods find no names"),
        );
    }
    if let Some(own) = servers.iter().find(|server| server.is_loopback()) {
        let cure = if host.has(RESOLVED) {
            format!(
                "set modules.edged.tailoredKubeletConfig.resolvConf: {RESOLVED}, which has the servers behind it"
            )
        } else {
            "write a file with the servers behind it, and name it in modules.edged.tailoredKubeletConfig.resolvConf".to_owned()
        };
        return Finding::warned(
            FILE,
            format!(
                "{shown} names {own}, which is this machine to the machine and the pod itself to a pod: pods with dnsPolicy Default find no \
                     names; {cure}"
            ),
        );
    }
    Finding::passed(FILE, format!("{shown}: {listed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Grade::{Passed, Warned};
    use crate::finding::tests::grade;

    /// The file is a real one, as systemd-resolved writes it.
    #[test]
    fn a_resolver_of_the_machines_own_is_none_for_pods() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::in_folder(folder.path());
        let settings = EdgeCore::default();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        grade(&resolv_conf(&host, &settings), Warned, "cannot be read");
        write("etc/resolv.conf", "# none\nsearch example\n");
        grade(&resolv_conf(&host, &settings), Warned, "names no server");
        write("etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\n");
        grade(&resolv_conf(&host, &settings), Warned, "names 127.0.0.53, which is");
        write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n");
        grade(&resolv_conf(&host, &settings), Warned, "resolvConf: /run/systemd/resolve/resolv.conf");
        write("etc/resolv.conf", "nameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver x\n");
        grade(&resolv_conf(&host, &settings), Passed, "192.0.2.1, fe80::1");
        let mut none = EdgeCore::default();
        none.modules.edged.tailored_kubelet_config.resolv_conf = "".into();
        grade(&resolv_conf(&host, &none), Passed, "given none");
    }
}
