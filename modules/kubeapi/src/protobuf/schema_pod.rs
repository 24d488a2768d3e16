//! Pods: `core/v1`.

use super::schema::Type::{Bool, Int32, Int64, Message as Of, Quantity, Text, Time};
use super::schema::{Message, full, list, map, said};
use super::schema_container::{
    APP_ARMOR_PROFILE, CONTAINER, EPHEMERAL_CONTAINER, RESOURCE_REQUIREMENTS, SE_LINUX_OPTIONS,
    SECCOMP_PROFILE, WINDOWS_SECURITY_CONTEXT_OPTIONS,
};
use super::schema_meta::{LABEL_SELECTOR, OBJECT_META};
use super::schema_volume::{LOCAL_OBJECT_REFERENCE, VOLUME};

pub(super) static SYSCTL: Message =
    Message { name: "Sysctl", fields: &[said(1, "name", Text), said(2, "value", Text)] };

pub(super) static POD_SECURITY_CONTEXT: Message = Message {
    name: "PodSecurityContext",
    fields: &[
        said(1, "seLinuxOptions", Of(&SE_LINUX_OPTIONS)),
        said(2, "runAsUser", Int64),
        said(3, "runAsNonRoot", Bool),
        list(4, "supplementalGroups", Int64),
        said(5, "fsGroup", Int64),
        said(6, "runAsGroup", Int64),
        list(7, "sysctls", Of(&SYSCTL)),
        said(8, "windowsOptions", Of(&WINDOWS_SECURITY_CONTEXT_OPTIONS)),
        said(9, "fsGroupChangePolicy", Text),
        said(10, "seccompProfile", Of(&SECCOMP_PROFILE)),
        said(11, "appArmorProfile", Of(&APP_ARMOR_PROFILE)),
        said(12, "supplementalGroupsPolicy", Text),
        said(13, "seLinuxChangePolicy", Text),
    ],
};

pub(super) static NODE_SELECTOR_REQUIREMENT: Message = Message {
    name: "NodeSelectorRequirement",
    fields: &[said(1, "key", Text), said(2, "operator", Text), list(3, "values", Text)],
};

pub(super) static NODE_SELECTOR_TERM: Message = Message {
    name: "NodeSelectorTerm",
    fields: &[
        list(1, "matchExpressions", Of(&NODE_SELECTOR_REQUIREMENT)),
        list(2, "matchFields", Of(&NODE_SELECTOR_REQUIREMENT)),
    ],
};

pub(super) static NODE_SELECTOR: Message =
    Message { name: "NodeSelector", fields: &[list(1, "nodeSelectorTerms", Of(&NODE_SELECTOR_TERM))] };

pub(super) static PREFERRED_SCHEDULING_TERM: Message = Message {
    name: "PreferredSchedulingTerm",
    fields: &[said(1, "weight", Int32), said(2, "preference", Of(&NODE_SELECTOR_TERM))],
};

pub(super) static NODE_AFFINITY: Message = Message {
    name: "NodeAffinity",
    fields: &[
        said(1, "requiredDuringSchedulingIgnoredDuringExecution", Of(&NODE_SELECTOR)),
        list(2, "preferredDuringSchedulingIgnoredDuringExecution", Of(&PREFERRED_SCHEDULING_TERM)),
    ],
};

pub(super) static POD_AFFINITY_TERM: Message = Message {
    name: "PodAffinityTerm",
    fields: &[
        said(1, "labelSelector", Of(&LABEL_SELECTOR)),
        list(2, "namespaces", Text),
        said(3, "topologyKey", Text),
        said(4, "namespaceSelector", Of(&LABEL_SELECTOR)),
        list(5, "matchLabelKeys", Text),
        list(6, "mismatchLabelKeys", Text),
    ],
};

pub(super) static WEIGHTED_POD_AFFINITY_TERM: Message = Message {
    name: "WeightedPodAffinityTerm",
    fields: &[said(1, "weight", Int32), said(2, "podAffinityTerm", Of(&POD_AFFINITY_TERM))],
};

pub(super) static POD_AFFINITY: Message = Message {
    name: "PodAffinity",
    fields: &[
        list(1, "requiredDuringSchedulingIgnoredDuringExecution", Of(&POD_AFFINITY_TERM)),
        list(2, "preferredDuringSchedulingIgnoredDuringExecution", Of(&WEIGHTED_POD_AFFINITY_TERM)),
    ],
};

