//! What a job asks for, and how far it is, as its object has both. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use contract::node_task::{
    self, IMAGES_MAX, RETRIES_MAX, Release, TIMEOUT_SECONDS, TaskKind, WAITS_FOR_TURN,
};
use contract::{NodeName, ids};
use crd::{ActionStatus, ImageStatus, NodeSelector};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// 1,000 nodes of one job: their status has to fit into one object.
pub const NODES_MAX: usize = 1000;
/// KubeEdge's: how many nodes at once.
const CONCURRENCY: i32 = 1;
/// A day, in seconds.
const TIMEOUT_MAX: i32 = 86_400;
/// What may be looked at on a node.
const CHECK_ITEMS: [&str; 3] = ["cpu", "mem", "disk"];

/// On which nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChoice {
    /// On these.
    Names(Vec<NodeName>),
    /// On the edge nodes with these labels.
    Labels(NodeSelector),
}

/// What a job asks for, as far as the cloud has to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// On which nodes.
    pub nodes: NodeChoice,
    /// How many nodes at once, at least 1.
    pub concurrency: usize,
    /// How long an action may take (`timeoutSeconds`).
    pub timeout: Duration,
    /// How long nothing new may be heard of a node: what an action may take, or several that are told together.
    pub silence: Duration,
    /// Which part of the nodes may fail: 0 to 1.
    pub failure_tolerate: f64,
    /// The Secret that registries are shown: its namespace and name.
    pub image_secret: Option<(String, String)>,
}

impl JobSpec {
    /// Reads a job.
    ///
    /// # Errors
    /// A sentence, which names the field and what it has to be.
    pub fn read(kind: TaskKind, job: &Value) -> Result<JobSpec, String> {
        match kind {
            TaskKind::ImagePrePull => image_pre_pull(&spec(job)?),
            TaskKind::NodeUpgrade => node_upgrade(&spec(job)?),
            TaskKind::ConfigUpdate => config_update(&spec(job)?),
        }
    }
}

/// The nodes that a job names, whatever else it says, and however many there are: whose it is does not follow from whether it makes sense
/// here. `None`: none.
pub fn nodes_of(kind: TaskKind, job: &Value) -> Option<NodeChoice> {
    let spec = job.get("spec")?;
    let spec = match kind {
        TaskKind::ImagePrePull => spec.get("imagePrePullTemplate")?,
        TaskKind::NodeUpgrade | TaskKind::ConfigUpdate => spec,
    };
    let names = spec.get("nodeNames").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<NodeName> = names.filter_map(|name| NodeName::parse(name.as_str()?).ok()).collect();
    if !names.is_empty() {
        return Some(NodeChoice::Names(names));
    }
    let selector = NodeSelector::deserialize(spec.get("labelSelector")?).ok()?;
    (selector != NodeSelector::default()).then_some(NodeChoice::Labels(selector))
}

fn spec<T: DeserializeOwned>(job: &Value) -> Result<T, String> {
    let spec = job.get("spec").ok_or("it has no spec")?;
    T::deserialize(spec).map_err(|error| node_task::sentence(&format!("spec: {error}")))
}

/// What all jobs have.
fn common(job: &crd::NodeJobSpec, check_items: &[String]) -> Result<JobSpec, String> {
    let check = check_items.iter().find(|item| !CHECK_ITEMS.contains(&item.as_str()));
    if let Some(item) = check {
        let item: String = item.chars().take(32).collect();
        return Err(format!("checkItems: `{item}` is none of cpu, mem and disk"));
    }
    let timeout = timeout(job.timeout_seconds)?;
    Ok(JobSpec {
        nodes: choice(&job.node_names, job.label_selector.as_ref())?,
        concurrency: usize::try_from(job.concurrency.unwrap_or(CONCURRENCY)).unwrap_or(1).max(1),
        timeout,
        silence: timeout,
        failure_tolerate: tolerate(&job.failure_tolerate)?,
        image_secret: None,
    })
}

