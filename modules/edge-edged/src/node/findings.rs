//! What is found out for one report of the node. Pure.

use std::collections::BTreeMap;

use contract::containermanager::DeviceCount;
use contract::eventbus::BrokerReport;
use cri::RuntimeFeatures;
use cri::v1::{CgroupDriver, Image, RuntimeStatus, VersionResponse};
use nodechecks::Finding;

use crate::dependencies::CsiVolumes;
use crate::eviction::shortage::Shortage;
use crate::node::machine::Machine;

/// What was found out for one report.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    pub(crate) machine: Machine,
    /// The runtime's answers, or why there are none.
    pub(crate) runtime: Result<(VersionResponse, RuntimeStatus), String>,
    /// What it can do, as far as it has said.
    pub(crate) features: RuntimeFeatures,
    /// Who makes its cgroups, as far as it has said.
    pub(crate) cgroup_driver: Option<CgroupDriver>,
    pub(crate) images: Vec<Image>,
    /// What the node is short of, or was a while ago, once that was measured.
    pub(crate) shortages: Option<Vec<Shortage>>,
    /// The machine is about to end.
    pub(crate) shutting_down: bool,
    /// The extended resources that plugins have.
    pub(crate) devices: BTreeMap<String, DeviceCount>,
    /// What is known of CSI drivers and their volumes.
    pub(crate) csi: Option<CsiVolumes>,
    /// What EventBus said of the MQTT brokers.
    pub(crate) mqtt_broker: Option<BrokerReport>,
    /// The checks of the machine that fail, the gravest first, once they were looked at.
    pub(crate) checks: Option<Vec<Finding>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use cri::v1::RuntimeCondition;
    use serde_json::Value;

    use super::*;
    use crate::settings::Settings;

    pub(crate) fn settings() -> Settings {
        let mut settings = Settings::new("edge-1", &config::edge::Edged::default());
        settings.node_labels.insert("zone".into(), "a".into());
        settings
    }

    /// Of a small node, whose runtime has a network or has none.
    pub(crate) fn findings(network: bool) -> Findings {
        let condition = |kind: &str, status: bool| RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: if status { String::new() } else { "NetworkPluginNotReady".into() },
            message: if status { String::new() } else { "cni plugin not initialized".into() },
        };
        let version = VersionResponse {
            runtime_name: "containerd".into(),
            runtime_version: "1.6.20".into(),
            ..VersionResponse::default()
        };
        let status = RuntimeStatus {
            conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", network)],
        };
        let machine = Machine {
            cpus: 2,
            memory: 1 << 30,
            memory_available: 1 << 29,
            disk: 100 << 30,
            disk_available: 50 << 30,
            ips: vec!["192.0.2.1".into()],
            ..Machine::default()
        };
        Findings {
            machine,
            runtime: Ok((version, status)),
            features: RuntimeFeatures::default(),
            cgroup_driver: None,
            images: Vec::new(),
            shortages: None,
            shutting_down: false,
            devices: BTreeMap::new(),
            csi: None,
            mqtt_broker: None,
            checks: None,
        }
    }

    pub(crate) fn condition<'a>(node: &'a Value, kind: &str) -> &'a Value {
        node["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
    }
}
