//! Reading `edgecore.yaml`, and what is right for its values.

use std::path::{Path, PathBuf};

use crate::capacity::{self, Capacity};
use crate::edge::EdgeCore;
use crate::error::{ConfigError, Defect};
use crate::load::{self, Parsed};
use crate::{kubeedge, kubeedge_paths, kubelet, mappers};

/// 3600 s: a node that is not heard of for longer is taken for lost anyway.
const HEARTBEAT_MAX: u32 = 3600;

impl EdgeCore {
    /// Reads and validates a file, with the counterparts of what lies below the mappers' folder.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with_warnings(path).map(|(settings, _)| settings)
    }

    /// [`EdgeCore::load`], and a sentence for everything that is taken otherwise than it is written, or is dangerous.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load_with_warnings(path: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        Self::of_text(path, &load::read(path)?)
    }

    /// The same for what was read, or is to be read, at `path`.
    pub(crate) fn of_text(path: &Path, text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let parsed = load::parse::<EdgeCore>(path, text, kubeedge::EDGECORE)?;
        let Parsed { mut config, mut warnings, unknown: mut defects } = parsed;
        warnings.extend(config.take_counterparts());
        defects.extend(config.defects_here());
        if !defects.is_empty() {
            return Err(ConfigError::Invalid { path: PathBuf::from(path), defects });
        }
        warnings.extend(config.reached(path).map(|defect| format!("`{}` {}", defect.key, defect.what)));
        Ok((config, warnings))
    }

    /// Exchanges keys, certificates and CAs below the mappers' folder, where KubeEdge has them, for their counterparts in
    /// `pki` beside the store: `/etc/kubeedge/certs/server.key` means `/var/lib/kubeedge/pki/server.key`. Nothing is
    /// looked up for that. Answers a sentence for each. Listeners are taken as the URLs that KubeEdge writes, too.
    pub fn take_counterparts(&mut self) -> Vec<String> {
        self.modules.event_bus.take_urls();
        kubeedge_paths::take(self)
    }

    /// What is wrong with `file` as the place of these settings: mappers reach it, or a link on the way to it.
    pub fn reached(&self, file: &Path) -> Option<Defect> {
        mappers::reached_file(self, file)
    }

    /// Everything that is wrong with the values on this machine: links are followed, and what is reserved is there.
    pub fn defects_here(&self) -> Vec<Defect> {
        let mut defects = self.defects();
        for defect in mappers::exposed(self, mappers::way) {
            if !defects.contains(&defect) {
                defects.push(defect);
            }
        }
        let edged = &self.modules.edged;
        defects.extend(capacity::defects(edged, Capacity::of_machine(&edged.root_directory)));
        defects
    }

    /// Everything that is wrong with the values.
    pub fn defects(&self) -> Vec<Defect> {
        let mut defects = Vec::new();
        let modules = &self.modules;
        let hub = &modules.edge_hub;
        for (key, servers) in [
            ("modules.edgeHub.quic.server", &hub.quic.server),
            ("modules.edgeHub.websocket.server", &hub.websocket.server),
        ] {
            for server in servers.split(',').map(str::trim) {
                if let Err(what) = load::parse_host_port(server) {
                    defects.push(Defect::new(key, format!("is not usable: {what}")));
                }
            }
        }
        let https = modules.edge_hub.http_server.strip_prefix("https://");
        if https.is_none_or(|rest| load::parse_host_port(rest).is_err()) {
            let shown = &modules.edge_hub.http_server;
            defects.push(Defect::new(
                "modules.edgeHub.httpServer",
                format!("is `{shown}`, not https://host:port"),
            ));
        }
        if !(1..=HEARTBEAT_MAX).contains(&modules.edge_hub.heartbeat) {
            let what = format!(
                "is {}; it must be at least 1 and at most {HEARTBEAT_MAX}",
                modules.edge_hub.heartbeat
            );
            defects.push(Defect::new("modules.edgeHub.heartbeat", what));
        }
        modules.event_bus.defects(&mut defects);
        modules.service_bus.check(&mut defects);
        modules.edge_page.check(&mut defects);
        load::check_socket("modules.edgeStream.socket", &modules.edge_stream.socket, &mut defects);
        if !modules.edged.node_ip.is_empty() {
            load::check_ip("modules.edged.nodeIP", &modules.edged.node_ip, &mut defects);
        }
        let kubelet = &modules.edged.tailored_kubelet_config;
        if !kubelet.container_runtime_endpoint.starts_with("unix:///") {
            let shown = &kubelet.container_runtime_endpoint;
            defects.push(Defect::new(
                "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint",
                format!("is `{shown}`, not unix:///path"),
            ));
        }
        defects.extend(kubelet::defects(&modules.edged));
        for server in &kubelet.cluster_dns {
            load::check_ip("modules.edged.tailoredKubeletConfig.clusterDNS", server, &mut defects);
        }
        defects.extend(mappers::defects(&modules.device_twin));
        defects.extend(mappers::exposed(self, |path| vec![mappers::lexical(path)]));
        defects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::DEFAULT_FILE;

    fn parsed(text: &str) -> EdgeCore {
        let parsed = load::parse(Path::new("f"), text, kubeedge::EDGECORE).unwrap();
        assert_eq!(parsed.unknown, []);
        parsed.config
    }

    #[test]
    fn the_default_file_says_every_key_and_its_default() {
        let parsed = parsed(DEFAULT_FILE);
        assert_eq!(parsed, EdgeCore::default());
        let written: serde_json::Value = serde_saphyr::from_str(DEFAULT_FILE).unwrap();
        assert_eq!(written, serde_json::to_value(EdgeCore::default()).unwrap());
        assert_eq!(parsed.defects(), []);
    }

    #[test]
    fn a_bad_value_is_named_by_its_key() {
        let text = "modules: {edgeHub: {quic: {server: nowhere}}, eventBus: {mqttServerInternal: 'x'}, edgeStream: {socket: x}}";
        let config = parsed(text);
        let keys: Vec<String> = config.defects().into_iter().map(|d| d.key).collect();
        let bad = [
            "modules.edgeHub.quic.server",
            "modules.eventBus.mqttServerInternal",
            "modules.edgeStream.socket",
        ];
        assert_eq!(keys, bad);
    }

    #[test]
    fn more_than_the_machine_has_is_reserved_of_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore.yaml");
        let config = "modules: {edged: {tailoredKubeletConfig: {kubeReserved: {memory: 1000Ti}}}}";
        std::fs::write(&path, config).unwrap();
        let error = EdgeCore::load(&path).unwrap_err().to_string();
        let said = "`modules.edged.tailoredKubeletConfig.kubeReserved.memory` is too much";
        assert!(error.contains(said) && error.contains("this machine has"), "{error}");
    }

    #[test]
    fn a_broker_that_nobody_could_use_is_refused() {
        for (event_bus, wanted) in [
            ("{mqttServerInternal: ''}", "mqttServerInternal"),
            ("{allowAnonymous: false}", "allowAnonymous"),
            ("{allowAnonymous: false, tls: {clientCaFile: /ca}}", "allowAnonymous"),
            ("{tls: {crlFile: /crl}}", "tls.crlFile"),
            ("{tls: {enable: true, listen: x, certFile: /c, keyFile: /k}}", "tls.listen"),
            ("{tls: {enable: true, keyFile: /k}}", "tls.certFile"),
            ("{unixSocket: {path: mqtt.sock}}", "unixSocket.path"),
            ("{maxConnections: 0}", "maxConnections"),
            ("{maxConnectionsPerAddress: 0}", "maxConnectionsPerAddress"),
        ] {
            let text = format!("modules: {{eventBus: {event_bus}}}");
            let config = parsed(&text);
            let keys: Vec<String> = config.defects().into_iter().map(|d| d.key).collect();
            assert_eq!(keys, [format!("modules.eventBus.{wanted}")], "{event_bus}");
        }
        let text = "modules: {eventBus: {mqttServerInternal: '', allowAnonymous: false, unixSocket: {path: /run/mqtt.sock}, passwordFile: /p}}";
        let config = parsed(text);
        assert_eq!(config.defects(), []);
    }

    #[test]
    fn a_file_that_is_no_file_or_too_large_is_refused() {
        assert!(matches!(EdgeCore::load(Path::new("/nowhere/x")), Err(ConfigError::Read { .. })));
        let parse = |text: &str| load::parse::<EdgeCore>(Path::new("f"), text, kubeedge::EDGECORE);
        for (text, words) in [
            ("- a\n- b\n", "mapping"),
            ("modules: {edgeHub: {heartbeat: often}}", "`modules.edgeHub.heartbeat`"),
            ("modules: {edgeHub: 3}", "`modules.edgeHub`"),
            (
                "modules: {deviceTwin: {mappers: [{namespace: a, uiid: 3}]}}",
                "`modules.deviceTwin.mappers[0].uiid`",
            ),
            ("kind: CloudCore", "`kind`"),
            (
                "modules:\n  edgeHub:\n    enable: true\n    enable: true\n",
                "`enable` stands twice in one mapping, again at line 4, column 5: remove one",
            ),
            (
                "modules: {edged: {tailoredKubeletConfig: {readOnlyPort: 99999}}}",
                "readOnlyPort`: 99999 is out of range, write a whole number from 0 to 65535",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                matches!(error, ConfigError::Parse { .. }) && error.to_string().contains(words),
                "{error}"
            );
            for of_the_library in ["DuplicateKeyPolicy", "u16", "10350"] {
                assert!(!error.to_string().contains(of_the_library), "{error}");
            }
        }
    }
}