pub(super) static POD_ANTI_AFFINITY: Message = Message {
    name: "PodAntiAffinity",
    fields: &[
        list(1, "requiredDuringSchedulingIgnoredDuringExecution", Of(&POD_AFFINITY_TERM)),
        list(2, "preferredDuringSchedulingIgnoredDuringExecution", Of(&WEIGHTED_POD_AFFINITY_TERM)),
    ],
};

pub(super) static AFFINITY: Message = Message {
    name: "Affinity",
    fields: &[
        said(1, "nodeAffinity", Of(&NODE_AFFINITY)),
        said(2, "podAffinity", Of(&POD_AFFINITY)),
        said(3, "podAntiAffinity", Of(&POD_ANTI_AFFINITY)),
    ],
};

pub(super) static TOLERATION: Message = Message {
    name: "Toleration",
    fields: &[
        full(1, "key", Text),
        full(2, "operator", Text),
        full(3, "value", Text),
        full(4, "effect", Text),
        said(5, "tolerationSeconds", Int64),
    ],
};

pub(super) static HOST_ALIAS: Message =
    Message { name: "HostAlias", fields: &[said(1, "ip", Text), list(2, "hostnames", Text)] };

pub(super) static POD_DNS_CONFIG_OPTION: Message =
    Message { name: "PodDNSConfigOption", fields: &[full(1, "name", Text), said(2, "value", Text)] };

pub(super) static POD_DNS_CONFIG: Message = Message {
    name: "PodDNSConfig",
    fields: &[
        list(1, "nameservers", Text),
        list(2, "searches", Text),
        list(3, "options", Of(&POD_DNS_CONFIG_OPTION)),
    ],
};

pub(super) static POD_READINESS_GATE: Message =
    Message { name: "PodReadinessGate", fields: &[said(1, "conditionType", Text)] };

pub(super) static TOPOLOGY_SPREAD_CONSTRAINT: Message = Message {
    name: "TopologySpreadConstraint",
    fields: &[
        said(1, "maxSkew", Int32),
        said(2, "topologyKey", Text),
        said(3, "whenUnsatisfiable", Text),
        said(4, "labelSelector", Of(&LABEL_SELECTOR)),
        said(5, "minDomains", Int32),
        said(6, "nodeAffinityPolicy", Text),
        said(7, "nodeTaintsPolicy", Text),
        list(8, "matchLabelKeys", Text),
    ],
};

pub(super) static POD_OS: Message = Message { name: "PodOS", fields: &[said(1, "name", Text)] };

pub(super) static POD_SCHEDULING_GATE: Message =
    Message { name: "PodSchedulingGate", fields: &[said(1, "name", Text)] };

pub(super) static POD_RESOURCE_CLAIM: Message = Message {
    name: "PodResourceClaim",
    fields: &[
        said(1, "name", Text),
        said(3, "resourceClaimName", Text),
        said(4, "resourceClaimTemplateName", Text),
    ],
};

pub(super) static POD_SCHEDULING_GROUP: Message =
    Message { name: "PodSchedulingGroup", fields: &[said(1, "podGroupName", Text)] };

