//! What there is in the API, and who looks at it there.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use harness::objects;
use kube::Client;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::SharedWitness;
use super::plan::{DEPLOYMENTS, Step};
use super::volumes::KEY;

/// The namespace of everything.
const NAMESPACE: &str = "soak-rolling";
/// The config map whose value goes up, the volume that shows it, and how the names of the pods begin that have it.
pub(super) const COUNTER: &str = "counter";
/// What the runtimes have.
pub(super) const IMAGE: &str = "soak.test/web:1";
/// 8 requests at once.
const AT_ONCE: usize = 8;
/// A second between two values.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// 100 ms until what a watch has ended at is listed: a server that ends each at once is not asked all the time.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The cluster as its administrator has it.
#[derive(Clone)]
pub(super) struct Objects {
    client: Client,
}

impl Objects {
    pub(super) fn new(client: Client) -> Objects {
        Objects { client }
    }

    fn of(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        objects(self.client.clone(), api_version, kind, Some(NAMESPACE))
    }

    fn nodes(&self) -> Api<DynamicObject> {
        objects(self.client.clone(), "v1", "Node", None)
    }

    /// The namespace with the config map and the Deployments, which want no pod yet.
    pub(super) async fn make(&self) -> Result<()> {
        let namespaces = objects(self.client.clone(), "v1", "Namespace", None);
        let namespace =
            object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))?;
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("make the namespace {NAMESPACE}: delete the one of an earlier run"))?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": COUNTER}, "data": {KEY: "0"}});
        self.of("v1", "ConfigMap")
            .create(&PostParams::default(), &object(map)?)
            .await
            .context("make the config map")?;
        for at in 0..DEPLOYMENTS {
            let deployments = self.of("apps/v1", "Deployment");
            deployments
                .create(&PostParams::default(), &object(deployment(at))?)
                .await
                .context("make a Deployment")?;
        }
        // The controller manager makes it, and no pod is taken before.
        let accounts = self.of("v1", "ServiceAccount");
        while accounts.get_opt("default").await?.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// A pod on each node that shows the config map.
    pub(super) async fn make_counters(&self, nodes: &[String]) -> Result<()> {
        let make = nodes.iter().map(async |node| {
            let pod = object(counter_pod(node))?;
            self.of("v1", "Pod").create(&PostParams::default(), &pod).await.context("make a pod")?;
            anyhow::Ok(())
        });
        futures::stream::iter(make).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The Deployments want as many as the step says.
    pub(super) async fn scale(&self, step: &Step) -> Result<()> {
        for (at, replicas) in step.replicas.iter().enumerate() {
            let patch = json!({"spec": {"replicas": replicas}});
            let deployments = self.of("apps/v1", "Deployment");
            deployments
                .patch(&web(at), &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .context("scale a Deployment")?;
        }
        Ok(())
    }

    /// Deletes pods.
    pub(super) async fn delete(&self, pods: Vec<String>) -> Result<()> {
        let delete = pods.into_iter().map(async |pod| {
            self.of("v1", "Pod").delete(&pod, &DeleteParams::default()).await.context("delete a pod")?;
            anyhow::Ok(())
        });
        futures::stream::iter(delete).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Deletes the namespace and whatever is in it, if it is there.
    pub(super) async fn delete_all(&self) -> Result<()> {
        let namespaces = objects(self.client.clone(), "v1", "Namespace", None);
        deleted(namespaces.delete(NAMESPACE, &DeleteParams::default()).await).context("delete the namespace")
    }

    /// Gives the nodes' names back.
    pub(super) async fn forget(&self, nodes: &[String]) -> Result<()> {
        let register = objects(self.client.clone(), "kubehive.io/v1alpha1", "EdgeNode", None);
        for node in nodes {
            deleted(register.delete(node, &DeleteParams::default()).await).context("free a node's name")?;
            deleted(self.nodes().delete(node, &DeleteParams::default()).await).context("delete a Node")?;
        }
        Ok(())
    }

    /// The Node says that it is not Ready, as nobody but a fault does.
    pub(super) async fn unready(&self, node: &str) -> Result<()> {
        let mut found = whole(&self.nodes().get(node).await.context("read a Node")?)?;
        let conditions = found["status"]["conditions"].as_array_mut().context("it has no conditions")?;
        conditions.retain(|condition| condition["type"] != "Ready");
        let planted =
            json!({"type": "Ready", "status": "False", "reason": "Planted", "message": "on purpose"});
        conditions.push(planted);
        let patch = json!({"status": {"conditions": conditions}});
        self.nodes().patch_status(node, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Sets the counter.
    async fn set(&self, value: u64) -> Result<()> {
        let patch = json!({"data": {KEY: value.to_string()}});
        self.of("v1", "ConfigMap").patch(COUNTER, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Counts for as long as nobody tells it to end. `goes_back` is taken once, and then an old value is written as a fault would.
    pub(super) async fn count(
        self,
        witness: SharedWitness,
        goes_back: watch::Receiver<bool>,
        mut ends: watch::Receiver<bool>,
    ) -> Result<()> {
        let (mut value, mut has_gone_back) = (0, false);
        while !*ends.borrow_and_update() {
            if *goes_back.borrow() && !has_gone_back {
                has_gone_back = true;
                self.set(0).await.context("plant an old value")?;
            } else {
                value += 1;
                {
                    let (now, mut witness) = witness.open();
                    witness.sent(now, value);
                }
                self.set(value).await.context("a change of the config map")?;
                witness.open().1.accepted(value);
            }
            // Ends the pause as well.
            let _ = tokio::time::timeout(COUNT_EVERY, ends.changed()).await;
        }
        Ok(())
    }

    /// Tells all that happens to Nodes.
    pub(super) async fn follow_nodes(self, witness: SharedWitness) -> Result<()> {
        let nodes = self.nodes();
        loop {
            let list = nodes.list(&ListParams::default()).await.context("list Nodes")?;
            for node in &list.items {
                let (now, mut witness) = witness.open();
                witness.node(now, &whole(node)?);
            }
            let from = list.metadata.resource_version.unwrap_or_default();
            follow(&nodes, from, |event| {
                let (now, mut witness) = witness.open();
                match event {
                    Seen::Is(node) => witness.node(now, &node),
                    Seen::Gone(node) => {
                        witness.node_gone(now, node["metadata"]["name"].as_str().unwrap_or_default());
                    }
                }
            })
            .await;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Tells all that happens to pods.
    pub(super) async fn follow_pods(self, witness: SharedWitness) -> Result<()> {
        let pods = self.of("v1", "Pod");
        loop {
            let list = pods.list(&ListParams::default()).await.context("list pods")?;
            let mut gone = witness.open().1.pods();
            for pod in &list.items {
                gone.retain(|uid| pod.metadata.uid.as_ref() != Some(uid));
                let (now, mut witness) = witness.open();
                witness.pod(now, &whole(pod)?);
            }
            for uid in gone {
                let (now, mut witness) = witness.open();
                witness.pod_gone(now, &uid);
            }
            let from = list.metadata.resource_version.unwrap_or_default();
            follow(&pods, from, |event| {
                let (now, mut witness) = witness.open();
                match event {
                    Seen::Is(pod) => witness.pod(now, &pod),
                    Seen::Gone(pod) => {
                        // Its last words may say for the first time that it was deleted.
                        witness.pod(now, &pod);
                        witness.pod_gone(now, pod["metadata"]["uid"].as_str().unwrap_or_default());
                    }
                }
            })
            .await;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

enum Seen {
    Is(Value),
    Gone(Value),
}

/// A watch until it ends, for whatever reason: what there is then is listed.
async fn follow(api: &Api<DynamicObject>, from: String, tell: impl Fn(Seen)) {
    let Ok(events) = api.watch(&WatchParams::default(), &from).await else { return };
    let mut events = events.boxed();
    while let Ok(Some(event)) = events.try_next().await {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => match whole(&object) {
                Ok(object) => tell(Seen::Is(object)),
                Err(_) => return,
            },
            WatchEvent::Deleted(object) => match whole(&object) {
                Ok(object) => tell(Seen::Gone(object)),
                Err(_) => return,
            },
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(_) => return,
        }
    }
}

/// What is not there has been deleted.
fn deleted<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => answer.map(drop),
    }
}

fn whole(object: &DynamicObject) -> Result<Value> {
    serde_json::to_value(object).context("an object that is none")
}

fn object(value: Value) -> Result<DynamicObject> {
    serde_json::from_value(value).context("an object that is none")
}

fn web(at: usize) -> String {
    format!("web-{at}")
}

/// How the names of its pods begin.
pub(super) fn pods_of(at: usize) -> String {
    format!("{}-", web(at))
}

fn deployment(at: usize) -> Value {
    let labels = json!({"app": web(at)});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": web(at), "labels": labels},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "nodeSelector": {contract::ids::EDGE_LABEL: ""},
                // A token is a mount of this machine, and a hundred nodes would read all of them.
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "web", "image": IMAGE}],
            }},
        },
    })
}

fn counter_pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{COUNTER}-{node}")},
        "spec": {
            "nodeName": node, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": COUNTER, "configMap": {"name": COUNTER}}],
            "containers": [{
                "name": "counter", "image": IMAGE, "volumeMounts": [{"name": COUNTER, "mountPath": "/counter"}],
            }],
        },
    })
}
