//! What stands behind the volumes of a pod that are not the pod's own: claims, their volumes, drivers, attachments. Pure.
//!
//! Everything is taken from the store, so that a node that is cut off mounts again what it had. The words are the kubelet's
//! (`pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go`, `pkg/volume/csi`).

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{ObjectKey, ephemeral_claim, resource, volume as names};
use contract::csi::{AccessMode, CsiVolume};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, HostPathVolumeSource, NFSVolumeSource, NodeSelector,
    PersistentVolume, PersistentVolumeClaim, Secret, SecretReference, Volume,
};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSIDriverSpec, TokenRequest as DriverTokens, VolumeAttachment,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::StepError;
use crate::pod::node_match;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::sources::bytes_of_secret;
use crate::volumes::TokenRequest;

/// Kubernetes' default life of a driver's token, in seconds.
const TOKEN_SECONDS: i64 = 3600;

/// Finds an object in the store.
pub(crate) type Find<'a> = dyn Fn(&ObjectKey) -> Option<Vec<u8>> + 'a;

/// A volume that something outside the pod's folder holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct External {
    /// As the pod calls it.
    pub(crate) volume: String,
    /// As events call it: the PersistentVolume's name, else the same.
    pub(crate) name: String,
    pub(crate) read_only: bool,
    pub(crate) backing: Backing,
}

/// What holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Backing {
    HostPath(HostPathVolumeSource),
    Local { path: String, mount_options: Vec<String> },
    Nfs { server: String, path: String, mount_options: Vec<String> },
    Csi(Box<CsiBacking>),
}

/// A CSI volume, and what is looked at beside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CsiBacking {
    pub(crate) volume: CsiVolume,
    /// Whether edgecore gives the files to the pod's group, unless the driver does.
    pub(crate) takes_group: bool,
    /// Tokens that the driver wants.
    pub(crate) tokens: Vec<TokenRequest>,
    /// They go with the secrets, and not with the attributes.
    pub(crate) tokens_are_secrets: bool,
}

/// The node, as volumes ask for it.
pub(crate) struct NodeFacts<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// Whether a pod has volumes of these kinds.
pub(crate) fn has_external(pod: &ParsedPod) -> bool {
    pod.spec().volumes.iter().flatten().any(is_external)
}

fn is_external(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
        || volume.csi.is_some()
        || volume.nfs.is_some()
}

/// The external volumes that containers of the pod mount. Whatever one misses is said as a kubelet says it.
///
/// # Errors
/// Of all that fail the first, as the event's text.
pub(crate) fn external(
    pod: &ParsedPod,
    used: &BTreeSet<&str>,
    node: &NodeFacts<'_>,
    find: &Find<'_>,
) -> Result<Vec<External>, StepError> {
    let look = Look { pod, node, find };
    let volumes = pod.spec().volumes.iter().flatten();
    let wanted: Vec<&Volume> =
        volumes.filter(|volume| is_external(volume) && used.contains(volume.name.as_str())).collect();
    let mut all = Vec::new();
    let (mut failed, mut reasons) = (Vec::new(), Vec::new());
    for volume in wanted {
        match look.one(volume) {
            Ok(one) => all.push(one),
            Err(NotReady::Unprocessed(reason)) => {
                failed.push(volume.name.as_str());
                reasons.push(reason);
            }
            Err(NotReady::Step(error)) => return Err(error),
        }
    }
    if reasons.is_empty() {
        return Ok(all);
    }
    let names = failed.join(" ");
    Err(StepError::Missing(format!(
        "Unable to attach or mount volumes: unmounted volumes=[{names}], unattached volumes=[], failed to process volumes=[{names}]: {}",
        reasons.join("; ")
    )))
}

/// Why a volume cannot be mounted yet.
enum NotReady {
    /// It is not known what to mount.
    Unprocessed(String),
    Step(StepError),
}

impl From<StepError> for NotReady {
    fn from(error: StepError) -> Self {
        NotReady::Step(error)
    }
}

struct Look<'a> {
    pod: &'a ParsedPod,
    node: &'a NodeFacts<'a>,
    find: &'a Find<'a>,
}

