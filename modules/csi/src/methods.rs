//! The methods that are called.

use crate::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::v1::*;

unixgrpc::methods! {
    /// A driver's node service.
    pub(crate) mod node = "csi.v1.Node" {
        NODE_STAGE_VOLUME = NodeStageVolume(NodeStageVolumeRequest) returns (NodeStageVolumeResponse);
        NODE_UNSTAGE_VOLUME = NodeUnstageVolume(NodeUnstageVolumeRequest) returns (NodeUnstageVolumeResponse);
        NODE_PUBLISH_VOLUME = NodePublishVolume(NodePublishVolumeRequest) returns (NodePublishVolumeResponse);
        NODE_UNPUBLISH_VOLUME = NodeUnpublishVolume(NodeUnpublishVolumeRequest) returns (NodeUnpublishVolumeResponse);
        NODE_EXPAND_VOLUME = NodeExpandVolume(NodeExpandVolumeRequest) returns (NodeExpandVolumeResponse);
        NODE_GET_VOLUME_STATS = NodeGetVolumeStats(NodeGetVolumeStatsRequest) returns (NodeGetVolumeStatsResponse);
        NODE_GET_CAPABILITIES = NodeGetCapabilities(NodeGetCapabilitiesRequest) returns (NodeGetCapabilitiesResponse);
        NODE_GET_INFO = NodeGetInfo(NodeGetInfoRequest) returns (NodeGetInfoResponse);
    }
}

unixgrpc::methods! {
    /// Who registers a plugin.
    pub(crate) mod registration = "pluginregistration.Registration" {
        GET_INFO = GetInfo(InfoRequest) returns (PluginInfo);
        NOTIFY_REGISTRATION_STATUS =
            NotifyRegistrationStatus(RegistrationStatus) returns (RegistrationStatusResponse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unixgrpc::undeclared;

    #[test]
    fn the_methods_are_those_of_the_interface_files() {
        assert_eq!(undeclared(include_str!("../proto/csi.proto"), "Node", node::DECLARED), [""; 0]);
        let registrar = include_str!("../proto/registration.proto");
        assert_eq!(undeclared(registrar, "Registration", registration::DECLARED), [""; 0]);
    }
}
