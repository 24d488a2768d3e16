//! `cloudcore.yaml`.

use std::path::{Path, PathBuf};

use apimachinery::names::{is_dns1123_label, is_dns1123_subdomain};
use serde::{Deserialize, Serialize};

use crate::cloud_stream::CloudStream;
use crate::error::{ConfigError, Defect};
use crate::kubeedge;
use crate::load::{self, Parsed};
use crate::router::Router;
use crate::signing_duration::{Lives, SigningDuration};
use crate::traces::Tracing;

/// The annotated default file.
pub const DEFAULT_FILE: &str = include_str!("../cloudcore.yaml");

/// Where `cloudcore` looks without `--config`.
pub const DEFAULT_PATH: &str = "/etc/kubeedge/config/cloudcore.yaml";

/// How the address of a socket begins.
const UNIX: &str = "unix://";

/// All of CloudCore's settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudCore {
    /// `cloudcore.config.kubeedge.io/v1alpha1` or `v1alpha2`.
    pub api_version: ApiVersion,
    /// `CloudCore`.
    pub kind: Kind,
    /// What all modules share.
    pub common_config: CommonConfig,
    /// How the API server is reached.
    #[serde(rename = "kubeAPIConfig")]
    pub kube_api_config: KubeApiConfig,
    /// The modules.
    pub modules: Modules,
}

/// The accepted versions of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersion {
    /// What KubeEdge's binary prints.
    #[default]
    #[serde(rename = "cloudcore.config.kubeedge.io/v1alpha1")]
    V1alpha1,
    /// What KubeEdge's chart writes.
    #[serde(rename = "cloudcore.config.kubeedge.io/v1alpha2")]
    V1alpha2,
}

/// The kind of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The only one.
    #[default]
    CloudCore,
}

/// What all modules share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommonConfig {
    /// The namespace of CloudCore's own Secrets: its CA and the key of the join tokens.
    pub namespace: String,
    /// The admin endpoint.
    pub monitor_server: MonitorServer,
    /// Where traces go, and how many.
    pub tracing: Tracing,
}

impl Default for CommonConfig {
    fn default() -> Self {
        CommonConfig {
            namespace: "kubeedge".to_owned(),
            monitor_server: MonitorServer::default(),
            tracing: Tracing::default(),
        }
    }
}

/// The admin endpoint: state of every actor as JSON, health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MonitorServer {
    /// IP:port of a loopback address: whoever reaches it sees everything, without a credential.
    pub bind_address: String,
    /// IP:port at which health is answered too, and nothing else; empty: nowhere.
    pub healthz_bind_address: String,
}

impl Default for MonitorServer {
    fn default() -> Self {
        MonitorServer { bind_address: "127.0.0.1:9091".to_owned(), healthz_bind_address: String::new() }
    }
}

/// How the API server is reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeApiConfig {
    /// URL of the API server; wins over the kubeconfig's.
    pub master: String,
    /// Path of a kubeconfig; empty: the service account of the pod.
    pub kube_config: String,
}

/// CloudCore's modules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Modules {
    /// Sessions, certificates, enrolment.
    pub cloud_hub: CloudHub,
    /// Nodes and pods.
    pub edge_controller: EdgeController,
    /// The kubelet endpoints of the nodes.
    pub cloud_stream: CloudStream,
    /// Rules.
    pub router: Router,
    /// Jobs on nodes.
    pub task_manager: TaskManager,
}

/// Jobs on nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskManager {
    /// Whether jobs have an effect.
    pub enable: bool,
}

