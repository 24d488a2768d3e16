//! The mirrors of static pods: what the cloud is asked to make and to remove. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::NamespacedName;
use apimachinery::static_pod::MIRROR_ANNOTATION;
use beehive::Moment;
use contract::UpReport;
use k8s_openapi::api::core::v1::PodStatus;

use crate::pod::parsed_pod::ParsedPod;
use crate::static_pods::manifest::StaticPod;

/// 1 min before something is asked for again that did not come to be, as after a namespace was missing; doubled each time.
const AGAIN: Duration = Duration::from_secs(60);
/// 30 min at the longest: a node without a cloud writes it into its outbox again each time.
const AGAIN_MAX: Duration = Duration::from_secs(1800);

/// A mirror as the cloud has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mirror {
    pub(crate) uid: String,
    /// Of the static pod that it shows.
    hash: String,
    /// Somebody has deleted it, which only the node can bring to its end.
    is_deleted: bool,
    pub(crate) status: Option<PodStatus>,
}

/// All mirrors on this node, by their names.
pub(crate) type Mirrors = BTreeMap<NamespacedName, Mirror>;

/// The mirror that a pod of the cloud's is. By its annotation alone: whoever writes that onto a pod makes one that no node
/// runs (Kubernetes: `IsMirrorPod`).
pub(crate) fn mirror(pod: &ParsedPod) -> Option<Mirror> {
    let hash = pod.pod.metadata.annotations.as_ref()?.get(MIRROR_ANNOTATION)?;
    Some(Mirror {
        uid: pod.id.uid.clone(),
        hash: hash.clone(),
        is_deleted: pod.is_terminating(),
        status: pod.pod.status.clone(),
    })
}

/// Takes the mirrors out of the cloud's pods: they are not run.
pub(crate) fn take(pods: &mut Vec<Arc<ParsedPod>>) -> Mirrors {
    let mut mirrors = Mirrors::new();
    pods.retain(|pod| match mirror(pod) {
        Some(mirror) => {
            mirrors.insert(pod.id.namespaced_name(), mirror);
            false
        }
        None => true,
    });
    mirrors
}

/// The mirror that shows this pod, if there is one.
pub(crate) fn of<'a>(mirrors: &'a Mirrors, pod: &ParsedPod) -> Option<&'a Mirror> {
    mirrors.get(&pod.id.namespaced_name()).filter(|mirror| mirror.hash == pod.id.uid && !mirror.is_deleted)
}

/// What was asked for of a name, and when.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    /// The hash of the mirror; `None`: that there be none.
    wanted: Option<String>,
    /// What there was then: which, of what, and whether it was deleted.
    found: Option<(String, String, bool)>,
    at: Moment,
    pause: Duration,
}

/// What the cloud was asked for.
#[derive(Debug, Default)]
pub(crate) struct Requests(BTreeMap<NamespacedName, Asked>);