pub(super) static POD_SPEC: Message = Message {
    name: "PodSpec",
    fields: &[
        list(1, "volumes", Of(&VOLUME)),
        list(2, "containers", Of(&CONTAINER)),
        full(3, "restartPolicy", Text),
        said(4, "terminationGracePeriodSeconds", Int64),
        said(5, "activeDeadlineSeconds", Int64),
        full(6, "dnsPolicy", Text),
        map(7, "nodeSelector", Text),
        full(8, "serviceAccountName", Text),
        full(9, "serviceAccount", Text),
        full(10, "nodeName", Text),
        full(11, "hostNetwork", Bool),
        full(12, "hostPID", Bool),
        full(13, "hostIPC", Bool),
        said(14, "securityContext", Of(&POD_SECURITY_CONTEXT)),
        list(15, "imagePullSecrets", Of(&LOCAL_OBJECT_REFERENCE)),
        full(16, "hostname", Text),
        full(17, "subdomain", Text),
        said(18, "affinity", Of(&AFFINITY)),
        full(19, "schedulerName", Text),
        list(20, "initContainers", Of(&CONTAINER)),
        said(21, "automountServiceAccountToken", Bool),
        list(22, "tolerations", Of(&TOLERATION)),
        list(23, "hostAliases", Of(&HOST_ALIAS)),
        full(24, "priorityClassName", Text),
        said(25, "priority", Int32),
        said(26, "dnsConfig", Of(&POD_DNS_CONFIG)),
        said(27, "shareProcessNamespace", Bool),
        list(28, "readinessGates", Of(&POD_READINESS_GATE)),
        said(29, "runtimeClassName", Text),
        said(30, "enableServiceLinks", Bool),
        said(31, "preemptionPolicy", Text),
        map(32, "overhead", Quantity),
        list(33, "topologySpreadConstraints", Of(&TOPOLOGY_SPREAD_CONSTRAINT)),
        list(34, "ephemeralContainers", Of(&EPHEMERAL_CONTAINER)),
        said(35, "setHostnameAsFQDN", Bool),
        said(36, "os", Of(&POD_OS)),
        said(37, "hostUsers", Bool),
        list(38, "schedulingGates", Of(&POD_SCHEDULING_GATE)),
        list(39, "resourceClaims", Of(&POD_RESOURCE_CLAIM)),
        said(40, "resources", Of(&RESOURCE_REQUIREMENTS)),
        said(41, "hostnameOverride", Text),
        said(43, "schedulingGroup", Of(&POD_SCHEDULING_GROUP)),
    ],
};

pub(super) static POD_CONDITION: Message = Message {
    name: "PodCondition",
    fields: &[
        said(1, "type", Text),
        said(2, "status", Text),
        said(3, "lastProbeTime", Time),
        said(4, "lastTransitionTime", Time),
        full(5, "reason", Text),
        full(6, "message", Text),
        full(7, "observedGeneration", Int64),
    ],
};

pub(super) static HOST_IP: Message = Message { name: "HostIP", fields: &[said(1, "ip", Text)] };

pub(super) static POD_IP: Message = Message { name: "PodIP", fields: &[said(1, "ip", Text)] };

pub(super) static CONTAINER_STATE_WAITING: Message =
    Message { name: "ContainerStateWaiting", fields: &[full(1, "reason", Text), full(2, "message", Text)] };

pub(super) static CONTAINER_STATE_RUNNING: Message =
    Message { name: "ContainerStateRunning", fields: &[said(1, "startedAt", Time)] };

pub(super) static CONTAINER_STATE_TERMINATED: Message = Message {
    name: "ContainerStateTerminated",
    fields: &[
        said(1, "exitCode", Int32),
        full(2, "signal", Int32),
        full(3, "reason", Text),
        full(4, "message", Text),
        said(5, "startedAt", Time),
        said(6, "finishedAt", Time),
        full(7, "containerID", Text),
    ],
};

pub(super) static CONTAINER_STATE: Message = Message {
    name: "ContainerState",
    fields: &[
        said(1, "waiting", Of(&CONTAINER_STATE_WAITING)),
        said(2, "running", Of(&CONTAINER_STATE_RUNNING)),
        said(3, "terminated", Of(&CONTAINER_STATE_TERMINATED)),
    ],
};

pub(super) static IMAGE_VOLUME_STATUS: Message =
    Message { name: "ImageVolumeStatus", fields: &[full(1, "imageRef", Text)] };

pub(super) static VOLUME_STATUS: Message =
    Message { name: "VolumeStatus", fields: &[said(1, "image", Of(&IMAGE_VOLUME_STATUS))] };

pub(super) static VOLUME_MOUNT_STATUS: Message = Message {
    name: "VolumeMountStatus",
    fields: &[
        said(1, "name", Text),
        said(2, "mountPath", Text),
        full(3, "readOnly", Bool),
        said(4, "recursiveReadOnly", Text),
        said(5, "volumeStatus", Of(&VOLUME_STATUS)),
    ],
};

pub(super) static LINUX_CONTAINER_USER: Message = Message {
    name: "LinuxContainerUser",
    fields: &[said(1, "uid", Int64), said(2, "gid", Int64), list(3, "supplementalGroups", Int64)],
};

pub(super) static CONTAINER_USER: Message =
    Message { name: "ContainerUser", fields: &[said(1, "linux", Of(&LINUX_CONTAINER_USER))] };

