//! The kinds that KubeHive knows by name. Each stands once in the list below; [`resource`] has their GroupResources, by
//! which an [`ObjectKey`](crate::ObjectKey) names them.

use std::borrow::Cow;

/// A kind of objects: its GroupVersionKind, and how its resource is called in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version within the group.
    pub version: Cow<'static, str>,
    /// The kind.
    pub kind: Cow<'static, str>,
    /// The plural, in small letters.
    pub plural: Cow<'static, str>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// `v1`, `apps/v1`: what stands in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: what stands in [`ObjectKey::resource`](crate::ObjectKey::resource).
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Where its objects are in the API: the path of one namespace's collection, or of all objects.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{}/namespaces/{namespace}/{}", self.version, self.plural),
            None => format!("{root}/{}/{}", self.version, self.plural),
        }
    }
}

macro_rules! kinds {
    ($($name:ident: $group:literal $version:literal $kind:literal $plural:literal $resource:literal $namespaced:literal;)*) => {
        $(
            #[doc = concat!("`", $kind, "` of ", $group, "/", $version, ".")]
            pub const $name: Kind = Kind {
                group: Cow::Borrowed($group),
                version: Cow::Borrowed($version),
                kind: Cow::Borrowed($kind),
                plural: Cow::Borrowed($plural),
                namespaced: $namespaced,
            };
        )*

        /// The GroupResource of each kind.
        pub mod resource {
            $(
                #[doc = concat!("`", $resource, "`")]
                pub const $name: &str = $resource;
            )*
        }

        #[cfg(test)]
        const ALL: &[(&Kind, &str)] = &[$((&$name, resource::$name)),*];
    };
}

kinds! {
    CONFIG_MAPS: "" "v1" "ConfigMap" "configmaps" "configmaps" true;
    ENDPOINTS: "" "v1" "Endpoints" "endpoints" "endpoints" true;
    EVENTS: "" "v1" "Event" "events" "events" true;
    NAMESPACES: "" "v1" "Namespace" "namespaces" "namespaces" false;
    NODES: "" "v1" "Node" "nodes" "nodes" false;
    PERSISTENT_VOLUME_CLAIMS: "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims" "persistentvolumeclaims" true;
    PERSISTENT_VOLUMES: "" "v1" "PersistentVolume" "persistentvolumes" "persistentvolumes" false;
    PODS: "" "v1" "Pod" "pods" "pods" true;
    SECRETS: "" "v1" "Secret" "secrets" "secrets" true;
    SERVICES: "" "v1" "Service" "services" "services" true;
    SERVICE_ACCOUNTS: "" "v1" "ServiceAccount" "serviceaccounts" "serviceaccounts" true;
    DEPLOYMENTS: "apps" "v1" "Deployment" "deployments" "deployments.apps" true;
    REPLICA_SETS: "apps" "v1" "ReplicaSet" "replicasets" "replicasets.apps" true;
    CUSTOM_RESOURCE_DEFINITIONS: "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions" "customresourcedefinitions.apiextensions.k8s.io" false;
    LEASES: "coordination.k8s.io" "v1" "Lease" "leases" "leases.coordination.k8s.io" true;
    ENDPOINT_SLICES: "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices" "endpointslices.discovery.k8s.io" true;
    RUNTIME_CLASSES: "node.k8s.io" "v1" "RuntimeClass" "runtimeclasses" "runtimeclasses.node.k8s.io" false;
    CLUSTER_ROLES: "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles" "clusterroles.rbac.authorization.k8s.io" false;
    CLUSTER_ROLE_BINDINGS: "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings" "clusterrolebindings.rbac.authorization.k8s.io" false;
    ROLES: "rbac.authorization.k8s.io" "v1" "Role" "roles" "roles.rbac.authorization.k8s.io" true;
    ROLE_BINDINGS: "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings" "rolebindings.rbac.authorization.k8s.io" true;
    CSI_DRIVERS: "storage.k8s.io" "v1" "CSIDriver" "csidrivers" "csidrivers.storage.k8s.io" false;
    CSI_NODES: "storage.k8s.io" "v1" "CSINode" "csinodes" "csinodes.storage.k8s.io" false;
    VOLUME_ATTACHMENTS: "storage.k8s.io" "v1" "VolumeAttachment" "volumeattachments" "volumeattachments.storage.k8s.io" false;
    DEVICES: "devices.kubeedge.io" "v1beta1" "Device" "devices" "devices.devices.kubeedge.io" true;
    DEVICE_MODELS: "devices.kubeedge.io" "v1beta1" "DeviceModel" "devicemodels" "devicemodels.devices.kubeedge.io" true;
    DEVICE_STATUSES: "devices.kubeedge.io" "v1beta1" "DeviceStatus" "devicestatuses" "devicestatuses.devices.kubeedge.io" true;
    RULES: "rules.kubeedge.io" "v1" "Rule" "rules" "rules.rules.kubeedge.io" true;
    RULE_ENDPOINTS: "rules.kubeedge.io" "v1" "RuleEndpoint" "ruleendpoints" "ruleendpoints.rules.kubeedge.io" true;
    NODE_UPGRADE_JOBS: "operations.kubeedge.io" "v1alpha2" "NodeUpgradeJob" "nodeupgradejobs" "nodeupgradejobs.operations.kubeedge.io" false;
    IMAGE_PRE_PULL_JOBS: "operations.kubeedge.io" "v1alpha2" "ImagePrePullJob" "imageprepulljobs" "imageprepulljobs.operations.kubeedge.io" false;
    CONFIG_UPDATE_JOBS: "operations.kubeedge.io" "v1alpha2" "ConfigUpdateJob" "configupdatejobs" "configupdatejobs.operations.kubeedge.io" false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_its_kinds_group_resource() {
        for (kind, resource) in ALL {
            assert_eq!(kind.group_resource(), *resource, "{}", kind.kind);
        }
    }

    #[test]
    fn collections_are_where_the_api_server_has_them() {
        assert_eq!(PODS.collection(Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(PODS.collection(None), "/api/v1/pods");
        assert_eq!(NODES.collection(Some("shop")), "/api/v1/nodes");
        assert_eq!(DEPLOYMENTS.collection(Some("d")), "/apis/apps/v1/namespaces/d/deployments");
        assert_eq!(LEASES.api_version(), "coordination.k8s.io/v1");
    }
}
