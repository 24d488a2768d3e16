//! `apps/v1`, `coordination.k8s.io/v1` and `discovery.k8s.io/v1`.

use super::schema::Type::{Bool, Int32, Int64, IntOrString, Message as Of, MicroTime, Text, Time};
use super::schema::{Message, full, list, map, said};
use super::schema_core::OBJECT_REFERENCE;
use super::schema_meta::{LABEL_SELECTOR, OBJECT_META};
use super::schema_pod::POD_TEMPLATE_SPEC;

pub(super) static ROLLING_UPDATE_DEPLOYMENT: Message = Message {
    name: "RollingUpdateDeployment",
    fields: &[said(1, "maxUnavailable", IntOrString), said(2, "maxSurge", IntOrString)],
};

pub(super) static DEPLOYMENT_STRATEGY: Message = Message {
    name: "DeploymentStrategy",
    fields: &[full(1, "type", Text), said(2, "rollingUpdate", Of(&ROLLING_UPDATE_DEPLOYMENT))],
};

pub(super) static DEPLOYMENT_SPEC: Message = Message {
    name: "DeploymentSpec",
    fields: &[
        said(1, "replicas", Int32),
        said(2, "selector", Of(&LABEL_SELECTOR)),
        said(3, "template", Of(&POD_TEMPLATE_SPEC)),
        said(4, "strategy", Of(&DEPLOYMENT_STRATEGY)),
        full(5, "minReadySeconds", Int32),
        said(6, "revisionHistoryLimit", Int32),
        full(7, "paused", Bool),
        said(9, "progressDeadlineSeconds", Int32),
    ],
};

pub(super) static DEPLOYMENT_CONDITION: Message = Message {
    name: "DeploymentCondition",
    fields: &[
        said(1, "type", Text),
        said(2, "status", Text),
        full(4, "reason", Text),
        full(5, "message", Text),
        said(6, "lastUpdateTime", Time),
        said(7, "lastTransitionTime", Time),
    ],
};

pub(super) static DEPLOYMENT_STATUS: Message = Message {
    name: "DeploymentStatus",
    fields: &[
        full(1, "observedGeneration", Int64),
        full(2, "replicas", Int32),
        full(3, "updatedReplicas", Int32),
        full(4, "availableReplicas", Int32),
        full(5, "unavailableReplicas", Int32),
        list(6, "conditions", Of(&DEPLOYMENT_CONDITION)),
        full(7, "readyReplicas", Int32),
        said(8, "collisionCount", Int32),
        said(9, "terminatingReplicas", Int32),
    ],
};

pub(super) static DEPLOYMENT: Message = Message {
    name: "Deployment",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&DEPLOYMENT_SPEC)),
        said(3, "status", Of(&DEPLOYMENT_STATUS)),
    ],
};

pub(super) static REPLICA_SET_SPEC: Message = Message {
    name: "ReplicaSetSpec",
    fields: &[
        said(1, "replicas", Int32),
        said(2, "selector", Of(&LABEL_SELECTOR)),
        said(3, "template", Of(&POD_TEMPLATE_SPEC)),
        full(4, "minReadySeconds", Int32),
    ],
};

pub(super) static REPLICA_SET_CONDITION: Message = Message {
    name: "ReplicaSetCondition",
    fields: &[
        said(1, "type", Text),
        said(2, "status", Text),
        said(3, "lastTransitionTime", Time),
        full(4, "reason", Text),
        full(5, "message", Text),
    ],
};

pub(super) static REPLICA_SET_STATUS: Message = Message {
    name: "ReplicaSetStatus",
    fields: &[
        said(1, "replicas", Int32),
        full(2, "fullyLabeledReplicas", Int32),
        full(3, "observedGeneration", Int64),
        full(4, "readyReplicas", Int32),
        full(5, "availableReplicas", Int32),
        list(6, "conditions", Of(&REPLICA_SET_CONDITION)),
        said(7, "terminatingReplicas", Int32),
    ],
};

pub(super) static REPLICA_SET: Message = Message {
    name: "ReplicaSet",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&REPLICA_SET_SPEC)),
        said(3, "status", Of(&REPLICA_SET_STATUS)),
    ],
};

pub(super) static LEASE_SPEC: Message = Message {
    name: "LeaseSpec",
    fields: &[
        said(1, "holderIdentity", Text),
        said(2, "leaseDurationSeconds", Int32),
        said(3, "acquireTime", MicroTime),
        said(4, "renewTime", MicroTime),
        said(5, "leaseTransitions", Int32),
        said(6, "strategy", Text),
        said(7, "preferredHolder", Text),
    ],
};

pub(super) static LEASE: Message = Message {
    name: "Lease",
    fields: &[said(1, "metadata", Of(&OBJECT_META)), said(2, "spec", Of(&LEASE_SPEC))],
};

pub(super) static ENDPOINT_CONDITIONS: Message = Message {
    name: "EndpointConditions",
    fields: &[said(1, "ready", Bool), said(2, "serving", Bool), said(3, "terminating", Bool)],
};

pub(super) static FOR_ZONE: Message = Message { name: "ForZone", fields: &[said(1, "name", Text)] };

pub(super) static FOR_NODE: Message = Message { name: "ForNode", fields: &[said(1, "name", Text)] };

pub(super) static ENDPOINT_HINTS: Message = Message {
    name: "EndpointHints",
    fields: &[list(1, "forZones", Of(&FOR_ZONE)), list(2, "forNodes", Of(&FOR_NODE))],
};

pub(super) static ENDPOINT: Message = Message {
    name: "Endpoint",
    fields: &[
        list(1, "addresses", Text),
        said(2, "conditions", Of(&ENDPOINT_CONDITIONS)),
        said(3, "hostname", Text),
        said(4, "targetRef", Of(&OBJECT_REFERENCE)),
        map(5, "deprecatedTopology", Text),
        said(6, "nodeName", Text),
        said(7, "zone", Text),
        said(8, "hints", Of(&ENDPOINT_HINTS)),
    ],
};

pub(super) static SLICE_ENDPOINT_PORT: Message = Message {
    name: "EndpointPort",
    fields: &[
        said(1, "name", Text),
        said(2, "protocol", Text),
        said(3, "port", Int32),
        said(4, "appProtocol", Text),
    ],
};

pub(super) static ENDPOINT_SLICE: Message = Message {
    name: "EndpointSlice",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        list(2, "endpoints", Of(&ENDPOINT)),
        list(3, "ports", Of(&SLICE_ENDPOINT_PORT)),
        said(4, "addressType", Text),
    ],
};
