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

unixgrpc::methods! {
    /// What sidecars ask a driver about itself.
    pub mod identity = "csi.v1.Identity" {
        GET_PLUGIN_INFO = GetPluginInfo(GetPluginInfoRequest) returns (GetPluginInfoResponse);
        GET_PLUGIN_CAPABILITIES =
            GetPluginCapabilities(GetPluginCapabilitiesRequest) returns (GetPluginCapabilitiesResponse);
        PROBE = Probe(ProbeRequest) returns (ProbeResponse);
    }
}

unixgrpc::methods! {
    /// A driver's controller service, as sidecars call it.
    pub mod controller = "csi.v1.Controller" {
        CREATE_VOLUME = CreateVolume(CreateVolumeRequest) returns (CreateVolumeResponse);
        DELETE_VOLUME = DeleteVolume(DeleteVolumeRequest) returns (DeleteVolumeResponse);
        CONTROLLER_PUBLISH_VOLUME =
            ControllerPublishVolume(ControllerPublishVolumeRequest) returns (ControllerPublishVolumeResponse);
        CONTROLLER_UNPUBLISH_VOLUME = ControllerUnpublishVolume(ControllerUnpublishVolumeRequest) returns (ControllerUnpublishVolumeResponse);
        VALIDATE_VOLUME_CAPABILITIES = ValidateVolumeCapabilities(ValidateVolumeCapabilitiesRequest) returns (ValidateVolumeCapabilitiesResponse);
        CONTROLLER_GET_CAPABILITIES = ControllerGetCapabilities(ControllerGetCapabilitiesRequest) returns (ControllerGetCapabilitiesResponse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unixgrpc::undeclared;

    #[test]
    fn the_methods_are_those_of_the_interface_files() {
        assert_eq!(undeclared(include_str!("../proto/csi.proto"), "Node", node::DECLARED), [""; 0]);
        let file = include_str!("../proto/csi.proto");
        assert_eq!(undeclared(file, "Identity", identity::DECLARED), [""; 0]);
        assert_eq!(undeclared(file, "Controller", controller::DECLARED), [""; 0]);
        let registrar = include_str!("../proto/registration.proto");
        assert_eq!(undeclared(registrar, "Registration", registration::DECLARED), [""; 0]);
    }
}
