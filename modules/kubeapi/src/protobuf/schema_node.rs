//! Nodes: `core/v1`.

use super::schema::Type::{Bool, Int32, Int64, Message as Of, Quantity, Text, Time};
use super::schema::{Message, full, list, map, said};
use super::schema_meta::OBJECT_META;

pub(super) static TAINT: Message = Message {
    name: "Taint",
    fields: &[
        said(1, "key", Text),
        full(2, "value", Text),
        said(3, "effect", Text),
        said(4, "timeAdded", Time),
    ],
};

pub(super) static CONFIG_MAP_NODE_CONFIG_SOURCE: Message = Message {
    name: "ConfigMapNodeConfigSource",
    fields: &[
        said(1, "namespace", Text),
        said(2, "name", Text),
        full(3, "uid", Text),
        full(4, "resourceVersion", Text),
        said(5, "kubeletConfigKey", Text),
    ],
};

pub(super) static NODE_CONFIG_SOURCE: Message =
    Message { name: "NodeConfigSource", fields: &[said(2, "configMap", Of(&CONFIG_MAP_NODE_CONFIG_SOURCE))] };

pub(super) static NODE_SPEC: Message = Message {
    name: "NodeSpec",
    fields: &[
        full(1, "podCIDR", Text),
        full(2, "externalID", Text),
        full(3, "providerID", Text),
        full(4, "unschedulable", Bool),
        list(5, "taints", Of(&TAINT)),
        said(6, "configSource", Of(&NODE_CONFIG_SOURCE)),
        list(7, "podCIDRs", Text),
    ],
};

pub(super) static NODE_CONDITION: Message = Message {
    name: "NodeCondition",
    fields: &[
        said(1, "type", Text),
        said(2, "status", Text),
        said(3, "lastHeartbeatTime", Time),
        said(4, "lastTransitionTime", Time),
        full(5, "reason", Text),
        full(6, "message", Text),
    ],
};

pub(super) static NODE_ADDRESS: Message =
    Message { name: "NodeAddress", fields: &[said(1, "type", Text), said(2, "address", Text)] };

pub(super) static DAEMON_ENDPOINT: Message =
    Message { name: "DaemonEndpoint", fields: &[said(1, "Port", Int32)] };

pub(super) static NODE_DAEMON_ENDPOINTS: Message =
    Message { name: "NodeDaemonEndpoints", fields: &[said(1, "kubeletEndpoint", Of(&DAEMON_ENDPOINT))] };

pub(super) static NODE_SWAP_STATUS: Message =
    Message { name: "NodeSwapStatus", fields: &[said(1, "capacity", Int64)] };

pub(super) static NODE_SYSTEM_INFO: Message = Message {
    name: "NodeSystemInfo",
    fields: &[
        said(1, "machineID", Text),
        said(2, "systemUUID", Text),
        said(3, "bootID", Text),
        said(4, "kernelVersion", Text),
        said(5, "osImage", Text),
        said(6, "containerRuntimeVersion", Text),
        said(7, "kubeletVersion", Text),
        said(8, "kubeProxyVersion", Text),
        said(9, "operatingSystem", Text),
        said(10, "architecture", Text),
        said(11, "swap", Of(&NODE_SWAP_STATUS)),
    ],
};

pub(super) static CONTAINER_IMAGE: Message =
    Message { name: "ContainerImage", fields: &[list(1, "names", Text), full(2, "sizeBytes", Int64)] };

pub(super) static ATTACHED_VOLUME: Message =
    Message { name: "AttachedVolume", fields: &[said(1, "name", Text), said(2, "devicePath", Text)] };

pub(super) static NODE_CONFIG_STATUS: Message = Message {
    name: "NodeConfigStatus",
    fields: &[
        said(1, "assigned", Of(&NODE_CONFIG_SOURCE)),
        said(2, "active", Of(&NODE_CONFIG_SOURCE)),
        said(3, "lastKnownGood", Of(&NODE_CONFIG_SOURCE)),
        full(4, "error", Text),
    ],
};

pub(super) static NODE_RUNTIME_HANDLER_FEATURES: Message = Message {
    name: "NodeRuntimeHandlerFeatures",
    fields: &[said(1, "recursiveReadOnlyMounts", Bool), said(2, "userNamespaces", Bool)],
};

pub(super) static NODE_RUNTIME_HANDLER: Message = Message {
    name: "NodeRuntimeHandler",
    fields: &[said(1, "name", Text), said(2, "features", Of(&NODE_RUNTIME_HANDLER_FEATURES))],
};

pub(super) static NODE_FEATURES: Message =
    Message { name: "NodeFeatures", fields: &[said(1, "supplementalGroupsPolicy", Bool)] };

pub(super) static NODE_STATUS: Message = Message {
    name: "NodeStatus",
    fields: &[
        map(1, "capacity", Quantity),
        map(2, "allocatable", Quantity),
        full(3, "phase", Text),
        list(4, "conditions", Of(&NODE_CONDITION)),
        list(5, "addresses", Of(&NODE_ADDRESS)),
        said(6, "daemonEndpoints", Of(&NODE_DAEMON_ENDPOINTS)),
        said(7, "nodeInfo", Of(&NODE_SYSTEM_INFO)),
        list(8, "images", Of(&CONTAINER_IMAGE)),
        list(9, "volumesInUse", Text),
        list(10, "volumesAttached", Of(&ATTACHED_VOLUME)),
        said(11, "config", Of(&NODE_CONFIG_STATUS)),
        list(12, "runtimeHandlers", Of(&NODE_RUNTIME_HANDLER)),
        said(13, "features", Of(&NODE_FEATURES)),
        list(14, "declaredFeatures", Text),
    ],
};

pub(super) static NODE: Message = Message {
    name: "Node",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&NODE_SPEC)),
        said(3, "status", Of(&NODE_STATUS)),
    ],
};