impl Requests {
    /// What is to be asked for now, and when to look again though nothing changes. Each thing once, until what there is has
    /// changed and is still not as it should be, or a while has passed.
    pub(crate) fn due<'a>(
        &mut self,
        pods: impl Iterator<Item = &'a StaticPod>,
        mirrors: &Mirrors,
        now: Moment,
    ) -> (Vec<UpReport>, Option<Duration>) {
        let wanted: BTreeMap<NamespacedName, &StaticPod> =
            pods.map(|pod| (pod.parsed.id.namespaced_name(), pod)).collect();
        let is_right = |name: &NamespacedName| match wanted.get(name) {
            Some(pod) => of(mirrors, &pod.parsed).is_some(),
            None => !mirrors.contains_key(name),
        };
        self.0.retain(|name, _| !is_right(name));
        let mut reports = Vec::new();
        let names = wanted.keys().chain(mirrors.keys().filter(|name| !wanted.contains_key(*name)));
        for name in names.filter(|name| !is_right(name)) {
            let pod = wanted.get(name);
            let hash = pod.map(|pod| pod.hash().to_owned());
            let found = mirrors.get(name).map(|own| (own.uid.clone(), own.hash.clone(), own.is_deleted));
            let before = self.0.get(name).filter(|asked| asked.wanted == hash && asked.found == found);
            if before.is_some_and(|asked| now.since(asked.at) < asked.pause) {
                continue;
            }
            let pause = before.map_or(AGAIN, |asked| (asked.pause * 2).min(AGAIN_MAX));
            self.0.insert(name.clone(), Asked { wanted: hash, found, at: now, pause });
            reports.push(UpReport::MirrorPod {
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
                pod_json: pod.map(|pod| pod.mirror_json.clone()),
            });
        }
        let again = self.0.values().map(|asked| asked.pause.saturating_sub(now.since(asked.at))).min();
        (reports, again)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::static_pods::manifest;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn static_pod(image: &str) -> StaticPod {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        );
        manifest::read(text.as_bytes(), Path::new("/web"), "edge-1", "now").unwrap()
    }

    fn in_cloud(of: &StaticPod, uid: &str, is_deleted: bool) -> Arc<ParsedPod> {
        let mut pod: serde_json::Value = serde_json::from_str(&of.mirror_json).unwrap();
        pod["metadata"]["uid"] = uid.into();
        if is_deleted {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(ParsedPod::parse(pod.to_string().as_bytes()).unwrap())
    }

    fn asked(
        requests: &mut Requests,
        pods: &[&StaticPod],
        cloud: &[Arc<ParsedPod>],
        seconds: u64,
    ) -> Vec<String> {
        let mirrors = take(&mut cloud.to_vec());
        let (reports, _) = requests.due(pods.iter().copied(), &mirrors, at(seconds));
        let shown = reports.into_iter().map(|report| match report {
            UpReport::MirrorPod { name, pod_json, .. } => {
                format!("{}{name}", if pod_json.is_some() { '+' } else { '-' })
            }
            other => panic!("{other:?}"),
        });
        shown.collect()
    }

    #[test]
    fn a_mirror_is_asked_for_once_and_again_when_somebody_deleted_it() {
        let (pod, mut requests) = (static_pod("x:1"), Requests::default());
        assert_eq!(asked(&mut requests, &[&pod], &[], 0), ["+web-edge-1"]);
        assert!(asked(&mut requests, &[&pod], &[], 59).is_empty());
        assert_eq!(asked(&mut requests, &[&pod], &[], 60), ["+web-edge-1"], "it did not come");
        assert!(asked(&mut requests, &[&pod], &[], 179).is_empty(), "less and less often");
        assert!(asked(&mut requests, &[&pod], &[in_cloud(&pod, "u1", false)], 180).is_empty());
        assert_eq!(asked(&mut requests, &[&pod], &[in_cloud(&pod, "u1", true)], 181), ["+web-edge-1"]);
        assert_eq!(asked(&mut requests, &[&pod], &[], 182), ["+web-edge-1"], "it is gone");
        assert!(asked(&mut requests, &[&pod], &[in_cloud(&pod, "u2", false)], 183).is_empty());
    }

    #[test]
    fn a_mirror_of_another_version_or_of_nothing_goes() {
        let (old, new, mut requests) = (static_pod("x:1"), static_pod("x:2"), Requests::default());
        let there = [in_cloud(&old, "u1", false)];
        assert_eq!(asked(&mut requests, &[&new], &there, 0), ["+web-edge-1"]);
        assert!(of(&take(&mut there.to_vec()), &new.parsed).is_none(), "it does not speak for the new one");
        assert_eq!(asked(&mut requests, &[], &there, 1), ["-web-edge-1"]);
        assert!(asked(&mut requests, &[], &[], 2).is_empty());
    }

    #[test]
    fn mirrors_are_not_run() {
        let pod = static_pod("x:1");
        let mut plain = (*in_cloud(&pod, "u2", false)).clone();
        plain.pod.metadata.annotations = None;
        plain.id.name = "plain".to_owned();
        let mut pods = vec![in_cloud(&pod, "u1", false), Arc::new(plain)];
        let mirrors = take(&mut pods);
        assert_eq!((pods.len(), pods[0].id.name.as_str(), mirrors.len()), (1, "plain", 1));
        assert_eq!(of(&mirrors, &pod.parsed).map(|mirror| mirror.uid.as_str()), Some("u1"));
    }
}
