//! Volumes of pods: `core/v1`.

use super::schema::Type::{Bool, Int32, Int64, Message as Of, Quantity, Text};
use super::schema::{Message, full, inline, list, map, said};
use super::schema_meta::{LABEL_SELECTOR, OBJECT_META};

pub(super) static HOST_PATH_VOLUME_SOURCE: Message =
    Message { name: "HostPathVolumeSource", fields: &[said(1, "path", Text), said(2, "type", Text)] };

pub(super) static EMPTY_DIR_VOLUME_SOURCE: Message = Message {
    name: "EmptyDirVolumeSource",
    fields: &[full(1, "medium", Text), said(2, "sizeLimit", Quantity)],
};

pub(super) static GCE_PERSISTENT_DISK_VOLUME_SOURCE: Message = Message {
    name: "GCEPersistentDiskVolumeSource",
    fields: &[
        said(1, "pdName", Text),
        full(2, "fsType", Text),
        full(3, "partition", Int32),
        full(4, "readOnly", Bool),
    ],
};

pub(super) static AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE: Message = Message {
    name: "AWSElasticBlockStoreVolumeSource",
    fields: &[
        said(1, "volumeID", Text),
        full(2, "fsType", Text),
        full(3, "partition", Int32),
        full(4, "readOnly", Bool),
    ],
};

pub(super) static GIT_REPO_VOLUME_SOURCE: Message = Message {
    name: "GitRepoVolumeSource",
    fields: &[said(1, "repository", Text), full(2, "revision", Text), full(3, "directory", Text)],
};

pub(super) static KEY_TO_PATH: Message = Message {
    name: "KeyToPath",
    fields: &[said(1, "key", Text), said(2, "path", Text), said(3, "mode", Int32)],
};

pub(super) static SECRET_VOLUME_SOURCE: Message = Message {
    name: "SecretVolumeSource",
    fields: &[
        full(1, "secretName", Text),
        list(2, "items", Of(&KEY_TO_PATH)),
        said(3, "defaultMode", Int32),
        said(4, "optional", Bool),
    ],
};

pub(super) static NFS_VOLUME_SOURCE: Message = Message {
    name: "NFSVolumeSource",
    fields: &[said(1, "server", Text), said(2, "path", Text), full(3, "readOnly", Bool)],
};

pub(super) static LOCAL_OBJECT_REFERENCE: Message =
    Message { name: "LocalObjectReference", fields: &[full(1, "name", Text)] };

pub(super) static ISCSI_VOLUME_SOURCE: Message = Message {
    name: "ISCSIVolumeSource",
    fields: &[
        said(1, "targetPortal", Text),
        said(2, "iqn", Text),
        said(3, "lun", Int32),
        full(4, "iscsiInterface", Text),
        full(5, "fsType", Text),
        full(6, "readOnly", Bool),
        list(7, "portals", Text),
        full(8, "chapAuthDiscovery", Bool),
        said(10, "secretRef", Of(&LOCAL_OBJECT_REFERENCE)),
        full(11, "chapAuthSession", Bool),
        said(12, "initiatorName", Text),
    ],
};

pub(super) static GLUSTERFS_VOLUME_SOURCE: Message = Message {
    name: "GlusterfsVolumeSource",
    fields: &[said(1, "endpoints", Text), said(2, "path", Text), full(3, "readOnly", Bool)],
};

pub(super) static PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE: Message = Message {
    name: "PersistentVolumeClaimVolumeSource",
    fields: &[said(1, "claimName", Text), full(2, "readOnly", Bool)],
};

pub(super) static RBD_VOLUME_SOURCE: Message = Message {
    name: "RBDVolumeSource",
    fields: &[
        list(1, "monitors", Text),
        said(2, "image", Text),
        full(3, "fsType", Text),
        full(4, "pool", Text),
        full(5, "user", Text),
        full(6, "keyring", Text),
        said(7, "secretRef", Of(&LOCAL_OBJECT_REFERENCE)),
        full(8, "readOnly", Bool),
    ],
};

pub(super) static FLEX_VOLUME_SOURCE: Message = Message {
    name: "FlexVolumeSource",
    fields: &[
        said(1, "driver", Text),
        full(2, "fsType", Text),
        said(3, "secretRef", Of(&LOCAL_OBJECT_REFERENCE)),
        full(4, "readOnly", Bool),
        map(5, "options", Text),
    ],
};

pub(super) static CINDER_VOLUME_SOURCE: Message = Message {
    name: "CinderVolumeSource",
    fields: &[
        said(1, "volumeID", Text),
        full(2, "fsType", Text),
        full(3, "readOnly", Bool),
        said(4, "secretRef", Of(&LOCAL_OBJECT_REFERENCE)),
    ],
};

