//! Volumes that something outside the pod's folder holds: mounted before the pod's own are made, and unmounted before its
//! folder goes. CSI volumes are EdgeCsi's; here they are worked out and asked for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Address, AskError, Moment};
use contract::csi::{CsiFault, CsiMounted, CsiMsg, CsiVolume, ExpandFault};
use futures::future::join_all;
use serde_json::{Map, Value, json};

use crate::dependencies::{Dependencies, blocking};
use crate::disk::beneath::Folder;
use crate::disk::{folders, layout};
use crate::error::StepError;
use crate::events;
use crate::node::status;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::volumes::claims::{self, Backing, CsiBacking, External, NodeFacts};
use crate::volumes::expansion;
use crate::volumes::{self, PreparedVolumes, Tokens, Volume, VolumeLocation, external, ownership};

/// 2 min 3 s: so long a kubelet waits for the volumes of a pod before it looks at the pod again.
const MOUNT_DEADLINE: Duration = Duration::from_secs(123);
/// 60 s: at each look of a kubelet at a pod, one a minute, a driver that wants so is asked again.
const REPUBLISH_AFTER: Duration = Duration::from_secs(60);

/// 2 min 2 s: the longest pause of a kubelet before a volume is tried again.
const EXPAND_AGAIN: Duration = Duration::from_secs(122);

/// What was mounted.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    pub(crate) volumes: PreparedVolumes,
    /// When to look again: tokens age, and some drivers want to be asked now and then.
    pub(crate) again: Option<Moment>,
}

/// Mounts what the pod's containers use.
pub(crate) async fn set_up(deps: &Rc<Dependencies>, pod: &Arc<ParsedPod>) -> Result<Mounted, StepError> {
    if !claims::has_external(pod) {
        return Ok(Mounted::default());
    }
    let wanted = look(deps, pod).await?;
    let results = join_all(wanted.iter().map(|one| mount_one(deps, pod, one))).await;
    let mut mounted = Mounted::default();
    // All are tried, and the first that fails is said.
    for (one, result) in wanted.iter().zip(results) {
        let (volume, again) = result?;
        mounted.volumes.insert(one.volume.clone(), volume);
        mounted.again = mounted.again.into_iter().chain(again).min();
    }
    Ok(mounted)
}

/// What is wanted, by the store.
async fn look(deps: &Rc<Dependencies>, pod: &Arc<ParsedPod>) -> Result<Vec<External>, StepError> {
    let (store, pod, settings) = (deps.store.clone(), Arc::clone(pod), deps.settings.clone());
    let look = move || {
        let labels = store.node_labels(&settings.node_name).unwrap_or_else(|| status::labels(&settings));
        let node = NodeFacts { name: &settings.node_name, labels: &labels };
        let find = |key: &apimachinery::ObjectKey| match store.by_key(key) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%key, %error, "object cannot be read from the store");
                None
            }
        };
        claims::external(&pod, &volumes::used(&pod), &node, &find)
    };
    blocking(&deps.env, "read objects from the store", look).await
}

async fn mount_one(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    wanted: &External,
) -> Result<(Volume, Option<Moment>), StepError> {
    let (root, uid, own) = (deps.settings.root.clone(), pod.id.uid.clone(), wanted.clone());
    if let Backing::Csi(backing) = &wanted.backing {
        return mount_csi(deps, pod, wanted, backing).await;
    }
    let mount = move || external::set_up(&folders::root(&root)?, &uid, &own);
    let mounted = blocking(&deps.env, "mount a volume in", mount).await?;
    let mounted = mounted.ok_or_else(|| StepError::Config(format!("volume {} is nobody's", wanted.name)))?;
    let is_local = matches!(wanted.backing, Backing::Local { .. }) && !wanted.is_block;
    if is_local && mounted.is_new && !wanted.read_only {
        give(deps, pod, wanted, &mounted.volume).await?;
    }
    Ok((mounted.volume, None))
}

