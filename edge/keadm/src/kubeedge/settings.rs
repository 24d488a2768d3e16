//! What of KubeEdge's `edgecore.yaml` carries over.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use config::edge::{EdgeCore, EdgeHub};
use serde_json::Value;

/// Where the node's store lies from now on: beside KubeEdge's, which stays as it is.
pub(super) const STORE: &str = "/var/lib/kubeedge/kubehive.db";

/// KubeEdge's settings.
#[derive(Debug)]
pub(super) struct Found {
    /// What carries over, over the defaults.
    pub(super) base: EdgeCore,
    /// The node's name there; empty: the host's.
    pub(super) node: String,
    /// KubeEdge's database.
    pub(super) database: PathBuf,
    /// The keys that carry over with another value than the default.
    pub(super) carried: Vec<String>,
    /// Sentences about what does not.
    pub(super) said: Vec<String>,
}

/// Reads KubeEdge's file. Which cloud a node is linked with, its certificates, where its store lies and its name do not carry over: they
/// are told anew.
///
/// # Errors
/// When the file is not there or not understood.
pub(super) fn read(path: &Path) -> Result<Found> {
    let (settings, mut said) = EdgeCore::load_with_warnings(path).with_context(|| {
        format!(
            "KubeEdge's settings are not usable: mend {}, or join without --from-kubeedge",
            path.display()
        )
    })?;
    // Of the places of certificates, which are told anew, and of the file itself, from which nothing starts here.
    let shown = path.display().to_string();
    said.retain(|line| {
        !line.starts_with("`modules.edgeHub.") && !line.contains(&format!(", {shown}, is named"))
    });
    let (node, database) =
        (settings.modules.edged.hostname_override.clone(), settings.database.data_source.clone());
    let mut base = settings;
    base.modules.edge_hub = EdgeHub::default();
    // Off in every file of KubeEdge's keadm, whose tunnel it is: here logs and exec go over the link.
    base.modules.edge_stream = EdgeCore::default().modules.edge_stream;
    base.modules.edged.hostname_override = EdgeCore::default().modules.edged.hostname_override;
    base.database.data_source = PathBuf::from(STORE);
    let mut carried = Vec::new();
    let defaults = serde_json::to_value(EdgeCore::default())?;
    differing("", &serde_json::to_value(&base)?, &defaults, &mut carried);
    carried.retain(|key| key != "database.dataSource");
    Ok(Found { base, node, database, carried, said })
}

/// The keys of which `own` has another value than `defaults`. No values: a password may be among them.
fn differing(at: &str, own: &Value, defaults: &Value, found: &mut Vec<String>) {
    match (own, defaults) {
        (Value::Object(own), Value::Object(defaults)) if !defaults.is_empty() => {
            for (key, value) in own {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                differing(&at, value, defaults.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (own, defaults) if own == defaults => {}
        _ => found.push(at.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_is_carries_over_and_where_its_cloud_is_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore.yaml");
        let text = "
apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
database: {aliasName: default, driverName: sqlite3, dataSource: /var/lib/kubeedge/edgecore.db}
modules:
  dbTest: {enable: true}
  edgeStream: {enable: false}
  edgeHub:
    heartbeat: 15
    httpServer: https://old.example:10002
    tlsCaFile: /etc/kubeedge/ca/rootCA.crt
    tlsCertFile: /etc/kubeedge/certs/server.crt
    tlsPrivateKeyFile: /etc/kubeedge/certs/server.key
    websocket: {enable: true, server: 'old.example:10000'}
    quic: {enable: false, server: 'old.example:10001'}
  eventBus: {mqttMode: 2, mqttServerExternal: 'tcp://127.0.0.1:1883', mqttServerInternal: 'tcp://127.0.0.1:1884'}
  edged:
    hostnameOverride: edge-1
    nodeLabels: {zone: hall-3}
    tailoredKubeletConfig:
      cgroupDriver: systemd
      containerRuntimeEndpoint: unix:///run/crio/crio.sock
      staticPodPath: /etc/kubeedge/manifests
  deviceTwin: {dmiSockPath: /etc/kubeedge/}
";
        std::fs::write(&path, text).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(
            (found.node.as_str(), found.database.as_path()),
            ("edge-1", Path::new("/var/lib/kubeedge/edgecore.db"))
        );
        assert_eq!(found.base.modules.edge_hub, EdgeHub::default());
        assert_eq!(found.base.database.data_source, Path::new(STORE));
        assert_eq!(found.base.modules.edge_stream, EdgeCore::default().modules.edge_stream);
        assert!(!found.said.iter().any(|line| line.contains("this very file")), "{:?}", found.said);
        for key in [
            "modules.edged.nodeLabels",
            "modules.edged.tailoredKubeletConfig.cgroupDriver",
            "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint",
            "modules.eventBus.mqttMode",
        ] {
            assert!(
                found.carried.iter().any(|carried| carried.starts_with(key)),
                "{key}: {:?}",
                found.carried
            );
        }
        let of_hub = |line: &String| line.contains("edgeHub.tls") || line.contains("hostnameOverride");
        assert!(!found.carried.iter().chain(&found.said).any(of_hub), "{found:?}");
        assert!(found.said.iter().any(|line| line.contains("`modules.dbTest.enable`")), "{:?}", found.said);
        assert!(found.said.iter().any(|line| line.contains("staticPodPath")), "{:?}", found.said);
        assert!(read(&folder.path().join("none")).is_err());
    }
}