fn choice(names: &[String], selector: Option<&NodeSelector>) -> Result<NodeChoice, String> {
    let selector = selector.filter(|selector| **selector != NodeSelector::default());
    match (names, selector) {
        ([], None) => Err("it names no nodes: write nodeNames, or a labelSelector".to_owned()),
        ([_, ..], Some(_)) => Err("it has nodeNames and a labelSelector: write one of them".to_owned()),
        ([], Some(selector)) => Ok(NodeChoice::Labels(selector.clone())),
        (names, None) => {
            if names.len() > NODES_MAX {
                return Err(format!(
                    "nodeNames has {}, and may have {NODES_MAX}: make several jobs",
                    names.len()
                ));
            }
            let mut seen = BTreeSet::new();
            let parse = |name: &String| NodeName::parse(name).map_err(|error| format!("nodeNames: {error}"));
            let names: Vec<NodeName> = names.iter().map(parse).collect::<Result<_, _>>()?;
            Ok(NodeChoice::Names(names.into_iter().filter(|name| seen.insert(name.clone())).collect()))
        }
    }
}

fn timeout(seconds: Option<i32>) -> Result<Duration, String> {
    let seconds = seconds.filter(|seconds| *seconds != 0).unwrap_or(i32::from(TIMEOUT_SECONDS));
    match u64::try_from(seconds) {
        Ok(whole) if seconds <= TIMEOUT_MAX => Ok(Duration::from_secs(whole)),
        _ => Err(format!("timeoutSeconds is {seconds}; write 1 to {TIMEOUT_MAX}")),
    }
}

/// KubeEdge's text names 0.1 as what is taken if nothing is written; what it does is 0.
fn tolerate(text: &str) -> Result<f64, String> {
    if text.is_empty() {
        return Ok(0.0);
    }
    match text.parse::<f64>() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("failureTolerate is no part of the nodes; write 0 to 1, such as \"0.1\"".to_owned()),
    }
}

fn image_pre_pull(spec: &crd::ImagePrePullJobSpec) -> Result<JobSpec, String> {
    let template = &spec.image_pre_pull_template;
    let images = &template.images;
    if images.is_empty() || images.len() > IMAGES_MAX {
        return Err(format!("images has {}; write 1 to {IMAGES_MAX}", images.len()));
    }
    for image in images {
        let shown: String = image.chars().take(64).flat_map(char::escape_default).collect();
        node_task::check_image(image).map_err(|error| format!("images: `{shown}` {error}"))?;
    }
    if template.retry_times.is_some_and(|times| !(0..=RETRIES_MAX).contains(&times)) {
        return Err(format!("retryTimes is not 0 to {RETRIES_MAX}"));
    }
    let common = common(&template.job, &template.check_items)?;
    Ok(JobSpec { image_secret: secret_name(&template.image_secrets)?, ..common })
}

fn node_upgrade(spec: &crd::NodeUpgradeJobSpec) -> Result<JobSpec, String> {
    let digests = spec.image_digest_gatter.clone().unwrap_or_default();
    Release::read(&spec.version, &spec.image, [&digests.amd64, &digests.arm64])?;
    if digests.registry_api.is_some() {
        return Err(
            "imageDigestGatter.registryAPI: no registry is asked for a digest, write amd64 and arm64"
                .to_owned(),
        );
    }
    Ok(told_together(common(&spec.job, &spec.check_items)?))
}

fn config_update(spec: &crd::ConfigUpdateJobSpec) -> Result<JobSpec, String> {
    node_task::check_fields(&spec.update_fields)?;
    Ok(told_together(common(&spec.job, &[])?))
}

/// BackUp, Upgrade or Update, and RollBack are told together, by whichever edgecore runs then.
fn told_together(spec: JobSpec) -> JobSpec {
    JobSpec { silence: spec.timeout * 3, ..spec }
}

fn secret_name(text: &str) -> Result<Option<(String, String)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.split_once('/') {
        Some((namespace, name)) if ids::is_dns1123_label(namespace) && ids::is_dns1123_subdomain(name) => {
            Ok(Some((namespace.to_owned(), name.to_owned())))
        }
        _ => Err("imageSecrets is no NAMESPACE/NAME of a Secret".to_owned()),
    }
}

/// The words for how far a job is.
pub mod job_phase {
    /// Its nodes are known.
    pub const INIT: &str = "Init";
    /// A node has begun.
    pub const IN_PROGRESS: &str = "InProgress";
    /// All nodes are through, and no more of them failed than may.
    pub const COMPLETED: &str = "Completed";
    /// It makes no sense, or more nodes failed than may.
    pub const FAILURE: &str = "Failure";
}

