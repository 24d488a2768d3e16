//! Which plugins are taken, and what drivers are asked. Pure.

use std::collections::{BTreeMap, HashMap};

use contract::csi::{AccessMode, CsiVolume};
use contract::csi_node::{CSI_NODE_ID_MAX, CSI_TOPOLOGY_MAX, CsiNodeDriver, is_driver_name};
use csi::registration::PluginInfo;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessMode as ModeOf, AccessType, BlockVolume, MountVolume};
use csi::v1::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetInfoResponse, NodePublishVolumeRequest,
    NodeStageVolumeRequest, VolumeCapability,
};
use tonic::Status;

/// What registers CSI drivers.
const CSI_PLUGIN: &str = "CSIPlugin";

/// A version of CSI, as a driver's registrar says it.
pub(crate) type Version = (u32, u32, u32);

/// Whether a plugin is a CSI driver that can be spoken to, and by which version. `registered`: of the driver of this name that is
/// there already.
///
/// # Errors
/// In the kubelet's words, for its registrar.
pub(crate) fn validate(
    info: &PluginInfo,
    socket: &str,
    registered: impl Fn(&str) -> Option<Version>,
) -> Result<Version, String> {
    let PluginInfo { r#type: kind, name, supported_versions: versions, .. } = info;
    if kind != CSI_PLUGIN {
        let kind: String = kind.chars().take(64).collect();
        return Err(format!(
            "RegisterPlugin error -- no handler registered for plugin type: {kind} at socket {socket}"
        ));
    }
    let shown: String = name.chars().take(64).collect();
    let refused = |why: String| {
        let caller = format!("kubernetes.io/csi: ValidatePlugin for CSI driver \"{shown}\" failed. {why}");
        Err(format!("RegisterPlugin error -- plugin validation failed with err: {caller}"))
    };
    if !is_driver_name(name) {
        return refused("Its name is not one that CSI allows".to_owned());
    }
    if versions.is_empty() {
        return refused("Plugin returned an empty list for supported versions".to_owned());
    }
    let Some(highest) = versions.iter().filter_map(|text| version(text)).max() else {
        let versions: Vec<&str> =
            versions.iter().take(8).map(|text| text.get(..text.len().min(32)).unwrap_or_default()).collect();
        return refused(format!("None of the versions specified {versions:?} are supported"));
    };
    match registered(name) {
        Some((major, minor, patch)) if (major, minor, patch) >= highest => refused(format!(
            "Another driver with the same name is already registered with a higher supported version: \"{major}.{minor}.{patch}\""
        )),
        _ => Ok(highest),
    }
}

/// A version 1 of CSI.
fn version(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut numbers = text.splitn(3, '.').map(|number| number.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next().unwrap_or(Some(0))?, numbers.next().unwrap_or(Some(0))?);
    (version.0 == 1).then_some(version)
}

/// What is told of a driver to the cluster.
///
/// # Errors
/// In the kubelet's words, when it does not say what it calls the node.
pub(crate) fn driver_of(name: &str, info: NodeGetInfoResponse) -> Result<CsiNodeDriver, String> {
    if info.node_id.is_empty() {
        return Err("error adding CSI driver node info: nodeID must not be empty".to_owned());
    }
    let topology: BTreeMap<String, String> =
        info.accessible_topology.map(|topology| topology.segments.into_iter().collect()).unwrap_or_default();
    if info.node_id.len() > CSI_NODE_ID_MAX || topology.len() > CSI_TOPOLOGY_MAX {
        return Err(format!(
            "error adding CSI driver node info: nodeID is longer than {CSI_NODE_ID_MAX} bytes, or the topology has more than {CSI_TOPOLOGY_MAX} keys"
        ));
    }
    let (name, node_id) = (name.to_owned(), info.node_id);
    let driver = CsiNodeDriver { name, node_id, topology, max_volumes: info.max_volumes_per_node };
    if !driver.is_valid() {
        return Err(
            "error adding CSI driver node info: its name or its topology is longer than Kubernetes takes"
                .to_owned(),
        );
    }
    Ok(driver)
}

/// How a driver is told that a volume may be used (`asCSIAccessModeV1` and its newer form).
fn mode(wanted: AccessMode, can: &[Capability]) -> Mode {
    let by_writers = can.contains(&Capability::SingleNodeMultiWriter);
    match wanted {
        AccessMode::ReadWriteOnce if by_writers => Mode::SingleNodeMultiWriter,
        AccessMode::ReadWriteOncePod if by_writers => Mode::SingleNodeSingleWriter,
        AccessMode::ReadWriteOnce | AccessMode::ReadWriteOncePod => Mode::SingleNodeWriter,
        AccessMode::ReadOnlyMany => Mode::MultiNodeReaderOnly,
        AccessMode::ReadWriteMany => Mode::MultiNodeMultiWriter,
    }
}

fn capability(volume: &CsiVolume, can: &[Capability]) -> VolumeCapability {
    // The driver sees to the pod's group itself, if it can.
    let group = volume.fs_group.filter(|_| can.contains(&Capability::VolumeMountGroup));
    let mount = || MountVolume {
        fs_type: volume.fs_type.clone(),
        mount_flags: volume.mount_options.clone(),
        volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
    };
    let access_type =
        if volume.is_block { AccessType::Block(BlockVolume {}) } else { AccessType::Mount(mount()) };
    VolumeCapability {
        access_type: Some(access_type),
        access_mode: Some(ModeOf { mode: mode(volume.access_mode, can).into() }),
    }
}

fn map(from: &BTreeMap<String, String>) -> HashMap<String, String> {
    from.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What a driver is asked to stage.
pub(crate) fn stage_request(volume: &CsiVolume, can: &[Capability], at: String) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: volume.handle.clone(),
        publish_context: map(&volume.publish_context),
        staging_target_path: at,
        volume_capability: Some(capability(volume, can)),
        secrets: map(&volume.stage_secrets),
        volume_context: map(&volume.attributes),
    }
}

