//! Volumes that something outside the pod's folder holds: mounted before the pod's own are made, and unmounted before its
//! folder goes. CSI volumes are EdgeCsi's; here they are worked out and asked for.

use std::path::PathBuf;
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
use crate::pod::backoff;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::pod::unending::{self, HangsOn};
use crate::volumes::claims::{self, Backing, CsiBacking, External, NodeFacts};
use crate::volumes::expansion;
use crate::volumes::ownership::Group;
use crate::volumes::{self, PreparedVolumes, Tokens, Volume, VolumeLocation, external, ownership};

/// 2 min 3 s: so long a kubelet waits for the volumes of a pod before it looks at the pod again. Longer than what mounts one may take
/// (`volumes/mount_program`), so that its own words are those that are said.
pub(crate) const MOUNT_DEADLINE: Duration = Duration::from_secs(123);
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
    /// Why volumes that were mounted before cannot be brought up to date, each in a sentence: they stay as they are.
    pub(crate) stale: Vec<String>,
    /// Why volumes are not there, each by itself.
    pub(crate) failed: Vec<StepError>,
}

/// Mounts what the pod's containers use. `before`: the volumes of a pod that had all of them once.
pub(crate) async fn set_up(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    before: Option<&PreparedVolumes>,
) -> Result<Mounted, StepError> {
    if !claims::has_external(pod) {
        return Ok(Mounted::default());
    }
    let (wanted, missing) = look(deps, pod).await?;
    let results = join_all(wanted.iter().map(|one| mount_one(deps, pod, one))).await;
    let results = wanted.into_iter().map(|one| one.volume).zip(results).collect();
    Ok(together(pod, before, missing, results, deps.now()))
}

/// A volume that is mounted, and when it is to be looked at again.
type MountResult = Result<(Volume, Option<Moment>), StepError>;

/// All are tried, and each that fails is said. A pod that has never had its volumes waits for all of them; of one that has had
/// them each that fails stays as it was, and keeps nothing from the others.
fn together(
    pod: &ParsedPod,
    before: Option<&PreparedVolumes>,
    missing: Vec<StepError>,
    results: Vec<(String, MountResult)>,
    now: Moment,
) -> Mounted {
    let mut mounted = Mounted { failed: missing, ..Mounted::default() };
    for (name, result) in results {
        match result {
            Ok((volume, again)) => {
                mounted.volumes.insert(name, volume);
                mounted.again = mounted.again.into_iter().chain(again).min();
            }
            Err(error) => mounted.failed.push(error),
        }
    }
    let Some(before) = before.filter(|_| !mounted.failed.is_empty()) else { return mounted };
    for volume in pod.spec().volumes.iter().flatten().filter(|volume| claims::is_external(volume)) {
        if let Some(old) = before.get(&volume.name) {
            mounted.volumes.entry(volume.name.clone()).or_insert_with(|| old.clone());
        }
    }
    mounted.again = mounted.again.into_iter().chain([now + backoff::FIRST]).min();
    mounted.stale = mounted.failed.drain(..).map(|error| error.to_string()).collect();
    mounted
}

/// What is wanted, by the store, and why it is not all.
async fn look(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
) -> Result<(Vec<External>, Vec<StepError>), StepError> {
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
        Ok(claims::external(&pod, &volumes::used(&pod), &node, &find))
    };
    blocking(&deps.env, "read objects from the store", look).await
}

