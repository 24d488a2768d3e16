//! The small kinds of `core/v1`: namespaces, data, accounts, services, events.

use super::schema::Type::{Bool, Bytes, Int32, IntOrString, Message as Of, MicroTime, Text, Time};
use super::schema::{Message, full, list, map, said};
use super::schema_meta::{CONDITION, OBJECT_META};
use super::schema_volume::LOCAL_OBJECT_REFERENCE;

pub(super) static NAMESPACE_SPEC: Message =
    Message { name: "NamespaceSpec", fields: &[list(1, "finalizers", Text)] };

pub(super) static NAMESPACE_CONDITION: Message = Message {
    name: "NamespaceCondition",
    fields: &[
        said(1, "type", Text),
        said(2, "status", Text),
        said(4, "lastTransitionTime", Time),
        full(5, "reason", Text),
        full(6, "message", Text),
    ],
};

pub(super) static NAMESPACE_STATUS: Message = Message {
    name: "NamespaceStatus",
    fields: &[full(1, "phase", Text), list(2, "conditions", Of(&NAMESPACE_CONDITION))],
};

pub(super) static NAMESPACE: Message = Message {
    name: "Namespace",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&NAMESPACE_SPEC)),
        said(3, "status", Of(&NAMESPACE_STATUS)),
    ],
};

pub(super) static CONFIG_MAP: Message = Message {
    name: "ConfigMap",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        map(2, "data", Text),
        map(3, "binaryData", Bytes),
        said(4, "immutable", Bool),
    ],
};

pub(super) static SECRET: Message = Message {
    name: "Secret",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        map(2, "data", Bytes),
        full(3, "type", Text),
        map(4, "stringData", Text),
        said(5, "immutable", Bool),
    ],
};

pub(super) static OBJECT_REFERENCE: Message = Message {
    name: "ObjectReference",
    fields: &[
        full(1, "kind", Text),
        full(2, "namespace", Text),
        full(3, "name", Text),
        full(4, "uid", Text),
        full(5, "apiVersion", Text),
        full(6, "resourceVersion", Text),
        full(7, "fieldPath", Text),
    ],
};

pub(super) static SERVICE_ACCOUNT: Message = Message {
    name: "ServiceAccount",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        list(2, "secrets", Of(&OBJECT_REFERENCE)),
        list(3, "imagePullSecrets", Of(&LOCAL_OBJECT_REFERENCE)),
        said(4, "automountServiceAccountToken", Bool),
    ],
};

pub(super) static SERVICE_PORT: Message = Message {
    name: "ServicePort",
    fields: &[
        full(1, "name", Text),
        full(2, "protocol", Text),
        said(3, "port", Int32),
        said(4, "targetPort", IntOrString),
        full(5, "nodePort", Int32),
        said(6, "appProtocol", Text),
    ],
};

pub(super) static CLIENT_IP_CONFIG: Message =
    Message { name: "ClientIPConfig", fields: &[said(1, "timeoutSeconds", Int32)] };

pub(super) static SESSION_AFFINITY_CONFIG: Message =
    Message { name: "SessionAffinityConfig", fields: &[said(1, "clientIP", Of(&CLIENT_IP_CONFIG))] };

pub(super) static SERVICE_SPEC: Message = Message {
    name: "ServiceSpec",
    fields: &[
        list(1, "ports", Of(&SERVICE_PORT)),
        map(2, "selector", Text),
        full(3, "clusterIP", Text),
        full(4, "type", Text),
        list(5, "externalIPs", Text),
        full(7, "sessionAffinity", Text),
        full(8, "loadBalancerIP", Text),
        list(9, "loadBalancerSourceRanges", Text),
        full(10, "externalName", Text),
        full(11, "externalTrafficPolicy", Text),
        full(12, "healthCheckNodePort", Int32),
        full(13, "publishNotReadyAddresses", Bool),
        said(14, "sessionAffinityConfig", Of(&SESSION_AFFINITY_CONFIG)),
        said(17, "ipFamilyPolicy", Text),
        list(18, "clusterIPs", Text),
        list(19, "ipFamilies", Text),
        said(20, "allocateLoadBalancerNodePorts", Bool),
        said(21, "loadBalancerClass", Text),
        said(22, "internalTrafficPolicy", Text),
        said(23, "trafficDistribution", Text),
    ],
};

