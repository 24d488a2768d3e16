//! What somebody on the node lets go on: an upgrade that waits for a confirmation (`POST /api/v1/taskupgrade/confirm-upgrade`), and the
//! release of pods that are held (`edge.kubeedge.io/hold-upgrade`), as KubeEdge's edge API has it: `POST
//! /api/v1/pods/unhold-upgrade` with `NAMESPACE/NAME`, and `POST /api/v1/nodes/unhold-upgrade` for all of the node. Only on the node
//! itself.

use apimachinery::NamespacedName;
use contract::ids::HOLD_UPGRADE_ANNOTATION;
use contract::node_task;
use contract::rows::{CONFIRMED_TASKS_FACT, RELEASED_PODS_FACT};
use edge_store::{Store, Table, Write};
use http::StatusCode;
use serde_json::{Value, json};

use crate::pods::{KnownPod, Pods, WaitingUpgrade};

/// 4 KiB: two names and a `/` are shorter.
pub(crate) const BODY_MAX: usize = 4096;

/// What is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    OnePod,
    AllPods,
    /// Upgrades of NodeUpgradeJobs that ask for it.
    Upgrades,
    /// None: which of them wait is told.
    WaitingUpgrades,
}

/// Which it is that a request asks for.
pub(crate) fn of_request(method: &str, path: &str) -> Option<Release> {
    match (method, path) {
        ("POST", "/api/v1/pods/unhold-upgrade") => Some(Release::OnePod),
        ("POST", "/api/v1/nodes/unhold-upgrade") => Some(Release::AllPods),
        ("POST", "/api/v1/taskupgrade/confirm-upgrade") => Some(Release::Upgrades),
        ("GET", "/api/v1/taskupgrade/confirm-upgrade") => Some(Release::WaitingUpgrades),
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
    /// The name of the job.
    name: String,
    /// Of a job: the mark of what it says now, beyond which nothing is confirmed. Of a pod empty.
    mark: String,
    /// Of a job: what somebody confirms by it.
    shown: Option<String>,
}

impl Found {
    fn pod(uid: &str) -> Found {
        Found { uid: uid.to_owned(), name: String::new(), mark: String::new(), shown: None }
    }

    fn upgrade(WaitingUpgrade { uid, name, job, part }: WaitingUpgrade) -> Found {
        let text = |pointer: &str| job.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let digest = match std::env::consts::ARCH {
            "aarch64" => text("/spec/imageDigestGatter/arm64"),
            _ => text("/spec/imageDigestGatter/amd64"),
        };
        let at = if digest.is_empty() { "" } else { "@" };
        let sum = if part.sum.is_empty() { "not known" } else { &part.sum };
        let made = match text("/metadata/creationTimestamp") {
            "" => String::new(),
            time => format!("made {time}, "),
        };
        // What is longest stands last.
        let shown = format!(
            "{name}: NodeUpgradeJob, {made}edgecore {}; SHA-256 of what was pulled: {sum}; from {}{at}{digest}",
            text("/spec/version"),
            text("/spec/image")
        );
        Found { uid, name, mark: part.mark, shown: Some(node_task::sentence(&shown)) }
    }
}

/// Those that are named, by their names or uids; without any the one that waits, as KubeEdge has it.
fn chosen(waiting: Vec<Found>, named: &str) -> Result<Vec<Found>, Said> {
    let names: Vec<&str> = named.split_whitespace().collect();
    let list = |waiting: &[Found]| -> String {
        waiting.iter().filter_map(|one| Some(format!("\n  {}", one.shown.as_deref()?))).collect()
    };
    if names.is_empty() && waiting.len() > 1 {
        let why = format!("{} upgrades wait: name the one that is meant{}", waiting.len(), list(&waiting));
        return Err((StatusCode::CONFLICT, why));
    }
    let is_named = |one: &Found, name: &str| one.name == name || one.uid == name;
    if let Some(absent) = names.iter().find(|name| !waiting.iter().any(|one| is_named(one, name))) {
        let absent: String = absent.chars().filter(|letter| !letter.is_control()).take(128).collect();
        let why = format!("no upgrade by the job {absent} waits for a confirmation{}", list(&waiting));
        return Err((StatusCode::NOT_FOUND, why));
    }
    let is_meant = |one: &Found| names.is_empty() || names.iter().any(|name| is_named(one, name));
    Ok(waiting.into_iter().filter(is_meant).collect())
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
        Release::Upgrades | Release::WaitingUpgrades => {
            let waiting = pods.upgrades_to_confirm().map_err(unreadable)?;
            if waiting.is_empty() {
                let why = "no upgrade waits for a confirmation on this node (requireConfirmation; what is still pulled does not wait yet)";
                return Err((StatusCode::NOT_FOUND, why.to_owned()));
            }
            let waiting = waiting.into_iter().map(Found::upgrade).collect();
            if release == Release::Upgrades { chosen(waiting, body) } else { Ok(waiting) }
        }
    }
}