pub(super) static CEPH_FS_VOLUME_SOURCE: Message = Message {
    name: "CephFSVolumeSource",
    fields: &[
        list(1, "monitors", Text),
        full(2, "path", Text),
        full(3, "user", Text),
        full(4, "secretFile", Text),
        said(5, "secretRef", Of(&LOCAL_OBJECT_REFERENCE)),
        full(6, "readOnly", Bool),
    ],
};

pub(super) static FLOCKER_VOLUME_SOURCE: Message = Message {
    name: "FlockerVolumeSource",
    fields: &[full(1, "datasetName", Text), full(2, "datasetUUID", Text)],
};

pub(super) static OBJECT_FIELD_SELECTOR: Message = Message {
    name: "ObjectFieldSelector",
    fields: &[full(1, "apiVersion", Text), said(2, "fieldPath", Text)],
};

pub(super) static RESOURCE_FIELD_SELECTOR: Message = Message {
    name: "ResourceFieldSelector",
    fields: &[full(1, "containerName", Text), said(2, "resource", Text), said(3, "divisor", Quantity)],
};

pub(super) static DOWNWARD_API_VOLUME_FILE: Message = Message {
    name: "DownwardAPIVolumeFile",
    fields: &[
        said(1, "path", Text),
        said(2, "fieldRef", Of(&OBJECT_FIELD_SELECTOR)),
        said(3, "resourceFieldRef", Of(&RESOURCE_FIELD_SELECTOR)),
        said(4, "mode", Int32),
    ],
};

pub(super) static DOWNWARD_API_VOLUME_SOURCE: Message = Message {
    name: "DownwardAPIVolumeSource",
    fields: &[list(1, "items", Of(&DOWNWARD_API_VOLUME_FILE)), said(2, "defaultMode", Int32)],
};

pub(super) static FC_VOLUME_SOURCE: Message = Message {
    name: "FCVolumeSource",
    fields: &[
        list(1, "targetWWNs", Text),
        said(2, "lun", Int32),
        full(3, "fsType", Text),
        full(4, "readOnly", Bool),
        list(5, "wwids", Text),
    ],
};

pub(super) static AZURE_FILE_VOLUME_SOURCE: Message = Message {
    name: "AzureFileVolumeSource",
    fields: &[said(1, "secretName", Text), said(2, "shareName", Text), full(3, "readOnly", Bool)],
};

pub(super) static CONFIG_MAP_VOLUME_SOURCE: Message = Message {
    name: "ConfigMapVolumeSource",
    fields: &[
        inline(1, &LOCAL_OBJECT_REFERENCE),
        list(2, "items", Of(&KEY_TO_PATH)),
        said(3, "defaultMode", Int32),
        said(4, "optional", Bool),
    ],
};

pub(super) static VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE: Message = Message {
    name: "VsphereVirtualDiskVolumeSource",
    fields: &[
        said(1, "volumePath", Text),
        full(2, "fsType", Text),
        full(3, "storagePolicyName", Text),
        full(4, "storagePolicyID", Text),
    ],
};

pub(super) static QUOBYTE_VOLUME_SOURCE: Message = Message {
    name: "QuobyteVolumeSource",
    fields: &[
        said(1, "registry", Text),
        said(2, "volume", Text),
        full(3, "readOnly", Bool),
        full(4, "user", Text),
        full(5, "group", Text),
        full(6, "tenant", Text),
    ],
};

pub(super) static AZURE_DISK_VOLUME_SOURCE: Message = Message {
    name: "AzureDiskVolumeSource",
    fields: &[
        said(1, "diskName", Text),
        said(2, "diskURI", Text),
        said(3, "cachingMode", Text),
        said(4, "fsType", Text),
        said(5, "readOnly", Bool),
        said(6, "kind", Text),
    ],
};

pub(super) static PHOTON_PERSISTENT_DISK_VOLUME_SOURCE: Message = Message {
    name: "PhotonPersistentDiskVolumeSource",
    fields: &[said(1, "pdID", Text), full(2, "fsType", Text)],
};

pub(super) static SECRET_PROJECTION: Message = Message {
    name: "SecretProjection",
    fields: &[
        inline(1, &LOCAL_OBJECT_REFERENCE),
        list(2, "items", Of(&KEY_TO_PATH)),
        said(4, "optional", Bool),
    ],
};

pub(super) static DOWNWARD_API_PROJECTION: Message =
    Message { name: "DownwardAPIProjection", fields: &[list(1, "items", Of(&DOWNWARD_API_VOLUME_FILE))] };