pub(super) static RESOURCE_HEALTH: Message = Message {
    name: "ResourceHealth",
    fields: &[said(1, "resourceID", Text), full(2, "health", Text), said(6, "message", Text)],
};

pub(super) static RESOURCE_STATUS: Message = Message {
    name: "ResourceStatus",
    fields: &[said(1, "name", Text), list(2, "resources", Of(&RESOURCE_HEALTH))],
};

pub(super) static CONTAINER_STATUS: Message = Message {
    name: "ContainerStatus",
    fields: &[
        said(1, "name", Text),
        said(2, "state", Of(&CONTAINER_STATE)),
        said(3, "lastState", Of(&CONTAINER_STATE)),
        said(4, "ready", Bool),
        said(5, "restartCount", Int32),
        said(6, "image", Text),
        said(7, "imageID", Text),
        full(8, "containerID", Text),
        said(9, "started", Bool),
        map(10, "allocatedResources", Quantity),
        said(11, "resources", Of(&RESOURCE_REQUIREMENTS)),
        list(12, "volumeMounts", Of(&VOLUME_MOUNT_STATUS)),
        said(13, "user", Of(&CONTAINER_USER)),
        list(14, "allocatedResourcesStatus", Of(&RESOURCE_STATUS)),
        said(15, "stopSignal", Text),
    ],
};

pub(super) static POD_RESOURCE_CLAIM_STATUS: Message = Message {
    name: "PodResourceClaimStatus",
    fields: &[said(1, "name", Text), said(2, "resourceClaimName", Text)],
};

pub(super) static CONTAINER_EXTENDED_RESOURCE_REQUEST: Message = Message {
    name: "ContainerExtendedResourceRequest",
    fields: &[said(1, "containerName", Text), said(2, "resourceName", Text), said(3, "requestName", Text)],
};

pub(super) static POD_EXTENDED_RESOURCE_CLAIM_STATUS: Message = Message {
    name: "PodExtendedResourceClaimStatus",
    fields: &[
        list(1, "requestMappings", Of(&CONTAINER_EXTENDED_RESOURCE_REQUEST)),
        said(2, "resourceClaimName", Text),
    ],
};

pub(super) static NODE_ALLOCATABLE_RESOURCE_CLAIM_STATUS: Message = Message {
    name: "NodeAllocatableResourceClaimStatus",
    fields: &[said(1, "resourceClaimName", Text), list(2, "containers", Text), map(3, "resources", Quantity)],
};

pub(super) static POD_STATUS: Message = Message {
    name: "PodStatus",
    fields: &[
        full(1, "phase", Text),
        list(2, "conditions", Of(&POD_CONDITION)),
        full(3, "message", Text),
        full(4, "reason", Text),
        full(5, "hostIP", Text),
        full(6, "podIP", Text),
        said(7, "startTime", Time),
        list(8, "containerStatuses", Of(&CONTAINER_STATUS)),
        full(9, "qosClass", Text),
        list(10, "initContainerStatuses", Of(&CONTAINER_STATUS)),
        full(11, "nominatedNodeName", Text),
        list(12, "podIPs", Of(&POD_IP)),
        list(13, "ephemeralContainerStatuses", Of(&CONTAINER_STATUS)),
        full(14, "resize", Text),
        list(15, "resourceClaimStatuses", Of(&POD_RESOURCE_CLAIM_STATUS)),
        list(16, "hostIPs", Of(&HOST_IP)),
        full(17, "observedGeneration", Int64),
        said(18, "extendedResourceClaimStatus", Of(&POD_EXTENDED_RESOURCE_CLAIM_STATUS)),
        map(19, "allocatedResources", Quantity),
        said(20, "resources", Of(&RESOURCE_REQUIREMENTS)),
        list(21, "nodeAllocatableResourceClaimStatuses", Of(&NODE_ALLOCATABLE_RESOURCE_CLAIM_STATUS)),
    ],
};

pub(super) static POD: Message = Message {
    name: "Pod",
    fields: &[
        said(1, "metadata", Of(&OBJECT_META)),
        said(2, "spec", Of(&POD_SPEC)),
        said(3, "status", Of(&POD_STATUS)),
    ],
};

pub(super) static POD_TEMPLATE_SPEC: Message = Message {
    name: "PodTemplateSpec",
    fields: &[said(1, "metadata", Of(&OBJECT_META)), said(2, "spec", Of(&POD_SPEC))],
};
