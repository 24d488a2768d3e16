//! `modules.cloudStream` of `cloudcore.yaml`: the kubelet endpoints of the nodes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Defect;
use crate::load;

/// The ports that Linux gives to outgoing connections by default (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: std::ops::RangeInclusive<usize> = 32_768..=60_999;

/// 571 bytes of a signer's name, as Kubernetes has it (ValidateSignerName of pkg/apis/certificates/validation).
const SIGNER_MAX: usize = 571;
/// Of Kubernetes' own signers the one that signs for servers; its others sign what clients show.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// 256 bytes of an API server's name.
const API_SERVER_MAX: usize = 256;

/// CloudCore as the kubelet endpoint of its nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudStream {
    /// Whether it is. Without it the API server reaches no node: no logs, no commands, no metrics of nodes.
    pub enable: bool,
    /// Where the API server finds it.
    pub kubelet_endpoint: KubeletEndpoint,
    /// Calls at once to one node.
    pub calls_per_node: usize,
    /// Calls at once of one user. An API server speaks for all its users, and has no such bound.
    pub calls_per_user: usize,
    /// The names (CN) in the client certificates by which API servers call (`--kubelet-client-certificate`). One of the group
    /// `system:masters` is one, too; every other certificate is a user's.
    pub api_servers: Vec<String>,
}

/// Where the API server finds the kubelet endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeletEndpoint {
    /// Which address the Nodes say first.
    pub address: AddressChoice,
    /// That address, for `given`.
    pub given_address: String,
    /// An IP address of this host, or 0.0.0.0 or ::, at which the ports are.
    pub bind_address: String,
    /// The first of `nodeLimit` ports, one for each node; 0: any that are free.
    pub first_port: u16,
    /// Who signs what is shown there.
    pub certificate: EndpointCertificate,
}

/// Who signs the certificate that is shown at the kubelet endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointCertificate {
    /// Whom CloudCore asks by a CertificateSigningRequest; empty: nobody, its own CA signs.
    pub signer_name: String,
    /// Where the key and the certificate lie that were asked for.
    pub folder: PathBuf,
}

/// Which address of CloudCore a Node says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressChoice {
    /// The pod's own, from `POD_IP`; outside a pod the first of `cloudHub.advertiseAddress`.
    Pod,
    /// The host's, from `HOST_IP`: for a pod with `hostNetwork` or `hostPort`s.
    Host,
    /// `givenAddress`.
    Given,
    /// None of CloudCore: the node's own comes first, and the administrator leads its port here.
    Node,
}

impl Default for CloudStream {
    fn default() -> Self {
        CloudStream {
            enable: true,
            kubelet_endpoint: KubeletEndpoint {
                address: AddressChoice::Pod,
                given_address: String::new(),
                bind_address: "0.0.0.0".to_owned(),
                first_port: 12_000,
                certificate: EndpointCertificate {
                    signer_name: String::new(),
                    folder: PathBuf::from("/var/lib/kubehive/kubelet-endpoint"),
                },
            },
            calls_per_node: 128,
            calls_per_user: 64,
            api_servers: ["kube-apiserver-kubelet-client", "system:kube-apiserver", "kube-apiserver"]
                .map(str::to_owned)
                .into(),
        }
    }
}

impl EndpointCertificate {
    fn check(&self, defects: &mut Vec<Defect>) {
        let (signer, key) =
            (self.signer_name.as_str(), "modules.cloudStream.kubeletEndpoint.certificate.signerName");
        if signer.is_empty() {
            return;
        }
        let parts = signer.split_once('/').filter(|(domain, path)| domain.contains('.') && !path.is_empty());
        let usable = |letter: char| letter.is_ascii_alphanumeric() || "-._/:".contains(letter);
        if parts.is_none() || signer.len() > SIGNER_MAX || !signer.chars().all(usable) {
            let text = format!("is `{signer}`, not DOMAIN/NAME of at most {SIGNER_MAX} bytes");
            defects.push(Defect::new(key, text));
        } else if signer.starts_with("kubernetes.io/") && signer != KUBELET_SERVING {
            let text = format!(
                "is `{signer}`, which signs no certificate for a server: {KUBELET_SERVING} does, or a signer of yours"
            );
            defects.push(Defect::new(key, text));
        }
        if !self.folder.is_absolute() {
            let text = format!("is `{}`, no absolute path", self.folder.display());
            defects.push(Defect::new("modules.cloudStream.kubeletEndpoint.certificate.folder", text));
        }
    }
}

