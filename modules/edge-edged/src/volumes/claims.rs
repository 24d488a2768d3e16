//! What stands behind the volumes of a pod that are not the pod's own: claims, their volumes, drivers, attachments. Pure.
//!
//! Everything is taken from the store, so that a node that is cut off mounts again what it had. The words are the kubelet's
//! (`pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go`, `pkg/volume/csi`).

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{ObjectKey, ephemeral_claim, resource};
use contract::csi::CsiVolume;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NFSVolumeSource, NodeSelector, PersistentVolume, PersistentVolumeClaim, Volume,
};
use serde::de::DeserializeOwned;

use crate::error::StepError;
use crate::pod::node_match;
use crate::pod::parsed_pod::ParsedPod;
use crate::typed_json;
use crate::volumes::expansion::{self, Expansion};
use crate::volumes::{TokenRequest, uses};

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
    /// No other pod may have it beside this one: `ReadWriteOncePod` is its only access mode.
    pub(crate) is_for_one: bool,
    /// The pod has it as a block device.
    pub(crate) is_block: bool,
    /// What is on it has to become larger.
    pub(crate) expansion: Option<Expansion>,
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

/// Whether something outside the pod's folder holds a volume.
pub(crate) fn is_external(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
        || volume.csi.is_some()
        || volume.nfs.is_some()
}