/// The words for how far a node is.
pub mod node_phase {
    /// Its turn comes.
    pub const PENDING: &str = "Pending";
    /// It is at it.
    pub const IN_PROGRESS: &str = "InProgress";
    /// All is done.
    pub const SUCCESSFUL: &str = "Successful";
    /// It is not.
    pub const FAILURE: &str = "Failure";
    /// Nothing was heard for too long.
    pub const UNKNOWN: &str = "Unknown";
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// A word of [`job_phase`]; empty: nobody has looked at it yet.
    pub phase: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of each node, in the order of their turns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_status: Vec<NodeStatus>,
}

/// How far a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The node.
    pub node_name: String,
    /// A word of [`node_phase`].
    pub phase: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of a NodeUpgradeJob: the release before.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub historic_version: String,
    /// Of a NodeUpgradeJob: the release that it is to have.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub current_version: String,
    /// What was done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub action_flow: Vec<ActionStatus>,
    /// Of an ImagePrePullJob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_status: Vec<ImageStatus>,
}

/// What of a node moves as it goes on with its part: its time counts from the last change of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// How many actions have ended.
    pub actions: usize,
    /// What became of how many images is known.
    pub images: usize,
    /// Whether it waits on the node for its turn.
    pub waits: bool,
}

impl NodeStatus {
    /// What was heard of the node.
    pub fn heard(&self) -> Heard {
        let (actions, images) = (self.action_flow.len(), self.image_status.len());
        Heard { actions, images, waits: self.reason == WAITS_FOR_TURN }
    }
}

impl JobStatus {
    /// The status of a job; of one that has none, or one that nobody can read, that of a job that nobody has looked at.
    pub fn of(job: &Value) -> JobStatus {
        job.get("status").and_then(|status| JobStatus::deserialize(status).ok()).unwrap_or_default()
    }

