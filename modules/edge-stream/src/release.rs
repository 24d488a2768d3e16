//! What somebody on the node lets go on: an upgrade that waits for a confirmation (`POST /api/v1/taskupgrade/confirm-upgrade`), and the
//! release of pods that are held (`edge.kubeedge.io/hold-upgrade`), as KubeEdge's edge API has it: `POST
//! /api/v1/pods/unhold-upgrade` with `NAMESPACE/NAME`, and `POST /api/v1/nodes/unhold-upgrade` for all of the node. Only on the node
//! itself.

use apimachinery::NamespacedName;
use contract::TaskKind;
use contract::ids::HOLD_UPGRADE_ANNOTATION;
use contract::node_task;
use contract::rows::{CONFIRMED_TASKS_FACT, RELEASED_PODS_FACT};
use edge_store::{Store, Table, Write};
use http::StatusCode;
use serde_json::Value;

use crate::pods::{KnownPod, Pods};

/// 4 KiB: two names and a `/` are shorter.
pub(crate) const BODY_MAX: usize = 4096;

/// What is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    OnePod,
    AllPods,
    /// The upgrades of NodeUpgradeJobs that ask for it.
    Upgrades,
}

/// Which it is that a request asks for.
pub(crate) fn of_request(method: &str, path: &str) -> Option<Release> {
    match (method, path) {
        ("POST", "/api/v1/pods/unhold-upgrade") => Some(Release::OnePod),
        ("POST", "/api/v1/nodes/unhold-upgrade") => Some(Release::AllPods),
        ("POST", "/api/v1/taskupgrade/confirm-upgrade") => Some(Release::Upgrades),
        _ => None,
    }
}

/// What is answered: the status and a sentence.
pub(crate) type Said = (StatusCode, String);

/// What is let go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The uid of the pod or the job.
    uid: String,
    /// Of a job: the mark of what it says now, beyond which nothing is confirmed. Of a pod empty.
    mark: String,
    /// Of a job: what somebody confirms by it.
    shown: Option<String>,
}

impl Found {
    fn pod(uid: &str) -> Found {
        Found { uid: uid.to_owned(), mark: String::new(), shown: None }
    }

    fn upgrade((uid, name, job): (String, String, Value)) -> Found {
        let text = |pointer: &str| job.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let digest = match std::env::consts::ARCH {
            "aarch64" => text("/spec/imageDigestGatter/arm64"),
            _ => text("/spec/imageDigestGatter/amd64"),
        };
        let at = if digest.is_empty() { "" } else { "@" };
        let shown =
            format!("{name}: edgecore {} of {}{at}{digest}", text("/spec/version"), text("/spec/image"));
        let mark = node_task::acted_upon(TaskKind::NodeUpgrade, &job);
        Found { uid, mark, shown: Some(node_task::sentence(&shown)) }
    }
}

/// The uid of a pod that waits for its release.
fn held_uid(pod: &KnownPod) -> Result<&str, &'static str> {
    let annotation = format!("/metadata/annotations/{}", HOLD_UPGRADE_ANNOTATION.replace('/', "~1"));
    if pod.pod.pointer(&annotation).and_then(Value::as_str) != Some("true") {
        return Err("has no annotation edge.kubeedge.io/hold-upgrade: \"true\"");
    }
    let phase = pod.status().and_then(|status| status["phase"].as_str()).unwrap_or("Pending");
    if phase == "Pending" { Ok(pod.uid()) } else { Err("is not Pending: it has begun already") }
}

/// Looks which pods are meant. Blocks.
///
/// # Errors
/// Why none is.
pub(crate) fn found(pods: &Pods, release: Release, body: &str) -> Result<Vec<Found>, Said> {
    let unreadable = |error: std::io::Error| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("the node's store cannot be read: {error}"))
    };
    match release {
        Release::OnePod => {
            let name =
                body.trim().split_once('/').filter(|(space, name)| !space.is_empty() && !name.is_empty());
            let Some((space, name)) = name else {
                return Err((StatusCode::BAD_REQUEST, "write NAMESPACE/NAME of a pod".to_owned()));
            };
            let shown: String = body.trim().chars().filter(|letter| !letter.is_control()).take(128).collect();
            let name = NamespacedName { namespace: space.to_owned(), name: name.to_owned() };
            let found = pods.find(&name).map_err(unreadable)?;
            let pod =
                found.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod {shown} is not on this node")))?;
            let uid =
                held_uid(&pod).map_err(|why| (StatusCode::BAD_REQUEST, format!("pod {shown} {why}")))?;
            Ok(vec![Found::pod(uid)])
        }
        Release::AllPods => {
            let mut all = Vec::new();
            for key in pods.keys().map_err(unreadable)? {
                let Some(pod) = pods.find(&key.namespaced_name()).map_err(unreadable)? else { continue };
                all.extend(held_uid(&pod).ok().map(Found::pod));
            }
            Ok(all)
        }
        Release::Upgrades => {
            let waiting = pods.upgrades_to_confirm().map_err(unreadable)?;
            if waiting.is_empty() {
                let why = "no upgrade of this node asks for a confirmation (requireConfirmation)".to_owned();
                return Err((StatusCode::NOT_FOUND, why));
            }
            Ok(waiting.into_iter().map(Found::upgrade).collect())
        }
    }
}

