//! What becomes of each field of a PodSpec. A test compares it with the published one.

pub(super) enum Rule {
    /// Taken over as it is, with everything below.
    Honoured,
    /// Has a meaning only where it changes nothing here.
    NoMatter,
    /// Honoured by the rules below; every element of a list by itself.
    Inside(&'static [(&'static str, Rule)]),
    /// Honoured only with one of these values (as text); else refused.
    Only(&'static [&'static str]),
    /// Must not run with it.
    Refused,
}
use Rule::{Honoured, Inside, NoMatter, Only, Refused};

const KEY_REF: Rule = Honoured;

const SECURITY_OF_CONTAINER: &[(&str, Rule)] = &[
    ("runAsUser", Honoured),
    ("runAsGroup", Honoured),
    ("runAsNonRoot", Honoured),
    ("privileged", Honoured),
    ("capabilities", Honoured),
    ("readOnlyRootFilesystem", Honoured),
    ("allowPrivilegeEscalation", Honoured),
    ("seccompProfile", Honoured),
    // Without a word where the host has no SELinux, as with a kubelet.
    ("seLinuxOptions", Honoured),
    // Admission turns a pod away that the host cannot confine.
    ("appArmorProfile", Honoured),
    // Unmasked with hostUsers false alone, which is looked at when a container is made.
    ("procMount", Only(&["Default", "Unmasked"])),
    ("windowsOptions", NoMatter),
];

const ENV: &[(&str, Rule)] = &[
    ("name", Honoured),
    ("value", Honoured),
    (
        "valueFrom",
        Inside(&[
            ("configMapKeyRef", KEY_REF),
            ("secretKeyRef", KEY_REF),
            ("fieldRef", KEY_REF),
            ("resourceFieldRef", KEY_REF),
            ("fileKeyRef", KEY_REF),
        ]),
    ),
];

const VOLUME_MOUNT: &[(&str, Rule)] = &[
    ("name", Honoured),
    ("mountPath", Honoured),
    ("readOnly", Honoured),
    ("subPath", Honoured),
    ("subPathExpr", Honoured),
    ("mountPropagation", Honoured),
    ("recursiveReadOnly", Honoured),
];

const VOLUME_DEVICE: &[(&str, Rule)] = &[("name", Honoured), ("devicePath", Honoured)];

/// What the API lets an ephemeral container have.
const EPHEMERAL: &[(&str, Rule)] = &[
    ("name", Honoured),
    ("image", Honoured),
    ("imagePullPolicy", Honoured),
    ("command", Honoured),
    ("args", Honoured),
    ("workingDir", Honoured),
    ("env", Inside(ENV)),
    ("envFrom", Honoured),
    ("volumeMounts", Inside(VOLUME_MOUNT)),
    ("volumeDevices", Inside(VOLUME_DEVICE)),
    ("terminationMessagePath", Honoured),
    ("terminationMessagePolicy", Honoured),
    ("securityContext", Inside(SECURITY_OF_CONTAINER)),
    ("stdin", Honoured),
    ("stdinOnce", Honoured),
    ("tty", Honoured),
    ("targetContainerName", Honoured),
    // What the API forbids in one.
    ("ports", Refused),
    ("resources", Refused),
    ("resizePolicy", Refused),
    ("restartPolicy", Refused),
    ("restartPolicyRules", Refused),
    ("livenessProbe", Refused),
    ("readinessProbe", Refused),
    ("startupProbe", Refused),
    ("lifecycle", Refused),
];

const PROBE: &[(&str, Rule)] = &[
    ("exec", Honoured),
    ("httpGet", Honoured),
    ("tcpSocket", Honoured),
    ("grpc", Honoured),
    ("initialDelaySeconds", Honoured),
    ("timeoutSeconds", Honoured),
    ("periodSeconds", Honoured),
    ("successThreshold", Honoured),
    ("failureThreshold", Honoured),
    ("terminationGracePeriodSeconds", Honoured),
];

const CONTAINER: &[(&str, Rule)] = &[
    ("name", Honoured),
    ("image", Honoured),
    ("imagePullPolicy", Honoured),
    ("command", Honoured),
    ("args", Honoured),
    ("workingDir", Honoured),
    ("env", Inside(ENV)),
    ("envFrom", Honoured),
    ("ports", Honoured),
    // Claims: as `resourceClaims`, by which they are said.
    ("resources", Inside(&[("limits", Honoured), ("requests", Honoured), ("claims", Honoured)])),
    ("resizePolicy", Honoured),
    ("restartPolicy", Only(&["Always", "OnFailure", "Never"])),
    (
        "restartPolicyRules",
        Inside(&[
            ("action", Only(&["Restart", "RestartAllContainers"])),
            ("exitCodes", Inside(&[("operator", Only(&["In", "NotIn"])), ("values", Honoured)])),
        ]),
    ),
    ("volumeMounts", Inside(VOLUME_MOUNT)),
    ("volumeDevices", Inside(VOLUME_DEVICE)),
    ("livenessProbe", Inside(PROBE)),
    ("readinessProbe", Inside(PROBE)),
    ("startupProbe", Inside(PROBE)),
    // As with a kubelet a runtime may not know signals (containerd before 2.1): an event says so.
    ("lifecycle", Inside(&[("postStart", Honoured), ("preStop", Honoured), ("stopSignal", Honoured)])),
    ("terminationMessagePath", Honoured),
    ("terminationMessagePolicy", Honoured),
    ("securityContext", Inside(SECURITY_OF_CONTAINER)),
    ("stdin", Honoured),
    ("stdinOnce", Honoured),
    ("tty", Honoured),
];