    /// Whether no node begins any more.
    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), job_phase::COMPLETED | job_phase::FAILURE)
    }

    /// Whether nothing is left to be done, or heard.
    pub fn is_ended(&self) -> bool {
        self.is_over() && self.under_way().next().is_none()
    }

    /// The nodes that are at it.
    pub fn under_way(&self) -> impl Iterator<Item = (NodeName, &NodeStatus)> {
        let busy = self.node_status.iter().filter(|node| node.phase == node_phase::IN_PROGRESS);
        busy.filter_map(|node| Some((NodeName::parse(&node.node_name).ok()?, node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(change: impl FnOnce(&mut Value)) -> Result<JobSpec, String> {
        let mut template = json!({"images": ["nginx:1"], "nodeNames": ["a", "b", "a"]});
        change(&mut template);
        JobSpec::read(TaskKind::ImagePrePull, &json!({"spec": {"imagePrePullTemplate": template}}))
    }

    #[test]
    fn the_nodes_of_a_job_are_known_whatever_else_it_says() {
        let names = |kind, job: Value| match nodes_of(kind, &job) {
            Some(NodeChoice::Names(names)) => names.iter().map(ToString::to_string).collect(),
            Some(NodeChoice::Labels(selector)) => selector.match_labels.into_keys().collect(),
            None => Vec::new(),
        };
        // What of this makes no sense here is KubeEdge's.
        let upgrade = json!({"spec": {"version": "x", "image": "kubeedge/installation-package", "concurrency": "many",
            "nodeNames": ["a", "b", 7, "B/"]}});
        assert_eq!(names(TaskKind::NodeUpgrade, upgrade), ["a", "b"]);
        let template = json!({"imagePrePullTemplate": {"labelSelector": {"matchLabels": {"site": "x"}}}});
        assert_eq!(names(TaskKind::ImagePrePull, json!({"spec": template})), ["site"]);
        let many: Vec<String> = (0..NODES_MAX + 1).map(|n| format!("n{n}")).collect();
        assert_eq!(names(TaskKind::ConfigUpdate, json!({"spec": {"nodeNames": many}})).len(), NODES_MAX + 1);
        for none in [json!({}), json!({"spec": {"labelSelector": {}}}), json!({"spec": {"nodeNames": []}})] {
            assert_eq!(nodes_of(TaskKind::NodeUpgrade, &none), None, "{none}");
        }
    }

    #[test]
    fn what_is_left_out_is_kubeedges() {
        let spec = read(|_| {}).unwrap();
        let names = ["a", "b"].map(|name| NodeName::parse(name).unwrap()).to_vec();
        assert_eq!(spec.nodes, NodeChoice::Names(names), "each once");
        assert_eq!(
            (spec.concurrency, spec.timeout, spec.silence),
            (1, Duration::from_secs(300), Duration::from_secs(300))
        );
        assert_eq!((spec.failure_tolerate, spec.image_secret), (0.0, None));
        let spec = read(|template| {
            template["concurrency"] = json!(-3);
            template["failureTolerate"] = json!("0.25");
            template["imageSecrets"] = json!("shop/registry");
        })
        .unwrap();
        assert_eq!((spec.concurrency, spec.failure_tolerate), (1, 0.25));
        assert_eq!(spec.image_secret, Some(("shop".to_owned(), "registry".to_owned())));
    }

    #[test]
    fn an_upgrade_names_its_release_and_image_and_reaches_no_shell() {
        let read = |change: &dyn Fn(&mut Value)| {
            let mut spec =
                json!({"version": "v0.2.0", "image": "r.example/installation-package", "nodeNames": ["a"]});
            change(&mut spec);
            JobSpec::read(TaskKind::NodeUpgrade, &json!({ "spec": spec }))
        };
        assert_eq!(read(&|_| {}).unwrap().concurrency, 1);
        let spec = read(&|_| {}).unwrap();
        assert_eq!((spec.timeout, spec.silence), (Duration::from_secs(300), Duration::from_secs(900)));
        for (key, value, said) in [
            ("version", json!("v0.2.0; reboot"), "version is no release"),
            ("version", json!(""), "version is no release"),
            ("image", json!("kubeedge/installation-package"), "KubeEdge's programs"),
            ("image", json!("a`id`"), "image is no REGISTRY/NAME"),
            ("imageDigestGatter", json!({"amd64": "x"}), "imageDigestGatter"),
            (
                "imageDigestGatter",
                json!({"registryAPI": {"host": "h", "token": "t"}}),
                "no registry is asked",
            ),
            ("nodeNames", json!([]), "write nodeNames"),
        ] {
            let error = read(&|spec| spec[key] = value.clone()).unwrap_err();
            assert!(error.contains(said), "{key}: {error}");
        }
    }

    #[test]
    fn values_of_settings_are_one_line_each_and_what_they_say_is_the_nodes_to_judge() {
        let read = |fields: Value| {
            let spec =
                json!({"updateFields": fields, "nodeNames": ["a"], "timeoutSeconds": 60, "concurrency": 3});
            JobSpec::read(TaskKind::ConfigUpdate, &json!({ "spec": spec }))
        };
        let spec = read(json!({"modules.edgeHub.heartbeat": "20", "no.such.key": "x"})).unwrap();
        assert_eq!((spec.concurrency, spec.silence), (3, Duration::from_secs(180)));
        for (fields, said) in [
            (json!({}), "updateFields has 0; write 1 to 64"),
            (
                json!({"modules.edgeHub.heartbeat": "20\nkind: x"}),
                "`modules.edgeHub.heartbeat` has a line break",
            ),
            (json!({"a;reboot": "1"}), "`a;reboot` is no key"),
            (json!({"a": 1}), "spec: "),
            (json!(null), "spec: "),
        ] {
            let error = read(fields).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let told = |key: &str, value: Value| read(|template| template[key] = value).unwrap_err();
        let long: Vec<String> = (0..=NODES_MAX).map(|n| format!("n{n}")).collect();
        for (key, value, said) in [
            ("nodeNames", json!([]), "write nodeNames, or a labelSelector"),
            ("labelSelector", json!({"matchLabels": {"a": "b"}}), "write one of them"),
            ("nodeNames", json!(["../x"]), "nodeNames: node"),
            ("nodeNames", json!(long), "make several jobs"),
            ("images", json!([]), "write 1 to 32"),
            ("images", json!(["x; reboot"]), "is no image"),
            ("images", json!(["--privileged"]), "is no image"),
            ("failureTolerate", json!("NaN"), "write 0 to 1"),
            ("failureTolerate", json!("2"), "write 0 to 1"),
            ("timeoutSeconds", json!(-1), "write 1 to 86400"),
            ("checkItems", json!(["gpu"]), "`gpu` is none of cpu, mem and disk"),
            ("retryTimes", json!(99), "retryTimes is not 0 to 10"),
            ("imageSecrets", json!("../../x"), "no NAMESPACE/NAME"),
            ("images", json!("nginx"), "spec: "),
        ] {
            let error = told(key, value);
            assert!(error.contains(said), "{key}: {error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        assert!(JobSpec::read(TaskKind::ImagePrePull, &json!({})).is_err());
        // An empty selector is none: it would be every node.
        assert!(read(|template| template["labelSelector"] = json!({})).is_ok());
    }
}