impl Look<'_> {
    fn object<T: DeserializeOwned>(&self, resource: &str, namespace: &str, name: &str) -> Option<T> {
        let bytes = (self.find)(&ObjectKey::new(resource, namespace, name))?;
        serde_json::from_slice(&bytes).ok()
    }

    fn one(&self, volume: &Volume) -> Result<External, NotReady> {
        let name = volume.name.clone();
        if let Some(NFSVolumeSource { server, path, read_only }) = volume.nfs.clone() {
            let backing = Backing::Nfs { server, path, mount_options: Vec::new() };
            return Ok(External { volume: name.clone(), name, read_only: read_only == Some(true), backing });
        }
        if let Some(source) = &volume.csi {
            return Ok(self.inline(&name, source)?);
        }
        let (claim, read_only, is_ephemeral) = match &volume.persistent_volume_claim {
            Some(claim) => (claim.claim_name.clone(), claim.read_only == Some(true), false),
            None => (ephemeral_claim(&self.pod.id.name, &name), false, true),
        };
        self.claimed(&name, &claim, read_only, is_ephemeral)
    }

    fn claimed(
        &self,
        volume: &str,
        claim: &str,
        read_only: bool,
        is_ephemeral: bool,
    ) -> Result<External, NotReady> {
        let id = &self.pod.id;
        let within = |why: String| {
            NotReady::Unprocessed(format!("error processing PVC {}/{claim}: {why}", id.namespace))
        };
        let pv = self.bound(claim, is_ephemeral).map_err(|error| match error {
            NotBound::OfClaim(why) => within(why),
            NotBound::Whole(why) => NotReady::Unprocessed(why),
        })?;
        let mode = pv.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
        if mode != "Filesystem" {
            return Err(NotReady::Unprocessed(format!(
                "volume {volume} has volumeMode {mode}, but is specified in volumeMounts"
            )));
        }
        Ok(self.persistent(volume, read_only, &pv)?)
    }

    /// The volume that a claim is bound to, as both say.
    fn bound(&self, claim_name: &str, is_ephemeral: bool) -> Result<PersistentVolume, NotBound> {
        let id = &self.pod.id;
        let of_claim = |why: String| Err(NotBound::OfClaim(why));
        let kind = resource::PERSISTENT_VOLUME_CLAIMS;
        let Some(claim) = self.object::<PersistentVolumeClaim>(kind, &id.namespace, claim_name) else {
            return of_claim(format!(
                "failed to fetch PVC from API server: persistentvolumeclaims \"{claim_name}\" not found"
            ));
        };
        let finalizers = claim.metadata.finalizers.as_deref().unwrap_or_default();
        if claim.metadata.deletion_timestamp.is_some()
            && !finalizers.iter().any(|finalizer| finalizer == "kubernetes.io/pvc-protection")
        {
            return of_claim("PVC is being deleted".to_owned());
        }
        let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
        let is_owned = owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == id.uid);
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Bound") {
            return of_claim("PVC is not bound".to_owned());
        }
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
        let Some(pv_name) = named.filter(|name| !name.is_empty()) else {
            return of_claim("PVC has empty pvc.Spec.VolumeName".to_owned());
        };
        if is_ephemeral && !is_owned {
            let (namespace, pod) = (&id.namespace, &id.name);
            return Err(NotBound::Whole(format!(
                "PVC {namespace}/{claim_name} was not created for pod {namespace}/{pod} (pod is not owner)"
            )));
        }
        let Some(pv) = self.object::<PersistentVolume>(resource::PERSISTENT_VOLUMES, "", &pv_name) else {
            return of_claim(format!(
                "failed to fetch PV {pv_name} from API server: persistentvolumes \"{pv_name}\" not found"
            ));
        };
        let reference = pv.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = reference else {
            return of_claim(format!(
                "found PV object {pv_name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
            ));
        };
        let uid = claim.metadata.uid.unwrap_or_default();
        if reference.uid.as_deref() != Some(uid.as_str()) || uid.is_empty() {
            let told = reference.uid.clone().unwrap_or_default();
            return of_claim(format!(
                "found PV object {pv_name} but its pv.Spec.ClaimRef.UID {told} does not point to claim.UID {uid}"
            ));
        }
        Ok(pv)
    }

    fn persistent(
        &self,
        volume: &str,
        read_only: bool,
        pv: &PersistentVolume,
    ) -> Result<External, StepError> {
        let name = pv.metadata.name.clone().unwrap_or_default();
        let spec = pv.spec.clone().unwrap_or_default();
        let fault = |step: &str, why: String| {
            StepError::Missing(format!("{step} failed for volume \"{name}\" : {why}"))
        };
        let affinity = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        if affinity.is_some_and(|required| !self.is_here(required)) {
            return Err(fault("MountVolume.NodeAffinity check", "no matching NodeSelectorTerms".to_owned()));
        }
        let mount_options = mount_options(pv);
        let no_options = || {
            (!mount_options.is_empty()).then(|| {
                fault(
                    "MountVolume.MountOptionSupport check",
                    "mount options are not supported for this volume type".to_owned(),
                )
            })
        };
        let backing = if let Some(source) = spec.host_path.clone() {
            if let Some(error) = no_options() {
                return Err(error);
            }
            Backing::HostPath(source)
        } else if let Some(source) = &spec.local {
            Backing::Local { path: source.path.clone(), mount_options }
        } else if let Some(source) = &spec.nfs {
            let (server, path) = (source.server.clone(), source.path.clone());
            let read_only = read_only || source.read_only == Some(true);
            let backing = Backing::Nfs { server, path, mount_options };
            return Ok(External { volume: volume.to_owned(), name, read_only, backing });
        } else if let Some(source) = &spec.csi {
            let modes = spec.access_modes.clone().unwrap_or_default();
            let csi = self.csi(&name, source, &modes, mount_options, read_only)?;
            Backing::Csi(Box::new(csi))
        } else {
            return Err(StepError::Config(format!(
                "MountVolume.NewMounter initialization failed for volume \"{name}\" : no volume plugin matched: this node mounts hostPath, local, nfs and csi PersistentVolumes"
            )));
        };
        Ok(External { volume: volume.to_owned(), name, read_only, backing })
    }

    fn is_here(&self, required: &NodeSelector) -> bool {
        required
            .node_selector_terms
            .iter()
            .any(|term| node_match::matches(term, self.node.name, self.node.labels))
    }

    fn inline(&self, volume: &str, source: &CSIVolumeSource) -> Result<External, StepError> {
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
        Ok(External { volume, name, read_only, backing: Backing::Csi(Box::new(backing)) })
    }

    fn driver(&self, name: &str) -> Option<Driver> {
        let object: Value = self.object(resource::CSI_DRIVERS, "", name)?;
        let tokens_are_secrets =
            object.pointer("/spec/serviceAccountTokenInSecrets") == Some(&Value::Bool(true));
        let CSIDriver { spec, .. } = serde_json::from_value(object).ok()?;
        Some(Driver { spec, tokens_are_secrets })
    }

    fn csi(
        &self,
        name: &str,
        source: &CSIPersistentVolumeSource,
        modes: &[String],
        mount_options: Vec<String>,
        read_only: bool,
    ) -> Result<CsiBacking, StepError> {
        let driver = self.driver(&source.driver);
        // As long as nothing is known of the driver its volumes have to be attached.
        let is_attached = driver.as_ref().is_none_or(|driver| driver.spec.attach_required != Some(false));
        let publish_context = if is_attached {
            self.attachment(source).map_err(|why| {
                StepError::Missing(format!("MountVolume.WaitForAttach failed for volume \"{name}\" : {why}"))
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
            read_only,
            fs_type: source.fs_type.clone().unwrap_or_default(),
            access_mode: access_mode(modes),
            mount_options,
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            publish_context,
            stage_secrets: self.secrets("NodeStageSecretRef", stage, name, "MountVolume.MountDevice")?,
            publish_secrets: self.secrets("NodePublishSecretRef", publish, name, "MountVolume.SetUp")?,
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
            _ => !volume.fs_type.is_empty() && is_for_one && !volume.read_only,
        };
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

/// A driver's object.
struct Driver {
    spec: CSIDriverSpec,
    /// Newer than the types.
    tokens_are_secrets: bool,
}

enum NotBound {
    /// Said after the claim's name.
    OfClaim(String),
    Whole(String),
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

/// Those of the spec and of the annotation before it, each once.
fn mount_options(pv: &PersistentVolume) -> Vec<String> {
    let annotation = pv.metadata.annotations.as_ref();
    let older = annotation.and_then(|all| all.get("volume.beta.kubernetes.io/mount-options"));
    let older = older.into_iter().flat_map(|text| text.split(',')).map(|option| option.trim().to_owned());
    let newer = pv.spec.iter().flat_map(|spec| spec.mount_options.clone().unwrap_or_default());
    let all: BTreeSet<String> = older.chain(newer).filter(|option| !option.is_empty()).collect();
    all.into_iter().collect()
}

pub(crate) fn fs_group(pod: &ParsedPod) -> Option<u32> {
    let group = pod.spec().security_context.as_ref().and_then(|own| own.fs_group)?;
    u32::try_from(group).ok()
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
