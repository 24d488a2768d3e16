//! Containers and what they run with: `core/v1`.

use super::schema::Type::{Bool, Int32, Int64, IntOrString, Message as Of, Quantity, Text};
use super::schema::{Message, full, inline, list, map, said};
use super::schema_volume::{LOCAL_OBJECT_REFERENCE, OBJECT_FIELD_SELECTOR, RESOURCE_FIELD_SELECTOR};

pub(super) static CONTAINER_PORT: Message = Message {
    name: "ContainerPort",
    fields: &[
        full(1, "name", Text),
        full(2, "hostPort", Int32),
        said(3, "containerPort", Int32),
        full(4, "protocol", Text),
        full(5, "hostIP", Text),
    ],
};

pub(super) static CONFIG_MAP_ENV_SOURCE: Message = Message {
    name: "ConfigMapEnvSource",
    fields: &[inline(1, &LOCAL_OBJECT_REFERENCE), said(2, "optional", Bool)],
};

pub(super) static SECRET_ENV_SOURCE: Message = Message {
    name: "SecretEnvSource",
    fields: &[inline(1, &LOCAL_OBJECT_REFERENCE), said(2, "optional", Bool)],
};

pub(super) static ENV_FROM_SOURCE: Message = Message {
    name: "EnvFromSource",
    fields: &[
        full(1, "prefix", Text),
        said(2, "configMapRef", Of(&CONFIG_MAP_ENV_SOURCE)),
        said(3, "secretRef", Of(&SECRET_ENV_SOURCE)),
    ],
};

pub(super) static CONFIG_MAP_KEY_SELECTOR: Message = Message {
    name: "ConfigMapKeySelector",
    fields: &[inline(1, &LOCAL_OBJECT_REFERENCE), said(2, "key", Text), said(3, "optional", Bool)],
};

pub(super) static SECRET_KEY_SELECTOR: Message = Message {
    name: "SecretKeySelector",
    fields: &[inline(1, &LOCAL_OBJECT_REFERENCE), said(2, "key", Text), said(3, "optional", Bool)],
};

pub(super) static FILE_KEY_SELECTOR: Message = Message {
    name: "FileKeySelector",
    fields: &[
        said(1, "volumeName", Text),
        said(2, "path", Text),
        said(3, "key", Text),
        said(4, "optional", Bool),
    ],
};

pub(super) static ENV_VAR_SOURCE: Message = Message {
    name: "EnvVarSource",
    fields: &[
        said(1, "fieldRef", Of(&OBJECT_FIELD_SELECTOR)),
        said(2, "resourceFieldRef", Of(&RESOURCE_FIELD_SELECTOR)),
        said(3, "configMapKeyRef", Of(&CONFIG_MAP_KEY_SELECTOR)),
        said(4, "secretKeyRef", Of(&SECRET_KEY_SELECTOR)),
        said(5, "fileKeyRef", Of(&FILE_KEY_SELECTOR)),
    ],
};

pub(super) static ENV_VAR: Message = Message {
    name: "EnvVar",
    fields: &[said(1, "name", Text), full(2, "value", Text), said(3, "valueFrom", Of(&ENV_VAR_SOURCE))],
};

pub(super) static RESOURCE_CLAIM: Message =
    Message { name: "ResourceClaim", fields: &[said(1, "name", Text), full(2, "request", Text)] };

pub(super) static RESOURCE_REQUIREMENTS: Message = Message {
    name: "ResourceRequirements",
    fields: &[
        map(1, "limits", Quantity),
        map(2, "requests", Quantity),
        list(3, "claims", Of(&RESOURCE_CLAIM)),
    ],
};

pub(super) static CONTAINER_RESIZE_POLICY: Message = Message {
    name: "ContainerResizePolicy",
    fields: &[said(1, "resourceName", Text), said(2, "restartPolicy", Text)],
};

pub(super) static CONTAINER_RESTART_RULE_ON_EXIT_CODES: Message = Message {
    name: "ContainerRestartRuleOnExitCodes",
    fields: &[full(1, "operator", Text), list(2, "values", Int32)],
};

pub(super) static CONTAINER_RESTART_RULE: Message = Message {
    name: "ContainerRestartRule",
    fields: &[full(1, "action", Text), said(2, "exitCodes", Of(&CONTAINER_RESTART_RULE_ON_EXIT_CODES))],
};

