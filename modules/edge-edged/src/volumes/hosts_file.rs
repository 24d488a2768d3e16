//! A pod's `/etc/hosts`.

use std::fs;
use std::io::Read as _;

use k8s_openapi::api::core::v1::HostAlias;

use crate::disk::beneath::{Access, Folder};
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::hostname::PodNames;

/// More of the node's own hosts file is not read.
const HOSTS_MAX: u64 = 256 << 10;

/// Writes the pod's `/etc/hosts`. A container that has it mounted may have written into it.
pub(crate) fn write_hosts(
    root: &Folder,
    pod: &ParsedPod,
    ips: &[String],
    names: &PodNames,
) -> Result<(), StepError> {
    let mut text = if pod.host_network() { of_node(&own_hosts()) } else { managed(ips, names) };
    text.push_str(&aliases(pod.spec().host_aliases.as_deref().unwrap_or_default()));
    let at = layout::etc_hosts(&pod.id.uid);
    root.make(&layout::pod(&pod.id.uid), Access::mode(0o750))?;
    if root.read(&at, HOSTS_MAX).is_ok_and(|old| old.as_deref() == Some(text.as_bytes())) {
        return Ok(());
    }
    // Written in place: a container that has it mounted would not see a new file.
    root.overwrite(&at, text.as_bytes(), Access::mode(0o644))
}

/// Whether a container gets the pod's file. Without an address there is nothing to say.
pub(super) fn is_wanted(pod: &ParsedPod, ips: &[String]) -> bool {
    pod.host_network() || !ips.is_empty()
}

fn own_hosts() -> String {
    let mut own = String::new();
    if let Ok(file) = fs::File::open("/etc/hosts") {
        drop(file.take(HOSTS_MAX).read_to_string(&mut own));
    }
    own
}

/// What a pod on the node's network sees.
fn of_node(own: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{own}")
}

/// What a pod with addresses of its own sees.
fn managed(ips: &[String], names: &PodNames) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        match names.full() {
            Some(full) => text.push_str(&format!("{ip}\t{full}\t{}\n", names.host)),
            None => text.push_str(&format!("{ip}\t{}\n", names.host)),
        }
    }
    text
}

fn aliases(aliases: &[HostAlias]) -> String {
    let mut text = String::new();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names: Vec<&str> = alias.hostnames.iter().flatten().map(String::as_str).collect();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    #[test]
    fn the_file_is_the_kubelets_to_the_byte() {
        let names = PodNames { host: "b6-0".into(), domain: "peers.default.svc.cluster.local".into() };
        let text = managed(&["10.0.0.2".into(), "fd00::2".into()], &names);
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
             10.0.0.2\tb6-0.peers.default.svc.cluster.local\tb6-0\n\
             fd00::2\tb6-0.peers.default.svc.cluster.local\tb6-0\n"
        );
        let plain = PodNames { host: "p".into(), domain: String::new() };
        assert!(managed(&["10.0.0.2".into()], &plain).ends_with("\n10.0.0.2\tp\n"));
        let on_host = of_node("127.0.0.1 localhost\n");
        assert_eq!(on_host, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n");
        let pod = pod(json!({"hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]}));
        let aliased = aliases(pod.spec().host_aliases.as_deref().unwrap());
        assert_eq!(aliased, "\n# Entries added by HostAliases.\n192.0.2.9\ta\tb\n");
        assert_eq!(aliases(&[]), "");
    }
}