/// What a driver is asked to publish. `staged`: where it is staged; empty where the driver does not stage.
pub(crate) fn publish_request(
    volume: &CsiVolume,
    can: &[Capability],
    staged: String,
    at: String,
) -> NodePublishVolumeRequest {
    let mut context = map(&volume.attributes);
    context.extend(map(&volume.publish_attributes));
    NodePublishVolumeRequest {
        volume_id: volume.handle.clone(),
        publish_context: map(&volume.publish_context),
        staging_target_path: staged,
        target_path: at,
        volume_capability: Some(capability(volume, can)),
        readonly: volume.read_only,
        secrets: map(&volume.publish_secrets),
        volume_context: context,
    }
}

/// What a driver is asked to make larger. `staged`: where it is staged; `at`: where it is published.
pub(crate) fn expand_request(
    volume: &CsiVolume,
    can: &[Capability],
    size: i64,
    secrets: &BTreeMap<String, String>,
    (staged, at): (String, String),
) -> NodeExpandVolumeRequest {
    NodeExpandVolumeRequest {
        volume_id: volume.handle.clone(),
        volume_path: at,
        capacity_range: Some(CapacityRange { required_bytes: size, limit_bytes: 0 }),
        staging_target_path: staged,
        volume_capability: Some(capability(volume, can)),
        secrets: map(secrets),
    }
}

/// CSI's names are at most 128 bytes long, and other texts of volumes are of that size: 4 KiB is none.
const SUBJECT_MAX: usize = 4 << 10;