pub(super) static VOLUME_MOUNT: Message = Message {
    name: "VolumeMount",
    fields: &[
        said(1, "name", Text),
        full(2, "readOnly", Bool),
        said(3, "mountPath", Text),
        full(4, "subPath", Text),
        said(5, "mountPropagation", Text),
        full(6, "subPathExpr", Text),
        said(7, "recursiveReadOnly", Text),
    ],
};

pub(super) static VOLUME_DEVICE: Message =
    Message { name: "VolumeDevice", fields: &[said(1, "name", Text), said(2, "devicePath", Text)] };

pub(super) static EXEC_ACTION: Message = Message { name: "ExecAction", fields: &[list(1, "command", Text)] };

pub(super) static HTTP_HEADER: Message =
    Message { name: "HTTPHeader", fields: &[said(1, "name", Text), said(2, "value", Text)] };

pub(super) static HTTP_GET_ACTION: Message = Message {
    name: "HTTPGetAction",
    fields: &[
        full(1, "path", Text),
        said(2, "port", IntOrString),
        full(3, "host", Text),
        full(4, "scheme", Text),
        list(5, "httpHeaders", Of(&HTTP_HEADER)),
    ],
};

pub(super) static TCP_SOCKET_ACTION: Message =
    Message { name: "TCPSocketAction", fields: &[said(1, "port", IntOrString), full(2, "host", Text)] };

pub(super) static GRPC_ACTION: Message =
    Message { name: "GRPCAction", fields: &[said(1, "port", Int32), said(2, "service", Text)] };

pub(super) static PROBE_HANDLER: Message = Message {
    name: "ProbeHandler",
    fields: &[
        said(1, "exec", Of(&EXEC_ACTION)),
        said(2, "httpGet", Of(&HTTP_GET_ACTION)),
        said(3, "tcpSocket", Of(&TCP_SOCKET_ACTION)),
        said(4, "grpc", Of(&GRPC_ACTION)),
    ],
};

pub(super) static PROBE: Message = Message {
    name: "Probe",
    fields: &[
        inline(1, &PROBE_HANDLER),
        full(2, "initialDelaySeconds", Int32),
        full(3, "timeoutSeconds", Int32),
        full(4, "periodSeconds", Int32),
        full(5, "successThreshold", Int32),
        full(6, "failureThreshold", Int32),
        said(7, "terminationGracePeriodSeconds", Int64),
    ],
};

pub(super) static SLEEP_ACTION: Message =
    Message { name: "SleepAction", fields: &[said(1, "seconds", Int64)] };

pub(super) static LIFECYCLE_HANDLER: Message = Message {
    name: "LifecycleHandler",
    fields: &[
        said(1, "exec", Of(&EXEC_ACTION)),
        said(2, "httpGet", Of(&HTTP_GET_ACTION)),
        said(3, "tcpSocket", Of(&TCP_SOCKET_ACTION)),
        said(4, "sleep", Of(&SLEEP_ACTION)),
    ],
};

pub(super) static LIFECYCLE: Message = Message {
    name: "Lifecycle",
    fields: &[
        said(1, "postStart", Of(&LIFECYCLE_HANDLER)),
        said(2, "preStop", Of(&LIFECYCLE_HANDLER)),
        said(3, "stopSignal", Text),
    ],
};

pub(super) static CAPABILITIES: Message =
    Message { name: "Capabilities", fields: &[list(1, "add", Text), list(2, "drop", Text)] };

pub(super) static SE_LINUX_OPTIONS: Message = Message {
    name: "SELinuxOptions",
    fields: &[full(1, "user", Text), full(2, "role", Text), full(3, "type", Text), full(4, "level", Text)],
};

pub(super) static WINDOWS_SECURITY_CONTEXT_OPTIONS: Message = Message {
    name: "WindowsSecurityContextOptions",
    fields: &[
        said(1, "gmsaCredentialSpecName", Text),
        said(2, "gmsaCredentialSpec", Text),
        said(3, "runAsUserName", Text),
        said(4, "hostProcess", Bool),
    ],
};

pub(super) static SECCOMP_PROFILE: Message =
    Message { name: "SeccompProfile", fields: &[said(1, "type", Text), said(2, "localhostProfile", Text)] };