impl CloudStream {
    /// Adds what is wrong. `node_limit` ports are needed, and CloudCore listens at `others` itself.
    pub(crate) fn check(&self, node_limit: usize, others: &[u16], defects: &mut Vec<Defect>) {
        let KubeletEndpoint { address, given_address, bind_address, first_port, certificate } =
            &self.kubelet_endpoint;
        certificate.check(defects);
        load::check_ip("modules.cloudStream.kubeletEndpoint.bindAddress", bind_address, defects);
        let given = "modules.cloudStream.kubeletEndpoint.givenAddress";
        match address {
            AddressChoice::Given => load::check_ip(given, given_address, defects),
            _ if !given_address.is_empty() => {
                defects.push(Defect::new(
                    given,
                    "has no effect: set kubeletEndpoint.address to given, or leave it empty",
                ));
            }
            _ => {}
        }
        let key = "modules.cloudStream.kubeletEndpoint.firstPort";
        let first = usize::from(*first_port);
        let last = first.saturating_add(node_limit.saturating_sub(1));
        if first != 0 && last > usize::from(u16::MAX) {
            let text = format!("is {first}: the {node_limit} ports of nodeLimit end at {last}, beyond 65535");
            defects.push(Defect::new(key, text));
        } else if first != 0 && first <= *EPHEMERAL.end() && last >= *EPHEMERAL.start() {
            let text = format!(
                "is {first}: the {node_limit} ports of nodeLimit end at {last}, among those that Linux gives to outgoing connections (32768 to 60999)"
            );
            defects.push(Defect::new(key, text));
        }
        if let Some(other) =
            others.iter().find(|other| first != 0 && (first..=last).contains(&usize::from(**other)))
        {
            let text = format!(
                "is {first}: port {other} is among the {node_limit} that follow, and CloudCore listens there"
            );
            defects.push(Defect::new(key, text));
        }
        for (at, name) in self.api_servers.iter().enumerate() {
            if name.is_empty() || name.len() > API_SERVER_MAX {
                let key = format!("modules.cloudStream.apiServers[{at}]");
                defects.push(Defect::new(&key, "is no name of 1 to 256 bytes"));
            }
        }
        for (key, value) in [
            ("modules.cloudStream.callsPerNode", self.calls_per_node),
            ("modules.cloudStream.callsPerUser", self.calls_per_user),
        ] {
            if value == 0 {
                defects.push(Defect::new(key, "is 0; it must be at least 1"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: impl FnOnce(&mut CloudStream)) -> Vec<String> {
        let (mut stream, mut defects) = (CloudStream::default(), Vec::new());
        change(&mut stream);
        stream.check(1000, &[10_000, 10_001, 10_002], &mut defects);
        defects.into_iter().map(|defect| defect.key).collect()
    }

    #[test]
    fn the_ports_of_a_range_are_free_and_there_are_enough() {
        let first = |port: u16| told(|stream| stream.kubelet_endpoint.first_port = port);
        let key = "modules.cloudStream.kubeletEndpoint.firstPort";
        for good in [12_000, 0, 10_003, 31_768, 61_000, 64_536] {
            assert_eq!(first(good), [] as [&str; 0], "{good}");
        }
        for bad in [9_500, 10_002, 31_769, 32_768, 60_999, 64_537] {
            assert_eq!(first(bad), [key], "{bad}");
        }
    }

    #[test]
    fn a_signer_signs_for_servers_and_what_it_signed_has_a_place() {
        let of = |signer: &str, folder: &str| {
            told(|stream| {
                let certificate = &mut stream.kubelet_endpoint.certificate;
                (certificate.signer_name, certificate.folder) = (signer.to_owned(), folder.into());
            })
        };
        let key = "modules.cloudStream.kubeletEndpoint.certificate.signerName";
        for good in ["", "kubernetes.io/kubelet-serving", "issuers.cert-manager.io/infra.ca"] {
            assert_eq!(of(good, "/var/lib/x"), [] as [&str; 0], "{good}");
        }
        for bad in [
            "kubernetes.io/kube-apiserver-client",
            "kubernetes.io/legacy-unknown",
            "signer",
            "a.b/",
            "a.b/c d",
        ] {
            assert_eq!(of(bad, "/var/lib/x"), [key], "{bad}");
        }
        let folder = of("kubernetes.io/kubelet-serving", "here");
        assert_eq!(folder, ["modules.cloudStream.kubeletEndpoint.certificate.folder"]);
        assert_eq!(of("", "here"), [] as [&str; 0], "nothing is kept there");
    }

    #[test]
    fn an_address_that_is_given_is_one_and_is_used() {
        let with = |choice, text: &str| {
            told(|stream| {
                (stream.kubelet_endpoint.address, stream.kubelet_endpoint.given_address) =
                    (choice, text.to_owned());
            })
        };
        let key = "modules.cloudStream.kubeletEndpoint.givenAddress";
        assert_eq!(with(AddressChoice::Given, "192.0.2.1"), [] as [&str; 0]);
        assert_eq!(with(AddressChoice::Given, "cloud.example"), [key]);
        assert_eq!(with(AddressChoice::Given, ""), [key]);
        assert_eq!(with(AddressChoice::Host, "192.0.2.1"), [key]);
        let none = told(|stream| (stream.calls_per_node, stream.calls_per_user) = (0, 0));
        assert_eq!(none, ["modules.cloudStream.callsPerNode", "modules.cloudStream.callsPerUser"]);
        let servers = told(|stream| stream.api_servers = vec!["good".to_owned(), String::new()]);
        assert_eq!(servers, ["modules.cloudStream.apiServers[1]"]);
    }
}
