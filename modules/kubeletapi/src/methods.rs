//! The methods, each with its messages.

use unixgrpc::Interface;

use crate::deviceplugin::{
    AllocateRequest, AllocateResponse, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, RegisterRequest,
};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// What the socket for device plugins tells of its interface to tools that ask.
pub static REGISTRATION_INTERFACE: Interface = Interface::new(DESCRIPTORS, &["v1beta1.Registration"]);
/// What the socket for agents tells of its interface to tools that ask.
pub static POD_RESOURCES_INTERFACE: Interface =
    Interface::new(DESCRIPTORS, &["v1.PodResourcesLister", "v1alpha1.PodResourcesLister"]);

unixgrpc::methods! {
    /// Served by the kubelet, called by device plugins.
    pub mod registration = "v1beta1.Registration" {
        REGISTER = Register(RegisterRequest) returns (Empty);
    }
}

unixgrpc::methods! {
    /// Served by each device plugin.
    pub mod device_plugin = "v1beta1.DevicePlugin" {
        GET_DEVICE_PLUGIN_OPTIONS = GetDevicePluginOptions(Empty) returns (DevicePluginOptions);
        LIST_AND_WATCH = ListAndWatch(Empty) returns (ListAndWatchResponse);
        GET_PREFERRED_ALLOCATION =
            GetPreferredAllocation(PreferredAllocationRequest) returns (PreferredAllocationResponse);
        ALLOCATE = Allocate(AllocateRequest) returns (AllocateResponse);
        PRE_START_CONTAINER = PreStartContainer(PreStartContainerRequest) returns (PreStartContainerResponse);
    }
}

/// Pod resources, as agents ask for them.
pub mod pod_resources {
    use crate::podresources::{
        AllocatableResourcesRequest, AllocatableResourcesResponse, GetPodResourcesRequest,
        GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse,
    };

    unixgrpc::methods! {
        /// Now.
        pub mod v1 = "v1.PodResourcesLister" {
            LIST = List(ListPodResourcesRequest) returns (ListPodResourcesResponse);
            GET_ALLOCATABLE_RESOURCES =
                GetAllocatableResources(AllocatableResourcesRequest) returns (AllocatableResourcesResponse);
            GET = Get(GetPodResourcesRequest) returns (GetPodResourcesResponse);
        }
    }

    /// As older agents do.
    pub mod older {
        use crate::podresources_v1alpha1::{ListPodResourcesRequest, ListPodResourcesResponse};

        unixgrpc::methods! {
            /// Before v1.
            pub mod v1alpha1 = "v1alpha1.PodResourcesLister" {
                LIST = List(ListPodResourcesRequest) returns (ListPodResourcesResponse);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unixgrpc::undeclared;

    #[test]
    fn the_methods_are_those_of_the_interface_files() {
        let plugins = include_str!("../proto/deviceplugin.proto");
        assert_eq!(undeclared(plugins, "Registration", registration::DECLARED), [""; 0]);
        assert_eq!(undeclared(plugins, "DevicePlugin", device_plugin::DECLARED), [""; 0]);
        let resources = include_str!("../proto/podresources.proto");
        assert_eq!(undeclared(resources, "PodResourcesLister", pod_resources::v1::DECLARED), [""; 0]);
        let older = include_str!("../proto/podresources_v1alpha1.proto");
        let methods = pod_resources::older::v1alpha1::DECLARED;
        assert_eq!(undeclared(older, "PodResourcesLister", methods), [""; 0]);
    }
}