async fn mount_one(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    wanted: &External,
) -> Result<(Volume, Option<Moment>), StepError> {
    let (root, of, own) = (deps.settings.root.clone(), Arc::clone(pod), wanted.clone());
    let mount = move || {
        let root = folders::root(&root)?;
        let nobodys = || StepError::Config(format!("volume {} is nobody's", own.name));
        let mounted = external::set_up(&root, &of.id.uid, &own)?.ok_or_else(nobodys)?;
        let is_local = matches!(own.backing, Backing::Local { .. }) && !own.is_block;
        external::has_no_other(&root, &of.id.uid, &own, &mounted)?;
        let said = if is_local && !own.read_only { give_local(&root, &of, &own, &mounted)? } else { None };
        Ok((mounted.volume, said))
    };
    let place = place(deps, pod, wanted);
    let on = match &wanted.backing {
        Backing::Nfs { server, .. } => HangsOn::Server(server.clone()),
        Backing::Local { path, .. } => HangsOn::Host(path.into()),
        Backing::HostPath(source) => HangsOn::Host((&source.path).into()),
        Backing::Csi(backing) => return mount_csi(deps, pod, wanted, backing).await,
    };
    let mounted = unending::run(&deps.env, on, &place, MOUNT_DEADLINE, "mount a volume in", mount);
    let (volume, said) = mounted.await?;
    if let Some(text) = said {
        deps.event(&pod.id, EventType::Warning, "AlreadyMountedVolume", &text);
    }
    Ok((volume, None))
}

/// What is worked on, for [`unending`].
fn place(deps: &Dependencies, pod: &ParsedPod, wanted: &External) -> PathBuf {
    deps.settings.root.join(layout::pod(&pod.id.uid)).join(&wanted.volume)
}

/// Gives the files of a local disk to the pod's group, as a kubelet does: once, when it mounts it, and not if another pod has it.
/// Then the disk stays that one's, which is said.
fn give_local(
    root: &Folder,
    pod: &ParsedPod,
    wanted: &External,
    mounted: &external::Mounted,
) -> Result<Option<String>, StepError> {
    let (Some(group), VolumeLocation::Ours(at)) = (group(pod), &mounted.volume.at) else { return Ok(None) };
    let mark = layout::given(&pod.id.uid, "local-volume", &wanted.name);
    if mounted.is_new && external::others_mount(root, &pod.id.uid, at)?.is_some() {
        ownership::set_given(root, &mark)?;
        let old = root.below(at)?.stat()?.st_gid;
        let new = group.number;
        return Ok((old != new).then(|| {
            format!(
                "The requested fsGroup is {new}, but the volume {} has GID {old}. The volume may not be shareable.",
                wanted.name
            )
        }));
    }
    ownership::give_once(root, at, &mark, group, mounted.is_new)
        .map_err(|error| not_given(wanted, &error))?;
    Ok(None)
}