pub(super) static CONFIG_MAP_PROJECTION: Message = Message {
    name: "ConfigMapProjection",
    fields: &[
        inline(1, &LOCAL_OBJECT_REFERENCE),
        list(2, "items", Of(&KEY_TO_PATH)),
        said(4, "optional", Bool),
    ],
};

pub(super) static SERVICE_ACCOUNT_TOKEN_PROJECTION: Message = Message {
    name: "ServiceAccountTokenProjection",
    fields: &[full(1, "audience", Text), said(2, "expirationSeconds", Int64), said(3, "path", Text)],
};

pub(super) static CLUSTER_TRUST_BUNDLE_PROJECTION: Message = Message {
    name: "ClusterTrustBundleProjection",
    fields: &[
        said(1, "name", Text),
        said(2, "signerName", Text),
        said(3, "labelSelector", Of(&LABEL_SELECTOR)),
        said(4, "path", Text),
        said(5, "optional", Bool),
    ],
};

pub(super) static POD_CERTIFICATE_PROJECTION: Message = Message {
    name: "PodCertificateProjection",
    fields: &[
        full(1, "signerName", Text),
        full(2, "keyType", Text),
        said(3, "maxExpirationSeconds", Int32),
        full(4, "credentialBundlePath", Text),
        full(5, "keyPath", Text),
        full(6, "certificateChainPath", Text),
        map(7, "userAnnotations", Text),
    ],
};

pub(super) static VOLUME_PROJECTION: Message = Message {
    name: "VolumeProjection",
    fields: &[
        said(1, "secret", Of(&SECRET_PROJECTION)),
        said(2, "downwardAPI", Of(&DOWNWARD_API_PROJECTION)),
        said(3, "configMap", Of(&CONFIG_MAP_PROJECTION)),
        said(4, "serviceAccountToken", Of(&SERVICE_ACCOUNT_TOKEN_PROJECTION)),
        said(5, "clusterTrustBundle", Of(&CLUSTER_TRUST_BUNDLE_PROJECTION)),
        said(6, "podCertificate", Of(&POD_CERTIFICATE_PROJECTION)),
    ],
};

pub(super) static PROJECTED_VOLUME_SOURCE: Message = Message {
    name: "ProjectedVolumeSource",
    fields: &[list(1, "sources", Of(&VOLUME_PROJECTION)), said(2, "defaultMode", Int32)],
};

pub(super) static PORTWORX_VOLUME_SOURCE: Message = Message {
    name: "PortworxVolumeSource",
    fields: &[said(1, "volumeID", Text), full(2, "fsType", Text), full(3, "readOnly", Bool)],
};

pub(super) static SCALE_IO_VOLUME_SOURCE: Message = Message {
    name: "ScaleIOVolumeSource",
    fields: &[
        said(1, "gateway", Text),
        said(2, "system", Text),
        said(3, "secretRef", Of(&LOCAL_OBJECT_REFERENCE)),
        full(4, "sslEnabled", Bool),
        full(5, "protectionDomain", Text),
        full(6, "storagePool", Text),
        full(7, "storageMode", Text),
        full(8, "volumeName", Text),
        full(9, "fsType", Text),
        full(10, "readOnly", Bool),
    ],
};

pub(super) static STORAGE_OS_VOLUME_SOURCE: Message = Message {
    name: "StorageOSVolumeSource",
    fields: &[
        full(1, "volumeName", Text),
        full(2, "volumeNamespace", Text),
        full(3, "fsType", Text),
        full(4, "readOnly", Bool),
        said(5, "secretRef", Of(&LOCAL_OBJECT_REFERENCE)),
    ],
};

pub(super) static CSI_VOLUME_SOURCE: Message = Message {
    name: "CSIVolumeSource",
    fields: &[
        said(1, "driver", Text),
        said(2, "readOnly", Bool),
        said(3, "fsType", Text),
        map(4, "volumeAttributes", Text),
        said(5, "nodePublishSecretRef", Of(&LOCAL_OBJECT_REFERENCE)),
    ],
};

pub(super) static VOLUME_RESOURCE_REQUIREMENTS: Message = Message {
    name: "VolumeResourceRequirements",
    fields: &[map(1, "limits", Quantity), map(2, "requests", Quantity)],
};

pub(super) static TYPED_LOCAL_OBJECT_REFERENCE: Message = Message {
    name: "TypedLocalObjectReference",
    fields: &[said(1, "apiGroup", Text), said(2, "kind", Text), said(3, "name", Text)],
};

pub(super) static TYPED_OBJECT_REFERENCE: Message = Message {
    name: "TypedObjectReference",
    fields: &[
        said(1, "apiGroup", Text),
        said(2, "kind", Text),
        said(3, "name", Text),
        said(4, "namespace", Text),
    ],
};

