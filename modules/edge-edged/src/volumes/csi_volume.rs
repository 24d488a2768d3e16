//! A CSI volume, worked out: what its driver's object asks for, whether it is attached, what its Secrets hold. Pure.

use std::collections::BTreeMap;

use apimachinery::{resource, volume as names};
use contract::csi::{AccessMode, CsiVolume};
use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, CSIVolumeSource, Secret, SecretReference};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSIDriverSpec, TokenRequest as DriverTokens, VolumeAttachment,
};
use serde_json::Value;

use super::claims::{Backing, CsiBacking, External, Look, fs_group};
use crate::error::StepError;
use crate::pod::sources::bytes_of_secret;
use crate::volumes::TokenRequest;

/// Kubernetes' default life of a driver's token, in seconds.
const TOKEN_SECONDS: i64 = 3600;

/// A driver's object.
struct Driver {
    spec: CSIDriverSpec,
    /// Newer than the types.
    tokens_are_secrets: bool,
}

impl Look<'_> {
    pub(super) fn inline(&self, volume: &str, source: &CSIVolumeSource) -> Result<External, StepError> {
        let driver = self.driver(&source.driver);
        let modes =
            driver.as_ref().map(|driver| driver.spec.volume_lifecycle_modes.clone().unwrap_or_default());
        let why = match modes {
            None => Some("no CSIDriver object".to_owned()),
            Some(modes) if modes.iter().any(|mode| mode == "Ephemeral") => None,
            Some(modes) if modes.is_empty() => Some("only supports [\"Persistent\"]".to_owned()),
            Some(modes) => Some(format!("only supports {modes:?}")),
        };
        if let Some(why) = why {
            return Err(StepError::Missing(format!(
                "MountVolume.SetUp failed for volume \"{volume}\" : kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode \"Ephemeral\" not supported by driver {} ({why})",
                source.driver
            )));
        }
        let id = &self.pod.id;
        let reference = source.node_publish_secret_ref.as_ref().map(|reference| SecretReference {
            name: Some(reference.name.clone()),
            namespace: Some(id.namespace.clone()),
        });
        let read_only = source.read_only == Some(true);
        let base = CsiVolume {
            pod_uid: id.uid.clone(),
            name: volume.to_owned(),
            driver: source.driver.clone(),
            handle: format!("csi-{}", names::sha256_hex(&[&id.uid, volume])),
            is_inline: true,
            read_only,
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            publish_secrets: self.secrets(
                "NodePublishSecretRef",
                reference.as_ref(),
                volume,
                "MountVolume.SetUp",
            )?,
            fs_group: fs_group(self.pod),
            ..CsiVolume::default()
        };
        let backing = self.with_driver(base, driver.as_ref(), &["ReadWriteOnce".to_owned()]);
        let (volume, name) = (volume.to_owned(), volume.to_owned());
        Ok(External {
            volume,
            name,
            read_only,
            is_for_one: false,
            is_block: false,
            expansion: None,
            backing: Backing::Csi(Box::new(backing)),
        })
    }

    fn driver(&self, name: &str) -> Option<Driver> {
        let object: Value = self.object(resource::CSI_DRIVERS, "", name)?;
        let tokens_are_secrets =
            object.pointer("/spec/serviceAccountTokenInSecrets") == Some(&Value::Bool(true));
        let CSIDriver { spec, .. } = serde_json::from_value(object).ok()?;
        Some(Driver { spec, tokens_are_secrets })
    }

    pub(super) fn csi(
        &self,
        name: &str,
        source: &CSIPersistentVolumeSource,
        modes: &[String],
        mount_options: Vec<String>,
        read_only: bool,
        is_block: bool,
    ) -> Result<CsiBacking, StepError> {
        let step = |mount: &'static str, map: &'static str| if is_block { map } else { mount };
        let driver = self.driver(&source.driver);
        // As long as nothing is known of the driver its volumes have to be attached.
        let is_attached = driver.as_ref().is_none_or(|driver| driver.spec.attach_required != Some(false));
        let publish_context = if is_attached {
            self.attachment(source).map_err(|why| {
                let step = step("MountVolume.WaitForAttach", "MapVolume.WaitForAttach");
                StepError::Missing(format!("{step} failed for volume \"{name}\" : {why}"))
            })?
        } else {
            BTreeMap::new()
        };
        let stage = source.node_stage_secret_ref.as_ref();
        let publish = source.node_publish_secret_ref.as_ref();
        let base = CsiVolume {
            pod_uid: self.pod.id.uid.clone(),
            name: name.to_owned(),
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
            is_block,
            read_only,
            fs_type: source.fs_type.clone().unwrap_or_default(),
            access_mode: access_mode(modes),
            mount_options,
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            publish_context,
            stage_secrets: self.secrets(
                "NodeStageSecretRef",
                stage,
                name,
                step("MountVolume.MountDevice", "MapVolume.SetUpDevice"),
            )?,
            publish_secrets: self.secrets(
                "NodePublishSecretRef",
                publish,
                name,
                step("MountVolume.SetUp", "MapVolume.MapPodDevice"),
            )?,
            fs_group: fs_group(self.pod),
            ..CsiVolume::default()
        };
        Ok(self.with_driver(base, driver.as_ref(), modes))
    }

    /// What a driver's object asks for.
    fn with_driver(&self, mut volume: CsiVolume, driver: Option<&Driver>, modes: &[String]) -> CsiBacking {
        let spec = driver.map(|driver| driver.spec.clone()).unwrap_or_default();
        if spec.pod_info_on_mount == Some(true) {
            let id = &self.pod.id;
            let account = self.pod.spec().service_account_name.clone().unwrap_or_default();
            let is_inline = volume.is_inline.to_string();
            for (key, value) in [
                ("pod.name", &id.name),
                ("pod.namespace", &id.namespace),
                ("pod.uid", &id.uid),
                ("serviceAccount.name", &account),
                ("ephemeral", &is_inline),
            ] {
                volume.publish_attributes.insert(format!("csi.storage.k8s.io/{key}"), value.clone());
            }
        }
        volume.republish = spec.requires_republish == Some(true);
        let is_for_one = volume.is_inline
            || modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod");
        let takes_group = match spec.fs_group_policy.as_deref() {
            Some("None") => false,
            Some("File") => true,
            _ => !volume.fs_type.is_empty() && is_for_one,
        };
        // Nobody changes the owner of what is read-only.
        let takes_group = takes_group && !volume.read_only;
        let tokens = spec.token_requests.iter().flatten().map(token_request).collect();
        let tokens_are_secrets = driver.is_some_and(|driver| driver.tokens_are_secrets);
        CsiBacking { volume, takes_group, tokens, tokens_are_secrets }
    }

    /// What the attachment to this node says, once it is done.
    fn attachment(&self, source: &CSIPersistentVolumeSource) -> Result<BTreeMap<String, String>, String> {
        let handle = &source.volume_handle;
        let name = names::attachment_name(handle, &source.driver, self.node.name);
        let Some(found) = self.object::<VolumeAttachment>(resource::VOLUME_ATTACHMENTS, "", &name) else {
            return Err(format!(
                "volume {handle} has GET error for volume attachment {name}: volumeattachments.storage.k8s.io \"{name}\" not found"
            ));
        };
        if found.metadata.deletion_timestamp.is_some() {
            return Err("volume attachment is being deleted".to_owned());
        }
        let status = found.status.unwrap_or_default();
        match status.attach_error {
            _ if status.attached => Ok(status.attachment_metadata.unwrap_or_default()),
            Some(error) => Err(error.message.unwrap_or_default()),
            None => Err(format!("volume {handle} is not attached for volume attachment {name}")),
        }
    }

    /// For a driver that makes a volume larger; or why they are not known.
    pub(super) fn expand_secrets(
        &self,
        source: &CSIPersistentVolumeSource,
        volume: &str,
    ) -> Result<BTreeMap<String, String>, String> {
        let reference = source.node_expand_secret_ref.as_ref();
        let found =
            self.secrets("NodeExpandSecretRef", reference, volume, "NodeExpandVolume.NodeExpandVolume");
        found.map_err(|error| error.to_string())
    }

    fn secrets(
        &self,
        what: &str,
        reference: Option<&SecretReference>,
        volume: &str,
        step: &str,
    ) -> Result<BTreeMap<String, String>, StepError> {
        let Some(reference) = reference else { return Ok(BTreeMap::new()) };
        let (namespace, name) =
            (reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default());
        let Some(secret) = self.object::<Secret>(resource::SECRETS, &namespace, &name) else {
            return Err(StepError::Missing(format!(
                "{step} failed for volume \"{volume}\" : fetching {what} {namespace}/{name} failed: secrets \"{name}\" not found"
            )));
        };
        let text = |(key, bytes): (String, Vec<u8>)| {
            String::from_utf8(bytes).map(|text| (key.clone(), text)).map_err(|_| {
                StepError::Config(format!(
                    "{step} failed for volume \"{volume}\" : the value of {key} in secret {namespace}/{name} is no text"
                ))
            })
        };
        bytes_of_secret(&secret).into_iter().map(text).collect()
    }
}

fn token_request(wanted: &DriverTokens) -> TokenRequest {
    TokenRequest {
        audience: wanted.audience.clone(),
        seconds: wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS),
    }
}

fn access_mode(modes: &[String]) -> AccessMode {
    match modes.first().map(String::as_str) {
        Some("ReadOnlyMany") => AccessMode::ReadOnlyMany,
        Some("ReadWriteMany") => AccessMode::ReadWriteMany,
        Some("ReadWriteOncePod") => AccessMode::ReadWriteOncePod,
        _ => AccessMode::ReadWriteOnce,
    }
}