/// Keeps that they are released: Edged and TaskManager look there.
pub(crate) async fn keep(store: &Store, release: Release, found: Vec<Found>) -> Said {
    let mut said = format!(": {}", found.len());
    for shown in found.iter().filter_map(|one| one.shown.as_deref()) {
        said.push_str("\n  ");
        said.push_str(shown);
    }
    let (fact, word) = match release {
        Release::OnePod | Release::AllPods => (RELEASED_PODS_FACT, "released"),
        Release::Upgrades => (CONFIRMED_TASKS_FACT, "confirmed"),
    };
    let row = |found: Found| Write::PutRow {
        table: Table::Facts,
        key1: fact.to_owned(),
        key2: found.uid,
        value: found.mark.into_bytes(),
    };
    match store.commit(found.into_iter().map(row).collect()).await {
        Ok(_) => (StatusCode::OK, format!("{word}{said}")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("it is not kept: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::ObjectKey;
    use edge_store::Options;
    use serde_json::json;

    async fn put(store: &Store, name: &str, annotation: &str, phase: &str) {
        let pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("u-{name}"),
            "annotations": {"edge.kubeedge.io/hold-upgrade": annotation}}, "spec": {"nodeName": "edge-1"}});
        let key = ObjectKey::new(contract::ids::PODS, "shop", name);
        let object = Write::PutObject {
            key,
            uid: format!("u-{name}"),
            content_hash: "1".into(),
            resource_version: "1".into(),
            json: pod.to_string().into_bytes(),
        };
        let status = Write::PutRow {
            table: Table::PodStatuses,
            key1: format!("u-{name}"),
            key2: String::new(),
            value: json!({ "phase": phase }).to_string().into_bytes(),
        };
        store.commit(vec![object, status]).await.unwrap();
    }

    #[tokio::test]
    async fn what_waits_is_released_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        for (name, annotation, phase) in [
            ("waits", "true", "Pending"),
            ("waits-too", "true", "Pending"),
            ("runs", "true", "Running"),
            ("plain", "false", "Pending"),
        ] {
            put(&store, name, annotation, phase).await;
        }
        let pods = Pods::new(store.clone(), "edge-1");
        let uids = |found: Vec<Found>| found.into_iter().map(|one| one.uid).collect::<Vec<_>>();
        let of =
            |body: &str| found(&pods, Release::OnePod, body).map(uids).map_err(|(status, _)| status.as_u16());
        assert_eq!(of("shop/waits\n"), Ok(vec!["u-waits".to_owned()]));
        assert_eq!([of("shop/runs"), of("shop/plain"), of("shop"), of("/")], [(); 4].map(|()| Err(400)));
        assert_eq!(of("shop/absent"), Err(404));
        let all = found(&pods, Release::AllPods, "").unwrap();
        let mut names: Vec<&str> = all.iter().map(|one| one.uid.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["u-waits", "u-waits-too"]);
        assert_eq!(keep(&store, Release::AllPods, all).await, (StatusCode::OK, "released: 2".to_owned()));
        let rows = store.list_rows(Table::Facts, Some(RELEASED_PODS_FACT)).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(of_request("POST", "/api/v1/pods/unhold-upgrade"), Some(Release::OnePod));
        assert_eq!(of_request("GET", "/api/v1/pods/unhold-upgrade"), None);
    }

    #[tokio::test]
    async fn an_upgrade_that_asks_for_it_is_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let pods = Pods::new(store.clone(), "edge-1");
        assert_eq!(found(&pods, Release::Upgrades, "").unwrap_err().0, StatusCode::NOT_FOUND);
        for (name, asks) in [("asks", true), ("does-not", false)] {
            let job =
                json!({"spec": {"version": "v0.2.0", "image": "r/p\u{1b}", "requireConfirmation": asks}});
            let object = Write::PutObject {
                key: ObjectKey::new(contract::ids::NODE_UPGRADE_JOBS, "", name),
                uid: format!("u-{name}"),
                content_hash: "1".into(),
                resource_version: "1".into(),
                json: job.to_string().into_bytes(),
            };
            store.commit(vec![object]).await.unwrap();
        }
        let waiting = found(&pods, Release::Upgrades, "").unwrap();
        assert_eq!(waiting.iter().map(|one| one.uid.as_str()).collect::<Vec<_>>(), ["u-asks"]);
        let said = keep(&store, Release::Upgrades, waiting).await;
        assert_eq!(said, (StatusCode::OK, "confirmed: 1\n  asks: edgecore v0.2.0 of r/p".to_owned()));
        let rows = store.list_rows(Table::Facts, Some(CONFIRMED_TASKS_FACT)).unwrap();
        assert_eq!(rows.len(), 1);
        let job = json!({"spec": {"version": "v0.2.0", "image": "r/p\u{1b}", "requireConfirmation": true}});
        let mark = node_task::acted_upon(TaskKind::NodeUpgrade, &job);
        assert_eq!(rows[0].value, mark.as_bytes(), "what was shown is what is confirmed");
        let path = "/api/v1/taskupgrade/confirm-upgrade";
        assert_eq!(of_request("POST", path), Some(Release::Upgrades));
    }
}