/// Sessions, certificates, enrolment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudHub {
    /// Links accepted at once.
    pub node_limit: usize,
    /// Addresses under which nodes reach this CloudCore: in the server certificate and in `keadm`'s advice.
    pub advertise_address: Vec<String>,
    /// DNS names for the server certificate.
    pub dns_names: Vec<String>,
    /// Life of a node's certificate. It is renewed over the link when 70 to 90 percent of it are over.
    pub edge_cert_signing_duration: SigningDuration,
    /// How long after its end a node's certificate may still be renewed, and nothing else be done with it.
    pub edge_cert_grace_duration: SigningDuration,
    /// Life of what CloudCore shows; renewed as nodes' certificates are.
    pub server_cert_signing_duration: SigningDuration,
    /// Life of a CA that is made from now on.
    pub ca_signing_duration: SigningDuration,
    /// How long a CA's successor is trusted before it signs.
    pub ca_lead_duration: SigningDuration,
    /// Half of the age, in hours, at which a join token is not taken any more, whatever end stands in it. Age
    /// and end are judged by CloudCore's clock alone.
    pub token_refresh_duration: u32,
    /// The link.
    pub quic: Listener,
    /// The link where UDP is blocked.
    pub websocket: OptionalListener,
    /// Enrolment.
    pub https: Listener,
    /// Where `csidriver` asks that is on the same machine.
    pub unixsocket: UnixSocket,
}

impl Default for CloudHub {
    fn default() -> Self {
        CloudHub {
            node_limit: 1000,
            advertise_address: vec!["127.0.0.1".to_owned()],
            dns_names: Vec::new(),
            edge_cert_signing_duration: SigningDuration::days(30),
            edge_cert_grace_duration: SigningDuration::days(90),
            server_cert_signing_duration: SigningDuration::days(30),
            ca_signing_duration: SigningDuration::days(3650),
            ca_lead_duration: SigningDuration::days(30),
            token_refresh_duration: 12,
            quic: Listener { address: "0.0.0.0".to_owned(), port: 10001 },
            websocket: OptionalListener { enable: true, address: "0.0.0.0".to_owned(), port: 10000 },
            https: Listener { address: "0.0.0.0".to_owned(), port: 10002 },
            unixsocket: UnixSocket::default(),
        }
    }
}

/// The socket for programs on the same machine: KubeEdge's `csidriver`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnixSocket {
    /// Whether anybody listens.
    pub enable: bool,
    /// `unix://` and an absolute path.
    pub address: String,
}

impl Default for UnixSocket {
    fn default() -> Self {
        UnixSocket { enable: false, address: "unix:///var/lib/kubeedge/kubeedge.sock".to_owned() }
    }
}

impl UnixSocket {
    /// Its path; `None`: nobody listens.
    pub fn path(&self) -> Option<&Path> {
        self.address.strip_prefix(UNIX).filter(|_| self.enable).map(Path::new)
    }

    fn check(&self, defects: &mut Vec<Defect>) {
        let key = "modules.cloudHub.unixsocket.address";
        match self.address.strip_prefix(UNIX) {
            Some(path) if !path.is_empty() => load::check_socket(key, Path::new(path), defects),
            _ => defects
                .push(Defect::new(key, format!("is `{}`, not unix:// and an absolute path", self.address))),
        }
    }
}

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// An IP address of this host, or 0.0.0.0.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// An address to listen at, or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OptionalListener {
    /// Whether anybody listens.
    pub enable: bool,
    /// An IP address of this host, or 0.0.0.0.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// Nodes and pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgeController {
    /// How often an alive node's Lease is renewed, in seconds.
    pub node_update_frequency: u32,
    /// Which addresses nodes may say of their pods.
    pub pod_addresses: PodAddresses,
}

/// Which addresses nodes may say of their pods. Of none is one that each machine has for itself: loopback, link-local, multicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodAddresses {
    /// Any other. Networks of edge nodes may have ranges that the cloud does not know.
    Any,
    /// Those within the `podCIDRs` of the node's Node, where it has them, and of pods of the host's network the Node's own.
    OfNode,
}

impl Default for EdgeController {
    fn default() -> Self {
        EdgeController { node_update_frequency: 10, pod_addresses: PodAddresses::Any }
    }
}