async fn mount_csi(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    wanted: &External,
    backing: &CsiBacking,
) -> Result<(Volume, Option<Moment>), StepError> {
    let failed = |step: &str, why: String| {
        StepError::Missing(format!("{step} failed for volume \"{}\" : {why}", wanted.name))
    };
    let (csi_volume, mut again) =
        with_tokens(deps, pod, backing).await.map_err(|why| failed("MountVolume.SetUp", why))?;
    if csi_volume.republish {
        again = again.into_iter().chain([deps.now() + REPUBLISH_AFTER]).min();
    }
    let Some(csi) = &deps.csi else {
        return Err(failed("MountVolume.NewMounter initialization", "this edgecore has no CSI".to_owned()));
    };
    let ask = |reply| CsiMsg::Mount { volume: Box::new(csi_volume.clone()), reply };
    let mounted: CsiMounted = match csi.ask(MOUNT_DEADLINE, ask).await {
        Ok(Ok(mounted)) => mounted,
        Ok(Err(CsiFault { step, reason })) => return Err(failed(step, reason)),
        Err(error) => return Err(unanswered(&wanted.volume, &error)),
    };
    if wanted.is_block {
        again = again.into_iter().chain(expand(deps, pod, wanted, &csi_volume, csi).await).min();
        let at = VolumeLocation::Device(layout::volume_device(&pod.id.uid, "csi", &wanted.name));
        if mounted.is_new {
            let words = format!("MapVolume.MapPodDevice succeeded for volume \"{}\"", wanted.name);
            deps.event(&pod.id, EventType::Normal, "SuccessfulMountVolume", &words);
        }
        return Ok((Volume { at, read_only: wanted.read_only }, again));
    }
    let at = layout::volume(&pod.id.uid, "csi", &wanted.name).join("mount");
    again = again.into_iter().chain(expand(deps, pod, wanted, &csi_volume, csi).await).min();
    let volume = Volume { at: VolumeLocation::Ours(at), read_only: wanted.read_only };
    if mounted.is_new && !mounted.has_group && backing.takes_group {
        give(deps, pod, wanted, &volume).await?;
    }
    Ok((volume, again))
}

/// Makes what is on a volume larger, if its claim says so. A pod never waits for that, and without a cloud it is done all the
/// same and told later. Answers when it is tried again.
async fn expand(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    wanted: &External,
    volume: &CsiVolume,
    csi: &Address<CsiMsg>,
) -> Option<Moment> {
    let expansion = wanted.expansion.as_ref()?;
    let event = |kind, reason: &str, words: &str| deps.event(&pod.id, kind, reason, words);
    let name = &wanted.name;
    if wanted.read_only {
        let words = format!(
            "MountVolume.NodeExpandVolume failed for volume \"{name}\" requested read-only file system"
        );
        event(EventType::Warning, "FileSystemResizeFailed", &words);
        return None;
    }
    let told = async |state: &str, message: &str| {
        if let Err(error) = deps.report(&expansion.report(state, message)).await {
            events::report_not_kept(&deps.env, "size of a claim", &error);
        }
    };
    let result = match expansion.secrets.clone() {
        Ok(secrets) => {
            if expansion.is_pending {
                told("InProgress", "").await;
            }
            let (volume, size) = (Box::new(volume.clone()), expansion.bytes);
            let ask = |reply| CsiMsg::Expand { volume, size, secrets, reply };
            let answer = csi.ask(MOUNT_DEADLINE, ask).await;
            answer.unwrap_or_else(|error| Err(ExpandFault::Uncertain(error.to_string())))
        }
        Err(why) => Err(ExpandFault::Uncertain(why)),
    };
    match result {
        Ok(is_new) => {
            if is_new {
                let node = &deps.settings.node_name;
                let words = format!("MountVolume.NodeExpandVolume succeeded for volume \"{name}\" {node}");
                event(EventType::Normal, "FileSystemResizeSuccessful", &words);
                told("Finished", "").await;
            }
            None
        }
        Err(fault) => {
            let failed = expansion::failed(&volume.driver, fault);
            let why = &failed.why;
            let words = format!("NodeExpandVolume.NodeExpandVolume failed for volume \"{name}\" : {why}");
            event(EventType::Warning, "VolumeResizeFailed", &words);
            if let Some(state) = failed.state {
                told(state, why).await;
            }
            failed.is_tried_again.then(|| deps.now() + EXPAND_AGAIN)
        }
    }
}

fn unanswered(volume: &str, error: &AskError) -> StepError {
    StepError::Missing(format!(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[]: timed out waiting for the condition ({error})"
    ))
}