const VOLUME: &[(&str, Rule)] = &[
    ("name", Honoured),
    ("emptyDir", Honoured),
    ("hostPath", Honoured),
    ("configMap", Honoured),
    ("secret", Honoured),
    ("downwardAPI", Honoured),
    (
        "projected",
        Inside(&[
            ("defaultMode", Honoured),
            (
                "sources",
                Inside(&[
                    ("configMap", Honoured),
                    ("secret", Honoured),
                    ("downwardAPI", Honoured),
                    ("serviceAccountToken", Honoured),
                    // Off in Kubernetes by default: an API server drops them.
                    ("clusterTrustBundle", Refused),
                    ("podCertificate", Refused),
                ]),
            ),
        ]),
    ),
    // What stands behind a claim is looked at when it is mounted.
    ("persistentVolumeClaim", Honoured),
    // The claim is made from it in the cluster.
    ("ephemeral", Honoured),
    ("csi", Honoured),
    // By the runtime, which is asked whether it can.
    ("image", Honoured),
    ("nfs", Honoured),
    ("iscsi", Refused),
    ("fc", Refused),
    ("flexVolume", Refused),
    // What Kubernetes has given up.
    ("awsElasticBlockStore", Refused),
    ("azureDisk", Refused),
    ("azureFile", Refused),
    ("cephfs", Refused),
    ("cinder", Refused),
    ("flocker", Refused),
    ("gcePersistentDisk", Refused),
    ("gitRepo", Refused),
    ("glusterfs", Refused),
    ("photonPersistentDisk", Refused),
    ("portworxVolume", Refused),
    ("quobyte", Refused),
    ("rbd", Refused),
    ("scaleIO", Refused),
    ("storageos", Refused),
    ("vsphereVolume", Refused),
];

pub(super) const POD: &[(&str, Rule)] = &[
    ("containers", Inside(CONTAINER)),
    ("initContainers", Inside(CONTAINER)),
    ("ephemeralContainers", Inside(EPHEMERAL)),
    ("volumes", Inside(VOLUME)),
    ("restartPolicy", Only(&["Always", "OnFailure", "Never"])),
    ("terminationGracePeriodSeconds", Honoured),
    ("activeDeadlineSeconds", Honoured),
    ("dnsPolicy", Honoured),
    ("dnsConfig", Honoured),
    ("nodeSelector", Honoured),
    ("nodeName", Honoured),
    ("hostname", Honoured),
    ("subdomain", Honoured),
    ("setHostnameAsFQDN", Honoured),
    ("hostnameOverride", Honoured),
    ("hostAliases", Honoured),
    ("hostNetwork", Honoured),
    ("hostPID", Honoured),
    ("hostIPC", Honoured),
    // false: as far as the runtime can, which is asked when the sandbox is made.
    ("hostUsers", Honoured),
    ("shareProcessNamespace", Honoured),
    ("imagePullSecrets", Honoured),
    ("enableServiceLinks", Honoured),
    ("serviceAccount", NoMatter),
    ("serviceAccountName", Honoured),
    ("automountServiceAccountToken", NoMatter),
    (
        "securityContext",
        Inside(&[
            ("runAsUser", Honoured),
            ("runAsGroup", Honoured),
            ("runAsNonRoot", Honoured),
            ("fsGroup", Honoured),
            ("fsGroupChangePolicy", Honoured),
            ("supplementalGroups", Honoured),
            // Strict: by admission, and again when a container is made.
            ("supplementalGroupsPolicy", Honoured),
            ("sysctls", Honoured),
            ("seccompProfile", Honoured),
            ("seLinuxOptions", Honoured),
            ("seLinuxChangePolicy", NoMatter),
            ("appArmorProfile", Honoured),
            ("windowsOptions", NoMatter),
        ]),
    ),
    // By admission.
    ("affinity", Honoured),
    ("tolerations", Honoured),
    // What only the scheduler and the controllers look at.
    ("schedulerName", NoMatter),
    ("schedulingGroup", NoMatter),
    ("topologySpreadConstraints", NoMatter),
    ("priority", NoMatter),
    ("priorityClassName", NoMatter),
    ("preemptionPolicy", NoMatter),
    ("schedulingGates", NoMatter),
    // The kubelet tells the pod's readiness by these, and so does the status here.
    ("readinessGates", Honoured),
    ("os", Honoured),
    ("overhead", Honoured),
    ("runtimeClassName", Honoured),
    // A pod that has some waits for the driver, as with a kubelet that has none.
    ("resourceClaims", Honoured),
    ("resources", Inside(&[("limits", Honoured), ("requests", Honoured), ("claims", Refused)])),
];

#[cfg(test)]
#[path = "field_table_tests.rs"]
mod tests;