impl CloudCore {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with_warnings(path).map(|(settings, _)| settings)
    }

    /// [`CloudCore::load`], and a sentence for everything in the file that has no effect.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load_with_warnings(path: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        Self::from_text(path, &load::read(path)?)
    }

    /// Validates the text of a file that is to be.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::from_text(Path::new("cloudcore.yaml"), text).map(|(settings, _)| settings)
    }

    fn from_text(path: &Path, text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let parsed = load::parse::<CloudCore>(path, text, kubeedge::CLOUDCORE)?;
        let Parsed { mut config, warnings, unknown: mut defects } = parsed;
        // KubeEdge's own file has one empty name.
        config.modules.cloud_hub.dns_names.retain(|name| !name.is_empty());
        defects.extend(config.defects());
        if defects.is_empty() {
            Ok((config, warnings))
        } else {
            Err(ConfigError::Invalid { path: PathBuf::from(path), defects })
        }
    }

    /// Everything that is wrong with the values.
    pub fn defects(&self) -> Vec<Defect> {
        let mut defects = Vec::new();
        let hub = &self.modules.cloud_hub;
        let namespace = &self.common_config.namespace;
        if !is_dns1123_label(namespace) {
            let what =
                format!("is `{}`, no namespace: write 1 to 63 of a-z, 0-9 and -", namespace.escape_debug());
            defects.push(Defect::new("commonConfig.namespace", what));
        }
        self.common_config.monitor_server.check(&mut defects);
        self.common_config.tracing.check("commonConfig.tracing", &mut defects);
        for (key, listener) in
            [("modules.cloudHub.quic.address", &hub.quic), ("modules.cloudHub.https.address", &hub.https)]
        {
            load::check_ip(key, &listener.address, &mut defects);
        }
        load::check_ip("modules.cloudHub.websocket.address", &hub.websocket.address, &mut defects);
        hub.unixsocket.check(&mut defects);
        if hub.advertise_address.is_empty() {
            defects.push(Defect::new(
                "modules.cloudHub.advertiseAddress",
                "is empty: name an address that nodes reach",
            ));
        }
        for address in &hub.advertise_address {
            load::check_ip("modules.cloudHub.advertiseAddress", address, &mut defects);
        }
        for name in &hub.dns_names {
            // As a certificate has it (RFC 5280): a name alone, of which the first label may be `*`.
            if !is_dns1123_subdomain(name.strip_prefix("*.").unwrap_or(name)) {
                let shown = name.escape_debug();
                let what = format!(
                    "has `{shown}`, not a host's name, as cloud.example.com: without https:// and without a port"
                );
                defects.push(Defect::new("modules.cloudHub.dnsNames", what));
            }
        }
        let lives = Lives {
            edge: hub.edge_cert_signing_duration,
            edge_grace: hub.edge_cert_grace_duration,
            server: hub.server_cert_signing_duration,
            ca: hub.ca_signing_duration,
            ca_lead: hub.ca_lead_duration,
        };
        lives.check(&mut defects);
        let positive = [
            ("modules.cloudHub.nodeLimit", hub.node_limit),
            ("modules.cloudHub.tokenRefreshDuration", hub.token_refresh_duration as usize),
            (
                "modules.edgeController.nodeUpdateFrequency",
                self.modules.edge_controller.node_update_frequency as usize,
            ),
        ];
        if self.modules.cloud_stream.enable {
            let websocket = hub.websocket.enable.then_some(hub.websocket.port);
            let others: Vec<u16> = [hub.quic.port, hub.https.port].into_iter().chain(websocket).collect();
            self.modules.cloud_stream.check(hub.node_limit, &others, &mut defects);
        }
        self.modules.router.check(&mut defects);
        for (key, value) in positive {
            if value == 0 {
                defects.push(Defect::new(key, "is 0; it must be at least 1"));
            }
        }
        defects
    }
}