/// What a call of a controller service is about: its first field, which is the name of a volume that is to be made and the handle of
/// one that is there. The rest is not looked into.
///
/// # Errors
/// `InvalidArgument`, in the words of drivers.
pub(crate) fn subject(message: &[u8]) -> Result<String, Status> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct First {
        #[prost(string, tag = "1")]
        text: String,
    }
    let First { text } = <First as prost::Message>::decode(message)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    if text.is_empty() || text.len() > SUBJECT_MAX {
        return Err(Status::invalid_argument(
            "the volume has no name, no handle, or one that is no volume's",
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use csi::v1::Topology;

    fn info(kind: &str, name: &str, versions: &[&str]) -> PluginInfo {
        PluginInfo {
            r#type: kind.to_owned(),
            name: name.to_owned(),
            endpoint: String::new(),
            supported_versions: versions.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn the_highest_version_1_counts_and_all_else_is_refused_in_the_kubelets_words() {
        let none = |_: &str| None;
        assert_eq!(
            validate(&info("CSIPlugin", "d.io", &["1.0.0", "v1.9.1", "2.0.0", "0.3"]), "/s", none),
            Ok((1, 9, 1))
        );
        for (info, words) in [
            (
                info("DRAPlugin", "d.io", &["1.0.0"]),
                "no handler registered for plugin type: DRAPlugin at socket /s",
            ),
            (
                info("CSIPlugin", "../etc", &["1.0.0"]),
                "plugin validation failed with err: kubernetes.io/csi: ValidatePlugin",
            ),
            (info("CSIPlugin", "d.io", &[]), "empty list for supported versions"),
            (info("CSIPlugin", "d.io", &["0.3.0", "x"]), "None of the versions specified"),
        ] {
            let told = validate(&info, "/s", none).unwrap_err();
            assert!(told.contains(words) && told.starts_with("RegisterPlugin error -- "), "{told}");
        }
        let there = |_: &str| Some((1, 5, 0));
        assert!(
            validate(&info("CSIPlugin", "d.io", &["1.5.0"]), "/s", there)
                .unwrap_err()
                .contains("already registered")
        );
        assert_eq!(validate(&info("CSIPlugin", "d.io", &["1.6.0"]), "/s", there), Ok((1, 6, 0)));
    }

    #[test]
    fn a_driver_that_has_no_name_for_the_node_is_none() {
        assert!(driver_of("d", NodeGetInfoResponse::default()).is_err());
        let long = NodeGetInfoResponse { node_id: "n".repeat(193), ..NodeGetInfoResponse::default() };
        assert!(driver_of("d", long).is_err());
        let flood = Topology { segments: [("zone".to_owned(), "a".repeat(3 << 20))].into() };
        let said = NodeGetInfoResponse {
            node_id: "n".into(),
            accessible_topology: Some(flood),
            ..NodeGetInfoResponse::default()
        };
        assert!(driver_of("d", said).is_err());
        let topology = Topology { segments: [("zone".to_owned(), "a".to_owned())].into() };
        let said = NodeGetInfoResponse {
            node_id: "n".into(),
            max_volumes_per_node: 3,
            accessible_topology: Some(topology),
        };
        let driver = driver_of("d", said).unwrap();
        assert_eq!((driver.max_volumes, driver.topology.len()), (3, 1));
    }

    #[test]
    fn access_modes_are_told_by_what_the_driver_knows() {
        let can = [Capability::SingleNodeMultiWriter];
        for (wanted, old, new) in [
            (AccessMode::ReadWriteOnce, Mode::SingleNodeWriter, Mode::SingleNodeMultiWriter),
            (AccessMode::ReadWriteOncePod, Mode::SingleNodeWriter, Mode::SingleNodeSingleWriter),
            (AccessMode::ReadOnlyMany, Mode::MultiNodeReaderOnly, Mode::MultiNodeReaderOnly),
            (AccessMode::ReadWriteMany, Mode::MultiNodeMultiWriter, Mode::MultiNodeMultiWriter),
        ] {
            assert_eq!((mode(wanted, &[]), mode(wanted, &can)), (old, new), "{wanted:?}");
        }
    }

    #[test]
    fn what_is_published_has_the_pods_attributes_and_what_is_staged_has_not() {
        let one = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        let volume = CsiVolume {
            handle: "h".into(),
            attributes: one("share"),
            publish_attributes: one("csi.storage.k8s.io/pod.name"),
            stage_secrets: one("stage"),
            publish_secrets: one("publish"),
            fs_group: Some(42),
            read_only: true,
            ..CsiVolume::default()
        };
        let staged = stage_request(&volume, &[], "/g".into());
        assert_eq!(staged.volume_context.len(), 1);
        assert!(staged.secrets.contains_key("stage") && !format!("{staged:?}").contains("secrets"));
        let published = publish_request(&volume, &[Capability::VolumeMountGroup], "/g".into(), "/m".into());
        assert_eq!(published.volume_context.len(), 2);
        assert!(published.readonly && published.secrets.contains_key("publish"));
        let Some(AccessType::Mount(mount)) = published.volume_capability.unwrap().access_type else {
            panic!()
        };
        assert_eq!(mount.volume_mount_group, "42");
    }

    #[test]
    fn a_call_is_about_what_its_first_field_says() {
        use csi::v1::{ControllerPublishVolumeRequest, CreateVolumeRequest};
        use prost::Message as _;
        let create = CreateVolumeRequest { name: "pvc-1".to_owned(), ..Default::default() }.encode_to_vec();
        assert_eq!(subject(&create).unwrap(), "pvc-1");
        let publish = ControllerPublishVolumeRequest {
            volume_id: "v".to_owned(),
            node_id: "n".to_owned(),
            ..Default::default()
        };
        assert_eq!(subject(&publish.encode_to_vec()).unwrap(), "v");
        // A field that later versions of CSI have.
        assert_eq!(subject(&[&create[..], b"\xc2\x3e\x01x"].concat()).unwrap(), "pvc-1");
        for bad in [&b""[..], b"\xff", b"\x0a\x05x", &[&b"\x0a\x81\x20"[..], &[b'x'; 4097]].concat()] {
            assert_eq!(subject(bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
    }
}