/// Which upgrades wait, as JSON: `name`, `uid` and `shown` of each.
fn listed(found: &[Found]) -> Said {
    let one = |one: &Found| json!({"name": one.name, "uid": one.uid, "shown": one.shown});
    let list: Vec<Value> = found.iter().map(one).collect();
    (StatusCode::OK, Value::Array(list).to_string())
}

/// Keeps that they are released: Edged and TaskManager look there. Nothing where it is only asked which wait.
pub(crate) async fn keep(store: &Store, release: Release, found: Vec<Found>) -> Said {
    let mut said = format!(": {}", found.len());
    for shown in found.iter().filter_map(|one| one.shown.as_deref()) {
        said.push_str("\n  ");
        said.push_str(shown);
    }
    let (fact, word) = match release {
        Release::OnePod | Release::AllPods => (RELEASED_PODS_FACT, "released"),
        Release::Upgrades => (CONFIRMED_TASKS_FACT, "confirmed"),
        Release::WaitingUpgrades => return listed(&found),
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
    use contract::TaskKind;
    use contract::rows::NODE_TASKS_FACT;
    use edge_store::Options;

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

    /// A job that asks for a confirmation or does not, and how far its part is.
    async fn put_job(store: &Store, name: &str, asks: bool, row: &str) -> String {
        let job = json!({"spec": {"version": "v0.2.0", "image": "r/p\u{1b}", "requireConfirmation": asks}});
        let object = Write::PutObject {
            key: ObjectKey::new(contract::ids::NODE_UPGRADE_JOBS, "", name),
            uid: format!("u-{name}"),
            content_hash: "1".into(),
            resource_version: "1".into(),
            json: job.to_string().into_bytes(),
        };
        let mark = node_task::acted_upon(TaskKind::NodeUpgrade, &job);
        let part = Write::PutRow {
            table: Table::Facts,
            key1: NODE_TASKS_FACT.to_owned(),
            key2: format!("u-{name}"),
            value: row.replacen("MARK", &mark, 1).into_bytes(),
        };
        store.commit(vec![object, part]).await.unwrap();
        mark
    }

    const FETCHED: &str = r#"{"v":1,"phase":"InProgress","of":"MARK","actions":[{"action":"Check","ok":true,"time":"t"}],"sum":"5a"}"#;

    #[tokio::test]
    async fn an_upgrade_that_waits_is_shown_and_confirmed_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let pods = Pods::new(store.clone(), "edge-1");
        let asked = |release: Release, body: &str| match found(&pods, release, body) {
            Ok(found) => Ok(found.into_iter().map(|one| one.uid).collect::<Vec<_>>()),
            Err((status, said)) => Err((status.as_u16(), said)),
        };
        let confirm = |body: &str| asked(Release::Upgrades, body);
        assert_eq!(confirm("").unwrap_err().0, 404);
        let mark = put_job(&store, "asks", true, FETCHED).await;
        put_job(&store, "does-not", false, FETCHED).await;
        put_job(&store, "is-pulled", true, r#"{"v":1,"phase":"InProgress","of":"MARK","fit":true}"#).await;
        put_job(&store, "has-changed", true, &FETCHED.replace("MARK", "another")).await;
        put_job(&store, "is-over", true, &FETCHED.replace("InProgress", "Failure")).await;
        let only = Ok(vec!["u-asks".to_owned()]);
        assert_eq!((confirm(""), confirm("asks"), confirm("u-asks")), (only.clone(), only.clone(), only));
        assert_eq!(confirm("is-pulled").unwrap_err().0, 404);
        let shown = "asks: NodeUpgradeJob, edgecore v0.2.0; SHA-256 of what was pulled: 5a; from r/p";
        let waiting = found(&pods, Release::WaitingUpgrades, "").unwrap();
        let list = json!([{"name": "asks", "uid": "u-asks", "shown": shown}]);
        assert_eq!(keep(&store, Release::WaitingUpgrades, waiting).await, (StatusCode::OK, list.to_string()));
        let rows = || store.list_rows(Table::Facts, Some(CONFIRMED_TASKS_FACT)).unwrap();
        assert_eq!(rows().len(), 0, "who asks confirms nothing");

        put_job(&store, "asks-too", true, FETCHED).await;
        let (status, why) = confirm("").unwrap_err();
        assert!(status == 409 && why.contains("asks: Node") && why.contains("asks-too: Node"), "{why}");
        let one = found(&pods, Release::Upgrades, "asks").unwrap();
        let said = keep(&store, Release::Upgrades, one).await;
        assert_eq!(said, (StatusCode::OK, format!("confirmed: 1\n  {shown}")));
        assert_eq!(rows().len(), 1);
        assert_eq!(rows()[0].value, mark.as_bytes(), "what was shown is what is confirmed");
        assert_eq!(confirm(""), Ok(vec!["u-asks-too".to_owned()]), "what is confirmed waits no more");
        let path = "/api/v1/taskupgrade/confirm-upgrade";
        assert_eq!(of_request("POST", path), Some(Release::Upgrades));
        assert_eq!(of_request("GET", path), Some(Release::WaitingUpgrades));
    }
}