impl MonitorServer {
    fn check(&self, defects: &mut Vec<Defect>) {
        let key = "commonConfig.monitorServer.bindAddress";
        match self.bind_address.parse::<std::net::SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => {}
            Ok(_) => defects.push(Defect::new(
                key,
                format!(
                    "is `{}`, not a loopback address: /state and /metrics ask for no credential; let probes ask healthzBindAddress, and scrapers a proxy that authorizes them",
                    self.bind_address
                ),
            )),
            Err(_) => defects.push(Defect::new(key, format!("is `{}`, not IP:port", self.bind_address))),
        }
        let shown = &self.healthz_bind_address;
        if !shown.is_empty() && shown.parse::<std::net::SocketAddr>().is_err() {
            defects.push(Defect::new(
                "commonConfig.monitorServer.healthzBindAddress",
                format!("is `{shown}`, not IP:port"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> CloudCore {
        let parsed = load::parse(Path::new("f"), text, kubeedge::CLOUDCORE).unwrap();
        assert_eq!(parsed.unknown, []);
        parsed.config
    }

    #[test]
    fn the_default_file_says_every_key_and_its_default() {
        let parsed = parsed(DEFAULT_FILE);
        assert_eq!(parsed, CloudCore::default());
        let written: serde_json::Value = serde_saphyr::from_str(DEFAULT_FILE).unwrap();
        assert_eq!(written, serde_json::to_value(CloudCore::default()).unwrap());
        assert_eq!(parsed.defects(), []);
    }

    #[test]
    fn a_name_of_the_certificate_is_a_name_alone() {
        let with = |names: &str| {
            let given = parsed(&format!("modules: {{cloudHub: {{dnsNames: [{names}]}}}}"));
            given.defects().into_iter().map(|defect| defect.key).collect::<Vec<_>>()
        };
        assert_eq!(with("cloud.example.com, '*.edge.example.com', localhost"), Vec::<String>::new());
        for name in ["https://cloud.example", "cloud.example:10000", "a b", "*", "a.*.b"] {
            assert_eq!(with(&format!("'{name}'")), ["modules.cloudHub.dnsNames"], "{name}");
        }
    }

    #[test]
    fn unknown_keys_are_named() {
        let text = "modules: {cloudHub: {nodeLimt: 3, quic: {port: 1, adress: x}}}";
        let parsed = load::parse::<CloudCore>(Path::new("f"), text, kubeedge::CLOUDCORE).unwrap();
        let keys: Vec<String> = parsed.unknown.into_iter().map(|defect| defect.key).collect();
        assert_eq!(keys, ["modules.cloudHub.nodeLimt", "modules.cloudHub.quic.adress"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloudcore.yaml");
        std::fs::write(&file, "modules: {cloudHub: {nodeLimt: 3, nodeLimit: 0}}").unwrap();
        let error = CloudCore::load(&file).unwrap_err().to_string();
        assert!(
            error.contains("2 wrong") && error.contains("`modules.cloudHub.nodeLimt` is no setting"),
            "{error}"
        );
        let told = |text: &str| CloudCore::parse(text).unwrap_err().to_string();
        let said = told("modules: {cloudHub: {nodeLimt: 3, quic: {adress: x}}}");
        for part in ["nodeLimt` is no setting: write `nodeLimit`", "adress` is no setting: write `address`"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = told("modules: {cloudHub: {nodeLimt: 3, nodeLimit: 5}}");
        assert!(said.contains("nodeLimt` is no setting: correct its name"), "the near one is there: {said}");
    }

    #[test]
    fn the_other_daemons_file_is_named_as_that() {
        let told = |text: &str| CloudCore::parse(text).unwrap_err().to_string();
        for text in [
            "{kind: EdgeCore, apiVersion: edgecore.config.kubeedge.io/v1alpha2, modules: {edged: {enable: true}}}",
            "{apiVersion: edgecore.config.kubeedge.io/v1alpha2}",
        ] {
            assert!(told(text).contains("this is edgecore's file"), "{}", told(text));
        }
        let theirs =
            load::parse::<crate::edge::EdgeCore>(Path::new("f"), "kind: CloudCore", kubeedge::EDGECORE);
        let theirs = theirs.unwrap_err().to_string();
        assert!(theirs.contains("this is cloudcore's file") && theirs.contains("edgecore.yaml"), "{theirs}");
        assert!(told("kind: ConfigMap").contains("`kind`"), "{}", told("kind: ConfigMap"));
    }

    #[test]
    fn a_value_that_says_its_cure_is_not_told_another() {
        let said = CloudCore::parse("modules: {cloudHub: {edgeCertSigningDuration: 10x}}").unwrap_err();
        let said = said.to_string();
        assert!(
            said.contains("write a number of days, as 365") && !said.contains("as its default"),
            "{said}"
        );
    }

    #[test]
    fn the_socket_is_at_an_absolute_path() {
        let of = |text: &str| {
            parsed(&format!("modules: {{cloudHub: {{unixsocket: {{enable: true, address: '{text}'}}}}}}"))
        };
        let socket = of("unix:///run/k.sock").modules.cloud_hub.unixsocket;
        assert_eq!(socket.path(), Some(Path::new("/run/k.sock")));
        assert_eq!(CloudCore::default().modules.cloud_hub.unixsocket.path(), None);
        for wrong in ["", "unix://", "unix://run/k.sock", "/run/k.sock", "tcp://127.0.0.1:1"] {
            let told: Vec<String> = of(wrong).defects().into_iter().map(|defect| defect.key).collect();
            assert_eq!(told, ["modules.cloudHub.unixsocket.address"], "{wrong}");
        }
    }

    #[test]
    fn cloudcores_namespace_is_one() {
        let of = |namespace: &str| parsed(&format!("commonConfig: {{namespace: '{namespace}'}}"));
        assert_eq!(parsed("{}").common_config.namespace, "kubeedge");
        assert!(of("hive-1").defects().is_empty());
        for wrong in ["", "Hive", "a/b", "a.b"] {
            let told: Vec<String> = of(wrong).defects().into_iter().map(|defect| defect.key).collect();
            assert_eq!(told, ["commonConfig.namespace"], "{wrong}");
        }
    }

    #[test]
    fn what_asks_for_no_credential_listens_on_loopback_alone() {
        let told = |text: &str| {
            let config = parsed(text);
            config.defects().into_iter().map(|defect| defect.key).collect::<Vec<_>>()
        };
        assert!(
            told("commonConfig: {monitorServer: {bindAddress: '[::1]:9', healthzBindAddress: '0.0.0.0:9'}}")
                .is_empty()
        );
        for open in ["0.0.0.0:9091", "192.0.2.1:9091", "[::]:9091", "nowhere"] {
            let text = format!("commonConfig: {{monitorServer: {{bindAddress: '{open}'}}}}");
            assert_eq!(told(&text), ["commonConfig.monitorServer.bindAddress"], "{open}");
        }
        let text = "commonConfig: {monitorServer: {healthzBindAddress: x}}";
        assert_eq!(told(text), ["commonConfig.monitorServer.healthzBindAddress"]);
    }

    #[test]
    fn a_value_of_a_wrong_type_hides_no_wrong_name() {
        let text = "modules: {cloudHub: {nodeLimit: [], nodeLimits: 3}, nothing: {}}";
        let error =
            load::parse::<CloudCore>(Path::new("f"), text, kubeedge::CLOUDCORE).unwrap_err().to_string();
        for part in [
            "has 3 wrong values",
            "modules.cloudHub.nodeLimits",
            "modules.nothing",
            "`modules.cloudHub.nodeLimit` is not understood",
            "write a whole number",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_number_that_its_type_does_not_hold_is_told_with_those_that_it_does() {
        for (text, words) in [
            (
                "modules: {router: {restTimeout: -1}}",
                "`modules.router.restTimeout`: -1 is out of range, write a whole number from 0 to 4294967295",
            ),
            (
                "modules: {router: {restTimeout: -1}, nothing: {}}",
                "`modules.router.restTimeout` is not understood: -1 is out of range",
            ),
        ] {
            let error = load::parse::<CloudCore>(Path::new("f"), text, kubeedge::CLOUDCORE).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_is_told_of() {
        let warnings =
            |text| load::parse::<CloudCore>(Path::new("f"), text, kubeedge::CLOUDCORE).unwrap().warnings;
        assert!(warnings("# nothing\n")[0].contains("`f` says nothing"));
        assert!(warnings("modules: {}").is_empty());
    }

    #[test]
    fn all_defects_are_told_at_once() {
        let text =
            "modules: {cloudHub: {nodeLimit: 0, advertiseAddress: [nowhere], quic: {address: x, port: 1}}}";
        let config = parsed(text);
        let keys: Vec<String> = config.defects().into_iter().map(|d| d.key).collect();
        assert_eq!(
            keys,
            [
                "modules.cloudHub.quic.address",
                "modules.cloudHub.advertiseAddress",
                "modules.cloudHub.nodeLimit"
            ]
        );
    }
}