/// The external volumes that containers of the pod mount, and why those are not among them that miss something, as a kubelet says
/// it: each by itself, and in one sentence all of which nobody knows what to mount.
pub(crate) fn external(
    pod: &ParsedPod,
    used: &BTreeSet<&str>,
    node: &NodeFacts<'_>,
    find: &Find<'_>,
) -> (Vec<External>, Vec<StepError>) {
    let look = Look { pod, node, find };
    let volumes = pod.spec().volumes.iter().flatten();
    let wanted: Vec<&Volume> =
        volumes.filter(|volume| is_external(volume) && used.contains(volume.name.as_str())).collect();
    let mut all = Vec::new();
    let (mut failed, mut reasons, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for volume in wanted {
        match look.one(volume) {
            Ok(one) => all.push(one),
            Err(NotReady::Unprocessed(reason)) => {
                failed.push(volume.name.as_str());
                reasons.push(reason);
            }
            Err(NotReady::Step(error)) => errors.push(error),
        }
    }
    if !reasons.is_empty() {
        let names = failed.join(" ");
        errors.push(StepError::Missing(format!(
            "Unable to attach or mount volumes: unmounted volumes=[{names}], unattached volumes=[], failed to process volumes=[{names}]: {}",
            reasons.join("; ")
        )));
    }
    (all, errors)
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

pub(super) struct Look<'a> {
    pub(super) pod: &'a ParsedPod,
    pub(super) node: &'a NodeFacts<'a>,
    find: &'a Find<'a>,
}

impl Look<'_> {
    pub(super) fn object<T: DeserializeOwned>(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<T> {
        let bytes = (self.find)(&ObjectKey::new(resource, namespace, name))?;
        typed_json::read(&bytes).ok()
    }

    fn one(&self, volume: &Volume) -> Result<External, NotReady> {
        let name = volume.name.clone();
        if let Some(NFSVolumeSource { server, path, read_only }) = volume.nfs.clone() {
            let backing = Backing::Nfs { server, path, mount_options: Vec::new() };
            let read_only = read_only == Some(true);
            return Ok(External {
                volume: name.clone(),
                name,
                read_only,
                is_for_one: false,
                is_block: false,
                expansion: None,
                backing,
            });
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
        let (own, pv) = self.bound(claim, is_ephemeral).map_err(|error| match error {
            NotBound::OfClaim(why) => within(why),
            NotBound::Whole(why) => NotReady::Unprocessed(why),
        })?;
        let mode = pv.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
        let wrong = |place: &str| {
            let words = format!("volume {volume} has volumeMode {mode}, but is specified in {place}");
            Err(NotReady::Unprocessed(words))
        };
        let (is_mounted, is_device) =
            (uses::mounted(self.pod).contains(volume), uses::devices(self.pod).contains(volume));
        let found = match mode {
            "Filesystem" if is_device => return wrong("volumeDevices"),
            "Filesystem" => self.persistent(volume, read_only, &pv)?,
            _ if is_mounted => return wrong("volumeMounts"),
            _ => self.device(volume, read_only, &pv)?,
        };
        let source = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
        let expansion = source.and_then(|source| {
            let secrets = self.expand_secrets(source, &found.name);
            Some(expansion::wanted(&own, &pv)?.with(secrets))
        });
        Ok(External { expansion, ..found })
    }

    /// The volume that a claim is bound to, as both say.
    fn bound(
        &self,
        claim_name: &str,
        is_ephemeral: bool,
    ) -> Result<(PersistentVolumeClaim, PersistentVolume), NotBound> {
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
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        if reference.uid.as_deref() != Some(uid.as_str()) || uid.is_empty() {
            let told = reference.uid.clone().unwrap_or_default();
            return of_claim(format!(
                "found PV object {pv_name} but its pv.Spec.ClaimRef.UID {told} does not point to claim.UID {uid}"
            ));
        }
        Ok((claim, pv))
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
            return Ok(External {
                volume: volume.to_owned(),
                name,
                read_only,
                is_for_one: false,
                is_block: false,
                expansion: None,
                backing,
            });
        } else if let Some(source) = &spec.csi {
            let modes = spec.access_modes.clone().unwrap_or_default();
            // As they stand there: their order is the driver's to read, and the annotation is older than CSI.
            let raw = spec.mount_options.clone().unwrap_or_default();
            let csi = self.csi(&name, source, &modes, raw, read_only, false)?;
            Backing::Csi(Box::new(csi))
        } else {
            return Err(StepError::Config(format!(
                "MountVolume.NewMounter initialization failed for volume \"{name}\" : no volume plugin matched: this node mounts hostPath, local, nfs and csi PersistentVolumes"
            )));
        };
        Ok(External {
            volume: volume.to_owned(),
            name,
            read_only,
            is_for_one: is_for_one(pv),
            is_block: false,
            expansion: None,
            backing,
        })
    }

    /// A volume that the pod has as a block device.
    fn device(&self, volume: &str, read_only: bool, pv: &PersistentVolume) -> Result<External, StepError> {
        let name = pv.metadata.name.clone().unwrap_or_default();
        let spec = pv.spec.clone().unwrap_or_default();
        let fault = |step: &str, why: &str| {
            StepError::Missing(format!("{step} failed for volume \"{name}\" : {why}"))
        };
        let affinity = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        if affinity.is_some_and(|required| !self.is_here(required)) {
            return Err(fault("MapVolume.NodeAffinity check", "no matching NodeSelectorTerms"));
        }
        let backing = if let Some(source) = &spec.local {
            Backing::Local { path: source.path.clone(), mount_options: Vec::new() }
        } else if let Some(source) = &spec.csi {
            let modes = spec.access_modes.clone().unwrap_or_default();
            let mut csi = self.csi(&name, source, &modes, Vec::new(), read_only, true)?;
            csi.takes_group = false;
            csi.volume.fs_group = None;
            Backing::Csi(Box::new(csi))
        } else {
            return Err(StepError::Config(format!(
                "MapVolume.FindMapperPluginBySpec failed to find BlockVolumeMapper plugin for volume \"{name}\" : this node gives local and csi PersistentVolumes as block devices"
            )));
        };
        Ok(External {
            volume: volume.to_owned(),
            name,
            read_only,
            is_for_one: is_for_one(pv),
            is_block: true,
            expansion: None,
            backing,
        })
    }

    fn is_here(&self, required: &NodeSelector) -> bool {
        required
            .node_selector_terms
            .iter()
            .any(|term| node_match::matches(term, self.node.name, self.node.labels))
    }
}

enum NotBound {
    /// Said after the claim's name.
    OfClaim(String),
    Whole(String),
}

/// Whether one pod alone may have it. Of several access modes it is not known which one the pod uses.
fn is_for_one(pv: &PersistentVolume) -> bool {
    let modes = pv.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    matches!(modes, Some([mode]) if mode == "ReadWriteOncePod")
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