/// The volume with the tokens that its driver wants, and when they are to be renewed.
async fn with_tokens(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    backing: &CsiBacking,
) -> Result<(CsiVolume, Option<Moment>), String> {
    let mut volume = backing.volume.clone();
    if backing.tokens.is_empty() {
        return Ok((volume, None));
    }
    let granted = deps.tokens.of_pod(pod, &backing.tokens, &deps.store, &deps.meta, &deps.env).await;
    let (tokens, again) = granted.map_err(|why| {
        format!("kubernetes.io/csi: mounter.SetUpAt failed to get service accoount token attributes: failed to fetch token: {why}")
    })?;
    let key = "csi.storage.k8s.io/serviceAccount.tokens".to_owned();
    let target =
        if backing.tokens_are_secrets { &mut volume.publish_secrets } else { &mut volume.publish_attributes };
    target.insert(key, tokens_json(&tokens));
    Ok((volume, again))
}

/// By audience, as the API server would answer a request for each.
fn tokens_json(tokens: &Tokens) -> String {
    let one = |token: &str| {
        let mut status = json!({ "token": token });
        if let Some(expires) = expiration(token) {
            status["expirationTimestamp"] = Value::from(expires);
        }
        status
    };
    let all: Map<String, Value> =
        tokens.iter().map(|(wanted, token)| (wanted.audience.clone(), one(token))).collect();
    Value::Object(all).to_string()
}

/// When a token ends, as it says itself.
fn expiration(token: &str) -> Option<String> {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let ends = claims.get("exp")?.as_i64()?;
    Some(jiff::Timestamp::from_second(ends).ok()?.to_string())
}

/// Gives the files of a volume to the pod's group.
async fn give(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    wanted: &External,
    volume: &Volume,
) -> Result<(), StepError> {
    let (Some(group), VolumeLocation::Ours(at)) = (claims::fs_group(pod), &volume.at) else { return Ok(()) };
    let policy = pod.spec().security_context.as_ref().and_then(|own| own.fs_group_change_policy.as_deref());
    let only_at_the_root = policy == Some("OnRootMismatch");
    let (root, at) = (deps.settings.root.clone(), at.clone());
    let give = move || {
        let folder: Folder = folders::root(&root)?.below(&at)?;
        ownership::give(&folder, group, only_at_the_root)
    };
    let given = blocking(&deps.env, "give the files to the group in", give).await;
    given.map_err(|error| {
        StepError::Missing(format!(
            "MountVolume.SetUp failed for volume \"{}\" : applyFSGroup failed for vol {}: {error}",
            wanted.name, wanted.name
        ))
    })
}

/// Unmounts what the pod has of others: drivers are asked, and local disks and NFS taken off.
pub(crate) async fn tear_down(deps: &Dependencies, pod: &PodId) -> Result<(), StepError> {
    let (root, uid) = (deps.settings.root.clone(), pod.uid.clone());
    let detach = move || {
        let Some(root) = Folder::find_root(&root)? else { return Ok(()) };
        for kind in ["local-volume", "nfs"] {
            root.detach_below(&layout::volumes(&uid, kind))?;
        }
        Ok(())
    };
    blocking(&deps.env, "unmount volumes in", detach).await?;
    let Some(csi) = &deps.csi else { return Ok(()) };
    let ask = |reply| CsiMsg::Unmount { pod_uid: pod.uid.clone(), reply };
    match csi.ask(MOUNT_DEADLINE, ask).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(CsiFault { reason, .. })) => {
            Err(StepError::Missing(format!("volumes are not unmounted: {reason}")))
        }
        Err(error) => Err(StepError::Missing(format!("volumes are not unmounted: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::TokenRequest;

    #[test]
    fn a_driver_is_given_tokens_as_a_kubelet_gives_them() {
        // {"exp":1764000000}
        let token = "x.eyJleHAiOjE3NjQwMDAwMDB9.y";
        let wanted = TokenRequest { audience: "vault".into(), seconds: 600 };
        let text = tokens_json(&Tokens::from([(wanted, token.to_owned())]));
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["vault"]["token"], token);
        assert_eq!(told["vault"]["expirationTimestamp"], "2025-11-24T16:00:00Z");
        assert_eq!(expiration("opaque"), None);
    }
}