pub(super) static PORT_STATUS: Message = Message {
    name: "PortStatus",
    fields: &[said(1, "port", Int32), said(2, "protocol", Text), said(3, "error", Text)],
};

pub(super) static LOAD_BALANCER_INGRESS: Message = Message {
    name: "LoadBalancerIngress",
    fields: &[
        full(1, "ip", Text),
        full(2, "hostname", Text),
        said(3, "ipMode", Text),
        list(4, "ports", Of(&PORT_STATUS)),
    ],
};

pub(super) static LOAD_BALANCER_STATUS: Message =
    Message { name: "LoadBalancerStatus", fields: &[list(1, "ingress", Of(&LOAD_BALANCER_INGRESS))] };

pub(super) static SERVICE_STATUS: Message = Message {
    name: "ServiceStatus",
    fields: &[said(1, "loadBalancer", Of(&LOAD_BALANCER_STATUS)), list(2, "conditions", Of(&CONDITION))],
};

pub(super) static SERVICE: Message = Message {
    name: "Service",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&SERVICE_SPEC)),
        said(3, "status", Of(&SERVICE_STATUS)),
    ],
};

pub(super) static ENDPOINT_ADDRESS: Message = Message {
    name: "EndpointAddress",
    fields: &[
        said(1, "ip", Text),
        said(2, "targetRef", Of(&OBJECT_REFERENCE)),
        full(3, "hostname", Text),
        said(4, "nodeName", Text),
    ],
};

pub(super) static CORE_ENDPOINT_PORT: Message = Message {
    name: "EndpointPort",
    fields: &[
        full(1, "name", Text),
        said(2, "port", Int32),
        full(3, "protocol", Text),
        said(4, "appProtocol", Text),
    ],
};

pub(super) static ENDPOINT_SUBSET: Message = Message {
    name: "EndpointSubset",
    fields: &[
        list(1, "addresses", Of(&ENDPOINT_ADDRESS)),
        list(2, "notReadyAddresses", Of(&ENDPOINT_ADDRESS)),
        list(3, "ports", Of(&CORE_ENDPOINT_PORT)),
    ],
};

pub(super) static ENDPOINTS: Message = Message {
    name: "Endpoints",
    fields: &[said(1, "metadata", Of(&OBJECT_META)), list(2, "subsets", Of(&ENDPOINT_SUBSET))],
};

pub(super) static EVENT_SOURCE: Message =
    Message { name: "EventSource", fields: &[full(1, "component", Text), full(2, "host", Text)] };

pub(super) static EVENT_SERIES: Message = Message {
    name: "EventSeries",
    fields: &[full(1, "count", Int32), said(2, "lastObservedTime", MicroTime)],
};

pub(super) static EVENT: Message = Message {
    name: "Event",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "involvedObject", Of(&OBJECT_REFERENCE)),
        full(3, "reason", Text),
        full(4, "message", Text),
        said(5, "source", Of(&EVENT_SOURCE)),
        said(6, "firstTimestamp", Time),
        said(7, "lastTimestamp", Time),
        full(8, "count", Int32),
        full(9, "type", Text),
        said(10, "eventTime", MicroTime),
        said(11, "series", Of(&EVENT_SERIES)),
        full(12, "action", Text),
        said(13, "related", Of(&OBJECT_REFERENCE)),
        said(14, "reportingComponent", Text),
        said(15, "reportingInstance", Text),
    ],
};

pub(super) static BINDING: Message = Message {
    name: "Binding",
    fields: &[said(1, "metadata", Of(&OBJECT_META)), said(2, "target", Of(&OBJECT_REFERENCE))],
};