fn not_given(wanted: &External, error: &StepError) -> StepError {
    let name = &wanted.name;
    StepError::Missing(format!(
        "MountVolume.SetUp failed for volume \"{name}\" : applyFSGroup failed for vol {name}: {error}"
    ))
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
    if !mounted.has_group && backing.takes_group {
        give(deps, pod, wanted, &volume, mounted.is_new).await?;
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
        let kept = deps.report(&expansion.report(state, message)).await;
        if let Err(error) = &kept {
            events::report_not_kept(&deps.env, "size of a claim", error);
        }
        kept.is_ok()
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
            }
            // Also of what was done before: the claim does not say so yet, and who was to tell it may have been cut short.
            let is_told = told("Finished", "").await;
            (!is_told).then(|| deps.now() + EXPAND_AGAIN)
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

/// The group of the pod's files, if it has one.
fn group(pod: &ParsedPod) -> Option<Group> {
    let policy = pod.spec().security_context.as_ref().and_then(|own| own.fs_group_change_policy.as_deref());
    Some(Group { number: claims::fs_group(pod)?, only_at_the_root: policy == Some("OnRootMismatch") })
}

/// Gives the files of a CSI volume to the pod's group. `is_new`: it was mounted now.
async fn give(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    wanted: &External,
    volume: &Volume,
    is_new: bool,
) -> Result<(), StepError> {
    let (Some(group), VolumeLocation::Ours(at)) = (group(pod), &volume.at) else { return Ok(()) };
    let (root, at) = (deps.settings.root.clone(), at.clone());
    let on = HangsOn::Ours { root: root.clone(), at: at.clone() };
    let mark = layout::given(&pod.id.uid, "csi", &wanted.name);
    let give = move || ownership::give_once(&folders::root(&root)?, &at, &mark, group, is_new);
    let place = place(deps, pod, wanted);
    let what = "give the files to the group in";
    let given = unending::run(&deps.env, on, &place, MOUNT_DEADLINE, what, give).await;
    given.map_err(|error| not_given(wanted, &error))
}

/// Unmounts what the pod has of others: drivers are asked, and local disks and NFS taken off.
pub(crate) async fn tear_down(deps: &Dependencies, pod: &PodId) -> Result<(), StepError> {
    let (root, uid) = (deps.settings.root.clone(), pod.uid.clone());
    let detach = move || {
        let Some(root) = Folder::find_root(&root)? else { return Ok(()) };
        detach(&root, &uid)
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

/// Takes off what edgecore itself has mounted of others' volumes. The sub-paths first, of whatever volume: each holds its file system,
/// and a driver that looks would find it busy, or the controller detach a disk that is mounted still.
fn detach(root: &Folder, uid: &str) -> Result<(), StepError> {
    root.detach_below(&layout::sub_paths(uid))?;
    for kind in ["local-volume", "nfs"] {
        root.detach_below(&layout::volumes(uid, kind))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::disk::beneath::Access;
    use crate::pod::parsed_pod::tests::pod;
    use crate::volumes::TokenRequest;

    fn at(place: &str) -> Volume {
        Volume { at: VolumeLocation::Ours(place.into()), read_only: false }
    }

    #[test]
    fn one_volume_that_fails_keeps_nothing_from_the_others_of_a_pod_that_has_had_them() {
        let claim = |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        let pod = pod(json!({"containers": [{"name": "c", "image": "x"}],
            "volumes": [claim("a"), claim("b"), claim("c"), {"name": "own", "emptyDir": {}}]}));
        let now = Moment(Duration::from_secs(1000));
        let in_a_minute = now + REPUBLISH_AFTER;
        let failed = || StepError::Missing("the driver is gone".to_owned());
        let results =
            || vec![("a".to_owned(), Err(failed())), ("b".to_owned(), Ok((at("new-b"), Some(in_a_minute))))];
        let missing = StepError::Missing("c is not bound".to_owned());
        // A first set-up is whole or none.
        let first = together(&pod, None, vec![missing.clone()], results(), now);
        assert_eq!((first.failed, first.stale), (vec![missing.clone(), failed()], Vec::new()));
        let before = ["a", "b", "c", "own"].map(|name| (name.to_owned(), at(name)));
        let before = PreparedVolumes::from(before);
        let kept = together(&pod, Some(&before), vec![missing.clone()], results(), now);
        let there =
            [("a", "a"), ("b", "new-b"), ("c", "c")].map(|(name, place)| (name.to_owned(), at(place)));
        assert_eq!(kept.volumes, PreparedVolumes::from(there));
        assert_eq!((kept.stale, kept.failed), (vec![missing.to_string(), failed().to_string()], Vec::new()));
        assert_eq!(kept.again, Some(now + backoff::FIRST), "what failed is tried again, and b in time");
        let fine = together(&pod, Some(&before), Vec::new(), vec![results().remove(1)], now);
        assert_eq!((fine.stale, fine.failed, fine.again), (Vec::new(), Vec::new(), Some(in_a_minute)));
    }

    #[test]
    fn sub_paths_go_before_the_volumes_that_they_are_of() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let volume = layout::volume("u", "csi", "pv").join("mount");
        root.make(&volume, Access::mode(0o750)).unwrap();
        let Ok(shown) = root.tmpfs(&volume, None, 16) else { return };
        let other = layout::sub_path("v", "c", "data", 0);
        let own = layout::sub_path("u", "c", "data", 0);
        for place in [&own, &other] {
            root.show(&shown.sub_path(std::path::Path::new("sub")).unwrap(), place).unwrap();
        }
        detach(&root, "u").unwrap();
        assert!(!root.is_mount(&own).unwrap(), "it holds the volume's file system");
        assert!(root.is_mount(&volume).unwrap(), "that is its driver's to unmount");
        assert!(root.is_mount(&other).unwrap(), "that is another pod's");
        root.detach_below(std::path::Path::new("pods")).unwrap();
    }

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