pub(super) static PERSISTENT_VOLUME_CLAIM_SPEC: Message = Message {
    name: "PersistentVolumeClaimSpec",
    fields: &[
        list(1, "accessModes", Text),
        said(2, "resources", Of(&VOLUME_RESOURCE_REQUIREMENTS)),
        full(3, "volumeName", Text),
        said(4, "selector", Of(&LABEL_SELECTOR)),
        said(5, "storageClassName", Text),
        said(6, "volumeMode", Text),
        said(7, "dataSource", Of(&TYPED_LOCAL_OBJECT_REFERENCE)),
        said(8, "dataSourceRef", Of(&TYPED_OBJECT_REFERENCE)),
        said(9, "volumeAttributesClassName", Text),
    ],
};

pub(super) static PERSISTENT_VOLUME_CLAIM_TEMPLATE: Message = Message {
    name: "PersistentVolumeClaimTemplate",
    fields: &[said(1, "metadata", Of(&OBJECT_META)), said(2, "spec", Of(&PERSISTENT_VOLUME_CLAIM_SPEC))],
};

pub(super) static EPHEMERAL_VOLUME_SOURCE: Message = Message {
    name: "EphemeralVolumeSource",
    fields: &[said(1, "volumeClaimTemplate", Of(&PERSISTENT_VOLUME_CLAIM_TEMPLATE))],
};

pub(super) static IMAGE_VOLUME_SOURCE: Message =
    Message { name: "ImageVolumeSource", fields: &[full(1, "reference", Text), full(2, "pullPolicy", Text)] };

pub(super) static VOLUME_SOURCE: Message = Message {
    name: "VolumeSource",
    fields: &[
        said(1, "hostPath", Of(&HOST_PATH_VOLUME_SOURCE)),
        said(2, "emptyDir", Of(&EMPTY_DIR_VOLUME_SOURCE)),
        said(3, "gcePersistentDisk", Of(&GCE_PERSISTENT_DISK_VOLUME_SOURCE)),
        said(4, "awsElasticBlockStore", Of(&AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE)),
        said(5, "gitRepo", Of(&GIT_REPO_VOLUME_SOURCE)),
        said(6, "secret", Of(&SECRET_VOLUME_SOURCE)),
        said(7, "nfs", Of(&NFS_VOLUME_SOURCE)),
        said(8, "iscsi", Of(&ISCSI_VOLUME_SOURCE)),
        said(9, "glusterfs", Of(&GLUSTERFS_VOLUME_SOURCE)),
        said(10, "persistentVolumeClaim", Of(&PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE)),
        said(11, "rbd", Of(&RBD_VOLUME_SOURCE)),
        said(12, "flexVolume", Of(&FLEX_VOLUME_SOURCE)),
        said(13, "cinder", Of(&CINDER_VOLUME_SOURCE)),
        said(14, "cephfs", Of(&CEPH_FS_VOLUME_SOURCE)),
        said(15, "flocker", Of(&FLOCKER_VOLUME_SOURCE)),
        said(16, "downwardAPI", Of(&DOWNWARD_API_VOLUME_SOURCE)),
        said(17, "fc", Of(&FC_VOLUME_SOURCE)),
        said(18, "azureFile", Of(&AZURE_FILE_VOLUME_SOURCE)),
        said(19, "configMap", Of(&CONFIG_MAP_VOLUME_SOURCE)),
        said(20, "vsphereVolume", Of(&VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE)),
        said(21, "quobyte", Of(&QUOBYTE_VOLUME_SOURCE)),
        said(22, "azureDisk", Of(&AZURE_DISK_VOLUME_SOURCE)),
        said(23, "photonPersistentDisk", Of(&PHOTON_PERSISTENT_DISK_VOLUME_SOURCE)),
        said(24, "portworxVolume", Of(&PORTWORX_VOLUME_SOURCE)),
        said(25, "scaleIO", Of(&SCALE_IO_VOLUME_SOURCE)),
        said(26, "projected", Of(&PROJECTED_VOLUME_SOURCE)),
        said(27, "storageos", Of(&STORAGE_OS_VOLUME_SOURCE)),
        said(28, "csi", Of(&CSI_VOLUME_SOURCE)),
        said(29, "ephemeral", Of(&EPHEMERAL_VOLUME_SOURCE)),
        said(30, "image", Of(&IMAGE_VOLUME_SOURCE)),
    ],
};

pub(super) static VOLUME: Message =
    Message { name: "Volume", fields: &[said(1, "name", Text), inline(2, &VOLUME_SOURCE)] };