pub(super) static APP_ARMOR_PROFILE: Message =
    Message { name: "AppArmorProfile", fields: &[said(1, "type", Text), said(2, "localhostProfile", Text)] };

pub(super) static SECURITY_CONTEXT: Message = Message {
    name: "SecurityContext",
    fields: &[
        said(1, "capabilities", Of(&CAPABILITIES)),
        said(2, "privileged", Bool),
        said(3, "seLinuxOptions", Of(&SE_LINUX_OPTIONS)),
        said(4, "runAsUser", Int64),
        said(5, "runAsNonRoot", Bool),
        said(6, "readOnlyRootFilesystem", Bool),
        said(7, "allowPrivilegeEscalation", Bool),
        said(8, "runAsGroup", Int64),
        said(9, "procMount", Text),
        said(10, "windowsOptions", Of(&WINDOWS_SECURITY_CONTEXT_OPTIONS)),
        said(11, "seccompProfile", Of(&SECCOMP_PROFILE)),
        said(12, "appArmorProfile", Of(&APP_ARMOR_PROFILE)),
    ],
};

pub(super) static CONTAINER: Message = Message {
    name: "Container",
    fields: &[
        said(1, "name", Text),
        full(2, "image", Text),
        list(3, "command", Text),
        list(4, "args", Text),
        full(5, "workingDir", Text),
        list(6, "ports", Of(&CONTAINER_PORT)),
        list(7, "env", Of(&ENV_VAR)),
        said(8, "resources", Of(&RESOURCE_REQUIREMENTS)),
        list(9, "volumeMounts", Of(&VOLUME_MOUNT)),
        said(10, "livenessProbe", Of(&PROBE)),
        said(11, "readinessProbe", Of(&PROBE)),
        said(12, "lifecycle", Of(&LIFECYCLE)),
        full(13, "terminationMessagePath", Text),
        full(14, "imagePullPolicy", Text),
        said(15, "securityContext", Of(&SECURITY_CONTEXT)),
        full(16, "stdin", Bool),
        full(17, "stdinOnce", Bool),
        full(18, "tty", Bool),
        list(19, "envFrom", Of(&ENV_FROM_SOURCE)),
        full(20, "terminationMessagePolicy", Text),
        list(21, "volumeDevices", Of(&VOLUME_DEVICE)),
        said(22, "startupProbe", Of(&PROBE)),
        list(23, "resizePolicy", Of(&CONTAINER_RESIZE_POLICY)),
        said(24, "restartPolicy", Text),
        list(25, "restartPolicyRules", Of(&CONTAINER_RESTART_RULE)),
    ],
};

pub(super) static EPHEMERAL_CONTAINER_COMMON: Message = Message {
    name: "EphemeralContainerCommon",
    fields: &[
        said(1, "name", Text),
        full(2, "image", Text),
        list(3, "command", Text),
        list(4, "args", Text),
        full(5, "workingDir", Text),
        list(6, "ports", Of(&CONTAINER_PORT)),
        list(7, "env", Of(&ENV_VAR)),
        said(8, "resources", Of(&RESOURCE_REQUIREMENTS)),
        list(9, "volumeMounts", Of(&VOLUME_MOUNT)),
        said(10, "livenessProbe", Of(&PROBE)),
        said(11, "readinessProbe", Of(&PROBE)),
        said(12, "lifecycle", Of(&LIFECYCLE)),
        full(13, "terminationMessagePath", Text),
        full(14, "imagePullPolicy", Text),
        said(15, "securityContext", Of(&SECURITY_CONTEXT)),
        full(16, "stdin", Bool),
        full(17, "stdinOnce", Bool),
        full(18, "tty", Bool),
        list(19, "envFrom", Of(&ENV_FROM_SOURCE)),
        full(20, "terminationMessagePolicy", Text),
        list(21, "volumeDevices", Of(&VOLUME_DEVICE)),
        said(22, "startupProbe", Of(&PROBE)),
        list(23, "resizePolicy", Of(&CONTAINER_RESIZE_POLICY)),
        said(24, "restartPolicy", Text),
        list(25, "restartPolicyRules", Of(&CONTAINER_RESTART_RULE)),
    ],
};

pub(super) static EPHEMERAL_CONTAINER: Message = Message {
    name: "EphemeralContainer",
    fields: &[inline(1, &EPHEMERAL_CONTAINER_COMMON), full(2, "targetContainerName", Text)],
};
